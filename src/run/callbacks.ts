// What a recipe may ask to be told while a run goes on, and how its answers and its errors end the run.
//
// Callbacks are the second argument of `train`: functions, so no part of the config, which stays JSON. They are called in
// order and awaited; while one runs, the step after it already computes, so a quick one costs nothing. Returning "stop"
// ends the run as if this were its last step: the step in flight is finished (and reported), a checkpoint is saved, the
// model evaluated and exported. An exception ends it after the checkpoint, and `train` throws a `CallbackError`.

import { CallbackError } from "../words/errors.ts";
import type { EvaluationMetrics, StepMetrics } from "../keep/metrics.ts";

/** Nothing, or "stop" to end the run early; a promise of it is awaited. */
export type Verdict = void | "stop" | Promise<void | "stop">;

/** A checkpoint that is complete on disk. */
export interface CheckpointSaved {
  /** Finished steps. */
  step: number;
  /** Its directory. */
  path: string;
}

/** What `train` calls while it runs; each may be async. */
export interface Callbacks {
  /** After every step, with what metrics.jsonl gets: losses come one step behind the device. */
  onStep?(metrics: StepMetrics): Verdict;
  /** After every evaluation of `evaluationData`, the first (step 0) and the last included. */
  onEvaluate?(metrics: EvaluationMetrics): Verdict;
  /** After every checkpoint, the final one included. */
  onCheckpoint?(saved: CheckpointSaved): Verdict;
}

/** Calls them, and remembers what they said until the run can act on it. */
export class CallbackRunner {
  /** A callback returned "stop". */
  stopped = false;
  readonly #callbacks: Callbacks;
  readonly #print: (text: string) => void;
  #failure: { what: string; cause: unknown } | undefined;

  /** `print` tells the user at once what happened: saving may take a while, or fail. */
  constructor(callbacks: Callbacks, print: (text: string) => void) {
    this.#callbacks = callbacks;
    this.#print = print;
  }

  /** The run should go no further: "stop", or an exception. */
  get ends(): boolean {
    return this.stopped || this.#failure !== undefined;
  }

  /** A callback's turn; never throws. After an exception no other is called. */
  async tell<Name extends keyof Callbacks>(name: Name, event: Parameters<Required<Callbacks>[Name]>[0]): Promise<void> {
    const callback = this.#callbacks[name] as ((event: unknown) => Verdict) | undefined;
    if (callback === undefined || this.#failure) return;
    try {
      if ((await callback.call(this.#callbacks, event)) === "stop") this.stopped = true;
    } catch (cause) {
      const what = `${name} failed after step ${event.step}: ${cause instanceof Error ? cause.message : String(cause)}`;
      this.#failure = { what, cause };
      this.#print(`${what}; saving before the run ends`);
    }
  }

  /** Throws what a callback threw, now that `checkpoint` holds the run's state. */
  check(checkpoint: string): void {
    if (!this.#failure) return;
    const { what, cause } = this.#failure;
    throw new CallbackError(
      `${what}; the run was saved as ${checkpoint}, checkpoint: { resume: "auto" } continues it`,
      { cause },
    );
  }
}
