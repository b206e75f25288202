// Python's values, as far as chat templates meet them: truth, equality, order and items. A template was written for Python and is judged by what
// Python makes of it: 20.0 is not 20, `-7 % 3` is 2, `{'a': None}` prints with quotes and capital letters, and an emoji is one letter.
//
//   str    string, counted by code points     list   Array          int    number, or bigint beyond 2^53
//   bool   boolean                            tuple  Tuple          float  Float
//   None   null                               dict   Map            what is not there   Undefined
//
// Where Python raises, these raise a `TemplateError`; what exists in Python and not here raises one that names it. Nothing
// here gives a template a way to JavaScript's own objects: every attribute is looked up in a table or a Map.
// numbers.ts calculates, show.ts writes values as text, texts.ts has the methods of str. Next: compile.ts.

import { checkLength, made, spend, TemplateError, TemplateLimitError, unsupported } from "./limits.ts";

export type Value =
  | string
  | number
  | bigint
  | boolean
  | null
  | Value[]
  | Dict
  | Float
  | Undefined
  | Range
  | View
  | Lazy
  | Thing
  | Markup
  | Callable;
export type Dict = Map<string | number | bigint | null, Value>;

export class Float {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}
export class Tuple extends Array<Value> {}
/** A pair of `groupby`. */
export class Group extends Tuple {}
/** Prints as nothing, is empty and false; anything else that is done with it raises its message. */
export class Undefined {
  readonly #message: string | (() => string);

  constructor(message: string | (() => string)) {
    this.#message = message;
  }

  get message(): string {
    return typeof this.#message === "string" ? this.#message : this.#message();
  }

  fail(): never {
    throw new TemplateError(this.message);
  }
}
export class Range {
  readonly items: number[] = [];
  readonly text: string;

  constructor(start: number, stop: number, step: number) {
    this.text = `range(${start}, ${stop}${step === 1 ? "" : `, ${step}`})`;
    const length = Math.max(0, Math.ceil((stop - start) / step));
    if (length > rangeMax)
      throw new TemplateLimitError(`asks for a range of ${length} numbers, the limit is ${rangeMax}`);
    for (let i = 0; i < length; i++) this.items.push(start + i * step);
  }
}
/** As Jinja's own sandbox has it. */
const rangeMax = 100_000;
/** What `keys`, `values` and `items` of a dict give. */
export class View {
  readonly kind: "keys" | "values" | "items";
  readonly dict: Dict;

  constructor(kind: View["kind"], dict: Dict) {
    this.kind = kind;
    this.dict = dict;
  }

  get items(): Value[] {
    if (this.kind === "keys") return [...this.dict.keys()];
    return this.kind === "values" ? [...this.dict.values()] : Array.from(this.dict, (pair) => Tuple.from(pair));
  }
}
/** A generator: it can be gone through once. */
export class Lazy {
  readonly iterator: Iterator<Value>;

  constructor(items: Iterable<Value>) {
    this.iterator = items[Symbol.iterator]();
  }

  *rest(): Generator<Value> {
    for (let next = this.iterator.next(); !next.done; next = this.iterator.next()) yield next.value;
  }
}
/** An object with attributes: a namespace, or a cycler. */
export class Thing {
  readonly kind: string;
  readonly get: (name: string) => Value | undefined;
  readonly set: ((name: string, value: Value) => void) | undefined;
  readonly show: (() => string) | undefined;

  constructor(kind: string, get: Thing["get"], set?: Thing["set"], show?: Thing["show"]) {
    this.kind = kind;
    this.get = get;
    this.set = set;
    this.show = show;
  }
}

/** What `safe` and `escape` give. Joined with other text it would escape that, so little more than printing is done with it. */
export class Markup {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

export type Keywords = Map<string, Value>;

/** What can be called; some have attributes. */
export class Callable {
  readonly call: (args: Value[], keywords: Keywords | undefined) => Value;
  readonly get: ((name: string) => Value | undefined) | undefined;

  constructor(call: Callable["call"], get?: Callable["get"]) {
    this.call = call;
    this.get = get;
  }
}

/** What Python takes for a space: \x1c to \x1f and \x85 are, U+FEFF is none. */
export const spaces = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";

// ---- numbers, as they are kept ----------------------------------------------------------------------------------------

/** An int: a bigint where a number would not be exact. */
export type Int = number | bigint;

export function isInt(value: Value): value is number | bigint | boolean {
  return typeof value === "number" || typeof value === "bigint" || typeof value === "boolean";
}

/** An int or float as JavaScript compares it exactly; undefined for what is no number. */
export function numeric(value: Value): Int | undefined {
  if (typeof value === "number" || typeof value === "bigint") return value;
  if (typeof value === "boolean") return Number(value);
  return value instanceof Float ? value.value : undefined;
}

/** A bigint where it must be one. */
export function int(value: bigint): Int {
  return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
}

// ---- truth, equality, order ---------------------------------------------------------------------------------------------

export function isTuple(value: Value): value is Tuple {
  return value instanceof Tuple;
}

export function typeName(value: Value): string {
  if (typeof value === "string" || value instanceof Markup) return "str";
  if (value === null) return "NoneType";
  if (typeof value === "boolean") return "bool";
  if (value instanceof Float) return "float";
  if (isInt(value)) return "int";
  if (Array.isArray(value)) return isTuple(value) ? "tuple" : "list";
  if (value instanceof Map) return "dict";
  if (value instanceof Undefined) return "Undefined";
  if (value instanceof Range) return "range";
  if (value instanceof View) return `dict_${value.kind}`;
  if (value instanceof Lazy) return "generator";
  return value instanceof Thing ? value.kind : "function";
}

export function isTrue(value: Value): boolean {
  if (typeof value === "boolean") return value;
  if (typeof value === "string") return value !== "";
  if (value === null || value instanceof Undefined) return false;
  const number = numeric(value);
  if (number !== undefined) return number !== 0;
  if (value instanceof Lazy || value instanceof Thing || value instanceof Callable) return true;
  return lengthOf(value)! > 0;
}

/** Python's len(); undefined where it raises. */
export function lengthOf(value: Value): number | undefined {
  if (typeof value === "string") return pointsOf(value);
  if (value instanceof Markup) return pointsOf(value.text);
  if (Array.isArray(value)) return value.length;
  if (value instanceof Map) return value.size;
  if (value instanceof Undefined) return 0;
  if (value instanceof Range) return value.items.length;
  return value instanceof View ? value.dict.size : undefined;
}

/** Whether a text has letters that JavaScript counts as two. */
export const isWide = (text: string): boolean => /[\ud800-\udbff][\udc00-\udfff]/.test(text);

function pointsOf(text: string): number {
  if (!isWide(text)) return text.length;
  let count = 0;
  for (const _ of text) count++;
  return count;
}

/** What a loop goes through; throws for what cannot be gone through. */
export function iterate(value: Value): Iterable<Value> {
  if (Array.isArray(value)) return value;
  if (typeof value === "string") return value;
  if (value instanceof Map) return value.keys();
  if (value instanceof Undefined) return [];
  if (value instanceof Markup) return value.text;
  if (value instanceof Range || value instanceof View) return value.items;
  if (value instanceof Lazy) return value.rest();
  throw new TemplateError(`"${typeName(value)}" object is not iterable`);
}

/** All that a loop goes through, counted. */
export function listOf(value: Value): Value[] {
  const list: Value[] = [];
  for (const item of iterate(value)) {
    spend(1);
    list.push(item);
  }
  return list;
}

export function equal(a: Value, b: Value): boolean {
  if (typeof a === "string" && typeof b === "string") return a === b;
  const x = numeric(a);
  if (x !== undefined) {
    const y = numeric(b);
    return y !== undefined && orderOf(x, y) === 0;
  }
  spend(1);
  if (a instanceof Markup || b instanceof Markup) {
    return typeof plain(a) === "string" && plain(a) === plain(b);
  }
  if (a === b) return true;
  if (a instanceof Undefined) return b instanceof Undefined;
  if (Array.isArray(a))
    return (
      Array.isArray(b) && isTuple(a) === isTuple(b) && a.length === b.length && a.every((item, i) => same(item, b[i]!))
    );
  if (a instanceof Map) {
    if (!(b instanceof Map) || a.size !== b.size) return false;
    for (const [key, item] of a) {
      const other = b.get(key);
      if (other === undefined || !same(item, other)) return false;
    }
    return true;
  }
  if (a instanceof Range && b instanceof Range) return equal(a.items, b.items);
  if (a instanceof View && b instanceof View) throw unsupported(`comparison of ${typeName(a)}`);
  return false;
}

/** Inside a list the same object is equal to itself, even nan. */
const same = (a: Value, b: Value): boolean => a === b || equal(a, b);

/** Of an int and a bigint too, exactly. */
const orderOf = (x: Int, y: Int): number => (x < y ? -1 : x > y ? 1 : x >= y ? 0 : NaN);

/** Less than zero, zero, or more; NaN if neither is. Throws for what has no order. */
export function compare(a: Value, b: Value): number {
  if (a instanceof Markup || b instanceof Markup) return compare(plain(a), plain(b));
  if (typeof a === "string" && typeof b === "string") return compareTexts(a, b);
  const x = numeric(a);
  const y = numeric(b);
  if (x !== undefined && y !== undefined) return orderOf(x, y);
  if (a instanceof Undefined) a.fail();
  if (b instanceof Undefined) b.fail();
  spend(1);
  if (Array.isArray(a) && Array.isArray(b) && isTuple(a) === isTuple(b)) {
    for (let i = 0; i < Math.min(a.length, b.length); i++) if (!same(a[i]!, b[i]!)) return compare(a[i]!, b[i]!);
    return a.length - b.length;
  }
  throw new TemplateError(`"${typeName(a)}" and "${typeName(b)}" cannot be compared`);
}

const plain = (value: Value): Value => (value instanceof Markup ? value.text : value);

/** By code points, not by halves of them. */
function compareTexts(a: string, b: string): number {
  if (a === b) return 0;
  let i = 0;
  while (i < a.length && a[i] === b[i]) i++;
  const isHalf = (code: number) => code >= 0xdc00 && code <= 0xdfff;
  if (isHalf(a.charCodeAt(i)) || isHalf(b.charCodeAt(i))) i--;
  return (a.codePointAt(i) ?? -1) - (b.codePointAt(i) ?? -1);
}

/** Python's sorted(); what it compares is `key` of an item. */
export function sorted(items: Value[], key: (item: Value) => Value, reverse = false): Value[] {
  const keyed = items.map((item) => ({ item, key: key(item) }));
  spend(items.length * 8);
  const sign = reverse ? -1 : 1;
  return keyed
    .sort((a, b) => {
      const order = compare(a.key, b.key);
      if (Number.isNaN(order)) throw unsupported("sorting with nan");
      return sign * order;
    })
    .map(({ item }) => item);
}

/** `needle in value`. */
export function contains(value: Value, needle: Value): boolean {
  if (typeof value === "string") {
    if (typeof needle === "string") {
      spend(value.length / 16);
      return value.includes(needle);
    }
    throw new TemplateError(`"in" a text needs a text, not "${typeName(needle)}"`);
  }
  if (value instanceof Map) return value.has(keyOf(needle)!);
  if (value instanceof View && value.kind === "keys") return value.dict.has(keyOf(needle)!);
  if (value instanceof Markup) throw unsupported(`"in" with text that was marked as safe`);
  for (const item of iterate(value)) if (same(item, needle)) return true;
  return false;
}

/** A key as dicts here have it. 1, 1.0 and True are one key in Python. Undefined for what is never one. */
export function keyOf(value: Value): string | number | bigint | null | undefined {
  if (typeof value === "string" || value === null) return value;
  if (value instanceof Markup) return value.text;
  const number = numeric(value);
  if (number !== undefined) return Number.isInteger(number) ? int(BigInt(number)) : number;
  if (value instanceof Map || (Array.isArray(value) && !isTuple(value)))
    throw new TemplateError(`unhashable type: "${typeName(value)}"`);
  return undefined;
}

/** A key of a dict that a template writes. */
export function newKey(value: Value): string | number | bigint | null {
  const key = keyOf(value);
  if (key === undefined || typeof value === "boolean" || value instanceof Float)
    throw unsupported(`a key of type "${typeName(value)}" in a dict`);
  return key;
}

// ---- items --------------------------------------------------------------------------------------------------------------

/** `value[key]`, without attributes; undefined where Python raises. */
export function itemOf(value: Value, key: Value): Value | undefined {
  if (value instanceof Map) {
    if (typeof key === "string") return value.get(key);
    const isHashable = !(key instanceof Map) && !(Array.isArray(key) && !isTuple(key));
    return isHashable ? value.get(keyOf(key)!) : undefined;
  }
  if (value instanceof Undefined) value.fail();
  if (!isInt(key)) return undefined;
  if (value instanceof Markup) throw unsupported("a letter of text that was marked as safe");
  const index = Number(key);
  if (typeof value === "string") {
    if (!isWide(value)) return value[index < 0 ? index + value.length : index];
    return Array.from(value).at(index);
  }
  const items = value instanceof Range ? value.items : Array.isArray(value) ? value : undefined;
  return items?.[index < 0 ? index + items.length : index];
}

/** `value[start:stop:step]`. */
export function sliceOf(value: Value, start: Value, stop: Value, step: Value): Value {
  if (value instanceof Undefined) value.fail();
  if (value instanceof Range || value instanceof Markup) throw unsupported(`a slice of ${typeName(value)}`);
  if (typeof value !== "string" && !Array.isArray(value))
    throw new TemplateError(`"${typeName(value)}" object cannot be sliced`);
  const bound = (limit: Value): number | undefined => {
    if (limit === null) return undefined;
    if (isInt(limit)) return Number(limit);
    throw new TemplateError(`slice indices must be whole numbers, not "${typeName(limit)}"`);
  };
  const by = bound(step) ?? 1;
  if (by === 0) throw new TemplateError("slice step cannot be zero");
  if (by === 1 && (typeof value !== "string" || !isWide(value))) {
    const cut = value.slice(bound(start), bound(stop));
    return typeof cut === "string" ? made(cut) : madeList(cut);
  }
  const items: Value[] = typeof value === "string" ? Array.from(value) : value;
  const { length } = items;
  const [least, most] = by > 0 ? [0, length] : [-1, length - 1];
  const place = (limit: number | undefined, otherwise: number) =>
    limit === undefined ? otherwise : Math.min(most, Math.max(least, limit < 0 ? limit + length : limit));
  const picked: Value[] = isTuple(value) ? new Tuple() : [];
  const [from, to] = [place(bound(start), by > 0 ? 0 : length - 1), place(bound(stop), by > 0 ? length : -1)];
  for (let i = from; by > 0 ? i < to : i > to; i += by) picked.push(items[i]!);
  return typeof value === "string" ? made((picked as string[]).join("")) : madeList(picked);
}

export function madeList<T extends Value[]>(list: T): T {
  checkLength(8 * list.length);
  return list;
}
