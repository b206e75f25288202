// The second step of a tokenizer: a normalised text to the pieces that are encoded each by itself. Every kind of step but
// UnicodeScripts, each as Hugging Face's library has it; a step that is not here is refused by name.
//
// Most tokenizers of today (those of Qwen, Llama 3, DeepSeek, ...) begin with cuts that keep every letter and do not care
// where in the text they are. What they leave are *words*, whose tokens may be remembered (encoder.ts). The steps from the
// first other one on make pieces of a word: they may drop letters, put some in front, or write others (bytes).

import { lettersOfBytes, type Step } from "./normalize.ts";
import { patternOf, rangesOf, UnsupportedError } from "./pattern.ts";

/** A part of a word. */
export interface Piece {
  text: string;
  /** Where it is in the word, in UTF-16 units. */
  start: number;
  /** Letters in front that the word does not have. */
  lead: number;
  /** Set when each letter of `text` stands for a byte of these. */
  original?: string;
}

/** What is done with what a pattern finds. */
type Behavior = "Removed" | "Isolated" | "MergedWithPrevious" | "MergedWithNext" | "Contiguous";

interface Cut {
  pattern: RegExp;
  behavior: Behavior;
  /** What lies between the matches is what is found. */
  invert: boolean;
}

type PieceStep = (pieces: Piece[], atStart: boolean) => Piece[];

/** How a text becomes words, and a word pieces. */
export interface Cutting {
  words(text: string): string[];
  /** `atStart`: the word begins where the whole text does. */
  pieces(word: string, atStart: boolean): Piece[];
  /** Whether `atStart` makes a difference. */
  knowsStart: boolean;
}

const whitespace = /\p{White_Space}/gv;
const punctuation = /[\p{P}$+<=>^`\|~]/gv;
const numbers = /\p{N}/gv;
/** GPT-2's. */
const byteLevel = patternOf({
  Regex: "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
});
const rustWords =
  /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}\p{White_Space}]+/gv;

/** The functions of a "pre_tokenizer"; without one a text is one word and one piece. */
export function cuttingOf(step: Step | null | undefined): Cutting {
  const steps = step ? flat(step) : [];
  const cuts: Cut[] = [];
  while (cuts.length < steps.length) {
    const [cut, ...others] = cutsOf(steps[cuts.length]!) ?? [];
    if (!cut || others.length > 0 || cut.behavior === "Removed") break;
    cuts.push(cut);
  }
  const rest = steps.slice(cuts.length).map(pieceStepOf);
  return {
    words: (text) =>
      cuts.reduce(
        (words, cut) => (words.length === 1 ? cutWords(words[0]!, cut) : words.flatMap((word) => cutWords(word, cut))),
        [text],
      ),
    pieces: (word, atStart) => rest.reduce((pieces, one) => one(pieces, atStart), [{ text: word, start: 0, lead: 0 }]),
    knowsStart: steps.some(({ type, prepend_scheme: scheme }) => type === "Metaspace" && scheme === "first"),
  };
}

function flat(step: Step): Step[] {
  return step.type === "Sequence" ? ((step["pretokenizers"] ?? []) as Step[]).flatMap(flat) : [step];
}

// ---- cuts -----------------------------------------------------------------------------------------------------------

/** A step as cuts at patterns, if it is nothing else. */
function cutsOf(step: Step): Cut[] | undefined {
  const cut = (pattern: RegExp, behavior: Behavior, invert = false): Cut[] => [{ pattern, behavior, invert }];
  switch (step.type) {
    case "Split":
      return cut(patternOf(step["pattern"]), behaviorOf(step), step["invert"] === true);
    case "Digits":
      return cut(numbers, step["individual_digits"] ? "Isolated" : "Contiguous");
    case "Punctuation":
      return cut(punctuation, behaviorOf(step));
    case "Whitespace":
      return cut(rustWords, "Removed", true);
    case "WhitespaceSplit":
      return cut(whitespace, "Removed");
    case "BertPreTokenizer":
      return [...cut(whitespace, "Removed"), ...cut(punctuation, "Isolated")];
    case "CharDelimiterSplit":
      return cut(patternOf({ String: step["delimiter"] }), "Removed");
    case "FixedLength": {
      const { length } = step;
      if (!Number.isInteger(length) || (length as number) < 1)
        throw new UnsupportedError(`a FixedLength of ${String(length)}`);
      return cut(new RegExp(`[\\s\\S]{1,${String(length)}}`, "gv"), "Isolated");
    }
    default:
      return undefined;
  }
}

function behaviorOf({ type, behavior = "Isolated" }: Step): Behavior {
  const known: Behavior[] = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"];
  const found = known.find((name) => name === behavior);
  if (found === undefined) throw new UnsupportedError(`a ${String(type)} whose behavior is ${String(behavior)}`);
  return found;
}

/** As `cutRanges`, and quickly where a pattern finds all of the text, which most do. */
function cutWords(text: string, cut: Cut): string[] {
  if (cut.behavior === "Isolated" && !cut.invert) {
    cut.pattern.lastIndex = 0;
    const words: string[] = text.match(cut.pattern) ?? [];
    let length = 0;
    let hasEmpty = false;
    for (let i = 0; i < words.length; i++) {
      length += words[i]!.length;
      hasEmpty ||= words[i] === "";
    }
    if (length === text.length && !hasEmpty) return words;
  }
  return cutRanges(text, cut).map(([start, end]) => text.slice(start, end));
}

/** The parts of a text, none of them empty. */
function cutRanges(text: string, { pattern, behavior, invert }: Cut): [start: number, end: number][] {
  const parts: { start: number; end: number; isMatch: boolean }[] = [];
  let end = 0;
  for (const [from, to] of rangesOf(text, pattern)) {
    if (from > end) parts.push({ start: end, end: from, isMatch: invert });
    parts.push({ start: from, end: to, isMatch: !invert });
    end = to;
  }
  if (end < text.length) parts.push({ start: end, end: text.length, isMatch: invert });
  return joined(parts, behavior).flatMap((part) => (part.end > part.start ? [[part.start, part.end]] : []));
}

function joined(
  parts: { start: number; end: number; isMatch: boolean }[],
  behavior: Behavior,
): { start: number; end: number }[] {
  if (behavior === "Isolated") return parts;
  if (behavior === "Removed") return parts.filter(({ isMatch }) => !isMatch);
  const fromEnd = behavior === "MergedWithNext";
  const made: { start: number; end: number }[] = [];
  let before = false;
  for (const part of fromEnd ? parts.toReversed() : parts) {
    const last = made.at(-1);
    const joins = behavior === "Contiguous" ? part.isMatch === before : part.isMatch && !before;
    if (last && joins) Object.assign(last, fromEnd ? { start: part.start } : { end: part.end });
    else made.push({ start: part.start, end: part.end });
    before = part.isMatch;
  }
  return fromEnd ? made.reverse() : made;
}

// ---- other steps ----------------------------------------------------------------------------------------------------

function pieceStepOf(step: Step): PieceStep {
  const cuts = cutsOf(step);
  if (cuts) return (pieces) => cuts.reduce((parts, cut) => parts.flatMap((piece) => cutPiece(piece, cut)), pieces);
  if (step.type === "ByteLevel") {
    const { add_prefix_space: prefixes = true, use_regex: cutting = true } = step;
    return (pieces) =>
      pieces
        .map((piece) => (prefixes && !piece.text.startsWith(" ") ? led(piece, " ") : piece))
        .flatMap((piece) =>
          cutting ? cutPiece(piece, { pattern: byteLevel, behavior: "Isolated", invert: false }) : [piece],
        )
        .map((piece) => ({ ...piece, text: lettersOfBytes(piece.text), original: piece.text }));
  }
  if (step.type === "Metaspace") return metaspace(step);
  throw new UnsupportedError(`the pre-tokenizer ${String(step.type)}`);
}

function metaspace({ replacement = "▁", add_prefix_space: prefixes, prepend_scheme, split = true }: Step): PieceStep {
  const letter = String(replacement);
  if (Array.from(letter).length !== 1)
    throw new UnsupportedError(`a Metaspace whose replacement is ${JSON.stringify(letter.slice(0, 20))}, no letter`);
  const scheme = prepend_scheme ?? (prefixes === false ? "never" : "always");
  const cut: Cut = { pattern: patternOf({ String: letter }), behavior: "MergedWithNext", invert: false };
  return (pieces, atStart) =>
    pieces.flatMap((piece) => {
      const text = piece.text.replaceAll(" ", () => letter);
      const isFirst = scheme === "always" || (scheme === "first" && atStart && piece.start === 0);
      const whole = isFirst && !text.startsWith(letter) ? led({ ...piece, text }, letter) : { ...piece, text };
      return split ? cutPiece(whole, cut) : [whole];
    });
}

/** The piece with letters in front. */
const led = (piece: Piece, letters: string): Piece => ({
  ...piece,
  text: letters + piece.text,
  lead: piece.lead + letters.length,
});

function cutPiece(piece: Piece, cut: Cut): Piece[] {
  if (piece.original !== undefined) throw new UnsupportedError("a pre-tokenizer behind ByteLevel");
  return cutRanges(piece.text, cut).map(([start, end]) => ({
    text: piece.text.slice(start, end),
    start: piece.start + Math.max(0, start - piece.lead),
    lead: Math.min(end - start, Math.max(0, piece.lead - start)),
  }));
}

/** How many of the word's UTF-16 units lie before the end of so many of a piece's. */
export function placeInWord({ start, lead, original }: Piece, units: number): number {
  let end = units;
  if (original !== undefined) {
    // A token that ends inside a letter covers it.
    end = 0;
    for (let bytes = 0; bytes < units;) {
      const point = original.codePointAt(end)!;
      bytes += point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
      end += point > 0xffff ? 2 : 1;
    }
  }
  return start + Math.max(0, end - lead);
}
