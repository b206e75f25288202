// The record of a run in its directory: `metrics.jsonl` has one JSON object per step and per evaluation, `loss.csv` the
// columns that a plot wants. Both are appended while training and continue over a resume: a run that goes on after step
// N drops what an interrupted run wrote past N, half a last line included, so each step stands there exactly once.
//
// `step` counts finished steps, the first being 1. Numbers are written so that they read back to the same bits.

import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";

export interface StepMetrics {
  step: number;
  /** Mean over the step's valid tokens. */
  loss: number;
  learningRate: number;
  /** Global norm before clipping; null when it was not computed. */
  gradNorm: number | null;
  tokens: number;
  validTokens: number;
  /** Times through the data so far. */
  epoch: number;
  /** Wall-clock time of this step. */
  seconds: number;
  tokensPerSecond: number;
  tflops: number;
  /** Bytes in buffers on the device; a step allocates nothing, so these are the most there were. */
  deviceBytes: number;
  /** Bytes in buffers in pinned and plain host memory. */
  hostBytes: number;
  /** What the operating system counts for the whole process. */
  residentBytes: number;
}

export interface EvaluationMetrics {
  step: number;
  loss: number;
  perplexity: number;
  validTokens: number;
}

const CSV_COLUMNS = ["step", "loss", "learningRate", "gradNorm", "tokensPerSecond"] as const;

export class MetricsLog {
  readonly #jsonl: number;
  readonly #csv: number;

  /** Continue the files after step `afterStep`; 0 starts them anew. */
  constructor(directory: string, afterStep: number) {
    mkdirSync(directory, { recursive: true });
    const jsonl = join(directory, "metrics.jsonl");
    const csv = join(directory, "loss.csv");
    keepLines(jsonl, "", (line) => Number(/^\{.*"step":(\d+).*\}$/.exec(line)?.[1]) <= afterStep && afterStep > 0);
    keepLines(csv, `${CSV_COLUMNS.join(",")}\n`, (line) => Number.parseInt(line, 10) <= afterStep);
    this.#jsonl = openSync(jsonl, "a");
    this.#csv = openSync(csv, "a");
  }

  step(metrics: StepMetrics): void {
    writeSync(this.#jsonl, `${JSON.stringify({ kind: "step", ...metrics })}\n`);
    writeSync(this.#csv, `${CSV_COLUMNS.map((column) => metrics[column] ?? "").join(",")}\n`);
  }

  evaluation(metrics: EvaluationMetrics): void {
    writeSync(this.#jsonl, `${JSON.stringify({ kind: "evaluation", ...metrics })}\n`);
  }

  [Symbol.dispose](): void {
    closeSync(this.#jsonl);
    closeSync(this.#csv);
  }
}

/** Rewrite a file with its header and the whole lines that pass, in one rename. */
function keepLines(path: string, header: string, keep: (line: string) => boolean): void {
  const lines = existsSync(path) ? readFileSync(path, "utf8").split("\n") : [];
  lines.pop(); // what follows the last newline: nothing, or a line that was cut off
  const kept = lines.filter((line) => `${line}\n` !== header && keep(line)).map((line) => `${line}\n`);
  writeFileSync(`${path}.tmp`, header + kept.join(""));
  renameSync(`${path}.tmp`, path);
}
