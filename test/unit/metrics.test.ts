import { expect, test } from "bun:test";
import { appendFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { MetricsLog, type StepMetrics } from "../../src/keep/metrics.ts";
import { testDirectory } from "../support/models.ts";

const metrics = (step: number): StepMetrics => ({
  step,
  loss: 1 / (step + 2),
  learningRate: 1e-5,
  gradNorm: step === 2 ? null : 0.1 + 0.2,
  tokens: 100,
  validTokens: 60,
  epoch: step / 10,
  seconds: 0.5,
  tokensPerSecond: 200,
  tflops: 0.1,
  busiest: "compute",
  busiestShare: 0.9,
  deviceBytes: 1000,
  hostBytes: 2000,
  residentBytes: 5000,
});

function files(directory: string) {
  const jsonl = readFileSync(join(directory, "metrics.jsonl"), "utf8");
  const csv = readFileSync(join(directory, "loss.csv"), "utf8");
  expect(jsonl === "" || jsonl.endsWith("\n")).toBe(true);
  return {
    records: jsonl
      .split("\n")
      .slice(0, -1)
      .map((line) => JSON.parse(line)),
    csv,
  };
}

function run(directory: string, from: number, to: number): void {
  using log = new MetricsLog(directory, from);
  for (let step = from + 1; step <= to; step++) log.step(metrics(step));
}

test("both files, with numbers that read back to the same bits", () => {
  const directory = join(testDirectory(), "new", "run");
  run(directory, 0, 2);
  const { records, csv } = files(directory);
  expect(records).toEqual([
    { kind: "step", ...metrics(1) },
    { kind: "step", ...metrics(2) },
  ]);
  expect(csv).toBe(
    "step,loss,learningRate,gradNorm,tokensPerSecond\n1,0.3333333333333333,0.00001,0.30000000000000004,200\n2,0.25,0.00001,,200\n",
  );
});

test("a resumed run drops what was written past its step", () => {
  const directory = testDirectory();
  run(directory, 0, 4);
  {
    using log = new MetricsLog(directory, 4);
    log.evaluation({ step: 4, loss: 1, perplexity: 2, validTokens: 3 });
  }
  run(directory, 4, 12);
  // The interrupted run was killed in the middle of a line.
  appendFileSync(join(directory, "metrics.jsonl"), '{"kind":"step","step":13,"lo');
  appendFileSync(join(directory, "loss.csv"), "13,0.0");
  run(directory, 10, 11);
  const { records, csv } = files(directory);
  expect(records.map(({ kind, step }) => `${kind} ${step}`).join(", ")).toBe(
    "step 1, step 2, step 3, step 4, evaluation 4, step 5, step 6, step 7, step 8, step 9, step 10, step 11",
  );
  expect(csv.split("\n").map((line) => line.split(",")[0])).toEqual("step,1,2,3,4,5,6,7,8,9,10,11,".split(","));
});

test("half a line is dropped even if its step is kept", () => {
  const directory = testDirectory();
  run(directory, 0, 2);
  appendFileSync(join(directory, "loss.csv"), "3,0.2");
  run(directory, 3, 4);
  expect(
    files(directory)
      .csv.split("\n")
      .map((line) => line.split(",")[0]),
  ).toEqual("step,1,2,4,".split(","));
});

test("a new run starts anew", () => {
  const directory = testDirectory();
  {
    using log = new MetricsLog(directory, 0);
    log.evaluation({ step: 0, loss: 1, perplexity: 2, validTokens: 3 });
  }
  run(directory, 0, 1);
  expect(files(directory).records).toHaveLength(1);
  expect(files(directory).csv.split("\n")).toHaveLength(3);
});
