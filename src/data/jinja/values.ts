// Python's values and operators, as far as chat templates meet them. A template was written for Python and is judged by what
// Python makes of it: 20.0 is not 20, `-7 % 3` is 2, `{'a': None}` prints with quotes and capital letters, and an emoji is one letter.
//
//   str    string, counted by code points     list   Array          int    number, or bigint beyond 2^53
//   bool   boolean                            tuple  Tuple          float  Float
//   None   null                               dict   Map            what is not there   Undefined
//
// Where Python raises, these raise a `TemplateError`; what exists in Python and not here raises one that names it. Nothing
// here gives a template a way to JavaScript's own objects: every attribute is looked up in a table or a Map. Next: compile.ts.

/** What a template may not do, or what is not there, in words for whoever wrote it. */
export class TemplateError extends Error {}

/** A template that took too long or made too much. */
export class TemplateLimitError extends Error {}

export const unsupported = (what: string): TemplateError =>
  new TemplateError(`uses ${what}, which Jinja has and Sluice does not; replace it in the template`);

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
const spacesAround = new RegExp(`^[${spaces}]+|[${spaces}]+$`, "g");

// ---- limits -----------------------------------------------------------------------------------------------------------

/** What a rendering may take. */
export interface RenderLimits {
  /** Of the clock. */
  milliseconds: number;
  /** Letters of one text; four million tokens of a conversation. */
  textMax: number;
  /** Letters of all texts, elements of all lists and rounds of all loops on the way. */
  madeMax: number;
}
let limits: RenderLimits = { milliseconds: Infinity, textMax: 2 ** 24, madeMax: Infinity };
let left = Infinity;
let nextLook = -Infinity;
let deadline = Infinity;
let callDepth = 0;
/** Macros inside macros; Python's own stack ends soon after. */
const callDepthMax = 200;
/** How often the clock is looked at: after so much work. */
const lookEvery = 2 ** 15;

/** Runs something within limits. */
export function within<T>(given: RenderLimits, work: () => T): T {
  const before = { limits, left, nextLook, deadline };
  limits = given;
  left = given.madeMax;
  nextLook = left - lookEvery;
  deadline = performance.now() + given.milliseconds;
  try {
    return work();
  } catch (error) {
    if (error instanceof RangeError && /call stack/.test(error.message))
      throw new TemplateError("calls itself, or nests, without end (the call stack is full)");
    throw error;
  } finally {
    ({ limits, left, nextLook, deadline } = before);
  }
}

/** Counts work: letters of a text, elements of a list, rounds of a loop. */
export function spend(count: number): void {
  if ((left -= count) < nextLook) look();
}

/** Runs the body of a macro, which may call itself. */
export function called<T>(work: () => T): T {
  if (callDepth === callDepthMax) throw new TemplateError(`calls itself more than ${callDepthMax} times inside itself`);
  callDepth++;
  try {
    return work();
  } finally {
    callDepth--;
  }
}

function look(): void {
  if (left < 0) throw new TemplateLimitError(`makes more than ${limits.madeMax} letters on its way`);
  nextLook = left - lookEvery;
  if (performance.now() > deadline) throw new TemplateLimitError(`was stopped after ${limits.milliseconds / 1000} s`);
}

/** Counts a text before it is made. */
export function checkLength(length: number): void {
  if (length > limits.textMax)
    throw new TemplateLimitError(`makes a text of ${length} letters, the limit is ${limits.textMax}`);
  spend(length + 1);
}

export function made(text: string): string {
  checkLength(text.length);
  return text;
}

/** A text with another behind it: only that is counted, for this is how long texts come to be. */
export function grown(text: string, more: string): string {
  const result = text + more;
  if (result.length > limits.textMax) checkLength(result.length);
  spend(more.length + 1);
  return result;
}

function madeList<T extends Value[]>(list: T): T {
  checkLength(8 * list.length);
  return list;
}

// ---- numbers ----------------------------------------------------------------------------------------------------------

type Number_ = number | bigint;

export function isInt(value: Value): value is number | bigint | boolean {
  return typeof value === "number" || typeof value === "bigint" || typeof value === "boolean";
}

/** An int or float as JavaScript compares it exactly; undefined for what is no number. */
export function numeric(value: Value): Number_ | undefined {
  if (typeof value === "number" || typeof value === "bigint") return value;
  if (typeof value === "boolean") return Number(value);
  return value instanceof Float ? value.value : undefined;
}

/** A bigint where it must be one. */
export function int(value: bigint): Number_ {
  return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
}

/** Bits of an int that a template may make: Python prints none of more than 4,300 digits. */
const bitsMax = 100_000;
const bits = (value: Number_): number => BigInt(value).toString(16).length * 4;

function checkBits(count: number): void {
  if (count > bitsMax)
    throw new TemplateLimitError(`makes a number of ${Math.round(count)} bits, the limit is ${bitsMax}`);
  spend(count / 8);
}

/** Python's int(): of a float towards zero, of a text by its digits; undefined for what is none. */
export function toInt(value: Value): Number_ | undefined {
  if (isInt(value)) return numeric(value)!;
  if (value instanceof Float) {
    if (!Number.isFinite(value.value))
      throw new TemplateError(`cannot convert float ${floatText(value.value)} to integer`);
    return int(BigInt(Math.trunc(value.value)));
  }
  const text = typeof value === "string" ? asciiNumber(value) : undefined;
  return text !== undefined && /^[+-]?\d+(_\d+)*$/.test(text)
    ? int(BigInt(text.replaceAll("_", "").replace("+", "")))
    : undefined;
}

/** Python's float(); undefined for what is none. */
export function toFloat(value: Value): Float | undefined {
  const number = numeric(value);
  if (number !== undefined) return float(Number(number), number);
  const text = typeof value === "string" ? asciiNumber(value) : undefined;
  if (text === undefined) return undefined;
  const word = /^([+-]?)(?:(inf|infinity)|nan)$/i.exec(text);
  if (word) return new Float(word[2] === undefined ? NaN : word[1] === "-" ? -Infinity : Infinity);
  const digits = String.raw`\d+(?:_\d+)*`;
  const pattern = new RegExp(
    String.raw`^[+-]?(?:${digits}(?:\.(?:${digits})?)?|\.${digits})(?:e[+-]?${digits})?$`,
    "i",
  );
  return pattern.test(text) ? new Float(Number(text.replaceAll("_", ""))) : undefined;
}

function float(value: number, from: Number_): Float {
  if (typeof from === "bigint" && !Number.isFinite(value)) throw new TemplateError("int too large to convert to float");
  return new Float(value);
}

function asciiNumber(text: string): string {
  if (/\p{Nd}/u.test(text.replace(/[0-9]+/g, ""))) throw unsupported("digits of another script as a number");
  return text.replace(spacesAround, "");
}

/** As Python writes a float: the shortest digits that mean it, 1e-07, 1e+16, 20.0. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  const [, sign, first, rest = "", raised] = /^(-?)(\d)(?:\.(\d+))?e([+-]\d+)$/.exec(value.toExponential())!;
  const exponent = Number(raised);
  const minus = Object.is(value, -0) ? "-" : sign!;
  if (exponent < -4 || exponent >= 16) {
    const power = String(Math.abs(exponent)).padStart(2, "0");
    return `${minus}${first}${rest && `.${rest}`}e${exponent < 0 ? "-" : "+"}${power}`;
  }
  const digits = first! + rest;
  if (exponent < 0) return `${minus}0.${"0".repeat(-exponent - 1)}${digits}`;
  return `${minus}${digits.slice(0, exponent + 1).padEnd(exponent + 1, "0")}.${digits.slice(exponent + 1) || "0"}`;
}

/** To so many digits behind the point, exactly half to even, as Python rounds. */
export function toFixed(value: number, digits: number): string {
  if (digits > 60 || Math.abs(value) >= 1e21) throw unsupported(`rounding of ${value} to ${digits} digits`);
  const text = value.toFixed(digits);
  const exact = value.toFixed(Math.min(100, digits + 40)); // a half has no more digits than this, or is none
  const cut = exact.length - (Math.min(100, digits + 40) - digits);
  if (!/^50*$/.test(exact.slice(cut).replace(".", ""))) return text;
  const down = exact.slice(0, cut).replace(/\.$/, ""); // towards zero
  return Number(down.at(-1)) % 2 === 0
    ? down
    : text.replace("-", "") === down.replace("-", "")
      ? awayFrom(down, digits)
      : text;
}

/** The next decimal number with so many digits, further from zero. */
function awayFrom(text: string, digits: number): string {
  const sign = text.startsWith("-") ? "-" : "";
  const next = String(BigInt(text.replace(/[-.]/g, "")) + 1n).padStart(digits + 1, "0");
  return sign + (digits === 0 ? next : `${next.slice(0, -digits)}.${next.slice(-digits)}`);
}

const mod = (a: number, b: number): number => {
  const rest = a % b;
  return rest !== 0 && rest < 0 !== b < 0 ? rest + b : rest === 0 ? (b < 0 || Object.is(b, -0) ? -0 : 0) : rest;
};

export type Operator = "+" | "-" | "*" | "/" | "//" | "%" | "**";

/** A binary operator of Python. */
export function operate(operator: Operator, a: Value, b: Value): Value {
  if (operator === "+" && typeof a === "string" && typeof b === "string") return made(a + b);
  const x = numeric(a);
  const y = numeric(b);
  if (x !== undefined && y !== undefined) {
    if (a instanceof Float || b instanceof Float)
      return operateFloats(operator, float(Number(x), x).value, float(Number(y), y).value);
    return operateInts(operator, x, y);
  }
  if (a instanceof Undefined) a.fail();
  if (b instanceof Undefined) b.fail();
  if (a instanceof Markup || b instanceof Markup) throw unsupported(`"${operator}" with text that was marked as safe`);
  if (operator === "+" && Array.isArray(a) && Array.isArray(b) && isTuple(a) === isTuple(b))
    return madeList(isTuple(a) ? Tuple.from([...a, ...b]) : [...a, ...b]);
  if (operator === "*") {
    const [list, count] = isInt(a) ? [b, a] : [a, b];
    if (isInt(count) && (typeof list === "string" || Array.isArray(list))) return repeat(list, Number(count));
  }
  throw new TemplateError(`unsupported operand types for ${operator}: "${typeName(a)}" and "${typeName(b)}"`);
}

function repeat(value: string | Value[], count: number): Value {
  const times = Math.max(0, count);
  checkLength(value.length * times * (typeof value === "string" ? 1 : 8));
  if (typeof value === "string") return value.repeat(times);
  const items = Array.from({ length: times }, () => [...value]).flat();
  return isTuple(value) ? Tuple.from(items) : items;
}

function operateInts(operator: Operator, a: Number_, b: Number_): Value {
  if (b === 0 && (operator === "/" || operator === "//" || operator === "%"))
    throw new TemplateError("division by zero");
  if (typeof a === "number" && typeof b === "number") {
    if (operator === "/") return new Float(a / b);
    const result =
      operator === "+"
        ? a + b
        : operator === "-"
          ? a - b
          : operator === "*"
            ? a * b
            : operator === "//"
              ? Math.floor(a / b)
              : operator === "%"
                ? mod(a, b)
                : NaN;
    if (Number.isSafeInteger(result) && (operator !== "//" || Math.abs(a) < 2 ** 52)) return result + 0;
  }
  const [x, y] = [BigInt(a), BigInt(b)];
  switch (operator) {
    case "+":
      return int(x + y);
    case "-":
      return int(x - y);
    case "*":
      checkBits(bits(x) + bits(y));
      return int(x * y);
    case "/":
      throw unsupported("division of whole numbers beyond 2^53");
    case "//":
      return int((x - (((x % y) + y) % y)) / y);
    case "%":
      return int(((x % y) + y) % y);
    case "**":
      if (y < 0n) return operateFloats("**", Number(x), Number(y));
      checkBits(x * x <= 1n ? 1 : bits(x) * Number(y));
      return int(x ** y);
  }
}

function operateFloats(operator: Operator, a: number, b: number): Float {
  if (b === 0 && (operator === "/" || operator === "//" || operator === "%"))
    throw new TemplateError("float division by zero");
  switch (operator) {
    case "+":
      return new Float(a + b);
    case "-":
      return new Float(a - b);
    case "*":
      return new Float(a * b);
    case "/":
      return new Float(a / b);
    case "%":
      return new Float(mod(a, b));
    case "//": {
      const rest = a % b;
      const quotient = (a - rest) / b - (rest !== 0 && rest < 0 !== b < 0 ? 1 : 0);
      const floor = Math.floor(quotient);
      return new Float(quotient === 0 ? (a / b < 0 ? -0 : 0) : quotient - floor > 0.5 ? floor + 1 : floor);
    }
    case "**": {
      if (a === 0 && b < 0) throw new TemplateError("0.0 cannot be raised to a negative power");
      if (a < 0 && !Number.isInteger(b) && Number.isFinite(b)) throw unsupported("complex numbers");
      const power = a === 1 || (a === -1 && !Number.isFinite(b)) ? 1 : a ** b;
      if (!Number.isFinite(power) && Number.isFinite(a) && Number.isFinite(b))
        throw new TemplateError("the result of ** is too large");
      return new Float(power);
    }
  }
}

export function negate(value: Value): Value {
  if (value instanceof Undefined) value.fail();
  if (value instanceof Float) return new Float(-value.value);
  if (isInt(value)) return operateInts("-", 0, numeric(value)!);
  throw new TemplateError(`bad operand type for unary -: "${typeName(value)}"`);
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
const orderOf = (x: Number_, y: Number_): number => (x < y ? -1 : x > y ? 1 : x >= y ? 0 : NaN);

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

// ---- texts of values ------------------------------------------------------------------------------------------------------

/** Python's str(). */
export function toText(value: Value): string {
  if (typeof value === "string") return value;
  if (value instanceof Undefined) return "";
  return value instanceof Markup ? value.text : repr(value);
}

/** Python's repr(). */
export function repr(value: Value): string {
  spend(1);
  if (typeof value === "string") return reprText(value);
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number") return String(value + 0);
  if (typeof value === "bigint") {
    const digits = String(value);
    if (digits.length > 4300) throw new TemplateError("a whole number of more than 4300 digits cannot be written");
    return digits;
  }
  if (value instanceof Float) return floatText(value.value);
  if (Array.isArray(value)) {
    const inside = joinTexts(value, repr, ", ");
    return isTuple(value) ? `(${inside}${value.length === 1 ? "," : ""})` : `[${inside}]`;
  }
  if (value instanceof Map) return `{${joinTexts(value, ([key, item]) => `${repr(key)}: ${repr(item)}`, ", ")}}`;
  if (value instanceof Undefined) return "Undefined";
  if (value instanceof Range) return value.text;
  if (value instanceof View) return `dict_${value.kind}(${repr(value.items)})`;
  if (value instanceof Markup) return `Markup(${reprText(value.text)})`;
  if (value instanceof Thing && value.show) return value.show();
  throw new TemplateError(`prints a "${typeName(value)}" object, whose text is different each time`);
}

function joinTexts<T>(items: Iterable<T>, text: (item: T) => string, separator: string): string {
  let joined = "";
  for (const item of items) joined = grown(joined, (joined === "" ? "" : separator) + text(item));
  return joined;
}

function reprText(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const hex = (code: number, digits: number) => code.toString(16).padStart(digits, "0");
  const escaped = text.replace(/[\\\p{C}\p{Z}'"]/gu, (letter) => {
    const code = letter.codePointAt(0)!;
    if (letter === " " || ((letter === "'" || letter === '"') && letter !== quote)) return letter;
    if (letter === "\\" || letter === quote) return `\\${letter}`;
    const named = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[letter];
    return named ?? (code < 256 ? `\\x${hex(code, 2)}` : code < 65536 ? `\\u${hex(code, 4)}` : `\\U${hex(code, 8)}`);
  });
  return made(quote + escaped + quote);
}

/** How json.dumps writes. */
export interface JsonOptions {
  ensureAscii: boolean;
  /** What one level of indention is. */
  indent: string | undefined;
  item: string;
  key: string;
  sort: boolean;
}

/** json.dumps, with the separators it has been told. */
export function toJson(value: Value, options: JsonOptions, margin = "\n"): string {
  spend(1);
  if (typeof value === "string" || value instanceof Markup) return jsonText(toText(value), options.ensureAscii);
  if (value === null) return "null";
  if (typeof value === "boolean") return String(value);
  if (isInt(value)) return repr(value);
  if (value instanceof Float)
    return Number.isFinite(value.value)
      ? floatText(value.value)
      : Number.isNaN(value.value)
        ? "NaN"
        : value.value > 0
          ? "Infinity"
          : "-Infinity";
  const isList = Array.isArray(value);
  if (!isList && !(value instanceof Map)) {
    const what = value instanceof Undefined ? `${value.message}, so it` : `an object of type ${typeName(value)}`;
    throw new TemplateError(`${what} cannot be written as JSON`);
  }
  const [open, close] = isList ? "[]" : "{}";
  if ((isList ? value.length : value.size) === 0) return open! + close!;
  const inner = options.indent === undefined ? "" : margin + options.indent;
  checkLength(inner.length);
  const separator = options.item + inner;
  let inside: string;
  if (isList) inside = joinTexts(value, (item) => toJson(item, options, inner), separator);
  else {
    const pairs = [...value];
    if (options.sort) pairs.sort(([a], [b]) => compare(a, b));
    const name = (key: Value) => (typeof key === "string" ? key : key === null ? "null" : repr(key));
    inside = joinTexts(
      pairs,
      ([key, item]) => jsonText(name(key), options.ensureAscii) + options.key + toJson(item, options, inner),
      separator,
    );
  }
  return open + inner + inside + (options.indent === undefined ? "" : margin) + close;
}

function jsonText(text: string, ensureAscii: boolean): string {
  const json = JSON.stringify(text);
  if (!ensureAscii) return made(json);
  return made(json.replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`));
}
