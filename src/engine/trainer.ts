// A trainer: a model with optimizer state and the buffers of a training step. `step` is one optimizer step; `submit` hands
// it over and returns at once, so that the next batch is prepared, and even submitted, while this one still computes.
// What the host has not updated when a step's backward ends goes on underneath the next step in deadline order (`updates.ts`);
// `drain` waits for all of it, before anything else looks at the weights.

import type { StepBatch } from "../data/batches.ts";
import { resolve, resolveLeast } from "../predict/fit.ts";
import { formatTiers } from "../words/format.ts";
import type { Machine } from "../predict/machines.ts";
import { type BillLine } from "../plan/buffers.ts";
import { demand } from "../tiers/limits.ts";
import { clippingOf, leavesOpen, tokensMaxFor, type StepConfig, type StepShape } from "../tiers/shape.ts";
import type { ModelWeights } from "./weights.ts";
import type { Plan } from "../plan/plan.ts";
import { roomOf } from "../predict/probe.ts";
import { Session } from "./session.ts";
import { recordStep, type RecordedStep } from "../step/step.ts";
import { isResident } from "../state/parameters.ts";
import { weightDecays } from "../state/weight-decay.ts";

/** The part of a config that decides how a step is computed. */
export type TrainerConfig = StepConfig;

/** What a step measured. */
export interface StepResult {
  /** Counts finished steps from 1. */
  step: number;
  /** Mean over the step's valid tokens, before the update. */
  loss: number;
  /** Global norm of the gradient before clipping. */
  gradNorm: number;
  tokens: number;
  validTokens: number;
}

/** A model with optimizer state, from `Trainer.open`. Owns native memory until `close`; the model outlives it. */
export class Trainer implements Disposable {
  readonly model: ModelWeights;
  readonly config: TrainerConfig;
  readonly session: Session;
  readonly shape: StepShape;
  /** The rates that were measured of a GPU and its host, which the shape was fitted to. */
  readonly machine: Machine | undefined;
  /** Steps submitted so far; the next one is `steps + 1`. */
  steps = 0;
  /** The last plan submitted, for traces. */
  plan: Plan | undefined;
  /** Steps whose staging buffers may still be read, by side. */
  #inFlight: (Promise<unknown> | undefined)[] = [];
  #recorded: RecordedStep | undefined;
  /** The first failure. It may have left blocks at different versions, so every later use throws it again. */
  #failure: Error | undefined;

  /** Use `Trainer.open`. */
  constructor(model: ModelWeights, config: TrainerConfig, session: Session, machine: Machine | undefined) {
    this.model = model;
    this.config = config;
    this.session = session;
    this.shape = session.shape;
    this.machine = machine;
  }

  /** Allocates everything a step needs, in the places the config says. MemoryError before anything is allocated. */
  static async open(model: ModelWeights, config: TrainerConfig, overrides: Partial<StepShape> = {}): Promise<Trainer> {
    const { engine } = model;
    demand(resolveLeast(model, config, engine.limits(), overrides));
    const fits = leavesOpen(config).size > 0;
    const room = await roomOf(
      engine,
      { config: model.config, dtype: model.dtype, tokens: tokensMaxFor(config.microBatchTokens) },
      fits,
    );
    const resolved = resolve(model, config, { limits: engine.limits(), room }, overrides);
    demand(resolved);
    const { shape } = resolved;
    const tensors = model.blocks.flatMap((block) => block.tensors);
    const decays = weightDecays(config.optimizer, tensors);
    await model.setResident((layer) => isResident(shape, layer));
    const session = new Session(model, resolved, decays);
    await session.prepare();
    return new Trainer(model, config, session, room?.machine);
  }

  /** Every buffer of a step by name, place and bytes, the model's own included. */
  get bill(): readonly BillLine[] {
    return this.session.bill;
  }

  /** One optimizer step, waiting for its loss and norm. */
  async step(batch: StepBatch, options: { learningRate?: number } = {}): Promise<StepResult> {
    return (await this.submit(batch, options)).result;
  }

  /**
   * Hands a step over; `result` resolves when its loss and norm are known. Returns as soon as the staging buffers are
   * free, so at most two steps are in flight. The learning rate is the config's unless given.
   */
  async submit(batch: StepBatch, options: { learningRate?: number } = {}): Promise<{ result: Promise<StepResult> }> {
    const { recorder } = this.session;
    await this.#until(() => this.#inFlight[recorder.side]);
    const step = this.steps + 1;
    const { beta1, beta2, epsilon, learningRate } = this.config.optimizer;
    const update = { step, learningRate: options.learningRate ?? learningRate, beta1, beta2, epsilon };
    const recorded = recordStep(recorder, batch, { update, maxGradNorm: clippingOf(this.config.maxGradNorm).value });
    await this.#until(() => this.model.engine.submit(recorded.plan));
    this.steps = step;
    this.plan = recorded.plan;
    this.#recorded = recorded;
    const measured = this.model.engine.done(recorded.measured);
    const inputsFree = this.model.engine.done(recorded.inputsFree);
    const result = measured.then(() => this.#measure(recorded, step, batch));
    const over = Promise.all([result, inputsFree]);
    this.#until(() => over).catch(() => {}); // whoever awaits `result` or the next submit gets the error
    this.#inFlight[recorded.side] = over;
    return { result };
  }

  #measure(recorded: RecordedStep, step: number, { tokens, validTokens }: StepBatch): StepResult {
    const loss = this.session.lossSum(recorded) / validTokens;
    return { step, loss, gradNorm: this.session.gradNorm(recorded), tokens, validTokens };
  }

  /** Waits until every update has been made. */
  async drain(): Promise<void> {
    await this.#until(() => Promise.all(this.#inFlight));
    if (this.#recorded) await this.#until(() => this.model.engine.idle());
  }

  /** Waits for work on the state, which is of no use once some of it has failed: open a new trainer then. */
  async #until(work: () => unknown): Promise<void> {
    try {
      await work();
      if (this.plan) this.#failure ??= this.model.engine.failureOf(this.plan);
    } catch (cause) {
      this.#failure ??= cause as Error;
    }
    if (this.#failure) throw this.#failure;
  }

  /** The state now is that after `steps` steps: a checkpoint was read into it. `nextFactor` clips the next step, if any does. */
  restored(steps: number, nextFactor = 1): void {
    this.steps = steps;
    this.session.previousFactor = nextFactor;
    this.session.recorder.state.forget();
  }

  /** Mean loss over batches at the current weights. */
  async evaluate(batches: Iterable<StepBatch>): Promise<{ loss: number; validTokens: number }> {
    await this.drain();
    const evaluation = this.session.evaluate(batches, this.steps);
    await this.#until(() => evaluation);
    return evaluation;
  }

  [Bun.inspect.custom](): string {
    const { passes, microBatches, tokensMax } = this.shape;
    const size = `${passes} × ${microBatches} × ${tokensMax} tokens a step`;
    return `Trainer(${this.model.config.modelType} after step ${this.steps}, ${size}, ${formatTiers(this.bill)})`;
  }

  /** Frees the trainer's buffers; the model stays. Drain first, or what is in flight is lost. */
  close(): void {
    this.session[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
