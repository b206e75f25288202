// The state table: what training keeps per parameter, part by part. Nobody else writes a part's name with its bytes; who
// holds, moves, saves, checks or prices training state asks here.
//
// A weight's float32 bits are two arrays: `hi`, its nearest bf16, is what the device computes with and is uploaded as it
// stands; `lo` is the rest, so that (hi << 16) + lo is exact. AdamW joins, updates and splits them, and keeps two moments.
//
// Read next: `parameters.ts`, where the parts of a block lie and who touched them last; `optimizers/adamw.ts`, which
// updates them.

import { elementBytes, type SafetensorsDtype } from "../io/safetensors.ts";
import type { ParameterBlock } from "../models/parameters.ts";

export type PartName = "hi" | "lo" | "m" | "v";

/** One array of a block's state. */
export interface StatePart {
  readonly name: PartName;
  /** Of its elements, in memory as in checkpoints. */
  readonly dtype: SafetensorsDtype;
  /** Parameters that share an element; 1 unless given. A scale of 8-bit values stands for a whole group. */
  readonly per?: number;
  /** Where it lies while its block is not resident on the device. */
  readonly tier: "pinned" | "host";
  /** A master is there whenever the model is; moments, while it is trained. */
  readonly of: "master" | "moments";
  /** On the memory bill. */
  readonly purpose: string;
}

const tables = {
  /** Exact AdamW with float32 masters: 12 bytes per parameter. */
  fp32: [
    { name: "hi", dtype: "BF16", tier: "pinned", of: "master", purpose: "weights: hi (bf16)" },
    { name: "lo", dtype: "I16", tier: "host", of: "master", purpose: "weights: lo" },
    { name: "m", dtype: "F32", tier: "host", of: "moments", purpose: "moments m, v" },
    { name: "v", dtype: "F32", tier: "host", of: "moments", purpose: "moments m, v" },
  ],
} as const satisfies Record<string, readonly StatePart[]>;

/** What `optimizer.state` of a config may be. */
export type StateFormat = keyof typeof tables;
export const stateFormats = Object.keys(tables) as StateFormat[];
export const formatDefault: StateFormat = "fp32";

/** The parts of a format in the order in which they are allocated and saved; of a model that is not trained, its masters. */
export const partsOf = (format: StateFormat, { training }: { training: boolean }): readonly StatePart[] =>
  tables[format].filter((part) => training || part.of === "master");

/** Bytes of a part per parameter; a fraction where parameters share an element. */
export const bytesEach = ({ dtype, per = 1 }: Pick<StatePart, "dtype" | "per">): number => elementBytes(dtype) / per;

/** Bytes of a part for so many parameters. */
export const partBytes = (part: Pick<StatePart, "dtype" | "per">, parameters: number): number =>
  Math.ceil(parameters / (part.per ?? 1)) * elementBytes(part.dtype);

/** Bytes of all parts per parameter. */
export const stateBytes = (format: StateFormat): number =>
  tables[format].reduce((sum, part) => sum + bytesEach(part), 0);

/** What a part of a block is called: its buffer, and its tensor in a checkpoint. */
export const stateName = (block: Pick<ParameterBlock, "name">, { name }: Pick<StatePart, "name">): string =>
  `${block.name}.${name}`;

/** Something for each part, by its name; ops call their arguments the same. */
export function byPart<T>(parts: readonly StatePart[], make: (part: StatePart) => T): Record<PartName, T> {
  return Object.fromEntries(parts.map((part) => [part.name, make(part)])) as Record<PartName, T>;
}
