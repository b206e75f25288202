import { describe, expect, test } from "bun:test";
import { learningRate, scheduleProblems, type Schedule } from "../../src/run/lr.ts";

// A run of 100 steps, peak 1. Columns: first step, second, end of the warm-up, middle, last step, end, one past the end.
const at = [0, 1, 4, 52, 99, 100, 101];
const cosine = (progress: number) => (1 + Math.cos(Math.PI * progress)) / 2;

const table: { name: string; schedule: Schedule; rates: number[] }[] = [
  {
    name: "constant",
    schedule: { type: "constant", warmup: 4, minRatio: 0 },
    rates: [0.2, 0.4, 1, 1, 1, 1, 1],
  },
  {
    name: "constant without warm-up",
    schedule: { type: "constant", warmup: 0, minRatio: 0 },
    rates: [1, 1, 1, 1, 1, 1, 1],
  },
  {
    name: "linear",
    schedule: { type: "linear", warmup: 4, minRatio: 0 },
    rates: [0.2, 0.4, 1, 0.5, 1 / 96, 0, 0],
  },
  {
    name: "linear to a tenth",
    schedule: { type: "linear", warmup: "4%", minRatio: 0.1 },
    rates: [0.2, 0.4, 1, 0.55, 0.1 + 0.9 / 96, 0.1, 0.1],
  },
  {
    name: "cosine",
    schedule: { type: "cosine", warmup: "4%", minRatio: 0 },
    rates: [0.2, 0.4, 1, 0.5, cosine(95 / 96), 0, 0],
  },
  {
    name: "wsd",
    schedule: { type: "wsd", warmup: 4, decay: 10, minRatio: 0 },
    rates: [0.2, 0.4, 1, 1, 0.1, 0, 0],
  },
  {
    name: "wsd with its own decay of 20 %",
    schedule: { type: "wsd", warmup: 0, minRatio: 0.5 },
    rates: [1, 1, 1, 1, 0.5 + 0.5 / 20, 0.5, 0.5],
  },
  {
    name: "warm-up as long as the run",
    schedule: { type: "linear", warmup: 100, minRatio: 0 },
    rates: [1 / 101, 2 / 101, 5 / 101, 53 / 101, 100 / 101, 0, 0],
  },
];

describe("learning rate", () => {
  for (const { name, schedule, rates } of table) {
    test(name, () => {
      for (const [i, step] of at.entries()) expect(learningRate(1, schedule, step, 100)).toBeCloseTo(rates[i]!, 12);
      expect(learningRate(3e-4, schedule, 1, 100)).toBeCloseTo(3e-4 * rates[1]!, 15);
    });
  }

  test("the peak is met exactly at the end of the warm-up", () => {
    for (const type of ["constant", "linear", "cosine", "wsd"] as const)
      expect(learningRate(2e-5, { type, warmup: 7, minRatio: 0 }, 7, 100)).toBe(2e-5);
  });

  test("a run of one step learns", () => {
    for (const type of ["constant", "linear", "cosine", "wsd"] as const)
      expect(learningRate(1, { type, warmup: "3%", minRatio: 0 }, 0, 1)).toBe(1);
  });
});

test("schedules that do not fit the run", () => {
  expect(scheduleProblems({ type: "cosine", warmup: 10, minRatio: 0 }, 10)).toEqual([]);
  expect(scheduleProblems({ type: "cosine", warmup: 11, minRatio: 0 }, 10)).toEqual([
    'schedule.warmup (11) is longer than the run (10 steps); use fewer steps or a share such as "3%"',
  ]);
  expect(scheduleProblems({ type: "wsd", warmup: 4, decay: "70%", minRatio: 0 }, 10)).toEqual([
    "schedule.warmup (4 steps) and schedule.decay (7 steps) together are longer than the run (10 steps); shorten one",
  ]);
});
