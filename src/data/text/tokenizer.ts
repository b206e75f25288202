// A model directory's tokenizer: text to token ids and back, the special tokens by name, and the sources of its chat
// templates. Its ids are those of Hugging Face's transformers; a tokenizer of which that is not known is refused by name.
// token-facts.ts reads the files, encoder.ts and decoder.ts do the work.

import { join } from "node:path";
import { DataError, ModelError, SluiceError } from "../../words/errors.ts";
import { formatValue } from "../../words/format.ts";
import { decoderOf, type Decode } from "./decoder.ts";
import { TextEncoder } from "./encoder.ts";
import { LimitError, type Step } from "./normalize.ts";
import { UnsupportedError } from "./pattern.ts";
import { readTokenFiles, tokenFacts, type Json, type TokenFacts, type TokenFiles } from "./token-facts.ts";

export class Tokenizer {
  readonly directory: string;
  /** Special tokens by the names that chat templates use: `bos_token`, `eos_token`, ... */
  readonly specialTokens: Record<string, string>;
  readonly bosId: number | undefined;
  readonly eosId: number | undefined;
  readonly padId: number | undefined;
  /** One more than the largest id that `encode` can give. */
  readonly vocabularySize: number;
  /** The sources of the chat templates by name. */
  readonly chatTemplates: Readonly<Record<string, string>>;
  readonly #encoder: TextEncoder;
  readonly #decode: Decode;
  /** Texts of ids. */
  readonly #texts = new Map<number, string>();
  readonly #special = new Set<number>();
  /** Set if not all ids have a row in the embedding. */
  #rows: number | undefined;

  /** Use `loadTokenizer`. */
  constructor(directory: string, files: TokenFiles) {
    this.directory = directory;
    const damaged = vocabularyProblem(files.tokenizer);
    if (damaged !== undefined) throw this.#unusable(damaged);
    let facts: TokenFacts;
    try {
      facts = tokenFacts(files);
      this.#encoder = new TextEncoder(files.tokenizer as Step);
      this.#decode = decoderOf(files.tokenizer["decoder"] as Step | null | undefined);
      this.#add(facts);
    } catch (error) {
      throw this.#explained(error);
    }
    this.chatTemplates = facts.templates;
    this.specialTokens = facts.special;
    for (const [text, id] of this.#encoder.vocabulary) this.#texts.set(id, text);
    for (const [id, token] of this.#encoder.added.tokens) {
      this.#texts.set(id, this.#encoder.shown(token));
      if (this.#encoder.added.isSpecial(token.content)) this.#special.add(id);
    }
    const { before, after } = this.#encoder.around;
    const unknown = [...before, ...after].find((id) => !this.#texts.has(id));
    if (unknown !== undefined)
      throw this.#unusable(`its post-processor adds ${formatValue(unknown)}, which is no token's id`);
    const idOf = (name: string) => this.#encoder.added.idOf(facts.special[name] ?? "");
    this.bosId = idOf("bos_token");
    this.eosId = idOf("eos_token");
    this.padId = idOf("pad_token");
    let largest = -1;
    for (const id of this.#texts.keys()) largest = Math.max(largest, id);
    this.vocabularySize = largest + 1;
  }

  /** How many rows the embedding has, if it lacks some for special tokens. */
  get rows(): number | undefined {
    return this.#rows;
  }

  /**
   * From now on gives ids below `rows` only, which an embedding has. Beyond may lie special tokens that nothing needs, such as
   * a [PAD] that was added behind the vocabulary; a text that holds one is a DataError. ModelError for any other token.
   */
  limitTo(rows: number): void {
    if (this.vocabularySize <= rows) return;
    const { added, around } = this.#encoder;
    const needed = [this.bosId, this.eosId, ...around.before, ...around.after];
    for (const [id, text] of this.#texts)
      if (id >= rows && (!added.tokens.has(id) || needed.includes(id)))
        throw new ModelError(
          `${this.directory}: the tokenizer has ${this.vocabularySize} tokens, the embedding ${rows} rows and none for ${JSON.stringify(text)} (${id}); they belong to different models`,
        );
    this.#rows = rows;
  }

  /** Makes the added tokens findable, with the ids that the files say they have. */
  #add({ added, others, ids, special, splits }: TokenFacts): void {
    const { added: vocabulary } = this.#encoder;
    const known = new Set([...added, ...others].map(({ content }) => content));
    for (const name of ["bos_token", "eos_token"]) {
      const token = special[name];
      if (token !== undefined && !ids.has(token) && vocabulary.idOf(token) === undefined)
        throw new ModelError(
          `${join(this.directory, "tokenizer_config.json")}: ${name} is ${JSON.stringify(token)}, which tokenizer.json does not have; ` +
            `use the two files of the same model`,
        );
    }
    vocabulary.add(added);
    vocabulary.add(others);
    for (const [content, { id, file }] of ids) {
      const given = vocabulary.idOf(content);
      if (known.has(content) && given !== id)
        throw new ModelError(
          `${join(this.directory, file)}: says that ${JSON.stringify(content)} has the id ${id}, but behind the other tokens it gets ${given}; copy the tokenizer's files from the original model again`,
        );
    }
    this.#encoder.settle({ splits });
  }

  /** The source of the usual chat template, if the directory has one. */
  get chatTemplate(): string | undefined {
    return this.chatTemplates["default"];
  }

  /** The source of the template for conversations with tools, if that is another. */
  get toolTemplate(): string | undefined {
    return this.chatTemplates["tool_use"];
  }

  /**
   * Ids of a text; with `special`, also the tokens that the model expects around a text, such as begin-of-text, which a
   * text that has them already does not get twice.
   */
  encode(text: string, { special }: { special: boolean }): number[] {
    return this.#guarded(text, () => {
      const ids = this.#encoder.encode(text, { special: false });
      return special ? this.#surrounded(ids) : { ids };
    }).ids;
  }

  /**
   * The same, and for each of some places in the text (ascending, in UTF-16 units) how many tokens end at or before it: one
   * that reaches over a place is not counted.
   */
  encodeWithPlaces(
    text: string,
    places: readonly number[],
    { special = false }: { special?: boolean } = {},
  ): { ids: number[]; before: number[] } {
    return this.#guarded(text, () => {
      const encoded = this.#encoder.encodeWithPlaces(text, places);
      if (!special) return encoded;
      const { ids, lead } = this.#surrounded(encoded.ids);
      return { ids, before: encoded.before.map((count) => count + lead) };
    });
  }

  /** With what the model expects around a text, where it is not there yet; `lead` tokens are new in front. */
  #surrounded(ids: number[]): { ids: number[]; lead: number } {
    const { before, after } = this.#encoder.around;
    const begins = before.every((id, i) => ids[i] === id);
    const ends = after.every((id, i) => ids[ids.length - after.length + i] === id);
    return { ids: [...(begins ? [] : before), ...ids, ...(ends ? [] : after)], lead: begins ? 0 : before.length };
  }

  /** Whether an id is an added token's, such as `<|im_end|>`. */
  isAdded(id: number): boolean {
    return this.#encoder.added.tokens.has(id);
  }

  /** The token of an id, as the vocabulary writes it. */
  tokenOf(id: number): string | undefined {
    return this.#texts.get(id);
  }

  /** The text of some ids. Ids without a token, which a padded embedding may produce, are left out. */
  decode(ids: Iterable<number>, { skipSpecial }: { skipSpecial: boolean }): string {
    const tokens: string[] = [];
    for (const id of ids) {
      const text = this.#texts.get(id);
      if (text !== undefined && !(skipSpecial && this.#special.has(id))) tokens.push(text);
    }
    try {
      return this.#decode(tokens).join("");
    } catch (error) {
      throw this.#explained(error);
    }
  }

  [Bun.inspect.custom](): string {
    const special = Object.values(this.specialTokens).join(" ");
    return `Tokenizer(${this.vocabularySize} tokens${special ? `, ${special}` : ""})`;
  }

  /** The ids that `work` makes of a text: within limits, and of ids that the embedding has rows for. */
  #guarded<T extends { ids: number[] }>(text: string, work: () => T): T {
    const started = performance.now();
    try {
      const made = work();
      const rows = this.#rows;
      const beyond = rows === undefined ? undefined : made.ids.find((id) => id >= rows);
      if (beyond !== undefined)
        throw new DataError(
          `the text holds ${JSON.stringify(this.#texts.get(beyond))}, whose id ${beyond} has no row in the model's embedding of ${rows}; leave it out`,
        );
      // A pattern that goes back and forth is cut off by the engine, unmatched; ten seconds are no sane pattern's.
      const seconds = (performance.now() - started) / 1000;
      if (seconds > 10 + text.length / 1e5)
        throw new LimitError(`takes ${seconds.toFixed(0)} s for a text of ${text.length} letters`);
      return made;
    } catch (error) {
      throw this.#explained(error);
    }
  }

  #explained(error: unknown): unknown {
    const path = join(this.directory, "tokenizer.json");
    if (error instanceof LimitError)
      return new ModelError(`${path}: ${error.message}; use the tokenizer of a model you trust`);
    if (error instanceof UnsupportedError)
      return new ModelError(
        `${path}: has ${error.message}; Sluice does not do that as Hugging Face's library does, and gives no other ids`,
      );
    return error instanceof SluiceError ? error : this.#unusable(`cannot be used (${(error as Error).message})`);
  }

  #unusable(problem: string): ModelError {
    return new ModelError(
      `${join(this.directory, "tokenizer.json")}: ${problem}; copy the file from the original model again`,
    );
  }
}

/** Reads a directory's `tokenizer.json` and what stands beside it (token-facts.ts). */
export async function loadTokenizer(directory: string): Promise<Tokenizer> {
  return new Tokenizer(directory, await readTokenFiles(directory));
}

/** Ids index tables in memory; published vocabularies have a quarter of a million. */
const idsMax = 2 ** 24;

/** What is wrong with tokens and ids, which are believed from here on. */
function vocabularyProblem({ model, added_tokens: added = [] }: Json): string | undefined {
  const isId = (id: unknown): boolean => Number.isInteger(id) && (id as number) >= 0 && (id as number) < idsMax;
  if (model === null || typeof model !== "object") return `has no "model"`;
  const { vocab } = model as Json;
  if (Array.isArray(vocab)) {
    const isPiece = (piece: unknown) =>
      Array.isArray(piece) && typeof piece[0] === "string" && typeof piece[1] === "number";
    const bad = vocab.find((piece) => !isPiece(piece));
    if (bad !== undefined) return `its vocabulary holds ${formatValue(bad)}, which is no token with a score`;
  } else if (vocab === null || typeof vocab !== "object") return "its model has no vocabulary";
  else
    for (const token of Object.keys(vocab)) {
      const id = (vocab as Json)[token];
      if (!isId(id)) return `the id of ${formatValue(token)} is ${formatValue(id)}, not a whole number below ${idsMax}`;
    }
  if (!Array.isArray(added)) return "added_tokens is no list";
  const badToken = (added as (Json | null)[]).find(
    (token) => typeof token?.["content"] !== "string" || token["content"] === "" || !isId(token["id"]),
  );
  return badToken === undefined ? undefined : `added_tokens holds ${formatValue(badToken)}, which is no token`;
}
