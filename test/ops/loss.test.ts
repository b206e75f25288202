// Cross-entropy with its gradient in place, the sum of losses, and what they say about tokens that cannot be.

import { expect } from "bun:test";
import { onDevices, onHost, trial } from "../support/ops.ts";
import { output, tensor, type Draw } from "../support/tensors.ts";
import { dot, expectClose, expectEqualBits, expectGradient } from "../support/tolerance.ts";

const ignored = -100;

/** Per row: the highest logit, and Σ exp(logit − highest). */
function softmaxParts(row: Float64Array): { highest: number; sum: number } {
  const highest = row.reduce((a, b) => Math.max(a, b));
  return { highest, sum: row.reduce((sum, value) => sum + Math.exp(value - highest), 0) };
}

/** torch.nn.functional.cross_entropy per row (HF ForCausalLMLoss), with ignore_index −100. */
function crossEntropy(logits: Float64Array, targets: readonly number[]): Float64Array {
  const vocabulary = logits.length / targets.length;
  return Float64Array.from(targets, (target, row) => {
    if (target === ignored) return 0;
    const values = logits.subarray(row * vocabulary, (row + 1) * vocabulary);
    const { highest, sum } = softmaxParts(values);
    return Math.log(sum) + (highest - values[target]!);
  });
}

/** (softmax − onehot) · scale. */
function crossEntropyGradient(logits: Float64Array, targets: readonly number[], scale: number): Float64Array {
  const vocabulary = logits.length / targets.length;
  const gradient = new Float64Array(logits.length);
  for (const [row, target] of targets.entries()) {
    if (target === ignored) continue;
    const values = logits.subarray(row * vocabulary, (row + 1) * vocabulary);
    const { highest, sum } = softmaxParts(values);
    for (const [i, value] of values.entries())
      gradient[row * vocabulary + i] = (Math.exp(value - highest) / sum - (i === target ? 1 : 0)) * scale;
  }
  return gradient;
}

function targetsOf(draw: Draw, rows: number, vocabulary: number): number[] {
  return Array.from({ length: rows }, () => (draw.from(0, 4) === 0 ? ignored : draw.random.below(vocabulary)));
}

/** Rows and vocabulary. */
const shapes = [
  [1, 1],
  [3, 2],
  [1, 15],
  [5, 16],
  [17, 17],
  [64, 63],
  [7, 65],
  [67, 701],
  [3, 2048],
  [2, 32003],
  [20, 24008],
] as const;

onDevices((machine) => {
  for (const dtype of machine.dtypes) {
    for (const [rows, vocabulary] of shapes)
      trial(`cross-entropy of ${rows} x ${vocabulary}, ${dtype}`, async (draw) => {
        const logits = draw.normal(dtype, rows * vocabulary, 4);
        const list = targetsOf(draw, rows, vocabulary);
        const scale = Math.fround(1 / 7);
        const args = {
          logits,
          loss: output("float32", rows),
          targets: tensor("int32", list),
          rows,
          vocabulary,
          scale,
          dtype,
        };
        const measured = await machine.run("crossEntropy", { ...args, gradient: 0 });
        expectEqualBits("crossEntropy without gradient: logits", measured.logits, logits);
        expectClose("crossEntropy loss", measured.loss, crossEntropy(logits.values(), list), vocabulary, 1);
        const found = await machine.run("crossEntropy", { ...args, gradient: 1 });
        expectEqualBits("crossEntropy with gradient: loss", found.loss, measured.loss);
        // Errors of a probability are relative to it; the scale of all is that of the target's element.
        expectClose(
          "crossEntropy logits",
          found.logits,
          crossEntropyGradient(logits.values(), list, scale),
          vocabulary,
        );
      });

    // A GPU's blocks go from row to row, and hold a part of the next while they write one.
    trial(`cross-entropy of a row is the same among 300 others, ${dtype}`, async (draw) => {
      const [few, rows, vocabulary] = [5, 300, 24_008];
      const logits = draw.normal(dtype, few * vocabulary, 4).values();
      const list = [7, ignored, vocabulary - 1, 0, 20_000];
      const run = (count: number) => {
        const tiled = new Float64Array(count * vocabulary);
        for (let row = 0; row < count; row++)
          tiled.set(logits.subarray((row % few) * vocabulary, ((row % few) + 1) * vocabulary), row * vocabulary);
        const targets = tensor(
          "int32",
          Array.from({ length: count }, (_, row) => list[row % few]!),
        );
        const args = { logits: tensor(dtype, tiled), loss: output("float32", count), targets, rows: count, vocabulary };
        return machine.run("crossEntropy", { ...args, scale: 1, gradient: 1, dtype });
      };
      const [alone, among] = [await run(few), await run(rows)];
      for (const name of ["loss", "logits"] as const) {
        const [one, all] = [alone[name].bytes, among[name].bytes];
        for (let at = 0; at < all.length; at += one.length)
          if (Buffer.compare(all.subarray(at, at + one.length), one) !== 0)
            throw new Error(
              `crossEntropy ${name}: rows ${(at / one.length) * few} to ${(at / one.length + 1) * few - 1} differ`,
            );
      }
    });

    trial(`cross-entropy of logits far from zero, ${dtype}`, async () => {
      const [rows, vocabulary, list] = [3, 5, [0, 1, 2]];
      const logits = tensor(dtype, [1000, 999, 0, -1000, 1e30, -1e30, -1e30, 0, 1, 2, 80, 80, 80, 80, 80]);
      const args = {
        logits,
        loss: output("float32", rows),
        targets: tensor("int32", list),
        rows,
        vocabulary,
        scale: 1,
        dtype,
      };
      const found = await machine.run("crossEntropy", { ...args, gradient: 1 });
      expectClose("crossEntropy loss", found.loss, crossEntropy(logits.values(), list), vocabulary);
      expectClose("crossEntropy logits", found.logits, crossEntropyGradient(logits.values(), list, 1), vocabulary);
    });
  }

  if (machine.refuses)
    trial("a label outside the vocabulary is named", async (draw) => {
      for (const label of [701, -1, -99]) {
        const args = { logits: draw.normal("float32", 2103), loss: output("float32", 3), rows: 3, vocabulary: 701 };
        const targets = tensor("int32", [5, ignored, label]);
        expect(
          await machine.failure("crossEntropy", { ...args, targets, scale: 1, gradient: 1, dtype: "float32" }),
        ).toBe(
          `step 1 forward: crossEntropy on compute failed: label ${label} in row 2 is outside the vocabulary of 701 (and not -100) (buffers arena)`,
        );
      }
    });
});

onHost((machine) => {
  for (const count of [1, 16, 701, 5000])
    trial(`sum of ${count} losses, in order`, async (draw) => {
      const losses = draw.normal("float32", count, 3);
      const found = await machine.run("lossSum", { total: output("float64", 2), losses, count, check: 1 });
      expectEqualBits("lossSum total", found.total, tensor("float64", [losses.values().reduce((a, b) => a + b, 0), 0]));
    });

  trial("no losses sum to zero", async () => {
    const found = await machine.run("lossSum", { total: output("float64", 2), losses: null, count: 0, check: 1 });
    expectEqualBits("lossSum total", found.total, tensor("float64", [0, 0]));
  });

  trial("a loss that is not finite is counted, and named when asked", async () => {
    const losses = tensor("float32", [1, 2, NaN, 3, Infinity]);
    const args = { total: output("float64", 2), losses, count: 5 };
    const found = await machine.run("lossSum", { ...args, check: 0 });
    expect(found.total.values()[1]).toBe(2);
    expect(await machine.failure("lossSum", { ...args, check: 1 })).toBe(
      "step 1 update: lossSum on host failed: the loss is nan at token 2 (2 of 5 losses are not finite) (buffers arena)",
    );
  });
});

trial("the float64 gradient of cross-entropy is that of its forward", (draw) => {
  const [logits, targets] = [draw.doubles(3 * 6), [2, ignored, 5]];
  const loss = (moved: Float64Array) => dot(crossEntropy(moved, targets), new Float64Array(3).fill(0.3));
  expectGradient("cross-entropy", loss, logits, crossEntropyGradient(logits, targets, 0.3));
});
