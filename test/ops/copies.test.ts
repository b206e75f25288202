// Ops without arithmetic to speak of: copies, casts, sums of two, and the split master. All of them are exact.

import { expect } from "bun:test";
import { readFileSync } from "node:fs";
import { ops } from "../../src/native/abi.gen.ts";
import { onDevices, onHost, trial } from "../support/ops.ts";
import { joinValues, splitValues } from "../support/split-master.ts";
import { output, Tensor, tensor, type Draw } from "../support/tensors.ts";
import { expectEqualBits } from "../support/tolerance.ts";

/** Around the vector widths, and around the share of one task (65536). */
const counts = [1, 7, 15, 16, 17, 63, 64, 65, 701, 65535, 65537, 200003];
const dtypes = ["float32", "bfloat16", "float16"] as const;

/** Every exponent of float32 with mantissas at the edges of rounding, both signs, infinities; NaNs where wanted. */
function specialValues(withNan: boolean): Tensor {
  const mantissas = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0x10000, 0x17fff, 0x18000, 0x7f7fff, 0x7f8000, 0x7fffff];
  const words: number[] = [];
  for (let exponent = 0; exponent < 256; exponent++)
    for (const mantissa of mantissas)
      for (const sign of [0, 0x80000000])
        if (exponent < 255 || mantissa === 0 || withNan) words.push((sign + exponent * 2 ** 23 + mantissa) >>> 0);
  return new Tensor("float32", new Uint8Array(Uint32Array.from(words).buffer));
}

/** Normal numbers of many sizes, after all the special ones. */
function anyValues(draw: Draw, count: number): Tensor {
  const special = specialValues(true).values();
  return tensor(
    "float32",
    Float64Array.from({ length: count }, (_, i) => special[i] ?? draw.gauss() * 2 ** draw.from(-20, 20)),
  );
}

onDevices((machine) => {
  for (const count of counts) {
    trial(`copy and zero of ${count} bytes`, async (draw) => {
      const from = new Tensor("bfloat16", Uint8Array.from(draw.below(count, 256)));
      const to = new Tensor("bfloat16", new Uint8Array(count).fill(0xff));
      expectEqualBits("copy", (await machine.run("copy", { to, from })).to, from);
      expectEqualBits("zero", (await machine.run("zero", { to })).to, new Tensor("bfloat16", new Uint8Array(count)));
    });

    trial(`casts of ${count} values`, async (draw) => {
      const exact = anyValues(draw, count);
      for (const fromDtype of dtypes)
        for (const toDtype of dtypes) {
          const from = tensor(fromDtype, exact.values());
          const found = await machine.run("cast", { to: output(toDtype, count), from, count, toDtype, fromDtype });
          expectEqualBits(`cast from ${fromDtype} to ${toDtype}`, found.to, tensor(toDtype, from.values()));
        }
    });

    for (const dtype of machine.dtypes)
      trial(`accumulate ${count} values, ${dtype}`, async (draw) => {
        const [from, before] = [draw.normal(dtype, count), draw.normal("float32", count)];
        const added = await machine.run("accumulate", { to: before, from, count, accumulate: 1, dtype });
        const start = before.values();
        expectEqualBits(
          "accumulate 1",
          added.to,
          tensor(
            "float32",
            from.values().map((value, i) => value + start[i]!),
          ),
        );
        const set = await machine.run("accumulate", {
          to: output("float32", count),
          from,
          count,
          accumulate: 0,
          dtype,
        });
        expectEqualBits("accumulate 0", set.to, tensor("float32", from.values()));
      });
  }
});

onHost((machine) => {
  for (const dtype of dtypes)
    for (const count of counts)
      trial(`split and join ${count} values from ${dtype}`, async (draw) => {
        const from = tensor(dtype, anyValues(draw, count).values());
        const outputs = { hi: output("uint16", count), lo: output("int16", count) };
        const { hi, lo } = await machine.run("splitWeights", { ...outputs, from, count, dtype });
        const { to } = await machine.run("joinWeights", { to: output("float32", count), hi, lo, count });
        expectEqualBits("join of split", to, tensor("float32", from.values()));
      });

  trial("a split master carries every special value, NaN as NaN", async () => {
    const from = specialValues(true);
    const { count } = from;
    const outputs = { hi: output("uint16", count), lo: output("int16", count) };
    const { hi, lo } = await machine.run("splitWeights", { ...outputs, from, count, dtype: "float32" });
    const expected = splitValues(new Float32Array(from.bytes.buffer));
    expectEqualBits("hi", hi, tensor("uint16", expected.hi));
    expectEqualBits("lo", lo, tensor("int16", expected.lo));
    const { to } = await machine.run("joinWeights", { to: output("float32", count), hi, lo, count });
    expectEqualBits("join of split", to, from);
    expectEqualBits("the reference's join", tensor("float32", joinValues(expected)), from);
    // Byte for byte, too, where there is no NaN.
    const finite = specialValues(false);
    const again = splitValues(new Float32Array(finite.bytes.buffer));
    expect(new Uint8Array(joinValues(again).buffer)).toEqual(finite.bytes);
  });
});

trial("every op that computes has a test here", () => {
  const files = [...new Bun.Glob("*.test.ts").scanSync(import.meta.dir)];
  const text = files.map((file) => readFileSync(`${import.meta.dir}/${file}`, "utf8")).join("\n");
  const missing = Object.keys(ops).filter((op) => !op.startsWith("file") && !text.includes(`"${op}"`));
  expect(missing).toEqual([]);
});
