// The record of a run in its directory: `metrics.jsonl` has one JSON object per step and per evaluation, `loss.csv` the
// columns that a plot wants. Both are appended while training and continue over a resume: a run that goes on after step
// N drops what an interrupted run wrote past N, half a last line included, so each step stands there exactly once.
//
// `step` counts finished steps, the first being 1. Numbers are written so that they read back to the same bits.

import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileError, temporaryPath } from "../io/atomic.ts";
import type { Stream } from "../native/abi.gen.ts";

/** One step, as metrics.jsonl and `onStep` have it. */
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
  /** The stream that worked most of the step's time, and what share of it: near 1, it is what the step waits for. */
  busiest: Stream;
  busiestShare: number;
  /** Bytes in buffers on the device; a step allocates nothing, so these are the most there were. */
  deviceBytes: number;
  /** Bytes in buffers in pinned and plain host memory. */
  hostBytes: number;
  /** What the operating system counts for the whole process. */
  residentBytes: number;
}

/** One evaluation of held-out data, as metrics.jsonl and `onEvaluate` have it. */
export interface EvaluationMetrics {
  step: number;
  loss: number;
  perplexity: number;
  validTokens: number;
}

const CSV_COLUMNS = ["step", "loss", "learningRate", "gradNorm", "tokensPerSecond"] as const;

export class MetricsLog {
  readonly #jsonl: LineFile;
  readonly #csv: LineFile;
  /** Steps up to the one that is continued of which no line is left: a power cut may have taken them. */
  readonly missing: number;
  /** The step after which the last evaluation was made. */
  #evaluated: number | undefined;

  /** Continue the files after step `afterStep`; 0 starts them anew. */
  constructor(directory: string, afterStep: number) {
    try {
      mkdirSync(directory, { recursive: true });
    } catch (cause) {
      throw fileError(cause, "write", directory);
    }
    let kept = 0;
    const records = /^\{"kind":"(step|evaluation)","step":(\d+).*\}$/;
    this.#jsonl = new LineFile(join(directory, "metrics.jsonl"), "", (line) => {
      const [, kind, step] = records.exec(line) ?? [];
      const keeps = Number(step) <= afterStep && afterStep > 0;
      if (keeps && kind === "evaluation") this.#evaluated = Number(step);
      if (keeps && kind === "step") kept++;
      return keeps;
    });
    this.missing = afterStep - kept;
    const header = `${CSV_COLUMNS.join(",")}\n`;
    this.#csv = new LineFile(join(directory, "loss.csv"), header, (line) => Number.parseInt(line, 10) <= afterStep);
  }

  step(metrics: StepMetrics): void {
    this.#jsonl.append(JSON.stringify({ kind: "step", ...metrics }));
    this.#csv.append(CSV_COLUMNS.map((column) => metrics[column] ?? "").join(","));
  }

  /** A run that was interrupted after the evaluation makes it again when it resumes; it stands there once. */
  evaluation(metrics: EvaluationMetrics): void {
    if (metrics.step === this.#evaluated) return;
    this.#jsonl.append(JSON.stringify({ kind: "evaluation", ...metrics }));
    this.#evaluated = metrics.step;
  }

  /** Everything written so far is on the disk when this returns: before a checkpoint that stands for it is published. */
  flush(): void {
    this.#jsonl.flush();
    this.#csv.flush();
  }

  [Symbol.dispose](): void {
    this.#jsonl.close();
    this.#csv.close();
  }
}

/** A file of lines that grows. SluiceError when the disk is full: a line is written whole or the run ends. */
class LineFile {
  readonly #path: string;
  readonly #descriptor: number;
  /** Whether the directory's entry for it is on the disk. */
  #named = false;

  /** First rewrites the file with its header and the whole lines that pass, in one rename. */
  constructor(path: string, header: string, keep: (line: string) => boolean) {
    this.#path = path;
    const temporary = temporaryPath(path);
    try {
      const lines = existsSync(path) ? readFileSync(path, "utf8").split("\n") : [];
      lines.pop(); // what follows the last newline: nothing, or a line that was cut off
      const kept = lines.filter((line) => `${line}\n` !== header && keep(line)).map((line) => `${line}\n`);
      writeFileSync(temporary, header + kept.join(""), { flush: true });
      renameSync(temporary, path);
      this.#descriptor = openSync(path, "a");
    } catch (cause) {
      rmSync(temporary, { force: true });
      throw fileError(cause, "write", path);
    }
  }

  append(line: string): void {
    try {
      writeFileSync(this.#descriptor, `${line}\n`);
    } catch (cause) {
      throw fileError(cause, "write", this.#path);
    }
  }

  flush(): void {
    try {
      fsyncSync(this.#descriptor);
      if (this.#named) return;
      const directory = openSync(dirname(this.#path), "r"); // the file's own name, once
      fsyncSync(directory);
      closeSync(directory);
      this.#named = true;
    } catch (cause) {
      throw fileError(cause, "write", this.#path);
    }
  }

  close(): void {
    closeSync(this.#descriptor);
  }
}
