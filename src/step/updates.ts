// AdamW on whatever has landed, in deadline order.
//
// The host takes the earliest deadline first: the embedding, then layer 0, 1, … in the order in which the next forward
// pass needs them, and what it has not finished when backward ends runs on underneath that pass (deadline order).
// With exact clipping every update waits for the factor, without it for the check that the loss is finite; a step that is
// clipped by the norm of the one before finds its factor ready. Resident blocks are updated by compute, on the device.

import type { ParameterBlock } from "../models/parameters.ts";
import type { Dtype } from "../native/abi.gen.ts";
import { pieces, Resource, tracked, type Event, type Plan, type Range, type Tracked } from "../plan/plan.ts";
import { Adamw, type AdamwStep, type TouchedRows } from "../state/optimizers/adamw.ts";
import { isResident, type BlockParameters, type State } from "../state/parameters.ts";
import { line, type Buffers, type Kind } from "../plan/buffers.ts";
import { gradientDtype, type StepShape } from "../tiers/shape.ts";
import { assert } from "../words/errors.ts";
import type { Side } from "./inputs.ts";
import { labelOf } from "./window.ts";

/** A chunk of parameters whose gradient is there: its update is due. */
export interface Due {
  parameters: BlockParameters;
  chunk: BlockParameters["chunks"][number];
  gradient: Range;
  dtype: Dtype;
  resource: Resource;
  /** The command that brought this chunk; undefined: whatever wrote the resource. */
  event: Event | undefined;
}

/**
 * When a block's update should run: the next forward pass needs the lowest layer first. But while the ring is shorter than
 * the model, backward waits for slots, and every block but the last ones frees a slot that it waits for: those go first, in
 * the order in which they land.
 */
export function deadlineOf({ model, residentBlocks, ring }: StepShape, { index, layer }: ParameterBlock): number {
  const streaming = model.layers - residentBlocks;
  const behind = layer - residentBlocks;
  if (layer < 0 || behind < 0 || ring >= streaming) return index;
  return behind >= ring ? streaming - behind : index;
}

export class Updates {
  readonly #shape: StepShape;
  readonly #state: State;
  readonly #adamw: Adamw;
  /** 1, for updates that are not clipped; nobody ever writes it. */
  readonly unit: Range | undefined;
  /** The factors of the last step and of the one in hand, in turn, where steps are clipped by the norm before. */
  readonly #previous: Tracked[];
  readonly #deviceFactor: Tracked | undefined;
  readonly #factors = [new Resource(), new Resource()] as const;
  // The step in hand.
  #due: Due[] = [];
  #side: Side = 0;
  #factorRange!: Range;
  /** Events that fail the step when the loss is not finite: nothing is updated before them. */
  lossChecks: Event[] = [];

  static bill(shape: StepShape) {
    const { clips, residentBlocks, model } = shape;
    const host: Kind = { role: "factor", tier: "host", purpose: "losses and norms" };
    return {
      device: residentBlocks > 0 ? line({ ...host, tier: "device" }, "factor", 64) : undefined,
      // Rows of an untied embedding that no token touches have no gradient: no factor changes their update.
      unit: !clips || !model.tied ? line(host, "unit factor", 64) : undefined,
      previous: clips === "previous" ? line(host, "previous factors", 2 * 64) : undefined,
    };
  }

  constructor(shape: StepShape, buffers: Buffers, state: State, decays: ReadonlyMap<string, number>) {
    const { device, unit, previous } = buffers.held(Updates.bill(shape));
    this.#shape = shape;
    this.#state = state;
    this.#adamw = new Adamw(state.blocks, decays);
    this.unit = unit?.slice(0, 16);
    this.#previous = previous ? pieces(previous, 64).map(({ range }) => tracked(range.slice(0, 16))) : [];
    this.#deviceFactor = device && tracked(device);
  }

  /** Starts a step: where its clip factor will be, and what its updates do. */
  begin(side: Side, factor: Range, update: AdamwStep): void {
    assert(this.#due.length === 0, "gradients of the last step were not updated");
    this.#side = side;
    this.#factorRange = factor;
    this.#adamw.begin(update);
    this.lossChecks = [];
  }

  afterLossCheck(event: Event): void {
    this.lossChecks.push(event);
  }

  /** Remembers a chunk until `record`. */
  add(due: Due): void {
    this.#due.push(due);
  }

  /** Who writes and reads this step's clip factor. */
  get factor(): Resource {
    return this.#factors[this.#side];
  }

  /** Rows that no token touched need no scatter, so theirs comes first; touched rows follow. */
  recordEmbedding(plan: Plan, rows: TouchedRows, touched: Tracked, tied: Tracked | undefined): Event {
    const { embedding } = this.#state;
    const { range: factor, resource } = this.#hostFactor();
    const others = tied ? { range: factor, resource } : this.#unitFactor();
    const order = { writes: embedding.resources, waits: this.lossChecks };
    this.#adamw.recordOtherRows(
      plan,
      embedding,
      rows,
      { gradient: tied?.range ?? null, gradientDtype: gradientDtype(this.#shape), factor: others.range },
      { ...order, reads: [others.resource, ...(tied ? [tied.resource] : [])] },
    );
    const event = this.#adamw.recordRows(
      plan,
      embedding,
      rows,
      { gradient: touched.range, factor },
      { ...order, reads: [resource, touched.resource] },
    );
    embedding.version++;
    return event;
  }

  /** Updates what is due. The order of recording does not matter: the host goes by deadline. */
  record(plan: Plan): void {
    const due = this.#due.sort((a, b) => a.parameters.block.index - b.parameters.block.index);
    this.#due = [];
    const { label } = plan;
    for (const { parameters, chunk, gradient, dtype, resource, event: landed } of due) {
      const { block } = parameters;
      const resident = isResident(this.#shape, block.layer);
      plan.label = { step: label.step, phase: "update", block: labelOf(block) };
      const factor = resident ? this.#factorOnDevice(plan) : this.#hostFactor();
      const stream = resident ? "compute" : "host";
      const scaled = { gradient, gradientDtype: dtype, factor: factor.range };
      const events = this.#adamw.record(plan, stream, parameters, chunk, scaled, {
        reads: [factor.resource],
        writes: [chunk.resource],
        waits: [...this.lossChecks, ...(landed === undefined ? resource.toRead() : [landed])],
        deadline: deadlineOf(this.#shape, block),
      });
      for (const event of events) resource.read(event, stream);
    }
    plan.label = label;
    for (const parameters of new Set(due.map((entry) => entry.parameters))) parameters.version++;
  }

  /** The factor by which gradients are multiplied: this step's, the last one's, or 1. */
  #hostFactor(): Tracked {
    const { clips } = this.#shape;
    if (clips === "previous") return this.#previous[0]!;
    return clips === "exact" ? { range: this.#factorRange, resource: this.factor } : this.#unitFactor();
  }

  #unitFactor(): Tracked {
    assert(this.unit, "there is no unit factor");
    return tracked(this.unit);
  }

  /** Where the next step finds its factor; undefined when it makes its own. */
  get previousFactor(): Range | undefined {
    return this.#previous[0]?.range;
  }

  /** After the last update of a step: its own factor is kept for the next. */
  passFactorOn(plan: Plan): void {
    const next = this.#previous[1];
    if (!next) return;
    const args = { to: next.range, from: this.#factorRange };
    plan.record("host", "copy", args, { reads: [this.factor], writes: [next.resource] });
    this.#previous.reverse();
  }

  #factorOnDevice(plan: Plan): Tracked {
    const device = this.#deviceFactor!;
    const to = device.range.slice(0, 16);
    const from = this.#hostFactor();
    if (this.#deviceFactorPlan !== plan) {
      this.#deviceFactorPlan = plan;
      plan.record("upload", "copy", { to, from: from.range }, { reads: [from.resource], writes: [device.resource] });
    }
    return { range: to, resource: device.resource };
  }
  #deviceFactorPlan: Plan | undefined;
}
