// Regular expressions of tokenizer.json. Hugging Face's library gives them to Oniguruma (Ruby's syntax, all of Unicode),
// which reads the same letters otherwise than JavaScript does: `\s`, `\d`, `\w` and `\b` mean all of Unicode, `^` and `$`
// are those of lines, `?+` does not give back. So a pattern is read here and written again for JavaScript's `v` mode, and
// what has no equal there is refused by name. `rangesOf` finds the matches as Oniguruma's iterator does.

/** A pattern, or another part of tokenizer.json, that cannot be done as Hugging Face's library does it. */
export class UnsupportedError extends Error {}

const word = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
/** Outside of brackets Oniguruma takes its table of Latin-1, which has these, too. */
const wordAlone = `[${word}\\u00B2\\u00B3\\u00B9\\u00BC-\\u00BE]`;
const boundary = `(?:(?<!${wordAlone})(?=${wordAlone})|(?<=${wordAlone})(?!${wordAlone}))`;

const anywhere: Record<string, string> = {
  s: "\\p{White_Space}",
  S: "\\P{White_Space}",
  d: "\\p{Nd}",
  D: "\\P{Nd}",
  h: "[0-9A-Fa-f]",
  H: "[^0-9A-Fa-f]",
  n: "\\n",
  r: "\\r",
  t: "\\t",
  f: "\\f",
  v: "\\v",
  a: "\\x07",
  e: "\\x1B",
};
const outside: Record<string, string> = {
  w: wordAlone,
  W: `[^${wordAlone}]`,
  A: "(?<![\\s\\S])",
  z: "(?![\\s\\S])",
  Z: "(?=\\n?(?![\\s\\S]))",
  b: boundary,
  B: `(?!${boundary})`,
};
const inside: Record<string, string> = { w: word, W: `[^${word}]` };

/** `[[:alpha:]]` and `\p{Alpha}`. */
const posix: Record<string, string> = {
  alpha: "\\p{Alphabetic}",
  alnum: "\\p{Alphabetic}\\p{Nd}",
  digit: "\\p{Nd}",
  lower: "\\p{Lowercase}",
  upper: "\\p{Uppercase}",
  space: "\\p{White_Space}",
  blank: "\\t\\p{Zs}",
  punct: "\\p{P}\\p{S}",
  cntrl: "\\p{Cc}",
  word,
  xdigit: "0-9A-Fa-f",
};

const escaped = (letter: string): string =>
  /[\\^$.*+?()[\]{}|/&\-!#%,:;<=>@`~]/.test(letter) ? `\\${letter}` : letter;
/** As in brackets, but for the punctuators that only they reserve. */
const escapedAlone = (letter: string): string => (/[\\^$.*+?()[\]{}|/]/.test(letter) ? `\\${letter}` : letter);

/** One pattern on its way. */
class Translator {
  #at = 0;
  #held = 0;
  readonly #source: string;

  constructor(source: string) {
    this.#source = source;
  }

  /** Alternatives up to the end, or up to a bracket that closes the group. */
  alternatives(isGroup: boolean): string {
    let out = "";
    let open = 0;
    let atom: number | undefined;
    for (;;) {
      const letter = this.#peek();
      if (letter === "" || letter === ")") {
        if ((letter === ")") !== isGroup)
          throw this.#refused(letter === "" ? "an open group" : "a group that never opened");
        return out + ")".repeat(open);
      }
      const flags = /^\(\?(-?i)\)/.exec(this.#rest());
      if (flags) {
        // It holds to the end of the group, alternatives included.
        this.#at += flags[0].length;
        out += `(?${flags[1]}:`;
        open++;
        atom = undefined;
        continue;
      }
      const quantifier = /^(?:[*+?]|\{\d+(?:,\d*)?\}|\{,\d+\})/.exec(this.#rest())?.[0];
      if (quantifier !== undefined && atom !== undefined) out = this.#repeated(out, atom, quantifier);
      else if (letter === "|") {
        out += letter;
        this.#at++;
        atom = undefined;
      } else {
        atom = out.length;
        out += this.#atom();
      }
    }
  }

  #repeated(before: string, atom: number, quantifier: string): string {
    this.#at += quantifier.length;
    const repeated = before.slice(atom) + quantifier.replace("{,", "{0,");
    const next = this.#peek();
    if (next === "?" && /^\{\d+\}$/.test(quantifier)) throw this.#refused(`${quantifier}?`);
    if (next === "?") {
      this.#at++;
      return `${before.slice(0, atom)}${repeated}?`;
    }
    if (!/[*+?{]/.test(next)) return before.slice(0, atom) + repeated;
    if (next !== "+" || quantifier.startsWith("{")) return `${before.slice(0, atom)}(?:${repeated})`;
    this.#at++;
    return before.slice(0, atom) + this.#keeping(repeated);
  }

  /** Takes what it can and gives nothing back: a look-ahead is not entered again. */
  #keeping(pattern: string): string {
    const name = `held${this.#held++}`;
    return `(?:(?=(?<${name}>${pattern}))\\k<${name}>)`;
  }

  #atom(): string {
    const letter = this.#take();
    if (letter === "\\") return this.#escape(outside, escapedAlone);
    if (letter === "[") return this.#brackets();
    if (letter === ".") return "[^\\n]";
    if (letter === "^") return "(?:(?<![\\s\\S])|(?<=\\n)(?=[\\s\\S]))";
    if (letter === "$") return "(?:(?=\\n)|(?![\\s\\S]))";
    return letter === "(" ? this.#group() : escapedAlone(letter);
  }

  #group(): string {
    const [prefix = ""] = /^\?(?:<?[=!]|[:>]|-?i:)/.exec(this.#rest()) ?? [];
    if (prefix === "" && this.#peek() === "?") throw this.#refused(`(${this.#rest().slice(0, 4)}`);
    this.#at += prefix.length;
    const pattern = this.alternatives(true);
    this.#at++;
    return prefix === "?>" ? this.#keeping(pattern) : `(${prefix || "?:"}${pattern})`;
  }

  #escape(own: Record<string, string>, literal: (letter: string) => string): string {
    const letter = this.#take();
    if (letter === "p" || letter === "P") return this.#property(letter);
    if (letter === "x" || letter === "u") {
      const [text, hex] =
        /^\{([0-9A-Fa-f]{1,6})\}/.exec(this.#rest()) ?? /^([0-9A-Fa-f]{4}|[0-9A-Fa-f]{2})/.exec(this.#rest()) ?? [];
      const digits = letter === "x" && !text?.startsWith("{") ? hex?.slice(0, 2) : hex;
      if (text === undefined || digits === undefined) throw this.#refused(`\\${letter}`);
      this.#at += text.startsWith("{") ? text.length : digits.length;
      return `\\u{${digits}}`;
    }
    const found = anywhere[letter] ?? own[letter];
    if (found !== undefined) return found;
    if (letter === "" || /[A-Za-z0-9]/.test(letter)) throw this.#refused(`\\${letter}`);
    return literal(letter);
  }

  /** A property by Unicode's name of a category or script, or by POSIX's name. */
  #property(kind: string): string {
    const [text, not = "", name = ""] = /^\{(\^?)([^}]*)\}/.exec(this.#rest()) ?? [];
    if (text === undefined) throw this.#refused(`\\${kind}`);
    this.#at += text.length;
    const isNegative = (kind === "P") !== (not === "^");
    const set = name.toLowerCase() === "punct" ? "\\p{P}" : posix[name.toLowerCase()];
    if (set !== undefined) return `[${isNegative ? "^" : ""}${set}]`;
    for (const property of [name, `Script=${name}`]) {
      const escape = `\\${isNegative ? "P" : "p"}{${property}}`;
      if (isPattern(escape)) return escape;
    }
    throw this.#refused(`\\${kind}${text}`);
  }

  /** A class: its operands (between `&&`), each a union of letters, ranges and classes. */
  #brackets(): string {
    const not = this.#peek() === "^" ? this.#take() : "";
    const operands = [""];
    for (let first = true; ; first = false) {
      if (this.#peek() === "") throw this.#refused("an open [");
      if (this.#rest().startsWith("&&")) {
        this.#at += 2;
        operands.push("");
        continue;
      }
      const letter = this.#take();
      if (letter === "]" && !first) break;
      operands[operands.length - 1] += this.#member(letter);
    }
    if (operands.includes("")) throw this.#refused("an empty class");
    return `[${not}${operands.length === 1 ? operands[0]! : operands.map((operand) => `[${operand}]`).join("&&")}]`;
  }

  #member(letter: string): string {
    if (letter === "[") {
      const [text, not, name = ""] = /^:(\^?)(\w+):\]/.exec(this.#rest()) ?? [];
      if (text === undefined) return this.#brackets();
      const set = posix[name];
      if (set === undefined) throw this.#refused(`[${text}`);
      this.#at += text.length;
      return `[${not}${set}]`;
    }
    if (letter === "\\") return this.#escape(inside, escaped);
    // A hyphen makes a range between two letters; at an end, or beside a class, it is one.
    if (letter === "-") return /^(?:\]|&&)/.test(this.#rest()) || this.#isBehindSet() ? "\\-" : "-";
    return escaped(letter);
  }

  /** Whether what stands before the hyphen is no single letter: the bracket, `\s`, another class. */
  #isBehindSet(): boolean {
    const before = this.#source.slice(0, this.#at - 1);
    return /(?:\[\^?|&&|\]|\\[sSdDwWhH]|\\[pP]\{[^}]*\})$/.test(before);
  }

  #refused(what: string): UnsupportedError {
    return new UnsupportedError(`the pattern ${JSON.stringify(this.#source.slice(0, 200))} has ${what}`);
  }

  #rest(): string {
    return this.#source.slice(this.#at);
  }

  #peek(): string {
    const point = this.#source.codePointAt(this.#at);
    return point === undefined ? "" : String.fromCodePoint(point);
  }

  #take(): string {
    const letter = this.#peek();
    this.#at += letter.length;
    return letter;
  }
}

function isPattern(source: string): boolean {
  try {
    RegExp(source, "v");
    return true;
  } catch {
    return false;
  }
}

/** The pattern of a step: `{ "Regex": ... }` or `{ "String": ... }`. UnsupportedError says what is not done. */
export function patternOf(pattern: unknown): RegExp {
  const { Regex: regex, String: text } = (pattern ?? {}) as { Regex?: unknown; String?: unknown };
  if (typeof text === "string") return new RegExp(Array.from(text, escapedAlone).join(""), "gv");
  if (typeof regex !== "string") throw new UnsupportedError(`the pattern ${JSON.stringify(pattern)}`);
  const source = new Translator(regex).alternatives(false);
  try {
    return new RegExp(source, "gv");
  } catch (error) {
    throw new UnsupportedError(`the pattern ${JSON.stringify(regex.slice(0, 200))} (${(error as Error).message})`);
  }
}

/** Whether a pattern finds something of no letters in some text. */
export const matchesNothing = (pattern: RegExp): boolean => new RegExp(`^(?:${pattern.source})$`, "v").test("");

/** The matches of a pattern that is `g`: an empty one right behind another is none. */
export function* rangesOf(text: string, pattern: RegExp): Generator<[start: number, end: number]> {
  let before = -1;
  for (let at = 0; at <= text.length;) {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match === null) return;
    const start = match.index;
    const end = start + match[0].length;
    if (start === end && end === before) {
      at += text.codePointAt(at)! > 0xffff ? 2 : 1;
      continue;
    }
    yield [start, end];
    at = before = end;
  }
}
