// A session: the buffers of a shape beside a model's own, and a recorder over them. Training, evaluation and generation
// each open one and free it at the end; nothing is allocated between.

import type { StepBatch } from "../data/batches.ts";
import { formatTiers } from "../words/format.ts";
import { Buffers, type BillLine } from "../tiers/bill.ts";
import { demand, type Judged } from "../tiers/limits.ts";
import { type StepShape } from "../tiers/shape.ts";
import type { ModelWeights } from "./weights.ts";
import { rotaryTables } from "../models/block.ts";
import { ropeTable } from "../models/parts/rope.ts";
import type { Buffer } from "../native/runtime.ts";
import { Plan, type Range } from "../plan/plan.ts";
import { StepRecorder, recordEvaluation, resultRange, type RecordedStep } from "../step/step.ts";

/** Buffers of a shape beside the model's own, and a recorder over them; freed together. */
export class Session implements Disposable {
  readonly model: ModelWeights;
  readonly shape: StepShape;
  readonly bill: BillLine[];
  readonly buffers: Buffers<Buffer>;
  readonly recorder: StepRecorder;
  #own: Buffer[] = [];

  /** `decays`: weight decay per tensor, when training. MemoryError when the bill is above a limit. */
  constructor(model: ModelWeights, resolved: Judged, decays: ReadonlyMap<string, number> = new Map()) {
    demand(resolved);
    const { shape, bill } = resolved;
    this.model = model;
    this.shape = shape;
    this.bill = bill;
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
    const { blocks, positions } = this.shape;
    const staging = this.model.engine.buffer("pinned", this.buffers.get("rope table").bytes, "rope table staging");
    for (const { rotary, offset, bytes } of rotaryTables(blocks, positions))
      new Float32Array(staging.window(offset, bytes)).set(ropeTable(rotary, positions));
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
