// Hidden states between blocks, and where they wait for backward.
//
// A boundary is a block's input, one per layer and micro-batch. On the device, each has a buffer of its own. In pinned
// memory, a pool of device buffers, two more than there are micro-batches, holds what compute works on; a boundary is
// downloaded as soon as it is made and brought back before its block's backward. The input of layer 0 needs no download: the
// gathered embedding rows are in pinned memory already.

import { alignBytes, bytesOf } from "../plan/layout.ts";
import { pieces, Range, type Plan, type Resource, type Tracked } from "../plan/plan.ts";
import { line, type Buffers, type Kind } from "../plan/buffers.ts";
import { Pool } from "../plan/pool.ts";
import type { StepShape } from "../tiers/shape.ts";
import { assert } from "../words/errors.ts";

export class Boundaries {
  readonly shape: StepShape;
  /** Gathered embedding rows, and gradients of the same rows, per micro-batch; in pinned memory. */
  readonly rows: Tracked[];
  readonly #dRows: Tracked[];
  readonly #onDevice: Tracked[][] | undefined;
  readonly #pinned: Tracked[][];
  readonly #pool: Pool;
  /** Forward: the input of the layer in hand. Backward: inputs brought back, by layer and micro-batch. */
  #current = new Map<number, Tracked>();
  #fetched = new Map<string, Tracked>();
  readonly #dHidden: Tracked[];
  #tokens: readonly number[] = [];
  #store = false;

  static bill(shape: StepShape) {
    const { model, microBatches, training, boundary: tier } = shape;
    const one = hiddenBytes(shape);
    const all = microBatches * one;
    const stored = !training ? 0 : tier === "device" ? model.layers + 1 : model.layers - 1;
    const passes = !training || tier === "pinned";
    const hidden: Kind = { role: "hidden", tier: "device", purpose: "hidden states" };
    const gradient: Kind = { ...hidden, role: "hidden gradient", purpose: "gradient of hidden states" };
    const rows: Kind = { role: "hidden", tier: "pinned", purpose: "embedding rows" };
    const dRows: Kind = { role: "hidden gradient", tier: "pinned", purpose: "embedding gradient" };
    return {
      rows: line(rows, "embedding.rows", all),
      passing: passes ? line(hidden, "hidden", all + 2 * one) : undefined,
      stored: stored > 0 ? line({ ...hidden, tier, purpose: "boundaries" }, "boundaries", stored * all) : undefined,
      dHidden: training ? line(gradient, "dHidden", all) : undefined,
      dRows: training ? line(dRows, "embedding.dRows", all) : undefined,
    };
  }

  constructor(shape: StepShape, buffers: Buffers) {
    this.shape = shape;
    const held = buffers.held(Boundaries.bill(shape));
    const each = (range: Range | undefined): Tracked[] => (range ? pieces(range, hiddenBytes(shape)) : []);
    const stored = each(held.stored);
    const layers = Array.from({ length: stored.length / shape.microBatches }, (_, layer) =>
      stored.slice(layer * shape.microBatches, (layer + 1) * shape.microBatches),
    );
    this.rows = each(held.rows);
    this.#dRows = each(held.dRows);
    this.#dHidden = each(held.dHidden);
    this.#pool = new Pool(each(held.passing));
    this.#onDevice = held.passing ? undefined : layers;
    this.#pinned = held.passing ? layers : [];
  }

  /** Starts a pass over micro-batches of so many tokens; `store` when a backward pass follows. */
  begin({ tokens, store }: { tokens: readonly number[]; store: boolean }): void {
    assert(this.#current.size === 0 && this.#fetched.size === 0, "hidden states of the last pass are still held");
    this.#tokens = tokens;
    this.#store = store;
  }

  /** T·C elements of a buffer, at the micro-batch's true length. */
  #view({ range }: Tracked, microBatch: number): Range {
    return range.slice(0, this.#tokens[microBatch]! * this.shape.model.hidden * bytesOf(this.shape.dtype));
  }

  // ---- forward --------------------------------------------------------------------------------------------------------

  /** Where the rows of a micro-batch are gathered. */
  rowsOf(microBatch: number): Range {
    return this.#view(this.rows[microBatch]!, microBatch);
  }

  /** The gathered rows become the input of layer 0. */
  embed(plan: Plan, microBatch: number): void {
    const first = this.#next(0, microBatch);
    this.#bring(plan, this.rows[microBatch]!, first, microBatch);
    this.#current.set(microBatch, first);
  }

  /** The input of the layer in hand (T, C); compute waits for it. */
  input(plan: Plan, microBatch: number): Range {
    const now = this.#current.get(microBatch)!;
    plan.acquire(now.resource, "read");
    return this.#view(now, microBatch);
  }

  /** Where the layer's output goes (T, C); compute waits until it is free. Follow with `advance`. */
  output(plan: Plan, layer: number, microBatch: number): Range {
    const made = this.#next(layer + 1, microBatch);
    plan.acquire(made.resource, "write");
    this.#made = made;
    return this.#view(made, microBatch);
  }
  #made: Tracked | undefined;

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
    const now = this.#current.get(microBatch)!;
    plan.settle(now.resource, "read");
    this.#current.delete(microBatch);
    if (!this.#onDevice) this.#pool.give(now);
  }

  // ---- backward -------------------------------------------------------------------------------------------------------

  /** Starts bringing a boundary back, if it is not on the device and a buffer is idle. */
  fetch(plan: Plan, layer: number, microBatch: number): void {
    const key = `${layer} ${microBatch}`;
    const to = this.#onDevice || this.#fetched.has(key) ? undefined : this.#pool.take();
    if (!to) return;
    const { label } = plan;
    plan.label = { ...label, block: layer, microBatch };
    this.#bring(plan, layer === 0 ? this.rows[microBatch]! : this.#pinned[layer - 1]![microBatch]!, to, microBatch);
    plan.label = label;
    this.#fetched.set(key, to);
  }

  /** The layer's input again (T, C); compute waits for it. Follow with `drained`. */
  restored(plan: Plan, layer: number, microBatch: number): Range {
    this.fetch(plan, layer, microBatch);
    const back = this.#onDevice?.[layer]?.[microBatch] ?? this.#fetched.get(`${layer} ${microBatch}`);
    assert(back, `no buffer is idle for the boundary of layer ${layer}, micro-batch ${microBatch}`);
    plan.acquire(back.resource, "read");
    return this.#view(back, microBatch);
  }

  /** Backward of this layer and micro-batch has read its boundary. */
  drained(plan: Plan, layer: number, microBatch: number): void {
    const key = `${layer} ${microBatch}`;
    const back = this.#onDevice?.[layer]?.[microBatch] ?? this.#fetched.get(key)!;
    plan.settle(back.resource, "read");
    if (this.#fetched.delete(key)) this.#pool.give(back);
  }

  /** Gradient of the hidden states (T, C), in place from the head down to the embedding. */
  gradient(plan: Plan, microBatch: number): Range {
    const { resource } = this.#dHidden[microBatch]!;
    plan.acquire(resource, "write");
    return this.#view(this.#dHidden[microBatch]!, microBatch);
  }

  /** Backward is through: the gradient of the embedding rows goes to the host. */
  unembed(plan: Plan, microBatch: number): void {
    const [from, to] = [this.#dHidden[microBatch]!, this.#dRows[microBatch]!];
    plan.settle(from.resource, "write");
    const args = { to: this.#view(to, microBatch), from: this.#view(from, microBatch) };
    plan.record("download", "copy", args, { reads: [from.resource], writes: [to.resource] });
  }

  /** Those gradients on the host, one micro-batch of `tokensMax` rows behind the other. */
  rowGradients(microBatches: number): { dRows: Range; resources: Resource[] } {
    const some = this.#dRows.slice(0, microBatches);
    const { tokensMax, model, dtype } = this.shape;
    const { buffer } = some[0]!.range;
    const dRows = new Range(buffer, 0, microBatches * tokensMax * model.hidden * bytesOf(dtype));
    return { dRows, resources: some.map(({ resource }) => resource) };
  }

  /** Hidden states in use; none between two plans. */
  held(): string[] {
    const current = [...this.#current.keys()].map((microBatch) => `hidden states of micro-batch ${microBatch}`);
    return [...current, ...[...this.#fetched.keys()].map((key) => `boundary ${key} (layer, micro-batch)`)];
  }

  /** A buffer for the input of a layer. */
  #next(layer: number, microBatch: number): Tracked {
    const next = this.#onDevice ? this.#onDevice[layer]![microBatch] : this.#pool.take();
    assert(next, `no buffer is idle for the input of layer ${layer}, micro-batch ${microBatch}`);
    return next;
  }

  #bring(plan: Plan, from: Tracked, to: Tracked, microBatch: number): void {
    const args = { to: this.#view(to, microBatch), from: this.#view(from, microBatch) };
    plan.record("upload", "copy", args, { reads: [from.resource], writes: [to.resource] });
  }
}

/** The hidden states of a micro-batch (T, C). */
const hiddenBytes = ({ model, tokensMax, dtype }: StepShape): number =>
  alignBytes(tokensMax * model.hidden * bytesOf(dtype));
