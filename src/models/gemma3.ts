// Gemma 3, the text model: five layers with a sliding window, then one without, each kind with rotary positions of its own;
// a norm before and after attention and MLP, whose weights count from 1; norms of query and key heads; GeGLU; the embedding,
// which is the head, too, multiplied by sqrt(hidden) as its rows enter the first layer.

import { readLayerTypes, type Architecture, type DecoderConfig } from "./architecture.ts";
import type { ConfigFields } from "./fields.ts";
import { attention } from "./parts/attention.ts";
import { mlp } from "./parts/mlp.ts";
import { norm, normAdd } from "./parts/norm.ts";
import { readRope, readRopeObject } from "./rope.ts";

export const gemma3Text: Architecture = {
  modelType: "gemma3_text",
  causalModel: "Gemma3ForCausalLM",
  defaults: {
    maxPositions: 131072,
    heads: 8,
    kvHeads: 4,
    headDim: 256,
    vocabulary: 262208,
    tied: true,
    bosId: 2,
    eosIds: [1],
    padId: 0,
  },
  only: {
    attention_bias: false,
    use_bidirectional_attention: false,
    attn_logit_softcapping: null,
    final_logit_softcapping: null,
  },
  activation: { key: "hidden_activation", names: ["gelu_pytorch_tanh"] },
  read: (fields, { hidden, maxPositions }) => ({
    ...ropesOf(fields, maxPositions),
    attentionScale: fields.positive("query_pre_attn_scalar", 256) ** -0.5,
    embeddingScale: Math.sqrt(hidden),
    normOffset: 1,
  }),
  slidingWindows,
  layer(config, layer) {
    const slidingWindow = config.slidingWindows[layer]!;
    const rope = slidingWindow > 0 ? config.slidingRope : config.rope;
    return [
      norm(config, "input_norm", "input_layernorm.weight"),
      attention(config, { slidingWindow, rope, headNorm: true }),
      normAdd(config, "post_norm", "post_attention_layernorm.weight"),
      norm(config, "mlp_norm", "pre_feedforward_layernorm.weight"),
      mlp(config, { activation: "gelu", normFollows: true }),
      normAdd(config, "post_mlp_norm", "post_feedforward_layernorm.weight"),
    ];
  },
};

/** `rope_parameters` by kind of layer, or the older keys, of which `rope_local_base_freq` is for layers that slide. */
function ropesOf(fields: ConfigFields, maxPositions: number): Pick<DecoderConfig, "rope" | "slidingRope"> {
  const kinds = fields.object("rope_parameters");
  const [theta, local] = [1_000_000, fields.positive("rope_local_base_freq", 10_000)];
  if (!kinds) return { rope: readRope(fields, maxPositions, theta), slidingRope: { type: "default", theta: local } };
  const of = (kind: string, base: number) => {
    const rope = kinds.object(kind);
    return rope ? readRopeObject(rope, base, maxPositions) : { type: "default" as const, theta: base };
  };
  const ropes = { rope: of("full_attention", theta), slidingRope: of("sliding_attention", local) };
  const [unknown] = kinds.unread();
  if (unknown !== undefined) kinds.fail(unknown, "is no kind of layer; there are full_attention and sliding_attention");
  return ropes;
}

/** `layer_types` says it; older configs say that every so many layers one is full. */
function slidingWindows(fields: ConfigFields, layers: number): number[] {
  const window = fields.integer("sliding_window", 4096);
  const pattern = fields.integer("sliding_window_pattern", 6);
  const kinds = readLayerTypes(fields, layers);
  return Array.from({ length: layers }, (_, layer) => {
    const slides = kinds ? kinds[layer] === "sliding_attention" : (layer + 1) % pattern !== 0;
    return slides ? window : 0;
  });
}
