// Rule 10 (src/plan/check/rules.ts): the result does not depend on the number of slots, on chunk sizes, or on who finishes
// first. On the null device every buffer holds digests, so what a command read by mistake shows in the parameters at the
// end. The reference plays the same steps with two slots, one command after another.

import { expect, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { Random } from "../../src/words/random.ts";
import { describeCase, randomCase, type PlanCase } from "./cases.ts";
import { playCase } from "./null-device.ts";

/** The names of the blocks whose parameters ended differently. */
async function differences(
  chosen: PlanCase,
  expected: Map<string, string>,
  options: Parameters<typeof playCase>[1],
): Promise<string[]> {
  const found = await playCase(chosen, options);
  expect(found.size).toBe(expected.size);
  return [...expected].filter(([name, digest]) => found.get(name) !== digest).map(([name]) => name);
}

/** A block that kept a sum norms it with another op than one that computes it again: other digests, the same numbers. */
const keepsProducts = ({ keepLevels }: PlanCase): boolean => keepLevels.includes("products");

/** The same steps, placed and cut differently. */
function otherwise(chosen: PlanCase, seed: number): PlanCase {
  const random = new Random(seed, 3);
  const { layers } = chosen;
  return {
    ...chosen,
    slots: 2 + random.below(Math.max(1, layers - 1)),
    ring: chosen.clips === "exact" ? layers : 1 + random.below(layers),
    boundary: random.below(2) === 0 ? "device" : "pinned",
    ...(keepsProducts(chosen) ? {} : { keepBlocks: random.below(layers + 1) }),
    residentBlocks: random.below(layers + 1),
    chunkParameters: [1024, 4096, 1 << 20][random.below(3)]!,
  };
}

const first = Number(process.env["SLUICE_SEED"] ?? 1);
const cases = process.env["SLUICE_SEED"] === undefined ? 30 : 1;

test(
  `${cases} random cases from seed ${first} end with the same digests however they are placed and timed`,
  async () => {
    for (let seed = first; seed < first + cases; seed++) {
      const chosen = randomCase(seed);
      const keepBlocks = keepsProducts(chosen) ? chosen.keepBlocks : 0;
      const plain = { ...chosen, slots: 2, keepBlocks, residentBlocks: 0, boundary: "device" as const };
      const expected = await playCase(plain, { sequential: true });
      for (const [index, jitterUs] of [0, 60, 200].entries()) {
        const other = otherwise(chosen, seed * 8 + index);
        const different = await differences(other, expected, {
          jitterUs,
          seed: seed + index,
          workers: 1 + (index % 2),
        });
        if (different.length > 0)
          throw new Error(
            `${describeCase(other)}\njitter ${jitterUs} µs, seed ${seed + index}: ${different.join(", ")} differ`,
          );
      }
    }
  },
  patiently(120_000),
);

test("another batch, another option that matters, or one more step ends with other digests", async () => {
  const chosen: PlanCase = { ...randomCase(1), evaluations: 0, clips: false, ring: 1 };
  const expected = await playCase(chosen);
  for (const other of [
    { ...chosen, seed: 2 },
    { ...chosen, clips: "exact" as const, ring: chosen.layers },
    { ...chosen, steps: 2 },
  ])
    expect(await differences(other, expected, {})).not.toBeEmpty();
});

test("evaluation between the steps changes nothing", async () => {
  const chosen: PlanCase = { ...randomCase(5), microBatches: 1, evaluations: 0 };
  const expected = await playCase(chosen, { sequential: true });
  expect(await differences({ ...chosen, evaluations: 2 }, expected, { jitterUs: 100, seed: 3 })).toEqual([]);
});
