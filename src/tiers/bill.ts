// The memory bill: every buffer a run will hold, by name, tier and bytes, computed before anything is allocated. The same
// list is printed at start, allocated, and compared with what the simulator sees touched. A step allocates nothing.
//
// Sizes follow from a `StepShape`, which is the config resolved against a model. Lengths in elements are those of
// `models/parameters.ts`; E is bytes per element of the compute dtype, G of a gradient on its way to the host.

import { rotaryTables } from "../models/block.ts";
import { vectorsOffset, type ParameterBlock } from "../models/parameters.ts";
import { activationSizes, scratchSizes } from "../models/parts/chain.ts";
import { headSizes } from "../models/parts/head.ts";
import type { Tier } from "../native/abi.gen.ts";
import { alignBytes, bytesOf, totalBytes } from "../plan/layout.ts";
import { Range, type BufferLike } from "../plan/plan.ts";
import { partBytes, stateName, partsOf } from "../state/format.ts";
import { formatBytes, formatTiers } from "../words/format.ts";
import {
  decoderBlocks,
  distinctMax,
  embeddingBlock,
  gradientDtype,
  headBlock,
  headRoundsAtOnce,
  isResident,
  keepsGradient,
  keptBytes,
  normParts,
  normStride,
  roundsAtOnce,
  usesSlot,
  type StepShape,
} from "./shape.ts";

export interface BillLine {
  /** Unique; the buffer's name. */
  name: string;
  tier: Exclude<Tier, "file">;
  bytes: number;
  /** What it is for; lines of one purpose are printed as one. */
  purpose: string;
}

/** Int32 arrays of one micro-batch, each at a multiple of 64 bytes: for the device, and for host ops. */
export function batchSizes(shape: StepShape): Record<"positions" | "rowIndex" | "targets" | "starts", number> {
  const perToken = alignBytes(shape.tokensMax * 4);
  return { positions: perToken, rowIndex: perToken, targets: perToken, starts: alignBytes((shape.tokensMax + 1) * 4) };
}
export function embedSizes(shape: StepShape): Record<"tokens" | "distinct" | "order" | "starts", number> {
  const { passes, microBatches, tokensMax } = shape;
  const perPass = alignBytes(microBatches * tokensMax * 4);
  return {
    tokens: passes * microBatches * alignBytes(tokensMax * 4),
    distinct: alignBytes(distinctMax(shape) * 4),
    order: passes * perPass,
    starts: passes * alignBytes((distinctMax(shape) + 1) * 4),
  };
}
export function resultSizes(shape: StepShape): Record<"losses" | "totals" | "norms" | "factor", number> {
  const { passes, microBatches, tokensMax } = shape;
  return {
    losses: passes * microBatches * alignBytes(tokensMax * 4),
    totals: passes * microBatches * 64,
    norms: normParts(shape) * normStride,
    factor: 64,
  };
}

/** Every buffer of a run. */
export function memoryBill(shape: StepShape): BillLine[] {
  const { model, dtype, training, tokensMax, microBatches, passes } = shape;
  const lines: BillLine[] = [];
  const add = (purpose: string, tier: BillLine["tier"], name: string, bytes: number) => {
    if (bytes > 0) lines.push({ purpose, tier, name, bytes });
  };
  const E = bytesOf(dtype);
  const G = bytesOf(gradientDtype(shape));
  const sliding = decoderBlocks(shape).filter((block) => usesSlot(shape, block.layer));
  const streaming = decoderBlocks(shape).filter((block) => !isResident(shape, block.layer));
  const longest = (blocks: ParameterBlock[]) => Math.max(0, ...blocks.map((block) => block.length));
  const hidden = alignBytes(tokensMax * model.hidden * E); // (T, C)
  const [embedding, head] = [embeddingBlock(shape), headBlock(shape)];

  for (const block of shape.blocks) {
    const resident = isResident(shape, block.layer);
    for (const part of partsOf(shape.state, { training: training && shape.updates }))
      add(part.purpose, resident ? "device" : part.tier, stateName(block, part), partBytes(part, block.length));
  }

  const slots = Math.min(shape.slots, sliding.length);
  for (let slot = 0; slot < slots; slot++) add("window slots", "device", `slot ${slot}`, longest(sliding) * E);
  add("head weights", "device", "head.weights", head.length * E);
  if (model.tied) add("head weights", "device", "head.matrix", embedding.length * E);
  const works = decoderBlocks(shape).map(
    ({ chain }) =>
      totalBytes(activationSizes(chain, tokensMax, dtype)) + totalBytes(scratchSizes(chain, tokensMax, dtype)),
  );
  const headWork = totalBytes(headSizes(model, tokensMax, shape.logitsChunk, dtype));
  add("workspace", "device", "workspace", Math.max(...works, headWork));
  const tables = rotaryTables(shape.blocks, shape.positions).map(({ bytes }) => alignBytes(bytes));
  add("rope table", "device", "rope table", sum(tables));
  const perBatch = passes * microBatches * totalBytes(batchSizes(shape));
  add("token ids, positions, targets", "device", "batch", perBatch);
  add("losses and norms", "device", "losses", resultSizes(shape).losses);
  add("embedding rows", "pinned", "embedding.rows", microBatches * hidden);
  for (const side of [0, 1]) {
    add("token ids, positions, targets", "pinned", `batch.${side}`, perBatch);
    add("token ids, positions, targets", "host", `embed.${side}`, totalBytes(embedSizes(shape)));
    add("losses and norms", "pinned", `results.${side}`, totalBytes(resultSizes(shape)));
  }
  if (shape.boundary === "pinned" || !training) add("hidden states", "device", "hidden", (microBatches + 2) * hidden);
  if (!training) return lines;

  if (shape.boundary === "device")
    add("boundaries", "device", "boundaries", (model.layers + 1) * microBatches * hidden);
  else add("boundaries", "pinned", "boundaries", (model.layers - 1) * microBatches * hidden);
  add("gradient of hidden states", "device", "dHidden", microBatches * hidden);
  const kept = decoderBlocks(shape).map(({ layer }) => microBatches * keptBytes(shape, layer));
  add("kept activations", "device", "kept", sum(kept));

  // Float32 gradients go to the host as they are, so two blocks' accumulators alternate; bf16 ones are cast into one of
  // two landing buffers, and one accumulator is enough, or only that of the vectors.
  const longestDecoder = longest(decoderBlocks(shape));
  const vectors = (block: ParameterBlock): number => block.length - vectorsOffset(block);
  if (roundsAtOnce(shape))
    add("gradient accumulators", "device", "gradient.vectors", Math.max(...decoderBlocks(shape).map(vectors)) * 4);
  else
    for (let index = 0; index < (G === 4 ? 2 : 1); index++)
      add("gradient accumulators", "device", `gradient.${index}`, longestDecoder * 4);
  const cast = decoderBlocks(shape).filter(({ layer }) => !(keepsGradient(shape, layer) && passes === 1));
  if (G !== 4)
    for (let index = 0; index < Math.min(2, cast.length); index++)
      add("gradients cast to bf16", "device", `gradientCast.${index}`, longestDecoder * G);
  if (headRoundsAtOnce(shape)) add("gradient accumulators", "device", "head.gradientVectors", vectors(head) * 4);
  else add("gradient accumulators", "device", "head.gradient", head.length * 4);
  if (model.tied && !headRoundsAtOnce(shape))
    add("gradient accumulators", "device", "head.matrixGradient", embedding.length * 4);
  if (G !== 4) {
    add("gradients cast to bf16", "device", "head.gradientCast", head.length * G);
    if (model.tied) add("gradients cast to bf16", "device", "head.matrixGradientCast", embedding.length * G);
  }
  if (!shape.updates) return lines;
  add("losses and norms", "device", "norms", normParts(shape) * normStride);
  for (const resident of decoderBlocks(shape))
    if (keepsGradient(shape, resident.layer))
      add("resident gradients", "device", `${resident.name}.gradient`, resident.length * (passes > 1 ? 4 : G));
  if (shape.residentBlocks > 0) add("losses and norms", "device", "factor", 64);

  const ring = Math.min(shape.ring, streaming.length);
  for (let slot = 0; slot < ring; slot++) add("gradient ring", "pinned", `ring ${slot}`, longest(streaming) * G);
  add("gradient ring", "pinned", "head.landing", head.length * G);
  if (model.tied) add("gradient ring", "pinned", "head.matrixLanding", embedding.length * G);
  add("embedding gradient", "pinned", "embedding.dRows", microBatches * hidden);
  add("embedding gradient", "host", "embedding.gradient", distinctMax(shape) * model.hidden * 4);
  if (passes > 1)
    for (const { name, length } of streaming)
      add("gradient sums over passes", "host", `${name}.gradientSum`, length * 4);
  // Rows of an untied embedding that no token touches have no gradient: no factor changes their update.
  if (!shape.clips || !model.tied) add("losses and norms", "host", "unit factor", 64);
  if (shape.clips === "previous") add("losses and norms", "host", "previous factors", 2 * 64);
  return lines;
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

export function bytesIn(bill: readonly BillLine[], tier: Tier): number {
  return bill.reduce((sum, line) => sum + (line.tier === tier ? line.bytes : 0), 0);
}

/** The bill as a table: a line per purpose, with totals. */
export function printBill(bill: readonly BillLine[], parameters: number): string {
  const rows = summarizeBill(bill);
  const order = ["device", "pinned", "host"];
  rows.sort((a, b) => order.indexOf(a.tier) - order.indexOf(b.tier) || b.bytes - a.bytes);
  const width = Math.max(...rows.map((row) => row.purpose.length));
  const text: string[] = [];
  for (const tier of order) {
    const own = rows.filter((row) => row.tier === tier);
    if (own.length === 0) continue;
    const total = own.reduce((sum, row) => sum + row.bytes, 0);
    text.push(
      `${tier.padEnd(width + 2)} ${formatBytes(total).padStart(10)}  ${(total / parameters).toFixed(2)} B/parameter`,
    );
    for (const row of own) text.push(`  ${row.purpose.padEnd(width)} ${formatBytes(row.bytes).padStart(10)}`);
  }
  return text.join("\n");
}

/** One line per purpose and tier, in the order of the bill. */
export function summarizeBill(bill: readonly BillLine[]): { purpose: string; tier: Tier; bytes: number }[] {
  const sums = new Map<string, { purpose: string; tier: Tier; bytes: number }>();
  for (const { purpose, tier, bytes } of bill) {
    const key = `${tier} ${purpose}`;
    const sum = sums.get(key) ?? { purpose, tier, bytes: 0 };
    sums.set(key, { ...sum, bytes: sum.bytes + bytes });
  }
  return [...sums.values()];
}

/** Buffers by name. A name that is not on the bill is our mistake and fails loudly. */
export class Buffers<B extends BufferLike = BufferLike> {
  readonly all: ReadonlyMap<string, B>;

  constructor(all: ReadonlyMap<string, B>) {
    this.all = all;
  }

  /** Makes every buffer of a bill; `make` allocates, or only describes (simulation). */
  static make<B extends BufferLike>(bill: readonly BillLine[], make: (line: BillLine) => B): Buffers<B> {
    return new Buffers(new Map(bill.map((line) => [line.name, make(line)])));
  }

  [Bun.inspect.custom](): string {
    return `Buffers(${this.all.size}: ${formatTiers(this.all.values())})`;
  }

  get(name: string): B {
    const buffer = this.all.get(name);
    if (buffer === undefined) throw new Error(`internal error: buffer "${name}" is not on the memory bill`);
    return buffer;
  }

  has(name: string): boolean {
    return this.all.has(name);
  }

  range(name: string, offset?: number, bytes?: number): Range {
    return new Range(this.get(name), offset, bytes);
  }
}
