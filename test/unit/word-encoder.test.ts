// The word encoder gives the library's ids, or is not there.

import { describe, expect, test } from "bun:test";
import { Tokenizer as Engine } from "@huggingface/tokenizers";
import { join } from "node:path";
import { WordEncoder } from "../../src/data/text/word-encoder.ts";
import { Random } from "../../src/words/random.ts";

type Json = Record<string, any>; // oxlint-disable-line typescript/no-explicit-any

const fixtures = join(import.meta.dir, "../fixtures");
const ADDED = /[|\\{}()[\]^$+*?.]/g;

async function read(kind: string): Promise<{ json: Json; config: Json }> {
  const file = (name: string) => Bun.file(join(fixtures, `tokenizer-${kind}`, name)).json();
  return { json: await file("tokenizer.json"), config: await file("tokenizer_config.json") };
}

/** The library alone, and the word encoder of another one. */
function both(
  { json, config }: { json: Json; config: Json },
  options?: { wordsMax: number },
): { library: Engine; words: WordEncoder | undefined } {
  const added = (json["added_tokens"] as Json[]).map(({ content }) => content.replace(ADDED, "\\$&")).join("|");
  const make = () => new Engine(structuredClone(json), structuredClone(config));
  return { library: make(), words: WordEncoder.of(make(), json, config, { added: added || undefined, ...options }) };
}

const letters = [
  ..."abcdefgh   \n\n\t0123,.<|>_-'’ÄéßΩж漢字ไทย😀👩‍🚀\u0301\u00a0\u0085\ufeff\ufffe\u0000",
  "\ud800",
  "\udc00",
  "\r\n",
  "'s",
  "'LL",
  "e\u0301",
  " the",
  " hello",
  "12345",
  "x".repeat(70),
  "<|im_start|>",
  "<|im_end|>",
  "<|im_",
  "<|eot_id|>",
  "<|begin_of_text|>",
];

function randomText(random: Random): string {
  return Array.from({ length: random.below(40) }, () => letters[random.below(letters.length)]).join("");
}

function expectSame({ library, words }: ReturnType<typeof both>, text: string): void {
  for (const special of [false, true]) {
    const ids = words!.encode(text, { special });
    const expected = library.encode(text, { add_special_tokens: special }).ids;
    // `expect` takes longer than encoding does.
    if (!Bun.deepEquals(ids, expected)) expect([text, ids]).toEqual([text, expected]);
  }
}

for (const kind of ["qwen", "llama3"]) {
  describe(`tokenizer-${kind}`, async () => {
    const files = await read(kind);
    const pair = both(files);

    test("random texts", () => {
      const random = new Random(7);
      for (let i = 0; i < 1000; i++) expectSame(pair, randomText(random));
    });

    test("the fixture's texts, twice", async () => {
      const { texts } = await Bun.file(join(fixtures, `tokenizer-${kind}`, "cases.json")).json();
      for (const { text, ids } of [...texts, ...texts]) {
        expect(pair.words!.encode(text, { special: true })).toEqual(ids);
        expectSame(pair, text);
      }
    });

    test("more words than are remembered", () => {
      const word = (i: number) => ` ${i.toString(26).replace(/\d/g, (digit) => "qrstuvwxyz"[Number(digit)]!)}`;
      const few = both(files, { wordsMax: 64 });
      const random = new Random(9);
      for (let i = 0; i < 500; i++) expectSame(few, word(random.below(200)) + word(random.below(20)));
    });
  });
}

test("an added token that the text has only after it was normalised", async () => {
  const { json, config } = await read("qwen");
  json["added_tokens"].push({ ...json["added_tokens"][0], id: 1536, content: "é" });
  const pair = both({ json, config });
  expect(pair.words!.encode("e\u0301", { special: false })).toEqual([1536]);
  for (const text of ["e\u0301", "é", "ae\u0301", "aé", "<|im_end|>e\u0301"]) expectSame(pair, text);
});

test("several cuts, and what lies between the words of a pattern", async () => {
  const { json, config } = await read("qwen");
  const [cut, bytes] = json["pre_tokenizer"].pretokenizers;
  const other = (Regex: string) => ({ ...cut, pattern: { Regex } });
  const random = new Random(8);
  for (const steps of [
    [other("\\p{N}{1,3}"), other("[a-c]+"), cut, bytes],
    [other("[a-c]*"), bytes],
    [cut, { type: "Digits", individual_digits: true }, bytes],
    [cut, { ...cut, pattern: { String: "b" } }, bytes],
  ]) {
    json["pre_tokenizer"].pretokenizers = steps;
    const pair = both({ json, config });
    for (let i = 0; i < 200; i++) expectSame(pair, randomText(random));
  }
});

test("a text with a part that has no id is left to the library", async () => {
  const { json, config } = await read("qwen");
  delete json["model"].vocab["a"];
  json["model"].unk_token = "<unknown>"; // has none either
  const { words } = both({ json, config });
  expect(words!.encode("a", { special: false })).toBeUndefined();
  expect(words!.encode("b", { special: false })).toHaveLength(1);
});

describe("tokenizers whose words depend on what is around them have none", () => {
  test("spm", async () => expect(both(await read("spm")).words).toBeUndefined());

  const changes: Record<string, (json: Json, config: Json) => void> = {
    "a token that takes the spaces beside it": (json) => (json["added_tokens"][0].lstrip = true),
    "a token that is looked for in normalised text": (json) => (json["added_tokens"][0].normalized = true),
    "unknown letters are fused": (json) => (json["model"].fuse_unk = true),
    "another kind of model": (json) => (json["model"].type = "Unigram"),
    "a prefix space": (json) => (json["pre_tokenizer"].pretokenizers[1].add_prefix_space = true),
    "a pattern that removes": (json) => (json["pre_tokenizer"].pretokenizers[0].behavior = "Removed"),
    "a pattern of what to keep": (json) => (json["pre_tokenizer"].pretokenizers[0].invert = true),
    "a step that is not known": (json) =>
      json["pre_tokenizer"].pretokenizers.push({ type: "Metaspace", replacement: "▁", prepend_scheme: "first" }),
    "a last step that is not known": (json) => (json["post_processor"] = { type: "RobertaProcessing" }),
    "spaces removed": (_, config) => (config["remove_space"] = true),
  };
  for (const [name, change] of Object.entries(changes))
    test(name, async () => {
      const { json, config } = await read("qwen");
      const engine = new Engine(structuredClone(json), config);
      change(json, config);
      expect(WordEncoder.of(engine, json, config, { added: undefined })).toBeUndefined();
    });
});
