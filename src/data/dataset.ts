// All samples as tokens, end to end. Small data is tokenized on the spot and kept in memory. Larger data goes through a
// pool of workers (tokenize.ts) into files of the user's cache, which are mapped (token-store.ts), so a second start with
// the same tokenizer, template, files and settings reads no line of it, and memory holds what is in use.
//
// encode.ts turns one sample into documents; batch.ts does it for a block of lines. Next: loader.ts makes batches.

import { availableParallelism } from "node:os";
import { DataError } from "../words/errors.ts";
import type { StatusStream } from "../words/status-stream.ts";
import { BadLines, type BadLinesMax } from "./read/bad-lines.ts";
import { grouped, noCounts, type Batch, type Counts, type Task } from "./batch.ts";
import type { EncodeOptions } from "./text/encode.ts";
import { FileStamps, noteFiles, type FileNote } from "../io/file-stamps.ts";
import { readLineBlocks } from "./read/files.ts";
import { formatOf } from "./read/format.ts";
import {
  findSources,
  isFound,
  noSamples,
  nothingCounts,
  readItems,
  takesAll,
  type DataInput,
  type FoundSource,
  type FoundSources,
} from "./read/source.ts";
import { sha256, storeKey } from "./store/store-key.ts";
import { Progress } from "./text/progress.ts";
import { FileStore, findStored, MemoryStore, type TokenStore } from "./store/token-store.ts";
import type { Tokenizer } from "./text/tokenizer.ts";
import { tokenizeHere, TokenizePool } from "./text/tokenize.ts";

/** Token documents laid end to end, as `Model.dataset` makes them. */
export interface Dataset {
  /** All documents end to end. */
  tokens: Int32Array;
  /** The label of each position, already shifted: the next token of the same sample, or `IGNORED`. */
  targets: Int32Array;
  /** Where documents begin, and the total: document d is [starts[d], starts[d + 1]). */
  starts: Int32Array;
  /** If sources have weights: how many of the documents come from each, in their order. */
  sources?: { documents: number; weight: number }[];
  /** SHA-256 of the three arrays and of the weights. */
  digest: string;
  report: DatasetReport;
  /** The files it was made of, as they were. */
  files?: FileNote[];
}

/** What became of the samples. */
export interface DatasetReport extends Counts {
  tokens: number;
  /** If `maxBadLines` let malformed lines be left out: how many, and what is wrong with the first of them. */
  badLines?: { count: number; first: string[] };
}

/** How data becomes tokens, and what it may cost. */
export interface DatasetOptions extends EncodeOptions {
  /** How many malformed lines may be left out; default 0. */
  maxBadLines?: BadLinesMax;
  /** Threads that tokenize; default: as many as there are cores. */
  workers?: number;
  /** Files with fewer bytes in all are tokenized without workers, and not stored. Default 1 MiB. */
  bytesMin?: number;
  /** How many bytes of lines a thread gets at a time; default 256 KiB, about a tenth of a second's work. */
  taskBytes?: number;
  /** Gets a live line while a person waits, if it is a terminal. Default stderr: stdout may belong to a machine. */
  progress?: StatusStream;
}

/** What is stored beside the arrays. */
type About = Pick<Dataset, "sources" | "digest" | "report">;

/** Read and tokenize data, all of it; `input` is what the config calls `data`. */
export async function loadDataset(
  input: DataInput | FoundSources,
  tokenizer: Tokenizer,
  options: DatasetOptions,
): Promise<Dataset> {
  const { sequenceLength, loss, workers = availableParallelism(), bytesMin = 2 ** 20 } = options;
  const { sources, bytes } = isFound(input) ? input : await findSources(input);
  const files = noteFiles(sources.flatMap((source) => source.files));
  const tokenizing = new Tokenizing(sources, options, bytes);
  if (bytes < bytesMin) {
    const batches = (tasks: AsyncIterable<Task>) => tokenizeHere(tasks, tokenizer, { sequenceLength, loss });
    return { ...(await tokenizing.run(batches, new MemoryStore())), files };
  }
  const key = await storeKey(sources, tokenizer, { ...options, form: ["dataset"] });
  const stored = key === undefined ? undefined : await findStored<About>(key);
  if (stored !== undefined) {
    const { about, ...arrays } = stored;
    return { ...arrays, ...about, files };
  }
  using pool = new TokenizePool(Math.min(workers, availableParallelism()), tokenizer, {
    sequenceLength,
    loss,
  });
  await using store = await FileStore.create(key);
  return { ...(await tokenizing.run((tasks) => pool.run(tasks), store)), files };
}

/** One pass over all sources. */
class Tokenizing {
  readonly #sources: FoundSource[];
  readonly #options: DatasetOptions;
  readonly #bytes: number;
  readonly #counts: Counts = noCounts();
  readonly #bad: BadLines;
  readonly #stamps: FileStamps;
  #tokens = 0;
  #bytesRead = 0;

  constructor(sources: FoundSource[], options: DatasetOptions, bytes: number) {
    this.#sources = sources;
    this.#options = options;
    this.#bytes = bytes;
    this.#bad = new BadLines(options.maxBadLines ?? 0);
    this.#stamps = new FileStamps(sources.flatMap(({ files }) => files));
  }

  async run(encode: (tasks: AsyncIterable<Task>) => AsyncIterable<Batch>, store: TokenStore): Promise<Dataset> {
    const { sequenceLength } = this.#options;
    const weighted: { documents: number; weight: number }[] = [];
    const progress = new Progress(this.#options.progress ?? process.stderr);
    try {
      for (const source of this.#sources) {
        const before = { ...this.#counts, bad: this.#bad.count };
        for await (const batch of encode(this.#tasks(source))) {
          for (const problem of batch.problems) this.#bad.note(problem);
          for (const key of Object.keys(batch.counts) as (keyof Counts)[]) this.#counts[key] += batch.counts[key];
          this.#tokens += batch.tokens.length;
          await store.add(batch);
          progress.show(this.#tokens, this.#bytesRead / this.#bytes);
        }
        if (this.#counts.samples === before.samples) throw noSamples(source, this.#bad, this.#bad.count - before.bad);
        if (source.weight === undefined) continue;
        const documents = this.#counts.documents - before.documents;
        if (documents === 0)
          throw new DataError(
            `${source.path}: has no token that counts within ${sequenceLength} tokens, so it cannot have weight ${source.weight}; ` +
              `raise sequenceLength or remove the source`,
          );
        weighted.push({ documents, weight: source.weight });
      }
    } finally {
      progress.end();
    }
    this.#stamps.checkData();
    this.#bad.finish(this.#counts.samples);
    if (this.#counts.documents === 0) throw nothingCounts(this.#sources, this.#counts.samples, sequenceLength);
    const { count, first } = this.#bad;
    const report = { ...this.#counts, tokens: this.#tokens, ...(count > 0 && { badLines: { count, first } }) };
    const about = (digest: string): About => ({
      report,
      digest: weighted.length > 0 ? sha256(digest + JSON.stringify(weighted)) : digest,
      ...(weighted.length > 0 && { sources: weighted }),
    });
    const { digest, ...arrays } = await store.finish(about);
    return { ...arrays, ...about(digest) };
  }

  /** A source in pieces of some size: lines as they are, if a worker may read them, or else what they hold. */
  async *#tasks(source: FoundSource): AsyncGenerator<Task> {
    const { taskBytes = 256 * 1024 } = this.#options;
    if (!takesAll(source)) return yield* grouped(readItems(source, source.files), taskBytes);
    for (const file of source.files) {
      if ((await formatOf(file)).form !== "lines") yield* grouped(readItems(source, [file]), taskBytes);
      else
        for await (const block of readLineBlocks(file, taskBytes)) {
          this.#bytesRead += block.lines.length;
          yield block;
        }
    }
  }
}
