// What a run leaves in its directory, read back: config.json (the config in full), run.json (what the config does not say:
// model, data, memory bill, machine, answers), metrics.jsonl (`metrics.ts`). The report is made from these files alone, so
// it can be made again at any time, on another machine, or while the run goes on.
//
// `train` writes run.json at the start and again with `seconds` at the end; `addAnswers` puts answers into it.

import { existsSync, readFileSync } from "node:fs";
import { cpus, release, totalmem, type } from "node:os";
import { basename, join, resolve } from "node:path";
import { version as sluiceVersion } from "../../package.json";
import { DataError } from "../words/errors.ts";
import type { Answer } from "../engine/evaluate.ts";
import { formatBytes } from "../words/format.ts";
import { explainFileError, writeFileAtomic } from "../io/atomic.ts";
import { type BillLine } from "../plan/buffers.ts";
import { summarizeBill } from "../tiers/bill.ts";
import type { EvaluationMetrics, StepMetrics } from "./metrics.ts";
import { abiHash } from "../native/abi.gen.ts";
import { native } from "../native/library.ts";

/** run.json. */
export interface RunFacts {
  /** ISO 8601. */
  started: string;
  /** Wall-clock time of this process's part of the run; null while it goes on. */
  seconds: number | null;
  /** Length of the whole run, in steps. */
  steps: number;
  /**
   * What the simulator says for full rows, at rates that were measured of this GPU, or of two CPU cores somewhere; null on a
   * GPU that was not measured, because the config left nothing to fit.
   */
  predictedTokensPerSecond: number | null;
  model: { type: string; parameters: number; weightBytes: number };
  data: { samples: number; tokens: number; validTokens: number; truncated: number; dropped: number };
  /** One line per purpose and tier. */
  bill: { purpose: string; tier: string; bytes: number }[];
  /** What ran where, in the words that the report shows. */
  environment: Record<string, string>;
  answers: SampleAnswer[];
}

export interface SampleAnswer {
  question: string;
  expected: string;
  /** Null: nobody asked then. */
  before: string | null;
  after: string | null;
}

/** A run directory as the report sees it. */
export interface RunRecord {
  directory: string;
  /** The directory's own name. */
  name: string;
  config: Record<string, unknown>;
  /** Undefined for a run that wrote none. */
  facts: RunFacts | undefined;
  steps: StepMetrics[];
  evaluations: EvaluationMetrics[];
}

const answersMax = 12;

/** Everything there is to know; DataError when the directory is no run's. */
export function readRun(directory: string): RunRecord {
  const config = readJson(join(directory, "config.json"));
  if (config === undefined)
    throw new DataError(`${directory} is not a run directory: it has no config.json; give the \`output\` of a run`);
  const facts = readJson(join(directory, "run.json")) as RunFacts | undefined;
  return { directory, name: basename(resolve(directory)), config, facts, ...readMetrics(directory) };
}

/** The lines of metrics.jsonl by kind. A last line without its newline is still being written and is left out. */
export function readMetrics(directory: string): Pick<RunRecord, "steps" | "evaluations"> {
  const path = join(directory, "metrics.jsonl");
  const steps: StepMetrics[] = [];
  const evaluations: EvaluationMetrics[] = [];
  if (!existsSync(path)) return { steps, evaluations };
  for (const [index, line] of readFileSync(path, "utf8").split("\n").slice(0, -1).entries()) {
    const record = parse(line, `${path}:${index + 1}`);
    if (record["kind"] === "step") steps.push(record as unknown as StepMetrics);
    else if (record["kind"] === "evaluation") evaluations.push(record as unknown as EvaluationMetrics);
  }
  return { steps, evaluations };
}

export async function writeFacts(directory: string, facts: RunFacts): Promise<void> {
  await writeFileAtomic(join(directory, "run.json"), `${JSON.stringify(facts, null, 2)}\n`);
}

/** Pairs answers to the same questions by a model before and after, and puts the first dozen into run.json. */
export async function addAnswers(directory: string, before: readonly Answer[], after: readonly Answer[]) {
  const { facts } = readRun(directory);
  if (facts === undefined) throw new DataError(`${directory} has no run.json to put answers into`);
  const earlier = new Map(before.map((answer) => [answer.question, answer.answer]));
  const answers = after.slice(0, answersMax).map(({ question, expected, answer }) => {
    return { question, expected, before: earlier.get(question) ?? null, after: answer };
  });
  await writeFacts(directory, { ...facts, answers });
}

/** The facts of a run that begins now. */
export function factsOf(
  run: Pick<RunFacts, "steps" | "predictedTokensPerSecond" | "model" | "data"> & { bill: readonly BillLine[] },
): RunFacts {
  const started = new Date().toISOString();
  return { ...run, started, seconds: null, bill: summarizeBill(run.bill), environment: environment(), answers: [] };
}

function environment(): Record<string, string> {
  const processors = cpus();
  const level = native().sluice_cpu_level();
  return {
    Sluice: sluiceVersion,
    "native library": `ABI ${abiHash.toString(16)}${level > 0 ? `, kernels for x86_64_v${level}` : ""}`,
    Bun: Bun.version,
    CPU: `${processors.length} × ${processors[0]?.model.trim() ?? "unknown"}`,
    memory: formatBytes(totalmem()),
    OS: `${type()} ${release()}, ${process.arch}`,
  };
}

function readJson(path: string): Record<string, unknown> | undefined {
  if (!existsSync(path)) return undefined;
  try {
    return parse(readFileSync(path, "utf8"), path);
  } catch (cause) {
    if (cause instanceof DataError) throw cause;
    throw new DataError(`${path}: ${explainFileError(cause, "read")}`);
  }
}

function parse(text: string, where: string): Record<string, unknown> {
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch (cause) {
    throw new DataError(`${where}: not JSON (${(cause as Error).message}); remove the file to go on without it`);
  }
}
