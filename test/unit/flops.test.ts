// The FLOPs of a step against counting every multiplication by hand.

import { expect, test } from "bun:test";
import type { MicroBatch } from "../../src/data/batches.ts";
import { causalPairs, stepFlops } from "../../src/predict/flops.ts";
import { parameterBlocks } from "../../src/models/parameters.ts";
import { describeModel } from "../../src/predict/rehearsal.ts";

test("pairs of query and key, counted one by one", () => {
  for (const length of [1, 2, 5, 24, 40])
    for (const window of [0, 1, 2, 24, 40, 100]) {
      let pairs = 0;
      for (let query = 0; query < length; query++)
        for (let key = 0; key <= query; key++) if (window === 0 || query - key < window) pairs++;
      expect([length, window, causalPairs(length, window)]).toEqual([length, window, pairs]);
    }
});

test("a step: every weight twice per token, the head only for rows that count, attention per document", () => {
  const sizes = {
    hidden: 8,
    intermediate: 20,
    heads: 4,
    kvHeads: 2,
    headDim: 6,
    layers: 2,
    vocabulary: 50,
    modelType: "llama",
    tied: false,
  };
  const blocks = parameterBlocks({ ...describeModel(sizes), slidingWindows: [0, 3] });
  const batch = { passes: [[withDocuments(5, 2), withDocuments(4)], [withDocuments(1)]], tokens: 12, validTokens: 7 };

  const layer = 8 * 24 + 2 * (8 * 12) + 24 * 8 + 3 * (8 * 20); // q, k and v, o, gate and up and down
  const pairs = 15 + 3 + 10 + 1 + (12 + 3 + 9 + 1); // all of them, then at most three keys each
  const forward = 2 * (2 * layer * 12 + 8 * 50 * 7) + pairs * 4 * 2 * (6 + 6);
  expect(stepFlops(blocks, batch)).toBe(3 * forward);
});

function withDocuments(...lengths: number[]): MicroBatch {
  const starts = [0];
  for (const length of lengths) starts.push(starts.at(-1)! + length);
  return { starts: Int32Array.from(starts) } as MicroBatch;
}
