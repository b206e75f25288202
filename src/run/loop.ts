// The course of a run: what it resumes from, its steps with what happens between them, and what it leaves at the end. `train`
// (train.ts) tells the story; here is what its sentences do.

import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import type { Batches, StepBatch } from "../data/batches.ts";
import type { Dataset } from "../data/dataset.ts";
import { evaluationBatches } from "../data/loader.ts";
import type { Model } from "../engine/model.ts";
import type { StepResult, Trainer } from "../engine/trainer.ts";
import { writeFileAtomic } from "../io/atomic.ts";
import { markDirectory } from "../io/claim.ts";
import { fileChanges } from "../io/file-stamps.ts";
import {
  listCheckpoints,
  pruneCheckpoints,
  removeCheckpoints,
  restoreCheckpoint,
  saveCheckpoint,
  setAside,
  stepOf,
  type Manifest,
} from "../keep/checkpoint.ts";
import { listWeights, saveWeights } from "../keep/export-checkpoint.ts";
import { MetricsLog } from "../keep/metrics.ts";
import { readMetrics, writeFacts, type RunFacts } from "../keep/run-folder.ts";
import type { Stream } from "../native/abi.gen.ts";
import type { Plan } from "../plan/plan.ts";
import { stepFlops } from "../predict/flops.ts";
import type { Dashboard } from "../view/dashboard.ts";
import { writeReport } from "../view/report.ts";
import { TensorBoardLog } from "../view/tensorboard.ts";
import { CheckpointError, type SluiceError } from "../words/errors.ts";
import { formatBytes } from "../words/format.ts";
import { CallbackRunner, type Callbacks } from "./callbacks.ts";
import { configJson, type Config } from "./config.ts";
import { bitDifferences, configDifferences, type StepBits } from "./differences.ts";
import { checkDisk, describeDisk, diskOf, type DiskNeed } from "./disk.ts";
import { explainStepError, Health } from "./health.ts";
import { learningRate } from "./lr.ts";
import { Signals } from "./signals.ts";
import { StatusLine } from "./status.ts";

/** A step on its way. */
interface Submitted {
  batch: StepBatch;
  rate: number;
  epoch: number;
  plan: Plan | undefined;
}

/** What the parts of a run share. */
export class Run {
  readonly config: Config;
  loss = NaN;
  /** Set by a signal: finish the step in hand, save, leave. */
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
  /** Set by a signal: save after the step in hand, and go on. */
  #saveNow = false;
  readonly #health = new Health();
  readonly #signals: Signals;
  #savedAs = "the checkpoint it resumed from";
  #heldOut: Manifest["heldOut"];
  readonly #bits: StepBits;
  readonly #disk: DiskNeed;
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
    const { logitsChunk, tokensMax } = trainer.shape;
    this.#bits = { device: config.device, dtype: config.dtype, logitsChunk, tokensMax };
    this.#disk = diskOf(config, model, facts.steps);
    this.#signals = new Signals({
      stop: (again) => {
        this.stopping = true;
        this.#status.print(
          again
            ? "still finishing and saving; twice within two seconds stops at once"
            : "finishing the step in hand and saving; Ctrl-C again within two seconds stops at once",
        );
      },
      cancel: () => model.engine.cancel(),
      save: () => {
        this.#saveNow = true;
      },
    });
  }

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
      const differences = configDifferences(manifest.config, configJson(this.config));
      if (differences.length > 0)
        this.#status.print(
          `settings that differ from the checkpoint's, and hold from here on: ${differences.join(", ")}`,
        );
      const bits = bitDifferences(manifest.bits, this.#bits);
      if (bits)
        this.#status.print(
          `not bit for bit what an uninterrupted run would have been: ${bits}; put back what it was for that`,
        );
      if (manifest.step >= this.#steps)
        this.#status.print(
          `nothing is left to train: ${manifest.step} of ${this.#steps} steps are done; raise steps or epochs, or choose another output`,
        );
    }
    const { steps } = this.#trainer;
    const { checkpoint, total } = this.#disk;
    const there = Math.min(listCheckpoints(this.checkpoints).length, this.#disk.checkpoints) * checkpoint;
    await checkDisk(this.config.output, total - there, `the run needs ${describeDisk(this.#disk)}`);
    if (this.config.overwrite && !manifest) removeCheckpoints(this.checkpoints);
    const aside = setAside(this.checkpoints, steps);
    if (aside) this.#status.print(`checkpoints past step ${steps} are of another course and were moved to ${aside}`);
    if (existsSync(this.checkpoints)) pruneCheckpoints(this.checkpoints, this.config.checkpoint.keep);
    const { output, tensorboard, dashboard } = this.config;
    markDirectory(output, "run");
    await writeFileAtomic(join(output, "config.json"), `${JSON.stringify(configJson(this.config), null, 2)}\n`);
    this.#log = new MetricsLog(output, steps);
    if (this.#log.missing > 0)
      this.#status.print(
        `metrics.jsonl lacks ${this.#log.missing} of the ${steps} steps before (a power cut may have taken them); curves have a gap there, the model has not`,
      );
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
    if (resume === true)
      throw new CheckpointError(
        `${this.checkpoints} has no checkpoint to resume from` +
          (listWeights(this.checkpoints).length > 0 ? ", only weights (checkpoint.state: false)" : ""),
      );
    return undefined;
  }

  /** All steps that are left. One step is always in flight while the next is prepared. */
  async loop(heldOut: Dataset | undefined): Promise<void> {
    try {
      await this.#allSteps(heldOut);
    } catch (error) {
      throw explainStepError(error, this.#rateOf, (step) => this.#goodBefore(step));
    }
  }

  /** The newest checkpoint of before a step. */
  #goodBefore(step: number): string | undefined {
    return listCheckpoints(this.checkpoints).find((path) => stepOf(path) < step);
  }

  #rateOf = (step: number): number => {
    const { optimizer, schedule } = this.config;
    return learningRate(optimizer.learningRate, schedule, step - 1, this.#steps);
  };

  async #allSteps(heldOut: Dataset | undefined): Promise<void> {
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
      const saves = this.#saveNow || (typeof checkpoint.every === "number" && steps % checkpoint.every === 0);
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
      residentBytes: this.#residentBytes(),
    };
    this.#log!.step(metrics);
    this.#health.check(metrics, (step) => this.#goodBefore(step));
    this.#tensorboard?.step(metrics);
    this.#dashboard?.step(metrics, this.#model.engine, this.#lastPlan);
    this.#lastPlan = plan;
    this.#status.step(metrics);
    await this.#callbacks.tell("onStep", metrics);
  }

  /** What the system says of the process; what it said before where it cannot be asked (no descriptor is free). */
  #residentBytes(): number {
    try {
      this.#resident = process.memoryUsage.rss();
    } catch {}
    return this.#resident;
  }
  #resident = 0;

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
    this.#saveNow = false;
    if (this.#saved === step) return;
    const heldOut = this.#heldOut && { heldOut: this.#heldOut };
    const contents = {
      data: this.#batches.state(),
      ...heldOut,
      bits: { ...this.#bits },
      config: configJson(this.config),
    };
    this.#savedAs = await this.#withDescriptors(async () => {
      // The lines that a checkpoint stands for are on the disk before it is there.
      this.#log!.flush();
      this.#tensorboard?.flush();
      const { checkpoint } = this.#disk;
      await checkDisk(
        this.config.output,
        checkpoint,
        `cannot save after step ${step}: a checkpoint takes ${formatBytes(checkpoint)}`,
        "; then resume: earlier checkpoints are untouched",
      );
      const { keep, state } = this.config.checkpoint;
      return state
        ? await saveCheckpoint(this.#trainer, this.checkpoints, contents)
        : await saveWeights(this.#trainer, this.checkpoints, { ...this.config.export, keep });
    });
    this.#saved = step;
    pruneCheckpoints(this.checkpoints, this.config.checkpoint.keep);
    await this.#callbacks.tell("onCheckpoint", { step, path: this.#savedAs });
  }

  /** What pages of the dashboard hold open gives way to what has to be written: anybody on this machine may open them. */
  async #withDescriptors<T>(write: () => Promise<T>): Promise<T> {
    try {
      return await write();
    } catch (error) {
      if (!this.#dashboard || !/too many files are open|Too many open files/.test((error as Error).message))
        throw error;
      this.#status.print("no descriptor is left to save with: the dashboard and all its connections are closed");
      await this.#dashboard.close();
      this.#dashboard = undefined;
      return await write();
    }
  }

  /** The last checkpoint, if any is wanted; what keeps it from being written, once the model is exported, ends the run. */
  async saveLast(): Promise<SluiceError | undefined> {
    if (this.config.checkpoint.every === "never") return undefined;
    try {
      await this.save();
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error;
      this.#status.print(`${error.message}\nthe model is exported all the same`);
      return error;
    }
    return undefined;
  }

  async end(): Promise<void> {
    this.#signals[Symbol.dispose]();
    this.#status.end();
    this.#log?.[Symbol.dispose]();
    this.#tensorboard?.[Symbol.dispose]();
    await this.#dashboard?.close();
  }
}
