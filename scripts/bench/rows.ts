// Ops that walk rows, in bytes that they must read and write per second: the shapes of a model of a billion parameters (on
// a GPU of eight), far beyond the caches, so a plain copy is what they compare with: on a GPU four fifths of its rate are the
// floor.

import type { Dtype, OpName, Ops } from "../../src/native/abi.gen.ts";
import type { Range } from "../../src/plan/plan.ts";
import { rateOf, type Bench, type Rate } from "./rates.ts";

const oneBillion = {
  tokens: 2048,
  width: 2048,
  intermediate: 6144,
  vocabulary: 32003,
  logitRows: 512,
  heads: 16,
  kvHeads: 8,
  headDim: 128,
};
const eightBillion = {
  tokens: 16_384,
  width: 4096,
  intermediate: 12_288,
  vocabulary: 151_936,
  logitRows: 4096,
  heads: 32,
  kvHeads: 8,
  headDim: 128,
};

/** Issue 3: elementwise kernels reach this share of a copy's bandwidth. */
const floorShare = 0.8;

export async function* rows(bench: Bench): AsyncGenerator<Rate> {
  let floor: number | undefined;
  if (bench.onGpu) {
    const copied = await deviceCopy(bench);
    yield copied;
    floor = floorShare * copied.best;
  }
  for (const dtype of bench.dtypes)
    for (const family of [norm, rope, swiglu, crossEntropy, squaredNorm, casts]) {
      if (family === casts && !bench.onGpu) continue;
      yield* family(new Rows(bench, dtype, floor));
      bench.free();
    }
}

/** What every kernel that walks memory compares with. */
export async function deviceCopy(bench: Bench): Promise<Rate> {
  const count = 256 << 20;
  const [to, from] = [
    await bench.buffer("device", count, "float32", "zero"),
    await bench.buffer("device", count, "float32", "zero"),
  ];
  const seconds = await bench.time("compute", "copy", () => ({ to, from }));
  bench.free();
  return rateOf({ group: "rows", name: "copy of 1 GiB, read + write", unit: "GB/s" }, (2 * 4 * count) / 1e9, seconds);
}

/** Buffers of one dtype, and rates in bytes per second. */
class Rows {
  readonly bench: Bench;
  readonly dtype: Dtype;
  readonly sizes: typeof oneBillion;
  readonly #floor: number | undefined;

  constructor(bench: Bench, dtype: Dtype, floor: number | undefined) {
    this.bench = bench;
    this.dtype = dtype;
    this.sizes = bench.onGpu ? eightBillion : oneBillion;
    this.#floor = floor;
  }

  values(count: number): Promise<Range> {
    return this.bench.buffer("device", count, this.dtype, "normal");
  }
  written(count: number): Promise<Range> {
    return this.bench.buffer("device", count, this.dtype, "zero");
  }
  float32(count: number, content: "normal" | "zero" = "zero"): Promise<Range> {
    return this.bench.buffer("device", count, "float32", content);
  }

  /** `count` values of the dtype are read or written; what `restore` names is put back before each run. */
  async rate<Name extends OpName>(
    name: string,
    count: number,
    op: Name,
    args: Ops<Range>[Name],
    restore?: Range,
  ): Promise<Rate> {
    const floor = this.#floor === undefined ? {} : { floor: this.#floor };
    const named = { group: "rows", name: `${name} ${this.dtype}`, unit: "GB/s", ...floor } as const;
    const bytes = count * (this.dtype === "float32" ? 4 : 2);
    const copy = restore && {
      to: restore,
      from: await this.values(restore.bytes / (this.dtype === "float32" ? 4 : 2)),
    };
    return rateOf(named, bytes / 1e9, await this.bench.time("compute", op, () => args, copy));
  }
}

async function* norm(rows: Rows): AsyncGenerator<Rate> {
  const { tokens, width } = rows.sizes;
  const count = tokens * width;
  const [x, delta, weight] = [await rows.values(count), await rows.values(count), await rows.values(width)];
  const [y, sum] = [await rows.written(count), await rows.written(count)];
  const [inverse, dWeight] = [await rows.float32(tokens), await rows.float32(width)];
  const common = { inverse, x, weight, rows: tokens, width, dtype: rows.dtype };
  const forward = { y, epsilon: 1e-6, ...common };
  yield await rows.rate("rmsnorm forward", 2 * count, "rmsnormForward", forward);
  yield await rows.rate("add + rmsnorm forward", 4 * count, "addRmsnormForward", { sum, delta, ...forward });
  const backward = { dx: sum, dWeight, dy: delta, accumulateDx: 1, accumulate: 1, ...common };
  yield await rows.rate("rmsnorm backward", 4 * count, "rmsnormBackward", backward);
}

async function* rope(rows: Rows): AsyncGenerator<Rate> {
  const { tokens, heads, kvHeads, headDim } = rows.sizes;
  const [qkCount, qkvCount] = [tokens * (heads + kvHeads) * headDim, tokens * (heads + 2 * kvHeads) * headDim];
  const [qkv, dQkv, qk] = [await rows.values(qkvCount), await rows.values(qkvCount), await rows.written(qkCount)];
  const common = {
    inverse: await rows.float32(tokens * (heads + kvHeads)),
    qkv,
    qWeight: await rows.values(headDim),
    kWeight: await rows.values(headDim),
    positions: await rows.bench.holding(Int32Array.from({ length: tokens }, (_, i) => i)),
    table: await rows.float32(tokens * headDim, "normal"),
    tokens,
    heads,
    kvHeads,
    headDim,
    dtype: rows.dtype,
  };
  const [dQWeight, dKWeight] = [await rows.float32(headDim), await rows.float32(headDim)];
  yield await rows.rate("q/k norm + rope forward", 2 * qkCount, "qkRopeForward", { qk, epsilon: 1e-6, ...common });
  const backward = { dQkv, dQWeight, dKWeight, accumulate: 1, ...common };
  yield await rows.rate("q/k norm + rope backward", 3 * qkCount, "qkRopeBackward", backward, dQkv);
}

async function* swiglu(rows: Rows): AsyncGenerator<Rate> {
  const { tokens, intermediate } = rows.sizes;
  const count = tokens * intermediate;
  const [gateUp, dy, y] = [await rows.values(2 * count), await rows.values(count), await rows.written(count)];
  const common = { gateUp, tokens, width: intermediate, dtype: rows.dtype };
  yield await rows.rate("swiglu forward", 3 * count, "swigluForward", { y, ...common });
  yield await rows.rate("swiglu backward", 5 * count, "swigluBackward", { dy, ...common }, gateUp);
}

async function* crossEntropy(rows: Rows): AsyncGenerator<Rate> {
  const { vocabulary, logitRows } = rows.sizes;
  const count = logitRows * vocabulary;
  const [logits, loss] = [await rows.values(count), await rows.float32(logitRows)];
  const targets = await rows.bench.holding(new Int32Array(logitRows).fill(77));
  const args = { logits, loss, targets, rows: logitRows, vocabulary, scale: 1, gradient: 1, dtype: rows.dtype };
  yield await rows.rate("cross-entropy with gradient", 2 * count, "crossEntropy", args, logits);
}

async function* squaredNorm(rows: Rows): AsyncGenerator<Rate> {
  const count = 64 << 20;
  const [x, sum] = [await rows.values(count), await rows.float32(4)];
  yield await rows.rate("squared norm", count, "squaredNorm", { sum, x, count, dtype: rows.dtype });
}

/** A block's gradients: float32 sums rounded to what travels, and a pass's added to them. */
async function* casts(rows: Rows): AsyncGenerator<Rate> {
  const count = 128 << 20;
  const [wide, narrow] = [await rows.float32(count), await rows.values(count)];
  const dtypes = { toDtype: "bfloat16", fromDtype: "float32" } as const;
  yield await rows.rate("cast from float32 to", 3 * count, "cast", { to: narrow, from: wide, count, ...dtypes });
  const sum = { to: wide, from: narrow, count, accumulate: 1, dtype: rows.dtype };
  yield await rows.rate("accumulate into float32", 5 * count, "accumulate", sum);
}
