// Hidden states between blocks, and where they wait for backward.
//
// A boundary is a block's input, one per layer and micro-batch. Placed on the device, each has a place of its own. Placed
// in pinned memory, a pool of device buffers, two more than there are micro-batches, holds what compute works on; a
// boundary is downloaded as soon as it is made and brought back before its block's backward. The input of layer 0 needs no
// download: the gathered embedding rows are in pinned memory already.

import { assert } from "../words/errors.ts";
import type { Buffers } from "../tiers/bill.ts";
import type { StepShape } from "../tiers/shape.ts";
import { alignBytes, bytesOf } from "../plan/layout.ts";
import { Resource, type Plan, type Range } from "../plan/plan.ts";

interface Place {
  range: Range;
  resource: Resource;
}

export class Boundaries {
  readonly shape: StepShape;
  /** Gathered embedding rows, and gradients of the same rows, per micro-batch; in pinned memory. */
  readonly rows: Place[];
  readonly dRows: Place[];
  #onDevice: Place[][] | undefined;
  #pinned: Place[][] = [];
  #idle: Place[] = [];
  /** Forward: the input of the layer in hand. Backward: inputs brought back, by layer and micro-batch. */
  #current = new Map<number, Place>();
  #fetched = new Map<string, Place>();
  #dHidden: Place[];
  #tokens: readonly number[] = [];
  #store = false;

  constructor(shape: StepShape, buffers: Buffers) {
    this.shape = shape;
    const { model, microBatches, tokensMax, training } = shape;
    const bytes = alignBytes(tokensMax * model.hidden * bytesOf(shape.dtype)); // (T, C)
    const places = (name: string, count: number, first = 0): Place[] =>
      Array.from({ length: count }, (_, index) => ({
        range: buffers.range(name, (first + index) * bytes, bytes),
        resource: new Resource(),
      }));
    const layers = (count: number): Place[][] =>
      Array.from({ length: count }, (_, layer) => places("boundaries", microBatches, layer * microBatches));
    this.rows = places("embedding.rows", microBatches);
    this.dRows = training && shape.updates ? places("embedding.dRows", microBatches) : [];
    this.#dHidden = training ? places("dHidden", microBatches) : [];
    if (training && shape.boundary === "device") this.#onDevice = layers(model.layers + 1);
    else this.#idle = places("hidden", microBatches + 2);
    if (training && shape.boundary === "pinned") this.#pinned = layers(model.layers - 1);
  }

  /** Starts a pass over micro-batches of so many tokens; `store` when a backward pass follows. */
  begin({ tokens, store }: { tokens: readonly number[]; store: boolean }): void {
    assert(this.#current.size === 0 && this.#fetched.size === 0, "hidden states of the last pass are still held");
    this.#tokens = tokens;
    this.#store = store;
  }

  /** T·C elements of a place, at the micro-batch's true length. */
  #view({ range }: Place, microBatch: number): Range {
    return range.slice(0, this.#tokens[microBatch]! * this.shape.model.hidden * bytesOf(this.shape.dtype));
  }

  // ---- forward --------------------------------------------------------------------------------------------------------

  /** Where the rows of a micro-batch are gathered. */
  rowsOf(microBatch: number): Range {
    return this.#view(this.rows[microBatch]!, microBatch);
  }

  /** The gathered rows become the input of layer 0. */
  embed(plan: Plan, microBatch: number): void {
    const place = this.#next(0, microBatch);
    this.#bring(plan, this.rows[microBatch]!, place, microBatch);
    this.#current.set(microBatch, place);
  }

  /** The input of the layer in hand (T, C); compute waits for it. */
  input(plan: Plan, microBatch: number): Range {
    const place = this.#current.get(microBatch)!;
    plan.acquire(place.resource, "read");
    return this.#view(place, microBatch);
  }

  /** Where the layer's output goes (T, C); compute waits until it is free. Follow with `advance`. */
  output(plan: Plan, layer: number, microBatch: number): Range {
    const place = this.#next(layer + 1, microBatch);
    plan.acquire(place.resource, "write");
    this.#made = place;
    return this.#view(place, microBatch);
  }
  #made: Place | undefined;

  /** The layer is computed: its output becomes the next input, and is stored for backward. */
  advance(plan: Plan, layer: number, microBatch: number): void {
    const made = this.#made!;
    plan.settle(made.resource, "write");
    this.finished(plan, microBatch);
    this.#current.set(microBatch, made);
    const stored = this.#pinned[layer]?.[microBatch]; // the input of layer + 1
    if (!stored || !this.#store) return;
    const [to, from] = [this.#view(stored, microBatch), this.#view(made, microBatch)];
    plan.record("download", "copy", { to, from }, { reads: [made.resource], writes: [stored.resource] });
  }

  /** Nobody reads the micro-batch's current hidden states any more. */
  finished(plan: Plan, microBatch: number): void {
    const place = this.#current.get(microBatch)!;
    plan.settle(place.resource, "read");
    this.#current.delete(microBatch);
    if (!this.#onDevice) this.#idle.push(place);
  }

  // ---- backward -------------------------------------------------------------------------------------------------------

  /** Starts bringing a boundary back, if it is not on the device and a buffer is idle. */
  fetch(plan: Plan, layer: number, microBatch: number): void {
    const key = `${layer} ${microBatch}`;
    if (this.#onDevice || this.#fetched.has(key) || this.#idle.length === 0) return;
    const place = this.#idle.shift()!;
    const { label } = plan;
    plan.label = { ...label, block: layer, microBatch };
    this.#bring(plan, layer === 0 ? this.rows[microBatch]! : this.#pinned[layer - 1]![microBatch]!, place, microBatch);
    plan.label = label;
    this.#fetched.set(key, place);
  }

  /** The layer's input again (T, C); compute waits for it. Follow with `drained`. */
  restored(plan: Plan, layer: number, microBatch: number): Range {
    this.fetch(plan, layer, microBatch);
    const place = this.#onDevice?.[layer]?.[microBatch] ?? this.#fetched.get(`${layer} ${microBatch}`);
    assert(place, `no buffer is idle for the boundary of layer ${layer}, micro-batch ${microBatch}`);
    plan.acquire(place.resource, "read");
    return this.#view(place, microBatch);
  }

  /** Backward of this layer and micro-batch has read its boundary. */
  drained(plan: Plan, layer: number, microBatch: number): void {
    const key = `${layer} ${microBatch}`;
    const place = this.#onDevice?.[layer]?.[microBatch] ?? this.#fetched.get(key)!;
    plan.settle(place.resource, "read");
    if (this.#fetched.delete(key)) this.#idle.push(place);
  }

  /** Gradient of the hidden states (T, C), in place from the head down to the embedding. */
  gradient(plan: Plan, microBatch: number): Range {
    const place = this.#dHidden[microBatch]!;
    plan.acquire(place.resource, "write");
    return this.#view(place, microBatch);
  }

  /** Backward is through: the gradient of the embedding rows goes to the host. */
  unembed(plan: Plan, microBatch: number): void {
    const [from, to] = [this.#dHidden[microBatch]!, this.dRows[microBatch]!];
    plan.settle(from.resource, "write");
    const args = { to: this.#view(to, microBatch), from: this.#view(from, microBatch) };
    plan.record("download", "copy", args, { reads: [from.resource], writes: [to.resource] });
  }

  /** Hidden states in use; none between two plans. */
  held(): string[] {
    const current = [...this.#current.keys()].map((microBatch) => `hidden states of micro-batch ${microBatch}`);
    return [...current, ...[...this.#fetched.keys()].map((key) => `boundary ${key} (layer, micro-batch)`)];
  }

  // ---- places ---------------------------------------------------------------------------------------------------------

  #next(layer: number, microBatch: number): Place {
    const place = this.#onDevice ? this.#onDevice[layer]![microBatch] : this.#idle.shift();
    assert(place, `no buffer is idle for the input of layer ${layer}, micro-batch ${microBatch}`);
    return place;
  }

  #bring(plan: Plan, from: Place, to: Place, microBatch: number): void {
    const args = { to: this.#view(to, microBatch), from: this.#view(from, microBatch) };
    plan.record("upload", "copy", args, { reads: [from.resource], writes: [to.resource] });
  }
}
