// The rates of single ops, through plans on an engine: matrix products, attention, AdamW beside a plain copy, a command by
// itself, and (`rows.ts`) ops that walk rows. Shapes are cubes, those of the quick start (`quickstart`), and those of a model of
// a billion parameters; on a GPU those of Qwen3-8B.
//
// FLOPs are those the mathematics needs (causal attention: half of the scores), bytes those an op must read and write.

import { byPart, bytesEach, formatDefault, partBytes, partsOf, stateBytes } from "../../src/state/format.ts";
import type { Chunk } from "../../src/state/parameters.ts";
import { bytesOf } from "../../src/plan/layout.ts";
import type { Range } from "../../src/plan/plan.ts";
import { cpuHasBfloat16 } from "./machine.ts";
import { rateOf, type Bench, type Rate } from "./rates.ts";
import { deviceCopy, rows } from "./rows.ts";

export const groups = ["gemm", "attention", "adamw", "rows", "command"] as const;
export type Group = (typeof groups)[number];

/** Issue 2, section 2: half of what notes/kernels.md 6.2 measured, on one and on two cores. */
const gemmFloors = { float32: [50.5, 99], bfloat16: [101.5, 198] } as const;
/** Within 15 % of 2.35 Gparam/s on two cores. */
const adamwFloor = 0.85 * 2.35;

export async function* measureOps(bench: Bench, wanted: readonly Group[]): AsyncGenerator<Rate> {
  const measures = { gemm, attention, adamw, rows, command };
  for (const group of wanted)
    for await (const rate of measures[group](bench)) {
      yield rate;
    }
}

// ---- matrix products ------------------------------------------------------------------------------------------------

interface ProductSizes {
  name: string;
  tokens: number;
  inputs: number;
  outputs: number;
  /** Whether issue 2 sets a floor for it. */
  held?: boolean;
  /** TFLOP/s of forward, to input and to weight on an H200 (notes/h200.md), where nine tenths are the floor. */
  measured?: readonly [number, number, number];
}

const smallProducts: ProductSizes[] = [
  { name: "256³", tokens: 256, inputs: 256, outputs: 256 },
  { name: "512³", tokens: 512, inputs: 512, outputs: 512 },
  { name: "1024³", tokens: 1024, inputs: 1024, outputs: 1024, held: true },
  { name: "2048³", tokens: 2048, inputs: 2048, outputs: 2048, held: true },
  { name: "quickstart qkv", tokens: 256, inputs: 96, outputs: 160 },
  { name: "quickstart gate_up", tokens: 256, inputs: 96, outputs: 512 },
  { name: "quickstart down", tokens: 256, inputs: 256, outputs: 96 },
  { name: "head 512 x 1024 x 32003", tokens: 512, inputs: 1024, outputs: 32003 },
];

const largeProducts: ProductSizes[] = [
  { name: "qkv", tokens: 16_384, inputs: 4096, outputs: 6144, measured: [742, 742, 756] },
  { name: "o", tokens: 16_384, inputs: 4096, outputs: 4096, measured: [701, 716, 745] },
  { name: "gate_up", tokens: 16_384, inputs: 4096, outputs: 24_576, measured: [684, 674, 716] },
  { name: "down", tokens: 16_384, inputs: 12_288, outputs: 4096, measured: [649, 708, 671] },
  { name: "head", tokens: 8192, inputs: 4096, outputs: 151_936, measured: [684, 694, 591] },
  { name: "qkv of 4,096 tokens", tokens: 4096, inputs: 4096, outputs: 6144 },
  { name: "gate_up of 4,096 tokens", tokens: 4096, inputs: 4096, outputs: 24_576 },
];
/** Of a library's rate on another day of the same kind of machine. */
const gemmShare = 0.9;

async function* gemm(bench: Bench): AsyncGenerator<Rate> {
  const isH200 = bench.onGpu && bench.engine.deviceInfo().name.includes("H200");
  for (const dtype of bench.dtypes)
    for (const sizesOf of bench.onGpu ? largeProducts : smallProducts) {
      const { name, tokens, inputs, outputs, held = false, measured } = sizesOf;
      const sizes = { tokens, inputs, outputs, dtype };
      const matrix = (count: number) => bench.buffer("device", count, dtype, "normal");
      const x = await matrix(tokens * inputs);
      const weight = await matrix(outputs * inputs);
      const dy = await matrix(tokens * outputs);
      const y = await bench.buffer("device", tokens * outputs, dtype, "zero");
      const dx = await bench.buffer("device", tokens * inputs, dtype, "zero");
      const dWeight = await bench.buffer("device", outputs * inputs, "float32", "zero");

      const forward = { y, x, weight, bias: null, residual: null, ...sizes };
      const rounded = {
        dWeight: dWeight.slice(0, outputs * inputs * bytesOf(dtype)),
        dBias: null,
        dy,
        x,
        accumulate: 0,
      };
      const toWeight = { dWeight, dBias: null, dy, x, accumulate: 1, ...sizes, gradientDtype: "float32" } as const;
      const work = (2 * tokens * inputs * outputs) / 1e9;
      const named = (what: string, index?: number) => {
        const rate = isH200 && index !== undefined ? measured?.[index] : undefined;
        const floor = rate === undefined ? {} : { floor: gemmShare * rate * 1000 };
        return { group: "gemm", name: `${name} ${what} ${dtype}`, unit: "GFLOP/s" as const, ...floor };
      };
      const floor = held ? gemmFloor(dtype, bench.engine.workers) : undefined;
      const seconds = await bench.time("compute", "linearForward", () => forward);
      yield rateOf({ ...named("forward", 0), ...(floor === undefined ? {} : { floor }) }, work, seconds);
      const toInput = await bench.time("compute", "linearBackwardInput", () => ({ dx, dy, weight, ...sizes }));
      yield rateOf(named("to input", 1), work, toInput);
      yield rateOf(named("to weight", 2), work, await bench.time("compute", "linearBackwardWeight", () => toWeight));
      if (dtype === "bfloat16") {
        const atOnce = { ...rounded, ...sizes, gradientDtype: dtype };
        yield rateOf(
          named("to weight, rounded at once"),
          work,
          await bench.time("compute", "linearBackwardWeight", () => atOnce),
        );
      }
      bench.free();
    }
}

/** The bfloat16 figure was measured with instructions of its own; a CPU without them is held to float32's. */
function gemmFloor(dtype: "float32" | "bfloat16", workers: number): number | undefined {
  const held = dtype === "bfloat16" && !cpuHasBfloat16() ? "float32" : dtype;
  return gemmFloors[held][workers - 1];
}

// ---- attention ------------------------------------------------------------------------------------------------------

const smallAttentions = [
  { name: "quickstart, 16 documents", tokens: 256, heads: 3, kvHeads: 1, headDim: 32, documents: 16 },
  { name: "1024 tokens", tokens: 1024, heads: 8, kvHeads: 4, headDim: 64, documents: 1 },
  { name: "2048 tokens", tokens: 2048, heads: 16, kvHeads: 8, headDim: 128, documents: 1 },
  { name: "2048 tokens, 8 documents", tokens: 2048, heads: 16, kvHeads: 8, headDim: 128, documents: 8 },
];

const largeAttentions = [1024, 4096, 16_384, 65_536].map((length) => {
  const documents = Math.max(1, 16_384 / length);
  return { name: `documents of ${length}`, tokens: documents * length, heads: 32, kvHeads: 8, headDim: 128, documents };
});

async function* attention(bench: Bench): AsyncGenerator<Rate> {
  for (const dtype of bench.dtypes)
    for (const sizes of bench.onGpu ? largeAttentions : smallAttentions) {
      const { name, tokens, heads, kvHeads, headDim, documents } = sizes;
      const values = (count: number, content: "normal" | "zero" = "normal") =>
        bench.buffer("device", count, dtype, content);
      const [qkWidth, qkvWidth] = [(heads + kvHeads) * headDim, (heads + 2 * kvHeads) * headDim];
      const qk = await values(tokens * qkWidth);
      const qkv = await values(tokens * qkvWidth);
      const dOut = await values(tokens * heads * headDim);
      const out = await values(tokens * heads * headDim, "zero");
      const dQkv = await values(tokens * qkvWidth, "zero");
      const lse = await bench.buffer("device", heads * tokens, "float32", "zero");
      const delta = await bench.buffer("device", heads * tokens, "float32", "zero");
      const sums = await bench.buffer("device", tokens * heads * headDim, "float32", "zero");
      const starts = await bench.holding(
        Int32Array.from({ length: documents + 1 }, (_, i) => Math.floor((i * tokens) / documents)),
      );
      const scale = headDim ** -0.5;
      const common = { qk, qkv, starts, tokens, heads, kvHeads, headDim, documents, window: 0, scale, dtype };

      // Per score two products forward and five backward, and half of the scores of a document count.
      const product = (tokens * tokens * heads * headDim) / documents / 1e9;
      const named = (what: string) =>
        ({ group: "attention", name: `${name} ${what} ${dtype}`, unit: "GFLOP/s" }) as const;
      const forward = await bench.time("compute", "attentionForward", () => ({ out, lse, ...common }));
      yield rateOf(named("forward"), 2 * product, forward);
      const gradients = { dQkv, delta, sums, dOut, out, lse, ...common };
      yield rateOf(named("backward"), 5 * product, await bench.time("compute", "attentionBackward", () => gradients));
      bench.free();
    }
}

// ---- optimizer ------------------------------------------------------------------------------------------------------

async function* adamw(bench: Bench): AsyncGenerator<Rate> {
  if (bench.onGpu) yield* adamwOnDevice(bench);
  const bytes = 256 << 20;
  const [to, from] = [
    await bench.buffer("host", bytes / 4, "float32", "zero"),
    await bench.buffer("host", bytes / 4, "float32", "normal"),
  ];
  const copied = await bench.time("host", "copy", () => ({ to, from }));
  yield rateOf({ group: "adamw", name: "copy of 256 MiB, read + write", unit: "GB/s" }, (2 * bytes) / 1e9, copied);
  bench.free();

  // 32 Mi parameters are 830 MB of state, in commands of 4 Mi as a step has them; 32 Ki are one worker's task, and stay
  // in its second-level cache.
  for (const [name, count, chunk] of [
    ["32 Mi", 32 << 20, 4 << 20],
    ["32 Ki", 32 << 10, 32 << 10],
  ] as const)
    for (const gradientDtype of ["bfloat16", "float32"] as const) {
      const state = await trainingState(bench, count);
      const gradient = await bench.buffer("host", count, gradientDtype, "normal");
      const factor = bench.onHost(Float64Array.of(1, 1));
      const settings = { step: 2, learningRate: 1e-5, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1 };
      const seconds = await bench.time("host", "adamw", (run) => {
        const first = (run * chunk) % count;
        const bytes = bytesOf(gradientDtype);
        const own = gradient.slice(first * bytes, chunk * bytes);
        return {
          ...state({ offset: first, count: chunk }),
          gradient: own,
          factor,
          count: chunk,
          gradientDtype,
          ...settings,
        };
      });
      const named = { group: "adamw", name: `adamw of ${name}, gradient ${gradientDtype}` };
      const held = count > chunk && gradientDtype === "bfloat16" && bench.engine.workers === 2;
      yield rateOf({ ...named, unit: "Gparam/s", ...(held ? { floor: adamwFloor } : {}) }, chunk / 1e9, seconds);
      yield rateOf(
        { ...named, unit: "GB/s" },
        (chunk * (2 * stateBytes(formatDefault) + bytesOf(gradientDtype))) / 1e9,
        seconds,
      );
      bench.free();
    }
}

/** The state of so many parameters, on the device or where a block's lies on the host: the ranges of some of them. */
async function trainingState(bench: Bench, count: number, tier?: "device") {
  const parts = partsOf(formatDefault, { training: true });
  const whole = new Map<string, Range>();
  for (const part of parts) {
    const dtype = bytesEach(part) === 4 ? "float32" : "bfloat16";
    whole.set(part.name, await bench.buffer(tier ?? part.tier, count, dtype, part.name === "hi" ? "normal" : "zero"));
  }
  return ({ offset, count: some }: Chunk) =>
    byPart(parts, (part) => whole.get(part.name)!.slice(partBytes(part, offset), partBytes(part, some)));
}

/** A resident block of Qwen3-8B: 26 bytes a parameter, at 85 % of a copy's bandwidth or better (issue 3). */
async function* adamwOnDevice(bench: Bench): AsyncGenerator<Rate> {
  const copied = await deviceCopy(bench);
  const count = 193 << 20;
  const state = (await trainingState(bench, count, "device"))({ offset: 0, count });
  const gradient = await bench.buffer("device", count, "bfloat16", "normal");
  const factor = await bench.holding(Float64Array.of(1, 1));
  const settings = { step: 2, learningRate: 1e-5, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1 };
  const update = { ...state, gradient, factor, count, gradientDtype: "bfloat16", ...settings } as const;
  const seconds = await bench.time("compute", "adamw", () => update);
  const named = { group: "adamw", name: "adamw on the device", unit: "GB/s", floor: 0.85 * copied.best } as const;
  yield rateOf(named, ((2 * stateBytes(formatDefault) + 2) * count) / 1e9, seconds);
  bench.free();
}

// ---- command ---------------------------------------------------------------------------------------------------------

/** An op that does nothing to speak of: what a command costs when all workers are woken for it. */
async function* command(bench: Bench): AsyncGenerator<Rate> {
  const to = await bench.buffer("device", 16, "float32", "zero");
  yield rateOf(
    { group: "command", name: "zero of 64 bytes", unit: "Mcommand/s" },
    1e-6,
    await bench.time("compute", "zero", () => ({ to })),
  );
  bench.free();
}
