// Values as text: Python's str() and repr(), and json.dumps.

import { checkLength, grown, made, spend, TemplateError } from "./limits.ts";
import { floatText } from "./numbers.ts";
import {
  compare,
  Float,
  isInt,
  isTuple,
  Markup,
  Range,
  Thing,
  typeName,
  Undefined,
  View,
  type Value,
} from "./values.ts";

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
