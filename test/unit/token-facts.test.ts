// What the files beside tokenizer.json say about tokens is read as transformers' AutoTokenizer reads it; the right values are
// its own (scripts/reference/token_files.py).

import { expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { loadTokenizer } from "../../src/data/text/tokenizer.ts";
import { testDirectory } from "../support/models.ts";

interface Case {
  files: Record<string, unknown>;
  special: Record<string, string>;
  ids: number[][];
  named: Record<"bos_token" | "eos_token" | "pad_token", number | null>;
  decoded: string;
  /** Without tools, with tools. */
  templates: [string | null, string | null];
}

const fixtures = join(import.meta.dir, "../fixtures");
const { models, tokenizers } = await Bun.file(join(fixtures, "tokenizer-ids.json")).json();
const { texts, cases } = (await Bun.file(join(fixtures, "token-files.json")).json()) as {
  texts: string[];
  cases: Record<string, Case>;
};
const { pre_tokenizer, decoder } = tokenizers.qwen;
const token = (id: number, content: string) => ({ id, content, special: true, normalized: false });

/** The small tokenizer with some files beside it. */
function write(files: Record<string, unknown>): string {
  const directory = testDirectory();
  const tokenizer = { pre_tokenizer, decoder, model: models.bytes, added_tokens: [token(1, "<s>"), token(2, "</s>")] };
  for (const [name, content] of Object.entries({ "tokenizer.json": tokenizer, ...files })) {
    mkdirSync(dirname(join(directory, name)), { recursive: true });
    writeFileSync(join(directory, name), typeof content === "string" ? content : JSON.stringify(content));
  }
  return directory;
}

for (const [name, { files, special, ids, named, decoded, templates }] of Object.entries(cases))
  test(name, async () => {
    const tokenizer = await loadTokenizer(write(files));
    expect(tokenizer.specialTokens).toEqual(special);
    expect(texts.map((text) => tokenizer.encode(text, { special: false }))).toEqual(ids);
    expect([tokenizer.bosId ?? null, tokenizer.eosId ?? null, tokenizer.padId ?? null]).toEqual([
      named.bos_token,
      named.eos_token,
      named.pad_token,
    ]);
    const all = tokenizer.encode(texts.slice(0, 3).join(""), { special: false });
    expect(tokenizer.decode(all, { skipSpecial: true })).toBe(decoded);
    expect([tokenizer.chatTemplate ?? null, tokenizer.toolTemplate ?? tokenizer.chatTemplate ?? null]).toEqual(
      templates,
    );
  });

test("an id that the other tokens do not lead to", async () => {
  const directory = write({
    "tokenizer_config.json": { added_tokens_decoder: { 500: { content: "<X>", special: true } } },
  });
  await expect(loadTokenizer(directory)).rejects.toThrow(
    `${directory}/tokenizer_config.json: says that "<X>" has the id 500, but behind the other tokens it gets 420; copy the tokenizer's files from the original model again`,
  );
});

test("a damaged file beside it is named", async () => {
  const directory = write({ "tokenizer_config.json": {}, "special_tokens_map.json": "{" });
  await expect(loadTokenizer(directory)).rejects.toThrow(`${directory}/special_tokens_map.json: not valid JSON (`);
});
