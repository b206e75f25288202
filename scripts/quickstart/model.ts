// The quick start's model: Qwen3's architecture, 12 thin layers, random weights in bf16.
//
// Twelve layers of hidden size 96 are 1.2 million parameters: small enough to learn the tasks in a minute of two slow
// cores, deep enough that a window of two layers is much smaller than the model. The standard deviations below
// were searched for (docs/log.md): a wide embedding and narrow projections back into the residual stream let every
// seed learn, at learning rates from 1e-3 to 2e-3.

import type { Random } from "../../src/words/random.ts";
import type { Tokenizer } from "./tokenizer.ts";

const config = {
  architectures: ["Qwen3ForCausalLM"],
  attention_bias: false,
  attention_dropout: 0,
  dtype: "bfloat16",
  head_dim: 32,
  hidden_act: "silu",
  hidden_size: 96,
  initializer_range: 0.08,
  intermediate_size: 256,
  max_position_embeddings: 512,
  model_type: "qwen3",
  num_attention_heads: 3,
  num_hidden_layers: 12,
  num_key_value_heads: 1,
  rms_norm_eps: 1e-6,
  rope_parameters: { rope_theta: 10_000, rope_type: "default" },
  sliding_window: null,
  tie_word_embeddings: false,
  transformers_version: "5.18.0",
  use_cache: true,
  use_sliding_window: false,
};
const embeddingStd = 0.5;

interface Tensor {
  name: string;
  shape: number[];
  /** Standard deviation of the random values; without it, all ones. */
  std?: number;
}

function tensors(vocabSize: number): Tensor[] {
  const {
    hidden_size: C,
    head_dim: D,
    intermediate_size: F,
    num_attention_heads: H,
    num_key_value_heads: K,
    num_hidden_layers: L,
  } = config;
  const std = config.initializer_range;
  // Every layer adds twice to the residual stream; GPT-2's scaling keeps the sum as large as one addition.
  const residualStd = std / Math.sqrt(2 * L);
  const list: Tensor[] = [{ name: "model.embed_tokens.weight", shape: [vocabSize, C], std: embeddingStd }];
  for (let layer = 0; layer < L; layer++) {
    const prefix = `model.layers.${layer}.`;
    list.push(
      { name: prefix + "input_layernorm.weight", shape: [C] },
      { name: prefix + "self_attn.q_proj.weight", shape: [H * D, C], std },
      { name: prefix + "self_attn.k_proj.weight", shape: [K * D, C], std },
      { name: prefix + "self_attn.v_proj.weight", shape: [K * D, C], std },
      { name: prefix + "self_attn.q_norm.weight", shape: [D] },
      { name: prefix + "self_attn.k_norm.weight", shape: [D] },
      { name: prefix + "self_attn.o_proj.weight", shape: [C, H * D], std: residualStd },
      { name: prefix + "post_attention_layernorm.weight", shape: [C] },
      { name: prefix + "mlp.gate_proj.weight", shape: [F, C], std },
      { name: prefix + "mlp.up_proj.weight", shape: [F, C], std },
      { name: prefix + "mlp.down_proj.weight", shape: [C, F], std: residualStd },
    );
  }
  list.push({ name: "model.norm.weight", shape: [C] }, { name: "lm_head.weight", shape: [vocabSize, C], std });
  return list;
}

/** A standard normal number, by Box and Muller. */
function normal(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random.uniform())) * Math.cos(2 * Math.PI * random.uniform());
}

/** The nearest bf16 (ties to even) of each value, as bits. */
function toBf16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return Uint16Array.from(bits, (word) => (word + 0x7fff + ((word >>> 16) & 1)) >>> 16);
}

/** A safetensors file: the header's length in 8 bytes, the header as JSON padded to 8 bytes, the tensors end to end. */
function safetensors(random: Random, list: Tensor[]): Blob {
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  const parts: Uint16Array<ArrayBuffer>[] = [];
  let offset = 0;
  for (const { name, shape, std } of list) {
    const count = shape.reduce((product, size) => product * size);
    const values = Float32Array.from({ length: count }, () => (std === undefined ? 1 : std * normal(random)));
    const data = toBf16(values);
    parts.push(data);
    header[name] = { dtype: "BF16", shape, data_offsets: [offset, (offset += data.byteLength)] };
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const headerBytes = new Uint8Array(Math.ceil(json.length / 8) * 8).fill(0x20);
  headerBytes.set(json);
  return new Blob([new BigUint64Array([BigInt(headerBytes.length)]), headerBytes, ...parts]);
}

/** The files of a model directory, by name, for a tokenizer made before. */
export function makeModel(random: Random, tokenizer: Tokenizer): Record<string, string | Blob> {
  const ids = { bos_token_id: null, eos_token_id: tokenizer.endId, pad_token_id: tokenizer.padId };
  const generation = {
    ...ids,
    do_sample: false,
    max_new_tokens: 16,
    transformers_version: config.transformers_version,
  };
  return {
    "config.json": JSON.stringify({ ...config, ...ids, vocab_size: tokenizer.vocabSize }, null, 2) + "\n",
    "generation_config.json": JSON.stringify(generation, null, 2) + "\n",
    "model.safetensors": safetensors(random, tensors(tokenizer.vocabSize)),
    ...tokenizer.files,
  };
}
