// Text to token ids, by words that are remembered.
//
// Most tokenizers of today (those of Qwen, Llama 3, DeepSeek, ...) cut a text into words with a regular expression, and then
// make tokens of each word whatever stands beside it. So a word's ids may be remembered, and a text takes the time of
// cutting it and of looking its words up: a sixth of what the library takes, which goes through every word's letters and
// makes a text of every token. What is asked of the library is a word that was not met yet; its own methods cut and encode
// it, so that the ids are the same (test/unit/word-encoder.test.ts).
//
// A tokenizer that is made otherwise, so that a word's tokens depend on what is around it, has no word encoder; neither has
// one with a step that is not known here. The library does all of their work (tokenizer.ts).

import type { Tokenizer as Engine } from "@huggingface/tokenizers";

/** The parts of the library's tokenizer that are called one by one. */
interface Parts {
  normalizer: ((text: string) => string) | null;
  pre_tokenizer: { tokenizers: Step[] };
  model: { encode(words: string[]): string[]; tokens_to_ids: Map<string, number>; unk_token_id: number | undefined };
  post_processor: ((tokens: string[], pair: null, special: boolean) => { tokens: string[] }) | null;
  added_tokens_map: Map<string, { id: number }>;
}

interface Step {
  config: Json;
  pattern?: RegExp;
  pre_tokenize(texts: string[]): string[];
}

type Cut = Step & { pattern: RegExp };

/** Ids that the last step puts around every text. */
interface Around {
  before: number[];
  after: number[];
}

type Json = Record<string, unknown>;

/** The memory holds at least half and at most all of so many words: the latest. Language has few words, data has ever new ones. */
const WORDS_MAX = 2 ** 16;
/** Longer ones hardly come again. */
const LETTERS_MAX = 64;

export class WordEncoder {
  readonly #parts: Parts;
  /** The first steps, which cut texts into words, and those that come after them. */
  readonly #cuts: Cut[];
  readonly #steps: Step[];
  /** Added tokens, caught so that `split` keeps them. */
  readonly #added: RegExp | undefined;
  /** With special tokens and without. */
  readonly #around: { special: Around; plain: Around };
  readonly #wordsMax: number;
  #words = new Map<string, number[]>();
  #olderWords = new Map<string, number[]>();

  private constructor(
    parts: Parts,
    {
      added,
      wordsMax,
      around,
    }: { added: string | undefined; wordsMax: number; around: { special: Around; plain: Around } },
  ) {
    const { tokenizers: steps } = parts.pre_tokenizer;
    const firstOther = steps.findIndex(({ pattern, config }) => !isCut(config) || !pattern);
    const cuts = firstOther === -1 ? steps.length : firstOther;
    this.#parts = parts;
    this.#cuts = steps.slice(0, cuts) as Cut[];
    this.#steps = steps.slice(cuts);
    this.#added = added === undefined ? undefined : new RegExp(`(${added})`);
    this.#around = around;
    this.#wordsMax = wordsMax;
  }

  /** Undefined for a tokenizer whose words cannot be told apart; `added` is a pattern of its added tokens, if it has any. */
  static of(
    engine: Engine,
    tokenizerJson: Json,
    config: Json,
    { added, wordsMax = WORDS_MAX }: { added: string | undefined; wordsMax?: number },
  ): WordEncoder | undefined {
    if (!isByWord(tokenizerJson, config)) return undefined;
    const parts = engine as unknown as Parts;
    const special = aroundText(parts, true);
    const plain = aroundText(parts, false);
    return special && plain && new WordEncoder(parts, { added, wordsMax, around: { special, plain } });
  }

  /** Ids of a text, or undefined if a part of it has none. */
  encode(text: string, { special }: { special: boolean }): number[] | undefined {
    const { before, after } = special ? this.#around.special : this.#around.plain;
    const ids = before.slice();
    const sections = this.#added ? text.split(this.#added) : [text];
    for (let i = 0; i < sections.length; i++) {
      const section = sections[i]!;
      if (section === "") continue;
      if (i % 2 === 1) this.#pushAdded(section, ids);
      else if (!this.#pushSection(section, ids)) return undefined;
    }
    for (const id of after) ids.push(id);
    return ids;
  }

  #pushAdded(token: string, ids: number[]): void {
    ids.push(this.#parts.added_tokens_map.get(token)!.id);
  }

  /** A text between added tokens; false if a part of it has no id. */
  #pushSection(section: string, ids: number[]): boolean {
    const { normalizer, added_tokens_map: added } = this.#parts;
    const text = normalizer ? normalizer(section) : section;
    if (added.has(text)) {
      this.#pushAdded(text, ids); // it became one
      return true;
    }
    const [first, ...others] = this.#cuts;
    const words = others.reduce((texts, cut) => texts.flatMap((one) => wordsOf(one, cut)), wordsOf(text, first!));
    for (const word of words) {
      const of = this.#words.get(word) ?? this.#idsOf(word);
      if (of === undefined) return false;
      for (let i = 0; i < of.length; i++) ids.push(of[i]!);
    }
    return true;
  }

  /** Of a word that has not come lately. */
  #idsOf(word: string): number[] | undefined {
    const ids = this.#olderWords.get(word) ?? this.#encodeWord(word);
    if (ids === undefined || word.length > LETTERS_MAX) return ids;
    if (this.#words.size >= this.#wordsMax / 2) {
      this.#olderWords = this.#words;
      this.#words = new Map();
    }
    // A word is a view of its text, which would stay in memory with it: what is remembered is a copy.
    this.#words.set(JSON.parse(JSON.stringify(word)) as string, ids);
    return ids;
  }

  #encodeWord(word: string): number[] | undefined {
    const pieces = this.#steps.reduce((texts, step) => step.pre_tokenize(texts), [word]);
    return idsOfTokens(this.#parts, this.#parts.model.encode(pieces));
  }
}

/** What a pattern finds, and what lies between, which most patterns leave nothing of. */
function wordsOf(text: string, cut: Cut): string[] {
  const words = text.match(cut.pattern) ?? [];
  let length = 0;
  let isAnyEmpty = false;
  for (const word of words) {
    length += word.length;
    isAnyEmpty ||= word === "";
  }
  return length === text.length && !isAnyEmpty ? words : cut.pre_tokenize([text]);
}

/** As the library looks tokens up; undefined if one has no id. */
function idsOfTokens({ added_tokens_map: added, model }: Parts, tokens: string[]): number[] | undefined {
  const ids = tokens.map((token) => added.get(token)?.id ?? model.tokens_to_ids.get(token) ?? model.unk_token_id);
  return ids.every((id) => Number.isInteger(id) && id! >= 0) ? (ids as number[]) : undefined;
}

/** What the last step puts before and behind a text, found with a token that no text has. */
function aroundText(parts: Parts, special: boolean): Around | undefined {
  const mark = "\ufffe";
  let tokens = [mark];
  try {
    if (parts.post_processor) ({ tokens } = parts.post_processor(tokens, null, special));
  } catch {
    return undefined; // a damaged step: the library says so when it encodes
  }
  const at = tokens.indexOf(mark);
  if (at === -1 || tokens.includes(mark, at + 1)) return undefined;
  const before = idsOfTokens(parts, tokens.slice(0, at));
  const after = idsOfTokens(parts, tokens.slice(at + 1));
  return before && after && { before, after };
}

// ---- which tokenizers work by words ---------------------------------------------------------------------------------

function isByWord(tokenizerJson: Json, config: Json): boolean {
  const {
    normalizer,
    pre_tokenizer: cutting,
    model,
    post_processor: last,
  } = tokenizerJson as Record<string, Json | null>;
  if (config["remove_space"] === true || config["do_lowercase_and_remove_accent"]) return false;
  const added = (tokenizerJson["added_tokens"] ?? []) as Json[];
  // Some added tokens take spaces from their neighbours, or are looked for in the normalised text.
  if (added.some(({ lstrip, rstrip }) => lstrip || rstrip)) return false;
  if (normalizer && added.some(({ normalized, special }) => normalized ?? !special)) return false;
  if (model?.["type"] !== "BPE" || model["fuse_unk"]) return false; // fusing reaches across words
  if (cutting?.["type"] !== "Sequence" || !Array.isArray(cutting["pretokenizers"])) return false;
  const steps = cutting["pretokenizers"] as (Json | null)[];
  return steps.every((step) => step !== null && isAlone(step)) && steps[0] != null && isCut(steps[0]) && isAround(last);
}

/** A step that cuts at a pattern, and keeps every letter. */
function isCut({ type, pattern, invert, behavior }: Json): boolean {
  const isRegex = (pattern as Json | undefined)?.["Regex"] !== undefined;
  return type === "Split" && isRegex && invert === false && /^isolated$/i.test(String(behavior));
}

/** Steps that treat each word by itself. */
function isAlone({ type, add_prefix_space: prefix }: Json): boolean {
  return type === "Split" || type === "Digits" || (type === "ByteLevel" && !prefix);
}

/** A last step that leaves a text's tokens as they are. */
function isAround(step: Json | null | undefined): boolean {
  if (!step) return true;
  if (step["type"] === "Sequence") return ((step["processors"] ?? []) as Json[]).every(isAround);
  return step["type"] === "TemplateProcessing" || step["type"] === "ByteLevel";
}
