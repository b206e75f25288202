// Model FLOPs of a batch by the exact formula: two per weight and token in every matrix forward, four more backward, and
// causal attention as it is, half a square per document and less inside a window. What is recomputed is not counted.

import type { StepBatch } from "../data/batches.ts";
import type { DecoderConfig } from "../models/config.ts";

/** FLOPs of a training step on this batch; the LM head counts only rows whose target counts. */
export function stepFlops(config: DecoderConfig, { passes, tokens, validTokens }: StepBatch): number {
  const { hidden: C, intermediate: F, heads: H, kvHeads: K, headDim: D, layers, vocabulary, windows } = config;
  const layerWeights = C * (H + 2 * K) * D + H * D * C + 3 * C * F;
  let pairs = 0; // query-key pairs over all layers and documents
  for (const { starts } of passes.flat())
    for (let document = 0; document + 1 < starts.length; document++)
      for (const window of windows) pairs += causalPairs(starts[document + 1]! - starts[document]!, window);
  const matrices = 2 * (layers * layerWeights * tokens + vocabulary * C * validTokens);
  const attention = 4 * H * D * pairs; // scores, and their product with the values
  return 3 * (matrices + attention); // backward is twice forward
}

/** Pairs (query, key) with key ≤ query, at most `window` keys per query when there is a window. */
export function causalPairs(length: number, window: number): number {
  const full = (length * (length + 1)) / 2;
  if (window === 0 || window >= length) return full;
  const short = length - window;
  return full - (short * (short + 1)) / 2;
}
