// A session: the buffers of a shape beside a model's own, and a recorder over them. Training, evaluation and generation
// each open one and free it at the end; nothing is allocated between.

import type { StepBatch } from "../data/batches.ts";
import { formatTiers } from "../words/format.ts";
import { Buffers, type BillLine } from "../plan/buffers.ts";
import { demand, type Judged } from "../tiers/limits.ts";
import { type StepShape } from "../tiers/shape.ts";
import type { ModelWeights } from "./weights.ts";
import { rotaryTables } from "../models/block.ts";
import { ropeTable } from "../models/parts/rope.ts";
import type { NativeBuffer } from "../native/runtime.ts";
import { Plan, type Range } from "../plan/plan.ts";
import { StepRecorder, recordEvaluation, type RecordedStep } from "../step/step.ts";

/** Buffers of a shape beside the model's own, and a recorder over them; freed together. */
export class Session implements Disposable {
  readonly model: ModelWeights;
  readonly shape: StepShape;
  readonly bill: BillLine[];
  readonly buffers: Buffers<NativeBuffer>;
  readonly recorder: StepRecorder;
  #own: NativeBuffer[] = [];

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
    const views = new Map<string, ArrayBuffer>();
    const write = ({ buffer: { name }, offset }: Range, values: Int32Array): void => {
      let view = views.get(name);
      if (!view) views.set(name, (view = this.buffers.get(name).view()));
      new Int32Array(view, offset, values.length).set(values);
    };
    this.recorder = new StepRecorder(shape, this.buffers, decays, write);
  }

  #make({ tier, bytes, name }: BillLine): NativeBuffer {
    const buffer = this.model.engine.buffer(tier, bytes, name);
    this.#own.push(buffer);
    return buffer;
  }

  /** Fills what no step writes: the rotary table, and the factor of unclipped updates. Before the first plan. */
  async prepare(): Promise<void> {
    if (this.#prepared) return;
    this.#prepared = true;
    const { blocks, positions } = this.shape;
    const staging = this.model.engine.buffer("pinned", this.recorder.workspace.tables.bytes, "rope table staging");
    for (const { rotary, offset, bytes } of rotaryTables(blocks, positions))
      new Float32Array(staging.view(offset, bytes)).set(ropeTable(rotary, positions));
    const plan = new Plan({ step: 0, phase: "load" });
    plan.record("upload", "copy", { to: this.recorder.workspace.tables, from: staging.range() });
    await this.model.engine.play(plan);
    staging.free();
    const unit = this.recorder.gradients?.updates.unit;
    if (unit) this.#numbers(unit)[0] = 1;
    this.previousFactor = 1;
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
    const values = this.#numbers(this.recorder.results.of(side).totals);
    return totals.reduce((sum, index) => sum + values[index * 8]!, 0);
  }

  /** Norm of a finished training step's gradient, before clipping. */
  gradNorm({ side }: RecordedStep): number {
    return this.#numbers(this.recorder.results.of(side).factor)[1]!;
  }

  [Bun.inspect.custom](): string {
    const { training, microBatches, tokensMax, slots } = this.shape;
    const what = training ? "training" : "forward only";
    const size = `${microBatches} × ${tokensMax} tokens, ${slots} slots`;
    return `Session(${what}, ${size}, ${formatTiers(this.bill)})`;
  }

  /** The factor that the next step's updates take over (`maxGradNorm.mode` "previous"); everything must be drained. */
  get previousFactor(): number | undefined {
    const kept = this.recorder.gradients?.updates.previousFactor;
    return kept && this.#numbers(kept)[0]!;
  }
  set previousFactor(factor: number) {
    const kept = this.recorder.gradients?.updates.previousFactor;
    if (kept) this.#numbers(kept)[0] = factor;
  }
  #numbers({ buffer, offset, bytes }: Range): Float64Array {
    return new Float64Array(this.buffers.get(buffer.name).view(offset, bytes));
  }

  [Symbol.dispose](): void {
    for (const buffer of this.#own) buffer.free();
    this.#own = [];
  }
}
