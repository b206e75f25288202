// What config.json says of a model, and the shape in which each architecture says how it differs.
//
// A model file (`llama.ts`, `qwen2.ts`, `qwen3.ts`, `mistral.ts`) names its model_type, the defaults Hugging Face gives
// to missing keys, the switches that must stay off, its sliding windows, and the parts of a layer (`parts/part.ts`). Adding
// a model of known parts is one such file and one line in `index.ts`. Read `config.ts` next for how config.json becomes a
// `DecoderConfig`, then `parameters.ts` for how tensors become blocks.

import type { ConfigFields } from "./fields.ts";
import type { Part } from "./parts/part.ts";
import type { RopeConfig } from "./parts/rope.ts";

/** The sizes that a tensor's shape is made of. */
export interface DecoderSizes {
  vocabulary: number;
  hidden: number;
  intermediate: number;
  heads: number;
  kvHeads: number;
  headDim: number;
}

export interface DecoderConfig extends DecoderSizes {
  modelType: string;
  layers: number;
  normEpsilon: number;
  rope: RopeConfig;
  /** That of layers with a sliding window, where it is another one. */
  slidingRope?: RopeConfig;
  maxPositions: number;
  /** Per layer, how many tokens attention sees, itself included; 0 means all. */
  slidingWindows: number[];
  /** Scores are multiplied by this; by 1 / sqrt(headDim) when it is not said. */
  attentionScale?: number;
  /** Rows of the embedding are multiplied by this as they enter the first layer. */
  embeddingScale?: number;
  /** Weights of norms count from here: 1 where a weight of 0 changes nothing. */
  normOffset?: number;
  /** The LM head is the embedding matrix. */
  tied: boolean;
  bosId: number | null;
  eosIds: number[];
  /** The embedding's row that gets no gradient from where it is read. */
  padId: number | null;
  /** config.json as it was read, for the export. */
  source: Record<string, unknown>;
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
    padId?: number;
    heads?: number;
    vocabulary?: number;
    tied?: boolean;
  };
  /** Switches that this architecture's modelling code knows and Sluice has only in one position: key and that value. */
  only: Record<string, boolean | number | null>;
  /** The key of the MLP's activation, and its names; `hidden_act`, silu, when it is not said. */
  activation?: { key: string; names: string[] };
  /** What else this architecture reads of its config; from an empty one, what its class assumes. */
  read?(fields: ConfigFields, sizes: DecoderSizes & { maxPositions: number }): Partial<DecoderConfig>;
  /** Sliding window of each layer's attention (0 = full), read from the config. */
  slidingWindows(fields: ConfigFields, layers: number): number[];
  /** The parts of a layer, in the order in which hidden states pass through them. */
  layer(config: DecoderConfig, layer: number): Part[];
}

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

/** Each layer's kind as `layer_types` says it; undefined when it does not. */
export function readLayerTypes(fields: ConfigFields, layers: number): LayerKind[] | undefined {
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
