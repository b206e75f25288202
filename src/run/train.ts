// A training run, from config to exported model. `train({...})` is what recipes and the command line call.
//
// The loop submits a step, and while it computes prepares and submits the next; the losses come back one step behind.
// In the run directory, which no other process may train in meanwhile (lock.ts): config.json, run.json, metrics.jsonl,
// loss.csv, checkpoints/, model/, report.html, loss.svg. What a signal does is in signals.ts. Read next: `loop.ts`, then
// `engine/trainer.ts` and `step/step.ts`.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Batches } from "../data/batches.ts";
import { findRunData } from "../data/read/run-data.ts";
import { readItems, type FoundSource, type FoundSources } from "../data/read/source.ts";
import type { Sample } from "../data/read/shapes.ts";
import { shareOf } from "../data/read/splits.ts";
import { load, type Model } from "../engine/model.ts";
import { Trainer } from "../engine/trainer.ts";
import { fileError, removeLeftovers } from "../io/atomic.ts";
import { checkClaim } from "../io/claim.ts";
import { listCheckpoints } from "../keep/checkpoint.ts";
import { exportModel } from "../keep/export.ts";
import { factsOf, readMetrics } from "../keep/run-folder.ts";
import { resolveModel } from "../models/hub.ts";
import { stopsOf } from "../engine/stops.ts";
import { chooseDevice } from "../native/choose.ts";
import { isGpu } from "../native/devices.ts";
import { predictedTokensPerSecond, resolveLeast } from "../predict/fit.ts";
import { thisMachine } from "../predict/forecast.ts";
import { bytesIn, printBill } from "../tiers/bill.ts";
import { demand } from "../tiers/limits.ts";
import { CancelledError, CheckpointError, ConfigError } from "../words/errors.ts";
import { formatBytes, formatCount } from "../words/format.ts";
import { remark } from "../words/remark.ts";
import type { Callbacks } from "./callbacks.ts";
import { parseConfig, type Config, type TrainConfig } from "./config.ts";
import { describeDisk, diskOf } from "./disk.ts";
import { RunLock } from "./lock.ts";
import { Run } from "./loop.ts";
import { scheduleProblems } from "./lr.ts";

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
  checkClaim(config.output, {
    kind: "run",
    inputs: [config.model, ...pathsOf(config.data), ...pathsOf(config.evaluationData)],
    overwrite: config.overwrite,
    name: "output",
    entries: runEntries,
  });
  using _ = openOutput(config.output);
  checkRestart(config);
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
  await remarkOnEnds(model, found.training);
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
    const unsaved = await run.saveLast();
    run.checkCallbacks();
    if (run.stopping) {
      if (unsaved) {
        await exportModel(model, join(config.output, "model"), config.export);
        throw new CheckpointError(`${unsaved.message}; the model is in ${join(config.output, "model")}`);
      }
      await run.conclude(batches.report);
      const kept =
        config.checkpoint.every === "never" || !config.checkpoint.state
          ? "whose state is not saved, as the config says"
          : `which is saved in ${run.checkpoints}; go on with checkpoint.resume: true (--resume)`;
      throw new CancelledError(`interrupted after step ${trainer.steps} of ${steps}, ${kept}`);
    }
    const evaluationAfter = heldOut && (await run.evaluate(heldOut));
    run.checkCallbacks();
    const exported = join(config.output, "model");
    await exportModel(model, exported, config.export);
    await run.conclude(batches.report);
    if (unsaved) throw new CheckpointError(`${unsaved.message}; the model is in ${exported}`);
    const { output } = config;
    const { loss, stopped } = run;
    return { output, model: exported, steps: trainer.steps, loss, evaluationBefore, evaluationAfter, stopped };
  } finally {
    await run.end();
  }
}

/** What a run writes into its directory that an input could be. */
const runEntries = ["model", "checkpoints", "tensorboard", "config.json", "run.json", "metrics.jsonl", "loss.csv"];

/** The paths that a config's data names; shares and generated data have none. */
function pathsOf(data: unknown): string[] {
  return [data ?? []].flat().flatMap((source) => {
    if (typeof source === "string") return [source];
    const path = (source as { path?: unknown }).path;
    return typeof path === "string" ? [path] : [];
  });
}

/** A finished or interrupted run is not started over by mistake. */
function checkRestart({ output, overwrite, checkpoint: { resume } }: Config): void {
  const done = readMetrics(output).steps.at(-1)?.step ?? 0;
  const saved = listCheckpoints(join(output, "checkpoints")).length;
  if (resume === false && !overwrite && (done > 0 || saved > 0))
    throw new ConfigError(
      `output (${JSON.stringify(output)}) has a run of ${done} steps; continue it with checkpoint.resume: true (--resume), ` +
        `choose another output, or start anew with overwrite: true (--overwrite)`,
    );
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

/** Says before the run if conversations teach an end of answers that nothing names, or none. */
async function remarkOnEnds(model: Model, { sources }: FoundSources): Promise<void> {
  for (const source of sources) {
    if ((await firstKind(source)) !== "conversation") continue;
    const { note } = stopsOf(model, await model.tokenizer());
    if (note !== undefined) remark(note);
    return;
  }
}

/** What the first sample of a source is; a bad one was told or left out before. */
async function firstKind(source: FoundSource): Promise<Sample["kind"] | undefined> {
  for await (const item of readItems(source, source.files)) if ("kind" in item) return item.kind;
  return undefined;
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
  console.log(`disk: ${describeDisk(diskOf(config, model, steps))}`);
}
