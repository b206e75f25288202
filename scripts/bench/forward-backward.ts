// Forward and backward alone, recorded by the step's own functions: gradients are left where they are made, nothing is
// updated, and a step is measured when compute is through.

import type { StepBatch } from "../../src/data/batches.ts";
import type { Trainer } from "../../src/engine/trainer.ts";
import { Plan, type Event } from "../../src/plan/plan.ts";
import {
  backward,
  finishRecording,
  forwardToLoss,
  type RecordedStep,
  type StepRecorder,
  type StepSettings,
} from "../../src/step/step.ts";

/** In place of `recordStep`. */
export function recordForwardBackward(
  recorder: StepRecorder,
  { passes, validTokens }: StepBatch,
  { update: { step } }: StepSettings,
): RecordedStep {
  const { side, results, state, gradients } = recorder;
  const { accumulators } = gradients!;
  const plan = new Plan({ step, phase: "embed" });
  const inputs = recorder.inputs.stage(side, passes);
  recorder.inputs.upload(plan, side);
  let summed: Event | undefined;
  for (const pass of passes.keys()) {
    const at = { step, pass };
    summed = forwardToLoss(recorder, plan, at, inputs, summed, { gradients: accumulators, scale: 1 / validTokens });
    if (pass === passes.length - 1) accumulators.finishHead(plan);
    backward(recorder, plan, at, inputs, {
      layer: (_, layer) => accumulators.layer(plan, state.layer(layer).block),
      land: (_, layer) => void accumulators.finishLayer(plan, state.layer(layer).block),
    });
  }
  plan.settle(recorder.inputs.resource, "read");
  // The last loss is added up once more, after everything that compute does.
  const [pass, microBatch] = [passes.length - 1, passes.at(-1)!.length - 1];
  const count = inputs.batches[pass]![microBatch]!.validRows;
  plan.wait("download", plan.last("compute"));
  const measured = results.sum(plan, side, { pass, microBatch, count }, { check: false, after: summed });
  return finishRecording(recorder, plan, measured, measured, passes);
}

/** Submits such steps as a trainer does its own: at most two are in flight. */
export class ForwardBackward {
  readonly #trainer: Trainer;
  readonly #inFlight: (Promise<void> | undefined)[] = [];
  #steps = 0;
  /** The last one submitted. */
  plan: Plan | undefined;

  constructor(trainer: Trainer) {
    this.#trainer = trainer;
  }

  async submit(batch: StepBatch): Promise<{ result: Promise<{ loss: number }> }> {
    const { session, model } = this.#trainer;
    const { recorder } = session;
    await this.#inFlight[recorder.side];
    const update = { step: ++this.#steps, learningRate: 0, beta1: 0, beta2: 0, epsilon: 0 };
    const recorded = recordForwardBackward(recorder, batch, { update, maxGradNorm: null });
    model.engine.submit(recorded.plan);
    this.plan = recorded.plan;
    const measured = model.engine.done(recorded.measured);
    this.#inFlight[recorded.side] = measured;
    return { result: measured.then(() => ({ loss: session.lossSum(recorded) / batch.validTokens })) };
  }

  async drain(): Promise<void> {
    await Promise.all(this.#inFlight);
    await this.#trainer.model.engine.idle();
  }
}
