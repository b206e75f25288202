// The window: which blocks' weights are on the device at the moment, and how they get there. With its neighbours
// `gradients.ts` (how gradients leave and parameters are updated) and `boundaries.ts` (hidden states) it is the only place
// that orders streams; `step.ts` tells the story, the models compute.
//
// `fetch` starts a block's upload into an idle slot; `acquire` makes compute wait for it and hands out the view; `release`
// says that compute is through, so that the slot may be filled again. A slot remembers which layer it holds and at which
// version: the block in the middle of a step is not fetched twice, and a block whose update is still running is not
// fetched too early, because each chunk of an upload waits for the update that writes it.

import { assert } from "../words/errors.ts";
import { type Buffers } from "../tiers/bill.ts";
import { embeddingBlock, headBlock, usesSlot, type StepShape } from "../tiers/shape.ts";
import { Weights } from "../models/weights.ts";
import { bytesOf } from "../plan/layout.ts";
import type { ParameterBlock } from "../models/parameters.ts";
import { BlockParameters } from "../state/parameters.ts";
import { Resource, type Label, type Plan, type Range } from "../plan/plan.ts";

/** Device memory that holds one block's weights. */
class Slot {
  readonly range: Range;
  readonly resource = new Resource();
  holds: { parameters: BlockParameters; version: number } | undefined;
  state: "idle" | "fetched" | "acquired" = "idle";
  /** When it was last released: the one that waits longest is filled first. */
  releasedAt = 0;

  constructor(range: Range) {
    this.range = range;
  }

  has(parameters: BlockParameters): boolean {
    return this.holds?.parameters === parameters && this.holds.version === parameters.version;
  }
}

export class Window {
  readonly shape: StepShape;
  /** By block: embedding, layers, head. */
  readonly parameters: readonly BlockParameters[];
  #slots: Slot[] = [];
  #head: Slot;
  #tiedMatrix: Slot | undefined;
  #clock = 0;

  constructor(shape: StepShape, buffers: Buffers) {
    this.shape = shape;
    this.parameters = shape.blocks.map((block) => new BlockParameters(block, shape, buffers));
    for (let index = 0; buffers.has(`slot ${index}`); index++)
      this.#slots.push(new Slot(buffers.range(`slot ${index}`)));
    this.#head = new Slot(buffers.range("head.weights"));
    if (shape.model.tied) this.#tiedMatrix = new Slot(buffers.range("head.matrix"));
  }

  layer(layer: number): BlockParameters {
    return this.parameters[layer + 1]!;
  }
  get embedding(): BlockParameters {
    return this.parameters[0]!;
  }
  get head(): BlockParameters {
    return this.parameters.at(-1)!;
  }

  // ---- layers -------------------------------------------------------------------------------------------------------

  /** Fetches these layers, in this order, as far as idle slots allow. */
  fetch(plan: Plan, layers: readonly number[]): void {
    for (const layer of layers) if (usesSlot(this.shape, layer) && !this.#fetchOne(plan, layer)) return;
  }

  #fetchOne(plan: Plan, layer: number): Slot | undefined {
    const parameters = this.layer(layer);
    let slot = this.#slots.find((candidate) => candidate.has(parameters));
    if (!slot) {
      slot = this.#slots.filter(({ state }) => state === "idle").sort((a, b) => a.releasedAt - b.releasedAt)[0];
      if (slot) this.#upload(plan, parameters, slot);
    }
    if (slot?.state === "idle") slot.state = "fetched";
    return slot;
  }

  /** The layer's weights; compute waits for their upload. Valid until `release`. */
  acquire(plan: Plan, layer: number): Weights {
    const { block, whole } = this.layer(layer);
    if (!usesSlot(this.shape, layer)) return new Weights(block, whole.hi, bytesOf("bfloat16"));
    const slot = this.#fetchOne(plan, layer);
    assert(slot, `no slot is idle for layer ${layer}`);
    plan.acquire(slot.resource, "read");
    slot.state = "acquired";
    return new Weights(block, slot.range, bytesOf(this.shape.dtype));
  }

  /** Compute has no more use for the layer's weights (for now): the slot may be filled again. */
  release(plan: Plan, layer: number): void {
    if (!usesSlot(this.shape, layer)) return;
    const slot = this.#slots.find((candidate) => candidate.has(this.layer(layer)));
    assert(slot?.state === "acquired", `layer ${layer} is released without being acquired`);
    plan.settle(slot.resource, "read");
    slot.state = "idle";
    slot.releasedAt = ++this.#clock;
  }

  // ---- head ---------------------------------------------------------------------------------------------------------

  /** Starts the upload of the head: final norm and LM head, which is the embedding when tied. It has slots of its own. */
  fetchHead(plan: Plan): void {
    if (!this.#head.has(this.head)) this.#upload(plan, this.head, this.#head);
    if (this.#tiedMatrix && !this.#tiedMatrix.has(this.embedding)) this.#upload(plan, this.embedding, this.#tiedMatrix);
  }

  /** The head's weights; compute waits for their upload. Valid until `releaseHead`. */
  acquireHead(plan: Plan): { matrix: Range; norm: Range } {
    this.fetchHead(plan);
    for (const slot of [this.#head, this.#tiedMatrix]) if (slot) plan.acquire(slot.resource, "read");
    const bytes = bytesOf(this.shape.dtype);
    const head = new Weights(headBlock(this.shape), this.#head.range, bytes);
    const tied = this.#tiedMatrix && new Weights(embeddingBlock(this.shape), this.#tiedMatrix.range, bytes);
    return { matrix: tied ? tied.group("embedding") : head.group("lm_head"), norm: head.group("final_norm") };
  }

  releaseHead(plan: Plan): void {
    for (const slot of [this.#head, this.#tiedMatrix]) if (slot) plan.settle(slot.resource, "read");
  }

  /** Slots in use; none between two plans. */
  held(): string[] {
    return this.#slots
      .filter(({ state }) => state !== "idle")
      .map(({ range, state }) => `${range.buffer.name} (${state})`);
  }

  /** Parameters were changed from outside: nothing on the device is of use. */
  forget(): void {
    for (const parameters of this.parameters) parameters.version++;
  }

  // ---- uploads ------------------------------------------------------------------------------------------------------

  /** A block's parameters into a slot, in the compute dtype, each chunk as soon as its update is done. */
  #upload(plan: Plan, parameters: BlockParameters, slot: Slot): void {
    const bytes = bytesOf(this.shape.dtype);
    const { label } = plan;
    plan.label = { ...label, block: labelOf(parameters.block) };
    plan.wait("upload", ...slot.resource.toWrite());
    for (const chunk of parameters.chunks) {
      const to = slot.range.slice(chunk.offset * bytes, chunk.count * bytes);
      const { hi, lo } = parameters.ranges(chunk);
      const order = { reads: [chunk.resource] };
      if (this.shape.dtype === "bfloat16") plan.record("upload", "copy", { to, from: hi }, order);
      else plan.record("upload", "joinWeights", { to, hi, lo, count: chunk.count }, order);
    }
    slot.resource.wrote(plan.last("upload"));
    slot.holds = { parameters, version: parameters.version };
    plan.label = label;
  }
}

export function labelOf(block: ParameterBlock): NonNullable<Label["block"]> {
  return block.kind === "decoder" ? block.layer : block.kind;
}
