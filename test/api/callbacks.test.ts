// Callbacks of `train`: what they are told, how "stop" and an exception end a run, and that the config stays without them.

import { expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { CallbackError, ConfigError, train, type Callbacks, type TrainConfig } from "../../src/index.ts";
import { smallRun } from "../support/small-run.ts";

setDefaultTimeout(patiently(30_000)); // whole runs and processes, on a machine that may be busy

test("each step, evaluation and checkpoint is told once and in order, and awaited", async () => {
  using run = smallRun();
  const told: string[] = [];
  const callbacks = {
    async onStep({ step, loss }) {
      await Bun.sleep(1);
      expect(loss).toBeGreaterThan(0);
      told.push(`step ${step}`);
    },
    onEvaluate: ({ step }) => void told.push(`evaluation ${step}`),
    onCheckpoint({ step, path }) {
      expect(existsSync(join(path, "manifest.json"))).toBe(true);
      told.push(`checkpoint ${step}`);
    },
  } satisfies Callbacks;
  const { data } = run.config;
  await train({ ...run.config, steps: 3, evaluationData: data, checkpoint: { every: 2 } }, callbacks);
  expect(told).toEqual(["evaluation 0", "step 1", "step 2", "checkpoint 2", "step 3", "checkpoint 3", "evaluation 3"]);
  expect(await Bun.file(join(run.config.output, "config.json")).text()).not.toContain("onStep");
});

test('"stop" ends the run as if that had been its last step', async () => {
  using run = smallRun();
  const steps: number[] = [];
  const onStep = ({ step }: { step: number }) => (steps.push(step), step === 2 ? ("stop" as const) : undefined);
  const summary = await train(run.config, { onStep });
  // Step 3 was in flight; it is finished and told, and nothing after it begins.
  expect(steps).toEqual([1, 2, 3]);
  expect(summary).toMatchObject({ steps: 3, stopped: true });
  expect(existsSync(join(summary.model, "model.safetensors"))).toBe(true);
  expect(existsSync(join(run.config.output, "checkpoints/step-000003"))).toBe(true);
});

test("a promise of stop counts too", async () => {
  using run = smallRun();
  const config = { ...run.config, evaluationData: run.config.data, evaluation: { every: 2 } } satisfies TrainConfig;
  const summary = await train(config, { onEvaluate: ({ step }) => Promise.resolve(step === 2 ? "stop" : undefined) });
  expect(summary).toMatchObject({ steps: 2, stopped: true });
  expect(summary.evaluationAfter).toBeGreaterThan(0);
});

for (const name of ["onStep", "onEvaluate", "onCheckpoint"] as const)
  test(`an exception in ${name} ends the run after saving, and the run can go on`, async () => {
    using run = smallRun();
    const config: TrainConfig = {
      ...run.config,
      evaluationData: run.config.data,
      evaluation: { every: 2 },
      checkpoint: { every: 2, resume: "auto" },
    };
    const cause = new TypeError("undefined is no number");
    const fail = ({ step }: { step: number }) => {
      if (step === 2) throw cause;
    };
    const error: CallbackError = await train(config, { [name]: fail }).then(
      () => expect.unreachable(),
      (reason) => reason,
    );
    expect(error).toBeInstanceOf(CallbackError);
    expect(error.cause).toBe(cause);
    const saved = /saved as (.*step-00000\d),/.exec(error.message)![1]!;
    expect(error.message).toStartWith(`${name} failed after step 2: undefined is no number; the run was saved`);
    expect(existsSync(join(saved, "manifest.json"))).toBe(true);
    expect(run.printed()).toContain("saving before the run ends");
    expect(existsSync(join(run.config.output, "model"))).toBe(false);
    expect(await train(config)).toMatchObject({ steps: 6, stopped: false });
  });

test("callbacks in the config are pointed to their place", async () => {
  using run = smallRun();
  const mistaken = { ...run.config, onStep: () => {} };
  const message = "onStep is no key of the config; callbacks are the second argument: train(config, { onStep })";
  await expect(train(mistaken)).rejects.toThrow(new ConfigError(message));
});
