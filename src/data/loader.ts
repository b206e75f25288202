// From tokenised documents to the batches of a step.
//
// Each epoch is shuffled and packed afresh from the seed and the epoch's number, so the position in the data is two
// numbers, epoch and row, and a resumed run meets exactly the batches that the interrupted one would have met. A step is
// always full: the last step of an epoch is completed with the first rows of the next. Read encode.ts for how samples become
// documents, mix.ts for which of them an epoch takes, pack.ts for the rows, batches.ts for what is made of those.

import { Random } from "../words/random.ts";
import {
  checkState,
  documentsOf,
  stepBatch,
  type Batches,
  type BatchShape,
  type LoaderState,
  type StepBatch,
} from "./batches.ts";
import type { Dataset, DatasetReport } from "./dataset.ts";
import { epochDocuments } from "./mix.ts";
import { pack } from "./pack.ts";

/** Batches for `Trainer.step`, one after another without end; `state` and `restore` keep the position. */
export class Loader implements Batches {
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

  /** What became of the samples. */
  get report(): DatasetReport {
    return this.#dataset.report;
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
    const { digest, files } = this.#dataset;
    const position = { epoch: this.#epoch, row: this.#row };
    return { seed: this.#seed, sequenceLength, data: digest, ...position, ...(files && { files }) };
  }

  /** Go to a saved position; refuses a position that counts in other data. */
  restore(state: LoaderState): void {
    checkState(state, this.state());
    this.#epoch = state.epoch;
    this.#rows = this.#packEpoch();
    this.#row = Math.min(state.row, this.#rows.length); // behind its end the next epoch begins
  }

  async [Symbol.asyncDispose](): Promise<void> {} // a dataset is the garbage collector's

  #packEpoch(): number[][] {
    const { starts } = this.#dataset;
    const random = new Random(this.#seed, this.#epoch);
    const lengths = Int32Array.from({ length: starts.length - 1 }, (_, d) => starts[d + 1]! - starts[d]!);
    const order = random.shuffle(epochDocuments(this.#dataset, this.#seed, this.#epoch));
    return random.shuffle(pack(lengths, order, this.#shape.sequenceLength));
  }
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
