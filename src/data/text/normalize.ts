// The first step of a tokenizer: a text, between added tokens, to the text that is cut and encoded. Each kind of step does
// what Hugging Face's library does, letter by letter; a step that is not here is refused by name.
//
// Steps come with a model and may be hostile: each may double a text, and a file may hold hundreds. What they make of a text
// is bounded.

import { matchesNothing, patternOf, rangesOf, UnsupportedError } from "./pattern.ts";

export type Step = Record<string, unknown> & { type?: unknown };
export type Normalize = (text: string) => string;

/** One letter may become eighteen (NFKD); more than this for each, beyond some, comes from a damaged or hostile file. */
export const lettersMaxOf = (letters: number): number => letters * 32 + 2 ** 16;
const stepsMax = 64;

/** A text that grew, or took time, beyond all bounds. */
export class LimitError extends Error {}

/** Of a UTF-16 unit. */
export const isSpace = /\p{White_Space}/v;

/** The function of a "normalizer"; undefined where there is none. */
export function normalizerOf(step: Step | null | undefined): Normalize | undefined {
  if (!step) return undefined;
  const steps = flat(step);
  if (steps.length > stepsMax) throw new UnsupportedError(`${steps.length} normalizers (the limit is ${stepsMax})`);
  const functions = steps.map(functionOf);
  return (text) => {
    const lettersMax = lettersMaxOf(text.length);
    return functions.reduce((made, normalize) => within(lettersMax, normalize(made, lettersMax)), text);
  };
}

function flat(step: Step): Step[] {
  return step.type === "Sequence" ? ((step["normalizers"] ?? []) as Step[]).flatMap(flat) : [step];
}

function within(lettersMax: number, text: string): string {
  if (text.length <= lettersMax) return text;
  throw new LimitError(`its normalizer makes more than ${lettersMax} letters of one text`);
}

function functionOf(step: Step): (text: string, lettersMax: number) => string {
  switch (step.type) {
    case "NFC":
    case "NFD":
    case "NFKC":
    case "NFKD": {
      const form = step.type;
      return (text) => text.normalize(form);
    }
    case "Lowercase":
      return lowercase;
    case "Strip":
      return (text) => stripped(text, step);
    case "StripAccents":
      return (text) => text.replace(/\p{M}/gv, "");
    case "Prepend": {
      const prepend = String(step["prepend"]);
      return (text) => (text === "" ? "" : prepend + text);
    }
    case "Replace":
      return replacing(step);
    case "BertNormalizer":
      return bert(step);
    case "Nmt":
      return (text) => text.replace(nmtDropped, "").replace(nmtSpaces, " ");
    case "ByteLevel":
      return lettersOfBytes;
    default:
      throw new UnsupportedError(`the normalizer ${String(step.type)}`);
  }
}

// oxlint-disable-next-line no-control-regex -- they are what is dropped
const nmtDropped = /[\u0001-\u0008\u000b\u000e-\u001f\u007f\u008f\u009f]/gv;
const nmtSpaces = /[\t\n\f\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]/gv;

function stripped(text: string, { strip_left: left, strip_right: right }: Step): string {
  let [start, end] = [0, text.length];
  if (left) while (start < end && isSpace.test(text[start]!)) start++;
  if (right) while (end > start && isSpace.test(text[end - 1]!)) end--;
  return text.slice(start, end);
}

/** Each letter by itself: JavaScript writes a sigma at the end of a word otherwise. */
const lowercase = (text: string): string =>
  text.includes("Σ") ? Array.from(text, (letter) => letter.toLowerCase()).join("") : text.toLowerCase();

function replacing(step: Step): (text: string, lettersMax: number) => string {
  const content = String(step["content"]);
  const { String: literal } = step["pattern"] as { String?: string };
  const pattern = patternOf(step["pattern"]);
  // Hugging Face's library fails on it.
  if (matchesNothing(pattern))
    throw new UnsupportedError(`a Replace of ${JSON.stringify(step["pattern"])}, which may match nothing`);
  if (literal !== undefined && content.length <= literal.length)
    return (text) => text.replaceAll(literal, () => content);
  return (text, lettersMax) => {
    let made = "";
    let end = 0;
    for (const [from, to] of rangesOf(text, pattern)) {
      made = within(lettersMax, made + text.slice(end, from) + content);
      end = to;
    }
    return made + text.slice(end);
  };
}

function bert({
  clean_text: clean,
  handle_chinese_chars: chinese,
  strip_accents: accents,
  lowercase: lower,
}: Step): Normalize {
  return (text) => {
    let made = text;
    if (clean) made = made.replace(/[\0\ufffd]|(?![\t\n\r])\p{C}/gv, "").replace(/\p{White_Space}/gv, " ");
    if (chinese)
      made = made.replace(
        /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/gv,
        " $& ",
      );
    if (accents ?? lower) made = made.normalize("NFD").replace(/\p{Mn}/gv, "");
    return lower ? lowercase(made) : made;
  };
}

// ---- letters for bytes ----------------------------------------------------------------------------------------------

/** The letter that stands for each byte in byte-level vocabularies: itself where it can be seen, else one from U+0100 on. */
export const byteLetters: readonly string[] = (() => {
  let next = 0x100;
  const isShown = (byte: number) => (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isShown(byte) ? byte : next++));
})();

const utf8 = new TextEncoder();

/** A text as the letters of its bytes. */
export function lettersOfBytes(text: string): string {
  let letters = "";
  for (const byte of utf8.encode(text)) letters += byteLetters[byte]!;
  return letters;
}
