// Grouped-query attention with rotary positions: one product for q, k and v, rotation (after a norm of each head, where
// there is one), attention inside documents, one product of what the heads found.

import type { DecoderConfig } from "../architecture.ts";
import { backwardProduct, forwardProduct, type At, type Part, type Product, type Tensor } from "./part.ts";
import type { RopeConfig } from "./rope.ts";

export interface AttentionOptions {
  /** How many tokens a token sees, itself included; 0: all of its document. */
  slidingWindow: number;
  rope?: RopeConfig;
  /** q, k and v have biases (the output projection never has). */
  bias?: boolean;
  /** Every query and key head is RMS-normed before the rotation. */
  headNorm?: boolean;
}

export function attention(config: DecoderConfig, options: AttentionOptions): Part {
  const { hidden, heads, kvHeads, headDim, normEpsilon: epsilon } = config;
  const { attentionScale: scale = 1 / Math.sqrt(headDim), normOffset: offset } = config;
  const { slidingWindow, rope = config.rope, bias = false, headNorm = false } = options;
  const rotary = { rope, headDim };
  const [queries, keys] = [heads * headDim, kvHeads * headDim];
  const all = queries + 2 * keys;
  const qkv: Product = { group: "qkv", ...(bias ? { bias: "qkv_bias" } : {}), inputs: hidden, outputs: all };
  const o: Product = { group: "o", inputs: queries, outputs: hidden };
  const three = (group: string, kind: string, shape: (width: number) => number[]): Tensor[] =>
    ["q", "k", "v"].map((which) => ({
      group,
      name: `self_attn.${which}_proj.${kind}`,
      shape: shape(which === "q" ? queries : keys),
    }));

  const shape = ({ tokens, dtype }: At) => ({ tokens, heads, kvHeads, headDim, dtype });
  const rotation = (at: At) => ({
    ...shape(at),
    inverse: at.optional("qkInverse"),
    qkv: at.value("qkv"),
    qWeight: at.optionalWeight("q_norm"),
    kWeight: at.optionalWeight("k_norm"),
    positions: at.batch.positions,
    table: at.rotaryTable(rotary),
    offset,
  });
  const attended = (at: At) => ({
    ...shape(at),
    out: at.value("heads"),
    qk: at.value("qk"),
    qkv: at.value("qkv"),
    starts: at.batch.starts,
    window: slidingWindow,
    scale,
  });

  return {
    tensors: [
      ...three("qkv", "weight", (width) => [width, hidden]),
      { group: "o", name: "self_attn.o_proj.weight", shape: [hidden, queries] },
      ...(bias ? three("qkv_bias", "bias", (width) => [width]) : []),
      ...(headNorm ? ["q", "k"] : []).map((which) => ({
        group: `${which}_norm`,
        name: `self_attn.${which}_norm.weight`,
        shape: [headDim],
      })),
    ],
    products: [qkv, o],
    values: [
      { name: "qkv", width: all, cost: "product" }, // (T, (H+2K)·D)
      { name: "qk", width: queries + keys, cost: "cheap" }, // (T, (H+K)·D)
      ...(headNorm ? [{ name: "qkInverse", width: heads + kvHeads, dtype: "float32", cost: "cheap" } as const] : []),
      { name: "heads", width: queries, cost: "attention" }, // (T, H·D)
      { name: "lse", width: heads, dtype: "float32", cost: "attention" }, // (H, T)
      { name: "out", width: hidden, cost: "product" }, // (T, C)
    ],
    scratch: [
      { name: "out", width: Math.max(hidden, queries) }, // forward: (T, C) unless it is saved; backward: (T, H·D) of the heads
      { name: "dQkv", width: all }, // (T, (H+2K)·D)
      { name: "delta", width: heads, dtype: "float32" }, // (H, T)
    ],
    readsInput: true,
    pairs: { heads, headDim, slidingWindow },
    rotary,
    cache: (capacity) => ({ key: capacity * keys, value: capacity * keys }),
    forward: [
      { makes: ["qkv"], reads: ["x"], record: (at) => forwardProduct(at, qkv, { y: at.value("qkv"), x: at.x }) },
      {
        makes: headNorm ? ["qk", "qkInverse"] : ["qk"],
        reads: ["qkv"],
        record: (at) => at.run("qkRopeForward", { qk: at.value("qk"), epsilon, ...rotation(at) }),
      },
      {
        makes: ["heads", "lse"],
        reads: ["qk", "qkv"],
        record(at) {
          const { documents } = at.batch;
          if (!at.cache) return at.run("attentionForward", { ...attended(at), lse: at.value("lse"), documents });
          const { ranges, lengths, capacity } = at.cache;
          const cache = { keys: ranges["key"]!, values: ranges["value"]!, lengths, capacity };
          return at.run("attentionCached", { ...attended(at), ...cache, sequences: documents });
        },
      },
      {
        makes: ["out"],
        reads: ["heads"],
        record: (at) => forwardProduct(at, o, { y: at.value("out"), x: at.value("heads") }),
      },
    ],
    backward(at) {
      const [dHeads, dQkv] = [at.scratch("out", queries), at.scratch("dQkv", all)];
      backwardProduct(at, o, { dx: dHeads, dy: at.dy, x: at.value("heads") });
      at.run("attentionBackward", {
        ...attended(at),
        dQkv,
        delta: at.scratch("delta", heads),
        sums: at.dtype === "bfloat16" ? at.spent(at.tokens * queries * 4) : null, // a GPU's
        dOut: dHeads,
        lse: at.value("lse"),
        documents: at.batch.documents,
      });
      at.run("qkRopeBackward", {
        ...rotation(at),
        dQkv,
        dQWeight: at.optionalGradient("q_norm"),
        dKWeight: at.optionalGradient("k_norm"),
        accumulate: at.accumulate,
      });
      backwardProduct(at, qkv, { dx: at.dx, dy: dQkv, x: at.x });
    },
  };
}
