// What a run says that only a run can know: limits that depend on the model, memory that is too small, numbers that are no
// longer finite. Each message word for word, and nothing is saved that could not be trusted.

import { afterAll, beforeAll, describe, expect, mock, setDefaultTimeout, spyOn, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { cpSync, existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TrainConfig } from "../../src/run/config.ts";
import { SluiceError, StepError } from "../../src/words/errors.ts";
import { train } from "../../src/run/train.ts";
import { ended, filesIn, lines, makeRecipe, startTraining, tinyModel } from "../support/crash.ts";
import { fixtures, readJson, readRaw, temporaryDirectory } from "../support/models.ts";

setDefaultTimeout(patiently(30_000)); // other processes may want the cores too
const scope = new DisposableStack();
const directory = scope.use(temporaryDirectory()).path;
const recipe: TrainConfig = { ...makeRecipe(directory), steps: 4, checkpoint: {}, evaluation: {} };
beforeAll(() => {
  for (const method of ["log", "error"] as const) spyOn(console, method).mockImplementation(() => {});
  spyOn(process.stdout, "write").mockImplementation(() => true);
});
afterAll(() => {
  mock.restore();
  scope.dispose();
});

/** The error of a run with these changes. */
async function failure(changes: Partial<TrainConfig>): Promise<string> {
  const error = await train({ ...recipe, ...changes }).then(
    () => undefined,
    (cause: Error) => cause,
  );
  expect(error).toBeInstanceOf(SluiceError);
  return error!.message;
}

describe("limits of the model", () => {
  const wrong: [Partial<TrainConfig>, string][] = [
    [{ window: { residentBlocks: 5 } }, "window.residentBlocks must be 0 to 4, the model's number of layers (was 5)"],
    [{ window: { keepBlocks: 9 } }, "window.keepBlocks must be 0 to 4, the model's number of layers (was 9)"],
    [{ sequenceLength: 600 }, "sequenceLength (600) is longer than the model's 512 positions; use at most 512"],
    [
      { optimizer: { weightDecayGroups: [{ match: "*.bias", weightDecay: 1 }] } },
      'optimizer.weightDecayGroups[0].match matches no tensor of the model (was "*.bias"); names look like "model.embed_tokens.weight", and * stands for any characters',
    ],
  ];
  test.each(wrong)("%j", async (changes, message) => {
    expect(await failure(changes)).toBe(message);
  });

  test("a warm-up longer than the epochs turn out to be", async () => {
    const { steps: _, ...config } = recipe;
    const run = train({ ...config, epochs: 0.2, schedule: { warmup: 20 } });
    await expect(run).rejects.toThrow(
      'schedule.warmup (20) is longer than the run (3 steps); use fewer steps or a share such as "3%"',
    );
  });

  test("the most that is allowed", async () => {
    const output = join(directory, "most");
    const window = { residentBlocks: 4, keepBlocks: 4, slots: 99 } as const;
    expect(await train({ ...recipe, output, window, sequenceLength: 512 })).toMatchObject({ steps: 4 });
  });

  test("a tokenizer with more tokens than the embedding has rows", async () => {
    const model = join(directory, "more tokens");
    cpSync(tinyModel, model, { recursive: true });
    const tokenizer = readJson(join(model, "tokenizer.json"));
    const added = tokenizer["added_tokens"] as object[];
    tokenizer["added_tokens"] = [...added, { ...added[0], id: 512, content: "<|new|>" }];
    writeFileSync(join(model, "tokenizer.json"), JSON.stringify(tokenizer));
    const config = join(model, "tokenizer_config.json");
    writeFileSync(config, JSON.stringify({ ...readJson(config), eos_token: "<|new|>" }));
    expect(await failure({ model })).toBe(
      `${model}: the tokenizer has 513 tokens, the embedding 512 rows and none for "<|new|>" (512); they belong to different models`,
    );
  });
});

test("device memory: the bill is enough, one byte less says what is largest and what to reduce", async () => {
  const output = join(directory, "memory");
  await train({ ...recipe, output, steps: 1 });
  const deviceMemory = JSON.parse(lines(join(output, "metrics.jsonl"))[1]!).deviceBytes;
  await train({ ...recipe, output, steps: 1, deviceMemory, overwrite: true });
  expect(await failure({ deviceMemory: deviceMemory - 1 })).toBe(
    "deviceMemory: the run needs 1.3 MiB on the device; the limit is 1.3 MiB; the largest parts are " +
      "gradient accumulators 477.3 KiB, window slots 381.0 KiB, workspace 289.1 KiB; " +
      "reduce sequenceLength (32), or raise deviceMemory",
  );
});

describe("numbers that are not finite", () => {
  test.each(["model.norm.weight", "model.embed_tokens.weight"])(
    "infinity in %s: the step fails by name, nothing is saved, exit code 1",
    async (tensor) => {
      const model = join(directory, tensor);
      cpSync(join(fixtures, "llama-tiny"), model, { recursive: true });
      const path = join(model, "model.safetensors");
      const { header, data } = readRaw(path);
      const bytes = await Bun.file(path).bytes();
      const [from, to] = header[tensor]!.data_offsets;
      for (let at = from; at < to; at += 128) bytes.set([0x80, 0x7f], bytes.length - data.length + at); // bfloat16 infinity
      await Bun.write(path, bytes);

      const output = join(directory, `run of ${tensor}`);
      const { evaluationData: _, ...rest } = recipe;
      const config = { ...rest, model, output, checkpoint: { every: 1 } };
      const { code, errors, output: printed } = await ended(startTraining(config));
      expect(errors).toMatch(
        /^the loss became (NaN|infinite) at step 1, before anything was learned: weights of the model are not finite/,
      );
      expect(code).toBe(1);
      expect(printed).not.toContain("step 1/4");
      expect(existsSync(join(output, "checkpoints"))).toBe(false);
      expect(filesIn(output).sort()).toEqual([".sluice", "config.json", "loss.csv", "metrics.jsonl", "run.json"]);
      expect(lines(join(output, "loss.csv"))).toHaveLength(1);
      const error = await train({ ...config, output: `${output} again` }).catch((cause: Error) => cause);
      expect(error).toBeInstanceOf(StepError);
    },
  );
});

describe("evaluation", () => {
  test("is the same whatever the steps' rows, passes and micro-batches are", async () => {
    const losses: (number | undefined)[] = [];
    for (const [index, shape] of [
      { batchSize: 4 },
      { batchSize: 4, gradientAccumulation: 2 },
      { batchSize: 6, gradientAccumulation: 3, microBatchTokens: 70 },
      { batchSize: 1 },
    ].entries()) {
      const output = join(directory, `evaluated ${index}`);
      const { evaluationBefore } = await train({ ...recipe, ...shape, output, steps: 1 });
      losses.push(evaluationBefore);
    }
    for (const loss of losses) expect(loss).toBeCloseTo(losses[0]!, 6);
  });
});
