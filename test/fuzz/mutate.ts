// Damage to good inputs: bits, bytes, pieces, and the structure of JSON. What comes out depends on the seed and the round
// alone, so any round can be repeated by itself.

import type { Random } from "../../src/words/random.ts";

export type Bytes = Uint8Array<ArrayBuffer>;

/** Values that readers stumble over. */
const oddValues: readonly unknown[] = JSON.parse(
  `[null, true, false, 0, -1, 1, 0.5, 2147483648, 9007199254740992, 1e308, "", "x", "__proto__", "../x", [], {}, [[]], [null], {"": ""}]`,
) as unknown[];
const oddKeys = ["__proto__", "constructor", "toString", "length", "", "0"];
const oddPieces = Array.from('{}[],:"\\\n\r\0\ufeffé')
  .concat("-1", "1e400", "9007199254740993", "null", "\\u0000", "\\ud800", "__proto__", "../")
  .concat("[".repeat(20_000), '{"a":'.repeat(5000));

export function bytesOf(text: string): Bytes {
  return new TextEncoder().encode(text);
}

export function textOf(bytes: Bytes): string {
  return new TextDecoder().decode(bytes);
}

export function one<T>(random: Random, choices: readonly T[]): T {
  return choices[random.below(choices.length)]!;
}

/** One to four changes of bytes; `words` are pieces of the format, `others` inputs to take pieces from. */
export function mutateBytes(random: Random, good: Bytes, words: readonly string[], others: readonly Bytes[]): Bytes {
  let bytes = good;
  for (let changes = 1 + random.below(4); changes > 0; changes--) bytes = changeBytes(random, bytes, words, others);
  return bytes;
}

function changeBytes(random: Random, bytes: Bytes, words: readonly string[], others: readonly Bytes[]): Bytes {
  const at = random.below(bytes.length + 1);
  const to = Math.min(bytes.length, at + 1 + random.below(random.below(4) === 0 ? bytes.length + 1 : 16));
  const changed = bytes.slice();
  switch (random.below(10)) {
    case 0:
      if (at < bytes.length) changed[at]! ^= 1 << random.below(8);
      return changed;
    case 1:
      if (at < bytes.length) changed[at] = random.below(256);
      return changed;
    case 2: // often still a number
      if (at < bytes.length) changed[at] = 0x30 + random.below(10);
      return changed;
    case 3:
      return bytes.slice(0, at);
    case 4:
      return spliced(bytes, at, to, new Uint8Array());
    case 5:
      return spliced(bytes, at, at, bytes.slice(at, to));
    case 6: {
      const other = one(random, others);
      const from = random.below(other.length + 1);
      return spliced(bytes, at, to, other.slice(from, from + random.below(64)));
    }
    case 7:
      return spliced(bytes, at, at + random.below(4), bytesOf(one(random, oddPieces)));
    default: {
      const piece = bytesOf(one(random, words.length > 0 ? words : oddPieces));
      return spliced(bytes, at, random.below(2) === 0 ? at : to, piece);
    }
  }
}

function spliced(bytes: Bytes, at: number, to: number, piece: Bytes): Bytes {
  const end = Math.max(at, Math.min(to, bytes.length));
  const result = new Uint8Array(at + piece.length + bytes.length - end);
  result.set(bytes.subarray(0, at));
  result.set(piece, at);
  result.set(bytes.subarray(end), at + piece.length);
  return result;
}

/** One to three changes of a JSON value: odd values, keys that go, come twice or get other names, parts that swap places. */
export function mutateJson(random: Random, good: unknown, words: readonly string[]): unknown {
  const root: Holder = { value: structuredClone(good) };
  for (let changes = 1 + random.below(3); changes > 0; changes--) {
    const places = placesIn(root);
    if (places.length === 0) break;
    const { holder, key } = one(random, places);
    const other = one(random, places);
    switch (random.below(7)) {
      case 0:
        if (Array.isArray(holder)) holder.splice(Number(key), 1);
        else if (holder !== root) delete holder[key];
        break;
      case 1:
        if (Array.isArray(holder)) holder.push(structuredClone((holder as Holder)[key]));
        else own(holder, one(random, [...oddKeys, ...words]), structuredClone(holder[key]));
        break;
      case 2:
        own(holder, key, structuredClone(other.holder[other.key]));
        break;
      case 3:
        own(holder, key, one(random, words.length > 0 ? words : ["x"]));
        break;
      case 4:
        if (typeof holder[key] === "number") holder[key] += one(random, [-1, 1, 0.5, 2 ** 31, -(2 ** 40)]);
        break;
      default:
        own(holder, key, structuredClone(one(random, oddValues)));
    }
  }
  return root["value"];
}

type Holder = Record<string, any>; // oxlint-disable-line typescript/no-explicit-any

/** Also when the key is `__proto__`, as JSON would have it. */
function own(holder: Holder, key: string, value: unknown): void {
  Object.defineProperty(holder, key, { value, writable: true, enumerable: true, configurable: true });
}

function placesIn(root: Holder): { holder: Holder; key: string }[] {
  const places: { holder: Holder; key: string }[] = [];
  const walk = (holder: Holder): void => {
    for (const key of Object.keys(holder)) {
      if (places.push({ holder, key }) > 5000) return;
      const inside: unknown = Object.getOwnPropertyDescriptor(holder, key)!.value;
      if (typeof inside === "object" && inside !== null) walk(inside);
    }
  };
  walk(root);
  return places;
}
