// SwiGLU, forward and in-place backward, against float64.

import { onDevices, trial } from "../support/ops.ts";
import { output, tensor } from "../support/tensors.ts";
import { dot, expectClose, expectGradient } from "../support/tolerance.ts";

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

/** HF LlamaMLP: silu(gate) · up, from rows that hold gate | up. */
function swiglu(gateUp: Float64Array, width: number): Float64Array {
  const y = new Float64Array(gateUp.length / 2);
  for (let row = 0; row < y.length / width; row++)
    for (let i = 0; i < width; i++) {
      const [gate, up] = [gateUp[row * 2 * width + i]!, gateUp[row * 2 * width + width + i]!];
      y[row * width + i] = gate * sigmoid(gate) * up;
    }
  return y;
}

/** With s = sigmoid(gate): d_gate = dy · up · s · (1 + gate · (1 − s)), d_up = dy · gate · s. */
function swigluGradient(gateUp: Float64Array, dy: Float64Array, width: number): Float64Array {
  const gradient = new Float64Array(gateUp.length);
  for (let row = 0; row < dy.length / width; row++)
    for (let i = 0; i < width; i++) {
      const at = row * 2 * width + i;
      const [gate, up, d] = [gateUp[at]!, gateUp[at + width]!, dy[row * width + i]!];
      const s = sigmoid(gate);
      gradient[at] = d * up * s * (1 + gate * (1 - s));
      gradient[at + width] = d * gate * s;
    }
  return gradient;
}

/** Tokens and width. */
const shapes = [
  [1, 1],
  [3, 7],
  [2, 15],
  [5, 16],
  [17, 17],
  [64, 63],
  [65, 65],
  [257, 72],
  [33, 701],
  [19, 4096],
] as const;

onDevices((machine) => {
  for (const dtype of machine.dtypes) {
    for (const [tokens, width] of shapes)
      trial(`swiglu of ${tokens} x ${width}, ${dtype}`, async (draw) => {
        const gateUp = draw.normal(dtype, tokens * 2 * width, 3);
        const found = await machine.run("swigluForward", {
          y: output(dtype, tokens * width),
          gateUp,
          tokens,
          width,
          dtype,
        });
        expectClose("swigluForward y", found.y, swiglu(gateUp.values(), width), 1);
        const dy = draw.normal(dtype, tokens * width);
        const { gateUp: gradient } = await machine.run("swigluBackward", { gateUp, dy, tokens, width, dtype });
        expectClose("swigluBackward gateUp", gradient, swigluGradient(gateUp.values(), dy.values(), width), 1);
      });

    trial(`swiglu with gates far beyond the exponential's range, ${dtype}`, async () => {
      const gates = [-3e38, -1000, -120, -90, -88, 0, 88, 90, 120, 1000, 3e38];
      const width = gates.length;
      const gateUp = tensor(dtype, [...gates, ...gates.map(() => 1)]);
      const found = await machine.run("swigluForward", { y: output(dtype, width), gateUp, tokens: 1, width, dtype });
      expectClose("swigluForward y", found.y, swiglu(gateUp.values(), width), 1);
      const dy = tensor(
        dtype,
        gates.map(() => 1),
      );
      const { gateUp: gradient } = await machine.run("swigluBackward", { gateUp, dy, tokens: 1, width, dtype });
      expectClose("swigluBackward gateUp", gradient, swigluGradient(gateUp.values(), dy.values(), width), 1);
    });
  }
});

trial("the float64 gradient of swiglu is that of its forward", (draw) => {
  const [gateUp, dy] = [draw.doubles(12), draw.doubles(6)];
  expectGradient("swiglu", (moved) => dot(swiglu(moved, 3), dy), gateUp, swigluGradient(gateUp, dy, 3));
});
