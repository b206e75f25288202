// The files of a model directory that belong to its weights and are passed on as they are: tokenizer, chat template,
// generation config. A model remembers what they were when it was loaded, because an export comes hours later: with a
// tokenizer that was changed meanwhile the weights would mean something else.

import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ModelError } from "../words/errors.ts";
import { fileError } from "../io/atomic.ts";

const isCompanion =
  /^(tokenizer.*\.json|tokenizer\.model|special_tokens_map\.json|chat_template\.jinja|vocab\.json|merges\.txt|generation_config\.json|added_tokens\.json|LICENSE.*)$/;

/** Digests of the files by name. */
export type Companions = ReadonlyMap<string, bigint | number>;

/** None where there is no directory: a model of random weights was read from nowhere. */
export function companionsOf(directory: string): Companions {
  if (!existsSync(directory)) return new Map();
  const names = readdirSync(directory).filter((name) => isCompanion.test(name));
  return new Map(names.map((name) => [name, Bun.hash(read(join(directory, name)))]));
}

/** Copies them; ModelError when one is not what it was. */
export function copyCompanions(companions: Companions, directory: string, target: string): void {
  for (const [name, digest] of companions) {
    const bytes = read(join(directory, name));
    if (Bun.hash(bytes) !== digest)
      throw new ModelError(
        `${join(directory, name)} was changed since the model was loaded, and belongs to its weights; put the original back`,
      );
    writeFileSync(join(target, name), bytes);
  }
}

function read(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw fileError(cause, "read", path);
  }
}
