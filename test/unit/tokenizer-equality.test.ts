// Ids, places and decoded texts are those of Hugging Face's library, for a tokenizer of every flag, option, step and kind
// of model, over odd texts; the right values are its own (scripts/reference/tokenizer_ids.py).

import { describe, expect, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { join } from "node:path";
import { cuttingOf } from "../../src/data/text/cut.ts";
import { TextEncoder } from "../../src/data/text/encoder.ts";
import { Tokenizer } from "../../src/data/text/tokenizer.ts";

interface Made {
  model: string;
  changes: Record<string, unknown>;
  added_tokens: Record<string, unknown>[];
  /** By text. */
  ids: number[][];
  around: [number[], number[]];
  /** By number of the text: where its tokens end, in code points. */
  ends: Record<string, number[]>;
  /** In the order of `shown`. */
  decoded: string[];
  /** Where leaving out special tokens makes a difference. */
  skipped: Record<string, string>;
}

const { texts, shown, models, tokenizers, patterns, patternTexts } = (await Bun.file(
  join(import.meta.dir, "../fixtures/tokenizer-ids.json"),
).json()) as {
  texts: string[];
  shown: number[];
  models: Record<string, Record<string, unknown>>;
  tokenizers: Record<string, Made>;
  /** By pattern, for each of its texts: the code points of what Split makes of it. */
  patterns: Record<string, number[][]>;
  patternTexts: string[];
};

const make = ({ model, changes, added_tokens: added, ...parts }: Made) =>
  new Tokenizer("DIR", {
    tokenizer: {
      ...parts,
      added_tokens: added.map((token) => ({ normalized: false, ...token })),
      model: { ...models[model], ...changes },
    },
    config: {},
  });

const refused: Record<string, string> = {
  scripts:
    "DIR/tokenizer.json: has the pre-tokenizer UnicodeScripts; Sluice does not do that as Hugging Face's library does, and gives no other ids",
};

for (const [name, made] of Object.entries(tokenizers))
  test(name, () => {
    if (refused[name] !== undefined) {
      expect(() => make(made)).toThrow(refused[name]);
      return;
    }
    const tokenizer = make(made);
    // `expect` takes longer than encoding does.
    const same = (what: string, text: string, found: unknown, right: unknown) => {
      if (!Bun.deepEquals(found, right)) expect({ what, text, found }).toEqual({ what, text, found: right });
    };
    for (const [i, text] of texts.entries()) {
      const ids = made.ids[i]!;
      same("ids", text, tokenizer.encode(text, { special: false }), ids);
      const at = shown.indexOf(i);
      if (at === -1) continue;
      same("decoded", text, tokenizer.decode(ids, { skipSpecial: false }), made.decoded[at]);
      const around = [...made.around[0], ...ids, ...made.around[1]];
      same("skipped", text, tokenizer.decode(around, { skipSpecial: true }), made.skipped[i] ?? made.decoded[at]);
      const ends = made.ends[i];
      if (!ends) continue;
      const letters = Array.from(text);
      const places = letters.map((_, k) => letters.slice(0, k + 1).join("").length);
      const before = letters.map(
        (_, k) => (ends.findIndex((end) => end > k + 1) + ends.length + 1) % (ends.length + 1),
      );
      same("places", text, tokenizer.encodeWithPlaces(text, places), { ids, before });
    }
    same("around", "a", tokenizer.encode("a", { special: true }), [
      ...made.around[0],
      ...made.ids[4]!,
      ...made.around[1],
    ]);
  });

test("patterns cut where Oniguruma does", () => {
  for (const [Regex, right] of Object.entries(patterns)) {
    const { words } = cuttingOf({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false });
    const found = patternTexts.map((text) => words(text).map((word) => Array.from(word).length));
    expect({ Regex, found }).toEqual({ Regex, found: right });
  }
});

describe("what is not done is refused by name", () => {
  const base = tokenizers["qwen"]!;
  const split = (Regex: string) => ({ pre_tokenizer: { type: "Split", pattern: { Regex }, behavior: "Isolated" } });
  const many = (type: string, count: number) => Array.from({ length: count }, () => ({ type }));
  const table: [what: string, parts: Record<string, unknown>, message: string][] = [
    ["a normalizer", { normalizer: { type: "Precompiled" } }, "has the normalizer Precompiled"],
    [
      "a replacement of nothing",
      { normalizer: { type: "Replace", pattern: { Regex: "a*" }, content: "b" } },
      'has a Replace of {"Regex":"a*"}, which may match nothing',
    ],
    [
      "too many steps",
      { normalizer: { type: "Sequence", normalizers: many("NFC", 65) } },
      "has 65 normalizers (the limit is 64)",
    ],
    ["a backward reference", split("(a)\\1"), 'has the pattern "(a)\\\\1" has \\1'],
    ["a named group", split("(?<x>a)"), 'has the pattern "(?<x>a)" has (?<x'],
    ["a script that nobody writes", split("\\p{Klingon}"), 'has the pattern "\\\\p{Klingon}" has \\p{Klingon}'],
    [
      "a pre-tokenizer behind ByteLevel",
      { pre_tokenizer: { type: "Sequence", pretokenizers: [{ type: "ByteLevel" }, { type: "Whitespace" }] } },
      "has a pre-tokenizer behind ByteLevel",
    ],
    ["dropout", { changes: { dropout: 0.1 } }, "has a BPE with dropout 0.1"],
    [
      "an unk_token from elsewhere",
      { changes: { unk_token: "<what>" } },
      'has unk_token "<what>", which its vocabulary lacks',
    ],
    [
      "a merge of tokens that are not there",
      { changes: { merges: ["q zzz"] } },
      'has a merge "q zzz" of tokens that its vocabulary lacks',
    ],
    ["a post-processor", { post_processor: { type: "Other" } }, "has the post-processor Other"],
    [
      "a template without the text",
      { post_processor: { type: "TemplateProcessing", single: [], special_tokens: {} } },
      "has a template that does not hold the text once",
    ],
    [
      "a replacement of several letters",
      { pre_tokenizer: { type: "Metaspace", replacement: "xx" } },
      'has a Metaspace whose replacement is "xx", no letter',
    ],
    ["a decoder", { decoder: { type: "Morse" } }, "has the decoder Morse"],
  ];
  test.each(table)("%s", (_, parts, message) => {
    expect(() => make({ ...base, ...parts } as Made).encode("a b", { special: false })).toThrow(message);
  });
});

test("a normalizer that doubles is stopped, with one sentence", () => {
  const doubling = Array.from({ length: 40 }, () => ({ type: "Replace", pattern: { String: "a" }, content: "aa" }));
  const tokenizer = make({
    ...tokenizers["qwen"]!,
    normalizer: { type: "Sequence", normalizers: doubling },
  } as unknown as Made);
  const start = performance.now();
  expect(() => tokenizer.encode("a", { special: false })).toThrow(
    "DIR/tokenizer.json: its normalizer makes more than 65568 letters of one text; use the tokenizer of a model you trust",
  );
  expect(performance.now() - start).toBeLessThan(patiently(2000));
});

test("a decoder that doubles is stopped, too", () => {
  const doubling = Array.from({ length: 40 }, () => ({ type: "Replace", pattern: { String: "a" }, content: "aa" }));
  const { decoder: _, ...rest } = tokenizers["qwen"]! as Made & { decoder?: unknown };
  const tokenizer = make({ ...rest, decoder: { type: "Sequence", decoders: doubling } } as Made);
  expect(() => tokenizer.decode(tokenizer.encode("a", { special: false }), { skipSpecial: false })).toThrow(
    "DIR/tokenizer.json: its decoder makes more than 65568 letters of some tokens; use the tokenizer of a model you trust",
  );
});

test("spaces to be stripped, and places to be found, take linear time", () => {
  const strip = { type: "Strip", strip_left: true, strip_right: true };
  const tokenizer = make({ ...tokenizers["qwen"]!, normalizer: strip } as unknown as Made);
  const start = performance.now();
  expect(tokenizer.encode(`a${" ".repeat(1_000_000)}`, { special: false })).toHaveLength(1);
  const turn = "<A>b";
  const places = Array.from({ length: 40_000 }, (_, i) => i * 2);
  expect(tokenizer.encodeWithPlaces(turn.repeat(20_000), places).before).toHaveLength(40_000);
  expect(performance.now() - start).toBeLessThan(5000);
});

test("more words than are remembered: their ids stay", () => {
  const { model, changes, ...parts } = tokenizers["qwen"]!;
  const encoder = new TextEncoder({ ...parts, model: { ...models[model], ...changes } }, { wordsMax: 64 });
  const tokenizer = make(tokenizers["qwen"]!);
  const word = (i: number) => ` ${i.toString(36)}`;
  for (let i = 0; i < 500; i++) {
    const text = word((i * 37) % 200) + word(i % 20);
    expect(encoder.encode(text, { special: false })).toEqual(tokenizer.encode(text, { special: false }));
  }
});
