// Small training runs for tests: random batches that are awkward in every way a real one may be, and the exact state of a
// trainer as digests, so that two runs can be compared bit for bit.

import type { MicroBatch, StepBatch } from "../../src/data/batches.ts";
import type { DecoderConfig } from "../../src/models/config.ts";
import type { Model } from "../../src/engine/model.ts";
import type { NativeBuffer } from "../../src/native/runtime.ts";
import { Plan } from "../../src/plan/plan.ts";
import { partsOf, stateName } from "../../src/state/format.ts";
import type { Trainer, TrainerConfig } from "../../src/engine/trainer.ts";
import { cumulative, type Draw } from "./tensors.ts";

export interface Rows {
  sequenceLength: number;
  passes: number;
  /** Of a pass, at most. */
  microBatches: number;
}

/** A step: uneven micro-batches of uneven documents, in which some targets do not count, and one micro-batch has none that does. */
export function randomStep(
  draw: Draw,
  config: DecoderConfig,
  { sequenceLength, passes, microBatches }: Rows,
): StepBatch {
  const batch: StepBatch = { passes: [], validTokens: 0, tokens: 0 };
  for (let pass = 0; pass < passes; pass++) {
    const count = draw.from(Math.max(1, microBatches - 1), microBatches);
    const silent = count > 1 ? draw.from(0, count) : count; // `count`: none
    batch.passes.push(
      Array.from({ length: count }, (_, index) =>
        randomMicroBatch(draw, config, sequenceLength, index === silent ? 1 : 0.3),
      ),
    );
  }
  const all = batch.passes.flat();
  batch.tokens = all.reduce((sum, { tokens }) => sum + tokens.length, 0);
  batch.validTokens = all.reduce((sum, { targets }) => sum + targets.filter((target) => target >= 0).length, 0);
  return batch;
}

function randomMicroBatch(draw: Draw, { vocabulary }: DecoderConfig, tokensMax: number, ignored: number): MicroBatch {
  const lengths: number[] = [];
  const total = draw.from(Math.ceil(tokensMax / 3), tokensMax);
  for (let left = total; left > 0; left -= lengths.at(-1)!) lengths.push(draw.from(1, left));
  return {
    tokens: Int32Array.from(draw.below(total, vocabulary)),
    targets: Int32Array.from(draw.below(total, vocabulary), (target) =>
      draw.random.uniform() < ignored ? -100 : target,
    ),
    positions: Int32Array.from(lengths.flatMap((length) => [...Array(length).keys()])),
    starts: Int32Array.from(cumulative(lengths)),
  };
}

/** A config in which every option of the window has its simplest value. */
export function plainConfig({ sequenceLength, passes, microBatches }: Rows): TrainerConfig {
  return {
    sequenceLength,
    batchSize: passes * microBatches,
    microBatchTokens: sequenceLength,
    gradientAccumulation: passes,
    maxGradNorm: 1,
    optimizer: { learningRate: 2e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, state: "fp32" },
    window: { slots: 2, boundary: "pinned", keepBlocks: 0, residentBlocks: 0, ring: "all" },
  };
}

/** A digest of each part of the training state; the trainer is drained first. */
export async function stateDigests(trainer: Trainer): Promise<Record<string, string>> {
  await trainer.drain();
  const digests: Record<string, string> = {};
  for (const block of trainer.model.blocks)
    for (const part of partsOf(trainer.shape.state, trainer.shape)) {
      const name = stateName(block, part);
      digests[name] = Bun.hash(await bytesIn(trainer.session.buffers.get(name))).toString(16);
    }
  return digests;
}

/** All weights of a model whose blocks are in host memory, as exact float32 masters. */
export function masterWeights({ blocks, state }: Model): Float32Array {
  const bits = blocks.flatMap(({ name, length }) => {
    const hi = new Uint16Array(state.get(`${name}.hi`)!.view());
    const lo = new Int16Array(state.get(`${name}.lo`)!.view());
    return Array.from({ length }, (_, i) => (hi[i]! << 16) + lo[i]!);
  });
  return new Float32Array(Uint32Array.from(bits).buffer);
}

/** A copy of a buffer, wherever it is. */
async function bytesIn(buffer: NativeBuffer): Promise<Uint8Array> {
  if (buffer.tier !== "device") return new Uint8Array(buffer.view()).slice();
  const copy = buffer.engine.buffer("pinned", buffer.bytes, `copy of ${buffer.name}`);
  const plan = new Plan({ step: 0, phase: "save" });
  plan.record("download", "copy", { to: copy.range(), from: buffer.range() });
  await buffer.engine.play(plan);
  const bytes = new Uint8Array(copy.view()).slice();
  copy.free();
  return bytes;
}
