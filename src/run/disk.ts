// What a run takes of its output's disk: checkpoints, one of them being written, and the exported model. Said before step 1,
// looked at again before each save, so that a night does not end at its last step.

import { existsSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import type { Config } from "./config.ts";
import { stateBytes, type StateFormat } from "../state/format.ts";
import { CheckpointError } from "../words/errors.ts";
import { formatBytes } from "../words/format.ts";

/** Bytes on the disk of a run's output. */
export interface DiskNeed {
  /** One checkpoint. */
  checkpoint: number;
  /** The most there are at once, with the one that is being written. */
  checkpoints: number;
  model: number;
  total: number;
}

/** A checkpoint has the whole training state, or weights alone in the export's number format. */
export function diskNeed(
  parameters: number,
  { every, keep, state }: { every: number | "never" | null; keep: number; state: boolean },
  { format, exportBytes, steps }: { format: StateFormat; exportBytes: number; steps: number | undefined },
): DiskNeed {
  const checkpoint = parameters * (state ? stateBytes(format) : exportBytes);
  const ever = every === "never" ? 0 : every === null ? 1 : Math.ceil((steps ?? Infinity) / every);
  const checkpoints = Math.min(keep + 1, ever);
  const model = parameters * exportBytes;
  return { checkpoint, checkpoints, model, total: checkpoints * checkpoint + model };
}

/** Of a run. */
export function diskOf(
  config: Pick<Config, "checkpoint" | "optimizer" | "export">,
  { parameters, exportDtype }: { parameters: number; exportDtype: "bfloat16" | "float32" },
  steps: number | undefined,
): DiskNeed {
  const exportBytes = (config.export.dtype ?? exportDtype) === "float32" ? 4 : 2;
  return diskNeed(parameters, config.checkpoint, { format: config.optimizer.state, exportBytes, steps });
}

/** "1.2 GiB: 3 checkpoints of 300 MiB and the model's 200 MiB". */
export function describeDisk({ checkpoint, checkpoints, model, total }: DiskNeed): string {
  const kept = checkpoints === 0 ? "no checkpoint" : `${checkpoints} × ${formatBytes(checkpoint)} of checkpoints`;
  return `${formatBytes(total)}: ${kept}, ${formatBytes(model)} of the exported model`;
}

/** Bytes that the file system of a path has for us; undefined where it does not say. */
export async function freeBytes(path: string): Promise<number | undefined> {
  let there = resolve(path);
  while (!existsSync(there) && dirname(there) !== there) there = dirname(there);
  const found = await statfs(there).catch(() => undefined);
  return found && found.bavail * found.bsize;
}

/** A CheckpointError when `needed` more bytes do not fit beside what is in `output`; `what` begins the sentence, `then` ends it. */
export async function checkDisk(output: string, needed: number, what: string, then = ""): Promise<void> {
  const free = await freeBytes(output);
  if (free === undefined || needed <= free) return;
  throw new CheckpointError(
    `${what}, and the disk of ${output} has ${formatBytes(free)} free; free space, choose another output, or take fewer ` +
      `checkpoints (checkpoint.keep), smaller ones (checkpoint.state: false, weights alone) or none (checkpoint.every: "never")${then}`,
  );
}
