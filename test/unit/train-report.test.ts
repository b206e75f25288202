// What a real run leaves for people to look at: a few steps of the quick start's model.
import { expect, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { readRun } from "../../src/keep/run-folder.ts";
import { temporaryDirectory } from "../support/models.ts";
import { pageData, tinyRecipe, trainApart } from "../support/runs.ts";

test(
  "train writes run.json, report.html and loss.svg",
  async () => {
    using directory = temporaryDirectory();
    const output = join(directory.path, "run");
    const run = trainApart({ ...(await tinyRecipe(directory.path)), output, steps: 3 });
    expect(await run.stdout.text()).toContain("step 3/3");
    expect(await run.exited).toBe(0);
    const { facts, steps, evaluations } = readRun(output);
    expect(facts!.steps).toBe(3);
    expect(facts!.seconds).toBeGreaterThan(0);
    expect(facts!.model).toEqual({ type: "qwen3", parameters: expect.any(Number), weightBytes: expect.any(Number) });
    expect(facts!.data.samples).toBe(16);
    expect(facts!.environment["Bun"]).toBe(Bun.version);
    // The memory that steps report is the memory of the bill.
    const billed = (...tiers: string[]) =>
      facts!.bill.reduce((sum, line) => sum + (tiers.includes(line.tier) ? line.bytes : 0), 0);
    expect(steps[2]!.deviceBytes).toBe(billed("device"));
    expect(steps[2]!.hostBytes).toBe(billed("pinned", "host"));
    expect(steps[2]!.residentBytes).toBeGreaterThan(steps[2]!.hostBytes);
    expect(evaluations.map(({ step }) => step)).toEqual([0, 3]);
    const page = readFileSync(join(output, "report.html"), "utf8");
    expect(pageData(page).table["loss"]).toEqual([null, ...steps.map(({ loss }) => loss)]);
    expect(existsSync(join(output, "loss.svg"))).toBe(true);
  },
  patiently(30_000),
);
