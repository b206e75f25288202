// A part is what a layer is made of: a norm, attention, an MLP. It declares as data its tensors, what its backward reads of
// its forward, its products and its cache, and it records its ops. Everything else about a layer is derived from the list
// of its parts: where activations lie, what a level keeps, what is computed again (`chain.ts`, `../block.ts`), FLOPs, what
// the machine is measured with, what keeping is worth, bytes of a cache.
//
// Hidden states pass through the list: a part's input `x` is the output `out` of the part before. Beside them runs the
// stream, which begins as the block's input: a part that ends a branch adds to it, and the next branch begins with the sum.
// Backward goes the other way. The stream's gradient is turned in place from that of the block's output into that of its
// input; the gradient of an `out` lies where the `out` was, which nobody reads any more.
//
// Dimensions: T tokens, C hidden, F intermediate, H query heads, K key/value heads, D head dim. Read `norm.ts`, the
// shortest part, next.

import type { Dtype, OpName, Ops } from "../../native/abi.gen.ts";
import type { Event, Range } from "../../plan/plan.ts";
import type { Rotary } from "./rope.ts";

/** Tensors of one group lie next to each other without gaps, so that one product (or one op's argument) can serve them. */
export interface Tensor {
  group: string;
  /** Hugging Face's name; of a layer's tensor, what follows the layer's prefix. */
  name: string;
  shape: number[];
}

/** What it costs to compute a value again: its bytes, a matrix product, or attention over whole documents. */
export type Cost = "cheap" | "product" | "attention";

/** An activation: `width` numbers for each token, of the compute dtype or float32. */
export interface Value {
  name: string;
  width: number;
  dtype?: "float32";
  cost: Cost;
}

/** y = x · weightᵀ (+ bias). */
export interface Product {
  group: string;
  bias?: string;
  inputs: number;
  outputs: number;
}

/** One op of a forward pass. Names are of the part's own values, `x` is its input and `stream` the sum of the branches before. */
export interface ForwardOp {
  makes: readonly string[];
  reads: readonly string[];
  record(at: At): void;
  /** Makes the rest of its values from one of them that was kept. */
  given?: Omit<ForwardOp, "given">;
}

/** What a block of any kind says of itself. */
export interface Declared {
  tensors: readonly Tensor[];
  products: readonly Product[];
}

export interface Part extends Declared {
  /** What forward leaves. `out` is saved only where the next part's backward reads it. */
  values: readonly Value[];
  /** Places that nobody needs after the part; in the one called `out` lies an output that is not saved. */
  scratch: readonly Omit<Value, "cost">[];
  /** Backward reads `x`. */
  readsInput: boolean;
  /** The value that is the stream from here on, for a part that adds to it. */
  stream?: string;
  /** Attention: scores of pairs of tokens, and their products with values; a window of 0 is none. */
  pairs?: { heads: number; headDim: number; slidingWindow: number };
  /** The rotary table that the ops look up. */
  rotary?: Rotary;
  /** Elements that generation caches for one sequence of at most `capacity` tokens, by name. */
  cache?(capacity: number): Record<string, number>;
  forward: readonly ForwardOp[];
  backward(at: BackwardAt): void;
}

/** What one micro-batch brings besides its hidden states; all on the device. */
export interface DeviceBatch {
  /** T. */
  tokens: number;
  /** B documents; `starts` has B + 1 entries. */
  documents: number;
  starts: Range;
  positions: Range;
  /** Rows whose target counts, increasing, and their targets. */
  validRows: number;
  rowIndex: Range | null;
  targets: Range | null;
}

/** Attention of generation: appends to a cache instead of looking at the batch alone. */
export interface Cache {
  ranges: Record<string, Range>;
  /** Cached length per sequence before this call (B i32). */
  lengths: Range;
  capacity: number;
}

/** Records on the compute stream. */
export type Run = <Name extends OpName>(op: Name, args: Ops<Range>[Name]) => Event;

/** Where a part computes. Ranges have the micro-batch's true number of tokens. */
export interface At {
  run: Run;
  tokens: number;
  dtype: Dtype;
  batch: DeviceBatch;
  cache: Cache | undefined;
  x: Range;
  stream: Range;
  /** One of the part's values; null when it has none of this name. */
  optional(value: string): Range | null;
  value(name: string): Range;
  scratch(name: string, width: number): Range;
  weight(group: string): Range;
  optionalWeight(group: string): Range | null;
  rotaryTable(rotary: Rotary): Range;
}

export interface BackwardAt extends At {
  /** Gradient of `out`, or of the stream where `out` is that or was not saved. */
  dy: Range;
  /** Where the gradient of `x` goes: in the place of x, or added to the stream's when x is the stream. */
  dx: Range;
  /** Room where values of later parts were, which nobody reads any more; null when none is as large. */
  spent(bytes: number): Range | null;
  /** Gradient of the stream: of the block's output, plus what later branches have added. */
  dStream: Range;
  gradient(group: string): Range;
  optionalGradient(group: string): Range | null;
  gradientDtype: Dtype;
  /** 1: adds to the parameters' gradients; 0: begins them. */
  accumulate: number;
}

/** y = x · weightᵀ (+ bias) (+ residual). */
export function forwardProduct(
  { run, tokens, dtype, weight, optionalWeight }: At,
  { group, bias, inputs, outputs }: Product,
  ranges: { y: Range; x: Range; residual?: Range },
): void {
  const shape = { tokens, inputs, outputs, dtype };
  run("linearForward", {
    residual: null,
    ...ranges,
    weight: weight(group),
    bias: bias === undefined ? null : optionalWeight(bias),
    ...shape,
  });
}

/** First the weight's gradient, then dx, which may take the place of x. */
export function backwardProduct(
  at: BackwardAt,
  { group, bias, inputs, outputs }: Product,
  { dx, dy, x }: { dx: Range; dy: Range; x: Range },
): void {
  const { run, tokens, dtype, gradientDtype, accumulate } = at;
  const shape = { tokens, inputs, outputs, dtype };
  run("linearBackwardWeight", {
    dWeight: at.gradient(group),
    dBias: bias === undefined ? null : at.optionalGradient(bias),
    dy,
    x,
    accumulate,
    gradientDtype,
    ...shape,
  });
  run("linearBackwardInput", { dx, dy, weight: at.weight(group), ...shape });
}
