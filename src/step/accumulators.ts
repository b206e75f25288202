// Where gradients are made on the device: float32 sums over micro-batches, and what they are cast to on their way to the host.
//
// Float32 gradients go to the host as they are, so two blocks' sums alternate; bf16 ones are cast into one of two buffers,
// and one block's sums are enough. Where one product makes the whole gradient of a matrix it is rounded where it is made,
// and only vectors have sums (`roundsAtOnce`). `layer` and `head` hand out buffers that their last reader has left;
// `finishLayer` and `finishHead` give back the gradient that has come together there. `landing.ts` takes it on.

import { paddingOf, vectorsOffset, type ParameterBlock } from "../models/parameters.ts";
import type { HeadGradients } from "../models/parts/head.ts";
import { BlockGradients } from "../models/weights.ts";
import { tracked, type Plan, type Tracked } from "../plan/plan.ts";
import { line, type BillLine, type Buffers, type Kind } from "../plan/buffers.ts";
import { Pool } from "../plan/pool.ts";
import {
  decoderBlocks,
  embeddingBlock,
  gradientDtype,
  headBlock,
  headRoundsAtOnce,
  keepsGradient,
  longest,
  roundsAtOnce,
  type StepShape,
} from "../tiers/shape.ts";

/** The buffers of one gradient. */
interface Accumulator {
  /** Float32 sums of the whole block, or of its vectors alone; a matrix that is rounded at once has none. */
  sums: Tracked | undefined;
  /** The gradient in bf16; float32 gradients are their sums. */
  cast: Tracked | undefined;
}

export class Accumulators {
  readonly shape: StepShape;
  readonly #sums: Pool;
  readonly #casts: Pool;
  readonly #head: Accumulator;
  /** A tied embedding's, as the head's matrix. */
  readonly #matrix: Accumulator | undefined;
  readonly #layoutsDiffer: boolean;
  /** Of the layer in hand. */
  #layer: Accumulator | undefined;

  static bill(shape: StepShape) {
    const layers = decoderBlocks(shape);
    const [embedding, head] = [embeddingBlock(shape), headBlock(shape)];
    const [atOnce, headAtOnce] = [roundsAtOnce(shape), headRoundsAtOnce(shape)];
    const casts = gradientDtype(shape) === "bfloat16";
    const { tied } = shape.model;
    const device: Kind = { role: "gradient", tier: "device", purpose: "gradient accumulators" };
    type Of = NonNullable<Kind["holds"]>["of"];
    const sums = (name: string, of: Of, elements: number): BillLine =>
      line({ ...device, holds: { dtype: "float32", of } }, name, elements * 4);
    const cast = (name: string, of: Of, elements: number): BillLine =>
      line({ ...device, purpose: "gradients cast to bf16", holds: { dtype: "bfloat16", of } }, name, elements * 2);
    /** Layers whose gradient is cast there, and not into a buffer of its own. */
    const passing = layers.filter(({ layer }) => !(keepsGradient(shape, layer) && shape.passes === 1));
    const numbered = (count: number, make: (index: number) => BillLine): BillLine[] =>
      Array.from({ length: count }, (_, index) => make(index));
    return {
      sums: atOnce
        ? [sums("gradient.vectors", "vectors", Math.max(...layers.map(vectorsOf)))]
        : numbered(casts ? 1 : 2, (index) => sums(`gradient.${index}`, "block", longest(layers))),
      casts: numbered(casts ? Math.min(2, passing.length) : 0, (index) =>
        cast(`gradientCast.${index}`, "block", longest(layers)),
      ),
      head: headAtOnce
        ? sums("head.gradientVectors", "vectors", vectorsOf(head))
        : sums("head.gradient", "block", head.length),
      matrix: tied && !headAtOnce ? sums("head.matrixGradient", "embedding", embedding.length) : undefined,
      headCast: casts ? cast("head.gradientCast", "block", head.length) : undefined,
      matrixCast: casts && tied ? cast("head.matrixGradientCast", "embedding", embedding.length) : undefined,
    };
  }

  constructor(shape: StepShape, buffers: Buffers) {
    const { sums, casts, head, headCast, matrix, matrixCast } = buffers.held(Accumulators.bill(shape));
    this.shape = shape;
    this.#layoutsDiffer = new Set(decoderBlocks(shape).map((block) => JSON.stringify(paddingOf(block)))).size > 1;
    this.#sums = new Pool(sums.map(tracked));
    this.#casts = new Pool(casts.map(tracked));
    this.#head = { sums: tracked(head), cast: headCast && tracked(headCast) };
    if (shape.model.tied) this.#matrix = { sums: matrix && tracked(matrix), cast: matrixCast && tracked(matrixCast) };
  }

  /** Where a layer's gradients go; compute waits until the buffers are free. `into`: its rounded gradient stays there. */
  layer(plan: Plan, block: ParameterBlock, into?: Tracked): BlockGradients {
    const casts = gradientDtype(this.shape) === "bfloat16";
    this.#layer = { sums: this.#sums.take(), cast: casts ? (into ?? this.#casts.take()) : undefined };
    return this.#begin(plan, block, this.#layer, roundsAtOnce(this.shape));
  }

  /** The layer's gradient is complete for this pass; compute wrote it. Its buffers may be handed out again. */
  finishLayer(plan: Plan, block: ParameterBlock): Tracked {
    const { sums, cast } = this.#layer!;
    const finished = this.#finish(plan, block, this.#layer!, roundsAtOnce(this.shape));
    this.#sums.give(sums!);
    if (cast && this.#casts.all.includes(cast)) this.#casts.give(cast);
    return finished;
  }

  /** Where the head's gradients go; they stay there over all passes of a step. */
  head(plan: Plan): HeadGradients {
    const atOnce = headRoundsAtOnce(this.shape);
    const head = this.#begin(plan, headBlock(this.shape), this.#head, atOnce);
    const matrix = this.#matrix && this.#begin(plan, embeddingBlock(this.shape), this.#matrix, atOnce);
    return {
      dMatrix: matrix ? matrix.group("embedding") : head.group("lm_head"),
      matrixDtype: head.matrixDtype,
      dNorm: head.group("final_norm"),
    };
  }

  /** The head's gradient is complete for the step, and that of a tied embedding. */
  finishHead(plan: Plan): { head: Tracked; matrix: Tracked | undefined } {
    const atOnce = headRoundsAtOnce(this.shape);
    const head = this.#finish(plan, headBlock(this.shape), this.#head, atOnce);
    const matrix = this.#matrix && this.#finish(plan, embeddingBlock(this.shape), this.#matrix, atOnce);
    return { head, matrix };
  }

  #begin(plan: Plan, block: ParameterBlock, { sums, cast }: Accumulator, atOnce: boolean): BlockGradients {
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

  /** The gradient in the gradient dtype: the sums themselves, or what they are cast to. */
  #finish(plan: Plan, block: ParameterBlock, { sums, cast }: Accumulator, atOnce: boolean): Tracked {
    if (!cast) {
      plan.settle(sums!.resource, "write");
      return { range: sums!.range.slice(0, block.length * 4), resource: sums!.resource };
    }
    const to = cast.range.slice(0, block.length * 2);
    const first = atOnce ? vectorsOffset(block) : 0;
    const count = block.length - first;
    if (!atOnce) plan.acquire(cast.resource, "write");
    if (count > 0) {
      const from = sums!.range.slice(0, count * 4);
      const part = to.slice(first * 2, count * 2);
      plan.record("compute", "cast", { to: part, from, count, toDtype: "bfloat16", fromDtype: "float32" });
    }
    plan.settle(cast.resource, "write");
    return { range: to, resource: cast.resource };
  }
}

/** Elements behind a block's matrices. */
const vectorsOf = (block: ParameterBlock): number => block.length - vectorsOffset(block);
