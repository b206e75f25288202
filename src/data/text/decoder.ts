// Token ids to text: the "decoder" of tokenizer.json, a chain of steps over a list of texts that are joined in the end. As
// Hugging Face's library has them; a step that is not here is refused by name.

import { byteLetters, lettersMaxOf, LimitError, type Step } from "./normalize.ts";
import { patternOf, rangesOf, UnsupportedError } from "./pattern.ts";

/** Tokens to the texts that they stand for. */
export type Decode = (tokens: string[]) => string[];

/** The function of a "decoder"; without one tokens are joined by spaces. */
export function decoderOf(step: Step | null | undefined): Decode {
  if (!step) return (tokens) => [tokens.join(" ")];
  switch (step.type) {
    case "Sequence": {
      const steps = ((step["decoders"] ?? []) as Step[]).map(decoderOf);
      return (tokens) => {
        const lettersMax = lettersMaxOf(lettersOf(tokens));
        return steps.reduce((texts, decode) => {
          const made = decode(texts);
          if (lettersOf(made) > lettersMax)
            throw new LimitError(`its decoder makes more than ${lettersMax} letters of some tokens`);
          return made;
        }, tokens);
      };
    }
    case "ByteLevel":
      return byteLevel;
    case "ByteFallback":
      return byteFallback;
    case "Fuse":
      return (tokens) => [tokens.join("")];
    case "Replace":
      return replacing(step);
    case "Strip":
      return stripping(step);
    case "Metaspace":
      return metaspace(step);
    case "WordPiece":
      return wordPiece(step);
    case "BPEDecoder": {
      const suffix = String(step["suffix"]);
      return (tokens) => tokens.map((token, i) => token.replaceAll(suffix, () => (i === tokens.length - 1 ? "" : " ")));
    }
    case "CTC":
      return ctc(step);
    default:
      throw new UnsupportedError(`the decoder ${String(step.type)}`);
  }
}

const lettersOf = (texts: readonly string[]): number => texts.reduce((sum, text) => sum + text.length, 0);

const lossy = new TextDecoder("utf-8", { ignoreBOM: true });
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const utf8 = new TextEncoder();
const bytesByLetter = new Map(byteLetters.map((letter, byte) => [letter, byte]));

/** A token of letters that stand for bytes; one with another letter is text. */
const byteLevel: Decode = (tokens) => {
  const bytes: number[] = [];
  for (const token of tokens) {
    const own = Array.from(token, (letter) => bytesByLetter.get(letter));
    for (const byte of own.includes(undefined) ? utf8.encode(token) : (own as number[])) bytes.push(byte);
  }
  return [lossy.decode(Uint8Array.from(bytes))];
};

/** Runs of tokens such as <0xEF> are UTF-8, or each byte of the run is replaced. */
const byteFallback: Decode = (tokens) => {
  const texts: string[] = [];
  let bytes: number[] = [];
  const settle = (): void => {
    if (bytes.length === 0) return;
    try {
      texts.push(strict.decode(Uint8Array.from(bytes)));
    } catch {
      for (const _ of bytes) texts.push("\ufffd");
    }
    bytes = [];
  };
  for (const token of tokens) {
    const hex = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
    if (hex !== undefined) bytes.push(parseInt(hex, 16));
    else {
      settle();
      texts.push(token);
    }
  }
  settle();
  return texts;
};

function replacing(step: Step): Decode {
  const pattern = patternOf(step["pattern"]);
  const content = String(step["content"]);
  return (tokens) =>
    tokens.map((token) => {
      let made = "";
      let end = 0;
      for (const [from, to] of rangesOf(token, pattern)) {
        made += token.slice(end, from) + content;
        if (made.length > 2 ** 24) throw new LimitError(`its decoder makes more than ${2 ** 24} letters of a token`);
        end = to;
      }
      return made + token.slice(end);
    });
}

function stripping({ content, start, stop }: Step): Decode {
  return (tokens) =>
    tokens.map((token) => {
      const letters = Array.from(token);
      let [from, to] = [0, letters.length];
      while (from < (start as number) && letters[from] === content) from++;
      while (letters.length - to < (stop as number) && to > from && letters[to - 1] === content) to--;
      return letters.slice(from, to).join("");
    });
}

function metaspace({ replacement = "▁", add_prefix_space: prefixes, prepend_scheme }: Step): Decode {
  const letter = String(replacement);
  const isLed = (prepend_scheme ?? (prefixes === false ? "never" : "always")) !== "never";
  return (tokens) => tokens.map((token, i) => token.replaceAll(letter, () => (i === 0 && isLed ? "" : " ")));
}

function wordPiece({ prefix, cleanup }: Step): Decode {
  return (tokens) =>
    tokens.map((token, i) => {
      let text = token;
      if (i > 0) text = token.startsWith(String(prefix)) ? token.slice(String(prefix).length) : ` ${token}`;
      return cleanup ? cleaned(text) : text;
    });
}

function ctc({ pad_token: pad, word_delimiter_token: delimiter, cleanup }: Step): Decode {
  return (tokens) =>
    tokens
      .filter((token, i) => token !== tokens[i - 1])
      .map((token) => token.replaceAll(String(pad), ""))
      .map((token) => (cleanup ? cleaned(token).replaceAll(String(delimiter), " ") : token))
      .filter((token) => token !== "");
}

/** Spaces before punctuation, in English. */
function cleaned(text: string): string {
  const pairs = [
    " .",
    ".",
    " ?",
    "?",
    " !",
    "!",
    " ,",
    ",",
    " ' ",
    "'",
    " n't",
    "n't",
    " 'm",
    "'m",
    " do not",
    " don't",
    " 's",
    "'s",
    " 've",
    "'ve",
    " 're",
    "'re",
  ];
  let made = text;
  for (let i = 0; i < pairs.length; i += 2) made = made.replaceAll(pairs[i]!, pairs[i + 1]!);
  return made;
}
