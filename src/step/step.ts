// One training step, as a story:
//
//   forward    for each layer: upload the next into an idle slot | for each micro-batch: compute, store its boundary
//   loss       head: logits in token chunks, loss and gradient in place, never the whole logits matrix
//   backward   for each layer, last to first: upload the one before | bring back boundaries | recompute if needed,
//              compute gradients | send them to the host | host: AdamW on each chunk, in deadline order
//
// `recordStep` writes this down as a plan and runs nothing. The executor plays the plan on its streams; what the host has
// not updated when backward ends goes on underneath the next step's forward pass. Who waits for whom is decided by the
// verbs of `window.ts`, `boundaries.ts` and `gradients.ts`; what a block computes, by its parts (`models/block.ts`).

import type { MicroBatch, StepBatch } from "../data/batches.ts";
import { Boundaries } from "./boundaries.ts";
import { assert } from "../words/errors.ts";
import { Gradients } from "./gradients.ts";
import { Inputs, type Side, type StepInputs, type WriteInts } from "./inputs.ts";
import { resultSizes, type Buffers } from "../tiers/bill.ts";
import { gradientDtype, keepOf, keptBytes, type StepShape } from "../tiers/shape.ts";
import {
  backwardBlock,
  forwardBlock,
  recomputeBlock,
  rotaryTables,
  sameRotary,
  type BlockContext,
} from "../models/block.ts";
import { activationSizes, scratchSizes } from "../models/parts/chain.ts";
import { headLoss, type HeadContext } from "../models/parts/head.ts";
import type { Weights } from "../models/weights.ts";
import { bytesOf, carve, totalBytes } from "../plan/layout.ts";
import type { AdamwStep } from "../state/optimizers/adamw.ts";
import { Plan, Resource, type Event, type Range } from "../plan/plan.ts";
import { Window } from "./window.ts";

/** What plays together over all steps: the buffers, and who touched what last. */
export class StepRecorder {
  readonly shape: StepShape;
  readonly buffers: Buffers;
  readonly window: Window;
  readonly boundaries: Boundaries;
  readonly gradients: Gradients | undefined;
  readonly inputs: Inputs;
  /** Loss rows on the device. */
  readonly losses = new Resource();
  side: Side = 0;

  constructor(shape: StepShape, buffers: Buffers, decays: ReadonlyMap<string, number>, write: WriteInts) {
    this.shape = shape;
    this.buffers = buffers;
    this.window = new Window(shape, buffers);
    this.boundaries = new Boundaries(shape, buffers);
    this.gradients = shape.training ? new Gradients(shape, buffers, this.window, decays) : undefined;
    this.inputs = new Inputs(shape, buffers, write);
  }
}

export interface RecordedStep {
  plan: Plan;
  side: Side;
  /** Loss totals are in `results.{side}`; for a training step the norm is, too. */
  measured: Event;
  /** The staging buffers of this side may be written again. */
  inputsFree: Event;
  /** Which totals of the results were written: pass · microBatches + micro-batch. */
  totals: number[];
}

export interface StepSettings {
  update: AdamwStep;
  /** Clip to this global norm; null: never. */
  maxGradNorm: number | null;
}

/** Records one optimizer step: all passes, all micro-batches, one update of each parameter. */
export function recordStep(recorder: StepRecorder, batch: StepBatch, settings: StepSettings): RecordedStep {
  const { shape, window, boundaries, gradients, side } = recorder;
  const { step } = settings.update;
  const plan = new Plan({ step, phase: "embed" });
  const inputs = recorder.inputs.stage(side, batch.passes);
  gradients!.begin(side, stepResults(recorder, side), settings.update);
  recorder.inputs.upload(plan, side);

  assert(batch.validTokens > 0, `step ${step} has no token whose target counts`);
  let summed: Event | undefined;
  let headStarted = false; // a micro-batch without valid targets leaves the head's gradient alone
  for (const [pass, microBatches] of batch.passes.entries()) {
    const last = pass === batch.passes.length - 1;
    forward(recorder, plan, { step, pass }, microBatches, inputs);

    // Loss, and the head's own backward, while its weights are here.
    plan.label = { step, phase: "loss", pass, block: "head" };
    const head = headContext(recorder, plan);
    const accumulators = gradients!.headAccumulators(plan);
    plan.acquire(recorder.losses, "write");
    for (const microBatch of microBatches.keys()) {
      plan.label = { step, phase: "loss", pass, block: "head", microBatch };
      headLoss(
        head,
        boundaries.input(plan, microBatch),
        lossRows(recorder, pass, microBatch),
        inputs.batches[pass]![microBatch]!,
        {
          ...accumulators,
          dHidden: boundaries.gradient(plan, microBatch),
          scale: 1 / batch.validTokens,
          accumulate: headStarted,
        },
      );
      headStarted ||= inputs.batches[pass]![microBatch]!.validRows > 0;
      boundaries.finished(plan, microBatch);
      summed = sumLosses(recorder, plan, pass, microBatch, inputs, { check: true, after: summed });
    }
    window.releaseHead(plan);
    gradients!.afterLossCheck(summed!);
    if (last) gradients!.landHead(plan);

    for (let layer = shape.model.layers - 1; layer >= 0; layer--) {
      plan.label = { step, phase: "backward", pass, block: layer };
      const weights = window.acquire(plan, layer);
      window.fetch(plan, downFrom(layer - 1));
      const accumulator = gradients!.accumulators(plan, layer);
      for (const microBatch of microBatches.keys()) {
        plan.label = { step, phase: "backward", pass, block: layer, microBatch };
        const tokens = inputs.batches[pass]![microBatch]!;
        const x = boundaries.restored(plan, layer, microBatch);
        fetchNextBoundary(boundaries, plan, layer, microBatch, microBatches.length);
        const context = blockContext(recorder, plan, layer, weights, microBatch);
        recomputeBlock(context, x, tokens);
        backwardBlock(context, accumulator, boundaries.gradient(plan, microBatch), x, tokens, microBatch > 0);
        boundaries.drained(plan, layer, microBatch);
      }
      window.release(plan, layer);
      gradients!.land(plan, layer, pass);
    }

    if (!shape.updates) continue;
    plan.label = { step, phase: "embed", pass, block: "embedding" };
    for (const microBatch of microBatches.keys()) boundaries.unembed(plan, microBatch);
    scatterRows(recorder, plan, pass, microBatches.length, inputs);
  }
  plan.settle(recorder.inputs.resource, "read");
  if (!shape.updates) return endWithBackward(recorder, plan, batch, inputs, summed);

  const rows = { tokens: inputs.distinctTokens, distinct: inputs.distinct };
  const { norm, rows: inputsFree } = gradients!.finish(plan, rows, settings.maxGradNorm);
  return finishRecording(recorder, plan, norm, inputsFree, batch.passes);
}

/** Nothing is updated: the step is measured when compute is through, so the last loss is added up once more after that. */
function endWithBackward(
  recorder: StepRecorder,
  plan: Plan,
  { passes }: StepBatch,
  inputs: StepInputs,
  after: Event | undefined,
): RecordedStep {
  plan.wait("download", plan.last("compute"));
  const [pass, microBatch] = [passes.length - 1, passes.at(-1)!.length - 1];
  const measured = sumLosses(recorder, plan, pass, microBatch, inputs, { check: false, after });
  return finishRecording(recorder, plan, measured, measured, passes);
}

/** Records the loss of micro-batches without changing anything: one forward pass. */
export function recordEvaluation(
  recorder: StepRecorder,
  step: number,
  microBatches: readonly MicroBatch[],
): RecordedStep {
  const { boundaries, side } = recorder;
  const plan = new Plan({ step, phase: "embed" });
  const inputs = recorder.inputs.stage(side, [microBatches]);
  recorder.inputs.upload(plan, side);
  forward(recorder, plan, { step, pass: 0 }, microBatches, inputs, { store: false });
  const head = headContext(recorder, plan);
  let summed: Event | undefined;
  plan.acquire(recorder.losses, "write");
  for (const microBatch of microBatches.keys()) {
    plan.label = { step, phase: "loss", pass: 0, block: "head", microBatch };
    headLoss(
      head,
      boundaries.input(plan, microBatch),
      lossRows(recorder, 0, microBatch),
      inputs.batches[0]![microBatch]!,
    );
    boundaries.finished(plan, microBatch);
    summed = sumLosses(recorder, plan, 0, microBatch, inputs, { check: false, after: summed });
  }
  recorder.window.releaseHead(plan);
  plan.settle(recorder.inputs.resource, "read");
  return finishRecording(recorder, plan, summed!, summed!, [microBatches]);
}

// ---- forward --------------------------------------------------------------------------------------------------------

/** All micro-batches pass a layer before the next one is needed. `store` keeps the boundaries for backward. */
export function forward(
  recorder: StepRecorder,
  plan: Plan,
  { step, pass }: { step: number; pass: number },
  microBatches: readonly MicroBatch[],
  inputs: StepInputs,
  { store = true }: { store?: boolean } = {},
): void {
  const { shape, window, boundaries } = recorder;
  const { layers } = shape.model;
  boundaries.begin({ tokens: microBatches.map(({ tokens }) => tokens.length), store });
  for (const [microBatch, { tokens }] of microBatches.entries()) {
    plan.label = { step, phase: "embed", pass, block: "embedding", microBatch };
    gatherRows(
      recorder,
      plan,
      boundaries.rowsOf(microBatch),
      inputs.tokens[pass]![microBatch]!,
      tokens.length,
      microBatch,
    );
    boundaries.embed(plan, microBatch);
  }
  for (let layer = 0; layer < layers; layer++) {
    plan.label = { step, phase: "forward", pass, block: layer };
    const weights = window.acquire(plan, layer);
    window.fetch(plan, upFrom(layer + 1, layers));
    if (layer === layers - 1) window.fetchHead(plan);
    for (const microBatch of microBatches.keys()) {
      plan.label = { step, phase: "forward", pass, block: layer, microBatch };
      const context = blockContext(recorder, plan, layer, weights, microBatch);
      const x = boundaries.input(plan, microBatch);
      const y = boundaries.output(plan, layer, microBatch);
      forwardBlock(context, x, y, inputs.batches[pass]![microBatch]!);
      boundaries.advance(plan, layer, microBatch);
    }
    window.release(plan, layer);
  }
}

/** Rows of the embedding, gathered on the host after its last update. */
export function gatherRows(
  { shape, window, boundaries }: StepRecorder,
  plan: Plan,
  rows: Range,
  tokens: Range,
  tokenCount: number,
  microBatch: number,
): void {
  const { vocabulary, hidden: width } = shape.model;
  const { dtype } = shape;
  const { hi, lo: rest } = window.embedding.ranges({ offset: 0, count: vocabulary * width });
  const lo = dtype === "float32" ? rest : null;
  // Where nothing is trained nobody writes the embedding, and its readers need not be remembered.
  const order = {
    reads: shape.training ? window.embedding.resources : [],
    writes: [boundaries.rows[microBatch]!.resource],
  };
  plan.record("host", "embeddingGather", { rows, hi, lo, tokens, tokenCount, width, vocabulary, dtype }, order);
}

const upFrom = (layer: number, layers: number): number[] => Array.from({ length: layers - layer }, (_, i) => layer + i);
const downFrom = (layer: number): number[] => Array.from({ length: layer + 1 }, (_, i) => layer - i);

/** The boundary that backward needs next: of the next micro-batch, or of the layer before. */
function fetchNextBoundary(boundaries: Boundaries, plan: Plan, layer: number, microBatch: number, count: number): void {
  if (microBatch + 1 < count) boundaries.fetch(plan, layer, microBatch + 1);
  else if (layer > 0) boundaries.fetch(plan, layer - 1, 0);
}

// ---- places ---------------------------------------------------------------------------------------------------------

export function blockContext(
  { shape, buffers }: StepRecorder,
  plan: Plan,
  layer: number,
  weights: Weights,
  microBatch: number,
): BlockContext {
  const { dtype, tokensMax } = shape;
  const { chain } = weights.block;
  const bytes = totalBytes(activationSizes(chain, tokensMax, dtype));
  const scratch = totalBytes(scratchSizes(chain, tokensMax, dtype));
  const kept = keptBytes(shape, layer);
  return {
    plan,
    dtype,
    tokensMax,
    weights,
    keep: shape.training ? keepOf(shape, layer) : "recompute",
    kept: kept > 0 ? buffers.range("kept", keptBefore(shape, layer) + microBatch * kept, kept) : null,
    activations: buffers.range("workspace", 0, bytes),
    scratch: buffers.range("workspace", bytes, scratch),
    rotaryTable(rotary) {
      const table = rotaryTables(shape.blocks, shape.positions).find((one) => sameRotary(one.rotary, rotary))!;
      return buffers.range("rope table", table.offset, table.bytes);
    },
  };
}

/** Where a layer's part of the kept activations begins: its micro-batches lie behind those of the layers before. */
const keptBefore = (shape: StepShape, layer: number): number =>
  shape.keep
    .slice(0, layer)
    .reduce((sum, level, below) => sum + shape.microBatches * keptBytes(shape, below, level), 0);

export function headContext({ shape, buffers, window }: StepRecorder, plan: Plan): HeadContext {
  const { model, dtype, tokensMax, logitsChunk: chunk } = shape;
  return { plan, model, dtype, tokensMax, chunk, ...window.acquireHead(plan), workspace: buffers.range("workspace") };
}

/** The results of a step of this side: losses and totals per micro-batch, norms, clip factor. */
export function resultRange(shape: StepShape, buffers: Buffers, side: Side) {
  return carve(buffers.range(`results.${side}`), resultSizes(shape));
}

function stepResults({ shape, buffers }: StepRecorder, side: Side): { norms: Range; factor: Range } {
  const part = resultRange(shape, buffers, side);
  return { norms: part("norms"), factor: part("factor", 16) };
}

function lossRows({ shape, buffers }: StepRecorder, pass: number, microBatch: number): Range {
  const bytes = resultSizes(shape).losses / (shape.passes * shape.microBatches);
  return buffers.range("losses", (pass * shape.microBatches + microBatch) * bytes, bytes);
}

/**
 * Losses of a micro-batch come down and are added up on the host, `after` those of the micro-batch before: the event of the
 * last one says that all are there. `check` fails the step when one is not finite. Without rows the total is 0, and the
 * event still says that compute has passed this point.
 */
function sumLosses(
  recorder: StepRecorder,
  plan: Plan,
  pass: number,
  microBatch: number,
  inputs: StepInputs,
  { check, after }: { check: boolean; after: Event | undefined },
): Event {
  const { shape, buffers, side, losses } = recorder;
  const part = resultRange(shape, buffers, side);
  const index = pass * shape.microBatches + microBatch;
  const count = inputs.batches[pass]![microBatch]!.validRows;
  const total = part("totals").slice(index * 64, 16);
  const device = lossRows(recorder, pass, microBatch);
  const rows = count > 0 ? part("losses").slice(index * device.bytes, count * 4) : null;
  if (rows) {
    plan.settle(losses, "write");
    plan.record("download", "copy", { to: rows, from: device.slice(0, rows.bytes) }, { reads: [losses] });
  }
  const waits = [plan.last(rows ? "download" : "compute"), ...(after === undefined ? [] : [after])];
  return plan.record("host", "lossSum", { total, losses: rows, count, check: check ? 1 : 0 }, { waits });
}

// ---- embedding's gradient -------------------------------------------------------------------------------------------

function scatterRows(recorder: StepRecorder, plan: Plan, pass: number, microBatches: number, inputs: StepInputs): void {
  const { shape, buffers, boundaries, gradients } = recorder;
  const rowBytes = shape.model.hidden * bytesOf(gradientDtype(shape));
  const dRows = buffers.range("embedding.dRows", 0, microBatches * shape.tokensMax * rowBytes);
  const [order, starts] = [inputs.order[pass]!, inputs.starts[pass]!];
  const rows = { tokens: inputs.distinctTokens, distinct: inputs.distinct };
  const resources = boundaries.dRows.slice(0, microBatches).map(({ resource }) => resource);
  gradients!.scatterRows(plan, pass, rows, { dRows, order, starts }, resources);
}

function finishRecording(
  recorder: StepRecorder,
  plan: Plan,
  measured: Event,
  inputsFree: Event,
  passes: readonly (readonly MicroBatch[])[],
): RecordedStep {
  const { side, shape } = recorder;
  plan.notify(measured);
  plan.notify(inputsFree);
  recorder.side = side === 0 ? 1 : 0;
  const totals = passes.flatMap((pass, p) => pass.map((_, microBatch) => p * shape.microBatches + microBatch));
  return { plan, side, measured, inputsFree, totals };
}
