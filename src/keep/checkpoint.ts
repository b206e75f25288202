// Checkpoints: everything that a run needs to continue bit for bit, on disk only.
//
// A checkpoint is a directory `step-000100` with the exact training state (split masters and moments of every block, as
// safetensors) and `manifest.json`, which names each file with the checksum of every tensor and carries a digest of
// itself. It is written under a temporary name, flushed, and renamed, and renamed again before it is deleted: whatever is
// called `step-N` was complete once, and `kill -9` at any moment leaves the previous checkpoint. Reading compares every
// checksum.

import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, statSync } from "node:fs";
import { rm } from "node:fs/promises";
import { basename, join } from "node:path";
import type { LoaderState } from "../data/batches.ts";
import { formatValue } from "../words/format.ts";
import { CancelledError, CheckpointError, SluiceError } from "../words/errors.ts";
import {
  explainFileError,
  fileError,
  removeLeftovers,
  replaceDirectory,
  temporaryPath,
  writeFileAtomic,
} from "../io/atomic.ts";
import type { FileNote } from "../io/file-stamps.ts";
import { isObject, parseJson } from "../io/json.ts";
import { layoutSafetensors, type FileLayout, type TensorToWrite } from "../io/safetensors.ts";
import { readTensors, writeTensors, type FileChecksums } from "../io/tensors.ts";
import type { ModelWeights } from "../engine/weights.ts";
import type { Range } from "../plan/plan.ts";
import { formatDefault, stateName, partsOf } from "../state/format.ts";
import type { Trainer } from "../engine/trainer.ts";

const format = 1;
const manifestName = "manifest.json";

/** What a checkpoint says beside the tensors. */
export interface Manifest {
  format: number;
  /** Finished steps. */
  step: number;
  /** What the state belongs to: architecture, sizes, parameter layout. */
  model: string;
  /** Position in the data. */
  data: LoaderState;
  /** What the run is evaluated on, if it is: the digest of its tokens, and its files as they were. */
  heldOut?: { digest: string; files?: FileNote[] };
  /** What decides the bits of a step beside the config. */
  bits?: Record<string, string | number>;
  /** The run's config, for the reader. */
  config: unknown;
  /** What the next step's gradients are scaled by, where steps are clipped by the norm of the one before. */
  nextFactor?: number;
  files: FileChecksums[];
}

/**
 * Saves a trainer as `directory/step-N`; returns the path. `data` is the position of what feeds it, `loader.state()`; `config`
 * what a reader should know of the run, by default the trainer's own. SluiceError when the disk is full or not writable.
 */
export async function saveCheckpoint(
  trainer: Trainer,
  directory: string,
  {
    data,
    config = { model: trainer.model.directory, ...trainer.config },
    heldOut,
    bits,
  }: Pick<Manifest, "data" | "heldOut" | "bits"> & { config?: unknown },
): Promise<string> {
  await trainer.drain();
  const { model, steps: step } = trainer;
  const path = join(directory, stepName(step));
  const temporary = temporaryPath(path);
  try {
    mkdirSync(directory, { recursive: true });
    mkdirSync(temporary);
    const files = await writeTensors(model.engine, temporary, stateFiles(model), source(trainer), {
      step,
      phase: "save",
    });
    const { previousFactor: nextFactor } = trainer.session;
    const factor = nextFactor === undefined ? {} : { nextFactor };
    const manifest: Manifest = {
      format,
      step,
      model: identity(model),
      data,
      ...(heldOut && { heldOut }),
      ...(bits && { bits }),
      config,
      ...factor,
      files,
    };
    await writeFileAtomic(join(temporary, manifestName), sealed(manifest));
    await replaceDirectory(temporary, path); // there already: the run was resumed from an older one
    return path;
  } catch (cause) {
    await rm(temporary, { recursive: true, force: true }).catch(() => {}); // the first failure is the one to tell
    throw explained(cause, path);
  }
}

function explained(cause: unknown, path: string): unknown {
  if (cause instanceof SluiceError && !(cause instanceof CancelledError))
    return new CheckpointError(
      `cannot save ${path}: ${cause.message}; check the disk's free space, then resume: earlier checkpoints are untouched`,
    );
  return fileError(cause, "write", path);
}

/** Puts a checkpoint's state into a trainer; CheckpointError when anything in it is damaged or belongs to another model. */
export async function restoreCheckpoint(trainer: Trainer, path: string): Promise<Manifest> {
  const { manifest, files } = openCheckpoint(trainer.model, path);
  await trainer.drain();
  await readTensors(trainer.model.engine, path, files, source(trainer), manifest.files);
  trainer.restored(manifest.step, manifest.nextFactor);
  return manifest;
}

/** Puts a checkpoint's weights alone into a model that has no trainer; optimizer state is neither read nor given room. */
export async function restoreWeights(model: ModelWeights, path: string): Promise<Manifest> {
  const { manifest, files } = openCheckpoint(model, path);
  const isWeight = (name: string): boolean => model.state.has(name);
  const weights = files.map((file) => ({ ...file, tensors: file.tensors.filter(({ name }) => isWeight(name)) }));
  const expected = manifest.files.map((file, index) => {
    const names = ["", ...files[index]!.tensors.map(({ name }) => name)]; // the header's checksum comes first
    return { ...file, checksums: file.checksums.filter((_, at) => at === 0 || isWeight(names[at]!)) };
  });
  await readTensors(model.engine, path, weights, (tensor) => model.state.get(tensor)!.range(), expected);
  return manifest;
}

/** A checkpoint's manifest and files, which are there in full and fit the model. */
function openCheckpoint(model: ModelWeights, path: string): { manifest: Manifest; files: FileLayout[] } {
  const manifest = readManifest(path);
  if (manifest.model !== identity(model))
    throw new CheckpointError(
      `${path} belongs to another model, or to an earlier config.json (${manifest.model}, this is ${identity(model)})`,
    );
  const files = stateFiles(model);
  for (const [index, { name, fileBytes }] of files.entries()) {
    if (manifest.files[index]?.name !== name)
      throw new CheckpointError(`${join(path, manifestName)} lists other files than this model's state has`);
    const file = join(path, name);
    const found = statSync(file, { throwIfNoEntry: false });
    if (!found?.isFile())
      throw new CheckpointError(`${file} is ${found ? "no file" : "missing"}; resume from another checkpoint`);
    const { size } = found;
    if (size !== fileBytes)
      throw new CheckpointError(`${file} has ${size} bytes, ${fileBytes} were written; it is cut off`);
  }
  return { manifest, files };
}

/** The manifest of a checkpoint, checked against its own digest. */
export function readManifest(path: string): Manifest {
  const file = join(path, manifestName);
  let value: Partial<Manifest & { digest: string }>;
  try {
    const parsed = parseJson(readFileSync(file, "utf8"));
    if (!isObject(parsed)) throw new Error("is no JSON object");
    value = parsed as typeof value;
  } catch (cause) {
    const problem = (cause as NodeJS.ErrnoException).code ? explainFileError(cause, "read") : (cause as Error).message;
    throw new CheckpointError(`${file}: ${problem}; this is no complete checkpoint`);
  }
  const { digest, ...manifest } = value;
  if (digest !== digestOf(manifest)) throw new CheckpointError(`${file} is damaged (its digest does not match)`);
  if (manifest.format !== format)
    throw new CheckpointError(
      `${file} has format ${formatValue(manifest.format)}, this version reads format ${format}`,
    );
  const problem = manifestProblem(manifest);
  if (problem !== undefined)
    throw new CheckpointError(`${file} has no good ${problem}; resume from another checkpoint`);
  return manifest as Manifest;
}

/** The key of a manifest that is not what `saveCheckpoint` writes. */
function manifestProblem({
  step,
  model,
  data,
  heldOut,
  bits,
  files,
}: Partial<Record<keyof Manifest, unknown>>): string | undefined {
  const isFile = (file: unknown): boolean =>
    isObject(file) &&
    typeof file["name"] === "string" &&
    Array.isArray(file["checksums"]) &&
    file["checksums"].every((sum) => typeof sum === "string");
  if (!Number.isSafeInteger(step) || (step as number) < 0) return "step";
  if (typeof model !== "string") return "model";
  if (!isObject(data)) return "data";
  if (heldOut !== undefined && !isObject(heldOut)) return "heldOut";
  if (bits !== undefined && !isObject(bits)) return "bits";
  if (!Array.isArray(files) || !files.every(isFile)) return "files";
  return undefined;
}

/** Paths of the checkpoints in a directory, newest first; a damaged one is found out when it is read. */
export function listCheckpoints(directory: string): string[] {
  if (!existsSync(directory)) return [];
  return namesIn(directory)
    .filter((name) => /^step-\d{6,}$/.test(name))
    .sort((a, b) => stepOf(b) - stepOf(a))
    .map((name) => join(directory, name));
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (cause) {
    throw fileError(cause, "read", directory);
  }
}

/** Deletes all checkpoints: the user has said that a run starts anew in their place. */
export function removeCheckpoints(directory: string): void {
  if (existsSync(directory)) pruneCheckpoints(directory, 0);
}

/** Which checkpoints to delete so that the newest `keep` remain. Pure. */
export function checkpointsToDelete(paths: readonly string[], keep: number): string[] {
  return [...paths].sort((a, b) => stepOf(b) - stepOf(a)).slice(keep);
}

/** Deletes old checkpoints, and what interrupted writers left behind. A name goes first, so that no half is ever listed. */
export function pruneCheckpoints(directory: string, keep: number): void {
  try {
    for (const path of checkpointsToDelete(listCheckpoints(directory), keep)) renameSync(path, temporaryPath(path));
    removeLeftovers(directory);
  } catch (cause) {
    throw fileError(cause, "write", directory);
  }
}

/**
 * Moves checkpoints past `step` to `DIRECTORY.earlier`, or `.earlier-2` and so on when that is taken. A run that goes on from
 * an older checkpoint leaves their course: they must neither count as its newest nor be resumed by mistake.
 */
export function setAside(directory: string, step: number): string | undefined {
  const left = listCheckpoints(directory).filter((path) => stepOf(path) > step);
  if (left.length === 0) return undefined;
  let aside = `${directory}.earlier`;
  for (let count = 2; existsSync(aside); count++) aside = `${directory}.earlier-${count}`;
  try {
    mkdirSync(aside);
    for (const path of left) renameSync(path, join(aside, basename(path)));
  } catch (cause) {
    throw fileError(cause, "write", aside);
  }
  return aside;
}

const stepName = (step: number): string => `step-${String(step).padStart(6, "0")}`;
/** The step that a path of `listCheckpoints` is of. */
export const stepOf = (path: string): number => Number(/step-(\d+)$/.exec(path)![1]);

function sealed(manifest: Manifest): string {
  return `${JSON.stringify({ ...manifest, digest: digestOf(manifest) }, null, 1)}\n`;
}
const digestOf = (manifest: object): string =>
  new Bun.CryptoHasher("sha256").update(JSON.stringify(manifest)).digest("hex");

/** Architecture, parameter layout and what config.json says of the arithmetic, in one line: state of one fits no other. */
function identity(model: ModelWeights): string {
  const { source: _, bosId: _1, eosIds: _2, padId: _3, maxPositions: _4, ...arithmetic } = model.config;
  const { modelType, layers, hidden, vocabulary } = arithmetic;
  const layout = model.blocks.map(({ name, length, tensors }) => [
    name,
    length,
    tensors.map((t) => [t.name, t.shape, t.offset]),
  ]);
  const digest = new Bun.CryptoHasher("sha256")
    .update(JSON.stringify([layout, arithmetic]))
    .digest("hex")
    .slice(0, 12);
  return `${modelType} ${layers}x${hidden} vocabulary ${vocabulary} ${digest}`;
}

/** One file per block: names and sizes of the state, whatever is on the device at the moment. */
function stateFiles(model: ModelWeights): FileLayout[] {
  return model.blocks.map((block) => {
    const tensors = partsOf(formatDefault, { training: true }).map((part): TensorToWrite => ({
      name: stateName(block, part),
      dtype: part.dtype,
      shape: [block.length],
    }));
    const [file] = layoutSafetensors(tensors, { format: "sluice" }, { shardBytesMax: Infinity }).files;
    return { ...file!, name: `${block.name.replace(" ", "-")}.safetensors` };
  });
}

function source(trainer: Trainer): (tensor: string) => Range {
  const state = trainer.session.recorder.state.named();
  return (tensor) => state.get(tensor)!;
}
