// The global gradient norm: sums of squares, over all rows and over those without a token, and the clipping factor.

import { expect } from "bun:test";
import { onDevices, onHost, trial } from "../support/ops.ts";
import { output, tensor, type Tensor } from "../support/tensors.ts";

/** Sums in float64 over many chunks: their order changes a few last places. */
const relative = 1e-13;

/** Σ x² over the indices to keep, with compensation (Neumaier): a plain loop over 300,000 values is off by 1e-13 itself. */
function squares(values: Float64Array, keep: (i: number) => boolean = () => true): number {
  let [sum, lost] = [0, 0];
  for (const [i, value] of values.entries()) {
    if (!keep(i)) continue;
    const square = value * value;
    const next = sum + square;
    lost += sum >= square ? sum - next + square : square - next + sum;
    sum = next;
  }
  return sum + lost;
}

onDevices((machine) => {
  for (const dtype of machine.dtypes) {
    for (const count of [1, 15, 16, 17, 65, 701, 65537, 300007])
      trial(`squared norm of ${count} values, ${dtype}`, async (draw) => {
        const x = draw.normal(dtype, count);
        const { sum } = await machine.run("squaredNorm", { sum: output("float64", 2), x, count, dtype });
        const expected = squares(x.values());
        expect(Math.abs(sum.values()[0]! / expected - 1)).toBeLessThan(relative);
        expect(sum.values()[1]).toBe(0);
      });

    trial(`squared norm counts what is not finite, ${dtype}`, async (draw) => {
      const values = draw.normal(dtype, 701).values();
      for (const [i, value] of [
        [0, NaN],
        [333, Infinity],
        [700, -Infinity],
      ] as const)
        values[i] = value;
      const args = { sum: output("float64", 2), x: tensor(dtype, values), count: 701, dtype };
      expect((await machine.run("squaredNorm", args)).sum.values()[1]).toBe(3);
    });

    trial(`squared norm of values whose squares exceed float32, ${dtype}`, async () => {
      const args = { sum: output("float64", 2), x: tensor(dtype, [1e30, -1e30, 1e-30]), count: 3, dtype };
      const expected = squares(args.x.values());
      expect(Math.abs((await machine.run("squaredNorm", args)).sum.values()[0]! / expected - 1)).toBeLessThan(relative);
    });
  }
});

onHost((machine) => {
  for (const dtype of ["float32", "bfloat16"] as const)
    for (const [vocabulary, width, distinct] of [
      [1, 1, 1],
      [40, 17, 1],
      [701, 63, 100],
      [1701, 131, 1701],
      [3000, 40, 2000],
    ] as const)
      trial(
        `squared norm of the rows of ${vocabulary} x ${width} without ${distinct} tokens, ${dtype}`,
        async (draw) => {
          const chosen = draw.distinct(distinct, vocabulary);
          const tokens = tensor("int32", chosen);
          const x = draw.normal(dtype, vocabulary * width);
          const { sum } = await machine.run("squaredNormOtherRows", {
            sum: output("float64", 2),
            x,
            tokens,
            distinct,
            vocabulary,
            width,
            dtype,
          });
          const skipped = new Set(chosen);
          const expected = squares(x.values(), (i) => !skipped.has(Math.floor(i / width)));
          expect(Math.abs(sum.values()[0]! - expected)).toBeLessThanOrEqual(expected * relative);
          expect(sum.values()[1]).toBe(0);
        },
      );

  /** Pairs of sum and count, one every 64 bytes. */
  const sumsOf = (pairs: readonly (readonly [number, number])[]): Tensor =>
    tensor(
      "float64",
      pairs.flatMap(([sum, broken]) => [sum, broken, ...new Array(6).fill(NaN)]),
    );

  trial("the clipping factor is torch's", async (draw) => {
    for (const maxNorm of [0, 0.5, 1, 1e9]) {
      const pairs = Array.from({ length: draw.from(1, 40) }, () => [draw.random.uniform() * 10, 0] as const);
      const args = { factor: output("float64", 2), sums: sumsOf(pairs), parts: pairs.length, maxNorm };
      const { factor } = await machine.run("clipFactor", args);
      // torch.nn.utils.clip_grad_norm_: max_norm / (total_norm + 1e-6), clamped to 1. Both sums run in order, over parts with
      // as many digits as a float32: equal bits.
      const norm = Math.sqrt(pairs.reduce((sum, [part]) => sum + Math.fround(part), 0));
      expect([...factor.values()]).toEqual([maxNorm === 0 ? 1 : Math.min(1, maxNorm / (norm + 1e-6)), norm]);
    }
  });

  trial("a gradient that is not finite stops the step", async () => {
    const failing = (pairs: readonly (readonly [number, number])[]): Promise<string> =>
      machine.failure("clipFactor", {
        factor: output("float64", 2),
        sums: sumsOf(pairs),
        parts: pairs.length,
        maxNorm: 1,
      });
    const failed = "step 1 update: clipFactor on host failed:";
    expect(
      await failing([
        [9, 0],
        [16, 2],
      ]),
    ).toBe(`${failed} the gradient norm is 5: 2 gradient values are not finite (buffers arena)`);
    expect(await failing([[NaN, 1]])).toBe(
      `${failed} the gradient norm is nan: 1 gradient values are not finite (buffers arena)`,
    );
  });
});
