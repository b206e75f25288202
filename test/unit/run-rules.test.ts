// A run and what is the user's: which outputs it takes, what it says of settings that changed, of a model that died, of a disk
// that is too small, and that a checkpoint's lines are there.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { bitDifferences, configDifferences } from "../../src/run/differences.ts";
import { describeDisk, diskNeed } from "../../src/run/disk.ts";
import { explainStepError, Health } from "../../src/run/health.ts";
import { train } from "../../src/run/train.ts";
import { StepError } from "../../src/words/errors.ts";
import { fixtures } from "../support/models.ts";
import { smallRun } from "../support/small-run.ts";

setDefaultTimeout(patiently(60_000));

describe("output", () => {
  test("takes new and empty directories and its own runs, nothing that holds other files", async () => {
    using run = smallRun();
    const output = join(run.path, "mine");
    mkdirSync(output);
    writeFileSync(join(output, "thesis.txt"), "years");
    await expect(train({ ...run.config, output, steps: 1 })).rejects.toThrow(
      `output ("${output}") holds what Sluice has not written (thesis.txt); choose a new or empty directory, or say --overwrite`,
    );
    expect(readdirSync(output)).toEqual(["thesis.txt"]);
    await train({ ...run.config, output, steps: 1, overwrite: true });
    expect(readFileSync(join(output, "thesis.txt"), "utf8")).toBe("years");
    expect(existsSync(join(output, "model/config.json"))).toBe(true);
  });
  test("is never the model, inside it, or around what it would write over", async () => {
    using run = smallRun();
    const model = join(run.path, "project/model");
    cpSync(join(fixtures, "qwen3-tiny"), model, { recursive: true });
    const before = readFileSync(join(model, "config.json"), "utf8");
    for (const [output, message] of [
      [model, "which is read"],
      [join(model, "run"), "is inside"],
      [join(run.path, "project"), "would be written over"],
    ] as const)
      await expect(train({ ...run.config, model, output, steps: 1, overwrite: true })).rejects.toThrow(message);
    expect(readFileSync(join(model, "config.json"), "utf8")).toBe(before);
  });
});

describe("a run that is continued", () => {
  test("says what is set otherwise, and when nothing is left to do", async () => {
    using run = smallRun();
    await train({ ...run.config, steps: 2, batchSize: 2 });
    const again = { ...run.config, steps: 4, optimizer: { learningRate: 1e-3 }, checkpoint: { resume: true } };
    await train(again);
    expect(run.printed()).toContain(
      "settings that differ from the checkpoint's, and hold from here on: optimizer.learningRate 0.00002 → 0.001, steps 2 → 4",
    );
    await train(again);
    expect(run.printed()).toContain("nothing is left to train: 4 of 4 steps are done; raise steps or epochs");
  });
  test("says which lines a power cut took", async () => {
    using run = smallRun();
    await train({ ...run.config, steps: 4 });
    writeFileSync(join(run.config.output, "metrics.jsonl"), "");
    await train({ ...run.config, steps: 5, checkpoint: { resume: true } });
    expect(run.printed()).toContain("metrics.jsonl lacks 4 of the 4 steps before");
  });
  test("is told what changes its bits", () => {
    const now = { device: "cuda", dtype: "bfloat16", logitsChunk: 1024, tokensMax: 4096 };
    expect(bitDifferences({ ...now }, now)).toBeUndefined();
    expect(bitDifferences({ ...now, logitsChunk: 2048 }, now)).toBe(
      "rows of logits at once (they follow from deviceMemory and what the GPU has free) 2048 → 1024",
    );
    expect(configDifferences({ steps: 1, window: { slots: 2 } }, { steps: 1, window: { slots: 3 } })).toEqual([]);
    expect(configDifferences({ data: "a" }, { data: "a", seed: 2 })).toEqual(["seed not set → 2"]);
  });
});

describe("checkpoints on wish", () => {
  test("never, and weights alone", async () => {
    using run = smallRun();
    await train({ ...run.config, steps: 2, checkpoint: { every: "never" } });
    expect(existsSync(join(run.config.output, "checkpoints"))).toBe(false);
    const output = join(run.path, "weights");
    await train({ ...run.config, output, steps: 3, checkpoint: { every: 1, keep: 1, state: false } });
    expect(readdirSync(join(output, "checkpoints"))).toEqual(["weights-000003"]);
    expect(existsSync(join(output, "checkpoints/weights-000003/model.safetensors"))).toBe(true);
    await expect(train({ ...run.config, output, steps: 4, checkpoint: { resume: true } })).rejects.toThrow(
      "has no checkpoint to resume from, only weights (checkpoint.state: false)",
    );
  });
  test("what they take of the disk", () => {
    const sizes = { format: "fp32", exportBytes: 2, steps: 1000 } as const;
    const need = diskNeed(1e9, { every: 100, keep: 2, state: true }, sizes);
    expect(need).toEqual({ checkpoint: 12e9, checkpoints: 3, model: 2e9, total: 38e9 });
    expect(describeDisk(need)).toBe("35.4 GiB: 3 × 11.2 GiB of checkpoints, 1.9 GiB of the exported model");
    expect(diskNeed(1e9, { every: null, keep: 2, state: true }, sizes).checkpoints).toBe(1);
    expect(diskNeed(1e9, { every: "never", keep: 2, state: true }, sizes).total).toBe(2e9);
    expect(diskNeed(1e9, { every: 100, keep: 2, state: false }, sizes).checkpoint).toBe(2e9);
  });
});

describe("health", () => {
  const step = (number: number, loss: number, gradNorm: number) => ({
    step: number,
    loss,
    gradNorm,
    learningRate: 1e6,
  });
  test("a model without a gradient ends the run, one that has learned everything does not", () => {
    const dying = new Health();
    dying.check(step(1, 6, 2), () => undefined);
    for (let at = 2; at < 11; at++) dying.check(step(at, 5.66, 0), () => undefined);
    const asked: number[] = [];
    const good = (before: number) => (asked.push(before), "run/checkpoints/step-000001");
    expect(() => dying.check(step(11, 5.66, 0), good)).toThrow(
      "the model has stopped learning: since step 2 its gradient is zero and the loss stays at 5.6600 at step 11, at a learning rate of 1000000: " +
        "it is probably too high; lower optimizer.learningRate, or lengthen schedule.warmup; the model is not exported; " +
        "the last checkpoint before is run/checkpoints/step-000001",
    );
    expect(asked).toEqual([2]);
    const done = new Health();
    for (let at = 1; at < 50; at++) done.check(step(at, at === 1 ? 6 : 0, at === 1 ? 2 : 0), () => undefined);
  });
  test("NaN is said in the user's words", () => {
    const engine = new StepError("step 7 loss head micro-batch 0: lossSum on host failed: the loss is -nan at token 0");
    const told = explainStepError(
      engine,
      () => 0.5,
      () => undefined,
    ) as Error;
    expect(told.message).toStartWith(
      "the loss became NaN at step 7, at a learning rate of 0.5: it is probably too high",
    );
    expect(told.cause).toBe(engine);
    const other = new StepError("step 7 something else");
    expect(
      explainStepError(
        other,
        () => 1,
        () => undefined,
      ),
    ).toBe(other);
  });
  test("a learning rate that kills the model is not exported as success", async () => {
    using run = smallRun();
    const killing = { ...run.config, steps: 40, optimizer: { learningRate: 1e6 } };
    await expect(train(killing)).rejects.toThrow(/learning rate|stopped learning/);
    expect(existsSync(join(run.config.output, "model"))).toBe(false);
  });
});
