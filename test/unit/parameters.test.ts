// The parameter layout: the promises at the top of parameters.ts, checked on the fixtures and on odd sizes; the runs of
// weight decay; and that a model's tensors are compared with the layout.

import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openModelTensors } from "../../src/io/safetensors.ts";
import { type DecoderConfig, parseDecoderConfig } from "../../src/models/config.ts";
import { modelTypes } from "../../src/models/index.ts";
import { openModel } from "../../src/models/open.ts";
import { checkTensors, groupOf, parameterBlocks, parameterCount } from "../../src/models/parameters.ts";
import { decayRuns, weightDecays } from "../../src/state/weight-decay.ts";
import { copyModel, fixtures, readJson, readRaw, testDirectory } from "../support/models.ts";

function odd(modelType: string, tied: boolean): DecoderConfig {
  const source = {
    model_type: modelType,
    vocab_size: 577,
    hidden_size: 40,
    intermediate_size: 104,
    num_hidden_layers: 3,
    num_attention_heads: 6,
    num_key_value_heads: 3,
    head_dim: 18,
    tie_word_embeddings: tied,
  };
  return parseDecoderConfig(source, "config.json");
}

const configs = modelTypes.flatMap((type) => [odd(type, true), odd(type, false)]);
const describeConfig = (config: DecoderConfig) => `${config.modelType}${config.tied ? ", tied" : ""}`;

describe("layout", () => {
  for (const config of configs)
    test(describeConfig(config), () => {
      const blocks = parameterBlocks(config);
      expect(blocks.map((block) => block.name)).toEqual(["embedding", "layer 0", "layer 1", "layer 2", "head"]);
      expect(blocks.map((block) => block.index)).toEqual([0, 1, 2, 3, 4]);
      expect(blocks.map((block) => block.layer)).toEqual([-1, 0, 1, 2, -1]);
      const names = new Set<string>();
      for (const block of blocks) {
        let end = 0;
        let vectors = false;
        for (const tensor of block.tensors) {
          expect(tensor.offset).toBeGreaterThanOrEqual(end); // no overlap
          expect(tensor.offset - end).toBeLessThan(64);
          end = tensor.offset + tensor.count;
          expect(vectors && tensor.shape.length > 1).toBe(false); // matrices first
          vectors ||= tensor.shape.length === 1;
          expect(names.has(tensor.name)).toBe(false);
          names.add(tensor.name);
        }
        expect(block.length % 64).toBe(0);
        expect(block.length - end).toBeGreaterThanOrEqual(0);
        expect(block.length - end).toBeLessThan(64);
        for (const [name, group] of block.groups) {
          expect(group.offset % 64).toBe(0);
          let at = group.offset;
          for (const tensor of block.tensors.filter((one) => one.group === name)) {
            expect(tensor.offset).toBe(at); // no gap inside a group
            at += tensor.count;
          }
          expect(at).toBe(group.offset + group.count);
        }
      }
      expect(names.has("lm_head.weight")).toBe(!config.tied);
    });

  test("groups hold q|k|v, gate|up and the biases in this order", () => {
    const [, layer] = parameterBlocks(odd("qwen2", true));
    const groups = Object.groupBy(layer?.tensors ?? [], (tensor) => tensor.group);
    const parts = (tensors: { name: string }[] | undefined) =>
      tensors?.map((one) => one.name.split(".").slice(-2).join("."));
    expect(parts(groups.qkv)).toEqual(["q_proj.weight", "k_proj.weight", "v_proj.weight"]);
    expect(parts(groups.gate_up)).toEqual(["gate_proj.weight", "up_proj.weight"]);
    expect(parts(groups.qkv_bias)).toEqual(["q_proj.bias", "k_proj.bias", "v_proj.bias"]);
    expect(groups.qkv?.map((tensor) => tensor.shape)).toEqual([
      [108, 40],
      [54, 40],
      [54, 40],
    ]);
  });

  test("a group that is not there is our mistake", () => {
    const [, layer] = parameterBlocks(odd("llama", true));
    if (!layer) throw new Error("no layer");
    expect(groupOf(layer, "qkv")).toEqual({ offset: 0, count: 216 * 40 });
    expect(() => groupOf(layer, "q_norm")).toThrow("internal error: layer 0 has no group q_norm");
  });

  test("real sizes: Qwen3 8B and Llama 3.1 8B have as many parameters as published", () => {
    const llama = {
      model_type: "llama",
      vocab_size: 128256,
      hidden_size: 4096,
      intermediate_size: 14336,
      num_hidden_layers: 32,
      num_attention_heads: 32,
      num_key_value_heads: 8,
    };
    expect(parameterCount(parameterBlocks(parseDecoderConfig(llama, "")))).toBe(8_030_261_248);
    const qwen = {
      ...llama,
      model_type: "qwen3",
      vocab_size: 151936,
      intermediate_size: 12288,
      num_hidden_layers: 36,
      head_dim: 128,
    };
    expect(parameterCount(parameterBlocks(parseDecoderConfig(qwen, "")))).toBe(8_190_735_360);
  });
});

describe("weight decay", () => {
  const blocks = parameterBlocks(odd("qwen3", false));
  const all = (weightDecay: number, weightDecayGroups?: { match: string; weightDecay: number }[]) => {
    const optimizer = { learningRate: 1, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, state: "fp32" as const };
    const decays = weightDecays(
      { ...optimizer, weightDecay, ...(weightDecayGroups && { weightDecayGroups }) },
      blocks.flatMap((block) => block.tensors),
    );
    return blocks.map((block) => decayRuns(block, decays));
  };

  test("runs cover each block, also under odd patterns", () => {
    const weightDecayGroups = [
      { match: "*.k_proj.weight", weightDecay: 0.5 },
      { match: "*norm*", weightDecay: 0.01 },
      { match: "model.layers.1.*", weightDecay: 0 },
    ];
    for (const [index, runs] of all(0.1, weightDecayGroups).entries()) {
      let end = 0;
      let previous: number | undefined;
      for (const run of runs) {
        expect(run.offset).toBe(end);
        expect(run.weightDecay).not.toBe(previous as number);
        end += run.count;
        previous = run.weightDecay;
      }
      expect(end).toBe(blocks[index]?.length ?? -1);
    }
  });

  test("by default matrices decay and vectors do not: two runs per layer", () => {
    const runs = all(0.1);
    expect(runs.map((list) => list.map((run) => run.weightDecay))).toEqual([
      [0.1],
      [0.1, 0],
      [0.1, 0],
      [0.1, 0],
      [0.1, 0],
    ]);
    const [, layer] = blocks;
    expect(runs[1]?.[1]?.offset).toBe(layer ? groupOf(layer, "input_norm").offset : -1);
  });

  test("everything alike is one run", () => {
    expect(all(0).every((runs) => runs.length === 1)).toBe(true);
  });

  test("the first matching entry decides, others keep the default", () => {
    const weightDecayGroups = [
      { match: "model.layers.0.self_attn.k_proj.weight", weightDecay: 0.3 },
      { match: "*_proj.weight", weightDecay: 0.2 },
    ];
    const [embedding, first, second] = all(0.1, weightDecayGroups);
    expect(embedding?.map((run) => run.weightDecay)).toEqual([0.1]);
    expect(first?.map((run) => run.weightDecay)).toEqual([0.2, 0.3, 0.2, 0]);
    expect(first?.[1]).toEqual({ offset: 108 * 40, count: 54 * 40, weightDecay: 0.3 });
    expect(second?.map((run) => run.weightDecay)).toEqual([0.2, 0]);
  });

  test("a tensor without an entry is our mistake", () => {
    const [embedding] = blocks;
    if (!embedding) throw new Error("no embedding");
    expect(() => decayRuns(embedding, new Map())).toThrow(
      "internal error: model.embed_tokens.weight has no weight decay",
    );
  });
});

describe("tensors of a model", () => {
  for (const name of ["llama-tiny", "qwen2-tiny", "qwen3-tiny", "mistral-tiny", "gemma3-tiny"])
    test(`${name} fits its config`, () => {
      const model = openModel(join(fixtures, name));
      expect(model.ignored).toEqual([]);
      expect(parameterCount(model.blocks)).toBe(
        [...model.tensors.values()].reduce((sum, tensor) => sum + tensor.bytes / 2, 0),
      );
    });

  test("a tied model whose files hold another head is not tied, as with transformers 5; one that holds a copy is", () => {
    const directory = testDirectory();
    copyModel("llama-tiny", directory);
    const config = join(directory, "config.json");
    writeFileSync(config, JSON.stringify({ ...readJson(config), tie_word_embeddings: true }));
    const own = openModel(directory);
    expect(own.config.tied).toBe(false);
    expect(own.config.source["tie_word_embeddings"]).toBe(false);
    expect(own.ignored).toEqual([]);
    expect(own.notes).toEqual([
      `${directory}: config.json says tie_word_embeddings, but lm_head.weight is another matrix than model.embed_tokens.weight; ` +
        `both are kept, as transformers 5 does, and an export says tie_word_embeddings: false`,
    ]);
    const path = join(directory, "model.safetensors");
    const { header, data } = readRaw(path);
    const [from, to] = ["model.embed_tokens.weight", "lm_head.weight"].map((name) => header[name]!.data_offsets[0]);
    const { bytes } = own.tensors.get("lm_head.weight")!;
    data.copy(data, to!, from!, from! + bytes);
    writeFileSync(path, Buffer.concat([readFileSync(path).subarray(0, -data.length), data]));
    expect(openModel(directory)).toMatchObject({ config: { tied: true }, ignored: ["lm_head.weight"], notes: [] });
  });

  test("a tied model may carry lm_head.weight, old exports rotary tables: both are named and left unread", () => {
    const { config } = openModel(join(fixtures, "llama-tiny"));
    const model = openModelTensors(join(fixtures, "llama-tiny"));
    const rotary = "model.layers.0.self_attn.rotary_emb.inv_freq";
    model.tensors.set(rotary, { dtype: "F32", shape: [32], offset: 0, bytes: 128, file: "x" });
    expect(checkTensors({ ...config, tied: true }, model)).toEqual(["lm_head.weight", rotary]);
  });
});
