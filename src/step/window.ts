// The window: which blocks' weights are on the device at the moment, and how they get there. With its neighbours
// `boundaries.ts` (hidden states), `accumulators.ts`, `landing.ts` and `updates.ts` (gradients, and what becomes of them) it
// orders streams, and nobody else does; `step.ts` tells the story, the models compute.
//
// `fetch` starts a block's upload into an idle slot; `acquire` makes compute wait for it and hands out the view; `release`
// says that compute is through, so that the slot may be filled again. A slot remembers which layer it holds and at which
// version: the block in the middle of a step is not fetched twice, and a block whose update is still running is not
// fetched too early, because each chunk of an upload waits for the update that writes it.

import type { ParameterBlock } from "../models/parameters.ts";
import { Weights } from "../models/weights.ts";
import { bytesOf } from "../plan/layout.ts";
import { tracked, type Label, type Plan, type Range, type Tracked } from "../plan/plan.ts";
import type { BlockParameters, State } from "../state/parameters.ts";
import { line, type Buffers, type Kind } from "../plan/buffers.ts";
import { Pool } from "../plan/pool.ts";
import { decoderBlocks, embeddingBlock, headBlock, longest, usesSlot, type StepShape } from "../tiers/shape.ts";
import { assert } from "../words/errors.ts";

/** Device memory that holds one block's weights. */
interface Slot extends Tracked {
  holds?: { parameters: BlockParameters; version: number };
  acquired?: boolean;
}

const has = ({ holds }: Slot, parameters: BlockParameters): boolean =>
  holds?.parameters === parameters && holds.version === parameters.version;

export class Window {
  readonly shape: StepShape;
  readonly #state: State;
  readonly #slots: Pool<Slot>;
  readonly #head: Slot;
  readonly #tiedMatrix: Slot | undefined;

  /** Slots for sliding blocks; the head has one of its own, and one for its matrix when that is the embedding. */
  static bill(shape: StepShape) {
    const bytes = bytesOf(shape.dtype);
    const sliding = decoderBlocks(shape).filter(({ layer }) => usesSlot(shape, layer));
    const slot: Kind = { role: "weights", tier: "device", purpose: "window slots" };
    const head: Kind = { ...slot, purpose: "head weights" };
    return {
      slots: Array.from({ length: Math.min(shape.slots, sliding.length) }, (_, index) =>
        line(slot, `slot ${index}`, longest(sliding) * bytes),
      ),
      head: line(head, "head.weights", headBlock(shape).length * bytes),
      matrix: shape.model.tied ? line(head, "head.matrix", embeddingBlock(shape).length * bytes) : undefined,
    };
  }

  constructor(shape: StepShape, buffers: Buffers, state: State) {
    this.shape = shape;
    this.#state = state;
    const { slots, head, matrix } = buffers.held(Window.bill(shape));
    this.#slots = new Pool(slots.map(tracked));
    this.#head = tracked(head);
    this.#tiedMatrix = matrix && tracked(matrix);
  }

  // ---- layers -------------------------------------------------------------------------------------------------------

  /** Fetches these layers, in this order, as far as idle slots allow. */
  fetch(plan: Plan, layers: readonly number[]): void {
    for (const layer of layers) if (usesSlot(this.shape, layer) && !this.#fetchOne(plan, layer)) return;
  }

  /** The slot that holds the layer, from now on in use; undefined when none is idle. */
  #fetchOne(plan: Plan, layer: number): Slot | undefined {
    const parameters = this.#state.layer(layer);
    const there = this.#slotOf(layer);
    if (there) {
      this.#slots.take(there);
      return there;
    }
    const slot = this.#slots.take();
    if (slot) this.#upload(plan, parameters, slot);
    return slot;
  }

  #slotOf(layer: number): Slot | undefined {
    return this.#slots.all.find((slot) => has(slot, this.#state.layer(layer)));
  }

  /** The layer's weights; compute waits for their upload. Valid until `release`. */
  acquire(plan: Plan, layer: number): Weights {
    const { block, whole } = this.#state.layer(layer);
    if (!usesSlot(this.shape, layer)) return new Weights(block, whole.hi, bytesOf("bfloat16"));
    const slot = this.#fetchOne(plan, layer);
    assert(slot, `no slot is idle for layer ${layer}`);
    plan.acquire(slot.resource, "read");
    slot.acquired = true;
    return new Weights(block, slot.range, bytesOf(this.shape.dtype));
  }

  /** Compute has no more use for the layer's weights (for now): the slot may be filled again. */
  release(plan: Plan, layer: number): void {
    if (!usesSlot(this.shape, layer)) return;
    const slot = this.#slotOf(layer);
    assert(slot?.acquired, `layer ${layer} is released without being acquired`);
    plan.settle(slot.resource, "read");
    slot.acquired = false;
    this.#slots.give(slot);
  }

  // ---- head ---------------------------------------------------------------------------------------------------------

  /** Starts the upload of the head: final norm and LM head, which is the embedding when tied. */
  fetchHead(plan: Plan): void {
    const { head, embedding } = this.#state;
    if (!has(this.#head, head)) this.#upload(plan, head, this.#head);
    if (this.#tiedMatrix && !has(this.#tiedMatrix, embedding)) this.#upload(plan, embedding, this.#tiedMatrix);
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
    return this.#slots.taken.map(
      ({ range, acquired }) => `${range.buffer.name} (${acquired ? "acquired" : "fetched"})`,
    );
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
