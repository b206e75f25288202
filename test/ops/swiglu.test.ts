// SwiGLU and GeGLU, forward and in-place backward, against float64.

import { onDevices, trial } from "../support/ops.ts";
import { output, tensor } from "../support/tensors.ts";
import { dot, expectClose, expectGradient } from "../support/tolerance.ts";

/** An activation and its derivative. */
type Activation = (gate: number) => { value: number; slope: number };

const silu: Activation = (gate) => {
  const s = 1 / (1 + Math.exp(-gate));
  return { value: gate * s, slope: s * (1 + gate * (1 - s)) };
};

/** PyTorch's gelu(approximate="tanh"). */
const gelu: Activation = (gate) => {
  const root = Math.sqrt(2 / Math.PI);
  const tanh = Math.tanh(root * (gate + 0.044715 * gate ** 3));
  const inner = root * (1 + 3 * 0.044715 * gate ** 2);
  const steep = Math.abs(tanh) === 1 ? 0 : (1 - tanh ** 2) * inner;
  return { value: 0.5 * gate * (1 + tanh), slope: 0.5 * (1 + tanh) + 0.5 * gate * steep };
};

const kinds = [
  { name: "swiglu", forward: "swigluForward", backward: "swigluBackward", activation: silu, terms: 1 },
  { name: "geglu", forward: "gegluForward", backward: "gegluBackward", activation: gelu, terms: 4 },
] as const;

/** HF LlamaMLP, Gemma3MLP: activation(gate) · up, from rows that hold gate | up. */
function gated(activation: Activation, gateUp: Float64Array, width: number): Float64Array {
  const y = new Float64Array(gateUp.length / 2);
  for (let row = 0; row < y.length / width; row++)
    for (let i = 0; i < width; i++) {
      const [gate, up] = [gateUp[row * 2 * width + i]!, gateUp[row * 2 * width + width + i]!];
      y[row * width + i] = activation(gate).value * up;
    }
  return y;
}

/** d_gate = dy · up · activation′(gate), d_up = dy · activation(gate). */
function gatedGradient(activation: Activation, gateUp: Float64Array, dy: Float64Array, width: number): Float64Array {
  const gradient = new Float64Array(gateUp.length);
  for (let row = 0; row < dy.length / width; row++)
    for (let i = 0; i < width; i++) {
      const at = row * 2 * width + i;
      const { value, slope } = activation(gateUp[at]!);
      const d = dy[row * width + i]!;
      gradient[at] = d * gateUp[at + width]! * slope;
      gradient[at + width] = d * value;
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
  for (const { name, forward, backward, activation, terms } of kinds)
    for (const dtype of machine.dtypes) {
      for (const [tokens, width] of shapes)
        trial(`${name} of ${tokens} x ${width}, ${dtype}`, async (draw) => {
          const gateUp = draw.normal(dtype, tokens * 2 * width, 3);
          const sizes = { tokens, width, dtype };
          const found = await machine.run(forward, { y: output(dtype, tokens * width), gateUp, ...sizes });
          expectClose(`${forward} y`, found.y, gated(activation, gateUp.values(), width), 1);
          const dy = draw.normal(dtype, tokens * width);
          const { gateUp: gradient } = await machine.run(backward, { gateUp, dy, ...sizes });
          const expected = gatedGradient(activation, gateUp.values(), dy.values(), width);
          expectClose(`${backward} gateUp`, gradient, expected, terms);
        });

      trial(`${name} with gates far beyond the exponential's range, ${dtype}`, async () => {
        const far = name === "swiglu" ? 3e38 : 1e12; // gelu's cube is beyond float32 from 1e13 on, as PyTorch's
        const gates = [-far, -1000, -120, -90, -88, 0, 88, 90, 120, 1000, far];
        const sizes = { tokens: 1, width: gates.length, dtype };
        const gateUp = tensor(dtype, [...gates, ...gates.map(() => 1)]);
        const found = await machine.run(forward, { y: output(dtype, gates.length), gateUp, ...sizes });
        expectClose(`${forward} y`, found.y, gated(activation, gateUp.values(), gates.length), 1);
        const dy = tensor(
          dtype,
          gates.map(() => 1),
        );
        const { gateUp: gradient } = await machine.run(backward, { gateUp, dy, ...sizes });
        const expected = gatedGradient(activation, gateUp.values(), dy.values(), gates.length);
        expectClose(`${backward} gateUp`, gradient, expected, terms);
      });
    }
});

for (const { name, activation } of kinds)
  trial(`the float64 gradient of ${name} is that of its forward`, (draw) => {
    const [gateUp, dy] = [draw.doubles(12), draw.doubles(6)];
    const gradient = gatedGradient(activation, gateUp, dy, 3);
    expectGradient(name, (moved) => dot(gated(activation, moved, 3), dy), gateUp, gradient);
  });
