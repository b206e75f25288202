// `sluice chat`, `generate` and `evaluate`: streaming, memory of a conversation, pipes and JSON.

import { expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Chat } from "../../src/cli/chat.ts";
import { CancelledError, load } from "../../src/index.ts";
import { sluice } from "../support/cli.ts";
import { fixtures, temporaryDirectory } from "../support/models.ts";
import { conversations } from "../support/small-run.ts";

setDefaultTimeout(patiently(30_000)); // whole runs and processes, on a machine that may be busy

const model = join(fixtures, "qwen3-tiny");
const short = ["--maxTokens", "6"];

test("pieces come one by one, together they are the answer, and the next turn knows the ones before", async () => {
  using loaded = await load(model, { workers: 1 });
  const asked: unknown[] = [];
  const generate = loaded.generate.bind(loaded);
  loaded.generate = (prompts, options) => (asked.push(...prompts), generate(prompts, options));
  const chat = new Chat(loaded, { maxTokens: 6 }, "Be brief.");
  const pieces: string[] = [];
  const first = await chat.answer("What follows 3?", (piece) => pieces.push(piece));
  expect(pieces.filter((piece) => piece !== "").length).toBeGreaterThan(1);
  expect(pieces.join("")).toBe(first);
  await chat.answer("And then?", () => {});
  const system = { role: "system", content: "Be brief." };
  expect(asked[1]).toEqual([
    system,
    { role: "user", content: "What follows 3?" },
    { role: "assistant", content: first },
    { role: "user", content: "And then?" },
  ]);
  await expect(chat.answer("word ".repeat(600), () => {})).rejects.toThrow(
    /has \d+ tokens, the model has 512 positions/,
  );
  chat.reset();
  await chat.answer("Hello", () => {});
  expect(asked.at(-1)).toEqual([system, { role: "user", content: "Hello" }]);
  expect(chat.answering).toBe(false);
});

test("an answer that is stopped is forgotten, and the next one comes", async () => {
  using loaded = await load(model, { workers: 1 });
  const chat = new Chat(loaded, { maxTokens: 200 });
  const between = chat.answer("What follows 3?", () => chat.stop());
  expect(await between.catch((error) => error)).toBeInstanceOf(CancelledError);
  const anywhere = chat.answer("What follows 3?", () => {});
  setTimeout(() => chat.stop(), 20);
  expect(await anywhere.catch((error) => error)).toBeInstanceOf(CancelledError);
  expect(await new Chat(loaded, { maxTokens: 5 }).answer("What follows 4?", () => {})).toBeString();
});

test("from a pipe every line is a turn; --json writes a line for each", async () => {
  const input = "What follows 3?\n\nAnd then?\n";
  const plain = await sluice(["chat", model, ...short], input);
  expect(plain).toMatchObject({ error: "", code: 0 });
  const { out } = await sluice(["chat", model, ...short, "--json"], input);
  const turns = out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { prompt: string; answer: string });
  expect(turns.map(({ prompt }) => prompt)).toEqual(["What follows 3?", "And then?"]);
  expect(plain.out).toBe(turns.map(({ answer }) => `${answer}\n`).join(""));
});

test("generate and evaluate answer in JSON, and errors are one line", async () => {
  using directory = temporaryDirectory();
  const data = join(directory.path, "data.jsonl");
  writeFileSync(data, conversations(4));
  const generated = await sluice(["generate", model, "One", "Two", ...short, "--json"]);
  expect(JSON.parse(generated.out)).toMatchObject([{ prompt: "One" }, { prompt: "Two" }]);
  const evaluated = await sluice(["evaluate", model, data, "--json"]);
  const { loss, perplexity } = JSON.parse(evaluated.out) as { loss: number; perplexity: number };
  expect(Math.exp(loss)).toBeCloseTo(perplexity, 6);
  expect(await sluice(["generate", model, "One", "--maxTokens", "many"])).toEqual({
    out: "",
    error: '--maxTokens must be a number (was "many")\n',
    code: 1,
  });
  expect((await sluice(["evaluate", model])).error).toBe("sluice evaluate needs a model and at least one data file\n");
});
