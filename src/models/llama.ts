// Llama 1, 2, 3.x and everything published in their format. Attention and MLP biases exist in the format but in no
// model that Sluice has seen, so they are refused. The layer itself is computed by the shared decoder block.

import { type Architecture, denseLayer, fullAttention } from "./architecture.ts";

export const llama: Architecture = {
  modelType: "llama",
  causalModel: "LlamaForCausalLM",
  defaults: { maxPositions: 2048, kvHeads: undefined, headDim: undefined, bosId: 1, eosIds: [2] },
  only: { attention_bias: false, mlp_bias: false, pretraining_tp: 1 },
  windows: fullAttention,
  layer: denseLayer,
};
