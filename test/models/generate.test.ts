// What a model says: greedy answers are the words that transformers answers with (fixtures/generation.json says how they
// were made), whatever the batch, the device limit and the window; samples are drawn from the right tokens and reproducible.

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { cpSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ConfigError, MemoryError, ModelError } from "../../src/words/errors.ts";
import { exportModel } from "../../src/keep/export.ts";
import type { GenerateOptions } from "../../src/engine/generate.ts";
import { load, type LoadOptions, type Model } from "../../src/engine/model.ts";
import { Trainer } from "../../src/engine/trainer.ts";
import { fixtures, readJson, readRaw, temporaryDirectory } from "../support/models.ts";
import { Draw } from "../support/tensors.ts";
import { plainConfig, randomStep } from "../support/training.ts";

interface Expected {
  maxTokens: number;
  /** The last is longer than a piece of prefill (256 tokens), and all but the first than mistral's window (24). */
  prompts: string[];
  models: Record<string, { promptTokens: number; answer: string }[]>;
}
const { prompts, models, maxTokens } = (await Bun.file(join(fixtures, "../generation.json")).json()) as Expected;
/** MiB that are just enough for one sequence and two slots. */
const smallest: Record<string, number> = {
  "llama-tiny": 3.1,
  "mistral-tiny": 2.6,
  "qwen2-tiny": 2.1,
  "qwen3-tiny": 4.7,
  "gemma3-tiny": 3,
};
const answersOf = (model: string): string[] => models[model]!.map(({ answer }) => answer);

setDefaultTimeout(patiently(30_000)); // other processes may want the cores too
const scope = new DisposableStack();
afterAll(() => scope.dispose());

const open = async (name: string, options: LoadOptions = {}): Promise<Model> =>
  scope.use(await load(join(fixtures, name), { workers: 2, ...options }));

describe.each(Object.keys(models))("%s", (name) => {
  test("greedy answers are transformers', in batches of 1, 2 and all", async () => {
    const model = await open(name);
    const tokenizer = await model.tokenizer();
    expect(prompts.map((prompt) => tokenizer.encode(prompt, { special: true }).length)).toEqual(
      models[name]!.map(({ promptTokens }) => promptTokens),
    );
    const held = model.engine.held();
    for (const batchSize of [1, 2, 32])
      expect(await model.generate(prompts, { maxTokens, batchSize })).toEqual(answersOf(name));
    expect(model.engine.held()).toEqual(held);
  });

  test("the same in so little device memory that the blocks slide", async () => {
    const model = await open(name, { deviceMemory: smallest[name]! * 2 ** 20 });
    expect(await model.generate(prompts, { maxTokens })).toEqual(answersOf(name));
  });

  test("bfloat16 answers, the same however it is batched", async () => {
    const model = await open(name, { dtype: "bfloat16" });
    const together = await model.generate(prompts, { maxTokens });
    expect(together.every((answer) => answer.length > 0)).toBe(true);
    expect(await model.generate(prompts, { maxTokens, batchSize: 1 })).toEqual(together);
  });
});

describe("what the device holds", () => {
  test("at the smallest limit that is accepted everything fits; one byte less says what to reduce", async () => {
    const attempt = async (deviceMemory: number): Promise<string> => {
      using model = await load(join(fixtures, "qwen3-tiny"), { workers: 1, deviceMemory });
      return await model.generate(["import os"], { maxTokens: 2 }).then(
        ([answer]) => answer!,
        (error: Error) => (error instanceof MemoryError ? error.message : Promise.reject(error)),
      );
    };
    const refused =
      /^deviceMemory: generation needs .* on the device for one sequence of 6 tokens, .* are free; reduce maxTokens or the prompt$/;
    let [low, high] = [0, 8 << 20];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (refused.test(await attempt(middle))) low = middle;
      else high = middle;
    }
    expect(await attempt(low)).toMatch(refused);
    expect(answersOf("qwen3-tiny")[1]!.startsWith(await attempt(high))).toBe(true);
  });

  test("beside a trainer with resident blocks, between its steps", async () => {
    const rows = { sequenceLength: 40, passes: 1, microBatches: 2 };
    const [plain, disturbed] = await Promise.all([run(false), run(true)]);
    expect(disturbed).toEqual(plain);

    async function run(asked: boolean): Promise<number[]> {
      const model = await open("qwen3-tiny");
      const before = model.engine.held();
      const config = plainConfig(rows);
      const trainer = await Trainer.open(model, { ...config, window: { ...config.window, residentBlocks: 2 } });
      const losses: number[] = [];
      for (let step = 0; step < 3; step++) {
        losses.push((await trainer.step(randomStep(new Draw(step), model.config, rows))).loss);
        await trainer.drain();
        const held = model.engine.held();
        if (asked) await model.generate(prompts.slice(0, 2), { maxTokens: 4 });
        expect(model.engine.held()).toEqual(held);
      }
      trainer.close();
      await model.setResident(() => false);
      expect(model.engine.held()).toEqual(before);
      return losses;
    }
  });

  test("right after a step, whose updates may still run: loss, answer and export wait for them", async () => {
    const rows = { sequenceLength: 40, passes: 1, microBatches: 1 };
    const look = async (drained: boolean): Promise<unknown> => {
      using model = await load(join(fixtures, "llama-tiny"), { workers: 2 });
      using exported = temporaryDirectory();
      using trainer = await Trainer.open(model, plainConfig(rows));
      model.engine.disturb({ jitterUs: 800 });
      const looks = [];
      for (const looking of [
        () =>
          model.loss(datasetOf([{ ids: [1, 2, 3, 4], labels: [1, 2, 3, 4] }]), { ...plainConfig(rows), batchSize: 1 }),
        () => model.generate(["A"], { maxTokens: 3 }),
        () => exportModel(model, join(exported.path, "model")),
        () => Bun.file(join(exported.path, "model/model.safetensors")).bytes().then(Bun.hash),
      ]) {
        await trainer.step(randomStep(new Draw(looks.length), model.config, rows), { learningRate: 0.1 });
        if (drained) await trainer.drain();
        looks.push(await looking());
      }
      await trainer.drain();
      return looks;
    };
    expect(await look(false)).toEqual(await look(true));
  });

  test("Model.loss equals the reference and frees what it took", async () => {
    const reference = await Bun.file(join(fixtures, "llama-tiny/reference.json")).json();
    const model = await open("llama-tiny");
    const held = model.engine.held();
    for (const [name, documents] of Object.entries(reference.batches as Record<string, Document[]>)) {
      const { loss, validTokens } = await model.loss(datasetOf(documents), {
        sequenceLength: 96,
        batchSize: 2,
        microBatchTokens: 96,
        gradientAccumulation: 1,
      });
      expect(validTokens).toBe(reference.targets[name]);
      expect(loss / reference.loss[name]).toBeCloseTo(1, 6);
    }
    expect(model.engine.held()).toEqual(held);
  });
});

interface Document {
  ids: number[];
  labels: number[];
}

/** Documents with labels as they are, the way `loadDataset` lays them out. */
function datasetOf(documents: Document[]) {
  const starts = [0];
  for (const { ids } of documents) starts.push(starts.at(-1)! + ids.length);
  const targets = documents.flatMap(({ labels }) => [...labels.slice(1), -100]);
  const report = { samples: 0, documents: documents.length, tokens: 0, validTokens: 0, truncated: 0, dropped: 0 };
  const ints = (values: number[]): Int32Array => Int32Array.from(values);
  return {
    tokens: ints(documents.flatMap(({ ids }) => ids)),
    targets: ints(targets),
    starts: ints(starts),
    digest: "",
    report,
  };
}

describe("options", () => {
  test("samples depend on the seed and the prompt's place, and on nothing else", async () => {
    const model = await open("qwen2-tiny");
    const sampled = (options: GenerateOptions): Promise<string[]> =>
      model.generate(prompts, { maxTokens: 12, temperature: 1, topP: 0.9, ...options });
    const first = await sampled({ seed: 7 });
    expect(await sampled({ seed: 7 })).toEqual(first);
    expect(await sampled({ seed: 7, batchSize: 1 })).toEqual(first);
    expect(await sampled({ seed: 8 })).not.toEqual(first);
    const [one, other] = await model.generate(["A", "A"], { maxTokens: 12, temperature: 1 });
    expect(one).not.toBe(other!);
    expect(await sampled({ seed: 7, topP: 1e-9 })).toEqual(await model.generate(prompts, { maxTokens: 12 }));
  });

  test.each([
    ["qwen3-tiny", prompts],
    ["llama-tiny", prompts],
    ["mistral-tiny", prompts.slice(0, 1)], // its other answers are broken bytes, whose earlier ones change with later ones
  ])("%s: the pieces that onText gets are the answer, and none is empty or half a character", async (name, asked) => {
    const model = await open(name);
    const pieces = asked.map((): string[] => []);
    const answers = await model.generate(asked, { maxTokens, onText: (index, text) => pieces[index]!.push(text) });
    expect(answers).toEqual(answersOf(name).slice(0, asked.length));
    expect(pieces.map((texts) => texts.join(""))).toEqual(answers);
    expect(pieces.flat()).not.toContain("");
    for (const texts of pieces) expect(texts.slice(0, -1).filter((text) => text.endsWith("\ufffd"))).toEqual([]);
  });

  test("an answer ends before a stop token of generation_config.json, and where the positions end", async () => {
    using directory = temporaryDirectory();
    cpSync(join(fixtures, "qwen3-tiny"), directory.path, { recursive: true });
    const path = join(directory.path, "generation_config.json");
    writeFileSync(path, JSON.stringify({ ...readJson(path), eos_token_id: [511, 192] }));
    const config = readJson(join(directory.path, "config.json"));
    writeFileSync(join(directory.path, "config.json"), JSON.stringify({ ...config, max_position_embeddings: 360 }));
    using model = await load(directory.path, { workers: 2 });
    const [short, long] = await model.generate([prompts[1]!, prompts[4]!], { maxTokens });
    const tokenizer = await model.tokenizer();
    expect(answersOf("qwen3-tiny")[1]!.startsWith(short!)).toBe(true); // 321, then 192
    expect(tokenizer.encode(short!, { special: false })).toEqual([321]);
    expect(answersOf("qwen3-tiny")[4]!.startsWith(long!)).toBe(true); // 351 tokens and 9 more
    expect(tokenizer.encode(long!, { special: false })).toHaveLength(9);
  });

  test("wrong options and prompts", async () => {
    const model = await open("qwen3-tiny");
    const failure = (prompt: string, options: GenerateOptions = {}): Promise<unknown> =>
      model.generate([prompt], options).then(
        () => "no error",
        (error: Error) => [error.constructor, error.message],
      );
    const wrong: [GenerateOptions, string][] = [
      [{ maxTokens: 0 }, "maxTokens must be a whole number >= 1 (was 0)"],
      [{ maxTokens: 1.5 }, "maxTokens must be a whole number >= 1 (was 1.5)"],
      [{ batchSize: 0 }, "batchSize must be a whole number >= 1 (was 0)"],
      [{ temperature: -1 }, "temperature must be a number >= 0 (was -1)"],
      [{ temperature: NaN }, "temperature must be a number >= 0 (was NaN)"],
      [{ temperature: 1, topP: 0 }, "topP must be a number > 0 and <= 1 (was 0)"],
      [{ temperature: 1, topP: 2 }, "topP must be a number > 0 and <= 1 (was 2)"],
      [{ topP: 0.5 }, "topP (0.5) has no effect at temperature 0, which is greedy; set a temperature"],
      [{ seed: 1.5 }, "seed must be a whole number >= 0 (was 1.5)"],
    ];
    for (const [options, message] of wrong) expect(await failure("A", options)).toEqual([ConfigError, message]);
    expect(await failure("")).toEqual([ModelError, "prompt 0 has no tokens"]);
    const long = "A".repeat(600);
    const message = "prompt 0 has 600 tokens, the model has 512 positions; shorten it";
    expect(await failure(long)).toEqual([ModelError, message]);
  });

  test("weights that are not finite answer with an error, not with token 0", async () => {
    using directory = temporaryDirectory();
    cpSync(join(fixtures, "llama-tiny"), directory.path, { recursive: true });
    const path = join(directory.path, "model.safetensors");
    const { header, data } = readRaw(path);
    const bytes = await Bun.file(path).bytes();
    const [from] = header["model.layers.1.mlp.up_proj.weight"]!.data_offsets;
    bytes.set([0x80, 0x7f], bytes.length - data.length + from); // bfloat16 infinity
    await Bun.write(path, bytes);
    using model = await load(directory.path, { workers: 2 });
    const answer = model.generate(["A", "import os"], { maxTokens: 4 });
    await expect(answer).rejects.toThrow("prompt 0: the logits are not finite (NaN); the model's weights are damaged");
  });
});
