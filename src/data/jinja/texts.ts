// The methods of Python's str, its `%` and `format`, and what they count as a space: \x1c to \x1f and \x85 are, U+FEFF is none.

import { checkLength, grown, made, spend, TemplateError, unsupported } from "./limits.ts";
import { toFixed, toInt } from "./numbers.ts";
import { repr, toText } from "./show.ts";
import {
  Float,
  isInt,
  isTuple,
  isWide,
  iterate,
  lengthOf,
  numeric,
  Range,
  sliceOf,
  spaces,
  Tuple,
  typeName,
  Undefined,
  type Keywords,
  type Value,
} from "./values.ts";

/** A function with the names of its arguments, the first of which have no default. */
export interface Signature {
  names: string[];
  required: number;
  work: (...args: Value[]) => Value;
}

/** "old new count?" and a function of a first value and these. */
export function signature(spec: string, work: (...args: never[]) => Value): Signature {
  const names = spec.split(" ").filter((name) => name !== "");
  const required = names.filter((name) => !name.endsWith("?")).length;
  return { names: names.map((name) => name.replace("?", "")), required, work: work as (...args: Value[]) => Value };
}

/** Calls it as Python would: by position, by name, or not at all. What is not given is JavaScript's undefined. */
export function callSigned(
  name: string,
  { names, required, work }: Signature,
  self: Value,
  args: Value[],
  keywords?: Keywords,
): Value {
  if (args.length > names.length)
    throw new TemplateError(`${name} takes at most ${names.length} arguments (${args.length} given)`);
  if (keywords === undefined && args.length >= required) return work(self, ...args);
  const all: (Value | undefined)[] = [...args];
  for (const [keyword, value] of keywords ?? []) {
    const index = names.indexOf(keyword);
    if (index === -1) throw new TemplateError(`${name} takes no argument named "${keyword}"`);
    if (all[index] !== undefined) throw new TemplateError(`${name} is given "${keyword}" twice`);
    all[index] = value;
  }
  for (let i = 0; i < required; i++)
    if (all[i] === undefined) throw new TemplateError(`${name} needs the argument "${names[i]}"`);
  return work(self, ...(all as Value[]));
}

// ---- spaces and letters ---------------------------------------------------------------------------------------------------

const isSpace = new RegExp(`^[${spaces}]$`);
/** ASCII letters are most of what is asked about. */
const isSpaceAt = (text: string, at: number): boolean => {
  const code = text.charCodeAt(at);
  return code < 128 ? code === 32 || (code >= 9 && code <= 13) || (code >= 28 && code <= 31) : isSpace.test(text[at]!);
};

/** str.strip at one end or both, of spaces or of some letters. */
export function strip(text: string, chars: Value | undefined, { left = true, right = true } = {}): string {
  let [from, to] = [0, text.length];
  if (chars === undefined || chars === null) {
    if (left) while (from < to && isSpaceAt(text, from)) from++;
    if (right) while (to > from && isSpaceAt(text, to - 1)) to--;
    return made(text.slice(from, to));
  }
  const letters = new Set(textOf(chars, "strip"));
  const points = isWide(text) ? Array.from(text) : text;
  [from, to] = [0, points.length];
  if (left) while (from < to && letters.has(points[from]!)) from++;
  if (right) while (to > from && letters.has(points[to - 1]!)) to--;
  return made(typeof points === "string" ? points.slice(from, to) : points.slice(from, to).join(""));
}

export function textOf(value: Value, who: string): string {
  if (typeof value === "string") return value;
  throw new TemplateError(`${who} needs a text, not "${typeName(value)}"`);
}

function intOf(value: Value, who: string): number {
  if (isInt(value)) return Number(value);
  throw new TemplateError(`${who} needs a whole number, not "${typeName(value)}"`);
}

/** One letter as it begins a word. Where Unicode has a letter of its own for that, it is not guessed. */
function titled(letter: string): string {
  if (/[\u10d0-\u10ff]/.test(letter)) return letter;
  if (/[\u01c4-\u01cc\u01f1-\u01f3\u1f80-\u1fff]/.test(letter)) throw unsupported(`the title case of ${letter}`);
  const [first = "", ...rest] = Array.from(letter.toUpperCase());
  return first + rest.join("").toLowerCase();
}

export function capitalize(text: string): string {
  const [first] = text;
  return first === undefined ? "" : made(titled(first) + text.slice(first.length).toLowerCase());
}

function title(text: string): string {
  let isInside = false;
  let result = "";
  for (const letter of text.toLowerCase()) {
    const isCased = /\p{Cased}/u.test(letter);
    result += isCased && !isInside ? titled(letter) : letter;
    isInside = isCased;
  }
  return made(result);
}

function isEvery(text: string, pattern: RegExp): boolean {
  return text !== "" && Array.from(text).every((letter) => pattern.test(letter));
}

/** Whether a text has letters of one case and none of the others. */
export const isLower = (text: string): boolean => /\p{Lowercase}/u.test(text) && !/[\p{Uppercase}\p{Lt}]/u.test(text);
export const isUpper = (text: string): boolean => /\p{Uppercase}/u.test(text) && !/[\p{Lowercase}\p{Lt}]/u.test(text);

function isTitle(text: string): boolean {
  let isInside = false;
  let isFound = false;
  for (const letter of text) {
    const isBig = /[\p{Uppercase}\p{Lt}]/u.test(letter);
    if (isBig ? isInside : /\p{Lowercase}/u.test(letter) && !isInside) return false;
    isInside = isBig || /\p{Lowercase}/u.test(letter);
    isFound ||= isInside;
  }
  return isFound;
}

// ---- parts ----------------------------------------------------------------------------------------------------------------

const fileMarks = "\\x1c-\\x1e";
const lineEnd = new RegExp(`\\r\\n|[\\n-\\r${fileMarks}\\x85\\u2028\\u2029]`, "g");

export function splitLines(text: string, keepEnds = false): string[] {
  const lines: string[] = [];
  let from = 0;
  for (const { index, 0: end } of text.matchAll(lineEnd)) {
    lines.push(text.slice(from, keepEnds ? index + end.length : index));
    from = index + end.length;
  }
  if (from < text.length) lines.push(text.slice(from));
  spend(text.length + lines.length);
  return lines;
}

/** str.split and rsplit. */
function split(text: string, separator: Value = null, max: Value = -1, fromRight = false): Value {
  const most = intOf(max, "split") < 0 ? Infinity : intOf(max, "split");
  spend(text.length);
  if (separator === null) return splitSpaces(text, most, fromRight);
  const mark = textOf(separator, "split");
  if (mark === "") throw new TemplateError("split needs a separator that is not empty");
  const parts = text.split(mark);
  spend(8 * parts.length);
  if (parts.length - 1 <= most) return parts;
  if (fromRight) return [parts.slice(0, parts.length - most).join(mark), ...parts.slice(parts.length - most)];
  return [...parts.slice(0, most), parts.slice(most).join(mark)];
}

function splitSpaces(text: string, most: number, fromRight: boolean): Value {
  const words: string[] = [];
  const { length } = text;
  let at = fromRight ? length : 0;
  const isOver = () => (fromRight ? at <= 0 : at >= length);
  const isSpaceHere = () => isSpaceAt(text, fromRight ? at - 1 : at);
  const by = fromRight ? -1 : 1;
  while (true) {
    while (!isOver() && isSpaceHere()) at += by;
    if (isOver()) break;
    if (words.length >= most) {
      words.push(fromRight ? text.slice(0, at) : text.slice(at));
      break;
    }
    const from = at;
    while (!isOver() && !isSpaceHere()) at += by;
    words.push(fromRight ? text.slice(at, from) : text.slice(from, at));
    spend(8);
  }
  return fromRight ? words.reverse() : words;
}

function partition(text: string, separator: Value, fromRight: boolean): Value {
  const mark = textOf(separator, "partition");
  if (mark === "") throw new TemplateError("partition needs a separator that is not empty");
  const at = fromRight ? text.lastIndexOf(mark) : text.indexOf(mark);
  if (at === -1) return Tuple.from(fromRight ? ["", "", text] : [text, "", ""]);
  return Tuple.from([text.slice(0, at), mark, text.slice(at + mark.length)]);
}

export function replace(text: string, from: string, to: string, count = -1): string {
  if (count === 0 || (text === "" && from !== "")) return text;
  const points = from === "" ? Array.from(text) : [];
  let found = from === "" ? points.length + 1 : 0;
  if (from !== "") for (let at = text.indexOf(from); at !== -1; at = text.indexOf(from, at + from.length)) found++;
  const times = count < 0 ? found : Math.min(count, found);
  checkLength(text.length + times * (to.length - from.length));
  spend(text.length);
  if (times === 0) return text;
  if (from === "") return to + points.map((letter, i) => letter + (i + 1 < times ? to : "")).join("");
  if (times === found) return text.replaceAll(from, () => to);
  let result = "";
  let at = 0;
  for (let i = 0; i < times; i++) {
    const next = text.indexOf(from, at);
    result += text.slice(at, next) + to;
    at = next + from.length;
  }
  return result + text.slice(at);
}

/** Part of a text for find, count, startswith and endswith, and where it begins; nothing if it begins behind the end. */
function part(text: string, start: Value = null, end: Value = null): { text: string; at: number } | undefined {
  if (start === null && end === null) return { text, at: 0 };
  const length = lengthOf(text)!;
  const from = start === null ? 0 : intOf(start, "the start");
  const at = from < 0 ? Math.max(0, from + length) : from;
  return at > length ? undefined : { text: sliceOf(text, at, end, null) as string, at };
}

function find(text: string, sought: Value, start?: Value, end?: Value, fromRight = false): number {
  const within = part(text, start, end);
  const mark = textOf(sought, "find");
  if (within === undefined) return -1;
  spend(within.text.length / 8);
  const index = fromRight ? within.text.lastIndexOf(mark) : within.text.indexOf(mark);
  return index === -1 ? -1 : within.at + lengthOf(within.text.slice(0, index))!;
}

function found(at: number): number {
  if (at === -1) throw new TemplateError("substring not found");
  return at;
}

function count(text: string, sought: Value, start?: Value, end?: Value): number {
  const within = part(text, start, end);
  const mark = textOf(sought, "count");
  if (within === undefined) return 0;
  spend(within.text.length);
  return mark === "" ? lengthOf(within.text)! + 1 : within.text.split(mark).length - 1;
}

function begins(
  text: string,
  sought: Value,
  start: Value | undefined,
  end: Value | undefined,
  atEnd: boolean,
): boolean {
  const within = part(text, start, end);
  const marks = isTuple(sought) ? Array.from(sought) : [sought];
  const texts = marks.map((mark) => textOf(mark, atEnd ? "endswith" : "startswith"));
  return (
    within !== undefined && texts.some((mark) => (atEnd ? within.text.endsWith(mark) : within.text.startsWith(mark)))
  );
}

/** str.ljust, rjust, center and zfill. */
export function pad(
  text: string,
  width: Value,
  fill: Value = " ",
  side: "left" | "right" | "center" = "center",
): string {
  const letter = textOf(fill, "the fill");
  if (lengthOf(letter) !== 1) throw new TemplateError("the fill must be one letter");
  const missing = Math.max(0, intOf(width, "the width") - lengthOf(text)!);
  checkLength(text.length + missing * letter.length);
  const before =
    side === "left" ? 0 : side === "right" ? missing : Math.floor(missing / 2) + (missing & intOf(width, "") & 1);
  return letter.repeat(before) + text + letter.repeat(missing - before);
}

function expandTabs(text: string, size: number): string {
  let column = 0;
  let result = "";
  for (const letter of text) {
    if (letter === "\t") {
      const count = size > 0 ? size - (column % size) : 0;
      checkLength(result.length + count);
      result += " ".repeat(count);
      column += count;
    } else {
      result += letter;
      column = letter === "\n" || letter === "\r" ? 0 : column + 1;
    }
  }
  return made(result);
}

/** str.join and the filter: the texts between each other. */
export function joined(separator: string, texts: Iterable<string>): string {
  let result = "";
  let isFirst = true;
  for (const text of texts) {
    result = grown(result, isFirst ? text : separator + text);
    isFirst = false;
  }
  return result;
}

function* textsOf(items: Iterable<Value>): Generator<string> {
  for (const item of items) yield textOf(item, "join");
}

type Method = Signature;
const method = (spec: string, work: (text: string, ...args: Value[]) => Value): Method =>
  signature(spec, work as never);

/** Methods of str by their names. */
export const textMethods: ReadonlyMap<string, Method> = new Map(
  Object.entries({
    capitalize: method("", capitalize),
    center: method("width fillchar?", (text, width, fill) => pad(text, width!, fill)),
    count: method("sub start? end?", (text, sub, start, end) => count(text, sub!, start, end)),
    endswith: method("suffix start? end?", (text, mark, start, end) => begins(text, mark!, start, end, true)),
    expandtabs: method("tabsize?", (text, size = 8) => expandTabs(text, intOf(size, "expandtabs"))),
    find: method("sub start? end?", (text, sub, start, end) => find(text, sub!, start, end)),
    index: method("sub start? end?", (text, sub, start, end) => found(find(text, sub!, start, end))),
    isalnum: method("", (text) => isEvery(text, /[\p{L}\p{N}]/u)),
    isalpha: method("", (text) => isEvery(text, /\p{L}/u)),
    isascii: method("", (text) => !/[\u0080-\uffff]/.test(text)),
    isdecimal: method("", (text) => isEvery(text, /\p{Nd}/u)),
    isdigit: method("", (text) => isEvery(text, /[\p{Nd}²³¹⁰⁴-⁹₀-₉①-⑨⑴-⑼⒈-⒐⓪⓵-⓽⓿❶-❾➀-➈➊-➒]/u)),
    islower: method("", isLower),
    isspace: method("", (text) => isEvery(text, isSpace)),
    istitle: method("", isTitle),
    isupper: method("", isUpper),
    join: method("iterable", (text, items) => joined(text, textsOf(iterate(items!)))),
    ljust: method("width fillchar?", (text, width, fill) => pad(text, width!, fill, "left")),
    lower: method("", (text) => made(text.toLowerCase())),
    lstrip: method("chars?", (text, chars) => strip(text, chars, { right: false })),
    partition: method("sep", (text, mark) => partition(text, mark!, false)),
    removeprefix: method("prefix", (text, mark) =>
      text.startsWith(textOf(mark!, "removeprefix")) ? text.slice((mark as string).length) : text,
    ),
    removesuffix: method("suffix", (text, mark) =>
      mark !== "" && text.endsWith(textOf(mark!, "removesuffix")) ? text.slice(0, -(mark as string).length) : text,
    ),
    replace: method("old new count?", (text, old, to, times = -1) =>
      replace(text, textOf(old!, "replace"), textOf(to!, "replace"), intOf(times, "replace")),
    ),
    rfind: method("sub start? end?", (text, sub, start, end) => find(text, sub!, start, end, true)),
    rindex: method("sub start? end?", (text, sub, start, end) => found(find(text, sub!, start, end, true))),
    rjust: method("width fillchar?", (text, width, fill) => pad(text, width!, fill, "right")),
    rpartition: method("sep", (text, mark) => partition(text, mark!, true)),
    rsplit: method("sep? maxsplit?", (text, mark, max) => split(text, mark, max, true)),
    rstrip: method("chars?", (text, chars) => strip(text, chars, { left: false })),
    split: method("sep? maxsplit?", (text, mark, max) => split(text, mark, max)),
    splitlines: method("keepends?", (text, keep = false) => splitLines(text, intOf(keep, "splitlines") !== 0)),
    startswith: method("prefix start? end?", (text, mark, start, end) => begins(text, mark!, start, end, false)),
    strip: method("chars?", (text, chars) => strip(text, chars)),
    title: method("", title),
    upper: method("", (text) => made(text.toUpperCase())),
    zfill: method("width", (text, width) => {
      const sign = /^[+-]/.test(text) ? text[0]! : "";
      const digits = text.slice(sign.length);
      return sign + pad(digits, intOf(width!, "zfill") - sign.length, "0", "right");
    }),
  }),
);

/** The only ones whose arguments have names. */
export const methodsWithNames = new Set(["expandtabs", "rsplit", "split", "splitlines"]);

/** Methods that Python's str has besides, refused by name. */
export const otherTextMethods = new Set(
  "casefold encode format_map isidentifier isnumeric isprintable maketrans swapcase translate".split(" "),
);

// ---- % and format -----------------------------------------------------------------------------------------------------------

const percentCode = /%(?:\(([^)]*)\))?([#0\- +]*)(\*|\d+)?(?:\.(\*|\d+))?[hlL]?([^]?)/gu;

/** `text % value`. */
export function formatPercent(text: string, value: Value): string {
  const args = isTuple(value) ? Array.from(value) : [value];
  const names = value instanceof Map ? value : undefined;
  let used = 0;
  let isNamed = false;
  const result = text.replace(
    percentCode,
    (code, name: string | undefined, flags: string, width = "", precision, kind: string) => {
      if (kind === "%") return "%";
      if (width === "*" || precision === "*" || flags.includes("#")) throw unsupported(`the format ${code}`);
      let given: Value | undefined;
      if (name !== undefined) {
        if (names === undefined) throw new TemplateError("format requires a mapping");
        given = names.get(name);
        isNamed = true;
      } else given = args[used++];
      if (given === undefined)
        throw new TemplateError(
          name === undefined ? "not enough arguments for format string" : `format has no "${name}"`,
        );
      const isText = kind === "s" || kind === "r";
      if (!isText && !/^[dixXofFeE]$/.test(kind)) throw unsupported(`the format ${code}`);
      if (!isText && numeric(given) === undefined)
        throw new TemplateError(`${code} needs a number, not "${typeName(given)}"`);
      const sign = flags.includes("+") ? "+" : flags.includes(" ") ? " " : "";
      const align = flags.includes("-") ? "<" : ">";
      const fill = !isText && flags.includes("0") && align === ">" ? "0" : "";
      if (isText)
        return formatSpec(
          kind === "s" ? toText(given) : repr(given),
          `${align}${width}${precision === undefined ? "" : `.${precision}`}`,
        );
      if (/[diuxXo]/.test(kind)) {
        if (precision !== undefined) throw unsupported(`the format ${code}`);
        if (given instanceof Float && kind !== "d" && kind !== "i")
          throw new TemplateError(`${code} needs a whole number`);
        return formatSpec(toInt(given)!, `${fill ? "" : align}${sign}${fill}${width}${kind === "i" ? "d" : kind}`);
      }
      return formatSpec(given, `${fill ? "" : align}${sign}${fill}${width}.${precision ?? 6}${kind}`);
    },
  );
  // What could have names need not be used.
  const hasItems = [Map, Array, Range, Undefined].some((kind) => value instanceof kind) && !isTuple(value);
  if (!isNamed && used < args.length && !hasItems)
    throw new TemplateError("not all arguments converted during string formatting");
  return made(result);
}

const specPattern = /^(?:([^]?)([<>^=]))?([+ -]?)(0?)(\d*)([,_]?)(?:\.(\d+))?([a-zA-Z%]?)$/u;

/** One value by a format specification: "<10", "05d", ",.2f". */
function formatSpec(value: Value, spec: string): string {
  if (spec === "") return toText(value);
  const match = specPattern.exec(spec);
  if (match === null) throw unsupported(`the format "${spec}"`);
  const [, givenFill, givenAlign, plus, zero, width, group, precision, kind] = match;
  const number = typeof value === "boolean" && kind === "" ? undefined : numeric(value);
  let sign = "";
  let text: string;
  if (typeof value === "string") {
    if (plus || zero || group || (kind !== "" && kind !== "s") || givenAlign === "=")
      throw new TemplateError(`the format "${spec}" is none for a text`);
    text = precision === undefined ? value : Array.from(value).slice(0, Number(precision)).join("");
  } else {
    if (number === undefined) throw unsupported(`the format "${spec}" of "${typeName(value)}"`);
    const isFloat = value instanceof Float;
    if (/^[dxXob]?$/.test(kind!) && !isFloat) {
      if (precision !== undefined) throw new TemplateError(`a whole number has no precision ("${spec}")`);
      const base = { x: 16, X: 16, o: 8, b: 2 }[kind!] ?? 10;
      text = (number < 0 ? -BigInt(number) : BigInt(number)).toString(base);
      if (kind === "X") text = text.toUpperCase();
    } else if (/^[fFeE%]$/.test(kind!)) {
      const float = Math.abs(Number(number)) * (kind === "%" ? 100 : 1);
      const digits = Number(precision ?? 6);
      if (!Number.isFinite(float)) throw unsupported(`the format "${spec}" of ${float}`);
      text = /[eE]/.test(kind!)
        ? float.toExponential(digits).replace(/e([+-])(\d)$/, "e$10$2")
        : toFixed(float, digits);
      if (kind === "E") text = text.toUpperCase();
      if (kind === "%") text += "%";
    } else throw unsupported(`the format "${spec}" of "${typeName(value)}"`);
    sign = number < 0 || Object.is(number, -0) ? "-" : plus === "-" ? "" : plus!;
    if (group) text = text.replace(/^\d+/, (digits) => digits.replace(/\B(?=(\d{3})+$)/g, group));
    if (group && (zero || givenAlign === "=")) throw unsupported(`the format "${spec}"`);
  }
  const align = givenAlign ?? (zero ? "=" : typeof value === "string" ? "<" : ">");
  const fill = givenFill || (zero ? "0" : " ");
  const missing = Math.max(0, Number(width) - lengthOf(sign + text)!);
  checkLength(text.length + missing);
  if (align === "=") return sign + fill.repeat(missing) + text;
  const before = align === "<" ? 0 : align === ">" ? missing : Math.floor(missing / 2);
  return fill.repeat(before) + sign + text + fill.repeat(missing - before);
}

/** str.format. */
export function formatBraces(
  text: string,
  args: Value[],
  keywords: Keywords | undefined,
  attributeOf: (value: Value, name: string) => Value,
): string {
  let next = 0;
  const result = text.replace(
    /\{\{|\}\}|\{([^{}!:]*)(?:!([rsa]))?(?::([^{}]*))?\}|[{}]/g,
    (code, field?: string, conversion?: string, spec = "") => {
      if (code === "{{" || code === "}}") return code[0]!;
      if (field === undefined)
        throw /[{}]/.test(code) && text.includes("{")
          ? unsupported(`the format "${text}"`)
          : new TemplateError(`the format "${text}" has a single ${code}`);
      const [, name, rest] = /^([^.[]*)(.*)$/s.exec(field)!;
      const key = name === "" ? String(next++) : name!;
      if (name !== "" && /^\d+$/.test(key)) next = NaN;
      if (key === "NaN") throw new TemplateError("a format cannot both count its fields and name their numbers");
      let value = /^\d+$/.test(key) ? args[Number(key)] : keywords?.get(key);
      if (value === undefined) throw new TemplateError(`the format "${text}" is not given "${key}"`);
      if (name === "" && rest !== "") throw new TemplateError(`the format "${code}" has no name or number`);
      if (/[[]/.test(rest!)) throw unsupported(`the format "${code}"`);
      for (const name of rest!.split(".").slice(1)) value = attributeOf(value, name);
      if (conversion === "a") throw unsupported(`the format "${code}"`);
      if (conversion !== undefined) value = conversion === "r" ? repr(value) : toText(value);
      return formatSpec(value, spec);
    },
  );
  return made(result);
}
