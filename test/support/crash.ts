// Runs to crash: a tiny recipe that writes everything a run writes (metrics, evaluations, checkpoints, an export), started
// as a process of its own, and what it leaves behind in a form that two runs can be compared by.

import { createHash } from "node:crypto";
import { existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, join, relative } from "node:path";
import type { TrainConfig } from "../../src/run/config.ts";
import { assert } from "../../src/words/errors.ts";
import { Random } from "../../src/words/random.ts";
import { fixtures, readJson } from "./models.ts";

export const tinyModel = join(fixtures, "qwen3-tiny");
export const root = join(import.meta.dir, "../..");

/** Blocks of the tiny model, in the order in which a checkpoint writes their files. */
export const stateFiles = ["embedding", "layer-0", "layer-1", "layer-2", "layer-3", "head"].map(
  (name) => `${name}.safetensors`,
);

/** Data and a config in `directory`; returns the config. Every step number below follows from this one. */
export function makeRecipe(directory: string): TrainConfig {
  const random = new Random(7);
  const words = "red green blue one two three up down left right".split(" ");
  const some = () => Array.from({ length: 2 + random.below(5) }, () => words[random.below(words.length)]).join(" ");
  const lines = (count: number) =>
    Array.from({ length: count }, () => `${JSON.stringify({ prompt: some(), completion: ` ${some()}` })}\n`).join("");
  const data = join(directory, "train.jsonl");
  const evaluationData = join(directory, "heldout.jsonl");
  writeFileSync(data, lines(60));
  writeFileSync(evaluationData, lines(6));
  return {
    model: tinyModel,
    data,
    evaluationData,
    output: join(directory, "undisturbed"),
    sequenceLength: 32,
    batchSize: 4,
    steps: 16,
    workers: 2,
    optimizer: { learningRate: 1e-3 },
    checkpoint: { every: 2, resume: "auto" },
    evaluation: { every: 4 },
  };
}

export type Run = Bun.Subprocess<"ignore", "pipe", "pipe">;

/** Starts `sluice train` with this config, written beside its output; `limit` (KiB) is the largest file it may write. */
export function startTraining(config: TrainConfig, options: { limit?: number; configAt?: string } = {}): Run {
  const { limit, configAt: path = `${config.output}.json` } = options;
  writeFileSync(path, JSON.stringify(config));
  const command = [process.execPath, join(root, "src/cli.ts"), "train", "--config", path];
  const words = limit === undefined ? command : ["bash", "-c", `ulimit -f ${limit} && exec "$@"`, "bash", ...command];
  return Bun.spawn(words, { env: process.env, cwd: root, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
}

export interface Ended {
  code: number | null;
  signal: Run["signalCode"];
  output: string;
  errors: string;
}

export async function ended(run: Run): Promise<Ended> {
  const [output, errors] = await Promise.all([run.stdout.text(), run.stderr.text(), run.exited]);
  return { code: run.exitCode, signal: run.signalCode, output, errors };
}

export const trainToEnd = (config: TrainConfig, options: { limit?: number } = {}): Promise<Ended> =>
  ended(startTraining(config, options));

/** Kills the run as soon as `reached` says so. It looks without pause, because a moment may last only milliseconds. */
export async function killWhen(run: Run, reached: () => boolean): Promise<Ended> {
  while (run.exitCode === null && run.signalCode === null) {
    const until = performance.now() + 5;
    while (performance.now() < until && !run.killed) if (reached()) run.kill("SIGKILL");
    if (run.killed) break;
    await Bun.sleep(0);
  }
  return ended(run);
}

/** A run of the recipe that was killed once it had the checkpoints 4 and 6; its stale lock is lock.test.ts's matter. */
export async function interruptedRun(recipe: TrainConfig, output: string): Promise<void> {
  const checkpoints = join(output, "checkpoints");
  const { signal, errors } = await killWhen(startTraining({ ...recipe, output }), () =>
    namesIn(checkpoints).includes("step-000006"),
  );
  rmSync(join(output, "run.lock"));
  assert(signal === "SIGKILL", `the run was to be killed (${errors})`);
  for (const name of namesIn(checkpoints))
    if (name !== "step-000004" && name !== "step-000006") rmSync(join(checkpoints, name), { recursive: true });
}

export function flipBit(path: string, position: number, bit: number): void {
  const bytes = readFileSync(path);
  bytes[position]! ^= 1 << bit;
  writeFileSync(path, bytes);
}

/** Names in a directory; none while it does not exist. */
export function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

/** Every file below a directory, sorted, relative to it. */
export function filesIn(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(directory, join(entry.parentPath, entry.name)))
    .sort();
}

/** The files of a directory with digests of their bytes. */
export function snapshot(directory: string): Record<string, string> {
  return Object.fromEntries(filesIn(directory).map((file) => [file, digestOf(join(directory, file))]));
}

const digestOf = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");

/**
 * All that a run leaves behind and that may depend neither on interruptions nor on clocks: the names of all files, the
 * bytes of weights and states, every line of the metrics without its times. Paths and options of the config differ.
 */
export function outcome(output: string): Record<string, unknown> {
  return Object.fromEntries(filesIn(output).map((file) => [file, contentOf(join(output, file))]));
}

function contentOf(path: string): unknown {
  switch (basename(path)) {
    case "metrics.jsonl":
      return lines(path).map((line) => {
        const { seconds: _, tokensPerSecond: _1, tflops: _2, deviceBytes: _3, ...rest } = JSON.parse(line);
        const { hostBytes: _4, residentBytes: _5, busiest: _6, busiestShare: _7, ...values } = rest;
        return values;
      });
    case "run.json":
    case "report.html": // both have the time it took
      return "written";
    case "loss.csv":
      return lines(path).map((line) => line.split(",").slice(0, -1).join(","));
    case "manifest.json": {
      const { config: _, digest: _1, data, heldOut: _2, ...values } = readJson(path);
      const { files: _3, parts: _4, ...position } = data as Record<string, unknown>; // when files were written, how far they were read
      return { ...values, data: position };
    }
    case "config.json":
      return path.includes("/model/") ? digestOf(path) : "written";
    default:
      return digestOf(path);
  }
}

export function lines(path: string): string[] {
  return existsSync(path) ? readFileSync(path, "utf8").split("\n").slice(0, -1) : [];
}

/** Where a killed process stopped, by what it left behind. */
export function leftBehind(output: string, pid: number): string {
  const own = new RegExp(`\\.${pid}\\.\\d+\\.tmp$`);
  const checkpoints = join(output, "checkpoints");
  const published = new Set(namesIn(checkpoints).filter((name) => /^step-\d+$/.test(name)));
  const temporary = namesIn(checkpoints).find((name) => own.test(name));
  if (temporary !== undefined) {
    const inside = namesIn(join(checkpoints, temporary));
    const step = /step-\d+/.exec(temporary)![0];
    if ([...published].some((name) => name > step)) return "pruning";
    if (inside.some((name) => own.test(name))) return "writing a manifest";
    return inside.includes("manifest.json") ? "publishing a checkpoint" : "writing a checkpoint's state";
  }
  if (namesIn(output).some((name) => own.test(name) && name.startsWith(".model@"))) return "exporting";
  if (published.size > 2) return "about to prune";
  return existsSync(join(output, "model")) ? "after the export" : "between checkpoints";
}
