// Where lines for a person go that may be written over.

/** The part of `process.stdout` that such a line needs; a test hands in its own. */
export interface StatusStream {
  isTTY?: boolean;
  columns?: number;
  write(text: string): unknown;
}
