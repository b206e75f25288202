// The quick start's data and model are made by a script; these tests say what the recipe relies on: the same seed
// makes the same bytes, held-out questions are new, and the tokenizer spells made-up words letter by letter.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { makeQuickstart, type Quickstart } from "../../scripts/quickstart.ts";
import { tasks } from "../../scripts/quickstart/tasks.ts";
import { ChatTemplate, encodeConversation, encodePrompt, type Message } from "../../src/data/text/chat.ts";
import { loadTokenizer, type Tokenizer } from "../../src/data/text/tokenizer.ts";
import { type OpenedModel, openModel } from "../../src/models/open.ts";
import { Random } from "../../src/words/random.ts";
import { readRaw, temporaryDirectory } from "../support/models.ts";

type Turn = Message & { content: string };
interface Chat {
  messages: [question: Turn, answer: Turn];
}

const directory = temporaryDirectory();
let paths: Quickstart;
let train: Chat[];
let heldout: Chat[];
let model: OpenedModel;
let tokenizer: Tokenizer;

beforeAll(async () => {
  const readJsonl = async (path: string) => Bun.JSONL.parse(await Bun.file(path).text()) as Chat[];
  paths = await makeQuickstart(join(directory.path, "a"), { seed: 1 });
  train = await readJsonl(paths.train);
  heldout = await readJsonl(paths.heldout);
  model = openModel(paths.model);
  tokenizer = await loadTokenizer(paths.model);
});
afterAll(() => directory[Symbol.dispose]());

const encode = (text: string) => tokenizer.encode(text, { special: false });

test("the same seed makes the same bytes, another seed makes others", async () => {
  const again = await makeQuickstart(join(directory.path, "b"), { seed: 1 });
  const other = await makeQuickstart(join(directory.path, "c"), { seed: 2 });
  const digests = (made: Quickstart) =>
    Promise.all(
      [made.train, made.heldout, join(made.model, "model.safetensors"), join(made.model, "tokenizer.json")].map(
        async (path) => Bun.hash(await Bun.file(path).bytes()),
      ),
    );
  const [first, second, third] = [await digests(paths), await digests(again), await digests(other)];
  expect(second).toEqual(first);
  for (let file = 0; file < 3; file++) expect(third[file]).not.toBe(first[file]!);
});

describe("data", () => {
  test("no question occurs twice, and no held-out question in training", () => {
    const questions = [...train, ...heldout].map(({ messages }) => messages[0]!.content);
    expect(train.length).toBe(16_000);
    expect(heldout.length).toBe(256);
    expect(new Set(questions).size).toBe(questions.length);
  });

  test("each task has its share", () => {
    const sorts = train.filter(({ messages }) => messages[0]!.content.startsWith("Sort the letters of"));
    const share = train.length / Object.keys(tasks).length;
    expect(sorts.length).toBeGreaterThan(share * 0.8);
    expect(sorts.length).toBeLessThan(share * 1.2);
  });

  test("every task's answer is right", () => {
    const examples = Object.values(tasks).map((make) => make(new Random(1)));
    expect(Object.fromEntries(examples.map(({ question, answer }) => [question, answer]))).toEqual({
      "Write daluv backwards.": "vulad",
      "Write daluv in capitals.": "DALUV",
      "What is the first letter of daluve?": "d",
      "What is the last letter of daluve?": "e",
      "How many letters are in daluv?": "5",
      "Write dalu twice.": "daludalu",
      "Sort the letters of dalu.": "adlu",
      "What is the second word of dal ewa uto?": "ewa",
      "Join dalu and walu.": "daluwalu",
      "Write the vowels of daluv.": "au",
      "Write dashes between the letters of dalu.": "d-a-l-u",
      "Write each letter of dalu twice.": "ddaalluu",
      "Which is longer, dalu or waluzo?": "waluzo",
    });
  });
});

describe("tokenizer", () => {
  test("encodes and decodes any text", () => {
    for (const text of ["Write zümrüt backwards.", "  two\n lines \t", "日本語 🙂", "a-b-c 123", "<|user|>Sort"])
      expect(tokenizer.decode(encode(text), { skipSpecial: false })).toBe(text);
  });

  test("spells made-up words and keeps the questions' words whole", () => {
    const tokens = encode("Sort the letters of tuke.").map((id) => tokenizer.decode([id], { skipSpecial: false }));
    expect(tokens).toEqual(["Sort", " the", " letters", " of", " ", "t", "u", "k", "e", "."]);
  });

  test("has exactly the ids that the model embeds", () => {
    expect(tokenizer.vocabularySize).toBe(model.config.vocabulary);
    expect(tokenizer.eosId).toBe(model.config.vocabulary - 1);
  });
});

test("a rendered chat begins with its rendered question, and rows hold several", () => {
  const template = new ChatTemplate(tokenizer);
  for (const chat of heldout) {
    const [question, answer] = chat.messages;
    expect(template.render(chat, { generationPrompt: false })).toBe(
      `<|user|>${question.content}<|assistant|>${answer.content}<|end|>`,
    );
    const prompt = encodePrompt(template, tokenizer, { messages: [question] });
    const documents = encodeConversation(template, tokenizer, chat, "assistant");
    expect(documents.length).toBe(1);
    const { ids, counted } = documents[0]!;
    expect(ids.slice(0, prompt.length)).toEqual(prompt);
    expect(counted).toEqual(ids.map((_, position) => position >= prompt.length));
    expect(ids.length).toBeLessThanOrEqual(32);
  }
});

describe("model", () => {
  test("opens as a Qwen 3 of twelve thin layers", () => {
    const { config, blocks, ignored } = model;
    expect(config).toMatchObject({ layers: 12, hidden: 96, heads: 3, kvHeads: 1, headDim: 32, tied: false });
    expect(blocks.length).toBe(14);
    expect(ignored).toEqual([]);
  });

  test("has random weights of the wanted spread, and norms of one", () => {
    const { header, data } = readRaw(join(paths.model, "model.safetensors"));
    const values = (name: string) => {
      const [start, end] = header[name]!.data_offsets;
      return Array.from({ length: (end - start) / 2 }, (_, index) =>
        bf16ToNumber(data.readUInt16LE(start + 2 * index)),
      );
    };
    const spread = (name: string) => Math.hypot(...values(name)) / Math.sqrt(values(name).length);
    expect(spread("model.embed_tokens.weight")).toBeCloseTo(0.5, 2);
    expect(spread("model.layers.3.mlp.up_proj.weight")).toBeCloseTo(0.08, 2);
    expect(spread("model.layers.3.mlp.down_proj.weight")).toBeCloseTo(0.08 / Math.sqrt(24), 3);
    expect(new Set(values("model.layers.3.self_attn.q_norm.weight"))).toEqual(new Set([1]));
  });
});

const bf16ToNumber = (bits: number): number => new Float32Array(new Uint32Array([bits << 16]).buffer)[0]!;
