// The state table: what its readers count on.

import { expect, test } from "bun:test";
import { byPart, bytesEach, partBytes, partsOf, stateBytes, stateFormats, stateName } from "../../src/state/format.ts";

test("fp32 takes 12 bytes per parameter, 4 of them when nothing is trained", () => {
  expect(stateBytes("fp32")).toBe(12);
  const masters = partsOf("fp32", { training: false });
  expect(masters.map(({ name }) => name)).toEqual(["hi", "lo"]);
  expect(masters.reduce((sum, part) => sum + bytesEach(part), 0)).toBe(4);
});

test("what the device computes with is pinned, in every format", () => {
  for (const format of stateFormats)
    for (const { name, tier } of partsOf(format, { training: true }))
      expect([name, tier]).toEqual([name, name === "hi" ? "pinned" : "host"]);
});

test("parameters that share an element: a scale of 8-bit values", () => {
  const scale = { dtype: "BF16", per: 128 } as const;
  expect(bytesEach(scale)).toBe(2 / 128);
  expect([0, 128, 129, 4096].map((parameters) => partBytes(scale, parameters))).toEqual([0, 2, 4, 64]);
});

test("arguments of an op are called as the parts are", () => {
  const parts = partsOf("fp32", { training: true });
  const named = byPart(parts, (part) => stateName({ name: "layer 3" }, part));
  expect(named).toEqual({ hi: "layer 3.hi", lo: "layer 3.lo", m: "layer 3.m", v: "layer 3.v" });
});
