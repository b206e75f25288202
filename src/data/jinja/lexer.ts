// A template's source to tokens, as Jinja cuts it with `trim_blocks` and `lstrip_blocks`, which transformers sets: a block takes the
// newline behind it with it, and the spaces before it where nothing else stands on its line; `-` takes all space, `+` none.

import { strip } from "./texts.ts";
import { TemplateError, unsupported } from "./limits.ts";
import { Float, int, spaces, type Value } from "./values.ts";

export type TokenKind = "data" | "print" | "block" | "end" | "name" | "text" | "number" | "operator" | "eof";

export interface Token {
  kind: TokenKind;
  /** Names and operators as they are; of data and strings the text; of `end` nothing. */
  text: string;
  /** Of a number. */
  value: Value;
  line: number;
}

const name = /[\p{L}\p{Nl}_][\p{L}\p{Nl}\p{Mn}\p{Mc}\p{Nd}\p{Pc}]*/uy;
const float = /(?<![.])(?:\d+_)*\d+(?:(?:\.(?:\d+_)*\d+)?e[+-]?(?:\d+_)*\d+|\.(?:\d+_)*\d+)/iy;
const integer = /0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\da-f])+|[1-9](?:_?\d)*|0(?:_?0)*/iy;
const quotedText = /'[^'\\]*(?:\\[^][^'\\]*)*'|"[^"\\]*(?:\\[^][^"\\]*)*"/y;
const operator = /\/\/|\*\*|==|!=|>=|<=|[-+/*%~[\](){}>=<.:|,;]/y;
const space = new RegExp(`[${spaces}]+`, "y");
const rawBegin = new RegExp(`[${spaces}]*raw[${spaces}]*(?:-%}|%})`, "y");
const rawEnd = new RegExp(`{%([-+]?)[${spaces}]*endraw[${spaces}]*([-+]?)%}`, "g");

const closing: Record<string, string> = { "(": ")", "[": "]", "{": "}" };

/** All tokens of a template; throws a `TemplateError` with the line of what is wrong. */
export function tokenize(given: string): Token[] {
  const source = given.replace(/\r\n?/g, "\n").replace(/\n$/, "");
  const tokens: Token[] = [];
  let at = 0;
  let line = 1;
  let counted = 0;
  let isLineStart = true;

  const add = (kind: TokenKind, text: string, value: Value = null): void => {
    for (; counted < at; counted++) if (source.charCodeAt(counted) === 10) line++;
    tokens.push({ kind, text, value, line });
  };
  const fail = (problem: string): never => {
    const lines = source.slice(0, at).split("\n").length;
    throw new TemplateError(`line ${lines}: ${problem}`);
  };
  const match = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at;
    return pattern.exec(source);
  };
  /** Text before a tag that is no `{{`, or that has a sign. */
  const addData = (text: string, sign: string, isPrint: boolean): void => {
    let data = text;
    const lineAt = text.lastIndexOf("\n") + 1;
    if (sign === "-") data = strip(text, null, { left: false });
    else if (sign !== "+" && !isPrint && (lineAt > 0 || isLineStart) && strip(text.slice(lineAt), null) === "")
      data = text.slice(0, lineAt);
    if (data !== "") add("data", data);
  };
  /** What comes behind the sign of a tag's end. */
  const leave = (sign: string, trims: boolean): void => {
    const before = at;
    if (sign === "-") at += match(space)?.[0].length ?? 0;
    else if (trims && sign !== "+" && source[at] === "\n") at++;
    isLineStart = source[at - 1] === "\n" && at > before;
  };
  const takeSign = (): string => (source[at] === "-" || source[at] === "+" ? source[at++]! : "");

  while (at < source.length) {
    const begin = nextTag(source, at);
    if (begin === -1) {
      add("data", source.slice(at));
      break;
    }
    const kind = source[begin + 1]!;
    const text = source.slice(at, begin);
    at = begin + 2;
    const sign = takeSign();
    addData(text, sign, kind === "{");
    if (kind === "#") {
      const end = source.indexOf("#}", at);
      if (end === -1 && at < source.length) fail("a comment has no end");
      if (end === -1) break;
      const closeSign = end > at && /[-+]/.test(source[end - 1]!) ? source[end - 1]! : "";
      at = end + 2;
      leave(closeSign, true);
      continue;
    }
    const raw = kind === "%" ? match(rawBegin) : null;
    if (raw !== null) {
      at += raw[0].length;
      leave(raw[0].endsWith("-%}") ? "-" : "+", true);
      if (at >= source.length) break;
      const end = match(rawEnd);
      if (end === null) return fail("a raw block has no end");
      const inside = source.slice(at, end.index);
      at = end.index + end[0].length;
      addData(inside, end[1]!, false);
      leave(end[2]!, true);
      continue;
    }
    add(kind === "{" ? "print" : "block", "");
    inTag(kind === "{" ? "}}" : "%}");
  }
  add("eof", "");
  return tokens;

  /** Tokens up to the tag's end; braces that are open are closed first. */
  function inTag(end: string): void {
    const open: string[] = [];
    while (true) {
      if (at >= source.length) fail(`a tag is not closed with ${end}`);
      if (open.length === 0) {
        const sign = source[at] === "-" || (source[at] === "+" && end === "%}") ? source[at]! : "";
        if (source.startsWith(end, at + sign.length)) {
          at += sign.length + 2;
          add("end", "");
          return leave(sign, end === "%}");
        }
      }
      const spaces = match(space);
      if (spaces) {
        at += spaces[0].length;
        continue;
      }
      const number = match(float) ?? match(integer);
      const found =
        number ??
        match(name) ??
        match(quotedText) ??
        match(operator) ??
        fail(`unexpected character ${JSON.stringify(source[at])}`);
      const [text] = found;
      at += text.length;
      if (number !== null) add("number", text, numberOf(text.replaceAll("_", "")));
      else if (/^['"]/.test(text)) add("text", unescape(text.slice(1, -1)));
      else if (/^[\p{L}\p{Nl}_]/u.test(text)) add("name", text);
      else {
        if (closing[text]) open.push(closing[text]);
        else if (/^[)\]}]$/.test(text) && open.pop() !== text) fail(`unexpected "${text}"`);
        add("operator", text);
      }
    }
  }
}

/** Where the next tag begins. */
function nextTag(source: string, from: number): number {
  for (let at = source.indexOf("{", from); at !== -1; at = source.indexOf("{", at + 1)) {
    const next = source[at + 1];
    if (next === "{" || next === "%" || next === "#") return at;
  }
  return -1;
}

function numberOf(text: string): Value {
  return /^0[box]/i.test(text) || /^\d+$/.test(text) ? int(BigInt(text.toLowerCase())) : new Float(Number(text));
}

const simple: Record<string, string> = {
  "\n": "",
  "\\": "\\",
  "'": "'",
  '"': '"',
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
};

/** The escapes of Python's strings; one that it does not know stays as it is. */
function unescape(text: string): string {
  return text.replace(
    /\\(?:x(.{0,2})|u(.{0,4})|U(.{0,8})|([0-7]{1,3})|([^]))/gu,
    (whole, x, u, U, octal, other: string | undefined) => {
      if (other === "N") throw unsupported("\\N in a text");
      if (other !== undefined) return simple[other] ?? whole;
      const digits: string = x ?? u ?? U ?? "";
      const wanted = x !== undefined ? 2 : u !== undefined ? 4 : 8;
      if (octal !== undefined) return String.fromCodePoint(Number.parseInt(octal, 8));
      const code = Number.parseInt(digits, 16);
      if (digits.length !== wanted || !/^[\da-f]+$/i.test(digits) || code > 0x10ffff)
        throw new TemplateError(`a text has a wrong escape ${whole}`);
      return String.fromCodePoint(code);
    },
  );
}
