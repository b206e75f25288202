// A disk that is full, and a file that may not grow: saving a checkpoint, writing the metrics and exporting end the run
// with exit code 1 and an error that names the path and what to do. The checkpoints before are whole, and with room again
// the run resumes from the newest, ends exactly, and leaves nothing half written.
//
// The limit of a file's size (`ulimit -f`) is there on every system, and reaches one kind of file at a time because a
// layer's state is larger than the export and that is larger than the metrics. A really full disk is a small tmpfs.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { cpSync, mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { listCheckpoints } from "../../src/keep/checkpoint.ts";
import type { TrainConfig } from "../../src/run/config.ts";
import { replaceDirectory } from "../../src/io/atomic.ts";
import {
  ended,
  filesIn,
  interruptedRun,
  lines,
  makeRecipe,
  outcome,
  snapshot,
  startTraining,
  trainToEnd,
  type Ended,
} from "../support/crash.ts";
import { temporaryDirectory } from "../support/models.ts";

setDefaultTimeout(patiently(60_000)); // processes are slow to start on a busy machine; nothing should come near

const directory = temporaryDirectory();
const recipe = makeRecipe(directory.path);
/** Has the checkpoints 4 and 6. */
const interrupted = join(directory.path, "interrupted");
let undisturbed: Record<string, unknown>;

beforeAll(async () => {
  expect(await trainToEnd(recipe)).toMatchObject({ code: 0, errors: "" });
  undisturbed = outcome(recipe.output);
  await interruptedRun(recipe, interrupted);
});
afterAll(() => directory[Symbol.dispose]());

function copyOf(run: string, name: string): TrainConfig {
  const output = join(directory.path, name);
  cpSync(run, output, { recursive: true });
  return { ...recipe, output };
}

/** What is in a run directory, beside config.json and run.json: those say which run was last, and how. */
function besideConfig(output: string): Record<string, string> {
  const { "config.json": _, "run.json": _1, ...files } = snapshot(output);
  return files;
}

function expectError({ code, signal, errors }: Ended, message: RegExp): void {
  expect(errors).toMatch(message);
  expect(errors.trim().split("\n")).toHaveLength(1); // one sentence and no stack
  expect({ code, signal }).toEqual({ code: 1, signal: null });
}

async function expectExactResume(config: TrainConfig): Promise<void> {
  expect(await trainToEnd(config)).toMatchObject({ code: 0, errors: "" });
  expect(outcome(config.output)).toEqual(undisturbed);
}

test("a state file of a checkpoint may not grow", async () => {
  const config = copyOf(interrupted, "checkpoint");
  const checkpoints = join(config.output, "checkpoints");
  const before = snapshot(checkpoints);
  const ended = await trainToEnd(config, { limit: 400 });
  expect(ended.output).toContain("resumed after step 6\n");
  expectError(
    ended,
    /^cannot save .*\/step-000008: step 8 save: fileWrite on disk failed: cannot write .*layer-0\.safetensors at byte 409600: File too large \(.*\); check the disk's free space, then resume: earlier checkpoints are untouched$/m,
  );
  expect(snapshot(checkpoints)).toEqual(before);
  await expectExactResume(config);
});

test("the metrics may not grow: the line that was cut off is dropped by the resumed run", async () => {
  const config = { ...copyOf(interrupted, "metrics"), checkpoint: { every: null, resume: true } };
  const metrics = join(config.output, "metrics.jsonl");
  const before = snapshot(join(config.output, "checkpoints"));
  // The resumed run first rewrites the lines up to step 6; then there is room for one or two more.
  const bytes = lines(metrics)
    .filter((line) => Number(/"step":(\d+)/.exec(line)![1]) <= 6)
    .join("\n").length;
  const limit = Math.ceil((bytes + 300) / 1024);
  expectError(
    await trainToEnd(config, { limit }),
    /\/metrics\.jsonl: the file would be larger than the system allows \(ulimit -f, or the file system's limit\)$/m,
  );
  expect(statSync(metrics).size).toBe(limit * 1024);
  expect(snapshot(join(config.output, "checkpoints"))).toEqual(before);
  await expectExactResume({ ...config, checkpoint: recipe.checkpoint! });
});

test("the metrics cannot even be rewritten: they stay as they were", async () => {
  const config = copyOf(interrupted, "metrics rewritten");
  const before = besideConfig(config.output);
  const limit = Math.ceil(statSync(join(config.output, "config.json")).size / 1024); // that is written before them
  expectError(await trainToEnd(config, { limit }), /\/metrics\.jsonl: the file would be larger/m);
  expect(besideConfig(config.output)).toEqual(before);
  await expectExactResume(config);
});

test("the export may not grow: the one before stays, and the next run makes it", async () => {
  const config = copyOf(recipe.output, "export");
  const before = besideConfig(config.output);
  expectError(
    await trainToEnd(config, { limit: 300 }),
    /^cannot export .*\/export\/model: step 0 save: fileWrite on disk failed: cannot write .*model\.safetensors at byte 307200: File too large \(.*\); check the disk's free space or choose another directory, then export again$/m,
  );
  expect(besideConfig(config.output)).toEqual(before);
  await expectExactResume(config);
});

test("a directory that cannot be replaced is put back", async () => {
  const final = join(directory.path, "final");
  mkdirSync(final);
  writeFileSync(join(final, "weights"), "old");
  await expect(replaceDirectory(join(directory.path, "never made"), final)).rejects.toThrow("never made: ");
  expect(filesIn(final)).toEqual(["weights"]);
});

/** A tmpfs of so many MiB at `path`, when this process may mount one; a reason otherwise. */
function mount(path: string, mebibytes: number): string | undefined {
  if (process.platform !== "linux") return "tmpfs is Linux's";
  mkdirSync(path, { recursive: true });
  const { success, stderr } = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", `size=${mebibytes}m`, "tmpfs", path]);
  return success ? undefined : stderr.toString().trim();
}

test("a disk that is too small is refused before step 1; one that others fill costs no checkpoint", async () => {
  const disk = join(directory.path, "disk");
  const config = { ...recipe, output: join(disk, "run") };
  const reason = mount(disk, 7); // a checkpoint has 2.5 MiB: three and the model do not fit
  if (reason !== undefined) return console.log(`skipped, no small file system can be mounted: ${reason}`);
  const resize = (mebibytes: number): void =>
    expect(Bun.spawnSync(["mount", "-o", `remount,size=${mebibytes}m`, disk]).success).toBe(true);
  try {
    expectError(
      await trainToEnd(config),
      /^the run needs 8\.0 MiB: 3 × 2\.5 MiB of checkpoints, .* of the exported model, and the disk of .*run has 7\.0 MiB free; free space, /m,
    );
    resize(9);
    const checkpoints = join(config.output, "checkpoints");
    const filler = join(disk, "filler");
    const filling = startTraining(config);
    while (!listCheckpoints(checkpoints).some((path) => basename(path) === "step-000004")) await Bun.sleep(1);
    writeFileSync(filler, new Uint8Array(2.5 * 2 ** 20));
    expectError(
      await ended(filling),
      /^cannot save after step \d+: a checkpoint takes 2\.5 MiB, and the disk of .* free; free space, .*; then resume: earlier checkpoints are untouched$|^cannot save .*: No space left on device/m,
    );
    expect(filesIn(checkpoints).every((file) => file.startsWith("step-"))).toBe(true);
    const [newest] = listCheckpoints(checkpoints);
    rmSync(filler);
    resize(32);
    const { output } = await trainToEnd(config);
    expect(output).toContain(`resumed after step ${Number(basename(newest!).slice(5))}\n`);
    expect(outcome(config.output)).toEqual(undisturbed);
  } finally {
    Bun.spawnSync(["umount", disk]);
  }
});

test("the last checkpoint does not fit: the model is exported all the same, and the exit code says so", async () => {
  const disk = join(directory.path, "last");
  const config = { ...recipe, output: join(disk, "run"), checkpoint: { every: null, resume: false } };
  const reason = mount(disk, 6);
  if (reason !== undefined) return console.log(`skipped, no small file system can be mounted: ${reason}`);
  try {
    const run = startTraining(config);
    while (lines(join(config.output, "metrics.jsonl")).length < 3) await Bun.sleep(1);
    writeFileSync(join(disk, "filler"), new Uint8Array(4.2 * 2 ** 20));
    const { code, errors } = await ended(run);
    expect(code).toBe(1);
    expect(errors).toMatch(/^cannot save after step 16: .*; the model is in .*run\/model\n$/);
    const [exported, expected] = [outcome(config.output), undisturbed] as Record<string, unknown>[];
    expect(exported!["model/model.safetensors"]).toEqual(expected!["model/model.safetensors"]);
  } finally {
    Bun.spawnSync(["umount", disk]);
  }
});
