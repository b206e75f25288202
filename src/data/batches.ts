// What feeds steps: batches of rows, from documents in memory (loader.ts) or from a stream of them (stream-loader.ts), behind
// one interface. Who computes steps knows this file alone.
//
// A micro-batch holds whole rows laid end to end, without padding. A document's positions restart at 0 and its last
// token predicts nothing of the next document.

import { DataError } from "../words/errors.ts";
import { fileChanges, type FileNote } from "../io/file-stamps.ts";
import { formatWord } from "../words/format.ts";
import type { DatasetReport } from "./dataset.ts";
import { IGNORED } from "./text/encode.ts";
import type { Arrays } from "./store/token-store.ts";

/** Batches for `Trainer.step`, one after another without end. */
export interface Batches extends AsyncDisposable {
  /** What became of the samples that have been read so far. */
  readonly report: DatasetReport;
  /** Bytes of the files, where steps learn from them while they are still being read. */
  readonly streamedBytes?: number;
  /** How many times the data has been gone through, with fraction. */
  readonly epochs: number;
  /** Steps in so many times through the data; may have to wait for some of it to be read. */
  stepsOf(epochs: number): number | Promise<number>;
  /** The next step's batch; moves the position. */
  next(): StepBatch | Promise<StepBatch>;
  /** The position, as JSON, for a checkpoint. */
  state(): LoaderState;
  /** Go to a saved position; refuses a position that counts in other data. */
  restore(state: LoaderState): void;
}

/** Tokens that go through a block at once; all arrays but `starts` have one entry per token. */
export interface MicroBatch {
  tokens: Int32Array;
  /** The label of each position, already shifted: the next token of the same document, or `IGNORED`. */
  targets: Int32Array;
  /** Where documents begin, and the total: document d is [starts[d], starts[d + 1]). */
  starts: Int32Array;
  /** The position inside the document. */
  positions: Int32Array;
}

/** Everything one optimizer step learns from: passes over the blocks, each a list of micro-batches. */
export interface StepBatch {
  passes: MicroBatch[][];
  /** Targets that count; the loss is their mean. */
  validTokens: number;
  tokens: number;
}

/** How rows of tokens become the passes and micro-batches of a step. */
export interface BatchShape {
  /** The longest row, in tokens. */
  sequenceLength: number;
  /** Rows of one step. */
  batchSize: number;
  /** The most tokens of a micro-batch; at least `sequenceLength`. */
  microBatchTokens: number;
  /** Passes of one step; divides `batchSize`. */
  gradientAccumulation: number;
}

/** A position in the data, as JSON. */
export interface LoaderState {
  seed: number;
  sequenceLength: number;
  /** Digest of the documents that the position counts in. */
  data: string;
  epoch: number;
  /** Of streamed data: the place in the epoch's order of parts. */
  part?: number;
  /** Rows of the epoch, or of the part, that are already used. */
  row: number;
  /** Of streamed data: the checksums of its parts, as far as they were known. */
  parts?: string[];
  /** The files as they were, for words about what has become of them. */
  files?: FileNote[];
}

/** A document that is about to become part of a batch. */
interface Document {
  tokens: Int32Array;
  targets: Int32Array;
}

/** Documents that share a row. */
export type Row = Document[];

/** More times through the data than any run goes. */
const epochsMax = 1e6;

/** Refuses a saved position that counts in other data than `now` does, or that is none. */
export function checkState(state: LoaderState, now: LoaderState): void {
  const changed = (["seed", "sequenceLength"] as const)
    .filter((key) => state[key] !== now[key])
    .map((key) => `${key} was ${formatWord(state[key])} and is ${now[key]}`);
  if (state.data !== now.data) {
    const files = fileChanges(state.files, now.files ?? []);
    const otherwise =
      "split, limit, filter, map, weight, chat.loss, the tokenizer, its template or this version is another one";
    changed.push(files === undefined ? otherwise : `${files}, or else ${otherwise}`);
  }
  if (changed.length > 0) throw changedSince(state, changed.join("; "));
  const { epoch, row, part = 0 } = state;
  if (![epoch, row, part].every((at) => Number.isSafeInteger(at) && at >= 0) || epoch > epochsMax)
    throw new DataError(
      `cannot continue at epoch ${formatWord(epoch)}, row ${formatWord(row)}, part ${formatWord(part)}: that is no position; start a new run`,
    );
}

/** What a run is refused with that would go on with other data than it began with. */
export function changedSince({ epoch, row }: LoaderState, what: string): DataError {
  return new DataError(
    `cannot continue at epoch ${formatWord(epoch)}, row ${formatWord(row)}: the data is not what it was at the checkpoint (${what}); ` +
      "put back what it was, or begin a new run with another --output",
  );
}

/** Documents of a dataset or a part, by number. */
export function documentsOf({ tokens, targets, starts }: Arrays, documents: readonly number[]): Row {
  return documents.map((document) => {
    const [from, to] = [starts[document]!, starts[document + 1]!];
    return { tokens: tokens.subarray(from, to), targets: targets.subarray(from, to) };
  });
}

/** Rows of a step, in order, as its passes and micro-batches. */
export function stepBatch(rows: Row[], shape: BatchShape): StepBatch {
  const rowsPerPass = Math.ceil(rows.length / shape.gradientAccumulation);
  const passes: MicroBatch[][] = [];
  for (let row = 0; row < rows.length; row += rowsPerPass)
    passes.push(microBatches(rows.slice(row, row + rowsPerPass), shape.microBatchTokens));
  const all = passes.flat();
  return {
    passes,
    validTokens: all.reduce((sum, { targets }) => sum + targets.reduce((n, t) => n + (t === IGNORED ? 0 : 1), 0), 0),
    tokens: all.reduce((sum, { tokens }) => sum + tokens.length, 0),
  };
}

/** Whole rows in order, as many to a micro-batch as fit. */
function microBatches(rows: Row[], tokensMax: number): MicroBatch[] {
  const batches: MicroBatch[] = [];
  let documents: Document[] = [];
  let length = 0;
  for (const row of rows) {
    const rowLength = row.reduce((sum, { tokens }) => sum + tokens.length, 0);
    if (length > 0 && length + rowLength > tokensMax) {
      batches.push(layEndToEnd(documents, length));
      documents = [];
      length = 0;
    }
    documents.push(...row);
    length += rowLength;
  }
  batches.push(layEndToEnd(documents, length));
  return batches;
}

function layEndToEnd(documents: Document[], length: number): MicroBatch {
  const tokens = new Int32Array(length);
  const targets = new Int32Array(length);
  const positions = new Int32Array(length);
  const starts = new Int32Array(documents.length + 1);
  let at = 0;
  documents.forEach((document, index) => {
    const { length: own } = document.tokens;
    tokens.set(document.tokens, at);
    targets.set(document.targets, at);
    for (let position = 0; position < own; position++) positions[at + position] = position;
    at += own;
    starts[index + 1] = at;
  });
  return { tokens, targets, starts, positions };
}
