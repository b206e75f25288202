// Malformed lines: how many there are, which came first, and when they are too many. `maxBadLines` is a count, or a share
// of all lines such as "1%"; the default of 0 stops at the first. What is left out is always counted and shown.

import { DataError } from "../../words/errors.ts";

/** A count, or a share such as "1%". */
export type BadLinesMax = number | string;

/** How many messages are kept to be shown. */
const SHOWN_MAX = 5;

export class BadLines {
  count: number;
  /** The first messages, each beginning with `file:line:`. */
  readonly first: string[];
  readonly #max: BadLinesMax;

  /** `before`: what an earlier run has found in lines that are not read again. */
  constructor(max: BadLinesMax, before: Pick<BadLines, "count" | "first"> = { count: 0, first: [] }) {
    this.#max = max;
    this.count = before.count;
    this.first = [...before.first];
  }

  /** Whether the next message will be kept or thrown. */
  get isShown(): boolean {
    return this.first.length < SHOWN_MAX;
  }

  /** Counts a line that cannot be used; throws what is wrong with it, or that there are too many, once a count is passed. */
  note(message: string): void {
    this.count++;
    if (this.first.length < SHOWN_MAX) this.first.push(message);
    if (this.#max === 0) throw new DataError(message);
    if (typeof this.#max === "number" && this.count > this.#max) throw this.#tooMany(`${this.count} bad lines`);
  }

  /** Call it when all lines are read: only then is a share known. */
  finish(goodLines: number): void {
    if (typeof this.#max === "number") return;
    const share = (100 * this.count) / Math.max(1, goodLines + this.count);
    if (share <= Number.parseFloat(this.#max)) return;
    throw this.#tooMany(`${this.count} of ${goodLines + this.count} lines are bad (${share.toFixed(2)}%)`);
  }

  /** The first messages, a line each, and how many there are besides. */
  show(): string {
    const more = this.count - this.first.length;
    return [...this.first, ...(more > 0 ? [`... and ${more} more`] : [])].map((line) => `  ${line}`).join("\n");
  }

  #tooMany(found: string): DataError {
    return new DataError(
      `${found}, maxBadLines is ${JSON.stringify(this.#max)}; correct them or raise maxBadLines. The first:\n${this.show()}`,
    );
  }
}
