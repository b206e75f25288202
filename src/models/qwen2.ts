// Qwen2 and Qwen2.5: Llama's layer with biases on the q, k and v projections (always, whatever the config says) and
// a sliding window for upper layers, which the published models leave off.

import { type Architecture, upperLayersSlide } from "./architecture.ts";
import { attention } from "./parts/attention.ts";
import { mlp } from "./parts/mlp.ts";
import { addNorm, norm } from "./parts/norm.ts";

export const qwen2: Architecture = {
  modelType: "qwen2",
  causalModel: "Qwen2ForCausalLM",
  defaults: { maxPositions: 32768, kvHeads: 32, headDim: undefined, bosId: null, eosIds: [] },
  only: { attention_bias: true, mlp_bias: false },
  slidingWindows: upperLayersSlide,
  layer: (config, layer) => [
    norm(config, "input_norm", "input_layernorm.weight"),
    attention(config, { slidingWindow: config.slidingWindows[layer]!, bias: true }),
    addNorm(config, "post_norm", "post_attention_layernorm.weight"),
    mlp(config),
  ],
};
