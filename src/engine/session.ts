// A session: the buffers of a shape beside a model's own, and a recorder over them. Training, evaluation and generation
// each open one and free it at the end; nothing is allocated between.

import type { BatchShape, StepBatch } from "../data/batches.ts";
import { formatTiers } from "../words/format.ts";
import { Buffers, memoryBill, type BillLine } from "../tiers/bill.ts";
import { checkBill } from "../tiers/limits.ts";
import { type StepShape } from "../tiers/shape.ts";
import type { Model } from "./model.ts";
import { alignBytes } from "../plan/layout.ts";
import { ropeTable } from "../models/rope.ts";
import type { Buffer } from "../native/runtime.ts";
import { Plan, type Range } from "../plan/plan.ts";
import { formatDefault } from "../state/format.ts";
import { StepRecorder, recordEvaluation, resultRange, type RecordedStep } from "../step/step.ts";

/** Rows of logits at once: enough to keep the matrix unit busy, few enough to stay small beside a block. */
export function logitsChunkFor(tokensMax: number, vocabulary: number): number {
  const wanted = Math.max(16, Math.floor((64 << 20) / (vocabulary * 4)));
  return Math.min(Math.ceil(tokensMax / 16) * 16, Math.ceil(Math.min(wanted, 2048) / 16) * 16);
}

/** Micro-batch capacity, so that rows of any width start at multiples of 64 bytes. */
export const tokensMaxFor = (microBatchTokens: number): number => Math.ceil(microBatchTokens / 32) * 32;

/** The most micro-batches of a pass: whole rows, greedily laid end to end. */
export function microBatchesFor({
  batchSize,
  gradientAccumulation,
  microBatchTokens,
  sequenceLength,
}: BatchShape): number {
  return Math.ceil(batchSize / gradientAccumulation / Math.floor(microBatchTokens / sequenceLength));
}

/** A shape for forward passes alone. */
export function inferenceShape(model: Model, options: BatchShape, slots = 2): StepShape {
  const tokensMax = tokensMaxFor(options.microBatchTokens);
  return {
    model: model.config,
    blocks: model.blocks,
    dtype: model.dtype,
    training: false,
    updates: false,
    state: formatDefault,
    tokensMax,
    microBatches: microBatchesFor({ ...options, gradientAccumulation: 1 }),
    passes: 1,
    positions: options.sequenceLength,
    slots,
    boundary: "pinned",
    keep: [],
    residentBlocks: model.residentBlocks,
    ring: 0,
    clips: false,
    logitsChunk: logitsChunkFor(tokensMax, model.config.vocabulary),
    chunkParameters: chunkParametersDefault,
  };
}

/** 4 Mi parameters: 16 to 64 MB a command, long enough to amortise it and short enough to overlap. */
export const chunkParametersDefault = 4 << 20;

/** Buffers of a shape beside the model's own, and a recorder over them; freed together. */
export class Session implements Disposable {
  readonly model: Model;
  readonly shape: StepShape;
  readonly bill: BillLine[];
  readonly buffers: Buffers<Buffer>;
  readonly recorder: StepRecorder;
  #own: Buffer[] = [];

  /** `decays`: weight decay per tensor, when training. MemoryError when the bill is above the device's limit. */
  constructor(model: Model, shape: StepShape, decays: ReadonlyMap<string, number>) {
    this.model = model;
    this.shape = shape;
    this.bill = memoryBill(shape);
    checkBill(shape, model.engine.limits());
    try {
      this.buffers = Buffers.make(this.bill, (line) => model.state.get(line.name) ?? this.#make(line));
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
    const windows = new Map<string, ArrayBuffer>();
    const write = (buffer: string, offset: number, values: Int32Array): void => {
      let window = windows.get(buffer);
      if (!window) windows.set(buffer, (window = this.buffers.get(buffer).window()));
      new Int32Array(window, offset, values.length).set(values);
    };
    this.recorder = new StepRecorder(shape, this.buffers, decays, write);
  }

  #make({ tier, bytes, name }: BillLine): Buffer {
    const buffer = this.model.engine.buffer(tier, bytes, name);
    this.#own.push(buffer);
    return buffer;
  }

  /** Fills what no step writes: the rotary table, and the factor of unclipped updates. Before the first plan. */
  async prepare(): Promise<void> {
    if (this.#prepared) return;
    this.#prepared = true;
    const table = ropeTable(this.shape.model, this.shape.positions);
    const staging = this.model.engine.buffer("pinned", alignBytes(table.byteLength), "rope table staging");
    new Float32Array(staging.window(0, table.byteLength)).set(table);
    const plan = new Plan({ step: 0, phase: "load" });
    plan.record("upload", "copy", { to: this.buffers.range("rope table"), from: staging.range() });
    await this.model.engine.play(plan);
    staging.free();
    if (this.buffers.has("unit factor")) new Float64Array(this.buffers.get("unit factor").window())[0] = 1;
    if (this.buffers.has("previous factors")) this.previousFactor = 1;
  }
  #prepared = false;

  /** Mean loss over batches; every batch may have at most the shape's micro-batches. */
  async evaluate(batches: Iterable<StepBatch>, step = 0): Promise<{ loss: number; validTokens: number }> {
    await this.prepare();
    let sum = 0;
    let validTokens = 0;
    for (const { passes, validTokens: valid } of batches) {
      for (const microBatches of passes) {
        const recorded = recordEvaluation(this.recorder, step, microBatches);
        this.model.engine.submit(recorded.plan);
        await this.model.engine.done(recorded.measured);
        sum += this.lossSum(recorded);
      }
      validTokens += valid;
    }
    return { loss: sum / validTokens, validTokens };
  }

  /** Sum of the losses of a finished step. */
  lossSum({ side, totals }: RecordedStep): number {
    const range = resultRange(this.shape, this.buffers, side)("totals");
    const values = new Float64Array(this.buffers.get(range.buffer.name).window(range.offset, range.bytes));
    return totals.reduce((sum, index) => sum + values[index * 8]!, 0);
  }

  /** Norm of a finished training step's gradient, before clipping. */
  gradNorm({ side }: RecordedStep): number {
    const range = resultRange(this.shape, this.buffers, side)("factor");
    return new Float64Array(this.buffers.get(range.buffer.name).window(range.offset, 16))[1]!;
  }

  [Bun.inspect.custom](): string {
    const { training, microBatches, tokensMax, slots } = this.shape;
    const what = training ? "training" : "forward only";
    const size = `${microBatches} × ${tokensMax} tokens, ${slots} slots`;
    return `Session(${what}, ${size}, ${formatTiers(this.bill)})`;
  }

  /** The factor that the next step's updates take over (`maxGradNorm.mode` "previous"); everything must be drained. */
  get previousFactor(): number | undefined {
    return this.recorder.gradients?.previousFactor && this.#factors(this.recorder.gradients.previousFactor)[0]!;
  }
  set previousFactor(factor: number) {
    const place = this.recorder.gradients?.previousFactor;
    if (place) this.#factors(place)[0] = factor;
  }
  #factors({ buffer, offset, bytes }: Range): Float64Array {
    return new Float64Array(this.buffers.get(buffer.name).window(offset, bytes));
  }

  [Symbol.dispose](): void {
    for (const buffer of this.#own) buffer.free();
    this.#own = [];
  }
}
