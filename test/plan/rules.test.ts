// The rules of order (src/plan/check/rules.ts) on recorded plans: hundreds of random shapes and options, every combination of small
// ones, and the stories of ordering mistakes that were made once. A failure prints the case; `SLUICE_SEED` plays one again.

import { expect, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { join } from "node:path";
import { checkPlans } from "../../src/plan/check/check.ts";
import { partName, partOf } from "../../src/plan/check/contents.ts";
import type { Command } from "../../src/plan/plan.ts";
import { rulesTable } from "../../src/plan/check/rules.ts";
import { rehearse, rehearsedBatch, rehearsedMicroBatch, rehearsedSettings } from "../../src/predict/rehearsal.ts";
import { recordEvaluation, recordStep } from "../../src/step/step.ts";
import { describeCase, randomCase, recordAll, shapeOf, smallCases, type PlanCase } from "./cases.ts";

/** The first violations of a case, as text; empty when it keeps all rules. */
function violationsOf(chosen: PlanCase): string {
  const shape = shapeOf(chosen);
  const recorder = rehearse(shape);
  const steps = recordAll(chosen, recorder);
  const violations = checkPlans(steps, { shape, recorder });
  return violations
    .slice(0, 3)
    .map(({ rule, message }) => `rule ${rule}: ${message}`)
    .join("\n");
}

function expectClean(chosen: PlanCase): void {
  let found: string;
  try {
    found = violationsOf(chosen);
  } catch (error) {
    found = (error as Error).stack ?? String(error);
  }
  if (found !== "") throw new Error(`${describeCase(chosen)}\n${found}`);
}

const first = Number(process.env["SLUICE_SEED"] ?? 1);
const count = process.env["SLUICE_SEED"] === undefined ? 400 : 1;

test(
  `${count} random cases from seed ${first} keep all rules`,
  () => {
    for (let seed = first; seed < first + count; seed++) expectClean(randomCase(seed));
  },
  patiently(60_000),
);

test(
  "every combination of options keeps them for up to three layers",
  () => {
    let cases = 0;
    for (const chosen of smallCases()) {
      expectClean(chosen);
      cases++;
    }
    expect(cases).toBeGreaterThan(500);
  },
  patiently(120_000),
);

// ---- stories --------------------------------------------------------------------------------------------------------

const story: PlanCase = {
  ...randomCase(1),
  layers: 1,
  passes: 1,
  microBatches: 2,
  evaluations: 0,
  clips: false,
  residentBlocks: 0,
  keepBlocks: 0,
};
const random = (): number => 0.5;
const withTargets = (): ReturnType<typeof rehearsedMicroBatch> => rehearsedMicroBatch([16], 100, random, 1);
const withoutTargets = (): ReturnType<typeof rehearsedMicroBatch> => rehearsedMicroBatch([16], 100, random, 0);

test("the head's gradient starts anew although the step's first micro-batch has no target that counts", () => {
  const shape = shapeOf(story);
  const recorder = rehearse(shape);
  const record = (step: number) =>
    recordStep(recorder, rehearsedBatch([[withoutTargets(), withTargets()]]), rehearsedSettings(shape, step));
  expect(checkPlans([record(1), record(2)], { shape }).map(({ message }) => message)).toEqual([]);
});

test("a step in which no target counts is refused: it has no loss and no gradient", () => {
  const shape = shapeOf(story);
  const batch = rehearsedBatch([[withoutTargets()]]);
  expect(() => recordStep(rehearse(shape), batch, rehearsedSettings(shape, 1))).toThrow(
    "step 1 has no token whose target counts",
  );
});

test("all losses of an evaluation are there when it is measured, also when its last micro-batch has none", () => {
  const shape = shapeOf(story);
  const recorder = rehearse(shape);
  const record = () => recordEvaluation(recorder, 0, [withTargets(), withoutTargets()]);
  const unordered = checkPlans([record(), record(), record()], { shape }).filter(({ rule }) => rule === 1);
  expect(unordered.map(({ message }) => message)).toEqual([]);
});

// ---- the table ------------------------------------------------------------------------------------------------------

test("docs/design.md has the table of rules", async () => {
  const page = await Bun.file(join(import.meta.dir, "../../docs/design.md")).text();
  expect(page.replace(/ +/g, " ")).toContain(rulesTable());
});

test("a micro-batch is told from every other of its step, however many there are", () => {
  const label = (pass: number, microBatch: number) => ({ label: { pass, microBatch } }) as unknown as Command;
  const many = [label(0, 1000), label(1, 0), label(1, 1500), label(2, 500)];
  expect(new Set(many.map(partOf)).size).toBe(many.length);
  expect(many.map((command) => partName(partOf(command)))).toEqual([
    "pass 0 micro-batch 1000",
    "pass 1 micro-batch 0",
    "pass 1 micro-batch 1500",
    "pass 2 micro-batch 500",
  ]);
});
