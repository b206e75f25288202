// What a model directory holds: headers, index, config, tokenizer, chat template.

import { copyFileSync, existsSync, mkdirSync, readFileSync, realpathSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { ChatTemplate, encodeConversation } from "../../src/data/text/chat.ts";
import { loadTokenizer, type Tokenizer } from "../../src/data/text/tokenizer.ts";
import { ModelError } from "../../src/words/errors.ts";
import { isObject, parseJson } from "../../src/io/json.ts";
import { layoutSafetensors, openModelTensors, readSafetensors } from "../../src/io/safetensors.ts";
import { readDecoderConfig } from "../../src/models/config.ts";
import { parameterBlocks } from "../../src/models/parameters.ts";
import { fixtures, readRaw } from "../support/models.ts";
import { must, type Target } from "./harness.ts";
import { bytesOf, textOf, type Bytes } from "./mutate.ts";

const tiny = join(fixtures, "qwen3-tiny");
const tokenizers = ["tokenizer-qwen", "tokenizer-llama3", "tokenizer-spm"].map((name) => join(fixtures, "..", name));

/** A reader of JSON without any check behind it: what is no JSON it refuses. */
// oxlint-disable-next-line typescript/no-explicit-any
function parsed(input: Bytes): Record<string, any> {
  try {
    return parseJson(textOf(input)) as Record<string, unknown>;
  } catch (cause) {
    throw new ModelError(`not JSON: ${(cause as Error).message}`);
  }
}

// ---- safetensors ----------------------------------------------------------------------------------------------------

interface Place {
  offset: number;
  bytes: number;
}

/** A few tensors of a real header, laid end to end. */
function smallHeader(): Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }> {
  const { header } = readRaw(join(tiny, "model.safetensors"));
  let end = 0;
  const entries = Object.entries(header).map(([name, { dtype, shape, data_offsets: [begin, until] = [0, 0] }]) => {
    const data_offsets: [number, number] = [end, (end += until - begin)];
    return [name, { dtype, shape, data_offsets }] as const;
  });
  return Object.fromEntries(entries.filter(([name]) => name !== "__metadata__").slice(0, 6));
}

/** Tensors lie inside their file, one behind the other. */
function checkPlaces(places: readonly Place[], input: Bytes): void {
  let end = dataStart(input);
  for (const { offset, bytes } of places.toSorted((a, b) => a.offset - b.offset || a.bytes - b.bytes)) {
    must(offset === end && bytes >= 0, "tensors lie end to end");
    end = offset + bytes;
  }
  must(end === input.length, "tensors end where the file does");
}

function dataStart(input: Bytes): number {
  return 8 + Number(new DataView(input.buffer).getBigUint64(0, true));
}

/** Without the check of how tensors lie to each other. */
function carelessPlaces(input: Bytes): Place[] {
  if (input.length < 8) throw new ModelError("too short");
  const places = Object.values(parsed(input.slice(8, dataStart(input)))).map((entry) => {
    const [begin, end] = isObject(entry) && Array.isArray(entry["data_offsets"]) ? entry["data_offsets"] : [];
    if (!Number.isSafeInteger(begin) || !Number.isSafeInteger(end) || end < begin) throw new ModelError("bad offsets");
    return { offset: dataStart(input) + begin, bytes: end - begin };
  });
  if (places.some(({ offset, bytes }) => offset + bytes > input.length)) throw new ModelError("cut off");
  return places;
}

export const safetensors: Target = {
  seeds: () =>
    [{ ...smallHeader(), __metadata__: { format: "pt" } }, smallHeader()].map((header) =>
      bytesOf(JSON.stringify(header)),
    ),
  isJson: true,
  words: [
    '"BF16"',
    '"F32"',
    '"I64"',
    '"data_offsets":',
    '"shape":',
    '"dtype":',
    '"__metadata__":',
    "BF16",
    "F64",
    "[0]",
  ],
  finish(random, header) {
    const dataBytes = Math.max(...Object.values(smallHeader()).map(({ data_offsets: [, end] }) => end));
    const file = new Uint8Array(8 + header.length + dataBytes);
    const length = random.below(8) > 0 ? BigInt(header.length) : BigInt(random.next()) << BigInt(random.below(33));
    new DataView(file.buffer).setBigUint64(0, length, true);
    file.set(header, 8);
    return random.below(8) > 0 ? file : file.slice(0, random.below(file.length + 1));
  },
  open: (directory) => (input) => {
    const path = join(directory, "model.safetensors");
    writeFileSync(path, input);
    checkPlaces([...readSafetensors(path).tensors.values()], input);
  },
  planted: () => (input) => checkPlaces(carelessPlaces(input), input),
};

// ---- index ----------------------------------------------------------------------------------------------------------

const indexName = "model.safetensors.index.json";
const shards = ["a.safetensors", "b.safetensors"];

/** A folder with two shards, one outside of it, and links that lead there. */
function makeShards(directory: string): string {
  const folder = join(directory, "model");
  mkdirSync(folder, { recursive: true });
  const [layout] = layoutSafetensors([{ name: "w", dtype: "F32", shape: [2] }]).files;
  const file = Buffer.concat([layout!.header, new Uint8Array(8)]);
  for (const shard of shards)
    writeFileSync(join(folder, shard), file.toString("latin1").replace('"w"', `"${shard[0]}"`), "latin1");
  writeFileSync(join(directory, "outside.safetensors"), file);
  for (const [name, target] of [
    ["link.safetensors", "../outside.safetensors"],
    ["up", ".."],
  ] as const)
    if (!existsSync(join(folder, name))) symlinkSync(target, join(folder, name));
  return folder;
}

function checkInside(folder: string, files: readonly string[]): void {
  for (const file of files) must(dirname(realpathSync(file)) === realpathSync(folder), `${file} is inside its folder`);
}

export const index: Target = {
  seeds: () => {
    const weight_map = { a: shards[0], b: shards[1] };
    return [{ weight_map }, { metadata: { total_size: 16 }, weight_map }].map((value) =>
      bytesOf(JSON.stringify(value)),
    );
  },
  isJson: true,
  words: [
    ...shards,
    "link.safetensors",
    "../outside.safetensors",
    "up/outside.safetensors",
    "/outside.safetensors",
    "w",
  ],
  open: (directory) => {
    const folder = makeShards(directory);
    return (input) => {
      writeFileSync(join(folder, indexName), input);
      checkInside(folder, openModelTensors(folder).files);
    };
  },
  // Without a look at the names.
  planted: (directory) => {
    const folder = makeShards(directory);
    return (input) => {
      const { weight_map: map } = parsed(input) ?? {};
      if (!isObject(map)) throw new ModelError("no map");
      const files = Object.values(map).map((shard) => join(folder, String(shard)));
      const missing = files.find((file) => !existsSync(file));
      if (missing !== undefined) throw new ModelError(`${missing} is missing`);
      checkInside(folder, files);
    };
  },
};

// ---- config.json ----------------------------------------------------------------------------------------------------

export const modelConfig: Target = {
  seeds: () =>
    ["qwen3-tiny", "llama-tiny", "mistral-tiny", "qwen2-tiny"].flatMap((name) =>
      ["config.json", "config.legacy.json"].map((file) => new Uint8Array(readFileSync(join(fixtures, name, file)))),
    ),
  isJson: true,
  words: [
    "llama3",
    "rope_type",
    "rope_scaling",
    "linear",
    "sliding_attention",
    "full_attention",
    "mistral",
    "eos_token_id",
  ],
  open: (directory) => (input) => {
    const path = join(directory, "config.json");
    writeFileSync(path, input);
    const config = readDecoderConfig(path);
    must(config.slidingWindows.length === config.layers, "a window for each layer");
    // As many blocks as a directory of this size could have weights for.
    if (config.layers <= 100)
      must(
        parameterBlocks(config).every(({ length }) => length > 0),
        "blocks have parameters",
      );
  },
  planted: () => (input) => parsed(input)["num_hidden_layers"].toFixed(),
};

// ---- tokenizer ------------------------------------------------------------------------------------------------------

const texts = ["Hello wörld 12.5 <|im_end|>\n\n  你好 ", "", "<|im_start|>user\nx<|im_end|></s><unk>", "\ud800\0"];

interface TokenizerFiles {
  tokenizer: { model: { vocab: object; merges?: unknown[] } };
  config: object;
}

/** With a small vocabulary, so that the damage hits other parts, too. */
function shortened(files: TokenizerFiles): TokenizerFiles {
  const { tokenizer, config } = files;
  const vocab = Array.isArray(tokenizer.model.vocab)
    ? tokenizer.model.vocab.slice(0, 40)
    : Object.fromEntries(Object.entries(tokenizer.model.vocab).slice(0, 40));
  const merges = tokenizer.model.merges && { merges: [] };
  return { tokenizer: { ...tokenizer, model: { ...tokenizer.model, vocab, ...merges } }, config };
}

export const tokenizer: Target = {
  seeds: () =>
    tokenizers.flatMap((directory) => {
      const read = (name: string) => JSON.parse(readFileSync(join(directory, name), "utf8")) as unknown;
      const files = { tokenizer: read("tokenizer.json"), config: read("tokenizer_config.json") } as TokenizerFiles;
      return [files, shortened(files), shortened(files)].map((value) => bytesOf(JSON.stringify(value)));
    }),
  isJson: true,
  words: [
    "BPE",
    "WordPiece",
    "Unigram",
    "ByteLevel",
    "Split",
    "Sequence",
    "Replace",
    "Regex",
    "String",
    "<s>",
    "NFC",
    "Strip",
  ],
  open: (directory) => async (input) => {
    const files = (() => {
      try {
        const value: unknown = JSON.parse(textOf(input));
        return isObject(value)
          ? { tokenizer: JSON.stringify(value["tokenizer"]), config: JSON.stringify(value["config"]) }
          : {};
      } catch {
        return { tokenizer: input, config: "{}" };
      }
    })();
    writeFileSync(join(directory, "tokenizer.json"), files.tokenizer ?? "");
    writeFileSync(join(directory, "tokenizer_config.json"), files.config ?? "{}");
    const made = await loadTokenizer(directory);
    for (const text of texts)
      for (const special of [true, false]) {
        const ids = made.encode(text, { special });
        must(
          ids.every((id) => Number.isSafeInteger(id) && id >= 0 && id < made.vocabularySize),
          `ids of the vocabulary (${ids})`,
        );
        must(made.encodeWithPlaces(text, [text.length >> 1]).ids.length <= ids.length, "places change nothing");
        must(typeof made.decode(ids, { skipSpecial: special }) === "string", "decodes to a text");
      }
  },
  // The library as it is.
  planted: () => async (input) => {
    const { Tokenizer: Engine } = await import("@huggingface/tokenizers");
    const { tokenizer: json, config } = parsed(input);
    new Engine(json, config).encode(texts[0]!);
  },
};

// ---- chat template --------------------------------------------------------------------------------------------------

const conversations = [
  [{ role: "user", content: "Hi" }],
  [
    { role: "system", content: "S" },
    { role: "user", content: "a\nb" },
    { role: "assistant", content: "c" },
    { role: "user", content: "d" },
    { role: "assistant", content: "<think>e</think>f" },
  ],
];

/** Pieces of templates, a hostile one now and then. */
const templateWords =
  `{% %} {{ }} {%- -%} {# [::-1] |tojson |join |sort |indent(99999) .replace('','ab') [messages,messages] loop.index0
  * ** // ~ ( ) ' \\ none range(99999) raise_exception('no')`
    .split(/\s+/)
    .concat(
      "{% endfor %}",
      "{% endif %}",
      "{% for i in range(100000) %}",
      "{{ range(300000000) | length }}",
      "{% for m in messages %}",
      " is defined",
    )
    .concat(
      "{% set ns = namespace(x='ab') %}",
      "{% set ns.x = ns.x ~ ns.x %}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    );

export const chatTemplate: Target = {
  seeds: () =>
    [...tokenizers, tiny].map((directory) => new Uint8Array(readFileSync(join(directory, "chat_template.jinja")))),
  words: templateWords,
  open: async () => {
    const whole = await loadTokenizer(tiny);
    return (input) => {
      const { directory, specialTokens } = whole;
      const template = new ChatTemplate({
        directory,
        specialTokens,
        chatTemplate: textOf(input),
      } as unknown as Tokenizer);
      for (const messages of conversations) {
        const text = template.render({ messages }, { generationPrompt: true });
        must(typeof text === "string" && text.length <= 2 ** 24, "renders a text within its limit");
        if (text.length < 10_000) encodeConversation(template, whole, { messages }, "assistant");
      }
    };
  },
  // What a template may not do is thrown as it is, as if it were our mistake.
  planted: async () => {
    const { parseTemplate, renderTemplate, toValue } = await import("../../src/data/text/jinja.ts");
    return (input) => {
      for (const messages of conversations)
        renderTemplate(parseTemplate(textOf(input)), { messages: toValue(messages), add_generation_prompt: true });
    };
  },
};

/** For targets that need a whole model. */
export function copyTiny(directory: string): string {
  const folder = join(directory, "tiny");
  mkdirSync(folder, { recursive: true });
  for (const name of [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
  ])
    copyFileSync(join(tiny, name), join(folder, name));
  return folder;
}
