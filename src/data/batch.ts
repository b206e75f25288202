// The unit of tokenizing: some lines of a file, or some samples, become arrays. A worker and the main thread do the same
// work here, so how many workers there are can change the time only, never the outcome.

import { DataError } from "../words/errors.ts";
import { isLossy, parseExact, stringifyExact } from "../io/exact-json.ts";
import type { Encoder } from "./text/encode.ts";
import { isBlank, lineRecord, readRange, type FileRange } from "./read/files.ts";
import { toSample, type Sample } from "./read/shapes.ts";

/** A sample, or what is wrong with the record that should have been one. */
export type Item = Sample | { problem: string };

/** Whole lines of a JSONL file or where they are, which a worker parses as well, or items that were read already. */
export type Task =
  { lines: Uint8Array; path: string; firstLine: number } | { range: FileRange } | { items: Item[] } | { exact: string };

/** A task for another thread: what is beside its values, and not in them, does not go along by itself. */
export function packed(task: Task): Task {
  return "items" in task && isLossy() ? { exact: stringifyExact(task.items) } : task;
}

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
  /** What a person should know although it is learned, by its kind. */
  remarks: Map<string, string>;
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
  for (const read of readsOf(task)) {
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
  const lengths = Int32Array.from(documents, ({ ids }) => ids.length);
  return { tokens, targets, lengths, counts, problems, remarks: encoder.takeRemarks() };
}

function readsOf(task: Task): Iterable<() => Item> {
  if ("exact" in task) return readsOf({ items: parseExact(task.exact, 1000) as Item[] });
  if ("items" in task) return task.items.map((item) => () => item);
  if ("lines" in task) return recordsOf(task.lines, task.path, (_, line) => String(task.firstLine + line));
  const { lines, start } = readRange(task.range);
  return recordsOf(lines, task.range.path, (at) => byteMark(start + at));
}

function* recordsOf(
  lines: Uint8Array,
  path: string,
  place: (at: number, line: number) => string,
): Generator<() => Sample> {
  for (let from = 0, line = 0; from < lines.length; line++) {
    const newline = lines.indexOf(10, from);
    const end = newline === -1 ? lines.length : newline;
    const bytes = lines.subarray(from, end);
    if (!isBlank(bytes)) {
      const where = `${path}:${place(from, line)}`;
      yield () => toSample(lineRecord(bytes, where).read(), where);
    }
    from = end + 1;
  }
}

/** Stands for a line's number in a message from the middle of a file, where nobody has counted; U+FFFE is no character, so no path has it. */
function byteMark(byte: number): string {
  return `\ufffe${byte}\ufffe`;
}

/** A message with the numbers of its lines; `count` finds the number of the line at a byte. */
export async function withLineNumber(
  message: string,
  count: (path: string, byte: number) => Promise<number>,
): Promise<string> {
  const [mark, path, byte] = /^([^\ufffe]*):\ufffe(\d+)\ufffe/.exec(message) ?? [];
  if (mark === undefined) return message;
  return message.replaceAll(byteMark(Number(byte)), String(await count(path!, Number(byte))));
}

/** Items by the hundred, or fewer long ones. */
export async function* grouped(items: AsyncIterable<Item>, taskBytes: number): AsyncGenerator<{ items: Item[] }> {
  let group: Item[] = [];
  let length = 0;
  for await (const item of items) {
    group.push(item);
    length += lengthOf(item);
    if (group.length < 100 && length < taskBytes) continue;
    yield { items: group };
    group = [];
    length = 0;
  }
  if (group.length > 0) yield { items: group };
}

/** About how many bytes an item takes in its file. */
export function lengthOf(item: Item): number {
  if ("problem" in item) return 0;
  if (item.kind === "text") return item.text.length;
  if (item.kind === "prompt") return item.prompt.length + item.completion.length;
  return item.messages.reduce((sum, { content }) => sum + (content?.length ?? 0), 0);
}
