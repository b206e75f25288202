// config.json in both dialects and as the hub really has it, Hugging Face's defaults for missing keys, and every option
// that Sluice refuses.

import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { ModelError } from "../../src/words/errors.ts";
import { type DecoderConfig, parseDecoderConfig, readDecoderConfig } from "../../src/models/config.ts";
import { fixtures } from "../support/models.ts";

const parse = (source: unknown) => parseDecoderConfig(source, "DIR/config.json");
const withoutSource = (config: DecoderConfig) => ({ ...config, source: {} });

function refusal(source: unknown): string {
  try {
    parse(source);
  } catch (error) {
    expect(error).toBeInstanceOf(ModelError);
    return (error as Error).message.replace("DIR/config.json: ", "");
  }
  throw new Error("was accepted");
}

describe("fixtures", () => {
  for (const name of ["llama-tiny", "qwen2-tiny", "qwen3-tiny", "mistral-tiny", "gemma3-tiny"]) {
    test(`${name}: both dialects mean the same`, () => {
      const config = readDecoderConfig(join(fixtures, name, "config.json"));
      const legacy = readDecoderConfig(join(fixtures, name, "config.legacy.json"));
      expect(withoutSource(legacy)).toEqual(withoutSource(config));
      expect(config.source.rope_parameters).toBeDefined();
      expect(legacy.source.rope_theta).toBeDefined();
    });
  }

  test("llama-tiny in full", () => {
    expect(withoutSource(readDecoderConfig(join(fixtures, "llama-tiny/config.json")))).toEqual({
      modelType: "llama",
      vocabulary: 512,
      hidden: 64,
      intermediate: 112,
      layers: 4,
      heads: 2,
      kvHeads: 1,
      headDim: 64,
      normEpsilon: 1e-5,
      rope: {
        type: "llama3",
        theta: 500000,
        factor: 8,
        lowFrequencyFactor: 1,
        highFrequencyFactor: 4,
        originalMaxPositions: 64,
      },
      maxPositions: 512,
      slidingWindows: [0, 0, 0, 0],
      tied: false,
      bosId: 506,
      eosIds: [510],
      padId: 511,
      source: {},
    });
  });
});

// ---- as published ---------------------------------------------------------------------------------------------------

const llama31 = {
  architectures: ["LlamaForCausalLM"],
  attention_bias: false,
  attention_dropout: 0.0,
  bos_token_id: 128000,
  eos_token_id: [128001, 128008, 128009],
  hidden_act: "silu",
  hidden_size: 4096,
  initializer_range: 0.02,
  intermediate_size: 14336,
  max_position_embeddings: 131072,
  mlp_bias: false,
  model_type: "llama",
  num_attention_heads: 32,
  num_hidden_layers: 32,
  num_key_value_heads: 8,
  pretraining_tp: 1,
  rms_norm_eps: 1e-5,
  rope_scaling: {
    factor: 8.0,
    low_freq_factor: 1.0,
    high_freq_factor: 4.0,
    original_max_position_embeddings: 8192,
    rope_type: "llama3",
  },
  rope_theta: 500000.0,
  tie_word_embeddings: false,
  torch_dtype: "bfloat16",
  transformers_version: "4.42.3",
  use_cache: true,
  vocab_size: 128256,
};
const llama32 = {
  ...llama31,
  head_dim: 64,
  hidden_size: 2048,
  intermediate_size: 8192,
  num_hidden_layers: 16,
  tie_word_embeddings: true,
};
const llama2 = {
  _name_or_path: "meta-llama/Llama-2-7b-hf",
  architectures: ["LlamaForCausalLM"],
  bos_token_id: 1,
  eos_token_id: 2,
  hidden_act: "silu",
  hidden_size: 4096,
  initializer_range: 0.02,
  intermediate_size: 11008,
  max_position_embeddings: 4096,
  model_type: "llama",
  num_attention_heads: 32,
  num_hidden_layers: 32,
  num_key_value_heads: 32,
  pretraining_tp: 1,
  rms_norm_eps: 1e-5,
  rope_scaling: null,
  tie_word_embeddings: false,
  torch_dtype: "float16",
  transformers_version: "4.31.0.dev0",
  use_cache: true,
  vocab_size: 32000,
};
const llama1 = {
  architectures: ["LLaMAForCausalLM"],
  bos_token_id: 0,
  eos_token_id: 1,
  hidden_act: "silu",
  hidden_size: 4096,
  intermediate_size: 11008,
  initializer_range: 0.02,
  max_sequence_length: 2048,
  model_type: "llama",
  num_attention_heads: 32,
  num_hidden_layers: 32,
  pad_token_id: -1,
  rms_norm_eps: 1e-6,
  torch_dtype: "float16",
  transformers_version: "4.27.0.dev0",
  use_cache: true,
  vocab_size: 32000,
};
const smolLm2 = {
  _name_or_path: "checkpoints",
  architectures: ["LlamaForCausalLM"],
  attention_bias: false,
  attention_dropout: 0.0,
  bos_token_id: 1,
  eos_token_id: 2,
  hidden_act: "silu",
  hidden_size: 576,
  initializer_range: 0.041666666666666664,
  intermediate_size: 1536,
  is_llama_config: true,
  max_position_embeddings: 8192,
  mlp_bias: false,
  model_type: "llama",
  num_attention_heads: 9,
  num_hidden_layers: 30,
  num_key_value_heads: 3,
  pad_token_id: 2,
  pretraining_tp: 1,
  rms_norm_eps: 1e-5,
  rope_interleaved: false,
  rope_scaling: null,
  rope_theta: 100000,
  tie_word_embeddings: true,
  torch_dtype: "bfloat16",
  "transformers.js_config": { kv_cache_dtype: { fp16: "float16", q4f16: "float16" } },
  transformers_version: "4.42.3",
  use_cache: true,
  vocab_size: 49152,
};
const qwen25 = {
  architectures: ["Qwen2ForCausalLM"],
  attention_dropout: 0.0,
  bos_token_id: 151643,
  eos_token_id: 151645,
  hidden_act: "silu",
  hidden_size: 896,
  initializer_range: 0.02,
  intermediate_size: 4864,
  max_position_embeddings: 32768,
  max_window_layers: 21,
  model_type: "qwen2",
  num_attention_heads: 14,
  num_hidden_layers: 24,
  num_key_value_heads: 2,
  rms_norm_eps: 1e-6,
  rope_theta: 1000000.0,
  sliding_window: 32768,
  tie_word_embeddings: true,
  torch_dtype: "bfloat16",
  transformers_version: "4.43.1",
  use_cache: true,
  use_sliding_window: false,
  vocab_size: 151936,
};
const r1DistillQwen = { ...qwen25, hidden_size: 1536, num_attention_heads: 12, sliding_window: 4096, use_mrope: false };
const qwen3 = {
  architectures: ["Qwen3ForCausalLM"],
  attention_bias: false,
  attention_dropout: 0.0,
  bos_token_id: 151643,
  eos_token_id: 151645,
  head_dim: 128,
  hidden_act: "silu",
  hidden_size: 1024,
  initializer_range: 0.02,
  intermediate_size: 3072,
  max_position_embeddings: 40960,
  max_window_layers: 28,
  model_type: "qwen3",
  num_attention_heads: 16,
  num_hidden_layers: 28,
  num_key_value_heads: 8,
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 1000000,
  sliding_window: null,
  tie_word_embeddings: true,
  torch_dtype: "bfloat16",
  transformers_version: "4.51.0",
  use_cache: true,
  use_sliding_window: false,
  vocab_size: 151936,
};
const mistral01 = {
  architectures: ["MistralForCausalLM"],
  bos_token_id: 1,
  eos_token_id: 2,
  hidden_act: "silu",
  hidden_size: 4096,
  initializer_range: 0.02,
  intermediate_size: 14336,
  max_position_embeddings: 32768,
  model_type: "mistral",
  num_attention_heads: 32,
  num_hidden_layers: 32,
  num_key_value_heads: 8,
  rms_norm_eps: 1e-5,
  rope_theta: 10000.0,
  sliding_window: 4096,
  tie_word_embeddings: false,
  torch_dtype: "bfloat16",
  transformers_version: "4.34.0.dev0",
  use_cache: true,
  vocab_size: 32000,
};
const mistral03 = {
  ...mistral01,
  attention_dropout: 0.0,
  rope_theta: 1000000.0,
  sliding_window: null,
  vocab_size: 32768,
};
const mistralNemo = {
  ...mistral03,
  head_dim: 128,
  hidden_size: 5120,
  max_position_embeddings: 131072,
  num_hidden_layers: 40,
};

const gemma3 = {
  architectures: ["Gemma3ForCausalLM"],
  attention_bias: false,
  attention_dropout: 0.0,
  attn_logit_softcapping: null,
  bos_token_id: 2,
  cache_implementation: "hybrid",
  eos_token_id: [1, 106],
  final_logit_softcapping: null,
  head_dim: 256,
  hidden_activation: "gelu_pytorch_tanh",
  hidden_size: 1152,
  initializer_range: 0.02,
  intermediate_size: 6912,
  max_position_embeddings: 32768,
  model_type: "gemma3_text",
  num_attention_heads: 4,
  num_hidden_layers: 26,
  num_key_value_heads: 1,
  pad_token_id: 0,
  query_pre_attn_scalar: 256,
  rms_norm_eps: 1e-6,
  rope_local_base_freq: 10000,
  rope_scaling: null,
  rope_theta: 1000000,
  sliding_window: 512,
  sliding_window_pattern: 6,
  torch_dtype: "bfloat16",
  use_cache: true,
  vocab_size: 262144,
};

test("the row that pads is nn.Embedding's padding_idx: counted from the end if negative, inside the embedding", () => {
  const padId = (pad_token_id: unknown) => parseDecoderConfig({ ...llama1, pad_token_id }, "config.json").padId;
  expect([null, 0, 31999, -1, -32000].map(padId)).toEqual([null, 0, 31999, 31999, 0]);
  expect(() => padId(32000)).toThrow(
    "config.json: pad_token_id must be below vocab_size, 32000 (was 32000); null means that nothing pads",
  );
});

describe("configs as the hub has them", () => {
  const cases: [string, Record<string, unknown>, Partial<DecoderConfig>][] = [
    ["Llama 3.1 8B Instruct", llama31, { headDim: 128, kvHeads: 8, tied: false, eosIds: [128001, 128008, 128009] }],
    ["Llama 3.2 1B", llama32, { headDim: 64, tied: true }],
    ["Llama 2 7B", llama2, { headDim: 128, kvHeads: 32, rope: { type: "default", theta: 10000 } }],
    ["Llama 1 7B", llama1, { kvHeads: 32, maxPositions: 2048, bosId: 0, eosIds: [1], padId: 31999 }],
    ["SmolLM2 135M", smolLm2, { headDim: 64, kvHeads: 3, rope: { type: "default", theta: 100000 } }],
    ["Qwen2.5 0.5B Instruct", qwen25, { headDim: 64, slidingWindows: Array(24).fill(0) }],
    ["DeepSeek-R1-Distill-Qwen", r1DistillQwen, { headDim: 128 }],
    ["Qwen3 0.6B", qwen3, { headDim: 128, tied: true }],
    [
      "Gemma 3 1B",
      gemma3,
      {
        headDim: 256,
        kvHeads: 1,
        tied: true,
        attentionScale: 1 / 16,
        normOffset: 1,
        rope: { type: "default", theta: 1e6 },
        slidingRope: { type: "default", theta: 1e4 },
        slidingWindows: Array.from({ length: 26 }, (_, layer) => (layer % 6 === 5 ? 0 : 512)),
      },
    ],
    [
      "Mistral 7B v0.1",
      mistral01,
      { headDim: 128, slidingWindows: Array(32).fill(4096), bosId: 1, eosIds: [2], padId: null },
    ],
    ["Mistral 7B v0.3", mistral03, { vocabulary: 32768, slidingWindows: Array(32).fill(0) }],
    ["Mistral Nemo", mistralNemo, { headDim: 128, hidden: 5120 }],
  ];
  for (const [name, source, expected] of cases)
    test(name, () => {
      expect(parse(source)).toMatchObject(expected);
    });
});

// ---- Hugging Face's defaults ----------------------------------------------------------------------------------------

const sizes = {
  vocab_size: 100,
  hidden_size: 256,
  intermediate_size: 512,
  num_hidden_layers: 4,
  num_attention_heads: 32,
};

describe("missing keys", () => {
  test("take the defaults of the configuration class", () => {
    const rope = { type: "default", theta: 10000 } as const;
    const common = { normEpsilon: 1e-6, tied: false, padId: null, rope, slidingWindows: [0, 0, 0, 0] };
    expect(parse({ model_type: "llama", ...sizes })).toMatchObject({
      ...common,
      kvHeads: 32,
      headDim: 8,
      maxPositions: 2048,
      bosId: 1,
      eosIds: [2],
    });
    expect(parse({ model_type: "qwen2", ...sizes })).toMatchObject({
      ...common,
      kvHeads: 32,
      headDim: 8,
      maxPositions: 32768,
      bosId: null,
      eosIds: [],
    });
    expect(parse({ model_type: "qwen3", ...sizes })).toMatchObject({
      ...common,
      kvHeads: 32,
      headDim: 128,
      maxPositions: 32768,
      bosId: null,
      eosIds: [],
    });
    expect(parse({ model_type: "mistral", ...sizes })).toMatchObject({
      ...common,
      kvHeads: 8,
      headDim: 8,
      maxPositions: 131072,
      bosId: 1,
      eosIds: [2],
      slidingWindows: [4096, 4096, 4096, 4096],
    });
  });

  test("an explicit null for key/value heads means one per head, also where a missing key does not", () => {
    expect(parse({ model_type: "mistral", ...sizes, num_key_value_heads: null }).kvHeads).toBe(32);
    expect(parse({ model_type: "qwen2", ...sizes, num_attention_heads: 16, num_key_value_heads: null }).kvHeads).toBe(
      16,
    );
    expect(refusal({ model_type: "qwen2", ...sizes, num_attention_heads: 16 })).toBe(
      "num_key_value_heads must divide num_attention_heads, 16 (was 32)",
    );
  });

  test("sizes have no default", () => {
    for (const key of Object.keys(sizes)) {
      const { [key]: _, ...rest } = { model_type: "llama", ...sizes } as Record<string, unknown>;
      expect(refusal(rest)).toBe(`${key} is missing`);
    }
  });

  test("the rope object may leave theta and the original length to the top level", () => {
    const scaling = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
    const llama = { model_type: "llama", ...sizes, max_position_embeddings: 777 };
    expect(parse({ ...llama, rope_theta: 5000, rope_scaling: scaling }).rope).toMatchObject({
      theta: 5000,
      originalMaxPositions: 777,
    });
    expect(parse({ ...llama, rope_parameters: scaling, original_max_position_embeddings: 99 }).rope).toMatchObject({
      theta: 10000,
      originalMaxPositions: 99,
    });
    expect(parse({ ...llama, rope_theta: 7, rope_scaling: { type: "default" } }).rope).toEqual({
      type: "default",
      theta: 7,
    });
  });
});

describe("sliding windows", () => {
  const sliding = { ...sizes, use_sliding_window: true, sliding_window: 16, max_window_layers: 3 };
  test("Qwen: layers from max_window_layers on", () => {
    for (const model_type of ["qwen2", "qwen3"]) {
      expect(parse({ model_type, ...sliding }).slidingWindows).toEqual([0, 0, 0, 16]);
      expect(parse({ model_type, ...sliding, max_window_layers: 0 }).slidingWindows).toEqual([16, 16, 16, 16]);
      expect(parse({ model_type, ...sliding, use_sliding_window: false }).slidingWindows).toEqual([0, 0, 0, 0]);
      expect(parse({ model_type, ...sliding, sliding_window: null }).slidingWindows).toEqual([0, 0, 0, 0]);
      const { sliding_window: _, ...unsaid } = sliding;
      expect(parse({ model_type, ...unsaid }).slidingWindows).toEqual([0, 0, 0, 4096]);
    }
  });

  test("layer_types wins over max_window_layers, as in transformers", () => {
    const layer_types = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"];
    expect(parse({ model_type: "qwen3", ...sliding, layer_types }).slidingWindows).toEqual([16, 0, 16, 0]);
  });

  test("Mistral: every layer", () => {
    const layer_types = Array(4).fill("sliding_attention");
    expect(parse({ model_type: "mistral", ...sizes, sliding_window: 24, layer_types }).slidingWindows).toEqual([
      24, 24, 24, 24,
    ]);
    expect(parse({ model_type: "mistral", ...sizes, sliding_window: null }).slidingWindows).toEqual([0, 0, 0, 0]);
  });
});

// ---- refusals -------------------------------------------------------------------------------------------------------

test("Gemma 3: what it does not have is refused, and rotary positions are read by kind of layer", () => {
  expect(refusal({ ...gemma3, final_logit_softcapping: 30 })).toBe(
    "final_logit_softcapping is 30; for model_type gemma3_text Sluice supports only null",
  );
  expect(refusal({ ...gemma3, hidden_activation: "gelu" })).toBe(
    'hidden_activation "gelu" is not supported; supported: gelu_pytorch_tanh',
  );
  const { rope_theta: _, rope_local_base_freq: __, ...rest } = gemma3;
  const full_attention = { rope_type: "linear", factor: 8, rope_theta: 1e6 };
  const kinds = { sliding_attention: { rope_theta: 1e4 }, full_attention };
  expect(parse({ ...rest, rope_parameters: kinds })).toMatchObject({
    rope: { type: "linear", factor: 8, theta: 1e6 },
    slidingRope: { type: "default", theta: 1e4 },
  });
  expect(refusal({ ...rest, rope_parameters: { ...kinds, chunked_attention: {} } })).toBe(
    "rope_parameters.chunked_attention is no kind of layer; there are full_attention and sliding_attention",
  );
});

describe("refused", () => {
  const llama3 = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
  const only = (model: string) => `for model_type ${model} Sluice supports only`;
  const cases: [Record<string, unknown>, string][] = [
    [{ attention_bias: true }, `attention_bias is true; ${only("llama")} false`],
    [{ model_type: "qwen3", attention_bias: true }, `attention_bias is true; ${only("qwen3")} false`],
    [{ model_type: "mistral", attention_bias: true }, `attention_bias is true; ${only("mistral")} false`],
    [{ model_type: "qwen2", attention_bias: false }, `attention_bias is false; ${only("qwen2")} true`],
    [{ mlp_bias: true }, `mlp_bias is true; ${only("llama")} false`],
    [{ pretraining_tp: 2 }, `pretraining_tp is 2; ${only("llama")} 1`],
    [{ attention_dropout: 0.1 }, `attention_dropout is 0.1; ${only("llama")} 0`],
    [{ partial_rotary_factor: 0.5 }, `partial_rotary_factor is 0.5; ${only("llama")} 1`],
    [{ hidden_act: "gelu" }, 'hidden_act "gelu" is not supported; supported: silu'],
    [
      { architectures: ["LlamaForSequenceClassification"] },
      'architectures is ["LlamaForSequenceClassification"]; for model_type llama Sluice trains LlamaForCausalLM',
    ],
    [
      { quantization_config: { quant_method: "awq" } },
      "quantization_config means quantized weights, and Sluice trains full ones; use the model's bf16, fp16 or fp32 weights",
    ],
    [
      { auto_map: { AutoModelForCausalLM: "modeling.X" } },
      "auto_map asks for the repository's own code, which Sluice never runs; remove it if this is a plain LlamaForCausalLM",
    ],
    [
      { rope_scaling: { type: "yarn", factor: 4 } },
      'rope_scaling.rope_type "yarn" is not supported; supported: default, linear, llama3',
    ],
    [{ rope_scaling: { type: "linear", factor: 0.5 } }, "rope_scaling.factor must be at least 1 (was 0.5)"],
    [
      { rope_parameters: { rope_type: "dynamic" } },
      'rope_parameters.rope_type "dynamic" is not supported; supported: default, linear, llama3',
    ],
    [
      { rope_scaling: { ...llama3, type: "yarn" } },
      'rope_scaling.type ("yarn") disagrees with rope_type ("llama3"); keep one of them',
    ],
    [{ rope_scaling: { rope_type: "llama3" } }, "rope_scaling.factor is missing"],
    [{ rope_scaling: { ...llama3, factor: 0.5 } }, "rope_scaling.factor must be at least 1 (was 0.5)"],
    [
      { rope_scaling: { ...llama3, high_freq_factor: 1 } },
      "rope_scaling.high_freq_factor must be above low_freq_factor, 1 (was 1)",
    ],
    [{ rope_scaling: { ...llama3, beta_fast: 32 } }, 'rope_scaling.beta_fast is not supported for rope_type "llama3"'],
    [
      { rope_scaling: { rope_type: "default", factor: 2 } },
      'rope_scaling.factor is not supported for rope_type "default"',
    ],
    [
      { rope_parameters: { full_attention: { rope_type: "default" } } },
      'rope_parameters.full_attention is not supported for rope_type "default"',
    ],
    [
      { rope_parameters: { rope_type: "default", partial_rotary_factor: 0.25 } },
      "rope_parameters.partial_rotary_factor must be 1 (was 0.25): Sluice rotates whole heads",
    ],
    [
      { rope_theta: 5000, rope_parameters: { rope_type: "default", rope_theta: 10000 } },
      "rope_theta (5000) disagrees with rope_parameters.rope_theta (10000); keep one of them",
    ],
    [
      { rope_parameters: { rope_type: "default" }, rope_scaling: llama3 },
      "rope_scaling disagrees with rope_parameters; keep one of them",
    ],
    [
      { original_max_position_embeddings: 64 },
      "original_max_position_embeddings has no effect without a llama3 rope_type; remove it",
    ],
    [
      { original_max_position_embeddings: 64, rope_scaling: { ...llama3, original_max_position_embeddings: 128 } },
      "original_max_position_embeddings (64) disagrees with rope_scaling; keep one of them",
    ],
    [{ rope_theta: -1 }, "rope_theta must be a number above 0 (was -1)"],
    [
      { layer_types: ["full_attention", "sliding_attention", "full_attention", "full_attention"] },
      "layer_types asks for sliding_attention in layer 1, which this model_type does not have",
    ],
    [
      { layer_types: ["full_attention", "chunked_attention", "full_attention", "full_attention"] },
      'layer_types has "chunked_attention" for layer 1; supported: full_attention, sliding_attention',
    ],
    [{ layer_types: ["full_attention"] }, "layer_types has 1 entries for 4 layers"],
    [
      { model_type: "qwen3", layer_types: Array(4).fill("sliding_attention") },
      "layer_types asks for sliding_attention in layer 0, but use_sliding_window or sliding_window is off",
    ],
    [
      { model_type: "mistral", layer_types: Array(4).fill("full_attention") },
      "layer_types must say sliding_attention for layer 0: in model_type mistral, sliding_window (4096) holds for every layer",
    ],
    [{ use_sliding_window: true }, "use_sliding_window is true, which Sluice does not support"],
    [{ sliding_window: 128 }, "sliding_window is a key Sluice does not know; remove it if it changes nothing"],
    [{ is_encoder_decoder: true }, "is_encoder_decoder is true, which Sluice does not support"],
    [{ rope_interleaved: true }, "rope_interleaved is true, which Sluice does not support"],
    [{ num_key_value_head: 4 }, "num_key_value_head is an unknown key (did you mean num_key_value_heads?)"],
    [{ logit_scale: 0.1 }, "logit_scale is a key Sluice does not know; remove it if it changes nothing"],
    [{ num_key_value_heads: 3 }, "num_key_value_heads must divide num_attention_heads, 32 (was 3)"],
    [
      { num_attention_heads: 24, num_key_value_heads: 8 },
      "hidden_size must be a multiple of num_attention_heads, 24, when head_dim is not given (was 256)",
    ],
    [{ head_dim: 7 }, "head_dim must be even, because rotary positions turn pairs (was 7)"],
    [{ hidden_size: 0 }, "hidden_size must be a whole number of at least 1 (was 0)"],
    [{ vocab_size: "100" }, 'vocab_size must be a whole number of at least 1 (was "100")'],
    [{ num_hidden_layers: 10_001 }, "num_hidden_layers must be at most 10,000 (was 10001)"],
    [{ tie_word_embeddings: 1 }, "tie_word_embeddings must be true or false (was 1)"],
    [{ rms_norm_eps: 0 }, "rms_norm_eps must be a number above 0 (was 0)"],
    [{ eos_token_id: ["</s>"] }, 'eos_token_id must be a token id or a list of them (was ["</s>"])'],
    [{ rope_scaling: "yarn" }, 'rope_scaling must be an object (was "yarn")'],
    [
      { model_type: "qwen" },
      'model_type "qwen" is not supported (did you mean "qwen2"?); supported: llama, qwen2, qwen3, mistral, gemma3_text',
    ],
    [
      { model_type: "gpt_neox" },
      'model_type "gpt_neox" is not supported; supported: llama, qwen2, qwen3, mistral, gemma3_text',
    ],
    [{ model_type: undefined }, "model_type is missing"],
  ];
  for (const [change, message] of cases)
    test(message, () => {
      expect(refusal({ model_type: "llama", ...sizes, ...change })).toBe(message);
    });

  test("what is no object", () => {
    expect(refusal([])).toBe("must be a JSON object");
  });

  test("unset and switched-off options of other architectures are fine", () => {
    const off = {
      sliding_window: null,
      quantization_config: null,
      auto_map: null,
      use_mrope: false,
      pruned_heads: {},
      no_such_key: null,
    };
    expect(parse({ model_type: "llama", ...sizes, ...off }).modelType).toBe("llama");
  });
});
