// Mistral 7B (v0.1 to v0.3) and its kin: Llama's layer; v0.1 looks back over a sliding window in every layer, later
// versions set the window to null.

import { type Architecture, denseLayer, everyLayerSlides } from "./architecture.ts";

export const mistral: Architecture = {
  modelType: "mistral",
  causalModel: "MistralForCausalLM",
  defaults: { maxPositions: 131072, kvHeads: 8, headDim: undefined, bosId: 1, eosIds: [2] },
  only: { attention_bias: false, mlp_bias: false },
  windows: everyLayerSlides,
  layer: denseLayer,
};
