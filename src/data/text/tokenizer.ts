// A model directory's tokenizer: text to token ids and back, the special tokens by name, and the source of the chat
// template. `tokenizer.json` decides what is encoded, the begin-of-text token included; `tokenizer_config.json` names the
// special tokens. The work is done by @huggingface/tokenizers, which agrees with the Rust library on every text tried
// (test/unit/tokenizer.test.ts); where the two differ when decoding, the difference is repaired here.

import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Tokenizer as Engine } from "@huggingface/tokenizers";
import { ModelError } from "../../words/errors.ts";
import { formatValue } from "../../words/format.ts";
import { explainFileError } from "../../io/atomic.ts";
import { WordEncoder } from "./word-encoder.ts";

/** Loaded with the first tokenizer: importing Sluice does not wait for it. */
const library = () => require("@huggingface/tokenizers") as typeof import("@huggingface/tokenizers");

type Json = Record<string, unknown>;

export class Tokenizer {
  readonly directory: string;
  /** Special tokens by the names that chat templates use: `bos_token`, `eos_token`, ... */
  readonly specialTokens: Record<string, string>;
  readonly bosId: number | undefined;
  readonly eosId: number | undefined;
  readonly padId: number | undefined;
  /** One more than the largest id that `encode` can give. */
  readonly vocabularySize: number;
  /** The source of the chat template, if the directory has one. */
  readonly chatTemplate: string | undefined;
  readonly #engine: Engine;
  /** Does the same as the engine, and faster; undefined where that is not known to be so. */
  readonly #words: WordEncoder | undefined;
  /** Added tokens such as `<|im_end|>`: they part a text before anything else happens to it. */
  readonly #added: { ids: Set<number>; pattern: RegExp | undefined };
  readonly #often = new Map<string, number[]>();

  constructor(directory: string, tokenizerJson: Json, config: Json, chatTemplate: string | undefined) {
    this.directory = directory;
    this.chatTemplate = chatTemplate;
    // Without a list of added tokens the library fails on `undefined`; the format says that it may be absent.
    const { Tokenizer: Engine } = library();
    this.#engine = new Engine({ ...tokenizerJson, added_tokens: tokenizerJson["added_tokens"] ?? [] }, config);
    repairByteFallback(this.#engine.decoder);
    this.specialTokens = specialTokens(config);
    this.bosId = this.#idOf("bos_token");
    this.eosId = this.#idOf("eos_token");
    this.padId = this.#idOf("pad_token");
    let largest = 0;
    for (const id of this.#engine.get_vocab(true).values()) largest = Math.max(largest, id);
    this.vocabularySize = largest + 1;
    const added = (tokenizerJson["added_tokens"] ?? []) as { id: number; content: string }[];
    const longestFirst = added.map(({ content }) => content).sort((a, b) => b.length - a.length);
    const escaped = longestFirst.map((content) => content.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
    const pattern = escaped.length > 0 ? escaped.join("|") : undefined;
    this.#added = {
      ids: new Set(added.map(({ id }) => id)),
      pattern: pattern === undefined ? undefined : new RegExp(pattern, "g"),
    };
    this.#words = WordEncoder.of(this.#engine, tokenizerJson, config, { added: pattern });
  }

  /** Ids of a text; with `special`, also the tokens that the model expects around a text, such as begin-of-text. */
  encode(text: string, { special }: { special: boolean }): number[] {
    let ids: number[];
    try {
      const known = this.#words?.encode(text, { special });
      if (known) return known;
      ids = this.#engine.encode(text, { add_special_tokens: special }).ids;
    } catch (cause) {
      throw unusable(this.directory, `cannot encode ${formatValue(text)}`, cause);
    }
    // The library gives nothing for a symbol that the vocabulary lacks, and whatever stands there for one that it has.
    for (const id of ids)
      if (!Number.isInteger(id) || id < 0)
        throw unusable(this.directory, `has no token id for a part of ${formatValue(text)}`);
    return ids;
  }

  /**
   * The added tokens of a text and of its ids, in order: each one's place in the text, and its number among the ids.
   * Undefined if there are none, or if the text does not show which they are.
   */
  addedTokens(text: string, ids: readonly number[]): { at: number; index: number }[] | undefined {
    const { pattern, ids: added } = this.#added;
    const places = pattern ? Array.from(text.matchAll(pattern), ({ index }) => index) : [];
    const indices: number[] = [];
    for (let index = 0; index < ids.length; index++) if (added.has(ids[index]!)) indices.push(index);
    if (places.length === 0 || places.length !== indices.length) return undefined;
    return places.map((at, i) => ({ at, index: indices[i]! }));
  }

  /** Ids of a few letters that come again and again, such as what begins an answer. They are remembered. */
  encodeOften(text: string): number[] {
    let ids = this.#often.get(text);
    if (ids === undefined) {
      ids = this.encode(text, { special: false });
      if (this.#often.size < 1000 && text.length < 100) this.#often.set(text, ids);
    }
    return ids;
  }

  /** The text of some ids. Ids without a token, which a padded embedding may produce, are left out. */
  decode(ids: Iterable<number>, { skipSpecial }: { skipSpecial: boolean }): string {
    const known = Array.from(ids).filter((id) => this.#engine.id_to_token(id) !== undefined);
    if (known.length === 0) return ""; // the library refuses an empty list
    try {
      // The clean-up of spaces before punctuation is for WordPiece; here it would change the text.
      return this.#engine.decode(known, { skip_special_tokens: skipSpecial, clean_up_tokenization_spaces: false });
    } catch (cause) {
      throw unusable(this.directory, `cannot decode ${formatValue(known)}`, cause);
    }
  }

  [Bun.inspect.custom](): string {
    const special = Object.values(this.specialTokens).join(" ");
    return `Tokenizer(${this.vocabularySize} tokens${special ? `, ${special}` : ""})`;
  }

  #idOf(name: string): number | undefined {
    const token = this.specialTokens[name];
    if (token === undefined) return undefined;
    const id = this.#engine.token_to_id(token);
    if (id !== undefined) return id;
    throw new ModelError(
      `${join(this.directory, "tokenizer_config.json")}: ${name} is ${JSON.stringify(token)}, which tokenizer.json does not have; ` +
        `use the two files of the same model`,
    );
  }
}

/** Read `tokenizer.json`, `tokenizer_config.json` and, if there is one, `chat_template.jinja`. */
export async function loadTokenizer(directory: string): Promise<Tokenizer> {
  const tokenizerJson = await readJson(directory, "tokenizer.json");
  if (tokenizerJson["model"] === null || typeof tokenizerJson["model"] !== "object")
    throw unusable(directory, `has no "model"`);
  const wrong = vocabularyProblem(tokenizerJson);
  if (wrong !== undefined) throw unusable(directory, wrong);
  const config = await readJson(directory, "tokenizer_config.json");
  const templatePath = join(directory, "chat_template.jinja");
  const template = existsSync(templatePath) ? await readText(templatePath) : templateOf(config);
  try {
    return new Tokenizer(directory, tokenizerJson, config, template);
  } catch (error) {
    if (error instanceof ModelError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new ModelError(
      `${join(directory, "tokenizer.json")}: cannot be used (${reason}); Sluice reads fast tokenizers`,
    );
  }
}

function unusable(directory: string, problem: string, cause?: unknown): ModelError {
  const reason = cause instanceof Error ? ` (${cause.message})` : "";
  const path = join(directory, "tokenizer.json");
  return new ModelError(`${path}: ${problem}${reason}; copy the file from the original model again`);
}

/** Ids index tables in memory; published vocabularies have a quarter of a million. */
const idsMax = 2 ** 24;

/** What is wrong with the ids, which the library believes as they are. */
function vocabularyProblem({ model, added_tokens: added = [] }: Json): string | undefined {
  const isId = (id: unknown): boolean => Number.isInteger(id) && (id as number) >= 0 && (id as number) < idsMax;
  const { vocab } = model as Json;
  if (Array.isArray(vocab)) {
    const isPiece = (piece: unknown) =>
      Array.isArray(piece) && typeof piece[0] === "string" && typeof piece[1] === "number";
    const bad = vocab.find((piece) => !isPiece(piece));
    if (bad !== undefined) return `its vocabulary holds ${formatValue(bad)}, which is no token with a score`;
  } else if (vocab === null || typeof vocab !== "object") return "its model has no vocabulary";
  else
    for (const [token, id] of Object.entries(vocab))
      if (!isId(id)) return `the id of ${formatValue(token)} is ${formatValue(id)}, not a whole number below ${idsMax}`;
  if (!Array.isArray(added)) return "added_tokens is no list";
  const badToken = (added as (Json | null)[]).find(
    (token) => typeof token?.["content"] !== "string" || token["content"] === "" || !isId(token["id"]),
  );
  return badToken === undefined ? undefined : `added_tokens holds ${formatValue(badToken)}, which is no token`;
}

async function readJson(directory: string, name: string): Promise<Json> {
  const path = join(directory, name);
  if (!existsSync(path)) {
    const sentencePiece = name === "tokenizer.json" && existsSync(join(directory, "tokenizer.model"));
    throw new ModelError(
      sentencePiece
        ? `${path} is missing and tokenizer.model alone cannot be read; save the model's fast tokenizer with transformers`
        : `${path} is missing; copy it from the original model`,
    );
  }
  const text = await readText(path);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ModelError(
      `${path}: not valid JSON (${(error as Error).message}); copy it from the original model again`,
    );
  }
  if (value === null || typeof value !== "object" || Array.isArray(value))
    throw new ModelError(`${path}: not a JSON object; copy it from the original model again`);
  return value as Json;
}

async function readText(path: string): Promise<string> {
  try {
    return await Bun.file(path).text();
  } catch (cause) {
    throw new ModelError(`${path}: ${explainFileError(cause, "read")}`);
  }
}

/** Special tokens are written as text or as objects with `content`. */
function specialTokens(config: Json): Record<string, string> {
  const tokens: Record<string, string> = {};
  for (const [key, value] of Object.entries(config)) {
    if (!key.endsWith("_token")) continue;
    const content = value !== null && typeof value === "object" ? (value as Json)["content"] : value;
    if (typeof content === "string") tokens[key] = content;
  }
  return tokens;
}

/** The template inside tokenizer_config.json: a text, or several by name, of which "default" is for chats. */
function templateOf(config: Json): string | undefined {
  const template = config["chat_template"];
  if (typeof template === "string") return template;
  if (!Array.isArray(template)) return undefined;
  return (template as { name: string; template: string }[]).find(({ name }) => name === "default")?.template;
}

/**
 * Byte tokens such as <0xEF> decode as UTF-8 text. The library uses a TextDecoder that swallows a byte order mark and
 * writes one replacement character for several invalid bytes; the Rust library keeps the mark and, when the bytes of a
 * run are not UTF-8, writes one replacement character for each.
 */
function repairByteFallback(decoder: unknown): void {
  const { ByteFallbackDecoder, SequenceDecoder } = library();
  if (decoder instanceof SequenceDecoder) for (const inner of decoder.decoders) repairByteFallback(inner);
  if (!(decoder instanceof ByteFallbackDecoder)) return;
  const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const decode = (bytes: Uint8Array): string => {
    try {
      return strict.decode(bytes);
    } catch {
      return "\ufffd".repeat(bytes.length);
    }
  };
  Object.assign(decoder, { text_decoder: { decode } });
}
