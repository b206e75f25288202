// From tokenised documents to the batches of a step.
//
// Each epoch is shuffled and packed afresh from the seed and the epoch's number, so the position in the data is two
// numbers, epoch and row, and a resumed run meets exactly the batches that the interrupted one would have met. A step is
// always full: the last step of an epoch is completed with the first rows of the next.
//
// A micro-batch holds whole rows laid end to end, without padding. A document's positions restart at 0 and its last
// token predicts nothing of the next document. Read encode.ts for how samples become documents, mix.ts for which of them an
// epoch takes, pack.ts for the rows.

import { DataError } from "../words/errors.ts";
import { formatWord } from "../words/format.ts";
import { Random } from "../words/random.ts";
import type { Dataset } from "./dataset.ts";
import { IGNORED } from "./text/encode.ts";
import { epochDocuments } from "./mix.ts";
import { pack } from "./pack.ts";
import type { Arrays } from "./store/token-store.ts";

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
}

/** A document that is about to become part of a batch. */
interface Document {
  tokens: Int32Array;
  targets: Int32Array;
}

/** Documents that share a row. */
export type Row = Document[];

/** Batches for `Trainer.step`, one after another without end; `state` and `restore` keep the position. */
export class Loader {
  /** Rows of the first epoch. Weighted sources make later ones a little longer or shorter, other data does not. */
  readonly rowsPerEpoch: number;
  readonly #dataset: Dataset;
  readonly #shape: BatchShape;
  readonly #seed: number;
  #rows: number[][];
  #epoch = 0;
  #row = 0;

  constructor(dataset: Dataset, shape: BatchShape, seed: number) {
    this.#dataset = dataset;
    this.#shape = shape;
    this.#seed = seed;
    this.#rows = this.#packEpoch();
    this.rowsPerEpoch = this.#rows.length;
  }

  /** Steps in so many times through the data; the last one is full as well. */
  stepsOf(epochs: number): number {
    return Math.ceil((epochs * this.rowsPerEpoch) / this.#shape.batchSize);
  }

  /** How many times the data has been gone through, with fraction. */
  get epochs(): number {
    return this.#epoch + this.#row / this.#rows.length;
  }

  [Bun.inspect.custom](): string {
    const { batchSize, sequenceLength } = this.#shape;
    const rows = `${batchSize} rows of at most ${sequenceLength} tokens a step, ${this.rowsPerEpoch} rows an epoch`;
    return `Loader(${rows}, at epoch ${this.epochs.toFixed(2)})`;
  }

  /** The next step's batch; moves the position. */
  next(): StepBatch {
    const rows: number[][] = [];
    while (rows.length < this.#shape.batchSize) {
      if (this.#row === this.#rows.length) {
        this.#epoch++;
        this.#row = 0;
        this.#rows = this.#packEpoch();
      }
      rows.push(this.#rows[this.#row++]!);
    }
    return stepBatch(
      rows.map((row) => documentsOf(this.#dataset, row)),
      this.#shape,
    );
  }

  /** The position, as JSON, for a checkpoint. */
  state(): LoaderState {
    const { sequenceLength } = this.#shape;
    return { seed: this.#seed, sequenceLength, data: this.#dataset.digest, epoch: this.#epoch, row: this.#row };
  }

  /** Go to a saved position; refuses a position that counts in other data. */
  restore(state: LoaderState): void {
    checkState(state, this.state());
    this.#epoch = state.epoch;
    this.#rows = this.#packEpoch();
    this.#row = Math.min(state.row, this.#rows.length); // behind its end the next epoch begins
  }

  #packEpoch(): number[][] {
    const { starts } = this.#dataset;
    const random = new Random(this.#seed, this.#epoch);
    const lengths = Int32Array.from({ length: starts.length - 1 }, (_, d) => starts[d + 1]! - starts[d]!);
    const order = random.shuffle(epochDocuments(this.#dataset, this.#seed, this.#epoch));
    return random.shuffle(pack(lengths, order, this.#shape.sequenceLength));
  }
}

/** More times through the data than any run goes. */
const epochsMax = 1e6;

/** Refuses a saved position that counts in other data than `now` does, or that is none. */
export function checkState(state: LoaderState, now: LoaderState): void {
  const changed = (["seed", "sequenceLength", "data"] as const).filter((key) => state[key] !== now[key]);
  if (changed.length > 0) {
    const what = changed.map((key) => `${key} was ${formatWord(state[key])} and is ${now[key]}`).join(", ");
    throw new DataError(
      `cannot continue at epoch ${formatWord(state.epoch)}, row ${formatWord(state.row)}: the order of the data has changed (${what}); ` +
        `restore the old settings and files, or start a new run`,
    );
  }
  const { epoch, row, part = 0 } = state;
  if (![epoch, row, part].every((at) => Number.isSafeInteger(at) && at >= 0) || epoch > epochsMax)
    throw new DataError(
      `cannot continue at epoch ${formatWord(epoch)}, row ${formatWord(row)}, part ${formatWord(part)}: that is no position; start a new run`,
    );
}

/** Documents of a dataset or a part, by number. */
export function documentsOf({ tokens, targets, starts }: Arrays, documents: readonly number[]): Row {
  return documents.map((document) => {
    const [from, to] = [starts[document]!, starts[document + 1]!];
    return { tokens: tokens.subarray(from, to), targets: targets.subarray(from, to) };
  });
}

/** A held-out set once through, always in the same order, `batchSize` rows at a time; the last batch may be smaller. */
export function* evaluationBatches(dataset: Dataset, shape: BatchShape): Generator<StepBatch> {
  const { starts } = dataset;
  const lengths = Int32Array.from({ length: starts.length - 1 }, (_, d) => starts[d + 1]! - starts[d]!);
  const rows = pack(
    lengths,
    lengths.map((_, d) => d),
    shape.sequenceLength,
  );
  for (let row = 0; row < rows.length; row += shape.batchSize)
    yield stepBatch(
      rows.slice(row, row + shape.batchSize).map((documents) => documentsOf(dataset, documents)),
      { ...shape, gradientAccumulation: 1 },
    );
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
