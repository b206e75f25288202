// The linear layer and its two gradients against float64: shapes around the vector widths (8, 16), the register block
// (14 x 32 or 6 x 16), the depth of a step (256) and the tile of a task (672 x 512), and large enough for several tasks.

import type { Dtype } from "../../src/native/abi.gen.ts";
import { onDevices, trial } from "../support/ops.ts";
import { output, type Tensor } from "../support/tensors.ts";
import { dot, expectClose, expectGradient } from "../support/tolerance.ts";

interface Sizes {
  tokens: number;
  inputs: number;
  outputs: number;
}

/** torch.nn.Linear: y = x · weightᵀ + bias. */
function linear(x: Float64Array, weight: Float64Array, { tokens, inputs, outputs }: Sizes): Float64Array {
  const y = new Float64Array(tokens * outputs);
  for (let t = 0; t < tokens; t++)
    for (let o = 0; o < outputs; o++) {
      let sum = 0;
      for (let i = 0; i < inputs; i++) sum += x[t * inputs + i]! * weight[o * inputs + i]!;
      y[t * outputs + o] = sum;
    }
  return y;
}

/** dx = dy · weight. */
function inputGradient(dy: Float64Array, weight: Float64Array, { tokens, inputs, outputs }: Sizes): Float64Array {
  const dx = new Float64Array(tokens * inputs);
  for (let t = 0; t < tokens; t++)
    for (let o = 0; o < outputs; o++) {
      const gradient = dy[t * outputs + o]!;
      for (let i = 0; i < inputs; i++) dx[t * inputs + i]! += gradient * weight[o * inputs + i]!;
    }
  return dx;
}

/** d_weight = dyᵀ · x. */
function weightGradient(dy: Float64Array, x: Float64Array, { tokens, inputs, outputs }: Sizes): Float64Array {
  const dWeight = new Float64Array(outputs * inputs);
  for (let t = 0; t < tokens; t++)
    for (let o = 0; o < outputs; o++) {
      const gradient = dy[t * outputs + o]!;
      for (let i = 0; i < inputs; i++) dWeight[o * inputs + i]! += gradient * x[t * inputs + i]!;
    }
  return dWeight;
}

/** d_bias = the column sums of dy. */
function biasGradient(dy: Float64Array, { tokens, outputs }: Sizes): Float64Array {
  const dBias = new Float64Array(outputs);
  for (let t = 0; t < tokens; t++) for (let o = 0; o < outputs; o++) dBias[o]! += dy[t * outputs + o]!;
  return dBias;
}

/** `to` plus what was there before, row by row where `more` is one row. */
function plus(to: Float64Array, more: Tensor | null): Float64Array {
  if (more === null) return to;
  const values = more.values();
  return to.map((value, i) => value + values[i % values.length]!);
}

/** Tokens, inputs, outputs. */
const shapes = [
  [1, 1, 1],
  [1, 40, 72],
  [3, 1, 1],
  [2, 7, 8],
  [13, 15, 33],
  [14, 16, 32],
  [15, 17, 31],
  [16, 64, 15],
  [17, 63, 65],
  [64, 64, 64],
  [65, 65, 63],
  [64, 72, 701],
  [129, 255, 97],
  [31, 256, 128],
  [130, 257, 96],
  [257, 300, 129],
  [20, 40, 513],
  [28, 513, 64],
  [673, 17, 33],
  [259, 129, 515],
] as const;

onDevices((machine) => {
  for (const dtype of machine.dtypes)
    for (const [tokens, inputs, outputs] of shapes) {
      const sizes = { tokens, inputs, outputs };
      const name = `${tokens} x ${inputs} to ${outputs}, ${dtype}`;
      // Every option at every small shape; the large ones, where the reference takes long, with all of them on.
      const large = tokens * inputs * outputs > 2e6;

      const everything = "with bias and residual in place";
      for (const extras of large ? [everything] : ["", "with bias", "with residual", everything])
        trial(`linear ${name} ${extras}`, async (draw) => {
          const [x, weight] = [draw.normal(dtype, tokens * inputs), draw.normal(dtype, outputs * inputs, 0.3)];
          const bias = extras.includes("bias") ? draw.normal(dtype, outputs) : null;
          const residual = extras.includes("residual") ? draw.normal(dtype, tokens * outputs, 3) : null;
          const y = extras.includes("in place") ? residual! : output(dtype, tokens * outputs);
          const found = await machine.run("linearForward", { y, x, weight, bias, residual, ...sizes, dtype });
          const expected = plus(plus(linear(x.values(), weight.values(), sizes), bias), residual);
          expectClose("linearForward y", found.y, expected, inputs, bias ? 1 : 0);
        });

      trial(`linear backward to its input ${name}`, async (draw) => {
        const [dy, weight] = [draw.normal(dtype, tokens * outputs), draw.normal(dtype, outputs * inputs, 0.3)];
        const found = await machine.run("linearBackwardInput", {
          dx: output(dtype, tokens * inputs),
          dy,
          weight,
          ...sizes,
          dtype,
        });
        expectClose("linearBackwardInput dx", found.dx, inputGradient(dy.values(), weight.values(), sizes), outputs);
      });

      // float32 sums, or the only product of a gradient, rounded once to the dtype.
      const options = [
        [1, true, "float32"],
        [0, false, dtype],
        [0, true, "float32"],
        [1, false, "float32"],
        [0, true, dtype],
      ] as const;
      for (const [accumulate, withBias, gradientDtype] of large ? options.slice(0, 2) : options)
        trial(
          `linear backward to its weight ${name}, accumulate ${accumulate}, bias ${withBias}, to ${gradientDtype}`,
          async (draw) => {
            const [dy, x] = [draw.normal(dtype, tokens * outputs), draw.normal(dtype, tokens * inputs)];
            const accumulator = (count: number, to: Dtype): Tensor =>
              accumulate ? draw.normal(to, count) : output(to, count);
            const dWeight = accumulator(outputs * inputs, gradientDtype);
            const dBias = withBias ? accumulator(outputs, "float32") : null;
            const found = await machine.run("linearBackwardWeight", {
              dWeight,
              dBias,
              dy,
              x,
              ...sizes,
              accumulate,
              dtype,
              gradientDtype,
            });
            const before = accumulate ? dWeight : null;
            expectClose(
              "linearBackwardWeight dWeight",
              found.dWeight,
              plus(weightGradient(dy.values(), x.values(), sizes), before),
              tokens,
            );
            if (found.dBias === null || dBias === null) return;
            expectClose(
              "linearBackwardWeight dBias",
              found.dBias,
              plus(biasGradient(dy.values(), sizes), accumulate ? dBias : null),
              tokens,
              1,
            );
          },
        );
    }
});

trial("the float64 gradients of linear are those of its forward", (draw) => {
  const sizes = { tokens: 3, inputs: 5, outputs: 4 };
  const [x, weight, dy] = [draw.doubles(15), draw.doubles(20), draw.doubles(12)];
  expectGradient("linear dx", (moved) => dot(linear(moved, weight, sizes), dy), x, inputGradient(dy, weight, sizes));
  expectGradient("linear dWeight", (moved) => dot(linear(x, moved, sizes), dy), weight, weightGradient(dy, x, sizes));
  const withBias = (bias: Float64Array) => linear(x, weight, sizes).map((value, i) => value + bias[i % 4]!);
  expectGradient("linear dBias", (moved) => dot(withBias(moved), dy), draw.doubles(4), biasGradient(dy, sizes));
});
