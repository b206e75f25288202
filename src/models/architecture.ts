// What the four supported architectures share, and the shape in which each says how it differs.
//
// All of them are one dense decoder block: RMSNorm, grouped-query attention with rotary positions, RMSNorm, SwiGLU.
// A model file (`llama.ts`, `qwen2.ts`, `qwen3.ts`, `mistral.ts`) names its model_type, the defaults Hugging Face gives
// to missing keys, the switches that must stay off, its attention windows, and the tensors of a layer. Adding a model
// of this family is one such file and one line in `index.ts`. Read `config.ts` next for how config.json becomes a
// `DecoderConfig`, then `parameters.ts` for how tensors become blocks.

import type { ConfigFields } from "./fields.ts";

/** The sizes that a tensor's shape is made of. */
export interface DecoderSizes {
  vocabulary: number;
  hidden: number;
  intermediate: number;
  heads: number;
  kvHeads: number;
  headDim: number;
}

/** Tensors of one group lie next to each other without gaps, so one GEMM (or one kernel argument) can serve them. */
export type GroupName =
  | "embedding"
  | "qkv"
  | "o"
  | "gate_up"
  | "down"
  | "input_norm"
  | "post_norm"
  | "qkv_bias"
  | "q_norm"
  | "k_norm"
  | "lm_head"
  | "final_norm";

export interface TensorTemplate {
  group: GroupName;
  /** Hugging Face's name; for a layer's tensor without its `model.layers.N.` prefix. */
  name: string;
  shape(sizes: DecoderSizes): number[];
}

export interface Architecture {
  /** config.json's `model_type`. */
  modelType: string;
  /** The class that config.json's `architectures` must name, if it names any. */
  causalModel: string;
  /** What Hugging Face's configuration class assumes for keys that are missing. */
  defaults: {
    maxPositions: number;
    /** undefined: as many as attention heads. */
    kvHeads: number | undefined;
    /** undefined: hidden / heads. */
    headDim: number | undefined;
    bosId: number | null;
    eosIds: number[];
  };
  /** Switches that this architecture's modelling code knows and Sluice has only in one position: key and that value. */
  only: Record<string, boolean | number>;
  /** Attention window of each layer (0 = full), read from the config. */
  windows(fields: ConfigFields, layers: number): number[];
  /** The tensors of one decoder layer; inside a group in the order in which they are laid. */
  layer: TensorTemplate[];
}

export const layerPrefix = (layer: number) => `model.layers.${layer}.`;

const query = (s: DecoderSizes) => s.heads * s.headDim;
const keyValue = (s: DecoderSizes) => s.kvHeads * s.headDim;

/** The layer that Llama introduced and the others extend. */
export const denseLayer: TensorTemplate[] = [
  { group: "qkv", name: "self_attn.q_proj.weight", shape: (s) => [query(s), s.hidden] },
  { group: "qkv", name: "self_attn.k_proj.weight", shape: (s) => [keyValue(s), s.hidden] },
  { group: "qkv", name: "self_attn.v_proj.weight", shape: (s) => [keyValue(s), s.hidden] },
  { group: "o", name: "self_attn.o_proj.weight", shape: (s) => [s.hidden, query(s)] },
  { group: "gate_up", name: "mlp.gate_proj.weight", shape: (s) => [s.intermediate, s.hidden] },
  { group: "gate_up", name: "mlp.up_proj.weight", shape: (s) => [s.intermediate, s.hidden] },
  { group: "down", name: "mlp.down_proj.weight", shape: (s) => [s.hidden, s.intermediate] },
  { group: "input_norm", name: "input_layernorm.weight", shape: (s) => [s.hidden] },
  { group: "post_norm", name: "post_attention_layernorm.weight", shape: (s) => [s.hidden] },
];

/** Biases of the three input projections (Qwen2). */
export const qkvBias: TensorTemplate[] = [
  { group: "qkv_bias", name: "self_attn.q_proj.bias", shape: (s) => [query(s)] },
  { group: "qkv_bias", name: "self_attn.k_proj.bias", shape: (s) => [keyValue(s)] },
  { group: "qkv_bias", name: "self_attn.v_proj.bias", shape: (s) => [keyValue(s)] },
];

/** RMSNorm of each query and key head (Qwen3). */
export const qkNorm: TensorTemplate[] = [
  { group: "q_norm", name: "self_attn.q_norm.weight", shape: (s) => [s.headDim] },
  { group: "k_norm", name: "self_attn.k_norm.weight", shape: (s) => [s.headDim] },
];

export const embedding: TensorTemplate = {
  group: "embedding",
  name: "model.embed_tokens.weight",
  shape: (s) => [s.vocabulary, s.hidden],
};
export const lmHead: TensorTemplate = {
  group: "lm_head",
  name: "lm_head.weight",
  shape: (s) => [s.vocabulary, s.hidden],
};
export const finalNorm: TensorTemplate = { group: "final_norm", name: "model.norm.weight", shape: (s) => [s.hidden] };

/** No layer has a window. */
export const fullAttention = (fields: ConfigFields, layers: number): number[] => {
  const kinds = readLayerTypes(fields, layers);
  const sliding = kinds?.indexOf("sliding_attention") ?? -1;
  if (sliding >= 0)
    fields.fail("layer_types", `asks for sliding_attention in layer ${sliding}, which this model_type does not have`);
  return Array.from({ length: layers }, () => 0);
};

/**
 * Qwen2 and Qwen3: with `use_sliding_window`, the layers from `max_window_layers` on see `sliding_window` tokens.
 * An explicit `layer_types` wins over `max_window_layers`, as in transformers, which writes both. Hub configs carry a
 * `sliding_window` next to `use_sliding_window: false`; it then means nothing.
 */
export const upperLayersSlide = (fields: ConfigFields, layers: number): number[] => {
  const enabled = fields.boolean("use_sliding_window", false);
  const declared = fields.integerOrNull("sliding_window", 4096) ?? 0;
  const window = enabled ? declared : 0;
  const from = fields.integer("max_window_layers", 28, 0);
  const kinds = readLayerTypes(fields, layers);
  if (!kinds) return Array.from({ length: layers }, (_, layer) => (layer >= from ? window : 0));
  const sliding = kinds.indexOf("sliding_attention");
  if (sliding >= 0 && window === 0)
    fields.fail(
      "layer_types",
      `asks for sliding_attention in layer ${sliding}, but use_sliding_window or sliding_window is off`,
    );
  return kinds.map((kind) => (kind === "sliding_attention" ? window : 0));
};

/** Mistral: `sliding_window` (4096 when the key is missing, none when it is null) holds for every layer. */
export const everyLayerSlides = (fields: ConfigFields, layers: number): number[] => {
  const window = fields.integerOrNull("sliding_window", 4096) ?? 0;
  const expected = window === 0 ? "full_attention" : "sliding_attention";
  const other = readLayerTypes(fields, layers)?.findIndex((kind) => kind !== expected) ?? -1;
  if (other >= 0)
    fields.fail(
      "layer_types",
      `must say ${expected} for layer ${other}: in model_type mistral, sliding_window (${window || "null"}) holds for every layer`,
    );
  return Array.from({ length: layers }, () => window);
};

type LayerKind = "full_attention" | "sliding_attention";

function readLayerTypes(fields: ConfigFields, layers: number): LayerKind[] | undefined {
  const kinds = fields.list("layer_types");
  if (!kinds) return undefined;
  if (kinds.length !== layers) fields.fail("layer_types", `has ${kinds.length} entries for ${layers} layers`);
  return kinds.map((kind, layer) => {
    if (kind === "full_attention" || kind === "sliding_attention") return kind;
    return fields.fail(
      "layer_types",
      `has ${JSON.stringify(kind)} for layer ${layer}; supported: full_attention, sliding_attention`,
    );
  });
}
