// Packing: which documents share a row. Rows are never padded, so a row that is not full costs no arithmetic; but full
// rows make even micro-batches, and even micro-batches keep the device busy.
//
// Best fit, longest first: a document goes into the fullest row that still has room for it. The outcome depends only on
// the lengths and on the order in which documents of equal length are given, and the number of rows on the lengths
// alone: every shuffle of the same documents packs into equally many rows.

import { assert } from "../words/errors.ts";

/** Documents by number, row by row; the lengths of a row's documents add up to at most `capacity`. */
export function pack(lengths: ArrayLike<number>, order: ArrayLike<number>, capacity: number): number[][] {
  const byLength: number[][] = Array.from({ length: capacity + 1 }, () => []);
  for (let i = 0; i < order.length; i++) {
    const document = order[i]!;
    const length = lengths[document]!;
    assert(
      length >= 1 && length <= capacity,
      `document ${document} has ${length} tokens, a row holds 1 to ${capacity}`,
    );
    byLength[length]!.push(document);
  }
  const rows: number[][] = [];
  const withRoom: number[][] = Array.from({ length: capacity + 1 }, () => []); // rows by free tokens
  const free = new BitSet(capacity + 1); // which of those lists are not empty
  for (let length = capacity; length > 0; length--) {
    for (const document of byLength[length]!) {
      let room = free.firstFrom(length);
      let row: number;
      if (room === -1) {
        room = capacity;
        row = rows.push([]) - 1;
      } else {
        row = withRoom[room]!.pop()!;
        if (withRoom[room]!.length === 0) free.clear(room);
      }
      rows[row]!.push(document);
      withRoom[room - length]!.push(row);
      free.set(room - length);
    }
  }
  return rows;
}

/** The share of `rows × capacity` that holds no token. */
export function packingWaste(tokens: number, rows: number, capacity: number): number {
  return rows === 0 ? 0 : 1 - tokens / (rows * capacity);
}

/** Finds the next full list among thousands without visiting the empty ones. */
class BitSet {
  readonly #words: Uint32Array;

  constructor(size: number) {
    this.#words = new Uint32Array(Math.ceil(size / 32));
  }

  set(bit: number): void {
    this.#words[bit >>> 5]! |= 1 << (bit & 31);
  }

  clear(bit: number): void {
    this.#words[bit >>> 5]! &= ~(1 << (bit & 31));
  }

  /** The first bit at or after `from`, or −1. */
  firstFrom(from: number): number {
    let word = from >>> 5;
    let bits = this.#words[word]! & (-1 << (from & 31));
    while (bits === 0) {
      if (++word >= this.#words.length) return -1;
      bits = this.#words[word]!;
    }
    return word * 32 + 31 - Math.clz32(bits & -bits);
  }
}
