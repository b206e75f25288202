// Qwen2 and Qwen2.5: Llama's layer with biases on the q, k and v projections (always, whatever the config says) and
// a sliding window for upper layers, which the published models leave off.

import { type Architecture, denseLayer, qkvBias, upperLayersSlide } from "./architecture.ts";

export const qwen2: Architecture = {
  modelType: "qwen2",
  causalModel: "Qwen2ForCausalLM",
  defaults: { maxPositions: 32768, kvHeads: 32, headDim: undefined, bosId: null, eosIds: [] },
  only: { attention_bias: true, mlp_bias: false },
  windows: upperLayersSlide,
  layer: [...denseLayer, ...qkvBias],
};
