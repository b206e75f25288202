// Qwen3 (dense): no projection biases, an RMSNorm on every query and key head before the rotation, and a head size
// that does not follow from the hidden size (128 when the config does not say).

import { type Architecture, upperLayersSlide } from "./architecture.ts";
import { attention } from "./parts/attention.ts";
import { mlp } from "./parts/mlp.ts";
import { addNorm, norm } from "./parts/norm.ts";

export const qwen3: Architecture = {
  modelType: "qwen3",
  causalModel: "Qwen3ForCausalLM",
  defaults: { maxPositions: 32768, kvHeads: 32, headDim: 128, bosId: null, eosIds: [] },
  only: { attention_bias: false, mlp_bias: false },
  slidingWindows: upperLayersSlide,
  layer: (config, layer) => [
    norm(config, "input_norm", "input_layernorm.weight"),
    attention(config, { slidingWindow: config.slidingWindows[layer]!, headNorm: true }),
    addNorm(config, "post_norm", "post_attention_layernorm.weight"),
    mlp(config),
  ],
};
