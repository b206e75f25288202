// The gradient of the embedding, which stays on the host: of the rows that a step's tokens touch, in float32, summed by token
// over all micro-batches. With a tied head its share is added, and rows that no token touched have only that.

import { embeddingScale } from "../models/parts/embedding.ts";
import { tracked, type Plan, type Range, type Resource, type Tracked } from "../plan/plan.ts";
import type { TouchedRows } from "../state/optimizers/adamw.ts";
import { line, type Buffers, type Kind } from "../plan/buffers.ts";
import { distinctMax, gradientDtype, type StepShape } from "../tiers/shape.ts";
import type { Norms } from "./norms.ts";

export class RowGradients {
  readonly shape: StepShape;
  readonly #all: Tracked;

  static bill(shape: StepShape) {
    const kind: Kind = { role: "gradient", tier: "host", purpose: "embedding gradient" };
    return { all: line(kind, "embedding.gradient", distinctMax(shape) * shape.model.hidden * 4) };
  }

  constructor(shape: StepShape, buffers: Buffers) {
    this.shape = shape;
    this.#all = tracked(buffers.held(RowGradients.bill(shape)).all);
  }

  /** Of so many distinct tokens (U, C). */
  touched(distinct: number): Tracked {
    const { range, resource } = this.#all;
    return { range: range.slice(0, distinct * this.shape.model.hidden * 4), resource };
  }

  /** Sums one pass's rows by token. `order` and `starts` say where each token occurs. */
  scatter(
    plan: Plan,
    pass: number,
    { distinct }: TouchedRows,
    rows: { dRows: Range; order: Range; starts: Range },
    reads: readonly Resource[],
  ): void {
    const { model, dtype } = this.shape;
    const { range: gradient, resource } = this.touched(distinct);
    const accumulate = pass > 0 ? 1 : 0;
    const args = {
      ...rows,
      gradient,
      distinct,
      width: model.hidden,
      dtype,
      accumulate,
      scale: embeddingScale(model, dtype),
    };
    plan.record("host", "embeddingScatter", args, { reads, writes: [resource] });
  }

  /** The gradient is complete: touched rows get the tied head's share, then both kinds of rows are measured. */
  finish(plan: Plan, { tokens, distinct }: TouchedRows, tied: Tracked | undefined, norms: Norms): void {
    const { layers, hidden: width, vocabulary } = this.shape.model;
    const { range: gradient, resource } = this.touched(distinct);
    if (tied) {
      const { range: head } = tied;
      const rows = { tokens, distinct, width };
      const dtype = gradientDtype(this.shape);
      const order = { reads: [tied.resource], writes: [resource] };
      plan.record("host", "embeddingAddTied", { ...rows, gradient, head, headDtype: dtype }, order);
      const others = { ...rows, x: head, vocabulary, dtype };
      norms.onHost(plan, layers + 2, "squaredNormOtherRows", others, [tied.resource]);
    }
    const measured = { x: gradient, count: distinct * width, dtype: "float32" } as const;
    norms.onHost(plan, layers + 1, "squaredNorm", measured, [resource]);
  }
}
