// From a stream to the batches of a step.
//
// An epoch goes through the parts one by one: the first epoch in the order in which they are made, later ones in an order of
// the seed. Inside a part, documents are shuffled and packed into rows, and the rows shuffled, from the seed, the epoch and
// the part's number alone. So the position is three numbers, epoch, part and row, and a resumed run meets exactly the batches
// that the interrupted one would have met, whatever was tokenized when. A step is always full: it goes on into the next part.

import { DataError } from "../words/errors.ts";
import { Random } from "../words/random.ts";
import {
  checkState,
  documentsOf,
  stepBatch,
  type Batches,
  type BatchShape,
  type LoaderState,
  type Row,
  type StepBatch,
} from "./batches.ts";
import type { DatasetReport } from "./dataset.ts";
import { pack } from "./pack.ts";
import type { TokenStream } from "./stream.ts";
import type { Arrays } from "./store/token-store.ts";

/** Parts whose rows say how many rows all bytes will have: their blocks are a sample of the data. */
const SAMPLED_PARTS = 3;

/** Batches for `Trainer.step` from a stream, one after another without end; `state` and `restore` keep the position. */
export class StreamLoader implements Batches {
  readonly #stream: TokenStream;
  readonly #shape: BatchShape;
  readonly #seed: number;
  #epoch = 0;
  /** The place in the epoch's order of parts. */
  #part = 0;
  #row = 0;
  /** The part and its rows, as numbers of its documents; undefined when it is not loaded. */
  #open: { part: Arrays; rows: number[][] } | undefined;
  /** The share of all bytes that the part is, and the one that came before it in the epoch. */
  #shares = { before: 0, own: 0 };

  constructor(stream: TokenStream, shape: BatchShape, seed: number) {
    this.#stream = stream;
    this.#shape = shape;
    this.#seed = seed;
  }

  /**
   * Steps in so many times through the data. Where bytes are a fair measure of rows, they are estimated from the first
   * parts, the same whenever one asks; elsewhere this waits until all is tokenized.
   */
  async stepsOf(epochs: number): Promise<number> {
    let rows = 0;
    let bytes = 0;
    for (let index = 0; !this.#stream.isUniform || index < SAMPLED_PARTS; index++) {
      const lengths = await this.#stream.lengths(index);
      if (lengths === undefined) break;
      const order = lengths.map((_, document) => document);
      rows += pack(lengths, order, this.#shape.sequenceLength).length;
      bytes += this.#stream.bytesOf(index);
    }
    const all = this.#stream.isUniform ? (rows * this.#stream.bytes) / bytes : rows;
    return Math.max(1, Math.ceil((epochs * all) / this.#shape.batchSize));
  }

  /** What became of the samples. */
  get report(): DatasetReport {
    return this.#stream.report;
  }

  /** Bytes of the files that are read while steps learn from them. */
  get streamedBytes(): number {
    return this.#stream.bytes;
  }

  /** How many times the data has been gone through, with a fraction that is counted in bytes. */
  get epochs(): number {
    const { before, own } = this.#shares;
    const inPart = this.#open === undefined ? 0 : this.#row / this.#open.rows.length;
    return this.#epoch + Math.min(1, before + own * inPart);
  }

  [Bun.inspect.custom](): string {
    const { batchSize, sequenceLength } = this.#shape;
    return `StreamLoader(${batchSize} rows of at most ${sequenceLength} tokens a step, at epoch ${this.epochs.toFixed(2)})`;
  }

  /** The next step's batch, which may have to be tokenized first; moves the position. */
  async next(): Promise<StepBatch> {
    this.#stream.check();
    const before = { epoch: this.#epoch, part: this.#part, row: this.#row };
    try {
      return await this.#take();
    } catch (error) {
      this.#goTo(before); // rows were taken for a batch that never came
      throw error;
    }
  }

  async #take(): Promise<StepBatch> {
    const rows: Row[] = [];
    while (rows.length < this.#shape.batchSize) {
      const { part, rows: all } = (this.#open ??= await this.#load());
      if (this.#row < all.length) rows.push(documentsOf(part, all[this.#row++]!));
      else {
        this.#part++;
        this.#row = 0;
        this.#open = undefined;
      }
    }
    return stepBatch(rows, this.#shape);
  }

  /** The position, as JSON, for a checkpoint. */
  state(): LoaderState {
    const { sequenceLength } = this.#shape;
    const position = { epoch: this.#epoch, part: this.#part, row: this.#row };
    const { digest, files, checksums } = this.#stream;
    return { seed: this.#seed, sequenceLength, data: digest, ...position, parts: checksums, files };
  }

  /** Go to a saved position; refuses a position that counts in other data. */
  restore(state: LoaderState): void {
    checkState(state, this.state());
    if (state.part === undefined) throw new DataError("the saved position is none in streamed data; start a new run");
    this.#stream.expect(state);
    this.#goTo({ ...state, part: state.part });
  }

  #goTo({ epoch, part, row }: { epoch: number; part: number; row: number }): void {
    this.#epoch = epoch;
    this.#part = part;
    this.#row = row;
    this.#open = undefined;
  }

  /** Closes the stream. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stream.close();
  }

  /** The rows of the part at the position, or of the first part of the next epoch. */
  async #load(): Promise<{ part: Arrays; rows: number[][] }> {
    const order = this.#epoch === 0 ? undefined : await this.#partOrder();
    const index = order ? order[this.#part] : this.#part;
    const part = index === undefined ? undefined : await this.#stream.part(index);
    if (part === undefined) {
      this.#epoch++;
      this.#part = 0;
      this.#row = 0;
      return this.#load();
    }
    const share = (at: number) => this.#stream.bytesOf(order ? order[at]! : at) / this.#stream.bytes;
    let before = 0;
    for (let at = 0; at < this.#part; at++) before += share(at);
    this.#shares = { before, own: share(this.#part) };
    const { starts } = part;
    const lengths = Int32Array.from({ length: starts.length - 1 }, (_, d) => starts[d + 1]! - starts[d]!);
    const random = new Random(this.#seed, (this.#epoch << 16) + index!);
    const documents = random.shuffle(lengths.map((_, document) => document));
    return { part, rows: random.shuffle(pack(lengths, documents, this.#shape.sequenceLength)) };
  }

  /** The parts of an epoch that is not the first. */
  async #partOrder(): Promise<Uint32Array> {
    const parts = Uint32Array.from({ length: await this.#stream.ended() }, (_, part) => part);
    return new Random(this.#seed, -this.#epoch).shuffle(parts);
  }
}
