// Seconds per training step of a model with random weights, made in memory: nothing is read, downloaded or saved. Steps are
// submitted as `train` does it, the next one while this one still computes, so updates overlap the next forward pass.

import type { StepBatch } from "../../src/data/loader.ts";
import { ConfigError } from "../../src/errors.ts";
import { stepFlops } from "../../src/flops.ts";
import { Model } from "../../src/model.ts";
import { parameterBlocks } from "../../src/models/parameters.ts";
import type { DeviceKind, Dtype } from "../../src/native/abi.gen.ts";
import { Engine } from "../../src/native/runtime.ts";
import { Random } from "../../src/random.ts";
import { describeModel, rehearsedBatch, rehearsedMicroBatch, type ModelSizes } from "../../src/rehearsal.ts";
import { Trainer, type TrainerConfig } from "../../src/trainer.ts";

export interface StepBenchShape {
  model: ModelSizes;
  /** One micro-batch of this many packed rows. */
  rows: number;
  sequenceLength: number;
  /** Length of the documents in a row. */
  documentLength: number;
}

const qwen3 = { modelType: "qwen3", tied: false };

/** What `--shape` knows. `tiny` is the quick start's model and batch. */
export const stepShapes: Record<string, StepBenchShape> = {
  tiny: {
    model: { ...qwen3, layers: 12, vocabulary: 160, hidden: 96, intermediate: 256, heads: 3, kvHeads: 1, headDim: 32 },
    rows: 2,
    sequenceLength: 128,
    documentLength: 16,
  },
  small: {
    model: {
      ...qwen3,
      layers: 8,
      vocabulary: 8192,
      hidden: 512,
      intermediate: 1536,
      heads: 8,
      kvHeads: 4,
      headDim: 64,
    },
    rows: 2,
    sequenceLength: 512,
    documentLength: 128,
  },
};

export interface StepBenchOptions {
  shape: string;
  device: DeviceKind;
  dtype: Dtype;
  workers: number;
}

export interface StepRate {
  shape: string;
  dtype: Dtype;
  parameters: number;
  tokens: number;
  steps: number;
  /** Seconds per step, over rounds of about a second. */
  best: number;
  median: number;
  spread: number;
  tokensPerSecond: number;
  gflops: number;
  /** Share of the measured time in which each stream had a command running. */
  busy: Record<string, number>;
}

const warmUpSteps = 3;
const rounds = 7;
const secondsPerRound = 1;

export async function measureStep({ shape: name, device, dtype, workers }: StepBenchOptions): Promise<StepRate> {
  const shape = stepShapes[name];
  if (!shape) throw new ConfigError(`--shape must be one of ${Object.keys(stepShapes).join(", ")} (was "${name}")`);
  const engine = new Engine({ device, workers });
  const config = describeModel(shape.model);
  using model = new Model(`${name}, random weights`, config, parameterBlocks(config), engine, dtype);
  fillWeights(model);
  using trainer = await Trainer.open(model, trainerConfig(shape));
  const batch = batchOf(shape);

  for (let i = 0; i < warmUpSteps; i++) await trainer.step(batch);
  const before = engine.busy();
  const start = performance.now();
  const seconds: number[] = [];
  let steps = 0;
  for (let round = 0; round < rounds; round++) {
    const begin = performance.now();
    let count = 0;
    let last: Promise<unknown> | undefined;
    while (count === 0 || performance.now() - begin < secondsPerRound * 1000) {
      last = (await trainer.submit(batch)).result;
      last.catch(() => {}); // the same failure comes out of the next submit, or of `await last`
      count++;
    }
    await last;
    seconds.push((performance.now() - begin) / 1000 / count);
    steps += count;
  }
  await trainer.drain();
  const elapsed = (performance.now() - start) / 1000;
  const after = engine.busy();

  seconds.sort((a, b) => a - b);
  return {
    shape: name,
    dtype,
    parameters: model.parameters,
    tokens: batch.tokens,
    steps,
    best: seconds[0]!,
    median: seconds[rounds >> 1]!,
    spread: seconds.at(-1)! / seconds[0]! - 1,
    tokensPerSecond: (steps * batch.tokens) / elapsed,
    gflops: (steps * stepFlops(config, batch)) / elapsed / 1e9,
    busy: Object.fromEntries(
      Object.entries(after).map(([stream, busy]) => [stream, (busy - before[stream as keyof typeof before]) / elapsed]),
    ),
  };
}

/** Norms are 1, everything else small and random, as a model is at its start. */
function fillWeights(model: Model): void {
  const random = new Random(1);
  const [value, one] = [new Float32Array(1), 0x3f80];
  const bits = new Uint32Array(value.buffer);
  // A prime length keeps the repeated pattern from lining up with rows.
  const pattern = Uint16Array.from({ length: 65_537 }, () => {
    value[0] = (random.uniform() - 0.5) * 0.1;
    return bits[0]! >>> 16;
  });
  for (const { name, tensors } of model.blocks) {
    const hi = new Uint16Array(model.state.get(`${name}.hi`)!.window());
    for (const { shape, offset, count } of tensors) {
      if (shape.length === 1) hi.fill(one, offset, offset + count);
      else
        for (let i = 0; i < count; i += pattern.length)
          hi.set(pattern.subarray(0, Math.min(pattern.length, count - i)), offset + i);
    }
  }
}

function trainerConfig({ rows, sequenceLength }: StepBenchShape): TrainerConfig {
  return {
    sequenceLength,
    batchSize: rows,
    microBatchTokens: rows * sequenceLength,
    gradientAccumulation: 1,
    maxGradNorm: 1,
    optimizer: { learningRate: 1e-5, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, state: "fp32" },
    window: { slots: 2, boundary: "pinned", keepBlocks: 0, residentBlocks: 0, ring: "all" },
  };
}

function batchOf({ rows, sequenceLength, documentLength, model }: StepBenchShape): StepBatch {
  const random = new Random(2);
  const lengths = new Array<number>((rows * sequenceLength) / documentLength).fill(documentLength);
  return rehearsedBatch([[rehearsedMicroBatch(lengths, model.vocabulary, () => random.uniform())]]);
}
