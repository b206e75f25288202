// Qwen3 (dense): no projection biases, an RMSNorm on every query and key head before the rotation, and a head size
// that does not follow from the hidden size (128 when the config does not say).

import { type Architecture, denseLayer, qkNorm, upperLayersSlide } from "./architecture.ts";

export const qwen3: Architecture = {
  modelType: "qwen3",
  causalModel: "Qwen3ForCausalLM",
  defaults: { maxPositions: 32768, kvHeads: 32, headDim: 128, bosId: null, eosIds: [] },
  only: { attention_bias: false, mlp_bias: false },
  windows: upperLayersSlide,
  layer: [...denseLayer, ...qkNorm],
};
