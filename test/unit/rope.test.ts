// The rotary table against numbers recorded from transformers (fixtures/rope.json says which versions). PyTorch's
// vectorised pow is not always correctly rounded, so one frequency in a hundred may differ by one unit in the last
// place; all the rest must be the same bits.

import { expect, test } from "bun:test";
import { inverseFrequencies, ropeTable, type RopeConfig } from "../../src/models/parts/rope.ts";
import reference from "../fixtures/rope.json";

const ulp = (x: number) => 2 ** (Math.floor(Math.log2(Math.abs(x))) - 23);

for (const { head_dim: headDim, rope_parameters: given, inv_freq, cos, sin } of reference.cases) {
  const rope: RopeConfig = {
    type: given.rope_type === "llama3" ? "llama3" : "default",
    theta: given.rope_theta,
    factor: given.factor,
    lowFrequencyFactor: given.low_freq_factor,
    highFrequencyFactor: given.high_freq_factor,
    originalMaxPositions: given.original_max_position_embeddings,
  };
  const half = headDim / 2;
  const name = `${rope.type}, theta ${rope.theta}, head dim ${headDim}, factor ${rope.factor ?? 1}`;

  test(`frequencies: ${name}`, () => {
    const frequencies = inverseFrequencies(rope, headDim);
    expect(frequencies.length).toBe(half);
    let different = 0;
    for (const [i, expected] of inv_freq.entries()) {
      const error = Math.abs((frequencies[i] ?? Number.NaN) - Math.fround(expected));
      expect(error).toBeLessThanOrEqual(ulp(expected));
      if (error > 0) different++;
    }
    expect(different).toBeLessThanOrEqual(1);
  });

  test(`table: ${name}`, () => {
    const table = ropeTable({ headDim, rope }, 131072);
    const frequencies = inverseFrequencies(rope, headDim);
    expect(table.length).toBe(131072 * headDim);
    for (const [row, position] of reference.positions.entries()) {
      for (let i = 0; i < half; i++) {
        // With the same frequency only the last rounding of cos and sin may differ; a frequency that is off in its last
        // place moves the angle, and so the result, by at most angle * 2^-23, and rounding the angle doubles that.
        const frequency = Math.fround(inv_freq[i] ?? 0);
        const limit = 2 ** -24 + (frequencies[i] === frequency ? 0 : position * frequency * 2 ** -22);
        const at = position * headDim + i;
        expect(Math.abs((table[at] ?? Number.NaN) - Math.fround(cos[row * half + i] ?? 0))).toBeLessThanOrEqual(limit);
        expect(Math.abs((table[at + half] ?? Number.NaN) - Math.fround(sin[row * half + i] ?? 0))).toBeLessThanOrEqual(
          limit,
        );
      }
    }
  });
}
