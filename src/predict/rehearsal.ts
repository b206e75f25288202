// Steps without an engine: models described by their sizes, buffers that are only names and lengths, batches of made-up
// tokens. What is recorded with them is the same plan, command for command, that the executor would get, so it can be
// checked (`plan/check`) and timed (`simulate.ts`) on a machine that could never hold the model.

import { ConfigError } from "../words/errors.ts";
import type { BatchShape, MicroBatch, StepBatch } from "../data/batches.ts";
import { Buffers } from "../plan/buffers.ts";
import { type StepShape } from "../tiers/shape.ts";
import type { DecoderSizes } from "../models/architecture.ts";
import type { DecoderConfig } from "../models/config.ts";
import { ConfigFields } from "../models/fields.ts";
import { architectureOf } from "../models/index.ts";
import { parameterBlocks } from "../models/parameters.ts";
import type { BufferLike } from "../plan/plan.ts";
import { formatDefault } from "../state/format.ts";
import { memoryBill } from "../step/bill.ts";
import { StepRecorder, type StepSettings } from "../step/step.ts";
import { closest } from "../words/suggest.ts";

export interface ModelSizes extends DecoderSizes {
  modelType: string;
  layers: number;
  tied: boolean;
}

/** Published models, by the sizes in their config.json. */
export const publishedModels: Record<string, ModelSizes> = {
  "qwen3-0.6b": qwen3Sizes(28, 1024, 3072, 16, true),
  "qwen3-1.7b": qwen3Sizes(28, 2048, 6144, 16, true),
  "qwen3-4b": qwen3Sizes(36, 2560, 9728, 32, true),
  "qwen3-8b": qwen3Sizes(36, 4096, 12288, 32, false),
  "llama3-8b": {
    modelType: "llama",
    layers: 32,
    vocabulary: 128256,
    hidden: 4096,
    intermediate: 14336,
    heads: 32,
    kvHeads: 8,
    headDim: 128,
    tied: false,
  },
};

function qwen3Sizes(layers: number, hidden: number, intermediate: number, heads: number, tied: boolean): ModelSizes {
  return {
    modelType: "qwen3",
    layers,
    vocabulary: 151936,
    hidden,
    intermediate,
    heads,
    kvHeads: 8,
    headDim: 128,
    tied,
  };
}

/** The config of a model that is nowhere but in these sizes. */
export function describeModel(sizes: ModelSizes): DecoderConfig {
  return {
    ...sizes,
    normEpsilon: 1e-6,
    rope: { type: "default", theta: 1e6 },
    maxPositions: 1 << 20, // no weights have been trained for any length
    slidingWindows: Array.from({ length: sizes.layers }, () => 0),
    bosId: null,
    eosIds: [],
    padId: null,
    source: {},
    ...architectureOf(sizes.modelType, "describeModel").read?.(new ConfigFields({}, "describeModel"), {
      ...sizes,
      maxPositions: 1 << 20,
    }),
  };
}

/** A published model's config by name. */
export function publishedModel(name: string): DecoderConfig {
  const sizes = publishedModels[name];
  if (sizes) return describeModel(sizes);
  const names = Object.keys(publishedModels);
  const near = closest(name, names);
  throw new ConfigError(
    `no shape is called "${name}"${near ? `, did you mean "${near}"?` : ""}; known: ${names.join(", ")}`,
  );
}

/** A recorder over buffers that are not there. */
export function rehearse(shape: StepShape): StepRecorder {
  let handle = 0;
  const buffers = Buffers.make<BufferLike>(memoryBill(shape), ({ name, tier, bytes }) => ({
    handle: ++handle,
    name,
    tier,
    bytes,
  }));
  return new StepRecorder(shape, buffers, rehearsedDecays(shape), () => {});
}

/** Matrices decay and vectors do not, as recipes have it by default. */
export function rehearsedDecays(shape: StepShape): Map<string, number> {
  const tensors = shape.blocks.flatMap((block) => block.tensors);
  return new Map(tensors.map((tensor) => [tensor.name, tensor.shape.length > 1 ? 0.1 : 0]));
}

export function rehearsedSettings(shape: StepShape, step: number): StepSettings {
  return {
    update: { step, learningRate: 1e-5, beta1: 0.9, beta2: 0.95, epsilon: 1e-8 },
    maxGradNorm: shape.clips ? 1 : null,
  };
}

/** A micro-batch of documents of these lengths, whose tokens and valid targets `draw` makes up (a number from 0 to 1). */
export function rehearsedMicroBatch(
  lengths: readonly number[],
  vocabulary: number,
  draw: () => number,
  validShare = 1,
): MicroBatch {
  const total = lengths.reduce((sum, length) => sum + length, 0);
  const starts = new Int32Array(lengths.length + 1);
  for (const [index, length] of lengths.entries()) starts[index + 1] = starts[index]! + length;
  return {
    tokens: Int32Array.from({ length: total }, () => Math.floor(draw() * vocabulary)),
    targets: Int32Array.from({ length: total }, () => (draw() < validShare ? Math.floor(draw() * vocabulary) : -100)),
    starts,
    positions: Int32Array.from(lengths.flatMap((length) => Array.from({ length }, (_, position) => position))),
  };
}

export function rehearsedBatch(passes: MicroBatch[][]): StepBatch {
  const all = passes.flat();
  return {
    passes,
    validTokens: all.reduce((sum, { targets }) => sum + targets.filter((target) => target >= 0).length, 0),
    tokens: all.reduce((sum, { tokens }) => sum + tokens.length, 0),
  };
}

/** One step of full rows, one document each, laid into micro-batches as the loader does. */
export function fullBatch(
  { vocabulary }: DecoderConfig,
  { batchSize, gradientAccumulation: passes, microBatchTokens, sequenceLength }: BatchShape,
  draw: () => number,
): StepBatch {
  const rows = batchSize / passes;
  const rowsMost = Math.floor(microBatchTokens / sequenceLength);
  const microBatch = (count: number) =>
    rehearsedMicroBatch(Array<number>(count).fill(sequenceLength), vocabulary, draw);
  const pass = () =>
    Array.from({ length: Math.ceil(rows / rowsMost) }, (_, index) =>
      microBatch(Math.min(rowsMost, rows - index * rowsMost)),
    );
  return rehearsedBatch(Array.from({ length: passes }, pass));
}

/** A shape from a config and what matters in it; everything else as small as it may be. */
export function rehearsedShape(config: DecoderConfig, options: Partial<StepShape> & { tokensMax: number }): StepShape {
  const clips = options.clips ?? false;
  return {
    dtype: "bfloat16",
    training: true,
    state: formatDefault,
    microBatches: 1,
    passes: 1,
    positions: options.tokensMax,
    slots: 2,
    boundary: "device",
    keep: [],
    residentBlocks: 0,
    // Clipped gradients all wait for the norm; so every one of them needs a tier.
    ring: clips === "exact" ? config.layers : 2,
    logitsChunk: 1024,
    chunkParameters: 4 << 20,
    ...options,
    clips,
    model: config,
    blocks: parameterBlocks(config),
  };
}
