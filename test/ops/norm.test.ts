// RMSNorm and residual addition + RMSNorm, forward and backward, against float64.

import { trial, onDevices } from "../support/ops.ts";
import { output, tensor } from "../support/tensors.ts";
import { dot, expectClose, expectEqualBits, expectGradient, rootMeanSquare } from "../support/tolerance.ts";

const epsilon = Math.fround(1e-5);

/** HF LlamaRMSNorm: y = x / sqrt(mean(x²) + epsilon) · weight. */
function rmsnorm(x: Float64Array, weight: Float64Array, rows: number): { y: Float64Array; inverse: Float64Array } {
  const width = weight.length;
  const [y, inverse] = [new Float64Array(x.length), new Float64Array(rows)];
  for (let row = 0; row < rows; row++) {
    const at = row * width;
    let squares = 0;
    for (let i = 0; i < width; i++) squares += x[at + i]! ** 2;
    inverse[row] = 1 / Math.sqrt(squares / width + epsilon);
    for (let i = 0; i < width; i++) y[at + i] = x[at + i]! * inverse[row]! * weight[i]!;
  }
  return { y, inverse };
}

/** With n = x · inverse: dx = inverse · (dy·weight − n · mean(dy·weight·n)), d_weight = Σ rows dy·n. */
function rmsnormGradients(
  dy: Float64Array,
  x: Float64Array,
  weight: Float64Array,
  inverse: Float64Array,
): { dx: Float64Array; dWeight: Float64Array } {
  const width = weight.length;
  const [dx, dWeight] = [new Float64Array(x.length), new Float64Array(width)];
  for (const [row, scale] of inverse.entries()) {
    const at = row * width;
    let products = 0;
    for (let i = 0; i < width; i++) {
      products += dy[at + i]! * weight[i]! * x[at + i]! * scale;
      dWeight[i]! += dy[at + i]! * x[at + i]! * scale;
    }
    for (let i = 0; i < width; i++)
      dx[at + i] = scale * (dy[at + i]! * weight[i]! - (x[at + i]! * scale * products) / width);
  }
  return { dx, dWeight };
}

const sum = (a: Float64Array, b: Float64Array): Float64Array => a.map((value, i) => value + b[i]!);

/** Rows and width. */
const shapes = [
  [1, 1],
  [3, 7],
  [1, 15],
  [4, 16],
  [16, 17],
  [17, 63],
  [65, 64],
  [2, 65],
  [33, 128],
  [300, 129],
  [7, 701],
  [129, 512],
  [1025, 40],
  [5, 4099],
  // Several rows for each block of several warps, on the emulated GPU's four multiprocessors.
  [70, 1096],
  [41, 1100],
] as const;

onDevices((machine) => {
  for (const dtype of machine.dtypes)
    for (const [rows, width] of shapes) {
      const sizes = { rows, width, dtype };
      trial(`rmsnorm of ${rows} x ${width}, ${dtype}`, async (draw) => {
        const [x, weight] = [draw.normal(dtype, rows * width, 3), draw.normal(dtype, width)];
        const outputs = { y: output(dtype, rows * width), inverse: output("float32", rows) };
        const found = await machine.run("rmsnormForward", { ...outputs, x, weight, epsilon, ...sizes });
        const expected = rmsnorm(x.values(), weight.values(), rows);
        expectClose("rmsnormForward y", found.y, expected.y, width);
        expectClose("rmsnormForward inverse", found.inverse, expected.inverse, width);
      });

      trial(`residual and rmsnorm of ${rows} x ${width}, ${dtype}`, async (draw) => {
        const [x, delta, weight] = [
          draw.normal(dtype, rows * width),
          draw.normal(dtype, rows * width),
          draw.normal(dtype, width),
        ];
        const outputs = {
          sum: output(dtype, rows * width),
          y: output(dtype, rows * width),
          inverse: output("float32", rows),
        };
        const found = await machine.run("addRmsnormForward", { ...outputs, x, delta, weight, epsilon, ...sizes });
        // The norm is of the sum as it is stored, so that forward and recompute agree.
        expectEqualBits("addRmsnormForward sum", found.sum, tensor(dtype, sum(x.values(), delta.values())));
        const expected = rmsnorm(found.sum.values(), weight.values(), rows);
        expectClose("addRmsnormForward y", found.y, expected.y, width);
        expectClose("addRmsnormForward inverse", found.inverse, expected.inverse, width);
      });

      trial(`rmsnorm of ${rows} x ${width} with weights from 1 and a residual, ${dtype}`, async (draw) => {
        const [x, residual] = [draw.normal(dtype, rows * width, 3), draw.normal(dtype, rows * width)];
        const weight = draw.normal(dtype, width);
        const outputs = { y: output(dtype, rows * width), inverse: output("float32", rows) };
        const args = { ...outputs, x, weight, residual, epsilon, offset: 1, ...sizes };
        const found = await machine.run("rmsnormForward", args);
        const weights = weight.values().map((value) => value + 1);
        const normed = rmsnorm(x.values(), weights, rows);
        expectClose("rmsnormForward y", found.y, sum(normed.y, residual.values()), width);
        // Backward, with the gradient in the place of x.
        const dy = draw.normal(dtype, rows * width);
        const dWeight = output("float32", width);
        const inverse = tensor("float32", normed.inverse);
        const back = { dx: x, dWeight, dy, x, inverse, weight, accumulateDx: 0, accumulate: 0, offset: 1, ...sizes };
        const gradients = await machine.run("rmsnormBackward", back);
        const expected = rmsnormGradients(dy.values(), x.values(), weights, inverse.values());
        expectClose("rmsnormBackward dx", gradients.dx, expected.dx, width, rootMeanSquare(inverse.values()));
        expectClose("rmsnormBackward dWeight", gradients.dWeight, expected.dWeight, rows);
      });

      for (const [accumulateDx, accumulate] of [
        [0, 0],
        [1, 1],
      ] as const)
        trial(`rmsnorm backward of ${rows} x ${width}, ${dtype}, accumulate ${accumulate}`, async (draw) => {
          const [x, dy] = [draw.normal(dtype, rows * width, 2), draw.normal(dtype, rows * width)];
          const weight = draw.normal(dtype, width);
          const inverse = tensor("float32", rmsnorm(x.values(), weight.values(), rows).inverse);
          const dx = accumulateDx ? draw.normal(dtype, rows * width) : output(dtype, rows * width);
          const dWeight = accumulate ? draw.normal("float32", width) : output("float32", width);
          const found = await machine.run("rmsnormBackward", {
            dx,
            dWeight,
            dy,
            x,
            inverse,
            weight,
            accumulateDx,
            accumulate,
            ...sizes,
          });
          const expected = rmsnormGradients(dy.values(), x.values(), weight.values(), inverse.values());
          const [beforeX, beforeWeight] = [dx.values(), dWeight.values()];
          const terms = rootMeanSquare(inverse.values()); // a row of one value has no gradient: everything cancels
          expectClose(
            "rmsnormBackward dx",
            found.dx,
            accumulateDx ? sum(expected.dx, beforeX) : expected.dx,
            width,
            terms,
          );
          expectClose(
            "rmsnormBackward dWeight",
            found.dWeight,
            accumulate ? sum(expected.dWeight, beforeWeight) : expected.dWeight,
            rows,
          );
        });
    }
});

trial("the float64 gradients of rmsnorm are those of its forward", (draw) => {
  const [rows, width] = [3, 5];
  const [x, weight, dy] = [draw.doubles(rows * width), draw.doubles(width), draw.doubles(rows * width)];
  const { dx, dWeight } = rmsnormGradients(dy, x, weight, rmsnorm(x, weight, rows).inverse);
  expectGradient("rmsnorm dx", (moved) => dot(rmsnorm(moved, weight, rows).y, dy), x, dx);
  expectGradient("rmsnorm dWeight", (moved) => dot(rmsnorm(x, moved, rows).y, dy), weight, dWeight);
});
