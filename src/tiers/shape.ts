// From a config and a model to the shape of a step: everything that decides what it computes and where it keeps it, resolved
// once. What the config leaves open is filled by `predict/fit.ts`, which plays candidates; what a shape holds is in `bill.ts`,
// and whether that fits in `limits.ts`.

import type { BatchShape } from "../data/batches.ts";
import type { DecoderConfig } from "../models/config.ts";
import type { ParameterBlock } from "../models/parameters.ts";
import { keptSizes, type KeepLevel } from "../models/parts/chain.ts";
import type { Dtype } from "../native/abi.gen.ts";
import { totalBytes } from "../plan/layout.ts";
import { formatDefault, type StateFormat } from "../state/format.ts";
import { isResident } from "../state/parameters.ts";
import type { OptimizerConfig } from "../state/weight-decay.ts";
import { ConfigError } from "../words/errors.ts";

/** Everything that decides what a step computes and where it keeps it. */
export interface StepShape {
  model: DecoderConfig;
  /** Embedding, decoder layers, head. */
  blocks: ParameterBlock[];
  dtype: Dtype;
  /** False: forward only (evaluation, generation); then no optimizer state, gradients or boundaries exist. */
  training: boolean;
  /** What is kept per parameter. */
  state: StateFormat;
  /** The most tokens of a micro-batch. */
  tokensMax: number;
  /** The most micro-batches of a pass. */
  microBatches: number;
  /** Passes whose gradients share one update. */
  passes: number;
  /** Positions in the rotary table: the longest document. */
  positions: number;
  /** Device buffers that hold sliding blocks. */
  slots: number;
  boundary: "device" | "pinned";
  /** Per layer, what it keeps from forward to backward; layers beyond the list keep nothing. */
  keep: readonly KeepLevel[];
  /** First blocks whose weights, moments and gradients stay on the device. */
  residentBlocks: number;
  /** Host slots for gradients of sliding blocks. */
  ring: number;
  /** Gradients are clipped by their exact global norm (so all of them are kept until it is known), or by the last step's. */
  clips: false | "exact" | "previous";
  /** Rows of logits that exist at once. */
  logitsChunk: number;
  /** Parameters per copy and per update command. */
  chunkParameters: number;
}

export const gradientDtype = (shape: StepShape): Dtype => shape.dtype;
export const decoderBlocks = (shape: StepShape): ParameterBlock[] => shape.blocks.slice(1, -1);
export const embeddingBlock = (shape: StepShape): ParameterBlock => shape.blocks[0]!;
export const headBlock = (shape: StepShape): ParameterBlock => shape.blocks.at(-1)!;
/** Elements of the longest of some blocks. */
export const longest = (blocks: readonly ParameterBlock[]): number =>
  Math.max(0, ...blocks.map(({ length }) => length));
/** Resident float32 weights are joined into a slot like any other; resident bfloat16 weights are used where they lie. */
export const usesSlot = (shape: StepShape, layer: number): boolean =>
  !isResident(shape, layer) || shape.dtype === "float32";
export const keepOf = (shape: StepShape, layer: number): KeepLevel => shape.keep[layer] ?? "recompute";
/** Bytes that a layer keeps of one micro-batch, or would keep at another level. */
export const keptBytes = (shape: StepShape, layer: number, level = keepOf(shape, layer)): number =>
  totalBytes(keptSizes(decoderBlocks(shape)[layer]!.chain, shape.tokensMax, shape.dtype, level));
/** The last `count` of all layers keep so much, the others nothing. */
export const keepLast = (layers: number, count: number, level: KeepLevel): KeepLevel[] =>
  Array.from({ length: layers }, (_, layer) => (layer >= layers - count ? level : "recompute"));

/**
 * One product makes the whole gradient of a layer's matrix in a pass, so it is rounded to bf16 where it is made: there is
 * no float32 sum, and no cast of it. The bits are the same.
 */
export const roundsAtOnce = ({ dtype, microBatches }: StepShape): boolean => dtype === "bfloat16" && microBatches === 1;
/** The same of the head, whose gradient is summed over chunks of logits and over passes. */
export const headRoundsAtOnce = (shape: StepShape): boolean =>
  roundsAtOnce(shape) && shape.passes === 1 && shape.logitsChunk >= shape.tokensMax;
/** A resident block's gradient has a tier of its own while others are computed: with clipping or accumulation. */
export const keepsGradient = (shape: StepShape, layer: number): boolean =>
  isResident(shape, layer) && (shape.clips === "exact" || shape.passes > 1);
/** Distinct tokens of a step, at most. */
export const distinctMax = (shape: StepShape): number =>
  Math.min(shape.model.vocabulary, shape.passes * shape.microBatches * shape.tokensMax);
/** Gradient norms are summed from parts: one per decoder layer, one for the head, two for the embedding. */
export const normParts = (shape: StepShape): number => shape.model.layers + 3;
export const normStride = 64;

/** Rules that need both config and model. */
export function checkShape(shape: StepShape): void {
  const { layers } = shape.model;
  const within = (path: string, value: number, least: number) => {
    if (value < least || value > layers)
      throw new ConfigError(`${path} must be ${least} to ${layers}, the model's number of layers (was ${value})`);
  };
  within("window.residentBlocks", shape.residentBlocks, 0);
  const streaming = layers - shape.residentBlocks;
  if (shape.clips === "exact" && shape.ring < streaming)
    throw new ConfigError(
      `window.ring (${shape.ring}) must be "all" (${streaming} here) while gradients are clipped: all of them are kept until the norm is known`,
    );
}

// ---- from a config to a shape ---------------------------------------------------------------------------------------

/** A model as a shape needs it, with or without weights. */
export interface DescribedModel {
  config: DecoderConfig;
  /** Embedding, decoder layers, head. */
  blocks: ParameterBlock[];
  dtype: Dtype;
}

/** The keys of a run's config that decide how a step is computed. */
export interface StepConfig extends BatchShape {
  optimizer: OptimizerConfig;
  maxGradNorm: number | null | { value: number; mode: "exact" | "previous" };
  window: {
    slots: number | "all" | "auto";
    boundary: "device" | "pinned" | "auto";
    keepBlocks: number | "all" | "auto";
    keep?: "all" | "products" | "attention";
    residentBlocks: number | "all" | "auto";
    ring: number | "all" | "auto";
  };
}

/** Enough tokens for a GPU's matrix unit, few enough for a block's workspace beside everything else. */
const microBatchTokensMost = 16_384;

/** Tokens of a micro-batch when so many rows are split evenly into as few as the most tokens allow. */
export function evenTokens(rows: number, sequenceLength: number): number {
  const parts = Math.ceil((rows * sequenceLength) / microBatchTokensMost);
  return Math.max(1, Math.ceil(rows / parts)) * sequenceLength;
}

/** `maxGradNorm` in full; a value of null clips nothing. */
export function clippingOf(maxGradNorm: StepConfig["maxGradNorm"]): {
  value: number | null;
  mode: false | "exact" | "previous";
} {
  if (maxGradNorm === null) return { value: null, mode: false };
  return typeof maxGradNorm === "number" ? { value: maxGradNorm, mode: "exact" } : maxGradNorm;
}

/** Micro-batch capacity, so that rows of any width start at multiples of 64 bytes. */
export const tokensMaxFor = (microBatchTokens: number): number => Math.ceil(microBatchTokens / 32) * 32;

/** The most micro-batches of a pass: whole rows, greedily laid end to end. */
function microBatchesFor({ batchSize, gradientAccumulation, microBatchTokens, sequenceLength }: BatchShape): number {
  return Math.ceil(batchSize / gradientAccumulation / Math.floor(microBatchTokens / sequenceLength));
}

/** 4 Mi parameters: 16 to 64 MB a command, long enough to amortise it and short enough to overlap. */
const chunkParametersDefault = 4 << 20;

/** At most this share of the device for logits. */
const logitsShare = 0.03;

/**
 * Rows of logits at once: enough to keep the matrix unit busy, few enough to stay small beside a block. On a GPU, of which
 * `deviceBytes` are there for buffers, all of a step's may come in one chunk: then the head's gradient needs no float32 sum
 * (`headRoundsAtOnce`), which pays for the larger logits as long as they take no more than that sum.
 */
export function logitsRows(
  { tokensMax, microBatches, passes, dtype, model: { vocabulary, hidden } }: Omit<StepShape, "logitsChunk">,
  deviceBytes: number | undefined,
): number {
  const rows = (count: number): number => Math.ceil(Math.min(count, tokensMax) / 16) * 16;
  if (deviceBytes === undefined) {
    const wanted = Math.max(16, Math.floor((64 << 20) / (vocabulary * 4)));
    return rows(Math.ceil(Math.min(wanted, 2048) / 16) * 16);
  }
  const sums = hidden * 4 + 2048 * 2;
  if (dtype === "bfloat16" && microBatches === 1 && passes === 1 && tokensMax * 2 <= sums) return rows(tokensMax);
  const fits = [8192, 4096, 2048].find((count) => count * vocabulary * 2 <= logitsShare * deviceBytes);
  return rows(fits ?? 1024);
}

/** What a config may leave open. */
export type Choice = "keep" | "residentBlocks" | "boundary" | "slots" | "ring";

/** What a config says "auto" to. */
export function leavesOpen({ window }: StepConfig): ReadonlySet<Choice> {
  const { keepBlocks: keep, residentBlocks, boundary, slots, ring } = window;
  const said = { keep, residentBlocks, boundary, slots, ring };
  return new Set((Object.keys(said) as Choice[]).filter((choice) => said[choice] === "auto"));
}

/** The shortest ring that a fit tries. */
export const ringLeast = 4;

/** The shape with everything that is open chosen so that the device holds the least. */
export const leastShape = (shape: StepShape, open: ReadonlySet<Choice>): StepShape => ({
  ...shape,
  ...(open.has("keep") ? { keep: [] } : {}),
  ...(open.has("residentBlocks") ? { residentBlocks: 0 } : {}),
  ...(open.has("boundary") ? { boundary: "pinned" as const } : {}),
  ...(open.has("slots") ? { slots: 2 } : {}),
  ...(open.has("ring") ? { ring: shape.clips === "exact" ? shape.model.layers : ringLeast } : {}),
});

/**
 * A config resolved against a model; what it leaves open takes the simplest value. `deviceBytes`: what a GPU has for
 * buffers; undefined on the cpu device. ConfigError where config and model contradict each other.
 */
export function trainingShape(
  model: DescribedModel,
  config: StepConfig,
  deviceBytes: number | undefined,
  overrides: Partial<StepShape> = {},
): StepShape {
  const { layers, maxPositions } = model.config;
  const { window, sequenceLength } = config;
  const count = (value: number | "all" | "auto", auto = 0): number =>
    value === "all" ? layers : value === "auto" ? auto : value;
  if (sequenceLength > maxPositions)
    throw new ConfigError(
      `sequenceLength (${sequenceLength}) is longer than the model's ${maxPositions} positions; use at most ${maxPositions}`,
    );
  if (count(window.keepBlocks) > layers)
    throw new ConfigError(
      `window.keepBlocks must be 0 to ${layers}, the model's number of layers (was ${window.keepBlocks})`,
    );
  const shape = {
    model: model.config,
    blocks: model.blocks,
    dtype: model.dtype,
    training: true,
    state: config.optimizer.state,
    tokensMax: tokensMaxFor(config.microBatchTokens),
    microBatches: microBatchesFor(config),
    passes: config.gradientAccumulation,
    positions: sequenceLength,
    slots: count(window.slots, 2),
    boundary: window.boundary === "auto" ? ("pinned" as const) : window.boundary,
    keep: keepLast(layers, count(window.keepBlocks), window.keep ?? "all"),
    residentBlocks: count(window.residentBlocks),
    ring: count(window.ring, layers),
    clips: clippingOf(config.maxGradNorm).mode,
    chunkParameters: chunkParametersDefault,
    ...overrides,
  };
  return { logitsChunk: logitsRows(shape, deviceBytes), ...shape };
}

/** A shape for forward passes alone, of a model whose first blocks may be resident. */
export function inferenceShape(model: DescribedModel & { residentBlocks: number }, options: BatchShape): StepShape {
  const shape = {
    model: model.config,
    blocks: model.blocks,
    dtype: model.dtype,
    training: false,
    state: formatDefault,
    tokensMax: tokensMaxFor(options.microBatchTokens),
    microBatches: microBatchesFor({ ...options, gradientAccumulation: 1 }),
    passes: 1,
    positions: options.sequenceLength,
    slots: 2,
    boundary: "pinned" as const,
    keep: [],
    residentBlocks: model.residentBlocks,
    ring: 0,
    clips: false as const,
    chunkParameters: chunkParametersDefault,
  };
  return { ...shape, logitsChunk: logitsRows(shape, undefined) };
}
