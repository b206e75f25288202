// Which checkpoints stay. Deciding is pure and checked over random lists; over random histories the directory always holds
// the newest ones of the course that the run is on, and a run that leaves that course (starts over, or goes on from an
// older checkpoint) takes nothing of it for its own.

import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { checkpointsToDelete, listCheckpoints, pruneCheckpoints, setAside } from "../../src/keep/checkpoint.ts";
import { Random } from "../../src/words/random.ts";
import { lines, makeRecipe, namesIn, outcome, trainToEnd } from "../support/crash.ts";
import { temporaryDirectory } from "../support/models.ts";

setDefaultTimeout(patiently(60_000)); // processes are slow to start on a busy machine; nothing should come near

const seed = 50;
let directory: ReturnType<typeof temporaryDirectory>;
beforeEach(() => (directory = temporaryDirectory()));
afterEach(() => directory[Symbol.dispose]());

const nameOf = (step: number): string => `step-${String(step).padStart(6, "0")}`;
const stepOf = (path: string): number => Number(basename(path).slice(5));
const descending = (steps: Iterable<number>): number[] => [...steps].sort((a, b) => b - a);

/** Steps on both sides of a million, where names get longer. */
const randomSteps = (random: Random): Set<number> =>
  new Set(Array.from({ length: random.below(12) }, () => 1 + random.below(random.below(2) === 0 ? 40 : 2_000_000)));

test(`the newest stay, whatever their order, and deleting is done once (seed ${seed})`, () => {
  for (let count = 0; count < 500; count++) {
    const random = new Random(seed, count);
    const steps = randomSteps(random);
    const keep = 1 + random.below(5);
    const paths = random.shuffle([...steps].map((step) => join("runs/one/checkpoints", nameOf(step))));
    const given = [...paths];
    const deleted = checkpointsToDelete(paths, keep);
    expect(paths).toEqual(given);
    const kept = paths.filter((path) => !deleted.includes(path));
    expect(descending(kept.map(stepOf))).toEqual(descending(steps).slice(0, keep));
    expect(descending(deleted.map(stepOf))).toEqual(descending(steps).slice(keep));
    expect(checkpointsToDelete(kept, keep)).toEqual([]);
  }
});

test(`a directory is listed newest first, other names are nobody's checkpoints (seed ${seed})`, () => {
  const others = ["step-12", "step-000001.bak", ".step-000009.123.1.tmp", "last", "step-00000a", "notes.txt"];
  for (const name of others) mkdirSync(join(directory.path, name));
  for (let count = 0; count < 20; count++) {
    const within = join(directory.path, `list ${count}`);
    const steps = randomSteps(new Random(seed, 1000 + count));
    for (const name of [...others, ...[...steps].map(nameOf)]) mkdirSync(join(within, name), { recursive: true });
    expect(listCheckpoints(within)).toEqual(descending(steps).map((step) => join(within, nameOf(step))));
  }
  expect(listCheckpoints(join(directory.path, "nowhere"))).toEqual([]);
  writeFileSync(join(directory.path, "file"), "");
  expect(() => listCheckpoints(join(directory.path, "file"))).toThrow(
    `${join(directory.path, "file")}: cannot be read, part of its path is a file and not a directory`,
  );
});

test(`over random histories the newest of the run's own course are there (seed ${seed})`, () => {
  for (let count = 0; count < 20; count++) {
    const random = new Random(seed, 2000 + count);
    const checkpoints = join(directory.path, `history ${count}`, "checkpoints");
    mkdirSync(checkpoints, { recursive: true });
    let course: number[] = []; // descending
    for (let runs = 0; runs < 4; runs++) {
      const keep = 1 + random.below(3);
      // Start over, or go on from any checkpoint that is there.
      const from = random.below(3) === 0 ? 0 : (course[random.below(course.length)] ?? 0);
      const left = course.filter((step) => step > from);
      const aside = setAside(checkpoints, from);
      expect(aside === undefined).toBe(left.length === 0);
      expect(aside ?? `${checkpoints}.earlier`).toMatch(/checkpoints\.earlier(-\d+)?$/);
      if (aside) expect(descending(readdirSync(aside).map(stepOf))).toEqual(left);
      course = course.filter((step) => step <= from);
      let step = from;
      for (let saves = random.below(5); saves > 0; saves--) {
        step += 1 + random.below(3);
        mkdirSync(join(checkpoints, `.${nameOf(step)}.4242.1.tmp`)); // somebody was killed while writing
        mkdirSync(join(checkpoints, nameOf(step)));
        pruneCheckpoints(checkpoints, keep);
        course = [step, ...course].slice(0, keep);
        expect(descending(readdirSync(checkpoints).map(stepOf))).toEqual(course);
      }
    }
  }
});

test("a run is not started over by mistake; with overwrite its files make room", async () => {
  const recipe = { ...makeRecipe(directory.path), steps: 6 };
  const again = { ...recipe, steps: 3, checkpoint: { every: 2, resume: false } };
  expect(await trainToEnd(recipe)).toMatchObject({ code: 0, errors: "" });
  const before = outcome(recipe.output);
  expect(await trainToEnd(again)).toMatchObject({
    code: 1,
    errors:
      `output ("${recipe.output}") has a run of 6 steps; continue it with checkpoint.resume: true (--resume), ` +
      "choose another output, or start anew with overwrite: true (--overwrite)\n",
  });
  expect(outcome(recipe.output)).toEqual(before);
  expect(await trainToEnd({ ...again, overwrite: true })).toMatchObject({ code: 0, errors: "" });
  expect(namesIn(join(recipe.output, "checkpoints")).sort()).toEqual(["step-000002", "step-000003"]);
  expect(lines(join(recipe.output, "loss.csv"))).toHaveLength(1 + 3);
});

test("what is set aside twice stays twice", () => {
  const checkpoints = join(directory.path, "twice", "checkpoints");
  for (const expected of [".earlier", ".earlier-2", ".earlier-3"]) {
    mkdirSync(join(checkpoints, "step-000004"), { recursive: true });
    expect(setAside(checkpoints, 0)).toBe(`${checkpoints}${expected}`);
  }
});

test("a run that goes on from an older checkpoint, given by its path, ends exactly", async () => {
  const recipe = { ...makeRecipe(directory.path), steps: 6 };
  expect(await trainToEnd(recipe)).toMatchObject({ code: 0, errors: "" });
  const once = outcome(recipe.output);
  const resume = join(recipe.output, "checkpoints/step-000004");
  expect(await trainToEnd({ ...recipe, checkpoint: { every: 2, resume } })).toMatchObject({ code: 0, errors: "" });
  const { "checkpoints.earlier/step-000006/manifest.json": aside, ...twice } = outcome(recipe.output);
  expect(aside).toEqual(once["checkpoints/step-000006/manifest.json"]);
  for (const file of Object.keys(twice)) if (file.startsWith("checkpoints.earlier/")) delete twice[file];
  expect(twice).toEqual(once);
});
