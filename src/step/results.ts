// What a step measures: losses, the norm of its gradient and the factor that clips it. Two sets take turns, so that a step's
// results can be read while the next one is measured.

import { alignBytes, carve, totalBytes } from "../plan/layout.ts";
import { Resource, type Event, type Plan, type Range } from "../plan/plan.ts";
import { line, type Buffers, type Kind } from "../plan/buffers.ts";
import { normParts, normStride, type StepShape } from "../tiers/shape.ts";
import { sides, type Side } from "./inputs.ts";

type Part = "losses" | "totals" | "norms" | "factor";

function sizesOf(shape: StepShape): Record<Part, number> {
  const { passes, microBatches, tokensMax } = shape;
  return {
    losses: passes * microBatches * alignBytes(tokensMax * 4),
    totals: passes * microBatches * 64,
    norms: normParts(shape) * normStride,
    factor: 64,
  };
}

/** What a step leaves on the host. */
export interface StepResults {
  /** Of each micro-batch: a loss per row, and their sum. */
  losses: Range;
  totals: Range;
  /** A pair (sum of squares, non-finite count) per part: layers, head, touched rows, other rows of a tied embedding. */
  norms: Range;
  /** Clip factor and norm. */
  factor: Range;
}

export class Results {
  readonly #shape: StepShape;
  /** A loss per row, on the device. */
  readonly #losses: Range;
  readonly #sides: ((part: Part, bytes?: number) => Range)[];
  /** Who computes and fetches losses. */
  readonly losses = new Resource();

  static bill(shape: StepShape) {
    const host: Kind = { role: "result", tier: "pinned", purpose: "losses and norms" };
    const sizes = sizesOf(shape);
    return {
      losses: line({ ...host, tier: "device" }, "losses", sizes.losses),
      sides: sides.map((side) => line({ ...host, side }, `results.${side}`, totalBytes(sizes))),
    };
  }

  constructor(shape: StepShape, buffers: Buffers) {
    const held = buffers.held(Results.bill(shape));
    this.#shape = shape;
    this.#losses = held.losses;
    this.#sides = held.sides.map((range) => carve(range, sizesOf(shape)));
  }

  of(side: Side): StepResults {
    const part = this.#sides[side]!;
    return { losses: part("losses"), totals: part("totals"), norms: part("norms"), factor: part("factor", 16) };
  }

  /** Where compute puts the losses of a micro-batch. */
  lossRows(pass: number, microBatch: number): Range {
    const { passes, microBatches } = this.#shape;
    const bytes = this.#losses.bytes / (passes * microBatches);
    return this.#losses.slice((pass * microBatches + microBatch) * bytes, bytes);
  }

  /**
   * The losses of `count` rows of a micro-batch come down and are added up on the host, `after` those of the micro-batch
   * before: the event of the last one says that all are there. `check` fails the step when one is not finite. Without rows
   * the total is 0, and the event still says that compute has passed this point.
   */
  sum(
    plan: Plan,
    side: Side,
    { pass, microBatch, count }: { pass: number; microBatch: number; count: number },
    { check, after }: { check: boolean; after: Event | undefined },
  ): Event {
    const results = this.of(side);
    const index = pass * this.#shape.microBatches + microBatch;
    const total = results.totals.slice(index * 64, 16);
    const device = this.lossRows(pass, microBatch);
    const rows = count > 0 ? results.losses.slice(index * device.bytes, count * 4) : null;
    if (rows) {
      plan.settle(this.losses, "write");
      plan.record("download", "copy", { to: rows, from: device.slice(0, rows.bytes) }, { reads: [this.losses] });
    }
    const waits = [plan.last(rows ? "download" : "compute"), ...(after === undefined ? [] : [after])];
    return plan.record("host", "lossSum", { total, losses: rows, count, check: check ? 1 : 0 }, { waits });
  }
}
