// The unit of tokenizing: some lines of a file, or some samples, become arrays. A worker and the main thread do the same
// work here, so how many workers there are can change the time only, never the outcome.

import { DataError } from "../errors.ts";
import type { Encoder } from "./encode.ts";
import { isBlank, lineRecord } from "./files.ts";
import { toSample, type Sample } from "./shapes.ts";

/** A sample, or what is wrong with the record that should have been one. */
export type Item = Sample | { problem: string };

/** Whole lines of a JSONL file, which a worker parses as well, or items that were read already. */
export type Task = { lines: Uint8Array; path: string; firstLine: number } | { items: Item[] };

export interface Counts {
  samples: number;
  documents: number;
  validTokens: number;
  /** Conversations and completions that were longer than a row and lost their end. */
  truncated: number;
  /** Documents in which no token counts. */
  dropped: number;
}

/** What became of a task: its documents end to end, and in `problems` its malformed lines, in order. */
export interface Batch {
  tokens: Int32Array;
  targets: Int32Array;
  lengths: Int32Array;
  counts: Counts;
  problems: string[];
}

export function noCounts(): Counts {
  return { samples: 0, documents: 0, validTokens: 0, truncated: 0, dropped: 0 };
}

/** Encode all samples of a task. */
export function encodeTask(encoder: Encoder, task: Task): Batch {
  const documents: { ids: number[]; labels: number[] }[] = [];
  const counts = noCounts();
  const problems: string[] = [];
  let length = 0;
  for (const read of "lines" in task ? linesOf(task) : task.items.map((item) => () => item)) {
    try {
      const item = read();
      if ("problem" in item) {
        problems.push(item.problem);
        continue;
      }
      const encoded = encoder.encode(item);
      counts.samples++;
      counts.truncated += encoded.truncated;
      counts.dropped += encoded.dropped;
      for (const document of encoded.documents) {
        documents.push(document);
        length += document.ids.length;
        counts.validTokens += document.valid;
      }
    } catch (error) {
      if (!(error instanceof DataError)) throw error;
      problems.push(error.message);
    }
  }
  counts.documents = documents.length;
  const tokens = new Int32Array(length);
  const targets = new Int32Array(length);
  let at = 0;
  for (const { ids, labels } of documents) {
    tokens.set(ids, at);
    targets.set(labels, at);
    at += ids.length;
  }
  return { tokens, targets, lengths: Int32Array.from(documents, ({ ids }) => ids.length), counts, problems };
}

function* linesOf({ lines, path, firstLine }: Extract<Task, { lines: Uint8Array }>): Generator<() => Sample> {
  let line = firstLine;
  for (let from = 0; from < lines.length; line++) {
    const newline = lines.indexOf(10, from);
    const end = newline === -1 ? lines.length : newline;
    const bytes = lines.subarray(from, end);
    from = end + 1;
    const where = `${path}:${line}`;
    if (!isBlank(bytes)) yield () => toSample(lineRecord(bytes, where).read(), where);
  }
}
