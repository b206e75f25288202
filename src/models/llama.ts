// Llama 1, 2, 3.x and everything published in their format. Attention and MLP biases exist in the format but in no
// model that Sluice has seen, so they are refused. The layer itself is computed by the shared decoder block.

import { type Architecture, fullAttention } from "./architecture.ts";
import { attention } from "./parts/attention.ts";
import { mlp } from "./parts/mlp.ts";
import { addNorm, norm } from "./parts/norm.ts";

export const llama: Architecture = {
  modelType: "llama",
  causalModel: "LlamaForCausalLM",
  defaults: { maxPositions: 2048, kvHeads: undefined, headDim: undefined, bosId: 1, eosIds: [2] },
  only: { attention_bias: false, mlp_bias: false, pretraining_tp: 1 },
  slidingWindows: fullAttention,
  layer: (config, layer) => [
    norm(config, "input_norm", "input_layernorm.weight"),
    attention(config, { slidingWindow: config.slidingWindows[layer]! }),
    addNorm(config, "post_norm", "post_attention_layernorm.weight"),
    mlp(config),
  ],
};
