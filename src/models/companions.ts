// The files of a model directory that go with its weights and are passed on as they are: tokenizer and vocabularies, chat
// templates, generation config, license, and whatever else lies there. A model remembers what they were when it was loaded,
// because an export comes hours later: with a tokenizer that was changed meanwhile the weights would mean something else.
//
// Left behind are weights in any format and what trainers keep; config.json, which an export writes anew; README.md, the card
// of the model as it was, whose figures are not the new one's; hidden files and bunfig.toml, which Bun would obey. Python
// files are passed on, because config.json may name them for others; Sluice runs none.

import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, resolve, sep } from "node:path";
import { fileError } from "../io/atomic.ts";
import { ModelError } from "../words/errors.ts";

/** Files without which the weights mean something else, wherever a link leads to. */
const isNeeded =
  /^(tokenizer.*\.json|tokenizer\.model|special_tokens_map\.json|chat_template\.jinja|vocab\.json|merges\.txt|generation_config\.json|added_tokens\.json|LICENSE.*)$/;
const isLeft =
  /^(\..*|bunfig\.toml|config\.json|README.*|(trainer_state|.*\.index)\.json|(optimizer|scheduler|scaler|rng_state|training_args).*|.*\.(safetensors|bin|pt|pth|ckpt|gguf|ggml|h5|msgpack|onnx|onnx_data|npz|nemo|distcp|tar|zip|gz|log))$/i;
/** The one folder that belongs to a tokenizer. */
const templates = "additional_chat_templates";
/** Vocabularies have a tenth of it. */
const bytesMax = 2 ** 28;

/** Digests of the files by name. */
export type Companions = ReadonlyMap<string, bigint | number>;

/** None where there is no directory: a model of random weights was read from nowhere. */
export function companionsOf(directory: string): Companions {
  if (!existsSync(directory)) return new Map();
  const names = readdirSync(directory).filter((name) => isNeeded.test(name) || !isLeft.test(name));
  if (names.includes(templates))
    for (const name of readdirSync(join(directory, templates)))
      if (name.endsWith(".jinja")) names.push(join(templates, name));
  const carried = names.filter((name) => isCarried(directory, name)).sort();
  return new Map(carried.map((name) => [name, Bun.hash(read(join(directory, name)))]));
}

/** A file of sane size, which a link may lead to inside the directory or in the blobs of the hub's cache. */
function isCarried(directory: string, name: string): boolean {
  const path = join(directory, name);
  const found = statSync(path, { throwIfNoEntry: false });
  if (isNeeded.test(name)) return found?.isDirectory() !== true;
  if (!found?.isFile() || found.size > bytesMax) return false;
  const folder = realpathSync(directory);
  const real = realpathSync(path);
  return real.startsWith(folder + sep) || dirname(real) === resolve(folder, "../../blobs");
}

/** Copies them; ModelError when one is not what it was. */
export function copyCompanions(companions: Companions, directory: string, target: string): void {
  for (const [name, digest] of companions) {
    const bytes = read(join(directory, name));
    if (Bun.hash(bytes) !== digest)
      throw new ModelError(
        `${join(directory, name)} was changed since the model was loaded, and belongs to its weights; put the original back`,
      );
    mkdirSync(dirname(join(target, name)), { recursive: true });
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
