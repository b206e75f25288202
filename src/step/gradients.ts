// How gradients leave the device, and how their norm is measured. `updates.ts` does what follows: AdamW.
//
// `accumulators` hands out gradient buffers that their last reader has left: float32 sums, or, where a pass is one
// micro-batch, the places of the rounded gradient itself (tiers/shape.ts, `roundsAtOnce`). `land` sends a block's finished
// gradient to the host, chunk by chunk, into a slot of the ring. Each chunk is updated as it lands; with exact clipping all
// gradients are kept until the norm is known. Gradients of resident blocks never leave the device.
//
// With several passes, a pass's gradients are added up on the host in float32 and updated after the last pass.

import { assert } from "../words/errors.ts";
import { type Buffers } from "../tiers/bill.ts";
import {
  decoderBlocks,
  embeddingBlock,
  gradientDtype,
  headBlock,
  headRoundsAtOnce,
  isResident,
  keepsGradient,
  normParts,
  normStride,
  roundsAtOnce,
  type StepShape,
} from "../tiers/shape.ts";
import type { HeadGradients } from "../models/parts/head.ts";
import { BlockGradients } from "../models/weights.ts";
import { bytesOf } from "../plan/layout.ts";
import { paddingOf, vectorsOffset, type ParameterBlock } from "../models/parameters.ts";
import type { Dtype, Ops } from "../native/abi.gen.ts";
import type { AdamwStep, TouchedRows } from "../state/optimizers/adamw.ts";
import type { BlockParameters } from "../state/parameters.ts";
import { Resource, type Event, type Plan, type Range } from "../plan/plan.ts";
import { Updates, deadlineOf, type Place } from "./updates.ts";
import type { Window } from "./window.ts";

/** Where a gradient is made on the device. */
interface Making {
  /** Float32 sums of the whole block, or of its vectors alone when matrices are rounded at once. */
  sums: Place | undefined;
  /** The finished gradient in bf16; none when gradients are float32. */
  cast: Place | undefined;
}

/** A gradient on the host, and the event at which each chunk is there. */
interface Landing extends Place {
  events: Event[];
}

/** What the results buffer of a step holds for the optimizer; two of them alternate. */
export interface StepResults {
  /** A pair (sum of squares, non-finite count) per part: layers, head, touched rows, other rows of a tied embedding. */
  norms: Range;
  /** Clip factor and norm. */
  factor: Range;
}

export class Gradients {
  readonly shape: StepShape;
  #window: Window;
  #buffers: Buffers;
  #updates: Updates;
  #accumulators: Place[];
  #casts: Place[];
  #ring: Place[];
  #head: Making & { landing: Place | undefined };
  /** A tied embedding's, as the head's matrix. */
  #matrix: (Making & { landing: Place | undefined }) | undefined;
  #sums = new Map<BlockParameters, Resource[]>();
  #kept = new Map<BlockParameters, Place>();
  #deviceNorms!: Place;
  #rowsGradient!: Place;
  #norms = [new Resource(), new Resource()] as const;
  #layoutsDiffer: boolean;

  // What the step in hand has gathered.
  /** Parts of the norm that compute measures, and the events after which each part is in the results. */
  #onDevice: number[] = [];
  #normEvents: Event[] = [];
  #results!: StepResults;
  #side: 0 | 1 = 0;

  constructor(shape: StepShape, buffers: Buffers, window: Window, decays: ReadonlyMap<string, number>) {
    this.shape = shape;
    this.#window = window;
    this.#buffers = buffers;
    this.#updates = new Updates(shape, buffers, window, decays);
    this.#layoutsDiffer = new Set(decoderBlocks(shape).map((block) => JSON.stringify(paddingOf(block)))).size > 1;
    const place = (name: string): Place => ({ range: buffers.range(name), resource: new Resource() });
    const places = (name: string): Place[] => {
      const found: Place[] = [];
      while (buffers.has(`${name}${found.length}`)) found.push(place(`${name}${found.length}`));
      return found;
    };
    const optional = (name: string): Place | undefined => (buffers.has(name) ? place(name) : undefined);
    this.#accumulators = roundsAtOnce(shape) ? [place("gradient.vectors")] : places("gradient.");
    this.#casts = places("gradientCast.");
    this.#ring = places("ring ");
    this.#head = {
      sums: place(headRoundsAtOnce(shape) ? "head.gradientVectors" : "head.gradient"),
      cast: optional("head.gradientCast"),
      landing: optional("head.landing"),
    };
    if (shape.model.tied)
      this.#matrix = {
        sums: optional("head.matrixGradient"),
        cast: optional("head.matrixGradientCast"),
        landing: optional("head.matrixLanding"),
      };
    for (const parameters of window.parameters) {
      if (shape.passes > 1)
        this.#sums.set(
          parameters,
          parameters.chunks.map(() => new Resource()),
        );
      const { name, layer } = parameters.block;
      if (shape.updates && keepsGradient(shape, layer)) this.#kept.set(parameters, place(`${name}.gradient`));
    }
    if (!shape.updates) return;
    this.#deviceNorms = place("norms");
    this.#rowsGradient = place("embedding.gradient");
  }

  /** Starts a step: where its results go, and what its updates do. */
  begin(side: 0 | 1, results: StepResults, update: AdamwStep): void {
    this.#side = side;
    this.#results = results;
    this.#updates.begin(side, results.factor, update);
    this.#onDevice = [];
  }

  /** Where the factor for the next step is, when steps are clipped by the norm of the one before. */
  get previousFactor(): Range | undefined {
    return this.#updates.previousFactor;
  }

  /** Nothing may be updated before this event: it fails the step when the loss is not finite. */
  afterLossCheck(event: Event): void {
    this.#updates.afterLossCheck(event);
  }

  // ---- accumulators ---------------------------------------------------------------------------------------------------

  /** Where a layer's gradients go; compute waits until the places are free. */
  accumulators(plan: Plan, layer: number): BlockGradients {
    return this.#begin(plan, this.#window.layer(layer).block, this.#making(layer), roundsAtOnce(this.shape));
  }

  /** The same for the head; its places last over all passes of a step. */
  headAccumulators(plan: Plan): HeadGradients {
    const atOnce = headRoundsAtOnce(this.shape);
    const head = this.#begin(plan, headBlock(this.shape), this.#head, atOnce);
    const matrix = this.#matrix && this.#begin(plan, embeddingBlock(this.shape), this.#matrix, atOnce);
    return {
      dMatrix: matrix ? matrix.group("embedding") : head.group("lm_head"),
      matrixDtype: head.matrixDtype,
      dNorm: head.group("final_norm"),
    };
  }

  #making(layer: number): Making {
    const kept = this.shape.passes === 1 ? this.#kept.get(this.#window.layer(layer)) : undefined;
    return {
      sums: this.#accumulators[0],
      cast: gradientDtype(this.shape) === "float32" ? undefined : (kept ?? this.#casts[0]),
    };
  }

  #begin(plan: Plan, block: ParameterBlock, { sums, cast }: Making, atOnce: boolean): BlockGradients {
    if (sums) plan.acquire(sums.resource, "write");
    if (atOnce) plan.acquire(cast!.resource, "write");
    const gradients = atOnce
      ? new BlockGradients(block, "bfloat16", cast!.range, sums?.range ?? cast!.range.slice(0, 0))
      : new BlockGradients(block, "float32", sums!.range, sums!.range.slice(vectorsOffset(block) * 4));
    // Padding has no gradient. Where layers are laid out alike nothing was ever written there.
    if (this.#layoutsDiffer && block.kind === "decoder")
      for (const padding of paddingOf(block)) plan.record("compute", "zero", { to: gradients.elements(padding) });
    return gradients;
  }

  /** The finished gradient in the gradient dtype: the sums themselves, or what they are cast to. Compute wrote it. */
  #finish(plan: Plan, block: ParameterBlock, { sums, cast }: Making, atOnce: boolean): Place {
    if (gradientDtype(this.shape) === "float32") {
      plan.settle(sums!.resource, "write");
      return { range: sums!.range.slice(0, block.length * 4), resource: sums!.resource };
    }
    const to = cast!.range.slice(0, block.length * 2);
    const first = atOnce ? vectorsOffset(block) : 0;
    const count = block.length - first;
    if (!atOnce) plan.acquire(cast!.resource, "write");
    if (count > 0) {
      const from = sums!.range.slice(0, count * 4);
      const part = to.slice(first * 2, count * 2);
      plan.record("compute", "cast", { to: part, from, count, toDtype: "bfloat16", fromDtype: "float32" });
    }
    plan.settle(cast!.resource, "write");
    return { range: to, resource: cast!.resource };
  }

  // ---- landing --------------------------------------------------------------------------------------------------------

  /** A layer's gradient is complete for this pass: send it to the host, and on the last pass update the parameters. */
  land(plan: Plan, layer: number, pass: number): void {
    const parameters = this.#window.layer(layer);
    const finished = this.#finish(plan, parameters.block, this.#making(layer), roundsAtOnce(this.shape));
    rotate(this.#accumulators);
    if (finished.resource === this.#casts[0]?.resource) rotate(this.#casts);
    if (!this.shape.updates) return;
    if (isResident(this.shape, layer)) this.#landOnDevice(plan, parameters, finished, pass);
    else if (this.shape.passes === 1) {
      this.#measureOnDevice(plan, finished, layer, gradientDtype(this.shape));
      this.#push(parameters, this.#download(plan, parameters, finished, this.#ring[0]!), gradientDtype(this.shape));
    } else this.#sumOnHost(plan, parameters, this.#download(plan, parameters, finished, this.#ring[0]!), pass);
    if (!isResident(this.shape, layer)) rotate(this.#ring);
    if (this.shape.clips !== "exact") this.#updates.record(plan);
  }

  /** The head's gradient is complete for the step. */
  landHead(plan: Plan): void {
    const head = this.#window.head;
    const atOnce = headRoundsAtOnce(this.shape);
    const finished = this.#finish(plan, headBlock(this.shape), this.#head, atOnce);
    const matrix = this.#matrix && this.#finish(plan, embeddingBlock(this.shape), this.#matrix, atOnce);
    if (!this.shape.updates) return;
    this.#measureOnDevice(plan, finished, this.shape.model.layers, gradientDtype(this.shape));
    this.#push(head, this.#download(plan, head, finished, this.#head.landing!), gradientDtype(this.shape));
    if (matrix) this.#download(plan, this.#window.embedding, matrix, this.#matrix!.landing!);
    if (this.shape.clips !== "exact") this.#updates.record(plan);
  }

  /** Chunk by chunk to the host; a chunk can be updated while the next is on its way. */
  #download(plan: Plan, { chunks }: BlockParameters, from: Place, landing: Place): Landing {
    const bytes = bytesOf(gradientDtype(this.shape));
    plan.wait("download", ...landing.resource.toWrite(), ...from.resource.toRead());
    const events = chunks.map(({ offset, count }) => {
      const [start, length] = [offset * bytes, count * bytes];
      return plan.record("download", "copy", {
        to: landing.range.slice(start, length),
        from: from.range.slice(start, length),
      });
    });
    from.resource.read(events.at(-1)!, "download");
    landing.resource.wrote(events.at(-1)!);
    return { ...landing, events };
  }

  /** Remembers a block's gradient for its update. */
  #push(parameters: BlockParameters, { range, resource, events }: Place & Partial<Landing>, dtype: Dtype): void {
    const bytes = bytesOf(dtype);
    for (const [index, chunk] of parameters.chunks.entries()) {
      const gradient = range.slice(chunk.offset * bytes, chunk.count * bytes);
      this.#updates.add({ parameters, chunk, gradient, dtype, resource, event: events?.[index] });
    }
  }

  /** A resident block's gradient stays: where it is when that is used up at once or its own place, else it moves there. */
  #landOnDevice(plan: Plan, parameters: BlockParameters, finished: Place, pass: number): void {
    const kept = this.#kept.get(parameters);
    const { layer, length: count } = parameters.block;
    const dtype = gradientDtype(this.shape);
    if (this.shape.passes > 1) {
      assert(kept, `no place for the gradient of layer ${layer}`);
      const accumulate = pass > 0 ? 1 : 0;
      plan.record("compute", "accumulate", { to: kept.range, from: finished.range, count, accumulate, dtype });
      plan.settle(finished.resource, "read");
      if (pass < this.shape.passes - 1) return;
      this.#measureOnDevice(plan, kept, layer, "float32");
      return this.#push(parameters, kept, "float32");
    }
    this.#measureOnDevice(plan, finished, layer, dtype);
    if (!kept || finished.resource === kept.resource) return this.#push(parameters, finished, dtype);
    plan.record("compute", "copy", { to: kept.range, from: finished.range });
    plan.settle(finished.resource, "read");
    this.#push(parameters, kept, dtype);
  }

  /** Adds a pass's gradient to the block's float32 sum, which is the gradient after the last pass. */
  #sumOnHost(plan: Plan, parameters: BlockParameters, landing: Landing, pass: number): void {
    const { block, chunks } = parameters;
    const dtype = gradientDtype(this.shape);
    const bytes = bytesOf(dtype);
    const sum = this.#buffers.range(`${block.name}.gradientSum`);
    const resources = this.#sums.get(parameters)!;
    const accumulate = pass > 0 ? 1 : 0;
    for (const [index, { offset, count }] of chunks.entries()) {
      const to = sum.slice(offset * 4, count * 4);
      const from = landing.range.slice(offset * bytes, count * bytes);
      const deadline = deadlineOf(this.shape, block);
      const order = { waits: [landing.events[index]!], writes: [resources[index]!], deadline };
      landing.resource.read(plan.record("host", "accumulate", { to, from, count, accumulate, dtype }, order), "host");
    }
    if (pass < this.shape.passes - 1) return;
    const args = { sum: this.#norm(block.layer), x: sum, count: block.length, dtype: "float32" as const };
    this.#measureOnHost(plan, "squaredNorm", args, resources);
    for (const [index, chunk] of chunks.entries()) {
      const gradient = sum.slice(chunk.offset * 4, chunk.count * 4);
      this.#updates.add({
        parameters,
        chunk,
        gradient,
        dtype: "float32",
        resource: resources[index]!,
        event: undefined,
      });
    }
  }

  // ---- norm -----------------------------------------------------------------------------------------------------------

  #measureOnDevice(plan: Plan, gradient: Place, part: number, dtype: Dtype): void {
    const sum = this.#deviceNorms.range.slice(part * normStride, 16);
    const count = gradient.range.bytes / bytesOf(dtype);
    plan.acquire(this.#deviceNorms.resource, "write");
    plan.record("compute", "squaredNorm", { sum, x: gradient.range, count, dtype });
    this.#onDevice.push(part);
  }

  #measureOnHost<Name extends "squaredNorm" | "squaredNormOtherRows">(
    plan: Plan,
    op: Name,
    args: Ops<Range>[Name],
    reads: Resource[],
  ): void {
    this.#normEvents.push(plan.record("host", op, args, { reads, waits: this.#norms[this.#side].toWrite() }));
  }

  #norm(part: number): Range {
    return this.#results.norms.slice(part * normStride, 16);
  }

  // ---- embedding ------------------------------------------------------------------------------------------------------

  /** Sums the gradients of one pass's embedding rows by token. `order` and `starts` say where each token occurs. */
  scatterRows(
    plan: Plan,
    pass: number,
    rows: TouchedRows,
    args: { dRows: Range; order: Range; starts: Range },
    reads: readonly Resource[],
  ): void {
    const { model, dtype } = this.shape;
    const { distinct } = rows;
    const gradient = this.#touchedGradient(distinct);
    plan.record(
      "host",
      "embeddingScatter",
      { ...args, gradient, distinct, width: model.hidden, dtype, accumulate: pass > 0 ? 1 : 0 },
      { reads, writes: [this.#rowsGradient.resource] },
    );
  }

  #touchedGradient(distinct: number): Range {
    return this.#rowsGradient.range.slice(0, distinct * this.shape.model.hidden * 4);
  }

  /** The embedding's gradient is complete: touched rows get the head's share when tied, then both parts are measured. */
  #landEmbedding(plan: Plan, { tokens, distinct }: TouchedRows): void {
    const { layers, hidden: width, vocabulary } = this.shape.model;
    const gradient = this.#touchedGradient(distinct);
    const touched = this.#rowsGradient.resource;
    const dtype = gradientDtype(this.shape);
    if (this.#matrix) {
      const { range: head, resource } = this.#tiedLanding();
      const rows = { tokens, distinct, width };
      plan.record(
        "host",
        "embeddingAddTied",
        { ...rows, gradient, head, headDtype: dtype },
        { reads: [resource], writes: [touched] },
      );
      const others = { ...rows, sum: this.#norm(layers + 2), x: head, vocabulary, dtype };
      this.#measureOnHost(plan, "squaredNormOtherRows", others, [resource]);
    }
    const sum = { sum: this.#norm(layers + 1), x: gradient, count: distinct * width, dtype: "float32" as const };
    this.#measureOnHost(plan, "squaredNorm", sum, [touched]);
  }

  /** The tied head's gradient as it lies in the embedding: V rows of C. */
  #tiedLanding(): Place {
    const { range, resource } = this.#matrix!.landing!;
    const { vocabulary, hidden } = this.shape.model;
    return { range: range.slice(0, vocabulary * hidden * bytesOf(gradientDtype(this.shape))), resource };
  }

  // ---- end of the step ------------------------------------------------------------------------------------------------

  /**
   * After backward: the global norm, and every update that is still to come. Returns the event of the norm, and that of
   * the embedding's update, after which the step's token lists are free.
   */
  finish(plan: Plan, rows: TouchedRows, maxGradNorm: number | null): { norm: Event; rows: Event } {
    const side = this.#side;
    plan.label = { step: plan.label.step, phase: "update", block: "embedding" };
    this.#landEmbedding(plan, rows);
    plan.label = { step: plan.label.step, phase: "update" };
    plan.settle(this.#deviceNorms.resource, "write");
    for (const part of this.#onDevice) {
      const from = this.#deviceNorms.range.slice(part * normStride, normStride);
      const to = this.#results.norms.slice(part * normStride, normStride);
      const order = { reads: [this.#deviceNorms.resource], waits: this.#norms[side].toWrite() };
      this.#normEvents.push(plan.record("download", "copy", { to, from }, order));
    }
    const parts = normParts(this.shape) - (this.shape.model.tied ? 0 : 1);
    const sums = this.#results.norms.slice(0, parts * normStride);
    const { factor } = this.#results;
    const norm = plan.record(
      "host",
      "clipFactor",
      { factor, sums, parts, maxNorm: maxGradNorm ?? 0 },
      { waits: [...this.#normEvents, ...this.#updates.lossChecks], writes: [this.#updates.factor] },
    );
    this.#norms[side].wrote(norm);
    this.#normEvents = [];
    plan.label = { step: plan.label.step, phase: "update", block: "embedding" };
    const gradient = { range: this.#touchedGradient(rows.distinct), resource: this.#rowsGradient.resource };
    const rowsEvent = this.#updates.recordEmbedding(plan, rows, gradient, this.#matrix && this.#tiedLanding());
    this.#updates.record(plan);
    this.#updates.passFactorOn(plan);
    return { norm, rows: rowsEvent };
  }
}

/** The first becomes the last. */
function rotate<T>(list: T[]): void {
  if (list.length > 1) list.push(list.shift()!);
}
