// What AdamW does to each parameter of a step, as commands: which ranges with which weight decay. It goes element by
// element, so a block may be cut into chunks anywhere. `step/updates.ts` decides when; `zig/device/cpu/adamw.zig` does it.

import type { ParameterBlock } from "../../models/parameters.ts";
import type { Dtype } from "../../native/abi.gen.ts";
import { bytesOf } from "../../plan/layout.ts";
import type { Event, Plan, Range, RecordOptions } from "../../plan/plan.ts";
import type { BlockParameters, Chunk } from "../parameters.ts";
import { decayRuns, type DecayRun } from "../weight-decay.ts";

/** The hyperparameters of one update. */
export interface AdamwStep {
  /** Counts from 1; bias correction uses it. */
  step: number;
  learningRate: number;
  beta1: number;
  beta2: number;
  epsilon: number;
}

/** The updates of one chunk: a run for each stretch of equal weight decay, none shorter than 64 elements. */
export function updateRuns(block: ParameterBlock, chunk: Chunk, decays: ReadonlyMap<string, number>): DecayRun[] {
  const end = chunk.offset + chunk.count;
  return decayRuns(block, decays)
    .map((run) => {
      const offset = Math.max(run.offset, chunk.offset);
      return { offset, count: Math.min(run.offset + run.count, end) - offset, weightDecay: run.weightDecay };
    })
    .filter((run) => run.count > 0);
}

/** A gradient as an update reads it: multiplied by the first number of `factor`. */
export interface ScaledGradient {
  gradient: Range;
  gradientDtype: Dtype;
  factor: Range;
}

/** Which rows of an embedding a step's tokens touch. */
export interface TouchedRows {
  /** Distinct tokens of the step, increasing (U i32). */
  tokens: Range;
  distinct: number;
}

/** Records updates; when they run, and after what, is the caller's: `order`. */
export class Adamw {
  readonly #decays: ReadonlyMap<string, number>;
  readonly #runs = new Map<Chunk, DecayRun[]>();
  #step!: AdamwStep;

  constructor(blocks: readonly BlockParameters[], decays: ReadonlyMap<string, number>) {
    this.#decays = decays;
    for (const { block, chunks } of blocks)
      for (const chunk of chunks) this.#runs.set(chunk, updateRuns(block, chunk, decays));
  }

  /** Every update until the next `begin` is one of this step. */
  begin(step: AdamwStep): void {
    this.#step = step;
  }

  /** Updates one chunk of a block, whose elements `gradient` has; a command for each run. */
  record(
    plan: Plan,
    stream: "compute" | "host",
    parameters: BlockParameters,
    chunk: Chunk,
    { gradient, gradientDtype, factor }: ScaledGradient,
    order: RecordOptions,
  ): Event[] {
    const bytes = bytesOf(gradientDtype);
    return this.#runs.get(chunk)!.map(({ weightDecay, ...run }) => {
      const part = gradient.slice((run.offset - chunk.offset) * bytes, run.count * bytes);
      const { count } = run;
      const args = {
        ...parameters.ranges(run),
        gradient: part,
        gradientDtype,
        factor,
        count,
        ...this.#step,
        weightDecay,
      };
      return plan.record(stream, "adamw", args, order);
    });
  }

  /** Updates the rows of an embedding that no token touched; without a gradient, as if it were zero. */
  recordOtherRows(
    plan: Plan,
    embedding: BlockParameters,
    rows: TouchedRows,
    { gradient, ...scaled }: Omit<ScaledGradient, "gradient"> & { gradient: Range | null },
    order: RecordOptions,
  ): Event {
    return plan.record("host", "adamwOtherRows", { ...this.#rows(embedding, rows), gradient, ...scaled }, order);
  }

  /** Updates the touched rows, whose gradient (U, C) is float32. */
  recordRows(
    plan: Plan,
    embedding: BlockParameters,
    rows: TouchedRows,
    scaled: Omit<ScaledGradient, "gradientDtype">,
    order: RecordOptions,
  ): Event {
    return plan.record("host", "adamwRows", { ...this.#rows(embedding, rows), ...scaled }, order);
  }

  #rows(embedding: BlockParameters, { tokens, distinct }: TouchedRows) {
    const { name, shape, count } = embedding.block.tensors[0]!;
    const [vocabulary, width] = shape as [number, number];
    const weightDecay = this.#decays.get(name)!;
    const state = embedding.ranges({ offset: 0, count });
    return { ...state, tokens, distinct, width, vocabulary, ...this.#step, weightDecay };
  }
}
