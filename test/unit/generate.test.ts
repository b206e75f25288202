// How the next token is chosen from logits: greedy, or from the nucleus, with the shares that the logits say.

import { describe, expect, test } from "bun:test";
import { choose } from "../../src/engine/generate.ts";
import { Random } from "../../src/words/random.ts";

/** Logits whose probabilities are these. */
const logitsOf = (...shares: number[]): Float32Array => Float32Array.from(shares, Math.log);

/** How often each token is drawn. */
function counts(logits: Float32Array, options: { temperature: number; topP?: number }, draws = 10_000): number[] {
  const random = new Random(3);
  const found = Array.from(logits, () => 0);
  for (let draw = 0; draw < draws; draw++) found[choose(logits, options, random)]!++;
  return found;
}

describe("greedy", () => {
  test("takes the largest logit, the first of equals, and draws nothing", () => {
    const random = new Random(1);
    const untouched = new Random(1);
    expect(choose(Float32Array.of(-3, 2, 5, 5, -Infinity), {}, random)).toBe(2);
    expect(choose(Float32Array.of(-3, -2), { temperature: 0, topP: 1 }, random)).toBe(1);
    expect(random.next()).toBe(untouched.next());
  });
});

describe("sampling", () => {
  test("follows the probabilities, within four deviations", () => {
    const shares = [0.5, 0.3, 0.15, 0.05];
    for (const [token, count] of counts(logitsOf(...shares), { temperature: 1 }).entries()) {
      const share = shares[token]!;
      expect(Math.abs(count - 10_000 * share)).toBeLessThan(4 * Math.sqrt(10_000 * share * (1 - share)));
    }
  });

  test("a temperature divides the logits: 0.5 squares the odds, a tiny one is greedy, a huge one uniform", () => {
    const [first, second] = counts(logitsOf(0.75, 0.25), { temperature: 0.5 }) as [number, number];
    expect(Math.abs(first / (first + second) - 0.9)).toBeLessThan(0.015);
    expect(counts(logitsOf(0.5, 0.3, 0.2), { temperature: 1e-9 }, 100)).toEqual([100, 0, 0]);
    for (const count of counts(logitsOf(0.97, 0.01, 0.02), { temperature: 1e9 }, 3000))
      expect(Math.abs(count - 1000)).toBeLessThan(120);
  });

  test("-Infinity is never drawn, large logits do not overflow", () => {
    expect(counts(Float32Array.of(-Infinity, 3e38, -Infinity), { temperature: 1 }, 100)).toEqual([0, 100, 0]);
  });

  test("the same seed draws the same tokens", () => {
    const draw = (seed: number): number[] => {
      const random = new Random(seed);
      return Array.from({ length: 50 }, () => choose(logitsOf(0.25, 0.25, 0.25, 0.25), { temperature: 1 }, random));
    };
    expect(draw(4)).toEqual(draw(4));
    expect(draw(4)).not.toEqual(draw(5));
  });
});

describe("nucleus", () => {
  const drawn = (topP: number): number[] =>
    counts(logitsOf(0.15, 0.5, 0.05, 0.3), { temperature: 1, topP }, 2000).flatMap((count, token) =>
      count > 0 ? [token] : [],
    );

  test("is the smallest set of likeliest tokens with that much probability", () => {
    expect(drawn(1e-9)).toEqual([1]);
    expect(drawn(0.49)).toEqual([1]);
    expect(drawn(0.51)).toEqual([1, 3]);
    expect(drawn(0.79)).toEqual([1, 3]);
    expect(drawn(0.81)).toEqual([0, 1, 3]);
    expect(drawn(0.96)).toEqual([0, 1, 2, 3]);
    expect(drawn(1)).toEqual([0, 1, 2, 3]);
  });

  test("keeps the odds inside", () => {
    const [, first, , second] = counts(logitsOf(0.15, 0.5, 0.05, 0.3), { temperature: 1, topP: 0.8 }) as number[];
    expect(Math.abs(first! / (first! + second!) - 5 / 8)).toBeLessThan(0.02);
  });

  test("of equals the first are kept", () => {
    expect(counts(Float32Array.of(1, 1, 1, 1), { temperature: 1, topP: 0.5 }, 100).slice(2)).toEqual([0, 0]);
  });
});
