// Mistral 7B (v0.1 to v0.3) and its kin: Llama's layer; v0.1 looks back over a sliding window in every layer, later
// versions set the window to null.

import { type Architecture, everyLayerSlides } from "./architecture.ts";
import { attention } from "./parts/attention.ts";
import { mlp } from "./parts/mlp.ts";
import { addNorm, norm } from "./parts/norm.ts";

export const mistral: Architecture = {
  modelType: "mistral",
  causalModel: "MistralForCausalLM",
  defaults: { maxPositions: 131072, kvHeads: 8, headDim: undefined, bosId: 1, eosIds: [2] },
  only: { attention_bias: false, mlp_bias: false },
  slidingWindows: everyLayerSlides,
  layer: (config, layer) => [
    norm(config, "input_norm", "input_layernorm.weight"),
    attention(config, { slidingWindow: config.slidingWindows[layer]! }),
    addNorm(config, "post_norm", "post_attention_layernorm.weight"),
    mlp(config),
  ],
};
