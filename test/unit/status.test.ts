import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { StepMetrics } from "../../src/keep/metrics.ts";
import { StatusLine, statusText } from "../../src/run/status.ts";

const metrics = (step: number): StepMetrics => ({
  step,
  loss: 2.34567,
  learningRate: 1.9e-5,
  gradNorm: 0.8712,
  tokens: 1000,
  validTokens: 600,
  epoch: 0.1,
  seconds: 2,
  tokensPerSecond: 12_345,
  tflops: 0.4567,
  busiest: "host",
  busiestShare: 0.914,
  deviceBytes: 1.25 * 2 ** 30,
  hostBytes: 0,
  residentBytes: 0,
});

class Screen {
  text = "";
  isTTY: boolean;
  columns: number;
  constructor(isTTY: boolean, columns = 200) {
    this.isTTY = isTTY;
    this.columns = columns;
  }
  write(text: string): void {
    this.text += text;
  }
}

const noColor = process.env["NO_COLOR"];
beforeEach(() => void delete process.env["NO_COLOR"]);
afterEach(() => {
  if (noColor !== undefined) process.env["NO_COLOR"] = noColor;
  else delete process.env["NO_COLOR"];
});

test("the line of a step", () => {
  expect(statusText(metrics(7), 1000, 185)).toBe(
    "step    7/1000  loss 2.3457  lr 1.90e-5  norm 0.871  12.3k tok/s  0.457 TFLOP/s  host 91 % busy  device 1.3 GiB  left 3m 05s",
  );
  expect(statusText(metrics(7), 1000, 185, 20_000)).toContain("  12.3k tok/s (62 % of predicted)  0.457 TFLOP/s");
  expect(statusText({ ...metrics(10), gradNorm: null }, 10, 0)).toBe(
    "step 10/10  loss 2.3457  lr 1.90e-5  12.3k tok/s  0.457 TFLOP/s  host 91 % busy  device 1.3 GiB  done",
  );
});

describe("in a pipe", () => {
  test("plain lines: the first step, every few steps, the last", () => {
    const screen = new Screen(false);
    const status = new StatusLine({ steps: 25, every: 10, stream: screen });
    for (let step = 1; step <= 25; step++) status.step(metrics(step));
    status.print("saved");
    status.end();
    expect(screen.text).not.toContain("\x1b");
    expect(screen.text).not.toContain("\r");
    expect(screen.text.split("\n").map((line) => line.slice(0, 10))).toEqual([
      "step  1/25",
      "step 10/25",
      "step 20/25",
      "step 25/25",
      "saved",
      "",
    ]);
  });

  test("time left follows the pace", () => {
    const screen = new Screen(false);
    new StatusLine({ steps: 31, every: 1, stream: screen }).step(metrics(1));
    expect(screen.text).toContain("left 1m 00s");
  });
});

describe("on a terminal", () => {
  test("one live line, messages above it", () => {
    const screen = new Screen(true);
    const status = new StatusLine({ steps: 3, every: 10, stream: screen });
    status.step(metrics(1));
    status.step(metrics(2));
    status.print("saved");
    status.end();
    status.end();
    const lines = Bun.stripANSI(screen.text).split(/\r|\n/);
    expect(lines.map((line) => line.slice(0, 8))).toEqual(["", "step 1/3", "step 2/3", "saved", "step 2/3", ""]);
    expect(screen.text).toContain("\x1b[2m");
  });

  test("never wider than the terminal", () => {
    const screen = new Screen(true, 40);
    new StatusLine({ steps: 3, every: 10, stream: screen }).step(metrics(1));
    expect(Bun.stringWidth(screen.text.split("\r")[1]!)).toBe(39);
  });

  test("NO_COLOR", () => {
    process.env["NO_COLOR"] = "1";
    const screen = new Screen(true);
    new StatusLine({ steps: 3, every: 10, stream: screen }).step(metrics(1));
    expect(screen.text).not.toContain("\x1b[2m");
  });
});
