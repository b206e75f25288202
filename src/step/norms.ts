// The norm of a step's gradient: squares are summed where each gradient is, compute's sums come down, and the host adds all of
// them in order and makes the factor by which gradients are clipped.

import type { Dtype, Ops } from "../native/abi.gen.ts";
import { bytesOf } from "../plan/layout.ts";
import { Resource, tracked, type Event, type Plan, type Range, type Tracked } from "../plan/plan.ts";
import { line, type Buffers, type Kind } from "../plan/buffers.ts";
import { normParts, normStride, type StepShape } from "../tiers/shape.ts";
import type { Side } from "./inputs.ts";
import type { StepResults } from "./results.ts";

export class Norms {
  readonly shape: StepShape;
  readonly #onDevice: Tracked;
  readonly #written = [new Resource(), new Resource()] as const;
  // The step in hand.
  #side: Side = 0;
  #results!: StepResults;
  /** Parts that compute measures, and the events after which each part is in the results. */
  #parts: number[] = [];
  #events: Event[] = [];

  static bill(shape: StepShape) {
    const kind: Kind = { role: "result", tier: "device", purpose: "losses and norms" };
    return { device: line(kind, "norms", normParts(shape) * normStride) };
  }

  constructor(shape: StepShape, buffers: Buffers) {
    this.shape = shape;
    this.#onDevice = tracked(buffers.held(Norms.bill(shape)).device);
  }

  begin(side: Side, results: StepResults): void {
    this.#side = side;
    this.#results = results;
    this.#parts = [];
    this.#events = [];
  }

  /** Compute, which has just made this gradient, measures it. */
  onDevice(plan: Plan, part: number, { range: x }: Tracked, dtype: Dtype): void {
    const sum = this.#onDevice.range.slice(part * normStride, 16);
    plan.acquire(this.#onDevice.resource, "write");
    plan.record("compute", "squaredNorm", { sum, x, count: x.bytes / bytesOf(dtype), dtype });
    this.#parts.push(part);
  }

  onHost<Name extends "squaredNorm" | "squaredNormOtherRows">(
    plan: Plan,
    part: number,
    op: Name,
    args: Omit<Ops<Range>[Name], "sum">,
    reads: readonly Resource[],
  ): void {
    const all = { ...args, sum: this.#results.norms.slice(part * normStride, 16) } as Ops<Range>[Name];
    this.#events.push(plan.record("host", op, all, { reads, waits: this.#written[this.#side].toWrite() }));
  }

  /** After the last part: adds them up. The event of norm and factor; `factor` is whoever uses that. */
  finish(plan: Plan, maxGradNorm: number | null, after: readonly Event[], factor: Resource): Event {
    const { norms } = this.#results;
    const written = this.#written[this.#side];
    plan.settle(this.#onDevice.resource, "write");
    for (const part of this.#parts) {
      const [from, to] = [this.#onDevice.range, norms].map((all) => all.slice(part * normStride, normStride));
      const order = { reads: [this.#onDevice.resource], waits: written.toWrite() };
      this.#events.push(plan.record("download", "copy", { to: to!, from: from! }, order));
    }
    const parts = normParts(this.shape) - (this.shape.model.tied ? 0 : 1);
    const sums = norms.slice(0, parts * normStride);
    const event = plan.record(
      "host",
      "clipFactor",
      { factor: this.#results.factor, sums, parts, maxNorm: maxGradNorm ?? 0 },
      { waits: [...this.#events, ...after], writes: [factor] },
    );
    written.wrote(event);
    return event;
  }
}
