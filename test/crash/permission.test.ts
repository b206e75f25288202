// Permission that is lost under a run: the run ends with one sentence that names the path, what was saved stays, and with
// the permission back it resumes exactly. Root may do everything everywhere, so as root the run is given to a user without
// rights (setpriv); where neither is possible, a small file system is made read-only; where that is not possible either, the
// tests are skipped and say why.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { chmodSync, cpSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import type { TrainConfig } from "../../src/run/config.ts";
import {
  ended,
  interruptedRun,
  makeRecipe,
  outcome,
  root,
  snapshot,
  startTraining,
  trainToEnd,
  type Ended,
} from "../support/crash.ts";
import { temporaryDirectory } from "../support/models.ts";

setDefaultTimeout(patiently(60_000)); // processes are slow to start on a busy machine; nothing should come near

const directory = temporaryDirectory();
const recipe = makeRecipe(directory.path);
const interrupted = join(directory.path, "interrupted");
let undisturbed: Record<string, unknown>;
beforeAll(async () => {
  expect(await trainToEnd(recipe)).toMatchObject({ code: 0, errors: "" });
  undisturbed = outcome(recipe.output);
  await interruptedRun(recipe, interrupted);
});
afterAll(() => directory[Symbol.dispose]());

const isRoot = process.getuid?.() === 0;
const nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
/** Why permissions cannot be taken away here. */
const reason = ((): string | undefined => {
  if (!isRoot) return process.platform === "win32" ? "Windows has other permissions" : undefined;
  if (Bun.which("setpriv") === null)
    return "root may write everywhere, and there is no setpriv to become somebody else";
  const bun = Bun.spawnSync([
    ...nobody,
    process.execPath,
    "-e",
    `await import(${JSON.stringify(join(root, "src/index.ts"))})`,
  ]);
  return bun.success ? undefined : `root may write everywhere, and nobody may not read ${root}`;
})();
if (reason !== undefined) console.log(`skipped: permission lost (${reason})`);

/** As a user to whom permissions apply. */
async function trainAsUser(config: TrainConfig): Promise<Ended> {
  if (!isRoot) return trainToEnd(config);
  const path = `${config.output}.json`;
  await Bun.write(path, JSON.stringify(config));
  const words = [...nobody, process.execPath, join(root, "src/cli.ts"), "train", "--config", path];
  const env = { ...process.env, HOME: `${config.output}.home` };
  return ended(Bun.spawn(words, { cwd: root, env, stdin: "ignore", stdout: "pipe", stderr: "pipe" }));
}

/** A copy of the interrupted run that belongs to that user. */
function copyOf(name: string): TrainConfig {
  const output = join(directory.path, name);
  cpSync(interrupted, output, { recursive: true });
  chmodSync(directory.path, 0o755);
  if (isRoot) Bun.spawnSync(["chown", "-R", "65534:65534", output]);
  return { ...recipe, output };
}

async function expectOneSentence(config: TrainConfig, message: RegExp): Promise<void> {
  const { code, errors } = await trainAsUser(config);
  expect(errors).toMatch(message);
  expect({ code, lines: errors.trim().split("\n").length }).toEqual({ code: 1, lines: 1 });
}

test.skipIf(reason !== undefined)("to write checkpoints: earlier ones are untouched, and the run resumes", async () => {
  const config = copyOf("checkpoints");
  const checkpoints = join(config.output, "checkpoints");
  const before = snapshot(checkpoints);
  chmodSync(checkpoints, 0o555);
  await expectOneSentence(
    config,
    /^\S+\/checkpoints\/step-000008: no permission to write it; check its owner and mode$/m,
  );
  expect(snapshot(checkpoints)).toEqual(before);
  chmodSync(checkpoints, 0o755);
  expect(await trainAsUser(config)).toMatchObject({ code: 0, errors: "" });
  expect(outcome(config.output)).toEqual(undisturbed);
});

test.skipIf(reason !== undefined)("to write in the run directory, and to read the data or the model", async () => {
  const config = copyOf("directory");
  const before = snapshot(config.output);
  chmodSync(config.output, 0o555);
  await expectOneSentence(config, /^\S+\/directory\/run\.lock: no permission to write it; check its owner and mode$/m);
  expect(snapshot(config.output)).toEqual(before);
  chmodSync(config.output, 0o755);

  const data = join(directory.path, "secret.jsonl");
  cpSync(recipe.data as string, data);
  chmodSync(data, 0);
  await expectOneSentence(
    { ...config, data },
    /^\S+\/secret\.jsonl: no permission to read it; check its owner and mode$/m,
  );
  const model = join(directory.path, "secret");
  cpSync(recipe.model, model, { recursive: true });
  chmodSync(join(model, "tokenizer.json"), 0);
  await expectOneSentence(
    { ...config, model },
    /tokenizer\.json: no permission to read it; check its owner and mode$/m,
  );
  expect(snapshot(config.output)).toEqual(before);
});

test("a file system that has become read-only when the run is resumed", async () => {
  const disk = join(directory.path, "disk");
  mkdirSync(disk);
  const mount = (...options: string[]) => Bun.spawnSync(["mount", "-t", "tmpfs", "-o", ...options]);
  const { success, stderr } = mount("size=64m", "tmpfs", disk);
  if (!success) return console.log(`skipped, no file system can be mounted: ${stderr.toString().trim()}`);
  try {
    const config = { ...recipe, output: join(disk, "run") };
    cpSync(interrupted, config.output, { recursive: true });
    const before = snapshot(join(config.output, "checkpoints"));
    expect(Bun.spawnSync(["mount", "-o", "remount,ro", disk]).success).toBe(true);
    const run = startTraining(config, { configAt: join(directory.path, "disk.json") });
    const { code, errors } = await ended(run);
    expect(errors).toMatch(/^\S+\/run: is on a read-only file system; choose another directory$/m);
    expect({ code, lines: errors.trim().split("\n").length }).toEqual({ code: 1, lines: 1 });
    expect(snapshot(join(config.output, "checkpoints"))).toEqual(before);
    expect(Bun.spawnSync(["mount", "-o", "remount,rw", disk]).success).toBe(true);
    expect(await trainToEnd(config)).toMatchObject({ code: 0, errors: "" });
    expect(outcome(config.output)).toEqual(undisturbed);
  } finally {
    Bun.spawnSync(["umount", disk]);
  }
});
