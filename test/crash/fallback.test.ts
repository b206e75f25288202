// A run that resumes beside damaged checkpoints: it falls back to the one before, says so, and ends exactly as if nothing
// had happened; when nothing is left whole, it ends with a named error and has overwritten nothing.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { cpSync, rmSync, truncateSync } from "node:fs";
import { basename, join } from "node:path";
import type { TrainConfig } from "../../src/run/config.ts";
import { Random } from "../../src/words/random.ts";
import { flipBit, interruptedRun, makeRecipe, namesIn, outcome, snapshot, trainToEnd } from "../support/crash.ts";
import { temporaryDirectory } from "../support/models.ts";

setDefaultTimeout(patiently(60_000)); // processes are slow to start on a busy machine; nothing should come near

const seed = 40;
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

const random = new Random(seed, 200);
const newest = "checkpoints/step-000006";
const damages: [string, (output: string) => void][] = [
  [
    "a bit of a moment",
    (output) => flipBit(join(output, newest, "layer-2.safetensors"), 400_000 + random.below(100_000), 3),
  ],
  [
    "a state file cut off",
    (output) => truncateSync(join(output, newest, "embedding.safetensors"), random.below(200_000)),
  ],
  ["the manifest cut off", (output) => truncateSync(join(output, newest, "manifest.json"), random.below(1000))],
  ["no manifest", (output) => rmSync(join(output, newest, "manifest.json"))],
];
let index = 0;
function copyOfRun(): TrainConfig {
  const output = join(directory.path, `resumed ${++index}`);
  cpSync(interrupted, output, { recursive: true });
  return { ...recipe, output };
}

test.each(damages)("%s: falls back, says so, and ends exactly", async (_, damage) => {
  const config = copyOfRun();
  config.checkpoint = { ...config.checkpoint, resume: index % 2 === 0 ? true : "auto" };
  damage(config.output);
  const { code, output, errors } = await trainToEnd(config);
  expect({ code, errors }).toEqual({ code: 0, errors: "" });
  expect(output).toMatch(/step-000006\/.*\ntrying the checkpoint before\nresumed after step 4\n/);
  const aside = join(config.output, "checkpoints.earlier");
  expect(output).toContain(`checkpoints past step 4 are of another course and were moved to ${aside}\n`);
  expect(namesIn(aside)).toEqual([basename(newest)]);
  rmSync(aside, { recursive: true });
  expect(outcome(config.output)).toEqual(undisturbed);
});

test.each(["auto", true] as const)(
  "all are damaged, resume %p: a named error, and nothing is overwritten",
  async (resume) => {
    const config = { ...copyOfRun(), checkpoint: { every: 2, resume } };
    for (const step of ["step-000006", "step-000004"])
      flipBit(join(config.output, "checkpoints", step, "layer-0.safetensors"), 5000 + random.below(1000), 0);
    const before = snapshot(config.output);
    const { code, errors } = await trainToEnd(config);
    expect(errors).toMatch(/step-000004\/layer-0\.safetensors: tensor layer 0\.hi is damaged \(checksum .*\)\n$/);
    expect(code).toBe(1);
    const leftovers = Object.keys(before).filter((file) => file.endsWith(".tmp"));
    for (const file of leftovers) delete before[file];
    expect(snapshot(config.output)).toEqual(before);
  },
);

test("a damaged checkpoint given by its path does not give way to another", async () => {
  const config = copyOfRun();
  config.checkpoint = { every: 2, resume: join(config.output, newest) };
  flipBit(join(config.output, newest, "head.safetensors"), 4500, 0);
  const before = snapshot(config.output);
  const { code, errors } = await trainToEnd(config);
  expect(errors).toContain("step-000006/head.safetensors: tensor head.");
  expect(code).toBe(1);
  expect(snapshot(config.output)).toEqual(before);
});
