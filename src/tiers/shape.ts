// From a config and a model to the shape of a step: everything that decides what it computes and where it keeps it, resolved
// once. What the config leaves open is filled by `predict/fit.ts`, which plays candidates; what a shape holds is in `bill.ts`,
// and whether that fits in `limits.ts`.

import type { DecoderConfig } from "../models/config.ts";
import { keptSizes, type KeepLevel } from "../models/decoder.ts";
import type { ParameterBlock } from "../models/parameters.ts";
import type { Dtype } from "../native/abi.gen.ts";
import { totalBytes } from "../plan/layout.ts";
import type { StateFormat } from "../state/format.ts";
import { ConfigError } from "../words/errors.ts";

/** Everything that decides what a step computes and where it keeps it. */
export interface StepShape {
  model: DecoderConfig;
  /** Embedding, decoder layers, head. */
  blocks: ParameterBlock[];
  dtype: Dtype;
  /** False: forward only (evaluation, generation); then no optimizer state, gradients or boundaries exist. */
  training: boolean;
  /** False, to time forward and backward alone: gradients are left where they are made, and no optimizer state exists. */
  updates: boolean;
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
export const isResident = (shape: StepShape, layer: number): boolean => layer >= 0 && layer < shape.residentBlocks;
/** Resident float32 weights are joined into a slot like any other; resident bfloat16 weights are used where they lie. */
export const usesSlot = (shape: StepShape, layer: number): boolean =>
  !isResident(shape, layer) || shape.dtype === "float32";
export const keepOf = (shape: StepShape, layer: number): KeepLevel => shape.keep[layer] ?? "recompute";
/** Bytes that a layer keeps of one micro-batch. */
export const keptBytes = ({ model, tokensMax, dtype }: StepShape, level: KeepLevel): number =>
  totalBytes(keptSizes(model, tokensMax, dtype, level));
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
