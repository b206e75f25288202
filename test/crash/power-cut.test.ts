// A power cut: what was not flushed to the disk is gone. The run directory lies on a file system in a file; the file is copied
// at the moment of the cut, and the copy mounted: exactly what a disk would have had. Needs root and loop devices.

import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { temporaryDirectory } from "../support/models.ts";
import { patiently } from "../support/time.ts";
import { killWhen, lines, makeRecipe, namesIn, outcome, startTraining, trainToEnd } from "../support/crash.ts";

setDefaultTimeout(patiently(90_000));
const scope = new DisposableStack();
afterAll(() => scope.dispose());
const directory = scope.use(temporaryDirectory()).path;

const sh = (...words: string[]): { ok: boolean; said: string } => {
  const { success, stderr } = Bun.spawnSync(words, { stdout: "ignore", stderr: "pipe" });
  return { ok: success, said: stderr.toString().trim() };
};

/** A file system that writes to its disk only when it is told to, for ten minutes. */
function mounted(image: string, at: string): { ok: boolean; said: string } {
  mkdirSync(at, { recursive: true });
  const made = sh("mount", "-o", "loop,data=writeback,commit=600,nobarrier", image, at);
  if (made.ok) scope.defer(() => sh("umount", "-l", at));
  return made;
}

const image = join(directory, "disk");
const disk = join(directory, "mounted");
const reason = (() => {
  if (process.getuid?.() !== 0) return "needs root";
  const steps = [
    ["truncate", "-s", "64M", image],
    ["mkfs.ext4", "-q", "-F", image],
  ];
  for (const words of steps) if (!sh(...words).ok) return `${words[0]} does not work here`;
  const { ok, said } = mounted(image, disk);
  return ok ? undefined : `mount: ${said}`;
})();
if (reason !== undefined) console.log(`power cut: skipped, ${reason}`);

test.skipIf(reason !== undefined)("metrics are on the disk when the checkpoint that stands for them is", async () => {
  const recipe = makeRecipe(directory);
  expect(await trainToEnd(recipe)).toMatchObject({ code: 0, errors: "" });
  const output = join(disk, "run");
  const cut = join(directory, "after the cut");
  const { signal } = await killWhen(
    startTraining({ ...recipe, output }, { configAt: join(directory, "cut.json") }),
    () => {
      if (!namesIn(join(output, "checkpoints")).includes("step-000006")) return false;
      copyFileSync(image, cut); // what the disk has at this moment
      return true;
    },
  );
  expect(signal).toBe("SIGKILL");

  const found = join(directory, "found");
  expect(mounted(cut, found)).toMatchObject({ ok: true });
  const [checkpoint] = namesIn(join(found, "run/checkpoints"))
    .filter((name) => /^step-\d+$/.test(name))
    .sort()
    .reverse();
  const step = Number(checkpoint!.slice(5));
  expect(step).toBeGreaterThanOrEqual(4);
  const kept = lines(join(found, "run/metrics.jsonl")).filter((line) => line.includes('"kind":"step"'));
  expect(kept.length).toBeGreaterThanOrEqual(step);
  const resumed = await trainToEnd({ ...recipe, output: join(found, "run") });
  expect(resumed).toMatchObject({ code: 0, errors: "" });
  expect(resumed.output).not.toContain("lacks");
  const [again, once] = [outcome(join(found, "run")), outcome(recipe.output)];
  for (const name of ["model/model.safetensors", "loss.csv", "metrics.jsonl"]) expect(again[name]).toEqual(once[name]);
});
