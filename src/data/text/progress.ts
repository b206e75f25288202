// The line that a person watches while data is tokenized: how far, how fast, how long still.

import { formatCount, formatDuration } from "../../words/format.ts";
import type { StatusStream } from "../../words/status-stream.ts";

/** The live line of a terminal. */
export class Progress {
  readonly #output: StatusStream;
  readonly #start = performance.now();
  #shown = 0;

  constructor(output: StatusStream) {
    this.#output = output;
  }

  show(tokens: number, share: number): void {
    const now = performance.now();
    // What takes less than a second needs no line, and ten lines a second are enough for the eye.
    if (!this.#output.isTTY || now - this.#start < 1000 || now - this.#shown < 100) return;
    this.#shown = now;
    const seconds = (now - this.#start) / 1000;
    const done = Math.min(1, share);
    const bar = "█".repeat(Math.round(done * 20)).padEnd(20, "░");
    const left = done > 0.01 ? `, ${formatDuration((seconds / done) * (1 - done))} left` : "";
    const part = done > 0 ? `${bar} ${(100 * done).toFixed(0)} %, ` : "";
    this.#output.write(
      `\r\x1b[2Ktokenizing ${part}${formatCount(tokens)} tokens, ${formatCount(tokens / seconds)}/s${left}`,
    );
  }

  end(): void {
    if (this.#shown > 0) this.#output.write("\r\x1b[2K");
  }
}
