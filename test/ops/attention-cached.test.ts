// Attention for generation: new tokens of several sequences are appended to their caches and see everything before them.

import { expect } from "bun:test";
import { onDevices, trial } from "../support/ops.ts";
import { cumulative, output, tensor, type Tensor } from "../support/tensors.ts";
import { expectClose, expectEqualBits } from "../support/tolerance.ts";

interface Sizes {
  heads: number;
  kvHeads: number;
  headDim: number;
  capacity: number;
  window: number;
}

/** Appends to the caches in place and returns out (HF's DynamicCache, then eager_attention_forward). */
function attendCached(
  { keys, values, qk, qkv }: Record<"keys" | "values" | "qk" | "qkv", Float64Array>,
  starts: readonly number[],
  lengths: readonly number[],
  scale: number,
  { heads, kvHeads, headDim: D, capacity, window }: Sizes,
): Float64Array {
  const out = new Float64Array(starts.at(-1)! * heads * D);
  const width = kvHeads * D;
  for (const [sequence, length] of lengths.entries())
    for (let token = starts[sequence]!; token < starts[sequence + 1]!; token++) {
      const position = length + token - starts[sequence]!;
      const row = (at: number): number => (sequence * capacity + at) * width;
      const [k, v] = [(token * (heads + kvHeads) + heads) * D, (token * (heads + 2 * kvHeads) + heads + kvHeads) * D];
      keys.set(qk.subarray(k, k + width), row(position));
      values.set(qkv.subarray(v, v + width), row(position));
      for (let head = 0; head < heads; head++) {
        const q = (token * (heads + kvHeads) + head) * D;
        const at = (key: number): number => row(key) + Math.floor((head * kvHeads) / heads) * D;
        const first = window === 0 ? 0 : Math.max(0, position - window + 1);
        const scores = new Float64Array(position + 1 - first);
        for (let key = first; key <= position; key++)
          for (let i = 0; i < D; i++) scores[key - first]! += qk[q + i]! * keys[at(key) + i]! * scale;
        const highest = Math.max(...scores);
        const sum = scores.reduce((total, score) => total + Math.exp(score - highest), 0);
        for (let key = first; key <= position; key++)
          for (let i = 0; i < D; i++)
            out[(token * heads + head) * D + i]! +=
              (Math.exp(scores[key - first]! - highest) / sum) * values[at(key) + i]!;
      }
    }
  return out;
}

/** Per case: how many tokens each sequence has cached, and how many it brings. */
const cases = [
  { cached: [0], added: [1], heads: 1, kvHeads: 1, headDim: 32, window: 0 },
  { cached: [0, 0, 0], added: [5, 1, 17], heads: 4, kvHeads: 2, headDim: 32, window: 0 },
  { cached: [63, 64, 65, 0], added: [1, 1, 1, 1], heads: 4, kvHeads: 1, headDim: 64, window: 0 },
  { cached: [200, 3], added: [1, 70], heads: 3, kvHeads: 1, headDim: 80, window: 0 },
  { cached: [127, 128], added: [2, 0], heads: 2, kvHeads: 2, headDim: 128, window: 0 },
  { cached: [100, 5], added: [3, 40], heads: 4, kvHeads: 2, headDim: 32, window: 17 },
  { cached: [17, 0], added: [3, 40], heads: 4, kvHeads: 2, headDim: 256, window: 0 },
  { cached: [70, 2], added: [5, 1], heads: 2, kvHeads: 1, headDim: 203, window: 30 },
  { cached: [90], added: [90], heads: 2, kvHeads: 1, headDim: 64, window: 64 },
];

onDevices((machine) => {
  for (const dtype of machine.dtypes)
    for (const { cached, added, ...shape } of cases)
      trial(
        `${added.join(", ")} tokens after ${cached.join(", ")}, ${JSON.stringify(shape)}, ${dtype}`,
        async (draw) => {
          const capacity = Math.max(...cached.map((length, b) => length + added[b]!)) + 3;
          const sizes = { ...shape, capacity };
          const { heads, kvHeads, headDim } = sizes;
          const starts = cumulative(added);
          const tokens = starts.at(-1)!;
          const cache = (): Tensor => draw.normal(dtype, cached.length * capacity * kvHeads * headDim);
          const inputs = {
            keys: cache(),
            values: cache(),
            qk: draw.normal(dtype, tokens * (heads + kvHeads) * headDim),
            qkv: draw.normal(dtype, tokens * (heads + 2 * kvHeads) * headDim),
          };
          const scale = Math.fround(1 / Math.sqrt(headDim));
          const lists = { starts: tensor("int32", starts), lengths: tensor("int32", cached) };
          const out = output(dtype, tokens * heads * headDim);
          const found = await machine.run("attentionCached", {
            out,
            ...inputs,
            ...lists,
            ...sizes,
            tokens,
            sequences: cached.length,
            scale,
            dtype,
          });
          const doubles = {
            keys: inputs.keys.values(),
            values: inputs.values.values(),
            qk: inputs.qk.values(),
            qkv: inputs.qkv.values(),
          };
          const expected = attendCached(doubles, starts, cached, scale, sizes);
          expectClose("attentionCached out", found.out, expected, headDim + capacity, 1); // a mean of values of size 1
          // Appending copies; every other row of the caches stays.
          expectEqualBits("attentionCached keys", found.keys, tensor(dtype, doubles.keys));
          expectEqualBits("attentionCached values", found.values, tensor(dtype, doubles.values));
        },
      );

  if (machine.refuses)
    trial("a sequence that outgrows the cache is refused", async (draw) => {
      const [heads, kvHeads, headDim, capacity] = [1, 1, 8, 10];
      const message = await machine.failure("attentionCached", {
        out: output("float32", 16),
        keys: draw.normal("float32", 160),
        values: draw.normal("float32", 160),
        qk: draw.normal("float32", 32),
        qkv: draw.normal("float32", 48),
        starts: tensor("int32", [0, 1, 2]),
        lengths: tensor("int32", [0, 10]),
        tokens: 2,
        heads,
        kvHeads,
        headDim,
        sequences: 2,
        capacity,
        window: 0,
        scale: 1,
        dtype: "float32",
      });
      expect(message).toContain(
        "attentionCached on compute failed: attention_cached: sequence 1 would grow from 10 to 11 tokens, the cache holds 10",
      );
    });
});
