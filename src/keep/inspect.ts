// What a directory holds, looked at without loading a weight: a model (config, tensors, files, tokenizer) or a checkpoint.
// Each part is read by itself, so that one that is broken does not hide the others; what is wrong is listed in `problems`.

import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { readManifest } from "./checkpoint.ts";
import { ModelError, SluiceError } from "../words/errors.ts";
import { openModelTensors, requireDirectory } from "../io/safetensors.ts";
import { readDecoderConfig, type DecoderConfig } from "../models/config.ts";
import { stopsOf } from "../engine/stops.ts";
import { withOwnHead } from "../models/open.ts";
import { checkTensors, parameterBlocks, parameterCount } from "../models/parameters.ts";

export interface FileEntry {
  name: string;
  bytes: number;
}

export interface ModelInspection {
  kind: "model";
  directory: string;
  architecture:
    | (Pick<DecoderConfig, "modelType" | "layers" | "hidden" | "intermediate" | "heads" | "kvHeads" | "headDim"> &
        Pick<DecoderConfig, "vocabulary" | "maxPositions" | "tied">)
    | undefined;
  /** As config.json asks for them, in the order of a forward pass. */
  blocks: { name: string; parameters: number }[];
  parameters: number;
  /** As the files have them. */
  dtypes: Record<string, { tensors: number; bytes: number }>;
  files: FileEntry[];
  tokenizer: { tokens: number; special: Record<string, string>; chatTemplate: boolean } | undefined;
  problems: string[];
}

export interface CheckpointInspection {
  kind: "checkpoint";
  directory: string;
  /** Finished steps. */
  step: number;
  /** Architecture, sizes and a digest of the layout. */
  model: string;
  /** The model that the run began with. */
  source: string | undefined;
  epoch: number;
  files: FileEntry[];
  problems: string[];
}

/** ModelError or CheckpointError when the directory is neither. */
export async function inspect(directory: string): Promise<ModelInspection | CheckpointInspection> {
  requireDirectory(directory);
  if (existsSync(join(directory, "manifest.json"))) return inspectCheckpoint(directory);
  if (existsSync(join(directory, "checkpoints")))
    throw new ModelError(
      `${directory}: is a run directory; inspect its model, ${join(directory, "model")}, or one of ${join(directory, "checkpoints")}: ` +
        `${readdirSync(join(directory, "checkpoints")).join(", ") || "(none)"}`,
    );
  return await inspectModel(directory);
}

async function inspectModel(directory: string): Promise<ModelInspection> {
  const problems: string[] = [];
  const declared = attempt(problems, () => readDecoderConfig(join(directory, "config.json")));
  const tensors = attempt(problems, () => openModelTensors(directory));
  const head = declared && tensors && attempt(problems, () => withOwnHead(declared, tensors));
  problems.push(...(head?.notes ?? []));
  const config = head?.config ?? declared;
  const ignored = config && tensors ? (attempt(problems, () => checkTensors(config, tensors)) ?? []) : [];
  if (ignored.length > 0) problems.push(`${directory}: these tensors are not read: ${ignored.join(", ")}`);
  const dtypes: ModelInspection["dtypes"] = {};
  for (const { dtype, bytes } of tensors?.tensors.values() ?? []) {
    const sum = (dtypes[dtype] ??= { tensors: 0, bytes: 0 });
    sum.tensors++;
    sum.bytes += bytes;
  }
  const blocks = config ? parameterBlocks(config) : [];
  return {
    kind: "model",
    directory,
    architecture: config && architectureOf(config),
    blocks: blocks.map(({ name, count }) => ({ name, parameters: count })),
    parameters: parameterCount(blocks),
    dtypes,
    files: filesIn(directory),
    tokenizer: await inspectTokenizer(directory, config, problems),
    problems,
  };
}

function architectureOf(config: DecoderConfig): ModelInspection["architecture"] {
  const { modelType, layers, hidden, intermediate, heads, kvHeads, headDim, vocabulary, maxPositions, tied } = config;
  return { modelType, layers, hidden, intermediate, heads, kvHeads, headDim, vocabulary, maxPositions, tied };
}

async function inspectTokenizer(
  directory: string,
  config: DecoderConfig | undefined,
  problems: string[],
): Promise<ModelInspection["tokenizer"]> {
  const { loadTokenizer } = await import("../data/text/tokenizer.ts");
  const tokenizer = await loadTokenizer(directory).catch((error) => void problems.push(messageOf(error)));
  if (!tokenizer) return undefined;
  const { vocabularySize: tokens, specialTokens: special, chatTemplate } = tokenizer;
  if (config) {
    attempt(problems, () => tokenizer.limitTo(config.vocabulary));
    const { note } = stopsOf({ directory, config }, tokenizer);
    if (note !== undefined) problems.push(note);
  }
  if (tokenizer.eosId === undefined)
    problems.push(`${directory}: the tokenizer names no eos_token, so nothing marks the end of texts and completions`);
  if (chatTemplate === undefined)
    problems.push(
      `${directory}: has no chat template, so conversations ("messages") cannot be used` +
        (existsSync(join(directory, "chat_template.json"))
          ? `; chat_template.json is a processor's, which tokenizers do not read: save its text as chat_template.jinja`
          : ""),
    );
  return { tokens, special, chatTemplate: chatTemplate !== undefined };
}

function inspectCheckpoint(directory: string): CheckpointInspection {
  const { step, model, config, data, files } = readManifest(directory);
  const problems = files.flatMap(({ name, bytes }) => {
    const path = join(directory, name);
    if (!existsSync(path)) return [`${path} is missing`];
    const { size } = statSync(path);
    return size === bytes ? [] : [`${path} has ${size} bytes, ${bytes} were written; it is cut off`];
  });
  const source = (config as { model?: string } | undefined)?.model;
  return { kind: "checkpoint", directory, step, model, source, epoch: data.epoch, files: filesIn(directory), problems };
}

function filesIn(directory: string): FileEntry[] {
  const names = readdirSync(directory).sort();
  const entries = names.map((name) => ({ name, stat: statSync(join(directory, name), { throwIfNoEntry: false }) }));
  return entries.flatMap(({ name, stat }) => (stat?.isFile() ? [{ name, bytes: stat.size }] : []));
}

/** The result, or undefined and one more problem. */
function attempt<T>(problems: string[], work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    problems.push(messageOf(error));
    return undefined;
  }
}

function messageOf(error: unknown): string {
  if (error instanceof SluiceError) return error.message;
  throw error;
}
