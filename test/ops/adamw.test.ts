// AdamW on a split master: bit for bit a scalar float32 reference that rounds after every step of the documented order
// (zig/device/cpu/adamw.zig), and close to float64 AdamW over many steps. Updates of rows must be those of the whole matrix.

import { expect } from "bun:test";
import type { Adamw, Dtype } from "../../src/native/abi.gen.ts";
import { f32, fma32 } from "../support/float32.ts";
import { onDevices, onHost, trial, type Machine } from "../support/ops.ts";
import { joinValues, splitValues, type SplitMaster } from "../support/split-master.ts";
import { tensor, type Draw, type Tensor } from "../support/tensors.ts";
import { expectEqualBits } from "../support/tolerance.ts";

type Settings = Pick<Adamw, "step" | "learningRate" | "beta1" | "beta2" | "epsilon" | "weightDecay">;

const usual: Settings = { step: 3, learningRate: 1e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1 };

interface State {
  master: SplitMaster;
  m: Float32Array<ArrayBuffer>;
  v: Float32Array<ArrayBuffer>;
}

/** torch.optim.AdamW, the step's numbers rounded once from float64, then float32 with the fused operations named. */
function adamw({ master, m, v }: State, gradient: ArrayLike<number>, factor: number, settings: Settings): State {
  const { step, learningRate, beta1, beta2, epsilon, weightDecay } = settings;
  const scale = f32(factor);
  const [beta1Rest, beta2Rounded, beta2Rest] = [f32(1 - beta1), f32(beta2), f32(1 - beta2)];
  const decay = f32(1 - learningRate * weightDecay);
  const stepSize = f32(learningRate / (1 - beta1 ** step));
  const rootScale = f32(1 / Math.sqrt(1 - beta2 ** step));
  const epsilonRounded = f32(epsilon);

  const weights = joinValues(master);
  const [nextM, nextV] = [new Float32Array(m.length), new Float32Array(v.length)];
  for (let i = 0; i < weights.length; i++) {
    const g = f32(gradient[i]! * scale);
    nextM[i] = fma32(beta1Rest, f32(g - m[i]!), m[i]!);
    nextV[i] = fma32(f32(beta2Rest * g), g, f32(beta2Rounded * v[i]!));
    const denominator = f32(f32(f32(Math.sqrt(nextV[i]!)) * rootScale) + epsilonRounded);
    weights[i] = fma32(-stepSize, f32(nextM[i]! / denominator), f32(weights[i]! * decay));
  }
  return { master: splitValues(weights), m: nextM, v: nextV };
}

const tensorsOf = ({ master, m, v }: State) => ({
  hi: tensor("uint16", master.hi),
  lo: tensor("int16", master.lo),
  m: tensor("float32", m),
  v: tensor("float32", v),
});

/** NaN weights may differ in payload, so they are compared as values. */
function expectState(found: ReturnType<typeof tensorsOf>, expected: State): void {
  const joined = joinValues({ hi: new Uint16Array(found.hi.bytes.buffer), lo: new Int16Array(found.lo.bytes.buffer) });
  expectEqualBits("m", found.m, tensor("float32", expected.m));
  expectEqualBits("v", found.v, tensor("float32", expected.v));
  expectEqualBits("weights", tensor("float32", joined), tensor("float32", joinValues(expected.master)));
}

/** Normals, and among them zeros of both signs, denormals and the largest numbers. */
function floats(draw: Draw, count: number, deviation: number): Float32Array<ArrayBuffer> {
  const special = [
    0, -0, 1e-45, -1e-45, 1e-40, -3e-39, 1.1754943508222875e-38, 1e-30, -1e-20, 1e18, -1e19, 3.4e38, -3.4e38,
  ];
  return Float32Array.from({ length: count }, () =>
    draw.random.uniform() < 0.1 ? special[draw.random.below(special.length)]! : draw.gauss() * deviation,
  );
}

function stateOf(draw: Draw, count: number): State {
  return {
    master: splitValues(floats(draw, count, 0.02)),
    m: floats(draw, count, 0.01),
    v: floats(draw, count, 0.01).map((value) => Math.abs(value * value)),
  };
}

const factorOf = (factor: number): Tensor => tensor("float64", [factor, 2.7]);

const dtypes: Dtype[] = ["float32", "bfloat16"];

/** Whole blocks: where they lie on the device, the device updates them, and no bit may tell. */
function dense(machine: Machine): void {
  const chosen: Settings[] = [
    usual,
    { ...usual, step: 1, weightDecay: 0 },
    { ...usual, step: 1000, beta2: 0.999, learningRate: 2e-5, epsilon: 1e-6 },
    { ...usual, step: 7, learningRate: 0, beta1: 0.8 },
  ];
  for (const gradientDtype of dtypes) {
    for (const settings of chosen)
      trial(
        `adamw of 150,011 parameters equals the scalar reference, step ${settings.step}, gradient ${gradientDtype}`,
        async (draw) => {
          const count = 150_011;
          const state = stateOf(draw, count);
          const gradient = tensor(gradientDtype, floats(draw, count, 0.01));
          const factor = settings.step === 1 ? 1 : draw.random.uniform();
          const found = await machine.run("adamw", {
            ...tensorsOf(state),
            gradient,
            factor: factorOf(factor),
            count,
            gradientDtype,
            ...settings,
          });
          expectState(found, adamw(state, gradient.values(), factor, settings));
        },
      );

    for (const count of [1, 7, 15, 16, 17, 31, 33, 63, 65, 701, 65537])
      trial(`adamw of ${count} parameters, gradient ${gradientDtype}`, async (draw) => {
        const state = stateOf(draw, count);
        const gradient = tensor(gradientDtype, floats(draw, count, 0.01));
        const found = await machine.run("adamw", {
          ...tensorsOf(state),
          gradient,
          factor: factorOf(0.5),
          count,
          gradientDtype,
          ...usual,
        });
        expectState(found, adamw(state, gradient.values(), 0.5, usual));
      });
  }

  trial("200 steps stay close to float64 AdamW", async (draw) => {
    const count = 65;
    const weights = new Float32Array(draw.normal("float32", count, 0.02).values());
    const zeros = () => new Float32Array(count);
    let state = tensorsOf({ master: splitValues(weights), m: zeros(), v: zeros() });
    const [w, m, v] = [Float64Array.from(weights), new Float64Array(count), new Float64Array(count)];
    const { learningRate, beta1, beta2, epsilon, weightDecay } = usual;
    for (let step = 1; step <= 200; step++) {
      const gradient = draw.normal("bfloat16", count, 0.01);
      state = await machine.run("adamw", {
        ...state,
        gradient,
        factor: factorOf(1),
        count,
        gradientDtype: "bfloat16",
        ...usual,
        step,
      });
      for (const [i, g] of gradient.values().entries()) {
        // Loshchilov & Hutter, algorithm 2, decay decoupled as in torch.
        m[i] = beta1 * m[i]! + (1 - beta1) * g;
        v[i] = beta2 * v[i]! + (1 - beta2) * g * g;
        const [mHat, vHat] = [m[i]! / (1 - beta1 ** step), v[i]! / (1 - beta2 ** step)];
        w[i] = w[i]! * (1 - learningRate * weightDecay) - (learningRate * mHat) / (Math.sqrt(vHat) + epsilon);
      }
    }
    const found = joinValues({ hi: new Uint16Array(state.hi.bytes.buffer), lo: new Int16Array(state.lo.bytes.buffer) });
    // 200 roundings of weights around 0.05 to 2⁻²⁹: against a walk of 0.05, six digits are left.
    for (const [i, weight] of found.entries()) expect(Math.abs(weight - w[i]!)).toBeLessThan(5e-7);
  });
}

onHost(dense);
onDevices(dense);

/** Rows of the embedding, which stays on the host. */
onHost((machine) => {
  for (const gradientDtype of dtypes) {
    for (const [vocabulary, width, distinct] of [
      [1, 1, 1],
      [40, 17, 1],
      [701, 63, 100],
      [1203, 77, 5],
      [97, 256, 97],
    ] as const)
      trial(
        `adamw of ${distinct} rows and of the others is that of ${vocabulary} x ${width}, gradient ${gradientDtype}`,
        async (draw) => {
          const count = vocabulary * width;
          const list = draw.distinct(distinct, vocabulary);
          const tokens = tensor("int32", list);
          const state = tensorsOf(stateOf(draw, count));
          const gradient = tensor(gradientDtype, floats(draw, count, 0.01));
          const values = gradient.values();
          const ofRows = Float64Array.from(
            { length: distinct * width },
            (_, i) => values[list[Math.floor(i / width)]! * width + (i % width)]!,
          );
          const common = { tokens, factor: factorOf(0.7), distinct, width, vocabulary, ...usual };

          const dense = await machine.run("adamw", {
            ...state,
            gradient,
            factor: common.factor,
            count,
            gradientDtype,
            ...usual,
          });
          const rows = await machine.run("adamwRows", { ...state, gradient: tensor("float32", ofRows), ...common });
          const { hi, lo, m, v } = rows;
          const both = await machine.run("adamwOtherRows", { hi, lo, m, v, gradient, gradientDtype, ...common });
          for (const part of ["hi", "lo", "m", "v"] as const) expectEqualBits(part, both[part], dense[part]);
        },
      );
  }

  trial("rows without a gradient decay as with one of zero", async (draw) => {
    const [vocabulary, width, list] = [40, 33, [0, 3, 4, 39]];
    const count = vocabulary * width;
    const state = tensorsOf(stateOf(draw, count));
    const common = {
      tokens: tensor("int32", list),
      factor: factorOf(1),
      distinct: list.length,
      width,
      vocabulary,
      ...usual,
    };
    const zeros = tensor("float32", new Float32Array(count));
    const absent = await machine.run("adamwOtherRows", {
      ...state,
      gradient: null,
      gradientDtype: "float32",
      ...common,
    });
    const present = await machine.run("adamwOtherRows", {
      ...state,
      gradient: zeros,
      gradientDtype: "float32",
      ...common,
    });
    for (const part of ["hi", "lo", "m", "v"] as const) expectEqualBits(part, absent[part], present[part]);
  });

  trial("a row outside the matrix is refused", async (draw) => {
    const state = tensorsOf(stateOf(draw, 40));
    const common = { factor: factorOf(1), distinct: 2, width: 4, vocabulary: 10, ...usual };
    const [tokens, gradient] = [tensor("int32", [3, 10]), draw.normal("float32", 8)];
    expect(await machine.failure("adamwRows", { ...state, tokens, gradient, ...common })).toBe(
      "step 1 update: adamwRows on host failed: adamw_rows.tokens 1 is 10, of 10 rows (buffers arena)",
    );
  });
});

trial("a fused multiply-add rounds once", (draw) => {
  // Products that miss half a unit in c's last place by 2⁻³⁰ of it: float64 takes the sum for a tie, and ties go to even.
  const x = 2 ** -15;
  const below = [2 ** -12 * (1 + x), 2 ** -12 * (1 - x)] as const; // 2⁻²⁴ · (1 − 2⁻³⁰)
  const z = 2 ** -10;
  const above = [2 ** -12 * (1 + z), 2 ** -12 * (1 - z + z * z)] as const; // 2⁻²⁴ · (1 + 2⁻³⁰)
  for (let i = 0; i < 1000; i++) {
    const units = draw.from(2 ** 23 + 1, 2 ** 24 - 2); // c in units of 2⁻²³
    const c = units * 2 ** -23;
    expect(fma32(...below, c)).toBe(c);
    expect(fma32(-below[0], below[1], c)).toBe(c);
    expect(fma32(...above, c)).toBe((units + 1) * 2 ** -23);
    expect(fma32(-above[0], above[1], c)).toBe((units - 1) * 2 ** -23);
    expect(fma32(-above[0], above[1], -c)).toBe(-(units + 1) * 2 ** -23);
  }
  expect(fma32(3e38, 3e38, -3e38)).toBe(Infinity);
  expect(fma32(1e-30, 1e-30, -1e-45)).toBe(f32(-1e-45));
});
