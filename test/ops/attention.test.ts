// Attention over packed documents, forward and backward, against float64: straight loops over the keys a query sees.
// Lengths lie around the tiles of 64 keys and 128 rows; with grouped queries a tile of rows holds several heads.

import { expect } from "bun:test";
import { onDevices, trial } from "../support/ops.ts";
import { cumulative, output, Tensor, tensor, type Draw } from "../support/tensors.ts";
import { dot, expectClose, expectEqualBits, expectGradient } from "../support/tolerance.ts";

interface Sizes {
  lengths: readonly number[];
  heads: number;
  kvHeads: number;
  headDim: number;
  window: number;
}

/** Calls body for every query and head with the range of keys it sees: its own document, causally, inside the window. */
function forEachQuery(
  { lengths, heads, window }: Sizes,
  body: (token: number, head: number, first: number) => void,
): void {
  let start = 0;
  for (const length of lengths) {
    for (let token = start; token < start + length; token++)
      for (let head = 0; head < heads; head++)
        body(token, head, window === 0 ? start : Math.max(start, token - window + 1));
    start += length;
  }
}

/** Where a head of q, k and v begins in the rows of qk and qkv. */
function offsets({ heads, kvHeads, headDim }: Sizes) {
  const kvHead = (head: number): number => Math.floor((head * kvHeads) / heads);
  return {
    q: (token: number, head: number) => (token * (heads + kvHeads) + head) * headDim,
    k: (token: number, head: number) => (token * (heads + kvHeads) + heads + kvHead(head)) * headDim,
    v: (token: number, head: number) => (token * (heads + 2 * kvHeads) + heads + kvHeads + kvHead(head)) * headDim,
    out: (token: number, head: number) => (token * heads + head) * headDim,
    dQ: (token: number, head: number) => (token * (heads + 2 * kvHeads) + head) * headDim,
    dK: (token: number, head: number) => (token * (heads + 2 * kvHeads) + heads + kvHead(head)) * headDim,
  };
}

function product(a: Float64Array, at: number, b: Float64Array, from: number, count: number): number {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += a[at + i]! * b[from + i]!;
  return sum;
}

/** HF eager_attention_forward with repeat_kv and a causal mask per document (Mistral's sliding window). */
function attention(
  qk: Float64Array,
  qkv: Float64Array,
  scale: number,
  sizes: Sizes,
): { out: Float64Array; lse: Float64Array } {
  const { heads, headDim: D } = sizes;
  const tokens = sizes.lengths.reduce((sum, length) => sum + length, 0);
  const at = offsets(sizes);
  const [out, lse] = [new Float64Array(tokens * heads * D), new Float64Array(heads * tokens)];
  const scores = new Float64Array(tokens);
  forEachQuery(sizes, (token, head, first) => {
    let highest = -Infinity;
    for (let key = first; key <= token; key++) {
      scores[key] = product(qk, at.q(token, head), qk, at.k(key, head), D) * scale;
      highest = Math.max(highest, scores[key]!);
    }
    let sum = 0;
    for (let key = first; key <= token; key++) sum += Math.exp(scores[key]! - highest);
    lse[head * tokens + token] = highest + Math.log(sum);
    const to = at.out(token, head);
    for (let key = first; key <= token; key++) {
      const share = Math.exp(scores[key]! - highest) / sum;
      const v = at.v(key, head);
      for (let i = 0; i < D; i++) out[to + i]! += share * qkv[v + i]!;
    }
  });
  return { out, lse };
}

/**
 * FlashAttention-2 (Dao 2023), algorithm 2: P = exp(S − lse), delta = rowsum(dO ∘ O), dS = P ∘ (dO·Vᵀ − delta), with the `out`
 * and `lse` that forward stored.
 */
function attentionGradients(
  { dOut, out, lse, qk, qkv }: Record<"dOut" | "out" | "lse" | "qk" | "qkv", Float64Array>,
  scale: number,
  sizes: Sizes,
): { dQkv: Float64Array; delta: Float64Array } {
  const { heads, headDim: D } = sizes;
  const at = offsets(sizes);
  const [dQkv, delta] = [new Float64Array(qkv.length), new Float64Array(lse.length)];
  const tokens = lse.length / heads;
  forEachQuery(sizes, (token, head, first) => {
    const [q, o] = [at.q(token, head), at.out(token, head)];
    const row = head * tokens + token;
    delta[row] = product(dOut, o, out, o, D);
    for (let key = first; key <= token; key++) {
      const [k, v] = [at.k(key, head), at.v(key, head)];
      const p = Math.exp(product(qk, q, qk, k, D) * scale - lse[row]!);
      const dScore = p * (product(dOut, o, qkv, v, D) - delta[row]!) * scale;
      const [dQ, dK] = [at.dQ(token, head), at.dK(key, head)];
      for (let i = 0; i < D; i++) {
        dQkv[dQ + i]! += dScore * qk[k + i]!;
        dQkv[dK + i]! += dScore * qk[q + i]!;
        dQkv[v + i]! += p * dOut[o + i]!;
      }
    }
  });
  return { dQkv, delta };
}

/** Random lengths that fill `tokens`, every third of them a single token. */
function packed(draw: Draw, tokens: number): number[] {
  const lengths: number[] = [];
  for (let left = tokens; left > 0; left -= lengths.at(-1)!)
    lengths.push(Math.min(left, draw.from(0, 2) === 0 ? 1 : draw.from(2, Math.ceil(tokens / 2))));
  return draw.random.shuffle(lengths);
}

interface Case {
  /** Document lengths, or how many tokens to pack at random. */
  documents: readonly number[] | number;
  heads: number;
  kvHeads: number;
  headDim: number;
  window: number;
}

const cases: Case[] = [
  { documents: [1], heads: 1, kvHeads: 1, headDim: 32, window: 0 },
  { documents: [2, 1, 1, 3], heads: 2, kvHeads: 1, headDim: 8, window: 0 },
  { documents: [15], heads: 1, kvHeads: 1, headDim: 64, window: 0 },
  { documents: [16], heads: 2, kvHeads: 2, headDim: 32, window: 0 },
  { documents: [17], heads: 3, kvHeads: 1, headDim: 80, window: 0 },
  { documents: [63], heads: 4, kvHeads: 2, headDim: 64, window: 0 },
  { documents: [64], heads: 4, kvHeads: 1, headDim: 32, window: 0 },
  { documents: [65], heads: 2, kvHeads: 1, headDim: 128, window: 0 },
  { documents: [127], heads: 1, kvHeads: 1, headDim: 40, window: 0 },
  { documents: [128, 1], heads: 2, kvHeads: 2, headDim: 64, window: 0 },
  { documents: [1, 129], heads: 3, kvHeads: 1, headDim: 32, window: 0 },
  { documents: [263], heads: 2, kvHeads: 1, headDim: 64, window: 0 },
  { documents: [40], heads: 2, kvHeads: 1, headDim: 256, window: 0 },
  { documents: [70, 3], heads: 4, kvHeads: 2, headDim: 32, window: 1 },
  { documents: [19, 70], heads: 2, kvHeads: 1, headDim: 50, window: 0 },
  { documents: [81], heads: 2, kvHeads: 1, headDim: 203, window: 30 },
  { documents: [33, 90], heads: 2, kvHeads: 1, headDim: 80, window: 7 },
  { documents: [200], heads: 2, kvHeads: 2, headDim: 32, window: 64 },
  { documents: [201, 64], heads: 3, kvHeads: 1, headDim: 64, window: 65 },
  { documents: [150], heads: 2, kvHeads: 1, headDim: 32, window: 1000 },
  { documents: 97, heads: 8, kvHeads: 2, headDim: 32, window: 0 },
  { documents: 211, heads: 4, kvHeads: 4, headDim: 64, window: 0 },
  { documents: 150, heads: 3, kvHeads: 1, headDim: 80, window: 0 },
  { documents: 131, heads: 4, kvHeads: 2, headDim: 128, window: 0 },
  { documents: 222, heads: 4, kvHeads: 1, headDim: 32, window: 19 },
  { documents: [1, 301, 137], heads: 2, kvHeads: 1, headDim: 128, window: 0 },
  { documents: [390], heads: 3, kvHeads: 3, headDim: 128, window: 130 },
  { documents: [5, 270], heads: 4, kvHeads: 2, headDim: 64, window: 0 },
];

onDevices((machine) => {
  for (const dtype of machine.dtypes)
    for (const { documents, heads, kvHeads, headDim, window } of cases) {
      const what =
        typeof documents === "number"
          ? `${documents} tokens in random documents`
          : `documents of ${documents.join(", ")}`;
      trial(
        `attention over ${what}, ${heads}/${kvHeads} heads of ${headDim}, window ${window}, ${dtype}`,
        async (draw) => {
          const lengths = typeof documents === "number" ? packed(draw, documents) : documents;
          const sizes = { lengths, heads, kvHeads, headDim, window };
          const starts = cumulative(lengths);
          const tokens = starts.at(-1)!;
          const qk = draw.normal(dtype, tokens * (heads + kvHeads) * headDim);
          const qkv = draw.normal(dtype, tokens * (heads + 2 * kvHeads) * headDim);
          const scale = Math.fround(1.3 / Math.sqrt(headDim));
          const common = {
            qk,
            qkv,
            starts: tensor("int32", starts),
            tokens,
            heads,
            kvHeads,
            headDim,
            documents: lengths.length,
            window,
            scale,
            dtype,
          };

          const outputs = { out: output(dtype, tokens * heads * headDim), lse: output("float32", heads * tokens) };
          const { out, lse } = await machine.run("attentionForward", { ...outputs, ...common });
          const expected = attention(qk.values(), qkv.values(), scale, sizes);
          const length = headDim + Math.max(...lengths);
          expectClose("attentionForward out", out, expected.out, length, 1); // a mean of values of size 1
          expectClose("attentionForward lse", lse, expected.lse, length, 1);

          const dOut = draw.normal(dtype, out.count);
          const gradients = { dQkv: output(dtype, qkv.count), delta: output("float32", lse.count) };
          const doubles = {
            dOut: dOut.values(),
            out: out.values(),
            lse: lse.values(),
            qk: qk.values(),
            qkv: qkv.values(),
          };
          const expectedGradients = attentionGradients(doubles, scale, sizes);
          // dO·V and delta, both of size 1.3 after scaling, cancel; for a document's first token, whose q has no gradient, all of it.
          const { dQkv, delta } = expectedGradients;
          const terms = length * (heads / kvHeads);
          const sums = output("float32", tokens * heads * headDim);
          for (const room of machine.matrixUnit ? [null, sums] : [null]) {
            const found = await machine.run("attentionBackward", {
              ...gradients,
              sums: room,
              dOut,
              out,
              lse,
              ...common,
            });
            expectClose("attentionBackward delta", found.delta, delta, headDim, 1);
            const what = `attentionBackward dQkv ${room ? "with" : "without"} sums`;
            expectClose(what, found.dQkv, dQkv, terms, 2, machine.productRoundings);
          }
        },
      );
    }

  for (const dtype of machine.dtypes)
    trial(`a document's bits do not depend on its neighbours, ${dtype}`, async (draw) => {
      const [heads, kvHeads, headDim, lengths, middle] = [4, 2, 64, [37, 175, 20], 1] as const;
      const starts = cumulative(lengths);
      const run = async (rows: { qk: Tensor; qkv: Tensor; dOut: Tensor }, documents: readonly number[]) => {
        const tokens = cumulative(documents).at(-1)!;
        const { dOut, ...inputs } = rows;
        const sizes = { tokens, heads, kvHeads, headDim, documents: documents.length, window: 0, scale: 0.2, dtype };
        const common = { ...inputs, starts: tensor("int32", cumulative(documents)), ...sizes };
        const outputs = { out: output(dtype, dOut.count), lse: output("float32", heads * tokens) };
        const { out, lse } = await machine.run("attentionForward", { ...outputs, ...common });
        const sums = output("float32", tokens * heads * headDim);
        const gradients = { dQkv: output(dtype, rows.qkv.count), delta: output("float32", lse.count), sums };
        return {
          out,
          dQkv: (await machine.run("attentionBackward", { ...gradients, dOut, out, lse, ...common })).dQkv,
        };
      };
      const rowsOf = (of: Tensor): Tensor => {
        const rowBytes = of.bytes.length / starts.at(-1)!;
        return new Tensor(of.element, of.bytes.slice(starts[middle]! * rowBytes, starts[middle + 1]! * rowBytes));
      };
      const tokens = starts.at(-1)!;
      const all = {
        qk: draw.normal(dtype, tokens * (heads + kvHeads) * headDim),
        qkv: draw.normal(dtype, tokens * (heads + 2 * kvHeads) * headDim),
        dOut: draw.normal(dtype, tokens * heads * headDim),
      };
      const together = await run(all, lengths);
      const alone = await run({ qk: rowsOf(all.qk), qkv: rowsOf(all.qkv), dOut: rowsOf(all.dOut) }, [lengths[middle]]);
      expectEqualBits("out of the middle document", alone.out, rowsOf(together.out));
      expectEqualBits("dQkv of the middle document", alone.dQkv, rowsOf(together.dQkv));
    });

  if (machine.refuses)
    trial("documents that do not cover the tokens are refused", async (draw) => {
      const [tokens, heads, kvHeads, headDim] = [4, 2, 1, 8];
      const inputs = {
        qk: draw.normal("float32", 96),
        qkv: draw.normal("float32", 128),
        starts: tensor("int32", [0, 3]),
      };
      const outputs = { out: output("float32", 64), lse: output("float32", 8) };
      const sizes = { tokens, heads, kvHeads, headDim, documents: 1, window: 0, scale: 1, dtype: "float32" as const };
      const message = await machine.failure("attentionForward", { ...outputs, ...inputs, ...sizes });
      expect(message).toContain("attentionForward on compute failed: attention: documents cover 0..3, not 0..4");
    });
});

trial("the float64 gradients of attention are those of its forward", (draw) => {
  for (const window of [0, 2]) {
    const sizes: Sizes = { lengths: [3, 1, 4], heads: 4, kvHeads: 2, headDim: 3, window };
    const [qk, qkv, dOut, scale] = [draw.doubles(8 * 18), draw.doubles(8 * 24), draw.doubles(8 * 12), 0.7];
    const { dQkv } = attentionGradients({ ...attention(qk, qkv, scale, sizes), dOut, qk, qkv }, scale, sizes);
    const isV = (i: number) => i % 24 >= 18;
    const dQk = dQkv.filter((_, i) => !isV(i));
    expectGradient("attention dq, dk", (moved) => dot(attention(moved, qkv, scale, sizes).out, dOut), qk, dQk);
    const dV = dQkv.map((value, i) => (isV(i) ? value : 0)); // attention reads v alone from qkv
    expectGradient("attention dv", (moved) => dot(attention(qk, moved, scale, sizes).out, dOut), qkv, dV);
  }
});
