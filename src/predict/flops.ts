// Model FLOPs of a batch by the exact formula: two per weight and token in every matrix forward, four more backward, and
// causal attention as it is, half a square per document and less inside a window. What is recomputed is not counted.

import type { StepBatch } from "../data/batches.ts";
import type { ParameterBlock } from "../models/parameters.ts";

/** FLOPs of a training step on this batch; the LM head counts only rows whose target counts. */
export function stepFlops(blocks: readonly ParameterBlock[], { passes, tokens, validTokens }: StepBatch): number {
  let forward = 0;
  for (const { kind, products, chain } of blocks) {
    const rows = kind === "head" ? validTokens : tokens;
    for (const { inputs, outputs } of products) forward += 2 * inputs * outputs * rows;
    for (const { pairs } of chain.links.map(({ part }) => part))
      if (pairs) forward += 4 * pairs.heads * pairs.headDim * pairsOf(passes, pairs.slidingWindow); // scores, and values
  }
  return 3 * forward; // backward is twice forward
}

/** Query-key pairs over all documents. */
function pairsOf(passes: StepBatch["passes"], slidingWindow: number): number {
  let pairs = 0;
  for (const { starts } of passes.flat())
    for (let document = 0; document + 1 < starts.length; document++)
      pairs += causalPairs(starts[document + 1]! - starts[document]!, slidingWindow);
  return pairs;
}

/** Pairs (query, key) with key ≤ query, at most `window` keys per query when there is a window. */
export function causalPairs(length: number, window: number): number {
  const full = (length * (length + 1)) / 2;
  if (window === 0 || window >= length) return full;
  const short = length - window;
  return full - (short * (short + 1)) / 2;
}
