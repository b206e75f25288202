// What becomes of gradients, from where they are made to the update that uses them up. Four neighbours do one thing each:
// `accumulators.ts` has the device's sums, `landing.ts` brings them to the host, `norms.ts` measures them, `updates.ts` is
// AdamW in deadline order; the embedding's own gradient is in `row-gradients.ts`. Here they are put in order.
//
// Each chunk is updated as it lands; with exact clipping all gradients are kept until the norm is known.

import type { HeadGradients } from "../models/parts/head.ts";
import type { BlockGradients } from "../models/weights.ts";
import type { Event, Plan } from "../plan/plan.ts";
import type { AdamwStep, TouchedRows } from "../state/optimizers/adamw.ts";
import type { State } from "../state/parameters.ts";
import type { Buffers } from "../plan/buffers.ts";
import type { StepShape } from "../tiers/shape.ts";
import { Accumulators } from "./accumulators.ts";
import type { Side } from "./inputs.ts";
import { Landing } from "./landing.ts";
import { Norms } from "./norms.ts";
import type { StepResults } from "./results.ts";
import { RowGradients } from "./row-gradients.ts";
import { Updates } from "./updates.ts";

export class Gradients {
  readonly shape: StepShape;
  readonly accumulators: Accumulators;
  readonly norms: Norms;
  readonly updates: Updates;
  readonly landing: Landing;
  readonly rows: RowGradients;
  readonly #state: State;

  constructor(shape: StepShape, buffers: Buffers, state: State, decays: ReadonlyMap<string, number>) {
    this.shape = shape;
    this.#state = state;
    this.accumulators = new Accumulators(shape, buffers);
    this.norms = new Norms(shape, buffers);
    this.updates = new Updates(shape, buffers, state, decays);
    this.landing = new Landing(shape, buffers, state, this.norms, this.updates);
    this.rows = new RowGradients(shape, buffers);
  }

  /** Starts a step: where its results go, and what its updates do. */
  begin(side: Side, results: StepResults, update: AdamwStep): void {
    this.norms.begin(side, results);
    this.updates.begin(side, results.factor, update);
  }

  /** Where a layer's gradients go; compute waits until the buffers are free. Follow with `land`. */
  layer(plan: Plan, layer: number): BlockGradients {
    return this.accumulators.layer(plan, this.#state.layer(layer).block, this.landing.homeOf(layer));
  }

  /** The same for the head; its buffers last over all passes of a step. Follow with `landHead`. */
  head(plan: Plan): HeadGradients {
    return this.accumulators.head(plan);
  }

  /** A layer's gradient is complete for this pass: on the last pass its parameters are updated. */
  land(plan: Plan, layer: number, pass: number): void {
    const finished = this.accumulators.finishLayer(plan, this.#state.layer(layer).block);
    this.landing.layer(plan, layer, finished, pass);
    if (this.shape.clips !== "exact") this.updates.record(plan);
  }

  /** The head's gradient is complete for the step. */
  landHead(plan: Plan): void {
    const { head, matrix } = this.accumulators.finishHead(plan);
    this.landing.head(plan, head, matrix);
    if (this.shape.clips !== "exact") this.updates.record(plan);
  }

  /**
   * After backward: the global norm, and every update that is still to come. Returns the event of the norm, and that of
   * the embedding's update, after which the step's token lists are free.
   */
  finish(plan: Plan, rows: TouchedRows, maxGradNorm: number | null): { norm: Event; rows: Event } {
    const { step } = plan.label;
    const tied = this.landing.matrix;
    plan.label = { step, phase: "update", block: "embedding" };
    this.rows.finish(plan, rows, tied, this.norms);
    plan.label = { step, phase: "update" };
    const norm = this.norms.finish(plan, maxGradNorm, this.updates.lossChecks, this.updates.factor);
    plan.label = { step, phase: "update", block: "embedding" };
    const rowsEvent = this.updates.recordEmbedding(plan, rows, this.rows.touched(rows.distinct), tied);
    this.updates.record(plan);
    this.updates.passFactorOn(plan);
    return { norm, rows: rowsEvent };
  }
}
