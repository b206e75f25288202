// Ops that walk rows, in bytes that they must read and write per second: the shapes of a model of a billion parameters, far
// beyond the caches, so a plain copy (`bun run bench --only adamw`) is what they compare with.

import type { Dtype, OpName, Ops } from "../../src/native/abi.gen.ts";
import type { Range } from "../../src/plan.ts";
import { rateOf, type Bench, type Rate } from "./rates.ts";

const [tokens, width, intermediate, vocabulary] = [2048, 2048, 6144, 32003];
const [heads, kvHeads, headDim] = [16, 8, 128];

export async function* rows(bench: Bench): AsyncGenerator<Rate> {
  for (const dtype of ["float32", "bfloat16"] as const)
    for (const family of [norm, rope, swiglu, crossEntropy, squaredNorm]) {
      yield* family(new Rows(bench, dtype));
      bench.free();
    }
}

/** Buffers of one dtype, and rates in bytes per second. */
class Rows {
  readonly bench: Bench;
  readonly dtype: Dtype;

  constructor(bench: Bench, dtype: Dtype) {
    this.bench = bench;
    this.dtype = dtype;
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
    const named = { group: "rows", name: `${name} ${this.dtype}`, unit: "GB/s" } as const;
    const bytes = count * (this.dtype === "float32" ? 4 : 2);
    const copy = restore && {
      to: restore,
      from: await this.values(restore.bytes / (this.dtype === "float32" ? 4 : 2)),
    };
    return rateOf(named, bytes / 1e9, await this.bench.time("compute", op, () => args, copy));
  }
}

async function* norm(rows: Rows): AsyncGenerator<Rate> {
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
  const count = tokens * intermediate;
  const [gateUp, dy, y] = [await rows.values(2 * count), await rows.values(count), await rows.written(count)];
  const common = { gateUp, tokens, width: intermediate, dtype: rows.dtype };
  yield await rows.rate("swiglu forward", 3 * count, "swigluForward", { y, ...common });
  yield await rows.rate("swiglu backward", 5 * count, "swigluBackward", { dy, ...common }, gateUp);
}

async function* crossEntropy(rows: Rows): AsyncGenerator<Rate> {
  const [count, logitRows] = [512 * vocabulary, 512];
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
