// Where answers end: what a model's files name, and what its chat template writes behind an answer although nothing names it.

import { describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Encoder, IGNORED } from "../../src/data/text/encode.ts";
import { loadTokenizer } from "../../src/data/text/tokenizer.ts";
import { load } from "../../src/engine/model.ts";
import { stopsOf } from "../../src/engine/stops.ts";
import { exportModel } from "../../src/keep/export.ts";
import { inspect } from "../../src/keep/inspect.ts";
import { companionsOf } from "../../src/models/companions.ts";
import { readDecoderConfig } from "../../src/models/config.ts";
import { fixtures, readJson, testDirectory } from "../support/models.ts";

/** A copy of qwen3-tiny that names <|endoftext|> as its only end, as base models do; its template ends turns with <|im_end|>. */
function baseModel(changes: { template?: string; generation?: object; tokenizer?: object } = {}): string {
  const directory = testDirectory();
  cpSync(join(fixtures, "qwen3-tiny"), directory, { recursive: true });
  const change = (name: string, more: object) =>
    writeFileSync(join(directory, name), JSON.stringify({ ...readJson(join(directory, name)), ...more }));
  const end = idOf("<|endoftext|>");
  change("config.json", { eos_token_id: end });
  change("generation_config.json", { eos_token_id: end, ...changes.generation });
  change("tokenizer_config.json", { eos_token: "<|endoftext|>", ...changes.tokenizer });
  if (changes.template !== undefined) writeFileSync(join(directory, "chat_template.jinja"), changes.template);
  return directory;
}

const { added_tokens: added } = readJson(join(fixtures, "qwen3-tiny/tokenizer.json")) as {
  added_tokens: { id: number; content: string }[];
};
const idOf = (token: string) => added.find(({ content }) => content === token)!.id;

async function stops(directory: string) {
  const config = readDecoderConfig(join(directory, "config.json"));
  return stopsOf({ directory, config }, await loadTokenizer(directory));
}

const turn = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}END{% endfor %}";

describe("the end that a template teaches", () => {
  test("is named nowhere: it is a stop of chats, and said", async () => {
    const directory = baseModel();
    const end = idOf("<|im_end|>");
    expect(await stops(directory)).toEqual({
      named: new Set([idOf("<|endoftext|>")]),
      learned: end,
      note:
        `${directory}: the chat template ends answers with "<|im_end|>" (${end}), which neither config.json nor generation_config.json ` +
        `nor the tokenizer names as an end; answers stop there, and an exported generation_config.json names it`,
    });
    expect((await inspect(directory)).problems).toEqual([expect.stringContaining("ends answers with")]);
  });

  test("is named by any of the files: nothing to say", async () => {
    const end = idOf("<|im_end|>");
    for (const directory of [
      join(fixtures, "qwen3-tiny"),
      baseModel({ generation: { eos_token_id: [idOf("<|endoftext|>"), end] } }),
      baseModel({ tokenizer: { eos_token: "<|im_end|>" } }),
      baseModel({ template: turn.replace("END", "<|im_end|>\n<|endoftext|>") }),
    ])
      expect(await stops(directory)).toMatchObject({ learned: undefined, note: undefined });
  });

  test("is not there, or is no special token", async () => {
    const message = (directory: string, what: string) =>
      `${directory}: the chat template writes ${what} behind an answer and no special token, so from chats the model does not learn to stop; ` +
      `let the template end answers with "<|endoftext|>"`;
    for (const [end, what] of [
      ["", "nothing"],
      ["\n\n", '"\\n\\n"'],
    ] as const) {
      const directory = baseModel({ template: turn.replace("END", end) });
      expect(await stops(directory)).toMatchObject({ learned: undefined, note: message(directory, what) });
    }
  });

  test("cannot be told of a template that refuses: nothing is said here", async () => {
    const directory = baseModel({ template: "{{ raise_exception('no') }}" });
    expect(await stops(directory)).toMatchObject({ learned: undefined, note: undefined });
  });
});

test("an answer to a conversation stops at the end that the template teaches, a continued text does not", async () => {
  const question = [{ role: "user", content: "Hi" }];
  const turns = "{% for m in messages %}{{ m.content }}END{% endfor %}";
  using model = await load(baseModel({ template: turns.replace("END", "\n") }), { workers: 2 });
  const tokenizer = await model.tokenizer();
  const [answer] = await model.generate([question], { maxTokens: 1 });
  const [first, ...more] = tokenizer.encode(answer!, { special: false });
  expect(more).toEqual([]);
  // The same model, whose template ends answers with the very token that it answers with, and asks in the same way.
  const end = tokenizer.tokenOf(first!)!;
  const template = `{% for m in messages %}{{ m.content }}{{ '${end}' if m.role == 'assistant' else '\n' }}{% endfor %}`;
  const directory = baseModel({ template });
  const path = join(directory, "tokenizer.json");
  const json = readJson(path) as { added_tokens: object[] };
  json.added_tokens.push({ id: first, content: end, normalized: false, special: true });
  writeFileSync(path, JSON.stringify(json));
  using taught = await load(directory, { workers: 2 });
  const [stopped, continued] = await taught.generate([question, "Hi\n"], { maxTokens: 3 });
  expect(stopped).toBe("");
  expect(taught.config).toEqual({ ...model.config });
  expect(continued).toEqual((await model.generate(["Hi\n"], { maxTokens: 3 }))[0]!.replaceAll(end, ""));
});

test("an export names the end that was learned behind those that the model had, and answers stop there", async () => {
  const directory = baseModel();
  const target = join(testDirectory(), "out");
  using model = await load(directory, { workers: 2 });
  await exportModel(model, target);
  const before = readJson(join(directory, "generation_config.json"));
  const ends = [idOf("<|endoftext|>"), idOf("<|im_end|>")];
  expect(readJson(join(target, "generation_config.json"))).toEqual({ ...before, eos_token_id: ends });
  expect(await stops(target)).toMatchObject({ named: new Set(ends), learned: undefined });
});

test("an export carries all files but weights, the card, hidden ones and links that lead away", () => {
  const directory = testDirectory();
  const elsewhere = join(testDirectory(), "secret.txt");
  writeFileSync(elsewhere, "secret");
  mkdirSync(join(directory, "additional_chat_templates"));
  mkdirSync(join(directory, "original"));
  const carried = [
    "LICENSE.md added_tokens.json additional_chat_templates/tool_use.jinja chat_template.jinja chat_template.json linked.json",
    "merges.txt modeling_own.py notes.txt special_tokens_map.json tekken.json tokenizer.json tokenizer.model vocab.json",
  ].join(" ");
  const left =
    "README.md config.json model.safetensors model.safetensors.index.json pytorch_model-00001-of-00002.bin optimizer.pt trainer_state.json " +
    ".env bunfig.toml additional_chat_templates/notes.md original/consolidated.00.pth training_args.bin model.gguf";
  for (const name of `${carried} ${left}`.split(" "))
    if (name !== "linked.json") writeFileSync(join(directory, name), name);
  symlinkSync("tekken.json", join(directory, "linked.json"));
  symlinkSync(elsewhere, join(directory, "away.txt"));
  expect([...companionsOf(directory).keys()]).toEqual(carried.split(" "));
});

test("links into the blobs of the hub's cache are followed", () => {
  const folder = testDirectory();
  const snapshot = join(folder, "snapshots", "c0ffee");
  for (const path of [snapshot, join(folder, "blobs")]) mkdirSync(path, { recursive: true });
  writeFileSync(join(folder, "blobs", "abc"), "x");
  symlinkSync("../../blobs/abc", join(snapshot, "notes.txt"));
  expect([...companionsOf(snapshot).keys()]).toEqual(["notes.txt"]);
});

describe("special tokens that a text has already", async () => {
  const tokenizer = await loadTokenizer(join(fixtures, "llama-tiny"));
  const { bosId, eosId } = tokenizer;
  const [bos, eos] = [tokenizer.specialTokens["bos_token"]!, tokenizer.specialTokens["eos_token"]!];
  const encoder = new Encoder(tokenizer, { sequenceLength: 100, loss: "completion" });
  const text = (content: string) => encoder.encode({ kind: "text", text: content, where: "x:1" }).documents[0]!;
  const plain = (content: string) => tokenizer.encode(content, { special: false });

  test("one begin, one end", () => {
    const usual = text("Hello");
    expect(usual.ids).toEqual([bosId!, ...plain("Hello"), eosId!]);
    expect(text(`${bos}Hello`)).toEqual(usual);
    expect(text(`${bos}Hello${eos}`)).toEqual(usual);
    expect(text(`Hello${eos}\n`).ids).toEqual([...usual.ids, ...plain("\n")]);
    expect(tokenizer.encode(`${bos}Hello`, { special: true })).toEqual([bosId!, ...plain("Hello")]);
  });

  test("of a prompt, too: the completion alone is learned", () => {
    const sample = (prompt: string, completion: string) =>
      encoder.encode({ kind: "prompt", prompt, completion, where: "x:1" }).documents[0]!;
    const usual = sample("Hello", " there");
    expect(usual.labels.filter((label) => label !== IGNORED)).toEqual([...plain(" there"), eosId!]);
    expect(sample(`${bos}Hello`, ` there${eos}`)).toEqual(usual);
  });
});

describe("tokens behind the embedding", () => {
  const rows = readDecoderConfig(join(fixtures, "llama-tiny/config.json")).vocabulary;

  /** A copy of llama-tiny with a token more than its embedding has rows. */
  function larger(config: object): string {
    const directory = testDirectory();
    cpSync(join(fixtures, "llama-tiny"), directory, { recursive: true });
    const path = join(directory, "tokenizer_config.json");
    writeFileSync(path, JSON.stringify({ ...readJson(path), ...config }));
    return directory;
  }

  test("[PAD] may be there while nothing holds it", async () => {
    const directory = larger({ pad_token: "[PAD]" });
    using model = await load(directory, { workers: 1 });
    const tokenizer = await model.tokenizer();
    expect([tokenizer.padId, tokenizer.rows]).toEqual([rows, rows]);
    expect(tokenizer.encode("Hello", { special: true })).toEqual(
      (await loadTokenizer(join(fixtures, "llama-tiny"))).encode("Hello", { special: true }),
    );
    const encoder = new Encoder(tokenizer, { sequenceLength: 100, loss: "all" });
    expect(() => encoder.encode({ kind: "text", text: "a [PAD]", where: "x.jsonl:3" })).toThrow(
      `x.jsonl:3: the text holds "[PAD]", whose id ${rows} has no row in the model's embedding of ${rows}; leave it out`,
    );
    expect((await inspect(directory)).problems).toEqual([]);
  });

  test("any other is named", async () => {
    const directory = larger({ eos_token: "[END]" });
    writeFileSync(join(directory, "added_tokens.json"), JSON.stringify({ "[END]": rows }));
    using model = await load(directory, { workers: 1 });
    await expect(model.tokenizer()).rejects.toThrow(
      `${directory}: the tokenizer has ${rows + 1} tokens, the embedding ${rows} rows and none for "[END]" (${rows}); they belong to different models`,
    );
  });
});

test("a conversation with tools is rendered by the template that is for them", async () => {
  const { ChatTemplate } = await import("../../src/data/text/chat.ts");
  const directory = baseModel({ template: "usual" });
  mkdirSync(join(directory, "additional_chat_templates"));
  writeFileSync(join(directory, "additional_chat_templates/tool_use.jinja"), "{{ tools[0].name }}");
  const render = async (tools?: unknown[]) =>
    new ChatTemplate(await loadTokenizer(directory)).render(
      { messages: [{ role: "user", content: "a" }], tools },
      { generationPrompt: false },
    );
  expect([await render(), await render([{ name: "clock" }])]).toEqual(["usual", "clock"]);
  rmSync(join(directory, "chat_template.jinja"));
  expect(await render([{ name: "clock" }])).toBe("clock");
  await expect(render()).rejects.toThrow(
    `the only chat template of ${directory} is "tool_use", for conversations with tools; add one named "default", or tools`,
  );
});
