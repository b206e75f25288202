// Where finished gradients go: chunk by chunk into a slot of the ring in pinned memory, to be updated as they arrive. Over
// several passes they are added up on the host in float32, and updated after the last. Those of resident blocks stay on the
// device: where they are when they are used up at once, else in a buffer of their own.

import type { Dtype } from "../native/abi.gen.ts";
import { bytesOf } from "../plan/layout.ts";
import { Resource, tracked, type Event, type Plan, type Range, type Tracked } from "../plan/plan.ts";
import { isResident, type BlockParameters, type State } from "../state/parameters.ts";
import { line, type Buffers, type Kind } from "../plan/buffers.ts";
import { Pool } from "../plan/pool.ts";
import {
  decoderBlocks,
  embeddingBlock,
  gradientDtype,
  headBlock,
  keepsGradient,
  longest,
  type StepShape,
} from "../tiers/shape.ts";
import { assert } from "../words/errors.ts";
import type { Norms } from "./norms.ts";
import { deadlineOf, type Updates } from "./updates.ts";

export class Landing {
  readonly shape: StepShape;
  readonly #state: State;
  readonly #norms: Norms;
  readonly #updates: Updates;
  readonly #ring: Pool;
  readonly #head: Tracked;
  readonly #matrix: Tracked | undefined;
  /** By layer, resident and streaming ones. */
  readonly #kept: Map<number, Tracked>;
  readonly #sums: Map<number, { range: Range; resources: Resource[] }>;

  static bill(shape: StepShape) {
    const { passes, ring, model } = shape;
    const dtype = gradientDtype(shape);
    const bytes = bytesOf(dtype);
    const streaming = streamingBlocks(shape);
    const landed: Kind = { role: "gradient", tier: "pinned", purpose: "gradient ring" };
    const keptDtype = passes > 1 ? "float32" : dtype;
    const kept: Kind = {
      role: "gradient",
      tier: "device",
      purpose: "resident gradients",
      holds: { dtype: keptDtype, of: "block" },
    };
    const sums: Kind = { role: "gradient", tier: "host", purpose: "gradient sums over passes" };
    return {
      kept: keptBlocks(shape).map(({ name, length }) => line(kept, `${name}.gradient`, length * bytesOf(keptDtype))),
      ring: Array.from({ length: Math.min(ring, streaming.length) }, (_, index) =>
        line(landed, `ring ${index}`, longest(streaming) * bytes),
      ),
      head: line(landed, "head.landing", headBlock(shape).length * bytes),
      matrix: model.tied ? line(landed, "head.matrixLanding", embeddingBlock(shape).length * bytes) : undefined,
      sums: (passes > 1 ? streaming : []).map(({ name, length }) => line(sums, `${name}.gradientSum`, length * 4)),
    };
  }

  constructor(shape: StepShape, buffers: Buffers, state: State, norms: Norms, updates: Updates) {
    const { kept, ring, head, matrix, sums } = buffers.held(Landing.bill(shape));
    this.shape = shape;
    this.#state = state;
    this.#norms = norms;
    this.#updates = updates;
    this.#ring = new Pool(ring.map(tracked));
    this.#head = tracked(head);
    this.#matrix = matrix && tracked(matrix);
    this.#kept = new Map(keptBlocks(shape).map(({ layer }, index) => [layer, tracked(kept[index]!)]));
    const resources = (layer: number): Resource[] => state.layer(layer).chunks.map(() => new Resource());
    this.#sums = new Map(
      sums.map((range, index) => {
        const { layer } = streamingBlocks(shape)[index]!;
        return [layer, { range, resources: resources(layer) }];
      }),
    );
  }

  /** Where a layer's rounded gradient is made because it stays there. */
  homeOf(layer: number): Tracked | undefined {
    return this.shape.passes === 1 ? this.#kept.get(layer) : undefined;
  }

  /** The tied head's gradient as it lies in the embedding: V rows of C. */
  get matrix(): Tracked | undefined {
    if (!this.#matrix) return undefined;
    const { range, resource } = this.#matrix;
    const { vocabulary, hidden } = this.shape.model;
    return { range: range.slice(0, vocabulary * hidden * bytesOf(gradientDtype(this.shape))), resource };
  }

  /** A layer's gradient of one pass: measured, and remembered for its update, once it is that of the step. */
  layer(plan: Plan, layer: number, finished: Tracked, pass: number): void {
    const parameters = this.#state.layer(layer);
    const dtype = gradientDtype(this.shape);
    if (isResident(this.shape, layer)) return this.#stay(plan, parameters, finished, pass);
    if (this.shape.passes === 1) this.#norms.onDevice(plan, layer, finished, dtype);
    const ring = this.#ring.next();
    const events = this.#download(plan, parameters, finished, ring);
    if (this.shape.passes === 1) this.#due(parameters, ring, dtype, events);
    else this.#sum(plan, parameters, ring, events, pass);
  }

  /** The head's gradient of the step, and its matrix's when that is the embedding. */
  head(plan: Plan, finished: Tracked, matrix: Tracked | undefined): void {
    const { head, embedding } = this.#state;
    const dtype = gradientDtype(this.shape);
    this.#norms.onDevice(plan, this.shape.model.layers, finished, dtype);
    this.#due(head, this.#head, dtype, this.#download(plan, head, finished, this.#head));
    if (matrix) this.#download(plan, embedding, matrix, this.#matrix!);
  }

  /** To the host; a chunk can be updated while the next is on its way. The event of each. */
  #download(plan: Plan, { chunks }: BlockParameters, from: Tracked, to: Tracked): Event[] {
    const bytes = bytesOf(gradientDtype(this.shape));
    plan.wait("download", ...to.resource.toWrite(), ...from.resource.toRead());
    const events = chunks.map(({ offset, count }) => {
      const [start, length] = [offset * bytes, count * bytes];
      const args = { to: to.range.slice(start, length), from: from.range.slice(start, length) };
      return plan.record("download", "copy", args);
    });
    from.resource.read(events.at(-1)!, "download");
    to.resource.wrote(events.at(-1)!);
    return events;
  }

  /** Each chunk is due for its update. */
  #due(parameters: BlockParameters, { range, resource }: Tracked, dtype: Dtype, events?: readonly Event[]): void {
    const bytes = bytesOf(dtype);
    for (const [index, chunk] of parameters.chunks.entries()) {
      const gradient = range.slice(chunk.offset * bytes, chunk.count * bytes);
      this.#updates.add({ parameters, chunk, gradient, dtype, resource, event: events?.[index] });
    }
  }

  #stay(plan: Plan, parameters: BlockParameters, finished: Tracked, pass: number): void {
    const { passes } = this.shape;
    const { layer, length: count } = parameters.block;
    const kept = this.#kept.get(layer);
    const dtype = gradientDtype(this.shape);
    if (passes > 1) {
      assert(kept, `no buffer for the gradient of layer ${layer}`);
      const accumulate = pass > 0 ? 1 : 0;
      plan.record("compute", "accumulate", { to: kept.range, from: finished.range, count, accumulate, dtype });
      plan.settle(finished.resource, "read");
      if (pass < passes - 1) return;
      this.#norms.onDevice(plan, layer, kept, "float32");
      return this.#due(parameters, kept, "float32");
    }
    this.#norms.onDevice(plan, layer, finished, dtype);
    if (!kept || finished.resource === kept.resource) return this.#due(parameters, finished, dtype);
    plan.record("compute", "copy", { to: kept.range, from: finished.range });
    plan.settle(finished.resource, "read");
    this.#due(parameters, kept, dtype);
  }

  /** Adds a pass's gradient to the block's float32 sum, which is the gradient after the last pass. */
  #sum(plan: Plan, parameters: BlockParameters, landed: Tracked, events: readonly Event[], pass: number): void {
    const { block, chunks } = parameters;
    const dtype = gradientDtype(this.shape);
    const bytes = bytesOf(dtype);
    const { range: sum, resources } = this.#sums.get(block.layer)!;
    const accumulate = pass > 0 ? 1 : 0;
    const parts = chunks.map(({ offset, count }) => sum.slice(offset * 4, count * 4));
    for (const [index, { offset, count }] of chunks.entries()) {
      const from = landed.range.slice(offset * bytes, count * bytes);
      const order = { waits: [events[index]!], writes: [resources[index]!], deadline: deadlineOf(this.shape, block) };
      const args = { to: parts[index]!, from, count, accumulate, dtype };
      landed.resource.read(plan.record("host", "accumulate", args, order), "host");
    }
    if (pass < this.shape.passes - 1) return;
    const args = { x: sum, count: block.length, dtype: "float32" } as const;
    this.#norms.onHost(plan, block.layer, "squaredNorm", args, resources);
    for (const [index, chunk] of chunks.entries()) {
      const [gradient, resource] = [parts[index]!, resources[index]!];
      this.#updates.add({ parameters, chunk, gradient, dtype: "float32", resource, event: undefined });
    }
  }
}

const streamingBlocks = (shape: StepShape) => decoderBlocks(shape).filter(({ layer }) => !isResident(shape, layer));
const keptBlocks = (shape: StepShape) => decoderBlocks(shape).filter(({ layer }) => keepsGradient(shape, layer));
