// Declarations of buffers and what their owners get back; buffers that take turns.

import { expect, test } from "bun:test";
import { Buffers, line, linesOf, type BillLine, type Kind } from "../../src/plan/buffers.ts";
import { Range, tracked } from "../../src/plan/plan.ts";
import { Pool } from "../../src/plan/pool.ts";
import { memoryBill } from "../../src/step/bill.ts";
import { randomCase, shapeOf } from "../plan/cases.ts";

const kind: Kind = { role: "scratch", tier: "host", purpose: "test" };
const make = (bill: readonly BillLine[]) => {
  let handle = 0;
  return Buffers.make(bill, ({ name, tier, bytes }) => ({ handle: ++handle, name, tier, bytes }));
};

test("an owner gets its declaration back with ranges for lines", () => {
  const declared = {
    one: line(kind, "one", 64),
    several: [line(kind, "a", 128), line(kind, "b", 192)],
    absent: undefined as BillLine | undefined,
    inner: [{ deep: line(kind, "deep", 256) }],
  };
  const bill = linesOf(declared);
  expect(bill.map(({ name }) => name)).toEqual(["one", "a", "b", "deep"]);
  const held = make(bill).held(declared);
  expect(held.one).toBeInstanceOf(Range);
  expect(held.several.map(String)).toEqual(["a[0..128]", "b[0..192]"]);
  expect(held.absent).toBeUndefined();
  expect(String(held.inner[0]!.deep)).toBe("deep[0..256]");
});

test("a line that is declared and not billed fails loudly", () => {
  const buffers = make([line(kind, "one", 64)]);
  expect(() => buffers.held({ other: line(kind, "other", 64) })).toThrow(
    'internal error: buffer "other" is not on the memory bill',
  );
});

test("every buffer of a run has a name of its own, and no buffer is empty", () => {
  for (let seed = 1; seed <= 64; seed++) {
    const bill = memoryBill(shapeOf(randomCase(seed)));
    expect(new Set(bill.map(({ name }) => name)).size).toBe(bill.length);
    expect(bill.filter(({ bytes }) => bytes <= 0)).toEqual([]);
  }
});

test("what has been idle longest is taken first, or what is asked for", () => {
  const buffers = make([0, 1, 2].map((index) => line(kind, `${index}`, 64)));
  const pool = new Pool([0, 1, 2].map((index) => tracked(buffers.range(`${index}`))));
  const nameOf = (taken: { range: Range } | undefined) => taken?.range.buffer.name;
  const first = pool.take()!;
  expect([nameOf(first), nameOf(pool.next()), nameOf(pool.next())]).toEqual(["0", "1", "2"]);
  expect(pool.take(first)).toBeUndefined();
  pool.give(first);
  expect(pool.take(first)).toBe(first);
  expect([nameOf(pool.take()), nameOf(pool.take()), nameOf(pool.take())]).toEqual(["1", "2", undefined]);
  expect(pool.taken.map(nameOf)).toEqual(["0", "1", "2"]);
});
