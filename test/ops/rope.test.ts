// Per-head RMSNorm of q and k and the rotary embedding, forward and backward, against float64.

import { onDevices, trial } from "../support/ops.ts";
import { cumulative, output, tensor, type Draw, type Tensor } from "../support/tensors.ts";
import { dot, expectClose, expectGradient } from "../support/tolerance.ts";

const epsilon = Math.fround(1e-6);

interface Sizes {
  tokens: number;
  heads: number;
  kvHeads: number;
  headDim: number;
}

interface Inputs {
  qkv: Float64Array;
  /** Both or neither. */
  weights: { q: Float64Array; k: Float64Array } | undefined;
  positions: readonly number[];
  table: Float64Array;
}

/** HF Qwen3Attention's q_norm and k_norm (RMSNorm over each head), then apply_rotary_pos_emb with rotate_half. */
function qkRope({ qkv, weights, positions, table }: Inputs, sizes: Sizes): { qk: Float64Array; inverse: Float64Array } {
  const { tokens, heads, kvHeads, headDim: D } = sizes;
  const [all, half] = [heads + kvHeads, D / 2];
  const [qk, inverse] = [new Float64Array(tokens * all * D), new Float64Array(tokens * all)];
  for (let t = 0; t < tokens; t++)
    for (let head = 0; head < all; head++) {
      const x = qkv.subarray((t * (all + kvHeads) + head) * D, (t * (all + kvHeads) + head + 1) * D);
      const weight = head < heads ? weights?.q : weights?.k;
      const scale = weight ? 1 / Math.sqrt(dot(x, x) / D + epsilon) : 1;
      inverse[t * all + head] = scale;
      const normed = x.map((value, i) => value * scale * (weight?.[i] ?? 1));
      const to = (t * all + head) * D;
      for (let i = 0; i < half; i++) {
        const [cos, sin] = [table[positions[t]! * D + i]!, table[positions[t]! * D + half + i]!];
        qk[to + i] = normed[i]! * cos - normed[half + i]! * sin;
        qk[to + half + i] = normed[half + i]! * cos + normed[i]! * sin;
      }
    }
  return { qk, inverse };
}

/** From the gradient of qk in the q | k part of a row to that of qkv; v stays. */
function qkRopeGradients(
  dQkv: Float64Array,
  { qkv, weights, positions, table }: Inputs,
  inverse: Float64Array,
  { tokens, heads, kvHeads, headDim: D }: Sizes,
): { dQkv: Float64Array; dQ: Float64Array; dK: Float64Array } {
  const [all, half] = [heads + kvHeads, D / 2];
  const [result, dQ, dK] = [dQkv.slice(), new Float64Array(D), new Float64Array(D)];
  for (let t = 0; t < tokens; t++)
    for (let head = 0; head < all; head++) {
      const at = (t * (all + kvHeads) + head) * D;
      const d = new Float64Array(D);
      for (let i = 0; i < half; i++) {
        const [cos, sin] = [table[positions[t]! * D + i]!, table[positions[t]! * D + half + i]!];
        d[i] = dQkv[at + i]! * cos + dQkv[at + half + i]! * sin;
        d[half + i] = dQkv[at + half + i]! * cos - dQkv[at + i]! * sin;
      }
      const weight = head < heads ? weights?.q : weights?.k;
      const scale = inverse[t * all + head]!;
      let products = 0;
      for (let i = 0; i < D && weight; i++) products += d[i]! * weight[i]! * qkv[at + i]! * scale;
      for (let i = 0; i < D; i++) {
        const normed = qkv[at + i]! * scale;
        result[at + i] = weight ? scale * (d[i]! * weight[i]! - (normed * products) / D) : d[i]!;
        (head < heads ? dQ : dK)[i]! += d[i]! * normed;
      }
    }
  return { dQkv: result, dQ, dK };
}

/** Cosines, then sines, of position · base^(−2i/D). */
function tableOf(positions: number, D: number): Float64Array {
  const table = new Float64Array(positions * D);
  for (let position = 0; position < positions; position++)
    for (let i = 0; i < D / 2; i++) {
      const angle = position * 10000 ** ((-2 * i) / D);
      table[position * D + i] = Math.cos(angle);
      table[position * D + D / 2 + i] = Math.sin(angle);
    }
  return table;
}

/** Documents of random lengths, some of one token, whose positions start over. */
function packedPositions(draw: Draw, tokens: number): number[] {
  const lengths: number[] = [];
  for (let left = tokens; left > 0; left -= lengths.at(-1)!)
    lengths.push(Math.min(left, draw.from(0, 2) === 0 ? 1 : draw.from(1, 50)));
  return cumulative(lengths)
    .slice(0, -1)
    .flatMap((_, document) => Array.from({ length: lengths[document]! }, (_, i) => i));
}

/** Tokens, query heads, key heads, head dim. */
const shapes = [
  [1, 1, 1, 2],
  [3, 2, 1, 6],
  [15, 4, 4, 32],
  [65, 4, 2, 64],
  [16, 3, 1, 80],
  [83, 8, 2, 128],
  [33, 3, 1, 64],
  [18, 5, 3, 128],
  [5, 1, 1, 16],
  [9, 3, 2, 512],
  [701, 2, 1, 40],
] as const;

onDevices((machine) => {
  for (const dtype of machine.dtypes)
    for (const [tokens, heads, kvHeads, headDim] of shapes)
      for (const [norm, offset] of [
        [false, 0],
        [true, 0],
        [true, 1],
      ] as const) {
        const sizes = { tokens, heads, kvHeads, headDim };
        const all = heads + kvHeads;
        const name = `of ${tokens} tokens, ${heads}+${kvHeads} heads of ${headDim}, ${norm ? "with" : "without"} norm${offset ? ` from ${offset}` : ""}, ${dtype}`;

        const counted = (weight: Tensor): Float64Array => weight.values().map((value) => value + offset);
        const inputsOf = (draw: Draw) => ({
          qkv: draw.normal(dtype, tokens * (all + kvHeads) * headDim, 2),
          qWeight: norm ? draw.normal(dtype, headDim) : null,
          kWeight: norm ? draw.normal(dtype, headDim) : null,
          positions: tensor("int32", packedPositions(draw, tokens)),
          table: tensor("float32", tableOf(50, headDim)),
        });
        const doublesOf = ({ qkv, qWeight, kWeight, positions, table }: ReturnType<typeof inputsOf>): Inputs => ({
          qkv: qkv.values(),
          weights: qWeight && kWeight ? { q: counted(qWeight), k: counted(kWeight) } : undefined,
          positions: [...positions.values()],
          table: table.values(),
        });

        trial(`rope ${name}`, async (draw) => {
          const inputs = inputsOf(draw);
          const inverse = norm ? output("float32", tokens * all) : null;
          const qk = output(dtype, tokens * all * headDim);
          const found = await machine.run("qkRopeForward", {
            qk,
            inverse,
            ...inputs,
            ...sizes,
            epsilon,
            dtype,
            offset,
          });
          const expected = qkRope(doublesOf(inputs), sizes);
          expectClose("qkRopeForward qk", found.qk, expected.qk, norm ? headDim : 2);
          if (norm) expectClose("qkRopeForward inverse", found.inverse!, expected.inverse, headDim);
        });

        for (const accumulate of norm ? [0, 1] : [0])
          trial(`rope backward ${name}, accumulate ${accumulate}`, async (draw) => {
            const inputs = inputsOf(draw);
            const doubles = doublesOf(inputs);
            const inverse = norm ? tensor("float32", qkRope(doubles, sizes).inverse) : null;
            const dQkv = draw.normal(dtype, tokens * (all + kvHeads) * headDim);
            const accumulator = (): Tensor | null =>
              norm ? (accumulate ? draw.normal("float32", headDim) : output("float32", headDim)) : null;
            const [dQWeight, dKWeight] = [accumulator(), accumulator()];
            const found = await machine.run("qkRopeBackward", {
              dQkv,
              dQWeight,
              dKWeight,
              inverse,
              ...inputs,
              ...sizes,
              accumulate,
              dtype,
              offset,
            });
            const scales = inverse?.values() ?? new Float64Array(tokens * all).fill(1);
            const expected = qkRopeGradients(dQkv.values(), doubles, scales, sizes);
            expectClose("qkRopeBackward dQkv", found.dQkv, expected.dQkv, norm ? headDim : 2);
            for (const [what, before, after, gradient] of [
              ["dQWeight", dQWeight, found.dQWeight, expected.dQ],
              ["dKWeight", dKWeight, found.dKWeight, expected.dK],
            ] as const) {
              if (!before || !after) continue;
              const start = before.values();
              const total = accumulate ? gradient.map((value, i) => value + start[i]!) : gradient;
              expectClose(`qkRopeBackward ${what}`, after, total, tokens * heads, 1);
            }
          });
      }
});

trial("the float64 gradients of rope are those of its forward", (draw) => {
  const sizes = { tokens: 3, heads: 2, kvHeads: 1, headDim: 4 };
  const inputs: Inputs = {
    qkv: draw.doubles(48),
    weights: { q: draw.doubles(4), k: draw.doubles(4) },
    positions: [0, 1, 0],
    table: tableOf(2, 4),
  };
  // The loss reads q and k only; v's part of the gradient passes through untouched.
  const dQkv = draw.doubles(48).map((value, i) => (i % 16 < 12 ? value : 0));
  const dQk = dQkv.filter((_, i) => i % 16 < 12);
  const loss = (moved: Partial<Inputs>) => dot(qkRope({ ...inputs, ...moved }, sizes).qk, dQk);
  const { weights } = inputs;
  const expected = qkRopeGradients(dQkv, inputs, qkRope(inputs, sizes).inverse, sizes);
  expectGradient("rope dQkv", (qkv) => loss({ qkv }), inputs.qkv, expected.dQkv);
  expectGradient("rope dQWeight", (q) => loss({ weights: { ...weights!, q } }), weights!.q, expected.dQ);
  expectGradient("rope dKWeight", (k) => loss({ weights: { ...weights!, k } }), weights!.k, expected.dK);
});
