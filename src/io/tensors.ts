// Tensor bytes between files and buffers, played as plans on the disk stream: they never pass through JavaScript. Every
// file is checksummed piece by piece while it moves. What lies on the device passes through staging buffers.

import { join } from "node:path";
import { CheckpointError, ModelError, NativeError, StepError } from "../words/errors.ts";
import type { NativeBuffer, Engine } from "../native/runtime.ts";
import { Plan, type Label, type Range } from "../plan/plan.ts";
import { elementBytes, type FileLayout, type ModelTensors } from "./safetensors.ts";
import { Staging } from "./staging.ts";

const stagingBytes = 32 << 20;

/** Where a tensor of a file goes: split masters of `count` values. */
export interface SplitTarget {
  name: string;
  count: number;
  /** The masters of `length` of them, from the one at `first` on. */
  part(first: number, length: number): { hi: Range; lo: Range };
}

/** Reads tensors of a model directory (bf16, fp16 or fp32) into split masters. ModelError when a file gives out. */
export async function loadTensors(engine: Engine, model: ModelTensors, targets: readonly SplitTarget[]): Promise<void> {
  using scope = new Scope(engine);
  using staging = new Staging(engine, [stagingBytes, stagingBytes]);
  const checksum = scope.buffer("host", 64, "load checksum").range(0, 8);
  const files = new Map<string, NativeBuffer>();
  try {
    for (const path of model.files) files.set(path, scope.file(path, "read", endOf(model, path)));
  } catch (cause) {
    throw cause instanceof NativeError ? new ModelError(`${model.directory}: ${cause.message}`) : cause;
  }
  const plan = new Plan({ step: 0, phase: "load" });
  for (const { name, count, part } of targets) {
    const tensor = model.tensors.get(name)!;
    const file = files.get(tensor.file)!;
    const bytes = elementBytes(tensor.dtype);
    const dtype = ({ BF16: "bfloat16", F16: "float16", F32: "float32" } as const)[tensor.dtype];
    for (let first = 0; first < count; first += stagingBytes / bytes) {
      const piece = Math.min(stagingBytes / bytes, count - first);
      const { range: from, resource } = staging.take(piece * bytes);
      const source = file.range(tensor.offset + first * bytes, piece * bytes);
      plan.record("disk", "fileRead", { to: from, file: source, checksum }, { writes: [resource] });
      const { hi, lo } = part(first, piece);
      const split = { hi, lo, from, count: piece, dtype };
      plan.record("host", "splitWeights", split, { reads: [resource] });
    }
  }
  try {
    await engine.play(plan);
  } catch (cause) {
    throw cause instanceof StepError
      ? new ModelError(`${model.directory}: cannot load the weights: ${cause.message}`)
      : cause;
  }
  const changed = model.stamps.changed();
  if (changed !== undefined)
    throw new ModelError(`${changed}: was changed while it was loaded; load the model again when nobody writes to it`);
}

/** Where the last tensor of a file ends. */
function endOf({ tensors }: ModelTensors, path: string): number {
  return Math.max(0, ...[...tensors.values()].map(({ file, offset, bytes }) => (file === path ? offset + bytes : 0)));
}

/** Checksums of a file: of its header, then of each tensor, as 16 hex digits. */
export interface FileChecksums {
  name: string;
  bytes: number;
  checksums: string[];
}

/** Writes files laid out by `layoutSafetensors`, each tensor from the range `source` names, and flushes them. */
export async function writeTensors(
  engine: Engine,
  directory: string,
  files: readonly FileLayout[],
  source: (tensor: string) => Range,
  label: Label,
): Promise<FileChecksums[]> {
  using scope = new Scope(engine);
  const plan = new Plan(label);
  const sums = scope.sums(files);
  using staging = stagingFor(engine, files, source);
  for (const [index, { name, header, fileBytes, tensors }] of files.entries()) {
    const file = scope.file(join(directory, name), "write", fileBytes);
    const head = scope.buffer("host", header.length, `header of ${name}`);
    new Uint8Array(head.view()).set(header);
    plan.record("disk", "fileWrite", {
      file: file.range(0, header.length),
      from: head.range(),
      checksum: sums.at(index, 0),
    });
    for (const [position, tensor] of tensors.entries()) {
      const target = file.range(tensor.offset, tensor.bytes);
      const checksum = sums.at(index, position + 1);
      const { range: from, reads } = staging.onHost(plan, source(tensor.name));
      plan.record("disk", "fileWrite", { file: target, from, checksum }, { reads });
    }
    plan.record("disk", "fileSync", { file: file.range() });
  }
  await engine.play(plan);
  return files.map(({ name, fileBytes }, index) => ({ name, bytes: fileBytes, checksums: sums.of(index) }));
}

/**
 * Reads such files back into ranges and compares every checksum; CheckpointError names the file and tensor that is
 * damaged. The ranges are overwritten as the bytes come, so a caller that cannot use damaged state must not go on.
 */
export async function readTensors(
  engine: Engine,
  directory: string,
  files: readonly FileLayout[],
  target: (tensor: string) => Range,
  expected: readonly FileChecksums[],
): Promise<void> {
  using scope = new Scope(engine);
  const plan = new Plan({ step: 0, phase: "load" });
  const sums = scope.sums(files);
  using staging = stagingFor(engine, files, target);
  for (const [index, { name, header, tensors, fileBytes }] of files.entries()) {
    const file = opened(scope, join(directory, name), fileBytes);
    const head = scope.buffer("host", header.length, `header of ${name}`).range();
    plan.record("disk", "fileRead", { to: head, file: file.range(0, header.length), checksum: sums.at(index, 0) });
    for (const [position, tensor] of tensors.entries()) {
      const from = file.range(tensor.offset, tensor.bytes);
      const checksum = sums.at(index, position + 1);
      const to = target(tensor.name);
      if (to.buffer.tier === "device") {
        const { range, resource } = staging.take(tensor.bytes);
        plan.record("disk", "fileRead", { to: range, file: from, checksum }, { writes: [resource] });
        plan.record("upload", "copy", { to, from: range }, { reads: [resource] });
      } else plan.record("disk", "fileRead", { to, file: from, checksum });
    }
  }
  try {
    await engine.play(plan);
  } catch (cause) {
    throw cause instanceof StepError ? new CheckpointError(`${directory}: ${cause.message}`) : cause;
  }
  for (const [index, { name, tensors }] of files.entries())
    for (const [position, found] of sums.of(index).entries())
      if (found !== expected[index]!.checksums[position]) {
        const what = position === 0 ? "its header" : `tensor ${tensors[position - 1]!.name}`;
        throw new CheckpointError(
          `${join(directory, name)}: ${what} is damaged (checksum ${found}, expected ${expected[index]!.checksums[position]})`,
        );
      }
}

/** Through which every tensor passes that lies on the device. */
function stagingFor(engine: Engine, files: readonly FileLayout[], where: (tensor: string) => Range): Staging {
  const tensors = files.flatMap((file) => file.tensors);
  return new Staging(
    engine,
    tensors.filter(({ name }) => where(name).buffer.tier === "device").map(({ bytes }) => bytes),
  );
}

function opened(scope: Scope, path: string, bytes: number): NativeBuffer {
  try {
    return scope.file(path, "read", bytes);
  } catch (cause) {
    throw cause instanceof NativeError ? new CheckpointError(cause.message) : cause;
  }
}

/** Buffers and files of one transfer, freed at its end. */
class Scope implements Disposable {
  #engine: Engine;
  #held: NativeBuffer[] = [];

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  buffer(tier: "pinned" | "host", bytes: number, name: string): NativeBuffer {
    const buffer = this.#engine.buffer(tier, bytes, name);
    this.#held.push(buffer);
    return buffer;
  }

  file(path: string, mode: "read" | "write", bytes: number): NativeBuffer {
    const file = this.#engine.file(path, mode, bytes);
    this.#held.push(file);
    return file;
  }

  /** A checksum per header and tensor, in one buffer. */
  sums(files: readonly FileLayout[]) {
    const counts = files.map(({ tensors }) => tensors.length + 1);
    const first = counts.map((_, index) => counts.slice(0, index).reduce((a, b) => a + b, 0));
    const buffer = this.buffer("host", 64 * counts.reduce((a, b) => a + b, 0), "checksums");
    return {
      at: (file: number, position: number): Range => buffer.range((first[file]! + position) * 64, 8),
      of: (file: number): string[] => {
        const values = new BigUint64Array(buffer.view());
        return Array.from({ length: counts[file]! }, (_, position) =>
          values[(first[file]! + position) * 8]!.toString(16).padStart(16, "0"),
        );
      },
    };
  }

  [Symbol.dispose](): void {
    for (const buffer of this.#held) buffer.free();
  }
}
