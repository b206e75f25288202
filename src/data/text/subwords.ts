// The models of tokenizers: a piece of text to token ids. All four kinds of Hugging Face's library, as it does them.
//
// BPE works on ids: letters become tokens, and then of all neighbours that may be merged the pair that was learned first is,
// the leftmost of equals, until none is left. The pairs wait in a heap, so that a long piece takes n log n.

import { UnsupportedError } from "./pattern.ts";
import type { Step } from "./normalize.ts";

/** Tokens of a piece; `ends`, where it is wanted, gets for each how many of the piece's UTF-16 units lie before its end. */
export type EncodePiece = (piece: string, ends?: number[]) => number[];

export interface Subwords {
  vocabulary: ReadonlyMap<string, number>;
  /** An `UnsupportedError` says that the model has no token for a piece. */
  encode: EncodePiece;
}

/** The function of a "model"; its vocabulary has been checked. */
export function subwordsOf(model: Step): Subwords {
  switch (model.type ?? guessedType(model)) {
    case "BPE":
      return bpe(model);
    case "Unigram":
      return unigram(model);
    case "WordPiece":
      return wordPiece(model);
    case "WordLevel":
      return wordLevel(model);
    default:
      throw new UnsupportedError(`the model ${String(model.type)}`);
  }
}

/** Old files do not say of which kind they are. */
function guessedType(model: Step): string | undefined {
  if (Array.isArray(model["vocab"])) return "Unigram";
  if (model["merges"]) return "BPE";
  return model["continuing_subword_prefix"] === undefined ? "WordLevel" : "WordPiece";
}

/** A quarter of a million tokens: without a list of pairs it takes half the time. */
function vocabularyOf(model: Step): Map<string, number> {
  const vocabulary = new Map<string, number>();
  const vocab = model["vocab"] as Record<string, number>;
  for (const token of Object.keys(vocab)) vocabulary.set(token, vocab[token]!);
  return vocabulary;
}

const utf8 = new TextEncoder();

/** Tokens for the bytes of a letter, if the vocabulary has them all. */
function byteTokens(letter: string, vocabulary: ReadonlyMap<string, number>): number[] | undefined {
  const ids: number[] = [];
  for (const byte of utf8.encode(letter)) {
    const id = vocabulary.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
    if (id === undefined) return undefined;
    ids.push(id);
  }
  return ids;
}

/** The id for what has none; undefined if there is no such token. */
function unknownId(model: Step, vocabulary: ReadonlyMap<string, number>): number | undefined {
  const token = model["unk_token"] as string | null | undefined;
  if (token === null || token === undefined) return undefined;
  const id = vocabulary.get(token);
  if (id === undefined) throw new UnsupportedError(`unk_token ${JSON.stringify(token)}, which its vocabulary lacks`);
  return id;
}

// ---- BPE ------------------------------------------------------------------------------------------------------------

/** Ids are below 2^24 (tokenizer.ts), so a pair is a whole number. */
const pairOf = (left: number, right: number): number => left * 2 ** 24 + right;

function bpe(model: Step): Subwords {
  const vocabulary = vocabularyOf(model);
  if (model["dropout"])
    throw new UnsupportedError(`a BPE with dropout ${String(model["dropout"])}, which encodes a text ever differently`);
  const { continuing_subword_prefix, end_of_word_suffix, fuse_unk: fuses, byte_fallback: hasBytes } = model;
  const prefix = (continuing_subword_prefix ?? "") as string;
  const suffix = (end_of_word_suffix ?? "") as string;
  const unknown = unknownId(model, vocabulary);
  const merges = mergesOf(model, vocabulary, prefix);

  /** The piece letter by letter. */
  const letters = (piece: string, ids: number[], lengths: number[]): void => {
    let waiting = 0; // UTF-16 units that are to be unknown
    const settle = (): void => {
      if (waiting === 0) return;
      ids.push(unknown!);
      lengths.push(waiting);
      waiting = 0;
    };
    for (let at = 0; at < piece.length;) {
      const letter = String.fromCodePoint(piece.codePointAt(at)!);
      const isLast = at + letter.length === piece.length;
      const token = (at === 0 ? "" : prefix) + letter + (isLast ? suffix : "");
      at += letter.length;
      const id = vocabulary.get(token);
      if (id !== undefined) {
        settle();
        ids.push(id);
        lengths.push(letter.length);
        continue;
      }
      const bytes = hasBytes ? byteTokens(token, vocabulary) : undefined;
      // Each byte's token covers the letter: its length is counted with the first.
      if (bytes) for (const [i, byte] of bytes.entries()) lengths[ids.push(byte) - 1] = i === 0 ? letter.length : 0;
      else if (unknown !== undefined) {
        if (!fuses) settle();
        waiting += letter.length;
      }
    }
    settle();
  };

  const encode: EncodePiece = (piece, ends) => {
    const whole = model["ignore_merges"] ? vocabulary.get(piece) : undefined;
    if (whole !== undefined) {
      ends?.push(piece.length);
      return [whole];
    }
    const ids: number[] = [];
    const lengths: number[] = [];
    letters(piece, ids, lengths);
    merge(ids, lengths, merges);
    let end = 0;
    if (ends) for (const length of lengths) ends.push((end += length));
    return ids;
  };
  return { vocabulary, encode };
}

interface Merges {
  /** By pair: when it was learned. */
  ranks: Map<number, number>;
  /** By rank: what it becomes. */
  merged: number[];
}

function mergesOf(model: Step, vocabulary: ReadonlyMap<string, number>, prefix: string): Merges {
  const merges: Merges = { ranks: new Map(), merged: [] };
  for (const [rank, entry] of ((model["merges"] ?? []) as (string | [string, string])[]).entries()) {
    const pair = typeof entry === "string" ? entry.split(" ") : entry;
    const [left, right] = pair;
    if (pair.length !== 2 || left === undefined || right === undefined)
      throw new UnsupportedError(`a merge ${JSON.stringify(entry)}`);
    const a = vocabulary.get(left);
    const b = vocabulary.get(right);
    const both = vocabulary.get(left + (prefix === "" ? right : right.slice(prefix.length)));
    if (a === undefined || b === undefined || both === undefined)
      throw new UnsupportedError(`a merge ${JSON.stringify(entry)} of tokens that its vocabulary lacks`);
    merges.ranks.set(pairOf(a, b), rank);
    merges.merged[rank] = both;
  }
  return merges;
}

/** Merges neighbours in place, in the order in which the pairs were learned. */
function merge(ids: number[], lengths: number[], { ranks, merged }: Merges): void {
  const count = ids.length;
  if (count < 2) return;
  // Entries are rank · 2^26 + place: the smallest is what comes next. A stale one is known by its pair's rank.
  const heap = new Heap();
  const rankAt = (at: number, next: number): number | undefined => ranks.get(pairOf(ids[at]!, ids[next]!));
  for (let at = 0; at + 1 < count; at++) {
    const rank = rankAt(at, at + 1);
    if (rank !== undefined) heap.push(rank * 2 ** 26 + at);
  }
  if (heap.size === 0) return;
  const next = Int32Array.from(ids, (_, at) => at + 1);
  const before = Int32Array.from(ids, (_, at) => at - 1);
  while (heap.size > 0) {
    const entry = heap.pop();
    const rank = Math.floor(entry / 2 ** 26);
    const at = entry - rank * 2 ** 26;
    const right = next[at]!;
    if (ids[at] === -1 || right >= count || rankAt(at, right) !== rank) continue;
    ids[at] = merged[rank]!;
    lengths[at]! += lengths[right]!;
    ids[right] = -1;
    const after = (next[at] = next[right]!);
    if (after < count) {
      before[after] = at;
      const following = rankAt(at, after);
      if (following !== undefined) heap.push(following * 2 ** 26 + at);
    }
    if (before[at]! >= 0) {
      const preceding = rankAt(before[at]!, at);
      if (preceding !== undefined) heap.push(preceding * 2 ** 26 + before[at]!);
    }
  }
  let kept = 0;
  for (let at = 0; at < count; at = next[at]!) {
    ids[kept] = ids[at]!;
    lengths[kept++] = lengths[at]!;
  }
  ids.length = lengths.length = kept;
}

/** The smallest number first. */
class Heap {
  readonly #values: number[] = [];

  get size(): number {
    return this.#values.length;
  }

  push(value: number): void {
    const values = this.#values;
    let at = values.length;
    for (; at > 0;) {
      const parent = (at - 1) >> 1;
      if (values[parent]! <= value) break;
      values[at] = values[parent]!;
      at = parent;
    }
    values[at] = value;
  }

  pop(): number {
    const values = this.#values;
    const smallest = values[0]!;
    const last = values.pop()!;
    const count = values.length;
    if (count === 0) return smallest;
    let at = 0;
    for (let child = 1; child < count; child = 2 * at + 1) {
      if (child + 1 < count && values[child + 1]! < values[child]!) child++;
      if (values[child]! >= last) break;
      values[at] = values[child]!;
      at = child;
    }
    values[at] = last;
    return smallest;
  }
}

/** Unigram's and WordPiece's time grows with the letters of a piece times these. */
const lettersMax = 4096;

// ---- Unigram --------------------------------------------------------------------------------------------------------

function unigram(model: Step): Subwords {
  const pieces = model["vocab"] as [string, number][];
  const vocabulary = new Map(pieces.map(([token], id) => [token, id]));
  const unknown = model["unk_id"] as number | null | undefined;
  const lowest = pieces.reduce((least, [, score]) => Math.min(least, score), Infinity);
  const longest = pieces.reduce((most, [token]) => Math.max(most, token.length), 0);
  if (longest > lettersMax) throw new UnsupportedError(`a token of ${longest} letters (the limit is ${lettersMax})`);

  const encode: EncodePiece = (text, ends) => {
    /** By place: the best score of what ends there, and where its last token begins. */
    const score = new Float64Array(text.length + 1).fill(-Infinity);
    const from = new Int32Array(text.length + 1).fill(-1);
    const isKnown = new Uint8Array(text.length + 1);
    score[0] = 0;
    const reach = (start: number, end: number, candidate: number, known: boolean): void => {
      if (from[end] !== -1 && candidate <= score[end]!) return;
      score[end] = candidate;
      from[end] = start;
      isKnown[end] = known ? 1 : 0;
    };
    for (let start = 0; start < text.length;) {
      const width = text.codePointAt(start)! > 0xffff ? 2 : 1;
      let hasLetter = false;
      for (let end = start + width; end <= Math.min(text.length, start + longest); end++) {
        const id = vocabulary.get(text.slice(start, end));
        if (id === undefined) continue;
        reach(start, end, score[start]! + pieces[id]![1], id !== unknown);
        hasLetter ||= end === start + width;
      }
      if (!hasLetter) {
        if (unknown === null || unknown === undefined)
          throw new UnsupportedError("no unk_id, and no token for a letter of a text");
        reach(start, start + width, score[start]! + lowest - 10, false);
      }
      start += width;
    }
    const spans: [start: number, end: number][] = [];
    let isFused = false;
    for (let end = text.length; end > 0; end = from[end]!) {
      const last = spans.at(-1);
      // Unknown neighbours are one.
      if (last && isFused && isKnown[end] === 0) last[0] = from[end]!;
      else spans.push([from[end]!, end]);
      isFused = isKnown[end] === 0;
    }
    const ids: number[] = [];
    for (const [start, end] of spans.reverse()) {
      const token = text.slice(start, end);
      const id = vocabulary.get(token);
      const found =
        id !== undefined ? [id] : ((model["byte_fallback"] ? byteTokens(token, vocabulary) : undefined) ?? [unknown!]);
      for (const one of found) {
        ids.push(one);
        ends?.push(end);
      }
    }
    return ids;
  };
  return { vocabulary, encode };
}

// ---- WordPiece, WordLevel -------------------------------------------------------------------------------------------

function wordPiece(model: Step): Subwords {
  const vocabulary = vocabularyOf(model);
  const unknown = unknownId(model, vocabulary);
  const prefix = String(model["continuing_subword_prefix"] ?? "##");
  const wordMax = (model["max_input_chars_per_word"] as number | undefined) ?? 100;
  if (wordMax > lettersMax)
    throw new UnsupportedError(`max_input_chars_per_word ${wordMax} (the limit is ${lettersMax})`);
  const encode: EncodePiece = (piece, ends) => {
    const ids: number[] = [];
    const found: number[] = [];
    for (let start = 0; start < piece.length && Array.from(piece).length <= wordMax; start = found.at(-1)!) {
      let end = piece.length;
      let id: number | undefined;
      for (; end > start; end--)
        if ((id = vocabulary.get((start > 0 ? prefix : "") + piece.slice(start, end))) !== undefined) break;
      if (id === undefined) break;
      ids.push(id);
      found.push(end);
    }
    if (found.at(-1) !== piece.length) {
      ids.splice(0, Infinity, orRefused(unknown, piece));
      found.splice(0, Infinity, piece.length);
    }
    ends?.push(...found);
    return ids;
  };
  return { vocabulary, encode };
}

function wordLevel(model: Step): Subwords {
  const vocabulary = vocabularyOf(model);
  const unknown = unknownId(model, vocabulary);
  const encode: EncodePiece = (piece, ends) => {
    ends?.push(piece.length);
    return [vocabulary.get(piece) ?? orRefused(unknown, piece)];
  };
  return { vocabulary, encode };
}

function orRefused(unknown: number | undefined, piece: string): number {
  if (unknown === undefined)
    throw new UnsupportedError(`no unk_token, and no token for ${JSON.stringify(piece.slice(0, 100))}`);
  return unknown;
}
