// The name under which tokens are kept: a hash of everything that they depend on.

import { readdirSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import type { BadLinesMax } from "../read/bad-lines.ts";
import type { EncodeOptions } from "../text/encode.ts";
import type { FoundSource } from "../read/source.ts";
import type { Tokenizer } from "../text/tokenizer.ts";

/** Raise one of these when the same input gives other tokens, or other files: what was kept before is then not found. */
export const VERSIONS = {
  /** How files become samples: src/data/read. */
  read: 3,
  /** The template engine and what is learned of a conversation. */
  template: 2,
  /** How text becomes tokens. */
  tokenizer: 2,
  /** What lies in the cache: token-store.ts, part-store.ts. */
  store: 2,
};

/** What tokens depend on besides files and tokenizer; `form` tells what of them is kept apart from what else may be. */
export interface KeyOptions extends EncodeOptions {
  form: (string | number)[];
  maxBadLines?: BadLinesMax;
}

/** The key of some data, or undefined if a function has a say: nobody knows what it reads. */
export async function storeKey(
  sources: FoundSource[],
  tokenizer: Tokenizer,
  options: KeyOptions,
): Promise<string | undefined> {
  if (sources.some(({ filter, map }) => filter || map)) return undefined;
  const { form, sequenceLength, loss, maxBadLines = 0 } = options;
  const parts = {
    form,
    versions: VERSIONS,
    tokenizer: await tokenizerKey(tokenizer),
    settings: { sequenceLength, loss, maxBadLines },
    sources: sources.map(({ files, weight, split, limit, columns }) => ({
      weight,
      split,
      limit,
      columns,
      files: files.map((file) => {
        const { size, mtimeMs, ctimeMs, ino } = statSync(file); // a file may be changed and given its old time again
        return [resolve(file), size, mtimeMs, ctimeMs, ino];
      }),
    })),
  };
  return sha256(JSON.stringify(parts));
}

/** Every file of a model's directory that may say something about tokens and templates. */
const ABOUT_TOKENS = /^(.*token.*\.json|vocab\.json|merges\.txt|chat_template\.(jinja|json))$/;

/** What a tokenizer and its chat templates depend on. */
export async function tokenizerKey({ directory, chatTemplates }: Tokenizer): Promise<string[]> {
  const names = readdirSync(directory).filter((name) => ABOUT_TOKENS.test(name));
  const key: string[] = [sha256(JSON.stringify(chatTemplates))];
  for (const name of names.sort()) key.push(name, sha256(await Bun.file(join(directory, name)).text()));
  return key;
}

export function sha256(text: string): string {
  return new Bun.CryptoHasher("sha256").update(text).digest("hex");
}
