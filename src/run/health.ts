// Whether a run still learns. What has become NaN, and what has died, ends a run with the words of somebody who would want to
// know it at eleven at night: what happened, since when, what to change, and what is still good.

import { StepError } from "../words/errors.ts";

export interface StepHealth {
  step: number;
  loss: number;
  gradNorm: number | null;
  learningRate: number;
}

/** Steps in a row without a gradient after which a model counts as dead. */
const stillMost = 10;
/** Of the first step's norm: below this there is no gradient left. */
const noGradient = 1e-7;
/** Where the loss is this small, a small gradient means that there is nothing left to learn. */
const learnedLoss = 0.1;

export class Health {
  #firstNorm: number | undefined;
  #still = 0;

  /** Looks at a finished step; a StepError when the model is broken. `goodBefore` names the last checkpoint before a step. */
  check({ step, loss, gradNorm, learningRate }: StepHealth, goodBefore: (step: number) => string | undefined): void {
    if (!Number.isFinite(loss)) throw broken(`the loss became ${loss}`, step, learningRate, goodBefore(step));
    if (gradNorm === null) return;
    if (!Number.isFinite(gradNorm))
      throw broken(`the gradient's norm became ${gradNorm}`, step, learningRate, goodBefore(step));
    this.#firstNorm ??= gradNorm;
    const still = gradNorm <= this.#firstNorm * noGradient && loss > learnedLoss;
    this.#still = still ? this.#still + 1 : 0;
    if (this.#still < stillMost) return;
    const since = step - stillMost + 1;
    throw broken(
      `the model has stopped learning: since step ${since} its gradient is zero and the loss stays at ${loss.toFixed(4)}`,
      step,
      learningRate,
      goodBefore(since),
    );
  }
}

/** The engine's own finding, that a loss is not finite, in the same words; anything else as it is. */
export function explainStepError(
  error: unknown,
  rateOf: (step: number) => number,
  goodBefore: (step: number) => string | undefined,
): unknown {
  if (!(error instanceof StepError)) return error;
  const [, step, what] = /step (\d+) .*(?:the loss|the gradient norm) is -?(nan|inf)/i.exec(error.message) ?? [];
  if (step === undefined) return error;
  const value = what!.toLowerCase() === "nan" ? "NaN" : "infinite";
  return broken(`the loss became ${value}`, Number(step), rateOf(Number(step)), goodBefore(Number(step)), error);
}

function broken(what: string, step: number, rate: number, good: string | undefined, cause?: unknown): StepError {
  if (step === 1)
    return new StepError(
      `${what} at step 1, before anything was learned: weights of the model are not finite, or too large for its numbers; ` +
        `look at it with sluice inspect, or download it again`,
      { cause },
    );
  return new StepError(
    `${what} at step ${step}, at a learning rate of ${Number(rate.toPrecision(3))}: it is probably too high; lower optimizer.learningRate, ` +
      `or lengthen schedule.warmup; the model is not exported; ${good ? `the last checkpoint before is ${good}` : "there is no checkpoint from before"}`,
    { cause },
  );
}
