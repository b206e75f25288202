// What a step's tokens mean to the engine: Int32 arrays for the device (positions, document starts, which rows count and
// their targets) and for the host (token ids, and where each distinct token occurs, for the embedding's gradient).
// Two sets of staging buffers alternate, so that a step can be written down while the one before is still computing.

import type { MicroBatch } from "../data/batches.ts";
import type { DeviceBatch } from "../models/parts/part.ts";
import { alignBytes, carve, totalBytes } from "../plan/layout.ts";
import { Resource, type Plan, type Range } from "../plan/plan.ts";
import { line, type Buffers, type Kind } from "../plan/buffers.ts";
import { distinctMax, type StepShape } from "../tiers/shape.ts";

/** Which of two sets of buffers a step uses; they take turns. */
export type Side = 0 | 1;
export const sides: readonly Side[] = [0, 1];

/** Puts Int32 values where a range of the host begins; the simulator has none and leaves it out. */
export type WriteInts = (to: Range, values: Int32Array) => void;

export interface StepInputs {
  /** Per pass and micro-batch. */
  batches: DeviceBatch[][];
  /** Token ids per pass and micro-batch, for the gather. */
  tokens: Range[][];
  /** Distinct tokens of the step, increasing. */
  distinctTokens: Range;
  distinct: number;
  /** Per pass: positions in `embedding.dRows` sorted by token, and where each distinct token's begin. */
  order: Range[];
  starts: Range[];
}

/** Int32 arrays of one micro-batch for the device, each at a multiple of 64 bytes. */
function batchSizes({ tokensMax }: StepShape): Record<"positions" | "rowIndex" | "targets" | "starts", number> {
  const perToken = alignBytes(tokensMax * 4);
  return { positions: perToken, rowIndex: perToken, targets: perToken, starts: alignBytes((tokensMax + 1) * 4) };
}

/** Those of a step for host ops. */
function embedSizes(shape: StepShape): Record<"tokens" | "distinct" | "order" | "starts", number> {
  const { passes, microBatches, tokensMax } = shape;
  return {
    tokens: passes * microBatches * alignBytes(tokensMax * 4),
    distinct: alignBytes(distinctMax(shape) * 4),
    order: passes * alignBytes(microBatches * tokensMax * 4),
    starts: passes * alignBytes((distinctMax(shape) + 1) * 4),
  };
}

export class Inputs {
  readonly shape: StepShape;
  /** Who sends the step's arrays to the device, and computes with them. */
  readonly resource = new Resource();
  readonly #device: Range;
  readonly #sides: { batch: Range; embed: Range }[];
  readonly #write: WriteInts;

  static bill(shape: StepShape) {
    const input: Kind = { role: "input", tier: "device", purpose: "token ids, positions, targets" };
    const bytes = shape.passes * shape.microBatches * totalBytes(batchSizes(shape));
    return {
      device: line(input, "batch", bytes),
      sides: sides.map((side) => ({
        batch: line({ ...input, tier: "pinned", side }, `batch.${side}`, bytes),
        embed: line({ ...input, tier: "host", side }, `embed.${side}`, totalBytes(embedSizes(shape))),
      })),
    };
  }

  constructor(shape: StepShape, buffers: Buffers, write: WriteInts) {
    const { device, sides: staging } = buffers.held(Inputs.bill(shape));
    this.shape = shape;
    this.#device = device;
    this.#sides = staging;
    this.#write = write;
  }

  /** Writes a step's arrays into the staging buffers of this side, whose last step must be over. */
  stage(side: Side, passes: readonly (readonly MicroBatch[])[]): StepInputs {
    const batches = passes.map((microBatches, pass) =>
      microBatches.map((batch, microBatch) => this.#stageBatch(side, pass, microBatch, batch)),
    );
    return { batches, ...this.#stageEmbedding(side, passes) };
  }

  /** Sends the staged arrays to the device. Compute waits for them and settles `resource` at the end of the step. */
  upload(plan: Plan, side: Side): void {
    const { batch: from } = this.#sides[side]!;
    plan.record("upload", "copy", { to: this.#device, from }, { writes: [this.resource] });
    plan.acquire(this.resource, "read");
  }

  #stageBatch(side: Side, pass: number, microBatch: number, batch: MicroBatch): DeviceBatch {
    const sizes = batchSizes(this.shape);
    const bytes = totalBytes(sizes);
    const offset = (pass * this.shape.microBatches + microBatch) * bytes;
    const staging = carve(this.#sides[side]!.batch.slice(offset, bytes), sizes);
    const device = carve(this.#device.slice(offset, bytes), sizes);
    const { rowIndex, targets } = validRows(batch.targets);
    const put = (name: keyof typeof sizes, values: Int32Array): Range => {
      this.#write(staging(name), values);
      return device(name, values.length * 4);
    };
    return {
      tokens: batch.tokens.length,
      documents: batch.starts.length - 1,
      starts: put("starts", batch.starts),
      positions: put("positions", batch.positions),
      validRows: rowIndex.length,
      rowIndex: rowIndex.length > 0 ? put("rowIndex", rowIndex) : null,
      targets: rowIndex.length > 0 ? put("targets", targets) : null,
    };
  }

  #stageEmbedding(side: Side, passes: readonly (readonly MicroBatch[])[]): Omit<StepInputs, "batches"> {
    const sizes = embedSizes(this.shape);
    const part = carve(this.#sides[side]!.embed, sizes);
    const { microBatches, tokensMax } = this.shape;
    const perBatch = alignBytes(tokensMax * 4);
    const distinct = distinctTokens(passes);
    const { padId } = this.shape.model;
    const buckets = passes.map((pass) => bucketsOf(pass, distinct, this.shape.tokensMax, padId));
    const put = (range: Range, values: Int32Array): Range => {
      this.#write(range, values);
      return range.slice(0, values.length * 4);
    };
    const perPass = (key: "order" | "starts", pass: number): Range => {
      const bytes = sizes[key] / this.shape.passes;
      return part(key).slice(pass * bytes, bytes);
    };
    return {
      tokens: passes.map((pass, p) =>
        pass.map(({ tokens }, j) => put(part("tokens").slice((p * microBatches + j) * perBatch, perBatch), tokens)),
      ),
      distinctTokens: put(part("distinct"), distinct),
      distinct: distinct.length,
      order: buckets.map(({ order }, pass) => put(perPass("order", pass), order)),
      starts: buckets.map(({ starts }, pass) => put(perPass("starts", pass), starts)),
    };
  }
}

/** Rows whose target counts, and their targets. A loop: this runs for every token of every step. */
function validRows(all: Int32Array): { rowIndex: Int32Array; targets: Int32Array } {
  const [rowIndex, targets] = [new Int32Array(all.length), new Int32Array(all.length)];
  let count = 0;
  for (let row = 0; row < all.length; row++)
    if (all[row]! >= 0) {
      rowIndex[count] = row;
      targets[count++] = all[row]!;
    }
  return { rowIndex: rowIndex.subarray(0, count), targets: targets.subarray(0, count) };
}

function distinctTokens(passes: readonly (readonly MicroBatch[])[]): Int32Array {
  const seen = new Set<number>();
  for (const pass of passes) for (const { tokens } of pass) for (const token of tokens) seen.add(token);
  return Int32Array.from(seen).sort();
}

/**
 * Rows of `embedding.dRows` (micro-batch j begins at row j · rowStride) sorted by token, and for the u-th distinct token
 * the range order[starts[u]..starts[u + 1]]. Within a token rows keep their order, so sums do not depend on anything else.
 * The padding token's range is empty: as in Hugging Face (nn.Embedding with padding_idx) its row gets no gradient from here.
 */
export function bucketsOf(
  pass: readonly Pick<MicroBatch, "tokens">[],
  distinct: Int32Array,
  rowStride: number,
  padId: number | null,
): { order: Int32Array; starts: Int32Array } {
  const place = new Map(Array.from(distinct, (token, index) => [token, index]));
  const starts = new Int32Array(distinct.length + 1);
  for (const { tokens } of pass) for (const token of tokens) if (token !== padId) starts[place.get(token)! + 1]!++;
  for (let index = 0; index < distinct.length; index++) starts[index + 1]! += starts[index]!;
  const next = starts.slice();
  const order = new Int32Array(starts.at(-1)!);
  for (const [j, { tokens }] of pass.entries())
    for (const [t, token] of tokens.entries())
      if (token !== padId) order[next[place.get(token)!]!++] = j * rowStride + t;
  return { order, starts };
}
