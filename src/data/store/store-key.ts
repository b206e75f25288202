// The name under which tokens are kept: a hash of everything that they depend on.

import { statSync } from "node:fs";
import { join, resolve } from "node:path";
import type { BadLinesMax } from "../read/bad-lines.ts";
import type { EncodeOptions } from "../text/encode.ts";
import type { FoundSource } from "../read/source.ts";
import type { Tokenizer } from "../text/tokenizer.ts";

/** Raised when the same tokenizer and template give other ids than before: stored tokens are made anew. */
const ENCODING_VERSION = 2;

/** What tokens depend on besides files and tokenizer; `version` changes when the same input would give other files. */
export interface KeyOptions extends EncodeOptions {
  version: number | string;
  maxBadLines?: BadLinesMax;
}

/** The key of some data, or undefined if a function has a say: nobody knows what it reads. */
export async function storeKey(
  sources: FoundSource[],
  tokenizer: Tokenizer,
  options: KeyOptions,
): Promise<string | undefined> {
  if (sources.some(({ filter, map }) => filter || map)) return undefined;
  const { version, sequenceLength, loss, maxBadLines = 0 } = options;
  const parts = {
    version,
    encoding: ENCODING_VERSION,
    tokenizer: await tokenizerKey(tokenizer),
    settings: { sequenceLength, loss, maxBadLines },
    sources: sources.map(({ files, weight, split, limit }) => ({
      weight,
      split,
      limit,
      files: files.map((file) => {
        const { size, mtimeMs } = statSync(file);
        return [resolve(file), size, mtimeMs];
      }),
    })),
  };
  return sha256(JSON.stringify(parts));
}

/** What a tokenizer and its chat templates depend on. */
export async function tokenizerKey(tokenizer: Tokenizer): Promise<string[]> {
  const names = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];
  const texts = names.map(async (name) => {
    const file = Bun.file(join(tokenizer.directory, name));
    return (await file.exists()) ? await file.text() : "";
  });
  return [...(await Promise.all(texts)), JSON.stringify(tokenizer.chatTemplates)].map(sha256);
}

export function sha256(text: string): string {
  return new Bun.CryptoHasher("sha256").update(text).digest("hex");
}
