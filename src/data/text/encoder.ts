// Text to token ids, in the steps of tokenizer.json: added tokens part the text (added-tokens.ts), what is between them is
// normalised (normalize.ts), cut into words and pieces (cut.ts), and each piece becomes tokens (subwords.ts). The ids are
// those of Hugging Face's library (test/unit/tokenizer-equality.test.ts), or the tokenizer is refused by name.
//
// Words are remembered: language has few, and their ids do not depend on what is beside them. So most of a text costs its
// cutting and a look-up a word.

import { AddedVocabulary, type AddedToken } from "./added-tokens.ts";
import { cuttingOf, placeInWord, type Cutting } from "./cut.ts";
import { normalizerOf, type Normalize, type Step } from "./normalize.ts";
import { UnsupportedError } from "./pattern.ts";
import { subwordsOf, type Subwords } from "./subwords.ts";

/** Ids that the last step puts around every text. */
interface Around {
  before: number[];
  after: number[];
}

/** The memory holds at least half and at most all of so many words: the latest. */
const WORDS_MAX = 2 ** 16;
/** Longer ones hardly come again. */
const LETTERS_MAX = 64;

export class TextEncoder {
  readonly added: AddedVocabulary;
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly #normalize: Normalize | undefined;
  readonly #cutting: Cutting;
  readonly #subwords: Subwords;
  readonly #around: Around;
  readonly #words: Memory;
  /** Of long words, which are whole texts where nothing cuts before pieces are made. */
  readonly #pieces: Memory;

  /** UnsupportedError for what is not done as Hugging Face's library does it. Added tokens are `settle`d by the caller. */
  constructor(tokenizerJson: Step, { wordsMax = WORDS_MAX }: { wordsMax?: number } = {}) {
    const part = (name: string) => tokenizerJson[name] as Step | null | undefined;
    this.#normalize = normalizerOf(part("normalizer"));
    this.#cutting = cuttingOf(part("pre_tokenizer"));
    this.#subwords = subwordsOf(part("model")!);
    this.#around = aroundOf(part("post_processor"));
    this.#words = new Memory(wordsMax);
    this.#pieces = new Memory(wordsMax);
    this.vocabulary = this.#subwords.vocabulary;
    this.added = new AddedVocabulary(this.vocabulary);
  }

  /** How an added token is written when ids become text again. */
  shown({ content, normalized }: AddedToken): string {
    return normalized && this.#normalize ? this.#normalize(content) : content;
  }

  /** Makes the added tokens findable; `splits`: special ones in a text are text. */
  settle({ splits }: { splits: boolean }): void {
    this.added.settle(this.#normalize, { splits });
  }

  /** What the last step puts around a text. */
  get around(): Around {
    return this.#around;
  }

  /** Ids of a text; with `special`, also what the last step puts around it. */
  encode(text: string, { special }: { special: boolean }): number[] {
    const ids = special ? this.#around.before.slice() : [];
    for (const section of this.added.sections(text)) {
      if (section.id !== undefined) ids.push(section.id);
      else this.#section(text.slice(section.start, section.end), section.start === 0, ids);
    }
    if (special) for (const id of this.#around.after) ids.push(id);
    return ids;
  }

  /**
   * The same without `special`, and for each of some places in the text (ascending, in UTF-16 units) how many tokens end at
   * or before it: a token that reaches over a place is not counted.
   */
  encodeWithPlaces(text: string, places: readonly number[]): { ids: number[]; before: number[] } {
    const ids: number[] = [];
    const before: number[] = [];
    for (const section of this.added.sections(text)) {
      const { start, end, id } = section;
      const count = ids.length;
      const part = text.slice(start, end);
      if (id !== undefined) ids.push(id);
      else this.#section(part, start === 0, ids);
      for (let place = places[before.length]; place !== undefined && place < end; place = places[before.length])
        before.push(
          count + (id !== undefined || place <= start ? 0 : this.#tokensBefore(part, place - start, start === 0)),
        );
    }
    while (before.length < places.length) before.push(ids.length);
    return { ids, before };
  }

  /** A text between added tokens that are looked for in the text as it is. */
  #section(section: string, atStart: boolean, ids: number[]): void {
    const text = this.#normalize ? this.#normalize(section) : section;
    for (const { start, end, id } of this.added.normalizedSections(text)) {
      if (id !== undefined) {
        ids.push(id);
        continue;
      }
      let isFirst = atStart && start === 0;
      for (const word of this.#cutting.words(text.slice(start, end))) {
        const found =
          isFirst && this.#cutting.knowsStart
            ? this.#encodeWord(word, true)
            : (this.#words.recent(word) ?? this.#idsOf(word));
        for (let i = 0; i < found.length; i++) ids.push(found[i]!);
        isFirst = false;
      }
    }
  }

  #idsOf(word: string): number[] {
    return this.#words.of(word, () => this.#encodeWord(word, false));
  }

  #encodeWord(word: string, atStart: boolean): number[] {
    const pieces = this.#cutting.pieces(word, atStart);
    if (pieces.length === 1) return this.#subwords.encode(pieces[0]!.text);
    return pieces.flatMap(({ text }) => this.#pieces.of(text, () => this.#subwords.encode(text)));
  }

  /** How many tokens of a section end at or before a place in it. */
  #tokensBefore(section: string, place: number, atStart: boolean): number {
    const text = this.#normalize ? this.#normalize(section) : section;
    const head = this.#normalizedHead(section.slice(0, place));
    let left = head.length; // where the place is in the normalised text, unless a letter reaches over it
    if (!text.startsWith(head)) for (left = 0; text[left] === head[left];) left++;
    let count = 0;
    for (const { start, end, id } of this.added.normalizedSections(text)) {
      if (id !== undefined) {
        if (end > left) return count;
        count++;
        continue;
      }
      let from = start;
      for (const word of this.#cutting.words(text.slice(start, end))) {
        const isFirst = atStart && from === 0;
        const to = from + word.length;
        if (to > left) return from < left ? count + this.#tokensBeforeInWord(word, left - from, isFirst) : count;
        count += (isFirst ? this.#encodeWord(word, true) : this.#idsOf(word)).length;
        from = to;
      }
    }
    return count;
  }

  /** What the part of a section before a place becomes, when something follows: a letter keeps spaces from being stripped. */
  #normalizedHead(head: string): string {
    if (!this.#normalize) return head;
    const followed = this.#normalize(`${head}x`);
    return followed.endsWith("x") ? followed.slice(0, -1) : this.#normalize(head);
  }

  #tokensBeforeInWord(word: string, place: number, atStart: boolean): number {
    let count = 0;
    for (const piece of this.#cutting.pieces(word, atStart)) {
      const ends: number[] = [];
      this.#subwords.encode(piece.text, ends);
      for (const end of ends) {
        if (placeInWord(piece, end) > place) return count;
        count++;
      }
    }
    return count;
  }
}

/** Ids of words, of the latest. */
class Memory {
  readonly #wordsMax: number;
  #latest = new Map<string, number[]>();
  #older = new Map<string, number[]>();

  constructor(wordsMax: number) {
    this.#wordsMax = wordsMax;
  }

  /** If it came lately. */
  recent(word: string): number[] | undefined {
    return this.#latest.get(word);
  }

  of(word: string, encode: () => number[]): number[] {
    const ids = this.#latest.get(word) ?? this.#older.get(word) ?? encode();
    if (word.length > LETTERS_MAX || this.#latest.has(word)) return ids;
    if (this.#latest.size >= this.#wordsMax / 2) {
      this.#older = this.#latest;
      this.#latest = new Map();
    }
    // A word is a view of its text, which would stay in memory with it: what is remembered is a copy.
    this.#latest.set(JSON.parse(JSON.stringify(word)) as string, ids);
    return ids;
  }
}

/** What a "post_processor" puts around a text. */
function aroundOf(step: Step | null | undefined): Around {
  const around = { before: [] as number[], after: [] as number[] };
  switch (step?.type) {
    case undefined:
    case "ByteLevel":
      return around;
    case "Sequence":
      for (const one of ((step!["processors"] ?? []) as Step[]).map(aroundOf)) {
        around.before.unshift(...one.before);
        around.after.push(...one.after);
      }
      return around;
    case "BertProcessing":
    case "RobertaProcessing": {
      const [, cls] = step!["cls"] as [string, number];
      const [, sep] = step!["sep"] as [string, number];
      return { before: [cls], after: [sep] };
    }
    case "TemplateProcessing":
      return template(step!);
    default:
      throw new UnsupportedError(`the post-processor ${String(step!.type)}`);
  }
}

function template(step: Step): Around {
  const special = (step["special_tokens"] ?? {}) as Record<string, { ids: number[] }>;
  const parts = ((step["single"] ?? []) as { SpecialToken?: { id: string }; Sequence?: { id: string } }[]).map(
    (part) => {
      if (part.Sequence) return "text";
      const ids = special[part.SpecialToken?.id ?? ""]?.ids;
      if (!ids) throw new UnsupportedError(`a template with ${JSON.stringify(part)}, whose ids it does not name`);
      return ids;
    },
  );
  const at = parts.indexOf("text");
  if (at === -1 || parts.includes("text", at + 1))
    throw new UnsupportedError("a template that does not hold the text once");
  return { before: parts.slice(0, at).flat() as number[], after: parts.slice(at + 1).flat() as number[] };
}
