// One training step, as a story:
//
//   forward    for each layer: upload the next into an idle slot | for each micro-batch: compute, store its boundary
//   loss       head: logits in token chunks, loss and gradient in place, never the whole logits matrix
//   backward   for each layer, last to first: upload the one before | bring back boundaries | recompute if needed,
//              compute gradients | send them to the host | host: AdamW on each chunk, in deadline order
//
// `recordStep` writes this down as a plan and runs nothing. The executor plays the plan on its streams; what the host has
// not updated when backward ends goes on underneath the next step's forward pass. Who waits for whom is decided by the
// verbs of `window.ts`, `boundaries.ts` and `gradients.ts`, each of which declares its buffers (`bill.ts`); what a block
// computes, by its parts (`models/block.ts`).

import type { MicroBatch, StepBatch } from "../data/batches.ts";
import { backwardBlock, forwardBlock, recomputeBlock } from "../models/block.ts";
import { embeddingScale } from "../models/parts/embedding.ts";
import { headLoss, type HeadContext, type HeadGradients } from "../models/parts/head.ts";
import type { Cache, DeviceBatch } from "../models/parts/part.ts";
import { Plan, type Event, type Label, type Range, type Resource } from "../plan/plan.ts";
import type { AdamwStep } from "../state/optimizers/adamw.ts";
import { State } from "../state/parameters.ts";
import type { Buffers } from "../plan/buffers.ts";
import type { StepShape } from "../tiers/shape.ts";
import { assert } from "../words/errors.ts";
import { Boundaries } from "./boundaries.ts";
import { Gradients } from "./gradients.ts";
import { Inputs, type Side, type StepInputs, type WriteInts } from "./inputs.ts";
import { Results } from "./results.ts";
import { Window } from "./window.ts";
import { Workspace } from "./workspace.ts";

/** What plays together over all steps: the buffers, and who touched what last. */
export class StepRecorder {
  readonly shape: StepShape;
  readonly buffers: Buffers;
  readonly state: State;
  readonly window: Window;
  readonly workspace: Workspace;
  readonly boundaries: Boundaries;
  /** While the model is trained. */
  readonly gradients: Gradients | undefined;
  readonly inputs: Inputs;
  readonly results: Results;
  side: Side = 0;

  constructor(shape: StepShape, buffers: Buffers, decays: ReadonlyMap<string, number>, write: WriteInts) {
    this.shape = shape;
    this.buffers = buffers;
    this.state = new State(shape, buffers);
    this.window = new Window(shape, buffers, this.state);
    this.workspace = new Workspace(shape, buffers);
    this.boundaries = new Boundaries(shape, buffers);
    this.gradients = shape.training ? new Gradients(shape, buffers, this.state, decays) : undefined;
    this.inputs = new Inputs(shape, buffers, write);
    this.results = new Results(shape, buffers);
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

/** Which pass of which step. */
interface At {
  step: number;
  pass: number;
}

/** Records one optimizer step: all passes, all micro-batches, one update of each parameter. */
export function recordStep(recorder: StepRecorder, batch: StepBatch, settings: StepSettings): RecordedStep {
  const { boundaries, side } = recorder;
  const gradients = recorder.gradients!;
  const { step } = settings.update;
  const plan = new Plan({ step, phase: "embed" });
  const inputs = recorder.inputs.stage(side, batch.passes);
  gradients.begin(side, recorder.results.of(side), settings.update);
  recorder.inputs.upload(plan, side);

  const rows = { tokens: inputs.distinctTokens, distinct: inputs.distinct };
  assert(batch.validTokens > 0, `step ${step} has no token whose target counts`);
  let summed: Event | undefined;
  for (const [pass, microBatches] of batch.passes.entries()) {
    const at = { step, pass };
    summed = forwardToLoss(recorder, plan, at, inputs, summed, { gradients, scale: 1 / batch.validTokens });
    gradients.updates.afterLossCheck(summed);
    if (pass === batch.passes.length - 1) gradients.landHead(plan);
    backward(recorder, plan, at, inputs, gradients);
    plan.label = { ...at, phase: "embed", block: "embedding" };
    for (const microBatch of microBatches.keys()) boundaries.unembed(plan, microBatch);
    const { dRows, resources } = boundaries.rowGradients(microBatches.length);
    const where = { dRows, order: inputs.order[pass]!, starts: inputs.starts[pass]! };
    gradients.rows.scatter(plan, pass, rows, where, resources);
  }
  plan.settle(recorder.inputs.resource, "read");
  const { norm, rows: inputsFree } = gradients.finish(plan, rows, settings.maxGradNorm);
  return finishRecording(recorder, plan, norm, inputsFree, batch.passes);
}

/** Records the loss of micro-batches without changing anything: one forward pass. */
export function recordEvaluation(
  recorder: StepRecorder,
  step: number,
  microBatches: readonly MicroBatch[],
): RecordedStep {
  const plan = new Plan({ step, phase: "embed" });
  const inputs = recorder.inputs.stage(recorder.side, [microBatches]);
  recorder.inputs.upload(plan, recorder.side);
  const summed = forwardToLoss(recorder, plan, { step, pass: 0 }, inputs);
  plan.settle(recorder.inputs.resource, "read");
  return finishRecording(recorder, plan, summed, summed, [microBatches]);
}

// ---- forward --------------------------------------------------------------------------------------------------------

export interface ForwardOptions {
  /** Keeps the boundaries for backward. */
  store: boolean;
  /** What is done with the last layer's output (T, C) of each micro-batch while the head's weights are there. */
  head?: ((context: HeadContext, x: Range, batch: DeviceBatch, microBatch: number) => void) | undefined;
  /** Generation: each layer's cache, and who reads and writes what they share. */
  cache?: { of(layer: number): Cache; resource: Resource };
}

/**
 * One pass over a model, for training, evaluation, generation and logits. All micro-batches pass a layer before the next
 * one is needed. Commands are labelled by what they are part of, or all with the phase that `label` names.
 */
export function forward(
  recorder: StepRecorder,
  plan: Plan,
  label: Omit<Label, "phase"> & Partial<Label>,
  inputs: StepInputs,
  { store, head, cache }: ForwardOptions,
): void {
  const { shape, window, workspace, boundaries } = recorder;
  const { layers } = shape.model;
  const { pass = 0 } = label;
  const batches = inputs.batches[pass]!;
  const at = (phase: Label["phase"], block: Label["block"], microBatch?: number): void => {
    const part = microBatch === undefined ? {} : { microBatch };
    plan.label = label.phase ? { ...label, phase: label.phase, block } : { ...label, phase, block, ...part };
  };
  boundaries.begin({ tokens: batches.map(({ tokens }) => tokens), store });
  for (const [microBatch, { tokens }] of batches.entries()) {
    at("embed", "embedding", microBatch);
    const rows = boundaries.rowsOf(microBatch);
    gatherRows(recorder, plan, rows, inputs.tokens[pass]![microBatch]!, tokens, microBatch);
    boundaries.embed(plan, microBatch);
  }
  if (cache) plan.acquire(cache.resource, "read");
  for (let layer = 0; layer < layers; layer++) {
    at("forward", layer);
    const weights = window.acquire(plan, layer);
    window.fetch(plan, upFrom(layer + 1, layers));
    if (layer === layers - 1 && !cache) window.fetchHead(plan);
    for (const [microBatch, batch] of batches.entries()) {
      at("forward", layer, microBatch);
      const context = workspace.block(plan, layer, weights, microBatch);
      const x = boundaries.input(plan, microBatch);
      const y = boundaries.output(plan, layer, microBatch);
      forwardBlock(context, x, y, batch, cache?.of(layer));
      boundaries.advance(plan, layer, microBatch);
    }
    window.release(plan, layer);
  }
  if (cache) plan.settle(cache.resource, "read");
  at("loss", "head");
  const context = head && headContext(recorder, plan);
  for (const [microBatch, batch] of batches.entries()) {
    at("loss", "head", microBatch);
    if (context) head!(context, boundaries.input(plan, microBatch), batch, microBatch);
    boundaries.finished(plan, microBatch);
  }
  if (head) window.releaseHead(plan);
}

/** Rows of the embedding, gathered on the host after its last update. */
function gatherRows(
  { shape, state: { embedding }, boundaries }: StepRecorder,
  plan: Plan,
  rows: Range,
  tokens: Range,
  tokenCount: number,
  microBatch: number,
): void {
  const { vocabulary, hidden: width } = shape.model;
  const { dtype } = shape;
  const { hi, lo: rest } = embedding.ranges({ offset: 0, count: vocabulary * width });
  const lo = dtype === "float32" ? rest : null;
  // Where nothing is trained nobody writes the embedding, and its readers need not be remembered.
  const order = {
    reads: shape.training ? embedding.resources : [],
    writes: [boundaries.rows[microBatch]!.resource],
  };
  const scale = embeddingScale(shape.model, dtype);
  const args = { rows, hi, lo, tokens, tokenCount, width, vocabulary, dtype, scale };
  plan.record("host", "embeddingGather", args, order);
}

const upFrom = (layer: number, layers: number): number[] => Array.from({ length: layers - layer }, (_, i) => layer + i);
const downFrom = (layer: number): number[] => Array.from({ length: layer + 1 }, (_, i) => layer - i);

// ---- loss -----------------------------------------------------------------------------------------------------------

/**
 * A forward pass with the loss of each micro-batch, added up `after` what the pass before left: the event of the last sum.
 * With `backward` boundaries are kept, the head's own gradients are made while its weights are here, and no step goes on
 * with a loss that is not finite.
 */
export function forwardToLoss(
  recorder: StepRecorder,
  plan: Plan,
  at: At,
  inputs: StepInputs,
  after?: Event,
  backward?: { gradients: Pick<Gradients, "head">; scale: number },
): Event {
  const { boundaries, results, side } = recorder;
  const { pass } = at;
  let summed = after;
  let gradients: HeadGradients | undefined;
  forward(recorder, plan, at, inputs, {
    store: backward !== undefined,
    head(context, x, batch, microBatch) {
      gradients ??= backward?.gradients.head(plan);
      if (microBatch === 0) plan.acquire(results.losses, "write");
      const down = gradients && {
        ...gradients,
        dHidden: boundaries.gradient(plan, microBatch),
        scale: backward!.scale,
        accumulate: headHasGradient(inputs, pass, microBatch),
      };
      headLoss(context, x, results.lossRows(pass, microBatch), batch, down);
      const rows = { pass, microBatch, count: batch.validRows };
      summed = results.sum(plan, side, rows, { check: backward !== undefined, after: summed });
    },
  });
  return summed!;
}

/** Whether an earlier micro-batch began the head's gradient: one without valid targets leaves it alone. */
const headHasGradient = ({ batches }: StepInputs, pass: number, microBatch: number): boolean =>
  [...batches.slice(0, pass).flat(), ...batches[pass]!.slice(0, microBatch)].some(({ validRows }) => validRows > 0);

function headContext({ shape, workspace, window }: StepRecorder, plan: Plan): HeadContext {
  const { model, dtype, tokensMax, logitsChunk: chunk } = shape;
  return { plan, model, dtype, tokensMax, chunk, ...window.acquireHead(plan), workspace: workspace.scratch };
}

// ---- backward -------------------------------------------------------------------------------------------------------

/** All micro-batches of a pass, last layer first; `gradients` says where a layer's go, and takes them when they are complete. */
export function backward(
  { shape, window, workspace, boundaries }: StepRecorder,
  plan: Plan,
  { step, pass }: At,
  inputs: StepInputs,
  gradients: Pick<Gradients, "layer" | "land">,
): void {
  const batches = inputs.batches[pass]!;
  for (let layer = shape.model.layers - 1; layer >= 0; layer--) {
    plan.label = { step, phase: "backward", pass, block: layer };
    const weights = window.acquire(plan, layer);
    window.fetch(plan, downFrom(layer - 1));
    const accumulator = gradients.layer(plan, layer);
    for (const [microBatch, tokens] of batches.entries()) {
      plan.label = { step, phase: "backward", pass, block: layer, microBatch };
      const x = boundaries.restored(plan, layer, microBatch);
      fetchNextBoundary(boundaries, plan, layer, microBatch, batches.length);
      const context = workspace.block(plan, layer, weights, microBatch);
      recomputeBlock(context, x, tokens);
      backwardBlock(context, accumulator, boundaries.gradient(plan, microBatch), x, tokens, microBatch > 0);
      boundaries.drained(plan, layer, microBatch);
    }
    window.release(plan, layer);
    gradients.land(plan, layer, pass);
  }
}

/** The boundary that backward needs next: of the next micro-batch, or of the layer before. */
function fetchNextBoundary(boundaries: Boundaries, plan: Plan, layer: number, microBatch: number, count: number): void {
  if (microBatch + 1 < count) boundaries.fetch(plan, layer, microBatch + 1);
  else if (layer > 0) boundaries.fetch(plan, layer - 1, 0);
}

/** Somebody waits for these events; the next step takes the other side. */
export function finishRecording(
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
