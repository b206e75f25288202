// A wall clock that is set back under a run: times and rates come from the steady clock, so nothing becomes negative, the
// metrics keep their order, and what depends on the order of file names keeps it.

import { afterEach, expect, setSystemTime, spyOn, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { train } from "../../src/run/train.ts";
import { readRun } from "../../src/keep/run-folder.ts";
import { smallRun } from "../support/small-run.ts";

afterEach(() => void setSystemTime());

test(
  "set back by a day at each step, and again before the run is resumed",
  async () => {
    using run = smallRun();
    const config = { ...run.config, tensorboard: true, checkpoint: { every: 2, resume: "auto" as const } };
    let day = Date.UTC(2026, 5, 30);
    const back = () => void setSystemTime(new Date((day -= 86_400_000)));
    back();
    const written = spyOn(process.stdout, "write");
    const line = /left (\S+)/;
    await train(config, { onStep: back });
    const left = written.mock.calls.map(([text]) => line.exec(String(text))?.[1]).filter((text) => text !== undefined);
    expect(left.join(" ")).not.toMatch(/-|unknown/);
    back();
    await train({ ...config, steps: 9 }, { onStep: back });

    const { steps, facts } = readRun(run.config.output);
    expect(steps.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    for (const { seconds, tokensPerSecond, busiestShare } of steps) {
      expect(seconds).toBeGreaterThan(0);
      expect(seconds).toBeLessThan(60);
      expect(tokensPerSecond).toBeGreaterThan(0);
      expect(busiestShare).toBeWithin(0, 1.0001);
    }
    expect(facts!.seconds).toBeWithin(0, 60);
    // The resumed part's file is the later one by name, which is the order in which TensorBoard reads them.
    const names = readdirSync(join(run.config.output, "tensorboard")).sort();
    expect(names).toHaveLength(2);
    expect(names.map((name) => Number(name.split(".")[3]))).toEqual([
      Date.UTC(2026, 5, 29) / 1000,
      Date.UTC(2026, 5, 29) / 1000 + 1,
    ]);
    written.mockRestore();
  },
  patiently(60_000),
);
