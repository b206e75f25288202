// Run directories written by hand, for what reads them: report, comparison, dashboard.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { makeQuickstart } from "../../scripts/quickstart.ts";
import { MetricsLog, type StepMetrics } from "../../src/keep/metrics.ts";
import type { RunFacts } from "../../src/keep/run-folder.ts";

export function stepMetrics(step: number, changes: Partial<StepMetrics> = {}): StepMetrics {
  return {
    step,
    loss: 4 / Math.sqrt(step),
    learningRate: 1e-3,
    gradNorm: 1 / step,
    tokens: 256,
    validTokens: 100,
    epoch: 1,
    seconds: 0.5,
    tokensPerSecond: 512,
    tflops: 0.1,
    busiest: "compute",
    busiestShare: 0.9,
    deviceBytes: 2 ** 20,
    hostBytes: 2 ** 21,
    residentBytes: 2 ** 22,
    ...changes,
  };
}

export const facts: RunFacts = {
  started: "2026-01-02T03:04:05.678Z",
  seconds: 12,
  steps: 20,
  predictedTokensPerSecond: 1024,
  model: { type: "qwen3", parameters: 1000, weightBytes: 4000 },
  data: { samples: 7, tokens: 1234, validTokens: 567, truncated: 3, dropped: 2 },
  bill: [
    { tier: "pinned", purpose: "weights: hi (bf16)", bytes: 2000 },
    { tier: "device", purpose: "workspace", bytes: 512 },
  ],
  environment: { Bun: "1.4.5", CPU: "2 × Some CPU" },
  answers: [],
};

/** A run of `steps` steps with an evaluation before the first and after the last. */
export function writeRun(
  directory: string,
  steps: number,
  changes: { config?: object; facts?: Partial<RunFacts> } = {},
) {
  mkdirSync(directory, { recursive: true });
  const config = { model: "models/tiny", optimizer: { learningRate: 1e-3 }, ...changes.config };
  writeFileSync(join(directory, "config.json"), JSON.stringify(config));
  writeFileSync(join(directory, "run.json"), JSON.stringify({ ...facts, ...changes.facts }));
  using log = new MetricsLog(directory, 0);
  log.evaluation({ step: 0, loss: 5, perplexity: Math.exp(5), validTokens: 50 });
  for (let step = 1; step <= steps; step++) log.step(stepMetrics(step));
  log.evaluation({ step: steps, loss: 2, perplexity: Math.exp(2), validTokens: 50 });
}

/** The data that a page hands to its scripts. */
export function pageData(page: string): {
  plots: { title: string; curves: { column: string }[] }[];
  table: Record<string, (number | null)[]>;
} {
  const found = /<script type="application\/json" id="data">([^]*?)<\/script>/.exec(page);
  return JSON.parse(found![1]!);
}

/** A few questions of the quick start with its model: enough to train on for a second. */
export async function tinyRecipe(directory: string) {
  const made = await makeQuickstart(join(directory, "made"), { seed: 1 });
  const head = (path: string): string => {
    writeFileSync(path, `${readFileSync(path, "utf8").split("\n").slice(0, 16).join("\n")}\n`);
    return path;
  };
  const sizes = { sequenceLength: 64, batchSize: 1, workers: 2 };
  return { model: made.model, data: head(made.train), evaluationData: head(made.heldout), ...sizes };
}

/** A run in its own process: `console` and Ctrl-C belong to it. */
export function trainApart(config: object) {
  const script = `import { train } from "./src/run/train.ts"; await train(${JSON.stringify(config)});`;
  const cwd = join(import.meta.dir, "../..");
  return Bun.spawn([process.execPath, "-e", script], {
    env: process.env,
    cwd,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
}
