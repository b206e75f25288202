import { describe, expect, test } from "bun:test";
import { pack, packingWaste } from "../../src/data/pack.ts";
import { Random } from "../../src/words/random.ts";

const numbers = (count: number) => Array.from({ length: count }, (_, i) => i);

describe("best fit, longest first", () => {
  test("a document goes into the fullest row with room", () => {
    // 6 and 5 open rows of 8; 3 fills the second exactly, 2 the first.
    expect(pack([5, 2, 6, 3], numbers(4), 8)).toEqual([
      [2, 1],
      [0, 3],
    ]);
  });

  test("documents of equal length come in the given order", () => {
    expect(pack([4, 4, 4], [2, 0, 1], 8)).toEqual([[2, 0], [1]]);
  });

  test("a document may fill a row, and may not exceed it", () => {
    expect(pack([8, 1], numbers(2), 8)).toEqual([[0], [1]]);
    expect(() => pack([9], [0], 8)).toThrow("document 0 has 9 tokens, a row holds 1 to 8");
    expect(() => pack([0], [0], 8)).toThrow("document 0 has 0 tokens, a row holds 1 to 8");
  });

  test("waste", () => {
    expect(packingWaste(12, 2, 8)).toBe(0.25);
    expect(packingWaste(0, 0, 8)).toBe(0);
  });
});

// Logarithms of lengths are about normal: chats, short answers with some essays, articles that are cut at a row.
for (const [what, median, spread] of [
  ["chats", 300, 1],
  ["short answers", 60, 1.5],
  ["articles", 1200, 0.8],
] as const)
  for (const capacity of [2048, 4096, 8192])
    test(`under 1 % of the room is wasted: ${what} in rows of ${capacity}`, () => {
      const random = new Random(capacity, median);
      const lengths = Array.from({ length: 8000 }, () => {
        const normal = Array.from({ length: 12 }, () => random.uniform()).reduce((sum, value) => sum + value, -6);
        return Math.min(capacity, 1 + Math.floor(median * Math.exp(spread * normal)));
      });
      const rows = pack(lengths, random.shuffle(numbers(lengths.length)), capacity);
      const tokens = lengths.reduce((sum, length) => sum + length, 0);
      expect(packingWaste(tokens, rows.length, capacity)).toBeLessThan(0.01);
    });

for (let seed = 1; seed <= 40; seed++) {
  test(`any documents, seed ${seed}`, () => {
    const random = new Random(seed);
    const capacity = 2 + random.below(seed % 2 ? 100 : 3000);
    const lengths = Array.from({ length: random.below(600) }, () => 1 + random.below(random.below(capacity) + 1));
    const rows = pack(lengths, random.shuffle(numbers(lengths.length)), capacity);
    // Each document is in one row, whole.
    expect(rows.flat().toSorted((a, b) => a - b)).toEqual(numbers(lengths.length));
    const used = rows.map((row) => row.reduce((sum, document) => sum + lengths[document]!, 0));
    for (const tokens of used) expect(tokens).toBeLessThanOrEqual(capacity);
    // Two half-empty rows would have been one: with best fit at most one row is half full or less.
    expect(used.filter((tokens) => tokens <= capacity / 2).length).toBeLessThanOrEqual(1);
    // The number of rows depends on the lengths alone.
    expect(pack(lengths, random.shuffle(numbers(lengths.length)), capacity)).toHaveLength(rows.length);
  });
}
