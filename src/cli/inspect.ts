// `sluice inspect`: what a model directory or a checkpoint holds, and what is wrong with it.

import { parseArgs } from "node:util";
import { ConfigError } from "../words/errors.ts";
import { formatBytes, formatCount } from "../words/format.ts";
import type { CheckpointInspection, FileEntry, ModelInspection } from "../keep/inspect.ts";
import type { Command } from "./command.ts";

const help = `sluice inspect DIR [--json]

A model directory: architecture, parameters per block, dtypes, files, tokenizer. A checkpoint: step,
model, files. Problems come last, and then the exit code is 1. No weight is loaded; export or resume
compares a checkpoint's checksums.`;

async function run(args: string[]): Promise<void> {
  const { values, positionals } = parseArgs({ args, allowPositionals: true, options: { json: { type: "boolean" } } });
  const [directory, ...more] = positionals;
  if (directory === undefined || more.length > 0) throw new ConfigError("sluice inspect needs one directory");
  const { inspect } = await import("../keep/inspect.ts");
  const found = await inspect(directory);
  if (values.json) console.log(JSON.stringify(found));
  else console.log((found.kind === "model" ? describeModel(found) : describeCheckpoint(found)).join("\n"));
  if (found.problems.length > 0) process.exitCode = 1;
}

function describeModel(found: ModelInspection): string[] {
  const { architecture: a, tokenizer, dtypes } = found;
  const lines = [
    `${found.directory}: ${a ? `${a.modelType}, ${formatCount(found.parameters)} parameters` : "a model"}`,
  ];
  if (a) {
    lines.push(
      row("layers", `${a.layers} × hidden ${a.hidden}, intermediate ${a.intermediate}`),
      row("attention", `${a.heads} heads over ${a.kvHeads} of keys and values, ${a.headDim} wide`),
      row("vocabulary", `${a.vocabulary}, head ${a.tied ? "tied to the embedding" : "of its own"}`),
      row("positions", String(a.maxPositions)),
    );
    for (const [name, count] of runs(found.blocks)) lines.push(row(name, `${formatCount(count)} parameters`));
  }
  for (const [dtype, { tensors, bytes }] of Object.entries(dtypes))
    lines.push(row(dtype, `${tensors} tensors, ${formatBytes(bytes)}`));
  if (tokenizer) {
    const special = Object.entries(tokenizer.special).map(([name, token]) => `${name} ${token}`);
    lines.push(row("tokenizer", [`${tokenizer.tokens} tokens`, ...special].join(", ")));
    lines.push(row("chat template", tokenizer.chatTemplate ? "yes" : "no"));
  }
  return [...lines, ...describeFiles(found.files), ...describeProblems(found.problems)];
}

function describeCheckpoint(found: CheckpointInspection): string[] {
  return [
    `${found.directory}: checkpoint after step ${found.step}, in epoch ${found.epoch}`,
    row("model", found.model),
    row("began with", found.source ?? "unknown"),
    ...describeFiles(found.files),
    ...describeProblems(found.problems),
  ];
}

const row = (name: string, value: string): string => `  ${name.padEnd(16)} ${value}`;

/** Neighbouring layers of one size as one line: "layer 0–27", and what each of them has. */
function runs(blocks: ModelInspection["blocks"]): [name: string, parameters: number][] {
  const found: { first: string; last: string; parameters: number }[] = [];
  for (const { name, parameters } of blocks) {
    const before = found.at(-1);
    const continues = before?.parameters === parameters && before.last.startsWith("layer") && name.startsWith("layer");
    if (continues) before.last = name;
    else found.push({ first: name, last: name, parameters });
  }
  return found.map(({ first, last, parameters }) => [
    first === last ? first : `${first}–${last.replace("layer ", "")}, each`,
    parameters,
  ]);
}

function describeFiles(files: FileEntry[]): string[] {
  const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
  return [
    row(`${files.length} files`, formatBytes(total)),
    ...files.map(({ name, bytes }) => `    ${formatBytes(bytes).padStart(10)}  ${name}`),
  ];
}

const describeProblems = (problems: string[]): string[] =>
  problems.length === 0 ? ["no problems found"] : ["problems:", ...problems.map((problem) => `  - ${problem}`)];

export const command: Command = { help, run };
