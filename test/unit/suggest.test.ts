import { expect, test } from "bun:test";
import { closest } from "../../src/words/suggest.ts";

test("a typo finds its word, anything else nothing", () => {
  const words = ["learningRate", "weightDecay", "seed", "steps"];
  expect(closest("learningRte", words)).toBe("learningRate"); // a letter left out
  expect(closest("learinngRate", words)).toBe("learningRate"); // two swapped
  expect(closest("weightdecays", words)).toBe("weightDecay"); // case does not count, one too many
  expect(closest("step", words)).toBe("steps");
  expect(closest("sed", words)).toBe("seed");
  expect(closest("sand", words)).toBeUndefined(); // short words allow one change only
  expect(closest("momentum", words)).toBeUndefined();
});

test("the nearest of several wins", () => {
  expect(closest("rope_typ", ["rope_theta", "rope_type", "rope_tape"])).toBe("rope_type");
});
