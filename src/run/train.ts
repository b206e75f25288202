// A training run, from config to exported model. `train({...})` is what recipes and the command line call.
//
// The loop submits a step, and while it computes prepares and submits the next; the losses come back one step behind.
// In the run directory, which no other process may train in meanwhile (lock.ts): config.json, run.json, metrics.jsonl,
// loss.csv, checkpoints/, model/, report.html, loss.svg. Ctrl-C once finishes the step in hand and saves a checkpoint, twice
// stops between two commands. Read next: `trainer.ts`, `step.ts`.

import { existsSync, mkdirSync } from "node:fs";
import { basename, join } from "node:path";
import { CallbackRunner, type Callbacks } from "./callbacks.ts";
import {
  listCheckpoints,
  pruneCheckpoints,
  restoreCheckpoint,
  saveCheckpoint,
  setAside,
  type Manifest,
} from "../keep/checkpoint.ts";
import { configJson, parseConfig, type Config, type TrainConfig } from "./config.ts";
import type { Dashboard } from "../view/dashboard.ts";
import type { Batches, StepBatch } from "../data/batches.ts";
import { evaluationBatches } from "../data/loader.ts";
import type { Dataset } from "../data/dataset.ts";
import { findRunData } from "../data/read/run-data.ts";
import { shareOf } from "../data/read/splits.ts";
import { remark } from "../words/remark.ts";
import { CancelledError, CheckpointError, ConfigError } from "../words/errors.ts";
import { exportModel } from "../keep/export.ts";
import { predictedTokensPerSecond, resolveLeast } from "../predict/fit.ts";
import { stepFlops } from "../predict/flops.ts";
import { thisMachine } from "../predict/forecast.ts";
import { formatBytes, formatCount } from "../words/format.ts";
import { fileChanges } from "../io/file-stamps.ts";
import { fileError, removeLeftovers, writeFileAtomic } from "../io/atomic.ts";
import { resolveModel } from "../models/hub.ts";
import { learningRate, scheduleProblems } from "./lr.ts";
import { bytesIn, printBill } from "../tiers/bill.ts";
import { demand } from "../tiers/limits.ts";
import { MetricsLog } from "../keep/metrics.ts";
import { load, type Model } from "../engine/model.ts";
import type { Stream } from "../native/abi.gen.ts";
import { chooseDevice } from "../native/choose.ts";
import { isGpu } from "../native/devices.ts";
import type { Plan } from "../plan/plan.ts";
import { writeReport } from "../view/report.ts";
import { RunLock } from "./lock.ts";
import { factsOf, readMetrics, writeFacts, type RunFacts } from "../keep/run-folder.ts";
import { StatusLine } from "./status.ts";
import { TensorBoardLog } from "../view/tensorboard.ts";
import { Trainer, type StepResult } from "../engine/trainer.ts";

/** What a finished run has to say. */
export interface TrainSummary {
  /** The run directory. */
  output: string;
  /** The exported Hugging Face directory. */
  model: string;
  /** Finished steps. */
  steps: number;
  /** Loss of the last step. */
  loss: number;
  /** On `evaluationData`, when there is any. */
  evaluationBefore: number | undefined;
  evaluationAfter: number | undefined;
  /** A callback ended the run early with "stop"; everything else is as if that had been the last step. */
  stopped: boolean;
}

/**
 * Trains as the config says and exports the model. Throws a `SluiceError` with what to change; after Ctrl-C, and a
 * checkpoint, a `CancelledError`.
 */
export async function train(input: TrainConfig, callbacks: Callbacks = {}): Promise<TrainSummary> {
  const config = await parseConfig(input);
  if (input.device === undefined || input.device === "auto") {
    const { reason } = chooseDevice();
    if (reason !== undefined) console.log(reason);
  }
  using _ = openOutput(config.output);
  return await trainAlone(config, callbacks);
}

/** The run itself, in a directory that nobody else uses. */
async function trainAlone(config: Config, callbacks: Callbacks): Promise<TrainSummary> {
  using model = await load(await resolveModel(config.model), {
    device: config.device,
    dtype: config.dtype,
    workers: config.workers,
    ...(config.deviceMemory === undefined ? {} : { deviceMemory: config.deviceMemory }),
    check: (found, engine) => demand(resolveLeast(found, config, engine.limits())),
  });
  const { sequenceLength, maxBadLines, workers } = config;
  const lossOn = { sequenceLength, maxBadLines, workers, loss: config.chat.loss };
  const found = await findRunData(config);
  const heldOut = found.heldOut && (await model.dataset(found.heldOut, lossOn));
  const share = shareOf(config.evaluationData);
  if (heldOut && share)
    remark(`${heldOut.report.samples} samples, ${config.evaluationData} of the data, are kept for evaluation`);
  await using batches = await model.batches(found.training, { ...lossOn, streamAbove: config.streamAbove }, config);
  const steps = await stepCount(config, batches);
  const trainer = await Trainer.open(model, config);
  announce(model, trainer, batches, config, steps);
  const machine = trainer.machine ?? (isGpu(config.device) ? undefined : thisMachine(config.workers));
  const facts = factsOf({
    steps,
    predictedTokensPerSecond: machine ? predictedTokensPerSecond(trainer.shape, machine) : null,
    model: aboutModel(model, config),
    data: batches.report,
    bill: trainer.bill,
  });

  const run = new Run(config, model, trainer, batches, facts, callbacks);
  try {
    await run.resume(heldOut);
    const evaluationBefore = heldOut && trainer.steps === 0 ? await run.evaluate(heldOut) : undefined;
    await run.loop(heldOut);
    await run.save();
    run.checkCallbacks();
    if (run.stopping) {
      await run.conclude(batches.report);
      throw new CancelledError(
        `interrupted after step ${trainer.steps} of ${steps}, which is saved in ${run.checkpoints}; go on with checkpoint.resume: true`,
      );
    }
    const evaluationAfter = heldOut && (await run.evaluate(heldOut));
    run.checkCallbacks();
    const exported = join(config.output, "model");
    await exportModel(model, exported, config.export);
    await run.conclude(batches.report);
    const { output } = config;
    const { loss, stopped } = run;
    return { output, model: exported, steps: trainer.steps, loss, evaluationBefore, evaluationAfter, stopped };
  } finally {
    await run.end();
  }
}

/** The run directory for this process alone, without what a killed run left half written. */
function openOutput(output: string): RunLock {
  let lock: RunLock | undefined;
  try {
    mkdirSync(output, { recursive: true });
    lock = new RunLock(output);
    removeLeftovers(output);
    return lock;
  } catch (cause) {
    lock?.[Symbol.dispose]();
    throw fileError(cause, "write", output);
  }
}

/** How many steps the config means, with the rules that need the number. */
async function stepCount(config: Config, batches: Batches): Promise<number> {
  if (config.steps !== undefined) return config.steps;
  const steps = await batches.stepsOf(config.epochs!);
  const problems = scheduleProblems(config.schedule, steps);
  if (problems.length > 0) throw new ConfigError(problems.join("\n"));
  return steps;
}

function aboutModel({ config: { modelType }, parameters }: Model, { dtype }: Config) {
  return { type: modelType, parameters, weightBytes: parameters * (dtype === "float32" ? 4 : 2) };
}

function announce(model: Model, trainer: Trainer, batches: Batches, config: Config, steps: number): void {
  const { report, streamedBytes } = batches;
  const { parameters, weightBytes: bytes } = aboutModel(model, config);
  const device = bytesIn(trainer.bill, "device");
  console.log(
    `${config.model}: ${model.config.modelType}, ${formatCount(parameters)} parameters, ${formatBytes(bytes)} in ${config.dtype}`,
  );
  const lost = [
    report.truncated && `${report.truncated} truncated`,
    report.dropped && `${report.dropped} dropped`,
    report.badLines && `${report.badLines.count} bad lines left out`,
  ].filter(Boolean);
  const streamed = streamedBytes !== undefined ? `${formatBytes(streamedBytes)} streamed; so far ` : "";
  console.log(
    `data: ${streamed}${formatCount(report.samples)} samples, ${formatCount(report.tokens)} tokens, ${formatCount(report.validTokens)} count` +
      `${lost.length > 0 ? ` (${lost.join(", ")})` : ""}; ${steps} steps of ${config.batchSize} rows of at most ${config.sequenceLength}`,
  );
  for (const line of report.badLines?.first ?? []) console.log(`  ${line}`);
  const limit = config.deviceMemory === undefined ? "" : ` of ${formatBytes(config.deviceMemory)}`;
  console.log(
    `memory bill: ${formatBytes(device)}${limit} on the device, ${((100 * device) / bytes).toFixed(0)} % of the model's weights`,
  );
  console.log(printBill(trainer.bill, parameters));
}

/** A step on its way. */
interface Submitted {
  batch: StepBatch;
  rate: number;
  epoch: number;
  plan: Plan | undefined;
}

/** What the parts of a run share. */
class Run {
  readonly config: Config;
  loss = NaN;
  /** Set by Ctrl-C: finish the step in hand, save, leave. */
  stopping = false;
  #model: Model;
  #trainer: Trainer;
  #batches: Batches;
  #steps: number;
  #facts: RunFacts;
  #log: MetricsLog | undefined;
  #tensorboard: TensorBoardLog | undefined;
  #dashboard: Dashboard | undefined;
  /** Of the step reported last: over for good when the next one is. */
  #lastPlan: Plan | undefined;
  #status: StatusLine;
  #callbacks: CallbackRunner;
  #saved = -1;
  #savedAs = "the checkpoint it resumed from";
  #heldOut: Manifest["heldOut"];
  #began = performance.now();
  #stepEnded = performance.now();
  #busy: Record<Stream, number>;

  constructor(config: Config, model: Model, trainer: Trainer, batches: Batches, facts: RunFacts, callbacks: Callbacks) {
    this.config = config;
    this.#model = model;
    this.#trainer = trainer;
    this.#batches = batches;
    this.#steps = facts.steps;
    this.#facts = facts;
    const { steps, predictedTokensPerSecond } = facts;
    this.#status = new StatusLine({ steps, every: config.logging.every, predictedTokensPerSecond });
    this.#callbacks = new CallbackRunner(callbacks, (text) => this.#status.print(text));
    this.#busy = model.engine.busy();
    process.on("SIGINT", this.#interrupt);
  }

  #interrupt = (): void => {
    if (this.stopping) return this.#model.engine.cancel();
    this.stopping = true;
    this.#status.print("finishing the step in hand and saving; Ctrl-C again stops at once");
  };

  get stopped(): boolean {
    return this.#callbacks.stopped;
  }

  /** Throws what a callback threw; after `save`. */
  checkCallbacks(): void {
    this.#callbacks.check(this.#savedAs);
  }

  get checkpoints(): string {
    return join(this.config.output, "checkpoints");
  }

  /**
   * Continues from a checkpoint if the config says so. A damaged newest one gives way to the one before, and says so.
   * Nothing in the run directory changes before the state is there.
   */
  async resume(heldOut: Dataset | undefined): Promise<void> {
    const { resume } = this.config.checkpoint;
    const manifest = await this.#restore(resume);
    this.#heldOut = heldOut && { digest: heldOut.digest, ...(heldOut.files && { files: heldOut.files }) };
    if (manifest) {
      this.#batches.restore(manifest.data);
      const { heldOut: before } = manifest;
      if (heldOut && before && before.digest !== heldOut.digest)
        this.#status.print(
          `evaluationData is not what it was at step ${manifest.step} (${fileChanges(before.files, heldOut.files ?? []) ?? "it is read in another way"}): ` +
            "evaluations from here on are not to be compared with those before; put back what it was to go on as before",
        );
      this.#saved = manifest.step;
      this.#status.print(`resumed after step ${manifest.step}`);
    }
    const { steps } = this.#trainer;
    const aside = setAside(this.checkpoints, steps);
    if (aside) this.#status.print(`checkpoints past step ${steps} are of another course and were moved to ${aside}`);
    if (existsSync(this.checkpoints)) pruneCheckpoints(this.checkpoints, this.config.checkpoint.keep);
    const { output, tensorboard, dashboard } = this.config;
    await writeFileAtomic(join(output, "config.json"), `${JSON.stringify(configJson(this.config), null, 2)}\n`);
    this.#log = new MetricsLog(output, steps);
    await writeFacts(output, this.#facts);
    if (tensorboard) this.#tensorboard = new TensorBoardLog(output, steps);
    if (dashboard !== false) await this.#serve(dashboard);
  }

  /** run.json once more, now with the time it took and all of the data that was read, and the report. */
  async conclude(data: RunFacts["data"]): Promise<void> {
    const seconds = (performance.now() - this.#began) / 1000; // the wall clock may have been set meanwhile
    await writeFacts(this.config.output, { ...this.#facts, data, seconds });
    await writeReport(this.config.output);
  }

  async #serve(port: number | true): Promise<void> {
    const { Dashboard } = await import("../view/dashboard.ts");
    const { model, output } = this.config;
    const history = readMetrics(output);
    this.#dashboard = new Dashboard({ name: basename(output), model, steps: this.#steps, port, history });
    this.#status.print(`dashboard: ${this.#dashboard.url}`);
  }

  async #restore(resume: Config["checkpoint"]["resume"]): Promise<Manifest | undefined> {
    if (resume === false) return undefined;
    if (typeof resume === "string" && resume !== "auto") return restoreCheckpoint(this.#trainer, resume);
    const found = listCheckpoints(this.checkpoints);
    for (const path of found) {
      try {
        return await restoreCheckpoint(this.#trainer, path);
      } catch (error) {
        if (!(error instanceof CheckpointError) || path === found.at(-1)) throw error;
        this.#status.print(`${error.message}\ntrying the checkpoint before`);
      }
    }
    if (resume === true) throw new CheckpointError(`${this.checkpoints} has no checkpoint to resume from`);
    return undefined;
  }

  /** All steps that are left. One step is always in flight while the next is prepared. */
  async loop(heldOut: Dataset | undefined): Promise<void> {
    const { checkpoint, evaluation, optimizer, schedule } = this.config;
    let inFlight: (Submitted & { result: Promise<StepResult> }) | undefined;
    const settle = async (): Promise<void> => {
      if (inFlight) await this.#report(await inFlight.result, inFlight);
      inFlight = undefined;
    };
    this.#restartClocks();
    while (this.#trainer.steps < this.#steps && !this.stopping && !this.#callbacks.ends) {
      const batch = await this.#nextBatch(settle);
      const rate = learningRate(optimizer.learningRate, schedule, this.#trainer.steps, this.#steps);
      const { result } = await this.#trainer.submit(batch, { learningRate: rate });
      result.catch(() => {}); // it is awaited by the next `settle`, one step later
      await settle();
      inFlight = { result, batch, rate, epoch: this.#batches.epochs, plan: this.#trainer.plan };
      const { steps } = this.#trainer;
      const saves = checkpoint.every !== null && steps % checkpoint.every === 0;
      const evaluates = heldOut && evaluation.every !== null && steps % evaluation.every === 0 && steps < this.#steps;
      if (!saves && !evaluates) continue;
      await settle();
      if (evaluates) await this.evaluate(heldOut); // before the checkpoint, which says that everything up to it was written
      if (saves) await this.save();
      this.#restartClocks();
    }
    await settle();
  }

  /** What has failed behind a stream's back ends the run after a checkpoint. */
  async #nextBatch(settle: () => Promise<void>): Promise<StepBatch> {
    try {
      return await this.#batches.next();
    } catch (error) {
      await settle();
      if (this.#trainer.steps > 0) await this.save();
      throw error;
    }
  }

  /** What a step's time and busy shares are counted from, after something that was no step. */
  #restartClocks(): void {
    this.#stepEnded = performance.now();
    this.#busy = this.#model.engine.busy();
  }

  async #report(result: StepResult, { batch, rate, epoch, plan }: Submitted): Promise<void> {
    const now = performance.now();
    const seconds = (now - this.#stepEnded) / 1000;
    this.#stepEnded = now;
    this.loss = result.loss;
    const held = this.#model.engine.held();
    const metrics = {
      ...result,
      learningRate: rate,
      epoch,
      seconds,
      tokensPerSecond: result.tokens / seconds,
      tflops: stepFlops(this.#model.blocks, batch) / seconds / 1e12,
      ...this.#busiest(seconds),
      deviceBytes: held.device,
      hostBytes: held.pinned + held.host,
      residentBytes: process.memoryUsage.rss(),
    };
    this.#log!.step(metrics);
    this.#tensorboard?.step(metrics);
    this.#dashboard?.step(metrics, this.#model.engine, this.#lastPlan);
    this.#lastPlan = plan;
    this.#status.step(metrics);
    await this.#callbacks.tell("onStep", metrics);
  }

  /** From the streams' own clocks, since the last report. */
  #busiest(seconds: number): { busiest: Stream; busiestShare: number } {
    const busy = this.#model.engine.busy();
    const before = this.#busy;
    this.#busy = busy;
    const shares = (Object.keys(busy) as Stream[]).map((stream) => {
      return { busiest: stream, busiestShare: Math.min(1, (busy[stream] - before[stream]) / seconds) };
    });
    return shares.reduce((most, share) => (share.busiestShare > most.busiestShare ? share : most));
  }

  async evaluate(heldOut: Dataset): Promise<number> {
    const { batchSize, gradientAccumulation: passes } = this.config;
    const batch = { ...this.config, batchSize: batchSize / passes }; // the trainer has room for the rows of one pass
    const { loss, validTokens } = await this.#trainer.evaluate(evaluationBatches(heldOut, batch));
    const perplexity = Math.exp(loss);
    const metrics = { step: this.#trainer.steps, loss, perplexity, validTokens };
    this.#log!.evaluation(metrics);
    this.#tensorboard?.evaluation(metrics);
    this.#dashboard?.evaluation(metrics);
    this.#status.print(
      `evaluation after step ${this.#trainer.steps}: loss ${loss.toFixed(4)}, perplexity ${perplexity.toFixed(2)}`,
    );
    await this.#callbacks.tell("onEvaluate", metrics);
    return loss;
  }

  async save(): Promise<void> {
    const { steps: step } = this.#trainer;
    if (this.#saved === step) return;
    const heldOut = this.#heldOut && { heldOut: this.#heldOut };
    const contents = { data: this.#batches.state(), ...heldOut, config: configJson(this.config) };
    this.#savedAs = await saveCheckpoint(this.#trainer, this.checkpoints, contents);
    this.#saved = step;
    pruneCheckpoints(this.checkpoints, this.config.checkpoint.keep);
    await this.#callbacks.tell("onCheckpoint", { step, path: this.#savedAs });
  }

  async end(): Promise<void> {
    process.off("SIGINT", this.#interrupt);
    this.#status.end();
    this.#log?.[Symbol.dispose]();
    this.#tensorboard?.[Symbol.dispose]();
    await this.#dashboard?.close();
  }
}
