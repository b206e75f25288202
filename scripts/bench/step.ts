// Seconds per training step of a model with random weights, made in memory: nothing is read, downloaded or saved. Steps are
// submitted as `train` does it, the next one while this one still computes, so updates overlap the next forward pass, and a
// step's time is what passes between two measured losses. Several batch sizes share one engine and one set of weights.

import { tokensMaxFor } from "../../src/tiers/shape.ts";
import { ConfigError } from "../../src/words/errors.ts";
import { playSteps } from "../../src/predict/fit.ts";
import { stepFlops } from "../../src/predict/flops.ts";
import type { Machine } from "../../src/predict/machines.ts";
import { deviceBytesOf } from "../../src/tiers/limits.ts";
import { Model } from "../../src/engine/model.ts";
import type { DecoderConfig } from "../../src/models/config.ts";
import { describeKeep } from "../../src/models/parts/chain.ts";
import { parameterBlocks } from "../../src/models/parameters.ts";
import type { Dtype } from "../../src/native/abi.gen.ts";
import { isGpu } from "../../src/native/devices.ts";
import type { Engine } from "../../src/native/runtime.ts";
import { Plan } from "../../src/plan/plan.ts";
import { measuredMachine } from "../../src/predict/probe.ts";
import { Random } from "../../src/words/random.ts";
import {
  describeModel,
  fullBatch,
  publishedModel,
  publishedModels,
  type ModelSizes,
} from "../../src/predict/rehearsal.ts";
import { Trainer, type TrainerConfig } from "../../src/engine/trainer.ts";
import { recordStep } from "../../src/step/step.ts";
import { ForwardBackward, recordForwardBackward } from "./forward-backward.ts";
import { traceEvents, type TraceEvent } from "./trace.ts";

const qwen3 = { modelType: "qwen3", tied: false };

/** Shapes that a laptop can step: the quick start's model, and one sixty times as large. */
const smallModels: Record<string, ModelSizes> = {
  tiny: { ...qwen3, layers: 12, vocabulary: 160, hidden: 96, intermediate: 256, heads: 3, kvHeads: 1, headDim: 32 },
  small: { ...qwen3, layers: 8, vocabulary: 8192, hidden: 512, intermediate: 1536, heads: 8, kvHeads: 4, headDim: 64 },
};
export const shapeNames = [...Object.keys(smallModels), ...Object.keys(publishedModels)];

/** The config of a shape by name. */
export function shapeNamed(name: string): DecoderConfig {
  const small = smallModels[name];
  if (small) return describeModel(small);
  if (!Object.hasOwn(publishedModels, name))
    throw new ConfigError(`--shape must be one of ${shapeNames.join(", ")} (was "${name}")`);
  return publishedModel(name);
}

export interface StepRate {
  shape: string;
  dtype: Dtype;
  rows: number;
  sequenceLength: number;
  parameters: number;
  tokens: number;
  /** Forward and backward alone, nothing updated. */
  residentOnly: boolean;
  clips: false | "exact" | "previous";
  microBatches: number;
  residentBlocks: number;
  keep: string;
  boundary: string;
  slots: number;
  ring: number;
  logitsChunk: number;
  /** Of each sample, a step or a group of short ones. */
  samples: number[];
  /** Seconds per step. */
  best: number;
  median: number;
  /** (worst − best) / best. */
  spread: number;
  predicted: number;
  tokensPerSecond: number;
  /** By the model's own FLOPs, recompute not counted. */
  tflops: number;
  /** Of what the machine's matrix unit does at the layer's products. */
  gemmShare: number;
  loss: number;
  /** Our own count of device buffers, and what the driver says this process and others have taken. */
  deviceBytes: number;
  driverBytes: number | undefined;
  rssBytes: number;
  setupSeconds: number;
  /** Share of the measured time in which each stream had a command running. */
  busy: Record<string, number>;
}

export interface StepBenchOptions {
  shape: string;
  steps: number;
  /** Steps before the first one that counts; steps that take long need only one. */
  warmUp: number;
  residentOnly: boolean;
  /** Keep the commands of the last steps, with their times. */
  trace: boolean;
}

/** A step that takes longer than this many seconds is long: it warms up in one, and none is run that is not measured. */
const longSeconds = 10;
/** Short steps are measured in groups that last at least this long. */
const sampleSeconds = 0.25;

/** A model of random weights on an engine. */
export async function randomModel(engine: Engine, shape: string, dtype: Dtype): Promise<Model> {
  const config = shapeNamed(shape);
  const model = new Model(`${shape}, random weights`, config, parameterBlocks(config), engine, dtype);
  await fillWeights(model);
  return model;
}

/** The rates of the machine that the model's engine is on. */
export function machineOf(model: Model, { microBatchTokens }: TrainerConfig): Promise<Machine> {
  const { config, dtype, engine } = model;
  return measuredMachine(engine, { config, dtype, tokens: tokensMaxFor(microBatchTokens) });
}

export async function measureStep(
  model: Model,
  config: TrainerConfig,
  { shape: name, steps, warmUp, residentOnly, trace }: StepBenchOptions,
): Promise<StepRate & { events: TraceEvent[] }> {
  const { engine, dtype } = model;
  const begun = performance.now();
  const machine = await machineOf(model, config);
  const alone = residentOnly ? withoutUpdates(config) : config;
  using trainer = await Trainer.open(model, alone);
  const stepper: Stepper = residentOnly ? new ForwardBackward(trainer) : trainer;
  const random = new Random(2);
  const batch = fullBatch(model.config, config, () => random.uniform());
  const warm = await warmUpSteps(stepper, batch, warmUp);
  const setupSeconds = (performance.now() - begun) / 1000;

  const before = engine.busy();
  const start = performance.now();
  const { samples, loss } = await timeSteps(stepper, batch, steps, warm);
  await stepper.drain();
  const elapsed = (performance.now() - start) / 1000;
  const after = engine.busy();
  const rssBytes = process.memoryUsage.rss();
  const info = isGpu(engine.device) ? engine.deviceInfo() : undefined;
  const events = trace ? await traced(engine, stepper, batch) : [];

  const { shape } = trainer;
  const record = residentOnly ? recordForwardBackward : recordStep;
  const sorted = samples.toSorted((a, b) => a - b);
  const median = sorted[sorted.length >> 1]!;
  const tflops = stepFlops(model.blocks, batch) / median / 1e12;
  const { residentBlocks, boundary, slots, ring, logitsChunk, microBatches, clips } = shape;
  const streams = Object.entries(after) as [keyof typeof before, number][];
  return {
    shape: name,
    dtype,
    rows: config.batchSize,
    sequenceLength: config.sequenceLength,
    parameters: model.parameters,
    tokens: batch.tokens,
    residentOnly,
    clips,
    microBatches,
    residentBlocks,
    keep: describeKeep(shape.keep, model.config.layers),
    boundary,
    slots,
    ring,
    logitsChunk,
    samples,
    best: sorted[0]!,
    median,
    spread: sorted.at(-1)! / sorted[0]! - 1,
    predicted: playSteps(shape, batch, { machine, record }).secondsPerStep,
    tokensPerSecond: batch.tokens / median,
    tflops,
    gemmShare: tflops / machine.gemm[dtype === "float32" ? "float32" : "bfloat16"],
    loss,
    deviceBytes: deviceBytesOf(trainer.bill) + (info?.overheadBytes ?? 0),
    driverBytes: info && info.totalBytes - info.freeBytes,
    rssBytes,
    setupSeconds,
    busy: Object.fromEntries(streams.map(([stream, busy]) => [stream, (busy - before[stream]) / elapsed])),
    events,
  };
}

/** Weights fill slots of their own on the device and are never replaced, because nothing updates them. */
function withoutUpdates(config: TrainerConfig): TrainerConfig {
  const window = { ...config.window, slots: "all", boundary: "device", residentBlocks: 0, ring: 1 } as const;
  return { ...config, maxGradNorm: null, window };
}

type Batch = Parameters<Trainer["submit"]>[0];

/** Who takes steps: a trainer, or `ForwardBackward`. */
interface Stepper {
  submit(batch: Batch): Promise<{ result: Promise<{ loss: number }> }>;
  drain(): Promise<void>;
  readonly plan: Plan | undefined;
}

/** Seconds of the last of at most `count` steps; undefined when there was none. */
async function warmUpSteps(stepper: Stepper, batch: Batch, count: number): Promise<number | undefined> {
  let seconds: number | undefined;
  for (let step = 0; step < count && !(seconds! > longSeconds); step++) {
    const start = performance.now();
    await (
      await stepper.submit(batch)
    ).result;
    seconds = (performance.now() - start) / 1000;
  }
  return seconds;
}

/**
 * Seconds per step of each sample: from one measured loss to another, with the next step already in flight. Where steps are
 * long, or nothing warmed up, the first sample starts with its step, and no step is run that is not measured.
 */
async function timeSteps(
  stepper: Stepper,
  batch: Batch,
  samples: number,
  warm: number | undefined,
): Promise<{ samples: number[]; loss: number }> {
  const short = warm !== undefined && warm <= longSeconds;
  const group = short ? Math.max(1, Math.ceil(sampleSeconds / warm)) : 1;
  const found: number[] = [];
  if (short) await (await stepper.submit(batch)).result;
  let last = performance.now();
  let inFlight = (await stepper.submit(batch)).result;
  let loss = NaN;
  for (let left = samples * group; left > 0; left--) {
    const next = short || left > 1 ? stepper.submit(batch) : undefined;
    ({ loss } = await inFlight);
    if (next) inFlight = (await next).result;
    if ((left - 1) % group > 0) continue;
    const now = performance.now();
    found.push((now - last) / 1000 / group);
    last = now;
  }
  await inFlight;
  return { samples: found, loss };
}

/** Three more steps on the device's own clock; their commands as trace events. */
async function traced(engine: Engine, stepper: Stepper, batch: Batch): Promise<TraceEvent[]> {
  const gpu = isGpu(engine.device);
  if (gpu) engine.trace(true);
  const plans: Plan[] = [];
  for (let step = 0; step < 3; step++) {
    const { result } = await stepper.submit(batch);
    result.catch(() => {}); // `drain` throws it
    plans.push(stepper.plan!);
  }
  await stepper.drain();
  const events = traceEvents(plans.map((plan) => ({ plan, spans: engine.spans(plan) })));
  if (gpu) engine.trace(false);
  return events;
}

// ---- weights --------------------------------------------------------------------------------------------------------

/** Length of the repeated pattern in elements; no multiple of a row, so that rows differ. */
const patternElements = (8 << 20) + 24_008;

/** A model's start: norms are 1, everything else small and random. Copied by native threads. */
export async function fillWeights(model: Model): Promise<void> {
  const { engine } = model;
  const longest = Math.max(...model.blocks.flatMap(({ tensors }) => tensors.map(({ count }) => count)));
  const elements = Math.min(patternElements, longest);
  const pattern = engine.buffer("pinned", elements * 2, "random weights");
  const ones = engine.buffer("pinned", Math.max(model.config.hidden, model.config.headDim) * 2 * 8, "ones");
  const halves = new Uint16Array(pattern.view());
  const random = new Random(1);
  const value = new Float32Array(1);
  const bits = new Uint32Array(value.buffer);
  for (let index = 0; index < elements; index++) {
    value[0] = (random.uniform() - 0.5) * 0.07; // standard deviation 0.02
    halves[index] = bits[0]! >>> 16;
  }
  new Uint16Array(ones.view()).fill(0x3f80);
  for (const block of model.blocks) {
    const plan = new Plan({ step: 0, phase: "load" });
    for (const { shape, offset, count } of block.tensors) {
      const source = shape.length === 1 ? ones : pattern;
      const most = source.bytes / 2;
      for (let done = 0; done < count; done += most) {
        const part = Math.min(most, count - done);
        const { hi: to } = model.masters(block, { offset: offset + done, count: part });
        plan.record("host", "copy", { to, from: source.range(0, to.bytes) });
      }
    }
    await engine.play(plan);
  }
  pattern.free();
  ones.free();
}
