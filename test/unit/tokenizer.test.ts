import { describe, expect, test } from "bun:test";
import { cpSync } from "node:fs";
import { join } from "node:path";
import { loadTokenizer } from "../../src/data/text/tokenizer.ts";
import { testDirectory } from "../support/models.ts";

const fixtures = join(import.meta.dir, "../fixtures");

interface TextCase {
  text: string;
  ids: number[];
  ids_without_special: number[];
  decoded: string;
}

for (const kind of ["qwen", "llama3", "spm"]) {
  describe(`tokenizer-${kind}`, async () => {
    const directory = join(fixtures, `tokenizer-${kind}`);
    const tokenizer = await loadTokenizer(directory);
    const { texts } = (await Bun.file(join(directory, "cases.json")).json()) as { texts: TextCase[] };

    for (const { text, ids, ids_without_special: plain, decoded } of texts) {
      test(JSON.stringify(text), () => {
        expect(tokenizer.encode(text, { special: true })).toEqual(ids);
        expect(tokenizer.encode(text, { special: false })).toEqual(plain);
        expect(tokenizer.decode(plain, { skipSpecial: false })).toBe(decoded);
      });
    }

    test("a byte order mark inside a text survives, and spaces before punctuation do", () => {
      const text = "a\ufeffb , c .";
      expect(tokenizer.decode(tokenizer.encode(text, { special: false }), { skipSpecial: false })).toBe(text);
    });

    test("special tokens are skipped on request, ids without a token always", () => {
      const ids = [tokenizer.eosId!, ...tokenizer.encode("yes", { special: true }), tokenizer.eosId!, 99_999];
      expect(tokenizer.decode(ids, { skipSpecial: true }).trim()).toBe("yes");
      expect(tokenizer.vocabularySize).toBe(1536);
    });
  });
}

test("bytes that are not UTF-8 decode as in the Rust library", async () => {
  const tokenizer = await loadTokenizer(join(fixtures, "tokenizer-spm"));
  const byte = (value: number) => value + 3; // the byte tokens follow <unk>, <s>, </s>
  // Recorded from `tokenizers` 0.23.2: a run of byte tokens is UTF-8 as a whole, or each byte is replaced.
  expect(tokenizer.decode([byte(0x48), byte(0xb2)], { skipSpecial: false })).toBe("\ufffd\ufffd");
  expect(tokenizer.decode([byte(0xc3), byte(0xa9)], { skipSpecial: false })).toBe("é");
});

test("special tokens by name", async () => {
  const tokenizer = await loadTokenizer(join(fixtures, "tokenizer-spm"));
  expect(tokenizer.specialTokens).toEqual({
    bos_token: "<s>",
    eos_token: "</s>",
    pad_token: "</s>",
    unk_token: "<unk>",
  });
  expect([tokenizer.bosId, tokenizer.eosId, tokenizer.padId]).toEqual([1, 2, 2]);
});

test("older directories: the template in tokenizer_config.json, tokens as objects, no list of added tokens", async () => {
  const directory = testDirectory();
  cpSync(join(fixtures, "tokenizer-spm"), directory, { recursive: true });
  await Bun.file(join(directory, "chat_template.jinja")).delete();
  const templates = [
    { name: "tool_use", template: "no" },
    { name: "default", template: "yes" },
  ];
  await Bun.write(
    join(directory, "tokenizer_config.json"),
    JSON.stringify({ eos_token: { content: "</s>", lstrip: false }, chat_template: templates }),
  );
  const json = await Bun.file(join(directory, "tokenizer.json")).json();
  delete json.added_tokens;
  await Bun.write(join(directory, "tokenizer.json"), JSON.stringify(json));
  const tokenizer = await loadTokenizer(directory);
  expect(tokenizer.chatTemplate).toBe("yes");
  expect(tokenizer.eosId).toBe(2);
});

describe("a directory that is not whole", async () => {
  const good = await Bun.file(join(fixtures, "tokenizer-spm/tokenizer.json")).text();
  const missing = Symbol();
  const table: { name: string; files: Record<string, string | typeof missing>; message: (dir: string) => string }[] = [
    {
      name: "no tokenizer.json",
      files: { "tokenizer.json": missing },
      message: (dir) => `${dir}/tokenizer.json is missing; copy it from the original model`,
    },
    {
      name: "only tokenizer.model",
      files: { "tokenizer.json": missing, "tokenizer.model": "x" },
      message: (dir) =>
        `${dir}/tokenizer.json is missing and tokenizer.model alone cannot be read; save the model's fast tokenizer with transformers`,
    },
    {
      name: "no tokenizer_config.json",
      files: { "tokenizer_config.json": missing },
      message: (dir) => `${dir}/tokenizer_config.json is missing; copy it from the original model`,
    },
    {
      name: "cut tokenizer.json",
      files: { "tokenizer.json": good.slice(0, 1000) },
      message: (dir) =>
        `${dir}/tokenizer.json: not valid JSON (JSON Parse error: Unterminated string); copy it from the original model again`,
    },
    {
      name: "no model",
      files: { "tokenizer.json": "{}" },
      message: (dir) => `${dir}/tokenizer.json: has no "model"; copy the file from the original model again`,
    },
    {
      name: "config is a list",
      files: { "tokenizer_config.json": "[]" },
      message: (dir) => `${dir}/tokenizer_config.json: not a JSON object; copy it from the original model again`,
    },
    {
      name: "unknown decoder",
      files: { "tokenizer.json": JSON.stringify({ ...JSON.parse(good), decoder: { type: "Morse" } }) },
      message: (dir) =>
        `${dir}/tokenizer.json: has the decoder Morse; Sluice does not do that as Hugging Face's library does, and gives no other ids`,
    },
    {
      name: "a special token of another model",
      files: { "tokenizer_config.json": '{"eos_token": "<|im_end|>"}' },
      message: (dir) =>
        `${dir}/tokenizer_config.json: eos_token is "<|im_end|>", which tokenizer.json does not have; use the two files of the same model`,
    },
  ];
  for (const { name, files, message } of table) {
    test(name, async () => {
      const directory = testDirectory();
      cpSync(join(fixtures, "tokenizer-spm"), directory, { recursive: true });
      for (const [file, content] of Object.entries(files)) {
        if (content === missing) await Bun.file(join(directory, file)).delete();
        else await Bun.write(join(directory, file), content as string);
      }
      const error = await loadTokenizer(directory).catch((caught: Error) => caught);
      expect(error).toMatchObject({ name: "ModelError", message: message(directory) });
    });
  }
});
