// The dense decoder block that all four architectures are: RMSNorm, grouped-query attention with rotary positions,
// RMSNorm, SwiGLU, each half added to the residual stream (HF LlamaDecoderLayer, Qwen2DecoderLayer, Qwen3DecoderLayer,
// MistralDecoderLayer). Forward and backward are hand-written pairs: a block is about ten ops, and the window needs to
// know what backward reads.
//
// Nothing here allocates or orders anything: the functions record ops on the compute stream over ranges they are given.
// Dimensions: T tokens, C hidden, F intermediate, V vocabulary, H query heads, K key/value heads, D head dim.

import { alignBytes, bytesOf, carve } from "../plan/layout.ts";
import type { Event, Plan, Range } from "../plan/plan.ts";
import type { Dtype } from "../native/abi.gen.ts";
import type { GroupName } from "./architecture.ts";
import type { DecoderConfig } from "./config.ts";
import { groupOf, vectorsOffset, type ParameterBlock } from "./parameters.ts";

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
export interface AttentionCache {
  keys: Range;
  values: Range;
  /** Cached length per sequence before this call (B i32). */
  lengths: Range;
  capacity: number;
}

/** The weights of a block on the device: one flat range, groups by name. */
export class Weights {
  readonly block: ParameterBlock;
  readonly range: Range;
  readonly elementBytes: number;

  constructor(block: ParameterBlock, range: Range, elementBytes: number) {
    this.block = block;
    this.range = range;
    this.elementBytes = elementBytes;
  }

  group(name: GroupName): Range {
    const { offset, count } = groupOf(this.block, name);
    return this.range.slice(offset * this.elementBytes, count * this.elementBytes);
  }

  optional(name: GroupName): Range | null {
    return this.block.groups.has(name) ? this.group(name) : null;
  }
}

/**
 * Where a block's gradients go. Those of vectors are always float32 sums; those of matrices as well, or, when one product
 * makes the whole gradient, the compute dtype at once. Vectors lie behind the matrices in every block.
 */
export class BlockGradients {
  readonly block: ParameterBlock;
  readonly matrixDtype: Dtype;
  #matrices: Range;
  #vectors: Range;

  constructor(block: ParameterBlock, matrixDtype: Dtype, matrices: Range, vectors: Range) {
    this.block = block;
    this.matrixDtype = matrixDtype;
    this.#matrices = matrices;
    this.#vectors = vectors;
  }

  group(name: GroupName): Range {
    const { offset, count } = groupOf(this.block, name);
    const behind = offset - vectorsOffset(this.block);
    if (behind >= 0) return this.#vectors.slice(behind * 4, count * 4);
    const bytes = bytesOf(this.matrixDtype);
    return this.#matrices.slice(offset * bytes, count * bytes);
  }

  optional(name: GroupName): Range | null {
    return this.block.groups.has(name) ? this.group(name) : null;
  }
}

/** What a block's forward leaves for its backward, and where: byte sizes per name for T tokens. */
export function activationSizes(model: DecoderConfig, tokens: number, dtype: Dtype): Record<ActivationName, number> {
  const { hidden: C, intermediate: F, heads: H, kvHeads: K, headDim: D } = model;
  const rows = (width: number) => alignBytes(tokens * width * bytesOf(dtype));
  const floats = (width: number) => alignBytes(tokens * width * 4);
  return {
    normed1: rows(C),
    inverse1: floats(1),
    qkv: rows((H + 2 * K) * D),
    qk: rows((H + K) * D),
    qkInverse: model.qkNorm ? floats(H + K) : 0,
    attention: rows(H * D),
    lse: floats(H),
    residual: rows(C),
    normed2: rows(C),
    inverse2: floats(1),
    gateUp: rows(2 * F),
    swiglu: rows(F),
  };
}

/**
 * How much of that a block keeps from forward to backward; what it does not keep is computed again. In bytes and in time
 * saved the rungs are far apart: attention costs the more the longer the documents are; the results of matrix products are
 * the rest of the arithmetic; norms, rotation and SwiGLU are cheap beside the bytes they fill.
 */
export const keepLevels = ["recompute", "attention", "products", "all"] as const;
export type KeepLevel = (typeof keepLevels)[number];

/** "24 attention, 12 products": how many blocks keep what. */
export function describeKeep(keep: readonly KeepLevel[], layers: number): string {
  const counts = keepLevels.map((level) => ({ level, count: keep.filter((kept) => kept === level).length }));
  counts[0]!.count += layers - keep.length;
  const named = counts.filter(({ count }) => count > 0);
  return named.map(({ level, count }) => `${count} ${level}`).join(", ");
}

const keptNames: Record<Exclude<KeepLevel, "all">, readonly ActivationName[]> = {
  recompute: [],
  attention: ["attention", "lse"],
  products: ["qkv", "attention", "lse", "residual", "gateUp"],
};

const isKept = (level: KeepLevel, name: ActivationName): boolean => level === "all" || keptNames[level].includes(name);

/** The part of `activationSizes` that a level keeps. */
export function keptSizes(
  model: DecoderConfig,
  tokens: number,
  dtype: Dtype,
  level: KeepLevel,
): Record<ActivationName, number> {
  const sizes = activationSizes(model, tokens, dtype);
  for (const name of activationNames) if (!isKept(level, name)) sizes[name] = 0;
  return sizes;
}

/** What backward needs beside that, for one micro-batch at a time. Forward uses `projected` only. */
export function scratchSizes(model: DecoderConfig, tokens: number, dtype: Dtype): Record<ScratchName, number> {
  const { hidden: C, heads: H, kvHeads: K, headDim: D } = model;
  const rows = (width: number) => alignBytes(tokens * width * bytesOf(dtype));
  return { projected: rows(Math.max(C, H * D)), dQkv: rows((H + 2 * K) * D), delta: alignBytes(tokens * H * 4) };
}

const activationNames = [
  "normed1",
  "inverse1",
  "qkv",
  "qk",
  "qkInverse",
  "attention",
  "lse",
  "residual",
  "normed2",
  "inverse2",
  "gateUp",
  "swiglu",
] as const;
type ActivationName = (typeof activationNames)[number];
type ScratchName = "projected" | "dQkv" | "delta";

/** Everything a block's computation is given. */
export interface BlockContext {
  plan: Plan;
  model: DecoderConfig;
  /** Index of the decoder layer. */
  layer: number;
  dtype: Dtype;
  /** The most tokens of a micro-batch: the workspaces are carved for it. */
  tokensMax: number;
  weights: Weights;
  /** What the block keeps for backward, and where; null when it keeps nothing. */
  keep: KeepLevel;
  kept: Range | null;
  /** Everything else. */
  activations: Range;
  scratch: Range;
  ropeTable: Range;
}

/** The block's ranges at this micro-batch's true number of tokens. */
function views(context: BlockContext, tokens: number) {
  const { model, dtype, tokensMax } = context;
  const { hidden: C, intermediate: F, heads: H, kvHeads: K, headDim: D } = model;
  const e = bytesOf(dtype);
  const passing = carve(context.activations, activationSizes(model, tokensMax, dtype));
  const keeping = context.kept && carve(context.kept, keptSizes(model, tokensMax, dtype, context.keep));
  const kept = (name: ActivationName, bytes: number): Range =>
    (keeping && isKept(context.keep, name) ? keeping : passing)(name, bytes);
  const scratch = carve(context.scratch, scratchSizes(model, tokensMax, dtype));
  return {
    normed1: kept("normed1", tokens * C * e), // (T, C)
    inverse1: kept("inverse1", tokens * 4), // (T)
    qkv: kept("qkv", tokens * (H + 2 * K) * D * e), // (T, (H+2K)·D)
    qk: kept("qk", tokens * (H + K) * D * e), // (T, (H+K)·D)
    qkInverse: model.qkNorm ? kept("qkInverse", tokens * (H + K) * 4) : null, // (T, H+K)
    attention: kept("attention", tokens * H * D * e), // (T, H·D)
    lse: kept("lse", tokens * H * 4), // (H, T)
    residual: kept("residual", tokens * C * e), // (T, C)
    normed2: kept("normed2", tokens * C * e), // (T, C)
    inverse2: kept("inverse2", tokens * 4), // (T)
    gateUp: kept("gateUp", tokens * 2 * F * e), // (T, 2F)
    swiglu: kept("swiglu", tokens * F * e), // (T, F)
    projected: scratch("projected", tokens * C * e), // (T, C)
    dAttention: scratch("projected", tokens * H * D * e), // (T, H·D), at another time in the same place
    dQkv: scratch("dQkv", tokens * (H + 2 * K) * D * e), // (T, (H+2K)·D)
    delta: scratch("delta", tokens * H * 4), // (H, T)
  };
}

/** The block's forward as functions, one per op, in the order in which they build on each other. */
function blockOps(context: BlockContext, x: Range, batch: DeviceBatch) {
  const { plan, model, dtype, weights: w } = context;
  const { hidden: C, intermediate: F, heads, kvHeads, headDim, normEpsilon: epsilon } = model;
  const { tokens } = batch;
  const a = views(context, tokens);
  const shape = { tokens, heads, kvHeads, headDim, dtype };
  const linear = { tokens, dtype, bias: null, residual: null };
  const norm = { rows: tokens, width: C, epsilon, dtype };
  const attentionArguments = {
    ...shape,
    out: a.attention,
    qk: a.qk,
    qkv: a.qkv,
    starts: batch.starts,
    ...attentionShape(context),
  };
  const run = plan.on("compute");
  return {
    norm1: () =>
      run("rmsnormForward", { y: a.normed1, inverse: a.inverse1, x, weight: w.group("input_norm"), ...norm }),
    qkv: () =>
      run("linearForward", {
        ...linear,
        y: a.qkv,
        x: a.normed1,
        weight: w.group("qkv"),
        bias: w.optional("qkv_bias"),
        inputs: C,
        outputs: (heads + 2 * kvHeads) * headDim,
      }),
    rotate: () =>
      run("qkRopeForward", {
        ...shape,
        qk: a.qk,
        inverse: a.qkInverse,
        qkv: a.qkv,
        qWeight: w.optional("q_norm"),
        kWeight: w.optional("k_norm"),
        positions: batch.positions,
        table: context.ropeTable,
        epsilon,
      }),
    attention: () => run("attentionForward", { ...attentionArguments, lse: a.lse, documents: batch.documents }),
    attentionCached: (cache: AttentionCache) =>
      run("attentionCached", { ...attentionArguments, ...cache, sequences: batch.documents }),
    project: () =>
      run("linearForward", {
        ...linear,
        y: a.projected,
        x: a.attention,
        weight: w.group("o"),
        inputs: heads * headDim,
        outputs: C,
      }),
    addAndNorm2: () =>
      run("addRmsnormForward", {
        ...norm,
        sum: a.residual,
        y: a.normed2,
        inverse: a.inverse2,
        x,
        delta: a.projected,
        weight: w.group("post_norm"),
      }),
    /** The same from a sum that was kept. */
    norm2: () =>
      run("rmsnormForward", {
        ...norm,
        y: a.normed2,
        inverse: a.inverse2,
        x: a.residual,
        weight: w.group("post_norm"),
      }),
    gateUp: () =>
      run("linearForward", {
        ...linear,
        y: a.gateUp,
        x: a.normed2,
        weight: w.group("gate_up"),
        inputs: C,
        outputs: 2 * F,
      }),
    swiglu: () => run("swigluForward", { y: a.swiglu, gateUp: a.gateUp, tokens, width: F, dtype }),
    down: (y: Range) =>
      run("linearForward", {
        ...linear,
        y,
        x: a.swiglu,
        weight: w.group("down"),
        residual: a.residual,
        inputs: F,
        outputs: C,
      }),
  };
}

/** y = block(x), both (T, C); leaves the activations that backward reads. With a `cache`, attention is that of generation. */
export function forwardBlock(
  context: BlockContext,
  x: Range,
  y: Range,
  batch: DeviceBatch,
  cache?: AttentionCache,
): void {
  const ops = blockOps(context, x, batch);
  ops.norm1();
  ops.qkv();
  ops.rotate();
  if (cache) ops.attentionCached(cache);
  else ops.attention();
  ops.project();
  ops.addAndNorm2();
  ops.gateUp();
  ops.swiglu();
  ops.down(y);
}

/**
 * Computes again, from the block's input and what was kept, what backward reads and forward did not leave. It ends with
 * SwiGLU: no gradient reads the block's output. The same ops on the same inputs give the same bits.
 */
export function recomputeBlock(context: BlockContext, x: Range, batch: DeviceBatch): void {
  const { keep } = context;
  if (keep === "all") return;
  const ops = blockOps(context, x, batch);
  ops.norm1();
  if (!isKept(keep, "qkv")) ops.qkv();
  ops.rotate();
  if (!isKept(keep, "attention")) ops.attention();
  if (isKept(keep, "residual")) ops.norm2();
  else {
    ops.project();
    ops.addAndNorm2();
  }
  if (!isKept(keep, "gateUp")) ops.gateUp();
  ops.swiglu();
}

/**
 * Given dHidden = gradient of the block's output, turns it in place into the gradient of its input x, and adds the
 * parameters' gradients to `gradients` (overwrites them for the first micro-batch). The activations are used
 * up: each is overwritten by its own gradient as soon as nobody reads it any more.
 */
export function backwardBlock(
  context: BlockContext,
  gradients: BlockGradients,
  dHidden: Range,
  x: Range,
  batch: DeviceBatch,
  accumulate: boolean,
): void {
  const { plan, model, dtype, weights: w } = context;
  const { hidden: C, intermediate: F, heads, kvHeads, headDim } = model;
  const { tokens } = batch;
  const a = views(context, tokens);
  const shape = { tokens, heads, kvHeads, headDim, dtype };
  const add = { accumulate: accumulate ? 1 : 0, dtype };
  const norm = { ...add, rows: tokens, width: C, accumulateDx: 1 };
  const run = plan.on("compute");
  /** y = x · weightᵀ: first the weight's gradient, then dx, which may take the place of x. */
  const linearBackward = (
    group: GroupName,
    dx: Range,
    dy: Range,
    input: Range,
    inputs: number,
    outputs: number,
    dBias: Range | null = null,
  ): void => {
    run("linearBackwardWeight", {
      ...add,
      dWeight: gradients.group(group),
      dBias,
      dy,
      x: input,
      tokens,
      inputs,
      outputs,
      gradientDtype: gradients.matrixDtype,
    });
    run("linearBackwardInput", { dx, dy, weight: w.group(group), tokens, inputs, outputs, dtype });
  };

  linearBackward("down", a.swiglu, dHidden, a.swiglu, F, C);
  run("swigluBackward", { gateUp: a.gateUp, dy: a.swiglu, tokens, width: F, dtype });
  linearBackward("gate_up", a.normed2, a.gateUp, a.normed2, C, 2 * F);
  run("rmsnormBackward", {
    ...norm,
    dx: dHidden,
    dWeight: gradients.group("post_norm"),
    dy: a.normed2,
    x: a.residual,
    inverse: a.inverse2,
    weight: w.group("post_norm"),
  });
  linearBackward("o", a.dAttention, dHidden, a.attention, heads * headDim, C);
  run("attentionBackward", {
    ...shape,
    dQkv: a.dQkv,
    delta: a.delta,
    dOut: a.dAttention,
    out: a.attention,
    lse: a.lse,
    qk: a.qk,
    qkv: a.qkv,
    starts: batch.starts,
    documents: batch.documents,
    ...attentionShape(context),
  });
  run("qkRopeBackward", {
    ...shape,
    dQkv: a.dQkv,
    dQWeight: gradients.optional("q_norm"),
    dKWeight: gradients.optional("k_norm"),
    inverse: a.qkInverse,
    qkv: a.qkv,
    qWeight: w.optional("q_norm"),
    kWeight: w.optional("k_norm"),
    positions: batch.positions,
    table: context.ropeTable,
    accumulate: add.accumulate,
  });
  const qkvWidth = (heads + 2 * kvHeads) * headDim;
  linearBackward("qkv", a.normed1, a.dQkv, a.normed1, C, qkvWidth, gradients.optional("qkv_bias"));
  run("rmsnormBackward", {
    ...norm,
    dx: dHidden,
    dWeight: gradients.group("input_norm"),
    dy: a.normed1,
    x,
    inverse: a.inverse1,
    weight: w.group("input_norm"),
  });
}

function attentionShape({ model, layer }: BlockContext): { window: number; scale: number } {
  return { window: model.windows[layer]!, scale: 1 / Math.sqrt(model.headDim) };
}

// ---- head -----------------------------------------------------------------------------------------------------------

/** Workspace of the head for T tokens, `chunk` of them at a time: it lies in the same place as a block's. */
export function headSizes(model: DecoderConfig, tokens: number, chunk: number, dtype: Dtype) {
  const e = bytesOf(dtype);
  const { hidden: C, vocabulary: V } = model;
  return {
    rows: alignBytes(tokens * C * e), // (R, C) hidden states of the rows that count
    dRows: alignBytes(tokens * C * e), // (R, C) their gradients
    normed: alignBytes(chunk * C * e), // (chunk, C)
    inverse: alignBytes(chunk * 4), // (chunk)
    logits: alignBytes(chunk * V * e), // (chunk, V)
  };
}

export interface HeadContext {
  plan: Plan;
  model: DecoderConfig;
  dtype: Dtype;
  tokensMax: number;
  chunk: number;
  /** (V, C): the LM head, or the embedding when tied. */
  matrix: Range;
  norm: Range;
  workspace: Range;
}

/** Where the head's gradients go: the matrix's in its dtype, the norm's in float32. */
export interface HeadGradients {
  dMatrix: Range;
  matrixDtype: Dtype;
  dNorm: Range;
}

/**
 * Loss of one micro-batch: final norm, LM head and cross-entropy over `chunk` rows at a time, so that the whole logits
 * matrix never exists. Only rows whose target counts take part. `losses` (validRows float32) gets a loss per row.
 * With `backward`, dHidden (T, C) becomes the gradient of x, scaled by `scale` (1 / valid tokens of the step), and the
 * head's gradients are added to.
 */
export function headLoss(
  context: HeadContext,
  x: Range,
  losses: Range | null,
  batch: DeviceBatch,
  backward?: HeadGradients & { dHidden: Range; scale: number; accumulate: boolean },
): void {
  const { plan, model, dtype, tokensMax, chunk } = context;
  const { hidden: C, vocabulary: V, normEpsilon: epsilon } = model;
  const e = bytesOf(dtype);
  const part = carve(context.workspace, headSizes(model, tokensMax, chunk, dtype));
  const run = plan.on("compute");
  const { validRows, tokens } = batch;
  const gathered = validRows > 0 ? part("rows", validRows * C * e) : null; // (R, C)

  if (gathered) run("gatherRows", { y: gathered, x, index: batch.rowIndex!, rows: validRows, width: C, dtype });
  for (let first = 0; gathered && first < validRows; first += chunk) {
    const rows = Math.min(chunk, validRows - first);
    const hidden = gathered.slice(first * C * e, rows * C * e); // (rows, C)
    const normed = part("normed", rows * C * e);
    const inverse = part("inverse", rows * 4);
    const logits = part("logits", rows * V * e); // (rows, V)
    const linear = { tokens: rows, inputs: C, outputs: V, dtype };
    const norm = { rows, width: C, dtype };
    run("rmsnormForward", { ...norm, y: normed, inverse, x: hidden, weight: context.norm, epsilon });
    run("linearForward", { ...linear, y: logits, x: normed, weight: context.matrix, bias: null, residual: null });
    run("crossEntropy", {
      logits,
      loss: losses!.slice(first * 4, rows * 4),
      targets: batch.targets!.slice(first * 4, rows * 4),
      rows,
      vocabulary: V,
      scale: backward?.scale ?? 0,
      gradient: backward ? 1 : 0,
      dtype,
    });
    if (!backward) continue;
    const accumulate = backward.accumulate || first > 0 ? 1 : 0;
    run("linearBackwardWeight", {
      ...linear,
      dWeight: backward.dMatrix,
      dBias: null,
      dy: logits,
      x: normed,
      accumulate,
      gradientDtype: backward.matrixDtype,
    });
    run("linearBackwardInput", { ...linear, dx: normed, dy: logits, weight: context.matrix });
    run("rmsnormBackward", {
      ...norm,
      dx: part("dRows").slice(first * C * e, rows * C * e),
      dWeight: backward.dNorm,
      dy: normed,
      x: hidden,
      inverse,
      weight: context.norm,
      accumulateDx: 0,
      accumulate,
    });
  }
  if (backward)
    run("scatterRows", {
      y: backward.dHidden,
      x: gathered && part("dRows", validRows * C * e),
      index: gathered ? batch.rowIndex : null,
      rows: validRows,
      totalRows: tokens,
      width: C,
      dtype,
    });
}

/** Logits (R, V) of the rows in `batch.rowIndex`, for generation and parity. */
export function headLogits(context: HeadContext, x: Range, logits: Range, batch: DeviceBatch): Event {
  const { plan, model, dtype, tokensMax, chunk } = context;
  const { hidden: C, vocabulary: V, normEpsilon: epsilon } = model;
  const e = bytesOf(dtype);
  const part = carve(context.workspace, headSizes(model, tokensMax, chunk, dtype));
  const run = plan.on("compute");
  const rows = batch.validRows;
  const gathered = part("rows", rows * C * e);
  run("gatherRows", { y: gathered, x, index: batch.rowIndex!, rows, width: C, dtype });
  let event = 0;
  for (let first = 0; first < rows; first += chunk) {
    const count = Math.min(chunk, rows - first);
    const normed = part("normed", count * C * e);
    run("rmsnormForward", {
      y: normed,
      inverse: part("inverse", count * 4),
      x: gathered.slice(first * C * e, count * C * e),
      weight: context.norm,
      rows: count,
      width: C,
      epsilon,
      dtype,
    });
    event = run("linearForward", {
      y: logits.slice(first * V * e, count * V * e),
      x: normed,
      weight: context.matrix,
      bias: null,
      residual: null,
      tokens: count,
      inputs: C,
      outputs: V,
      dtype,
    });
  }
  return event;
}
