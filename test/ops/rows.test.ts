// Rows by index: the embedding's gather and scatter on the host, and the rows whose labels count on the device. What only
// copies must be exact; sums are compared with float64.

import { expect } from "bun:test";
import { bucketsOf } from "../../src/step/inputs.ts";
import { onDevices, onHost, trial } from "../support/ops.ts";
import { output, tensor, Tensor } from "../support/tensors.ts";
import { expectClose, expectEqualBits } from "../support/tolerance.ts";
import { split } from "../support/split-master.ts";

/** The rows of a (?, width) matrix at these places. */
function rowsAt(matrix: Float64Array, width: number, index: readonly number[]): Float64Array {
  const rows = new Float64Array(index.length * width);
  for (const [row, from] of index.entries()) rows.set(matrix.subarray(from * width, (from + 1) * width), row * width);
  return rows;
}

onHost((machine) => {
  for (const dtype of ["float32", "bfloat16"] as const)
    for (const [tokenCount, width] of [
      [1, 1],
      [3, 16],
      [65, 17],
      [701, 72],
      [1300, 63],
    ] as const)
      trial(`embedding gather of ${tokenCount} rows of ${width}, ${dtype}`, async (draw) => {
        const vocabulary = 701;
        const weights = draw.normal("float32", vocabulary * width);
        const { hi, lo } = split(weights);
        const tokens = draw.below(tokenCount, vocabulary);
        const found = await machine.run("embeddingGather", {
          rows: output(dtype, tokenCount * width),
          hi: tensor("uint16", hi),
          lo: dtype === "float32" ? tensor("int16", lo) : null,
          tokens: tensor("int32", tokens),
          tokenCount,
          width,
          vocabulary,
          dtype,
        });
        const embedding = dtype === "float32" ? weights.values() : Float64Array.from(hi);
        const bits = dtype === "float32" ? dtype : "uint16"; // bfloat16 rows are `hi` itself
        expectEqualBits("embeddingGather rows", found.rows, tensor(bits, rowsAt(embedding, width, tokens)));
      });

  for (const dtype of ["float32", "bfloat16"] as const)
    trial(`embedding gather and scatter with scaled rows, ${dtype}`, async (draw) => {
      const [width, vocabulary, scale] = [65, 9, 55.5];
      const tokens = draw.below(40, vocabulary);
      const weights = draw.normal("float32", vocabulary * width);
      const { hi, lo } = split(weights);
      const found = await machine.run("embeddingGather", {
        rows: output(dtype, 40 * width),
        hi: tensor("uint16", hi),
        lo: dtype === "float32" ? tensor("int16", lo) : null,
        tokens: tensor("int32", tokens),
        tokenCount: 40,
        width,
        vocabulary,
        dtype,
        scale,
      });
      const embedding = dtype === "float32" ? weights : new Tensor("bfloat16", new Uint8Array(hi.buffer));
      const rows = rowsAt(embedding.values(), width, tokens).map((value) => value * scale);
      expectEqualBits("embeddingGather rows", found.rows, tensor(dtype, rows));

      const order = tokens
        .map((token, position) => ({ token, position }))
        .sort((a, b) => a.token - b.token || a.position - b.position);
      const distinct = [...new Set(order.map(({ token }) => token))];
      const starts = [...distinct.map((token) => order.findIndex((at) => at.token === token)), 40];
      const dRows = draw.normal(dtype, 40 * width);
      const lists = {
        order: tensor(
          "int32",
          order.map(({ position }) => position),
        ),
        starts: tensor("int32", starts),
      };
      const gradient = output("float32", distinct.length * width);
      const args = { gradient, dRows, ...lists, distinct: distinct.length, width, dtype, accumulate: 0, scale };
      const scattered = await machine.run("embeddingScatter", args);
      const expected = new Float64Array(distinct.length * width);
      for (const [position, token] of tokens.entries())
        for (let i = 0; i < width; i++)
          expected[distinct.indexOf(token) * width + i]! += scale * dRows.values()[position * width + i]!;
      expectClose("embeddingScatter gradient", scattered.gradient, expected, 40, scale);
    });

  trial("a token outside the vocabulary is named", async () => {
    for (const token of [701, -1]) {
      const tokens = [...new Array(7).fill(3), token, 800];
      const message = await machine.failure("embeddingGather", {
        rows: output("bfloat16", 9 * 4),
        hi: tensor("uint16", new Uint16Array(701 * 4)),
        lo: null,
        tokens: tensor("int32", tokens),
        tokenCount: 9,
        width: 4,
        vocabulary: 701,
        dtype: "bfloat16",
      });
      expect(message).toBe(
        `step 1 update: embeddingGather on host failed: token ${token} at position 7 is outside the vocabulary of 701 (buffers arena)`,
      );
    }
  });

  for (const dtype of ["float32", "bfloat16"] as const)
    for (const [tokenCount, width, vocabulary] of [
      [1, 1, 1],
      [40, 33, 7],
      [300, 16, 701],
      [513, 65, 40],
    ] as const)
      for (const accumulate of [0, 1])
        trial(
          `embedding scatter of ${tokenCount} rows of ${width}, ${vocabulary} tokens, ${dtype}, accumulate ${accumulate}`,
          async (draw) => {
            const tokens = draw.below(tokenCount, vocabulary);
            const distinct = [...new Set(tokens)].sort((a, b) => a - b);
            const { order, starts } = bucketsOf(
              [{ tokens: Int32Array.from(tokens) }],
              Int32Array.from(distinct),
              tokenCount,
              null,
            );
            const dRows = draw.normal(dtype, tokenCount * width);
            const count = distinct.length * width;
            const gradient = accumulate ? draw.normal("float32", count) : output("float32", count);
            const lists = { order: tensor("int32", order), starts: tensor("int32", starts) };
            const found = await machine.run("embeddingScatter", {
              gradient,
              dRows,
              ...lists,
              distinct: distinct.length,
              width,
              dtype,
              accumulate,
            });
            // torch.nn.Embedding's backward: each row of the gradient goes to its token's row.
            const expected = accumulate ? gradient.values() : new Float64Array(count);
            const rows = dRows.values();
            for (const [position, token] of tokens.entries())
              for (let i = 0; i < width; i++)
                expected[distinct.indexOf(token) * width + i]! += rows[position * width + i]!;
            expectClose("embeddingScatter gradient", found.gradient, expected, tokenCount, 1);
          },
        );

  for (const headDtype of ["float32", "bfloat16"] as const)
    for (const [distinct, width] of [
      [1, 1],
      [40, 33],
      [100, 256],
    ] as const)
      trial(`a tied head's rows are added to ${distinct} rows of ${width}, ${headDtype}`, async (draw) => {
        const tokens = draw.distinct(distinct, 701);
        const [gradient, head] = [draw.normal("float32", distinct * width), draw.normal(headDtype, 701 * width)];
        const found = await machine.run("embeddingAddTied", {
          gradient,
          head,
          tokens: tensor("int32", tokens),
          distinct,
          width,
          headDtype,
        });
        const before = gradient.values();
        const sum = rowsAt(head.values(), width, tokens).map((value, i) => Math.fround(value + before[i]!));
        expectEqualBits("embeddingAddTied gradient", found.gradient, tensor("float32", sum));
      });
});

onDevices((machine) => {
  for (const dtype of machine.dtypes)
    for (const [rows, total, width] of [
      [1, 1, 1],
      [15, 40, 33],
      [701, 1000, 17],
      [64, 64, 64],
      [3, 9000, 5],
    ] as const)
      trial(`gather and scatter ${rows} of ${total} rows of ${width}, ${dtype}`, async (draw) => {
        const x = draw.normal(dtype, total * width);
        const list = draw.distinct(rows, total);
        const index = tensor("int32", list);
        const gathered = await machine.run("gatherRows", {
          y: output(dtype, rows * width),
          x,
          index,
          rows,
          width,
          dtype,
        });
        const wanted = rowsAt(x.values(), width, list);
        expectEqualBits("gatherRows y", gathered.y, tensor(dtype, wanted));

        const back = new Float64Array(total * width);
        for (const [row, to] of list.entries()) back.set(wanted.subarray(row * width, (row + 1) * width), to * width);
        const scattered = await machine.run("scatterRows", {
          y: output(dtype, total * width),
          x: gathered.y,
          index,
          rows,
          totalRows: total,
          width,
          dtype,
        });
        expectEqualBits("scatterRows y", scattered.y, tensor(dtype, back));
      });

  for (const dtype of machine.dtypes)
    trial(`scattering no rows gives zeros, ${dtype}`, async () => {
      const y: Tensor = output(dtype, 65 * 3);
      const found = await machine.run("scatterRows", {
        y,
        x: null,
        index: null,
        rows: 0,
        totalRows: 65,
        width: 3,
        dtype,
      });
      expectEqualBits("scatterRows y", found.y, tensor(dtype, new Float64Array(65 * 3)));
    });
});
