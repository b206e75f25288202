// What a person sees while training: one live line on a terminal, a plain line every so often in a pipe or a log file.
// Colour follows NO_COLOR and is never written into a pipe. Messages in between (`print`) go above the live line.

import type { StatusStream } from "../words/status-stream.ts";
import { formatBytes, formatCount, formatDuration } from "../words/format.ts";
import type { StepMetrics } from "../keep/metrics.ts";

export interface StatusOptions {
  /** Length of the whole run, in steps. */
  steps: number;
  /** Steps between lines when the output is not a terminal. */
  every: number;
  /** What full rows should reach here; the line says how much of it there is, or nothing when nobody knows. */
  predictedTokensPerSecond?: number | null;
  stream?: StatusStream;
}

const CLEAR_LINE = "\r\x1b[2K";

export class StatusLine {
  readonly #options: StatusOptions;
  readonly #stream: StatusStream;
  #live = "";
  #secondsPerStep: number | undefined;
  #printed = false;

  constructor(options: StatusOptions) {
    this.#options = options;
    this.#stream = options.stream ?? process.stdout;
  }

  /** Show a finished step. */
  step(metrics: StepMetrics): void {
    const { steps, every, predictedTokensPerSecond } = this.#options;
    // A running mean over about ten steps: steady, yet it follows a machine that slows down.
    this.#secondsPerStep = (this.#secondsPerStep ?? metrics.seconds) * 0.9 + metrics.seconds * 0.1;
    const secondsLeft = (steps - metrics.step) * this.#secondsPerStep;
    const text = statusText(metrics, steps, secondsLeft, predictedTokensPerSecond);
    if (this.#stream.isTTY) {
      this.#live = dimLabels(Bun.sliceAnsi(text, 0, (this.#stream.columns ?? 80) - 1));
      this.#stream.write(CLEAR_LINE + this.#live);
    } else if (!this.#printed || metrics.step % every === 0 || metrics.step === steps) {
      this.#printed = true;
      this.#stream.write(`${text}\n`);
    }
  }

  /** Write a line that stays, above the live one. */
  print(text: string): void {
    this.#stream.write(this.#live ? `${CLEAR_LINE}${text}\n${this.#live}` : `${text}\n`);
  }

  /** Leave the last live line standing. */
  end(): void {
    if (this.#live) this.#stream.write("\n");
    this.#live = "";
  }
}

/** The line of one step, without colour. */
export function statusText(
  metrics: StepMetrics,
  steps: number,
  secondsLeft: number,
  predicted?: number | null,
): string {
  const width = String(steps).length;
  return [
    `step ${String(metrics.step).padStart(width)}/${steps}`,
    `loss ${metrics.loss.toFixed(4)}`,
    `lr ${metrics.learningRate.toExponential(2)}`,
    metrics.gradNorm === null ? "" : `norm ${metrics.gradNorm.toPrecision(3)}`,
    `${formatCount(metrics.tokensPerSecond)} tok/s${predicted ? ` (${share(metrics.tokensPerSecond / predicted)} of predicted)` : ""}`,
    `${metrics.tflops.toPrecision(3)} TFLOP/s`,
    `${metrics.busiest} ${share(metrics.busiestShare)} busy`,
    `device ${formatBytes(metrics.deviceBytes)}`,
    metrics.step < steps ? `left ${formatDuration(secondsLeft)}` : "done",
  ]
    .filter(Boolean)
    .join("  ");
}

function share(of: number): string {
  return `${Math.round(100 * of)} %`;
}

/** Words stand back behind their numbers. */
function dimLabels(text: string): string {
  if (process.env["NO_COLOR"]) return text;
  return text.replace(/\b(step|loss|lr|norm|tok\/s|TFLOP\/s|busy|predicted|device|left)\b/g, "\x1b[2m$1\x1b[22m");
}
