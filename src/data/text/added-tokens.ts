// Added tokens such as `<|im_end|>`: they part a text before anything else happens to it. They have ids of their own, flags
// that say where they are found, and come from several files. What is here is Hugging Face's added vocabulary, with the order
// of its lists: which token wins where two say different things follows from it.

import { isSpace, type Normalize } from "./normalize.ts";
import { UnsupportedError } from "./pattern.ts";

/** A token as tokenizer.json writes it. */
export interface AddedToken {
  content: string;
  /** Found only where no letter of a word is beside it. */
  single_word: boolean;
  /** Takes the white space before it; behind it. */
  lstrip: boolean;
  rstrip: boolean;
  /** Looked for in the normalised text, normalised itself. */
  normalized: boolean;
  /** Left out of decoded text on request. */
  special: boolean;
}

/** Part of a text: an added token's, or one between them. */
export interface Section {
  start: number;
  end: number;
  id?: number;
}

const wordBefore = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]$/v;
const wordBehind = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/v;

export class AddedVocabulary {
  /** By id, the flags that count. */
  readonly tokens = new Map<number, AddedToken>();
  readonly #ids = new Map<string, number>();
  readonly #special: AddedToken[] = [];
  readonly #others: AddedToken[] = [];
  readonly #isSpecial = new Set<string>();
  readonly #vocabulary: ReadonlyMap<string, number>;
  #raw = new Finder([]);
  #normalized = new Finder([]);

  constructor(vocabulary: ReadonlyMap<string, number>) {
    this.#vocabulary = vocabulary;
  }

  /** The id of a token, added or not. */
  idOf(token: string): number | undefined {
    return this.#ids.get(token) ?? this.#vocabulary.get(token);
  }

  isSpecial(token: string): boolean {
    return this.#isSpecial.has(token);
  }

  has(token: string): boolean {
    return this.#ids.has(token);
  }

  /** Adds tokens in order; one that has no id yet gets the next. */
  add(tokens: readonly AddedToken[]): void {
    for (const token of tokens)
      if (token.special && token.content !== "" && !this.#isSpecial.has(token.content)) {
        this.#special.push(token);
        this.#isSpecial.add(token.content);
      }
    for (const token of tokens) {
      if (token.content === "" || this.#hasSame(token)) continue;
      const id = this.idOf(token.content) ?? this.#nextId();
      this.#ids.set(token.content, id);
      this.tokens.set(id, token);
      if (!this.#isSpecial.has(token.content)) this.#others.push(token);
    }
  }

  #hasSame(token: AddedToken): boolean {
    const id = this.#ids.get(token.content);
    return id !== undefined && Bun.deepEquals(this.tokens.get(id), token);
  }

  #nextId(): number {
    let largest = -1;
    for (const id of this.#ids.values()) largest = Math.max(largest, id);
    return Math.max(largest + 1, this.#vocabulary.size);
  }

  /** Makes what finds the tokens. `splits`: special tokens in a text are not looked for. */
  settle(normalize: Normalize | undefined, { splits }: { splits: boolean }): void {
    const all = [...this.#special, ...this.#others].filter(({ content }) => !splits || !this.#isSpecial.has(content));
    const of = (normalized: boolean) =>
      all
        .filter((token) => token.normalized === normalized)
        .map(({ content }) => {
          const id = this.#ids.get(content)!;
          const pattern = normalized && normalize ? normalize(content) : content;
          if (pattern === "")
            throw new UnsupportedError(
              `an added token ${JSON.stringify(content)} of which its normalizer leaves nothing`,
            );
          return { pattern, id, token: this.tokens.get(id)! };
        });
    this.#raw = new Finder(of(false));
    this.#normalized = new Finder(of(true));
  }

  /** The sections of a text as it is, which together are all of it. */
  sections(text: string): Section[] {
    return this.#raw.sections(text);
  }

  /** The sections of a normalised text. */
  normalizedSections(text: string): Section[] {
    return this.#normalized.sections(text);
  }
}

interface Node {
  found?: { id: number; token: AddedToken };
  next: Map<number, Node>;
}

/** Finds the longest token at the first place that has one, then behind it. */
class Finder {
  readonly #root: Node = { next: new Map() };
  /** What tokens begin with. */
  readonly #first: RegExp | undefined;

  constructor(tokens: readonly { pattern: string; id: number; token: AddedToken }[]) {
    for (const { pattern, id, token } of tokens) {
      let node = this.#root;
      for (let i = 0; i < pattern.length; i++) {
        const unit = pattern.charCodeAt(i);
        let next = node.next.get(unit);
        if (!next) node.next.set(unit, (next = { next: new Map() }));
        node = next;
      }
      node.found ??= { id, token };
    }
    const units = Array.from(this.#root.next.keys(), (unit) => `\\u${unit.toString(16).padStart(4, "0")}`);
    if (units.length > 0) this.#first = new RegExp(`[${units.join("")}]`, "g"); // by units, so without "v"
  }

  sections(text: string): Section[] {
    const sections: Section[] = [];
    let end = 0;
    for (let at = this.#next(text, 0); at !== -1;) {
      const match = this.#longest(text, at);
      if (match === undefined) {
        at = this.#next(text, at + 1);
        continue;
      }
      const { token, id } = match;
      let [from, to] = [at, match.end];
      at = this.#next(text, to);
      if (
        token.single_word &&
        (wordBefore.test(text.slice(Math.max(0, from - 2), from)) || wordBehind.test(text.slice(to, to + 2)))
      )
        continue;
      if (token.lstrip) while (from > end && isSpace.test(text[from - 1]!)) from--;
      if (token.rstrip) while (to < text.length && isSpace.test(text[to]!)) to++;
      if (from > end) sections.push({ start: end, end: from });
      sections.push({ start: from, end: to, id });
      end = to;
    }
    if (end < text.length) sections.push({ start: end, end: text.length });
    return sections;
  }

  #next(text: string, from: number): number {
    if (!this.#first) return -1;
    this.#first.lastIndex = from;
    return this.#first.exec(text)?.index ?? -1;
  }

  #longest(text: string, at: number): { id: number; token: AddedToken; end: number } | undefined {
    let longest: { id: number; token: AddedToken; end: number } | undefined;
    let node: Node | undefined = this.#root;
    for (let i = at; i < text.length && (node = node.next.get(text.charCodeAt(i))); i++)
      if (node.found) longest = { ...node.found, end: i + 1 };
    return longest;
  }
}
