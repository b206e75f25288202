// Wrong model directories. Each case breaks a good one in one way and expects the whole message, with DIR for the
// directory: the file, what is wrong, and where there is one, the way out. Options of config.json that are refused have
// their own table in model-config.test.ts.

import { describe, expect, test } from "bun:test";
import { chmodSync, copyFileSync, mkdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ModelError } from "../../src/words/errors.ts";
import { openModel } from "../../src/models/open.ts";
import { copyModel, type Described, readJson, readRaw, temporaryDirectory, writeRaw } from "../support/models.ts";

type Break = (directory: string) => void;

/** Opens a broken copy of llama-tiny (or another fixture) and returns the message. */
function message(damage: Break, fixture = "llama-tiny"): string {
  using directory = temporaryDirectory();
  copyModel(fixture, directory.path);
  damage(directory.path);
  try {
    openModel(directory.path);
  } catch (error) {
    if (!(error instanceof ModelError)) throw error;
    return error.message.replaceAll(directory.path, "DIR");
  }
  throw new Error("was accepted");
}

const config =
  (change: Record<string, unknown>): Break =>
  (directory) => {
    const path = join(directory, "config.json");
    writeFileSync(path, JSON.stringify({ ...readJson(path), ...change }));
  };

const configText =
  (text: string | Uint8Array): Break =>
  (directory) =>
    writeFileSync(join(directory, "config.json"), text);

const weights = (directory: string) => join(directory, "model.safetensors");

/** Rewrites the header (and keeps the data's length) of model.safetensors. */
const header =
  (change: (header: Record<string, Described>) => void): Break =>
  (directory) => {
    const { header, data } = readRaw(weights(directory));
    change(header);
    writeRaw(weights(directory), JSON.stringify(header), data.length);
  };

const entry = (change: (entry: Described) => void) =>
  header((all) => change(all["model.norm.weight"] ?? { dtype: "", shape: [], data_offsets: [0, 0] }));

/** A header text of our own over no more data than it needs. */
const raw =
  (text: string, dataBytes = 8): Break =>
  (directory) =>
    writeRaw(weights(directory), text, dataBytes);

/** The model in two shards, split by name, then changed. */
const sharded =
  (change: (index: { weight_map: Record<string, unknown> }, directory: string) => void): Break =>
  (directory) => {
    const { header, data } = readRaw(weights(directory));
    const weight_map: Record<string, unknown> = {};
    for (const [number, wanted] of [
      [1, /layers\.[01]/],
      [2, /^(?!.*layers\.[01])/],
    ] as const) {
      const file = `model-0000${number}-of-00002.safetensors`;
      let end = 0;
      const part: Record<string, Described> = {};
      for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
        if (name === "__metadata__" || !wanted.test(name)) continue;
        const bytes = data_offsets[1] - data_offsets[0];
        part[name] = { dtype, shape, data_offsets: [end, (end += bytes)] };
        weight_map[name] = file;
      }
      writeRaw(join(directory, file), JSON.stringify(part), end);
    }
    expect(data.length).toBeGreaterThan(0);
    rmSync(weights(directory));
    const index = { metadata: { total_size: data.length }, weight_map };
    change(index, directory);
    writeFileSync(join(directory, "model.safetensors.index.json"), JSON.stringify(index));
  };

const shard = (number: number) => `model-0000${number}-of-00002.safetensors`;
const jsonProblem = "is not valid JSON: JSON Parse error:";

describe("wrong model directories", () => {
  const cases: [string, Break, string][] = [
    // the directory
    ["missing", (dir) => rmSync(dir, { recursive: true }), "DIR: does not exist"],
    [
      "a file",
      (dir) => {
        rmSync(dir, { recursive: true });
        writeFileSync(dir, "");
      },
      "DIR: is a file, a model directory was expected",
    ],
    // config.json
    ["no config.json", (dir) => rmSync(join(dir, "config.json")), "DIR/config.json: does not exist"],
    [
      "config.json is a directory",
      (dir) => {
        rmSync(join(dir, "config.json"));
        mkdirSync(join(dir, "config.json"));
      },
      "DIR/config.json: is a directory, a file was expected",
    ],
    ["empty config.json", configText(""), `DIR/config.json: ${jsonProblem} Unexpected EOF`],
    [
      "cut config.json",
      configText('{"model_type": "llama",'),
      `DIR/config.json: ${jsonProblem} Property name must be a string literal`,
    ],
    [
      "Python's NaN in config.json",
      configText('{"a": NaN}'),
      `DIR/config.json: ${jsonProblem} Unexpected identifier "NaN"`,
    ],
    ["a list as config.json", configText("[1]"), "DIR/config.json: must be a JSON object"],
    [
      "a key twice in config.json",
      configText('{"a": 1, "b": {"a": 2}, "a": 3}'),
      'DIR/config.json: has the key "a" twice',
    ],
    [
      "unsupported model_type",
      config({ model_type: "gpt2" }),
      'DIR/config.json: model_type "gpt2" is not supported; supported: llama, qwen2, qwen3, mistral, gemma3_text',
    ],
    [
      "a refused option",
      config({ attention_bias: true }),
      "DIR/config.json: attention_bias is true; for model_type llama Sluice supports only false",
    ],
    [
      "a mistyped option",
      config({ tie_word_embedding: true }),
      "DIR/config.json: tie_word_embedding is an unknown key (did you mean tie_word_embeddings?)",
    ],
    // which weight files
    [
      "no weights",
      (dir) => rmSync(weights(dir)),
      "DIR: has no weights; it needs model.safetensors or model.safetensors.index.json",
    ],
    [
      "weights in PyTorch's own format",
      (dir) => {
        rmSync(weights(dir));
        writeFileSync(join(dir, "pytorch_model.bin"), "");
      },
      "DIR: has no weights; it has pytorch_model.bin, but Sluice reads model.safetensors or model.safetensors.index.json only; save the model as safetensors",
    ],
    [
      "model.safetensors is a directory",
      (dir) => {
        rmSync(weights(dir));
        mkdirSync(weights(dir));
      },
      "DIR/model.safetensors: is not a regular file",
    ],
    // the header
    [
      "an empty file",
      (dir) => truncateSync(weights(dir), 0),
      "DIR/model.safetensors: is 0 bytes long, too short for a safetensors file; download it again",
    ],
    [
      "cut inside the header",
      (dir) => truncateSync(weights(dir), 1000),
      "DIR/model.safetensors: the header needs 4056 bytes but the file ends after 1000; it is cut off, download it again",
    ],
    [
      "cut at the header's last byte",
      (dir) => truncateSync(weights(dir), 4055),
      "DIR/model.safetensors: the header needs 4056 bytes but the file ends after 4055; it is cut off, download it again",
    ],
    [
      "cut inside the data",
      (dir) => truncateSync(weights(dir), 504_919),
      'DIR/model.safetensors: tensor "model.norm.weight" ends at byte 504920 but the file after 504919; it is cut off, download it again',
    ],
    [
      "an absurd header length",
      (dir) => writeFileSync(weights(dir), Buffer.from("<!DOCTYPE html><p>Sorry</p>")),
      "DIR/model.safetensors: says its header is 5789751444030890300 bytes long, the limit is 100000000; this is no safetensors file",
    ],
    [
      "a header that is no JSON",
      raw("{{}}"),
      `DIR/model.safetensors: the header ${jsonProblem} Expected '}'; the file is damaged`,
    ],
    [
      "a header that is a list",
      raw("[]"),
      "DIR/model.safetensors: the header is not a JSON object; the file is damaged",
    ],
    [
      "a header that is no UTF-8",
      (dir) => writeFileSync(weights(dir), Buffer.from([4, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0xff, 0xfe, 0x7d])),
      "DIR/model.safetensors: the header is not UTF-8 text; the file is damaged",
    ],
    [
      "a tensor twice",
      raw(
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"\\u0061":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
      ),
      'DIR/model.safetensors: the header has the key "a" twice; the file is damaged',
    ],
    ["a tensor that is no object", raw('{"a":7}'), 'DIR/model.safetensors: tensor "a" is not described by an object'],
    [
      "odd metadata",
      raw('{"__metadata__":{"a":1}}'),
      "DIR/model.safetensors: __metadata__ must be an object of strings; the file is damaged",
    ],
    [
      "an unknown dtype",
      entry((one) => (one.dtype = "F12")),
      'DIR/model.safetensors: tensor "model.norm.weight" has the unknown dtype "F12"; known: BOOL, U8, I8, F8_E5M2, F8_E4M3, F8_E8M0, I16, U16, F16, BF16, I32, U32, F32, F64, I64, U64, C64',
    ],
    [
      "a negative dimension",
      entry((one) => (one.shape = [-64])),
      'DIR/model.safetensors: tensor "model.norm.weight" has a bad shape: [-64]',
    ],
    [
      "three offsets",
      entry((one) => (one.data_offsets as number[]).push(9)),
      'DIR/model.safetensors: tensor "model.norm.weight" has bad data_offsets: [500736,500864,9]',
    ],
    [
      "offsets that do not span the shape",
      entry((one) => (one.shape = [65])),
      'DIR/model.safetensors: tensor "model.norm.weight" of BF16 [65] needs 130 bytes but its data_offsets [500736, 500864] span 128',
    ],
    [
      "offsets that run backwards",
      entry((one) => one.data_offsets.reverse()),
      'DIR/model.safetensors: tensor "model.norm.weight" of BF16 [64] needs 128 bytes but its data_offsets [500864, 500736] span -128',
    ],
    [
      "overlapping tensors",
      entry((one) => (one.data_offsets = [0, 128])),
      'DIR/model.safetensors: tensor "lm_head.weight" overlaps tensor "model.norm.weight"; the file is damaged',
    ],
    [
      "a hole",
      raw('{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}'),
      'DIR/model.safetensors: tensor "b" leaves a hole after tensor "a"; the file is damaged',
    ],
    [
      "bytes after the end",
      raw('{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'),
      "DIR/model.safetensors: has 6 bytes that belong to no tensor after byte 63; the file is damaged",
    ],
    // the tensors against the config
    [
      "a dtype that is no weight",
      raw('{"a":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}}'),
      'DIR/model.safetensors: tensor "a" is F8_E4M3; supported: BF16, F16, F32',
    ],
    [
      "a missing tensor",
      header((all) => {
        all["model.norm.weights"] = all["model.norm.weight"] as Described;
        delete all["model.norm.weight"];
      }),
      "DIR: the weights lack tensor model.norm.weight, which llama with 4 layers needs",
    ],
    [
      "fewer layers than the config says",
      config({ num_hidden_layers: 5 }),
      "DIR: the weights lack tensor model.layers.4.self_attn.q_proj.weight and 8 more, which llama with 5 layers needs",
    ],
    [
      "more layers than the config says",
      config({ num_hidden_layers: 3 }),
      "DIR/model.safetensors: tensor model.layers.3.input_layernorm.weight belongs to no part of a llama model with 3 layers as config.json describes it",
    ],
    [
      "a wrong shape",
      config({ intermediate_size: 113 }),
      "DIR/model.safetensors: tensor model.layers.0.mlp.gate_proj.weight has the shape [112, 64], config.json asks for [113, 64]",
    ],
    [
      "a transposed matrix",
      header((all) => all["model.layers.2.mlp.up_proj.weight"]?.shape.reverse()),
      "DIR/model.safetensors: tensor model.layers.2.mlp.up_proj.weight has the shape [64, 112], config.json asks for [112, 64]",
    ],
    [
      "another vocabulary",
      config({ vocab_size: 600 }),
      "DIR/model.safetensors: tensor model.embed_tokens.weight has the shape [512, 64], config.json asks for [600, 64]",
    ],
    [
      "the bare model",
      header((all) => {
        for (const name of Object.keys(all).filter((one) => one.startsWith("model."))) {
          all[name.slice(6)] = all[name] as Described;
          delete all[name];
        }
      }),
      'DIR: the weights lack tensor model.embed_tokens.weight and 37 more, which llama with 4 layers needs; the files hold the bare model without its LM head (names lack "model."), save the ForCausalLM model',
    ],
    [
      "weights of another architecture",
      config({ model_type: "qwen3", architectures: ["Qwen3ForCausalLM"], mlp_bias: false }),
      "DIR: the weights lack tensor model.layers.0.self_attn.q_norm.weight and 7 more, which qwen3 with 4 layers needs",
    ],
    // shards
    [
      "a missing shard",
      sharded((_, dir) => rmSync(join(dir, shard(2)))),
      "DIR/model-00002-of-00002.safetensors: is missing, model.safetensors.index.json names it; download the model again",
    ],
    [
      "a truncated shard",
      sharded((_, dir) => truncateSync(join(dir, shard(1)), 100_000)),
      'DIR/model-00001-of-00002.safetensors: tensor "model.layers.1.mlp.down_proj.weight" ends at byte 108740 but the file after 100000; it is cut off, download it again',
    ],
    [
      "a shard of another model",
      sharded((_, dir) => copyFileSync(join(dir, shard(1)), join(dir, shard(2)))),
      'DIR/model-00002-of-00002.safetensors: holds tensor "model.layers.0.input_layernorm.weight", which model.safetensors.index.json places in model-00001-of-00002.safetensors; shards and index are of different models',
    ],
    [
      "a tensor the index does not list",
      sharded(({ weight_map }) => delete weight_map["model.norm.weight"]),
      'DIR/model-00002-of-00002.safetensors: holds tensor "model.norm.weight", which model.safetensors.index.json does not list; shards and index are of different models',
    ],
    [
      "a tensor that its shard lacks",
      sharded(({ weight_map }) => (weight_map.extra = shard(1))),
      'DIR/model-00001-of-00002.safetensors: has no tensor "extra", which model.safetensors.index.json places there; shards and index are of different models',
    ],
    ...["../other/model.safetensors", "/etc/passwd", "sub/model.safetensors", "..", 7].map(
      (target): [string, Break, string] => [
        `an index pointing to ${target}`,
        sharded(({ weight_map }) => (weight_map["model.norm.weight"] = target)),
        `DIR/model.safetensors.index.json: weight_map places "model.norm.weight" in ${JSON.stringify(target)}; a file name ending in .safetensors, in the same directory, was expected`,
      ],
    ),
    [
      "an index without a map",
      (dir) => {
        rmSync(weights(dir));
        writeFileSync(join(dir, "model.safetensors.index.json"), "{}");
      },
      "DIR/model.safetensors.index.json: weight_map must be an object of tensor names and files",
    ],
    [
      "an index that is no JSON",
      (dir) => {
        rmSync(weights(dir));
        writeFileSync(join(dir, "model.safetensors.index.json"), "{");
      },
      `DIR/model.safetensors.index.json: ${jsonProblem} Expected '}'`,
    ],
    [
      "a dangling link, as an unfinished download leaves it",
      (dir) => {
        rmSync(weights(dir));
        symlinkSync("../../blobs/gone", weights(dir));
      },
      "DIR: has no weights; it needs model.safetensors or model.safetensors.index.json",
    ],
  ];
  for (const [name, damage, expected] of cases)
    test(name, () => {
      expect(message(damage)).toBe(expected);
    });
});

describe("per fixture", () => {
  test("an untied config over a tied model names the way out", () => {
    expect(message(config({ tie_word_embeddings: false }), "qwen3-tiny")).toBe(
      'DIR: the weights lack tensor lm_head.weight, which qwen3 with 4 layers needs; if the LM head is the embedding, config.json must say "tie_word_embeddings": true',
    );
  });

  // Root reads everything, so there this cannot be seen.
  test.skipIf(process.getuid?.() === 0)("no permission (skipped for root)", () => {
    expect(message((dir) => chmodSync(join(dir, "model.safetensors"), 0))).toBe(
      "DIR/model.safetensors: no permission to read it; check its owner and mode",
    );
  });
});
