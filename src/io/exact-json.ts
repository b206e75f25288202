// JSON that keeps what JSON.parse loses and other languages keep: 20.0 is not 20, 1234567890123456789 has all its digits, and
// the keys "10" and "2" stay in the order of the file. What is parsed are plain JavaScript values, for recipes and for our own code;
// beside each object and list that lost something is kept what it was. It is good as long as the value is: who changes a number
// or adds a key has his own number and order, and a copy of an object is a new object.

/** What JSON.parse lost of one object or list. */
interface Lost {
  /** The keys as they were in the file, if JavaScript has them in another order. */
  keys: string[] | undefined;
  /** Numbers by key or index, as they were written, if JavaScript writes them otherwise. */
  numbers: Map<string | number, string>;
}

const lost = new WeakMap<object, Lost>();
let isAnyLost = false;

/** A number that JavaScript might write differently: an exponent, a fraction of zeros, more digits than it knows. */
const risky = /[-\d](?:\.0+(?!\d)|\.\d*0(?!\d)|(?:\.\d+)?[eE]|\d{15}|\.\d{7})|-0/;

/**
 * As JSON.parse, a `SyntaxError` included, and nothing of it is lost. Nobody means more than some hundred lists and objects
 * inside each other, and JavaScript cannot walk as deep as it can read.
 */
export function parseExact(text: string, depthMax = 500): unknown {
  const value: unknown = JSON.parse(text);
  const found = survey(value, depthMax);
  if (found.hasIndex || (found.hasNumber && risky.test(text))) new Reader(text).read(value);
  return value;
}

/** Whether there is anything in it that can be lost; throws if it is too deep. */
function survey(value: unknown, depthLeft: number, found = { hasNumber: false, hasIndex: false }): typeof found {
  if (typeof value === "number") found.hasNumber = true;
  if (typeof value !== "object" || value === null) return found;
  if (depthLeft === 0) throw new SyntaxError("lists and objects are nested too deeply");
  if (Array.isArray(value)) for (const item of value) survey(item, depthLeft - 1, found);
  else {
    let isFirst = true;
    for (const key in value) {
      // JavaScript has keys that are numbers before all others.
      if (isFirst) found.hasIndex ||= /^\d/.test(key);
      isFirst = false;
      survey((value as Record<string, unknown>)[key], depthLeft - 1, found);
    }
  }
  return found;
}

/** Goes through a text that is known to be JSON, beside the value that it became. */
class Reader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  /** Reads one value and gives its text if it is a number. Of a key that is there twice `value` is the last. */
  read(value: unknown): string | undefined {
    const start = this.#next();
    if (start === '"') return void this.#string();
    if (start === "{" || start === "[") return void this.#container(value, start === "[");
    const from = this.#at;
    while (this.#at < this.#text.length && !/[,\]}\s]/.test(this.#text[this.#at]!)) this.#at++;
    return /[-\d]/.test(start) ? this.#text.slice(from, this.#at) : undefined;
  }

  #container(value: unknown, isList: boolean): void {
    const inside = typeof value === "object" && value !== null && Array.isArray(value) === isList ? value : undefined;
    const keys = new Set<string>();
    const numbers: Lost["numbers"] = new Map();
    this.#at++;
    for (let index = 0; !/[\]}]/.test(this.#next()); index++) {
      if (this.#text[this.#at] === ",") this.#at++;
      let key: string | number = index;
      if (!isList) {
        this.#next();
        keys.add((key = this.#string()));
        this.#next(); // the colon
        this.#at++;
      }
      const number = this.read((inside as Record<string | number, unknown> | undefined)?.[key]);
      numbers.delete(key);
      if (number !== undefined && String(Number(number)) !== number) numbers.set(key, number);
    }
    this.#at++;
    if (inside === undefined) return;
    const order = [...keys];
    const isOrdered = isList || Object.keys(inside).every((key, i) => key === order[i]);
    if (isOrdered && numbers.size === 0) return void lost.delete(inside);
    isAnyLost = true;
    lost.set(inside, { keys: isOrdered ? undefined : order, numbers });
  }

  /** The first character that is no space. */
  #next(): string {
    while (this.#text.charCodeAt(this.#at) <= 32) this.#at++;
    return this.#text[this.#at]!;
  }

  #string(): string {
    const from = this.#at;
    let end = from;
    let slashes: number;
    do {
      end = this.#text.indexOf('"', end + 1);
      slashes = 0;
      while (this.#text[end - 1 - slashes] === "\\") slashes++;
    } while (slashes % 2 === 1);
    this.#at = end + 1;
    const text = this.#text.slice(from + 1, end);
    return text.includes("\\") ? (JSON.parse(`"${text}"`) as string) : text;
  }
}

/** The keys of an object in the order of its file. */
export function keysOf(object: object): string[] {
  const keys = Object.keys(object);
  const before = lost.get(object)?.keys;
  if (before === undefined) return keys;
  const known = new Set(before);
  return [...before.filter((key) => Object.hasOwn(object, key)), ...keys.filter((key) => !known.has(key))];
}

/** A copy of an object with other values for some keys, or without those that become undefined; the rest stays as it was written. */
export function changedExact<T extends object>(
  object: T,
  changes: Record<string, unknown>,
): T & Record<string, unknown> {
  const copy = { ...object, ...changes };
  const before = lost.get(object);
  if (before !== undefined) lost.set(copy, before);
  return copy;
}

/** Says how the number at a key or index is written, for readers of other formats that know whether it is a float. */
export function keepText(object: object, key: string | number, text: string): void {
  isAnyLost = true;
  const known = lost.get(object);
  if (known) known.numbers.set(key, text);
  else lost.set(object, { keys: undefined, numbers: new Map([[key, text]]) });
}

/** How the number at a key or index was written, if JavaScript writes it otherwise and it is still the same number. */
export function numberText(object: object, key: string | number): string | undefined {
  const text = lost.get(object)?.numbers.get(key);
  return text !== undefined && Object.is((object as Record<string | number, unknown>)[key], Number(text))
    ? text
    : undefined;
}

/** Whether JSON.stringify of anything that was parsed here could differ from its file. */
export function isLossy(): boolean {
  return isAnyLost;
}

/** As JSON.stringify of JSON values, with numbers and keys as they were; a bigint is a number. */
export function stringifyExact(value: unknown, indent = "", margin = "\n"): string {
  if (typeof value === "bigint") return String(value);
  if (typeof value !== "object" || value === null || "toJSON" in value) return JSON.stringify(value) ?? "null";
  const inner = margin + indent;
  const text = (key: string | number): string =>
    numberText(value, key) ?? stringifyExact((value as Record<string | number, unknown>)[key], indent, inner);
  const isList = Array.isArray(value);
  const parts = isList
    ? value.map((_, index) => text(index))
    : keysOf(value)
        .filter((key) => (value as Record<string, unknown>)[key] !== undefined)
        .map((key) => `${JSON.stringify(key)}:${indent && " "}${text(key)}`);
  const [open, close] = isList ? "[]" : "{}";
  if (parts.length === 0) return open! + close!;
  return indent === "" ? open + parts.join(",") + close : open + inner + parts.join(`,${inner}`) + margin + close;
}
