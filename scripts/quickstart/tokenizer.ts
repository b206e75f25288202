// The quick start's tokenizer: byte-level BPE without merges. The words that questions are phrased with are one token
// each, everything else is spelled byte by byte, so the model sees the letters it is asked about.
//
// `ignore_merges` is what makes this work: a piece of text that is in the vocabulary as a whole needs no merges to
// get there (Llama 3 does the same), and no merge can swallow the letters of a made-up word.

/** Text is cut into words (with the space before), single digits, punctuation and white space; no token crosses a cut. */
const pieces = " ?\\p{L}+| ?\\p{N}| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/** Added tokens, after the vocabulary. `<|end|>` ends an answer; `<|endoftext|>` only pads. */
const specialTokens = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"];

/** Turns are marked by one token each, which keeps the rows short; any prefix of a chat renders to a prefix of the text. */
const chatTemplate = `{%- for message in messages -%}
{{- '<|' + message.role + '|>' + message.content -}}
{%- if message.role == 'assistant' -%}{{- '<|end|>' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
`;

/** Byte-level tokenizers write each byte as one printable character: itself, or one from 256 on (a space is `Ġ`). */
function byteCharacters(): string[] {
  const characters: string[] = [];
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    characters.push(String.fromCharCode(printable ? byte : next++));
  }
  return characters;
}

/** The pieces of two letters or more that occur in at least one of a hundred texts, in order of appearance. */
function frequentWords(texts: string[]): string[] {
  const counts = new Map<string, number>();
  for (const text of texts) {
    for (const [piece] of text.matchAll(new RegExp(pieces, "gu"))) counts.set(piece, (counts.get(piece) ?? 0) + 1);
  }
  return [...counts]
    .filter(([piece, count]) => /^ ?[A-Za-z]{2,}$/.test(piece) && count * 100 >= texts.length)
    .map(([piece]) => piece);
}

export interface Tokenizer {
  /** File name to contents. */
  files: Record<string, string>;
  vocabSize: number;
  endId: number;
  padId: number;
}

/** A tokenizer whose whole-word tokens are the frequent words of `texts`. */
export function makeTokenizer(texts: string[]): Tokenizer {
  const characters = byteCharacters();
  const words = frequentWords(texts).map((word) => word.replace(" ", characters[32]!));
  const vocabulary = Object.fromEntries([...characters, ...words].map((token, id) => [token, id]));
  const specialStart = characters.length + words.length;
  const specialId = (token: string) => specialStart + specialTokens.indexOf(token);

  const tokenizer = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content) => ({
      id: specialId(content),
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Split", pattern: { Regex: pieces }, behavior: "Isolated", invert: false },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: true,
      vocab: vocabulary,
      merges: [],
    },
  };
  const tokenizerConfig = {
    backend: "tokenizers",
    clean_up_tokenization_spaces: false,
    eos_token: "<|end|>",
    model_max_length: 512,
    pad_token: "<|endoftext|>",
    tokenizer_class: "TokenizersBackend",
  };
  return {
    files: {
      "tokenizer.json": JSON.stringify(tokenizer, null, 1) + "\n",
      "tokenizer_config.json": JSON.stringify(tokenizerConfig, null, 2) + "\n",
      "chat_template.jinja": chatTemplate,
    },
    vocabSize: specialStart + specialTokens.length,
    endId: specialId("<|end|>"),
    padId: specialId("<|endoftext|>"),
  };
}
