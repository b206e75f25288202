// A run's checkpoint as a Hugging Face directory, without the run: for the model of last Tuesday, or of a run that was
// interrupted. The weights are exact; what the optimizer kept stays where it is.

import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { listCheckpoints, readManifest, restoreWeights } from "./checkpoint.ts";
import { CheckpointError } from "../words/errors.ts";
import { exportModel, type ExportOptions } from "./export.ts";
import { resolveModel } from "../models/hub.ts";
import { load, type Model } from "../engine/model.ts";
import type { Trainer } from "../engine/trainer.ts";

/** How `exportCheckpoint` writes, and where it finds config and tokenizer. */
export interface ExportCheckpointOptions extends ExportOptions {
  /** Where the run's model is now, when that is not where its config says. */
  model?: string;
}

/** The checkpoint that `path` means: itself, or the newest of a run directory. */
export function checkpointAt(path: string): string {
  if (existsSync(join(path, "manifest.json"))) return path;
  const [newest] = listCheckpoints(join(path, "checkpoints"));
  if (newest !== undefined) return newest;
  throw new CheckpointError(`${path}: is neither a checkpoint nor a run directory with one`);
}

/** Paths of checkpoints that are weights alone, newest first. */
export function listWeights(directory: string): string[] {
  if (!existsSync(directory)) return [];
  const names = readdirSync(directory).filter((name) => /^weights-\d{6,}$/.test(name));
  return names.sort((a, b) => Number(b.slice(8)) - Number(a.slice(8))).map((name) => join(directory, name));
}

/** A checkpoint of weights alone (`checkpoint.state: false`), as a Hugging Face directory `weights-N`; the newest `keep` stay. */
export async function saveWeights(
  trainer: Trainer,
  directory: string,
  { keep, ...options }: ExportOptions & { keep: number },
): Promise<string> {
  await trainer.drain();
  const path = join(directory, `weights-${String(trainer.steps).padStart(6, "0")}`);
  await exportModel(trainer.model, path, options);
  for (const old of listWeights(directory).slice(keep)) rmSync(old, { recursive: true, force: true });
  return path;
}

/** Writes the checkpoint's model into `directory`, replacing it; returns the step it is of and what it was written in. */
export async function exportCheckpoint(
  path: string,
  directory: string,
  options: ExportCheckpointOptions = {},
): Promise<{ step: number; dtype: Model["exportDtype"] }> {
  const checkpoint = checkpointAt(path);
  const { config } = readManifest(checkpoint) as { config: { model?: unknown } | undefined };
  const source = options.model ?? config?.model;
  if (typeof source !== "string")
    throw new CheckpointError(
      `${checkpoint}: does not say of which model it is; name its directory or hub id (--model)`,
    );
  // A checkpoint has no config and no tokenizer: they come from the directory that the run began with.
  using model = await load(await resolveModel(source));
  const { step } = await restoreWeights(model, checkpoint);
  const { dtype = model.exportDtype } = options;
  await exportModel(model, directory, { ...options, dtype });
  return { step, dtype };
}
