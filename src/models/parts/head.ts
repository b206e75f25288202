// The head: final norm, LM head (the embedding when tied) and the loss, a chunk of rows at a time, so that the whole matrix
// of logits never exists. V is the vocabulary.

import type { Dtype } from "../../native/abi.gen.ts";
import { alignBytes, bytesOf, carve } from "../../plan/layout.ts";
import type { Event, Plan, Range } from "../../plan/plan.ts";
import type { DecoderConfig } from "../architecture.ts";
import type { Declared, DeviceBatch } from "./part.ts";

export const lmHead = "lm_head.weight";

export function head({ vocabulary, hidden, tied }: DecoderConfig): Declared {
  const matrix = { group: "lm_head", name: lmHead, shape: [vocabulary, hidden] };
  const finalNorm = { group: "final_norm", name: "model.norm.weight", shape: [hidden] };
  return {
    tensors: tied ? [finalNorm] : [matrix, finalNorm],
    products: [{ group: matrix.group, inputs: hidden, outputs: vocabulary }],
  };
}

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
  const { hidden: C, vocabulary: V, normEpsilon: epsilon, normOffset: offset } = model;
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
    run("rmsnormForward", { ...norm, y: normed, inverse, x: hidden, weight: context.norm, epsilon, offset });
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
      offset,
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
  const { hidden: C, vocabulary: V, normEpsilon: epsilon, normOffset: offset } = model;
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
      offset,
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
