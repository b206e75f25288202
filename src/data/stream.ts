// Data that is larger than memory, or than a person's patience: its first tokens are there after seconds, and tokenizing
// goes on while they are learned from.
//
// The data becomes a row of parts, each some million tokens of a fixed mix of the sources (stream-order.ts) in a file of the
// user's cache (part-store.ts). The first parts are small, so that the first is soon there. What a part holds does not depend
// on the seed, the number of workers or who wrote it. Whoever asks for a part waits until it is there; what has gone wrong
// behind the scenes in the meantime is thrown to the next who asks. Next: stream-loader.ts makes batches.

import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { availableParallelism } from "node:os";
import { DataError } from "../words/errors.ts";
import { formatBytes, formatCount } from "../words/format.ts";
import { fileChanges, FileStamps, noteFiles, type FileNote } from "../io/file-stamps.ts";
import { remark } from "../words/remark.ts";
import { BadLines } from "./read/bad-lines.ts";
import { changedSince, type LoaderState } from "./batches.ts";
import { noCounts, withLineNumber, type Batch, type Counts } from "./batch.ts";
import type { DatasetOptions, DatasetReport } from "./dataset.ts";
import { lineNumberAt, unreadable } from "./read/files.ts";
import { PartStore, type StoredPart, type StreamAbout, type StreamProgress } from "./store/part-store.ts";
import { Progress } from "./text/progress.ts";
import { noSamples, nothingCounts, type FoundSource, type FoundSources } from "./read/source.ts";
import { sha256, storeKey, tokenizerKey, VERSIONS } from "./store/store-key.ts";
import { streamTasks, type StreamTask } from "./stream-order.ts";
import type { Arrays } from "./store/token-store.ts";
import type { Tokenizer } from "./text/tokenizer.ts";
import { TokenizePool } from "./text/tokenize.ts";

/** How a stream tokenizes, and how it cuts what comes. */
export interface StreamOptions extends Omit<DatasetOptions, "bytesMin"> {
  /** Tokens of the first part, at least; each later one has twice as many as the one before, up to 32 times. */
  firstPartTokens?: number;
}

/** Data as parts of some million tokens that are made while they are used; close it after use. */
export class TokenStream implements AsyncDisposable {
  /** Of the files. */
  readonly bytes: number;
  /** SHA-256 of what identifies the data without reading all of it: settings, sizes, and samples of the files. */
  readonly digest: string;
  /** The files as they were when the stream was opened. */
  readonly files: FileNote[];
  /** Whether a share of the bytes is the same share of the tokens, as far as chance allows. */
  readonly isUniform: boolean;
  readonly #sources: FoundSource[];
  /** The files as they were when the key of the parts was made. */
  readonly #stamps: FileStamps;
  readonly #store: PartStore;
  readonly #startPool: () => TokenizePool;
  readonly #parts: StoredPart[];
  readonly #options: StreamOptions;
  #about: StreamAbout | undefined;
  #failure: { error: unknown } | undefined;
  /** The position that a run went on from. */
  #saved: LoaderState | undefined;
  /** Resolved whenever a part, the end or a failure is there. */
  #news = Promise.withResolvers<void>();
  #closing = false;
  #work: Promise<void> = Promise.resolve();
  /** Of the part that is being made. */
  #tokens = 0;

  private constructor(
    { sources, bytes }: FoundSources,
    {
      stamps,
      store,
      startPool,
      digest,
      options,
      found,
    }: {
      stamps: FileStamps;
      store: PartStore;
      startPool: () => TokenizePool;
      digest: string;
      options: StreamOptions;
      found: Awaited<ReturnType<PartStore["found"]>>;
    },
  ) {
    this.#sources = sources;
    this.#stamps = stamps;
    this.#store = store;
    this.#startPool = startPool;
    this.#options = options;
    this.#parts = found.parts;
    this.#about = found.about;
    this.bytes = bytes;
    this.digest = digest;
    this.files = noteFiles(sources.flatMap((source) => source.files));
    this.isUniform = sources.every(({ hasBlocks }) => hasBlocks);
  }

  /** Starts to tokenize where an earlier run has stopped. */
  static async open(found: FoundSources, tokenizer: Tokenizer, options: StreamOptions): Promise<TokenStream> {
    const { sources } = found;
    const weighted = sources.find(({ weight }) => weight !== undefined);
    if (weighted !== undefined)
      throw new DataError(
        `${weighted.path}: has a weight, and how much of each source an epoch takes is known only when all is read; ` +
          `data with weights cannot be streamed`,
      );
    const { sequenceLength, loss, maxBadLines = 0, workers = availableParallelism() } = options;
    const cut = [blockBytes(options), firstPartTokens(options)];
    const stamps = new FileStamps(sources.flatMap(({ files }) => files));
    const key = await storeKey(sources, tokenizer, { sequenceLength, loss, maxBadLines, form: ["stream", ...cut] });
    const digest = sha256(
      JSON.stringify([cut, sequenceLength, loss, VERSIONS, await tokenizerKey(tokenizer), sources.map(identityOf)]),
    );
    const store = PartStore.open(key);
    const startPool = () =>
      new TokenizePool(Math.min(workers, availableParallelism()), tokenizer, { sequenceLength, loss });
    const stream = new TokenStream(found, { stamps, store, startPool, digest, options, found: await store.found() });
    if (stream.#about === undefined) {
      const pool = startPool();
      stream.#work = stream.#tokenize(pool).catch((error: unknown) => {
        stream.#failure = { error };
        stream.#tell();
      });
    }
    return stream;
  }

  /** How many parts there are; undefined as long as that is unknown. */
  get length(): number | undefined {
    return this.#about?.parts;
  }

  /** Of what is tokenized so far. */
  get report(): DatasetReport {
    const { counts, tokens, bad } = this.#latest();
    return { ...counts, tokens, ...(bad.count > 0 && { badLines: bad }) };
  }

  /** Bytes of the files that a part, which must be there, stands for. */
  bytesOf(index: number): number {
    return this.#parts[index]!.progress.bytes - (this.#parts[index - 1]?.progress.bytes ?? 0);
  }

  /** A part's documents, as soon as they are there; undefined behind the last one. */
  async part(index: number): Promise<Arrays | undefined> {
    return (await this.#has(index)) ? this.#whole(index, () => this.#store.read(index)) : undefined;
  }

  /** The lengths of a part's documents. */
  async lengths(index: number): Promise<Int32Array | undefined> {
    return (await this.#has(index)) ? this.#whole(index, () => this.#store.readLengths(index)) : undefined;
  }

  /** Checksums of the parts, those that a checkpoint knew included. */
  get checksums(): string[] {
    const { parts = [] } = this.#saved ?? {};
    return [...parts, ...this.#parts.slice(parts.length).map(({ checksum }) => checksum)];
  }

  /**
   * Holds the stream to what it was when a position was saved: a part that is another one, now or when it is made, is refused.
   * What was not known then cannot be compared, and is remarked on where files were written to since.
   */
  expect(saved: LoaderState): void {
    if (
      saved.parts !== undefined &&
      !(Array.isArray(saved.parts) && saved.parts.every((sum) => typeof sum === "string"))
    )
      throw new DataError("the saved position has no checksums of the data's parts; start a new run");
    this.#saved = saved;
    this.#parts.forEach((part, index) => this.#compare(index, part));
    const changes = fileChanges(saved.files, this.files);
    if (changes !== undefined && this.#about?.parts !== saved.parts?.length)
      remark(
        `${changes}, after the checkpoint: what the run had read by then is compared, and the rest is read as it is now`,
      );
  }

  /** Refuses a part that is not what a checkpoint knew it to be. */
  #compare(index: number, { checksum }: StoredPart): void {
    const known = this.#saved?.parts?.[index];
    if (known === undefined || known === checksum) return;
    throw changedSince(
      this.#saved!,
      fileChanges(this.#saved!.files, this.files) ?? "some of its files were written to",
    );
  }

  /** Throws what has gone wrong, although what is asked for next may still be there. */
  check(): void {
    if (this.#failure) throw this.#failure.error;
  }

  /** How many parts there are, when all are there. */
  async ended(): Promise<number> {
    await this.#until(() => false);
    return this.#about!.parts;
  }

  /** Stops tokenizing. What is done is kept for the next run. */
  async close(): Promise<void> {
    this.#closing = true;
    await this.#work;
    this.#store.close();
    this.#failure ??= { error: new DataError("the data stream is closed") };
    this.#tell();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  [Bun.inspect.custom](): string {
    const { tokens } = this.#latest();
    const state = this.#about ? `all ${formatCount(tokens)} tokens` : `${formatCount(tokens)} tokens so far`;
    return `TokenStream(${formatBytes(this.bytes)}, ${state} in ${this.#parts.length} parts)`;
  }

  /** Waits for a part, or for the end before it. */
  async #has(index: number): Promise<boolean> {
    await this.#until(() => index < this.#parts.length);
    return index < this.#parts.length;
  }

  /** What is read of a part; one that was damaged since it was written is made again first. */
  async #whole<T>(index: number, read: () => Promise<T | undefined>): Promise<T> {
    const found = await read();
    if (found !== undefined) return found;
    await this.#makeAgain(index);
    const again = await read();
    if (again === undefined) throw damaged(this.#store.path(index));
    return again;
  }

  async #makeAgain(index: number): Promise<void> {
    remark(`${this.#store.path(index)}: the tokens that are kept there are damaged, and are made again`);
    const { progress, checksum } = this.#parts[index]!;
    const done = this.#parts[index - 1]?.progress.tasks ?? 0;
    async function* own(all: AsyncIterable<StreamTask>) {
      let left = progress.tasks - done;
      for await (const { task } of all) {
        yield task;
        if (--left === 0) return;
      }
    }
    using pool = this.#startPool();
    const batches = await Array.fromAsync(pool.run(own(streamTasks(this.#sources, blockBytes(this.#options), done))));
    this.#stamps.checkData();
    const again = await this.#store.write(index, batches, progress);
    if (again.checksum !== checksum) throw damaged(this.#store.path(index));
  }

  /** Waits, with a live line for whoever looks on, until something is true or all is tokenized. */
  async #until(isTrue: () => boolean): Promise<void> {
    const isOver = () => this.#about !== undefined || isTrue();
    if (isOver()) return;
    const progress = new Progress(this.#options.progress ?? process.stderr);
    const show = () => progress.show(this.#latest().tokens + this.#tokens, this.#latest().bytes / this.bytes);
    const timer = setInterval(show, 100);
    try {
      while (!isOver()) {
        this.check();
        await this.#news.promise;
      }
    } finally {
      clearInterval(timer);
      progress.end();
    }
  }

  #tell(): void {
    this.#news.resolve();
    this.#news = Promise.withResolvers<void>();
  }

  #latest(): StreamProgress {
    const nothing = { samples: 0, bad: 0 };
    return (
      this.#about ??
      this.#parts.at(-1)?.progress ?? {
        tasks: 0,
        bytes: 0,
        counts: noCounts(),
        tokens: 0,
        bad: { count: 0, first: [] },
        sources: this.#sources.map(() => nothing),
      }
    );
  }

  /** From the last part that is there to the end. */
  async #tokenize(pool: TokenizePool): Promise<void> {
    using _ = pool;
    const now = structuredClone(this.#latest());
    const bad = new BadLines(this.#options.maxBadLines ?? 0, now.bad);
    const sent: StreamTask[] = [];
    const tasks = streamTasks(this.#sources, blockBytes(this.#options), now.tasks);
    async function* taking() {
      for await (const task of tasks) {
        sent.push(task);
        yield task.task;
      }
    }
    let batches: Batch[] = [];
    const flush = async () => {
      this.#stamps.checkData(); // a part of other data must not get this key
      const progress = structuredClone({ ...now, bad: { count: bad.count, first: bad.first } });
      const part = await this.#store.write(this.#parts.length, batches, progress);
      this.#compare(this.#parts.length, part);
      this.#parts.push(part);
      this.#tokens = 0;
      batches = [];
      this.#tell();
    };
    for await (const batch of pool.run(taking())) {
      if (this.#closing) return;
      const { source, bytes } = sent.shift()!;
      for (const problem of batch.problems)
        bad.note(bad.isShown ? await withLineNumber(problem, lineNumberAt) : problem);
      now.tasks++;
      now.bytes += bytes;
      now.tokens += batch.tokens.length;
      now.sources[source]!.samples += batch.counts.samples;
      now.sources[source]!.bad += batch.problems.length;
      for (const key of Object.keys(batch.counts) as (keyof Counts)[]) now.counts[key] += batch.counts[key];
      this.#tokens += batch.tokens.length;
      batches.push(batch);
      if (this.#tokens >= partTokens(this.#options, this.#parts.length)) await flush();
    }
    if (this.#tokens > 0) await flush();
    this.#judge(now, bad);
    const about = { ...now, bad: { count: bad.count, first: bad.first }, parts: this.#parts.length };
    await this.#store.end(about);
    this.#about = about;
    this.#tell();
  }

  /** What can be said only when all is read. */
  #judge({ sources, counts }: StreamProgress, bad: BadLines): void {
    for (const [index, { samples, bad: found }] of sources.entries()) {
      if (samples === 0) throw noSamples(this.#sources[index]!, bad, found);
    }
    bad.finish(counts.samples);
    if (counts.documents === 0) throw nothingCounts(this.#sources, counts.samples, this.#options.sequenceLength);
  }
}

function damaged(path: string): DataError {
  return new DataError(
    `${path}: does not hold what was just written; check the disk, or name another with SLUICE_CACHE`,
  );
}

function blockBytes({ taskBytes = 256 * 1024 }: StreamOptions): number {
  return taskBytes;
}

function firstPartTokens({ firstPartTokens = 2 ** 18 }: StreamOptions): number {
  return firstPartTokens;
}

/** At the default, from a second's work to half a minute's, and 64 MiB in memory. */
function partTokens(options: StreamOptions, index: number): number {
  return firstPartTokens(options) * 2 ** Math.min(5, index);
}

/** What tells a source from another: how it is read, and its files' sizes and a few samples. */
function identityOf({ files, split, limit, columns, filter, map }: FoundSource): unknown {
  return [split, limit, columns, filter && String(filter), map && String(map), files.map(fileIdentity)];
}

function fileIdentity(path: string): string {
  const file = opened(path);
  try {
    const { size } = fstatSync(file);
    const hash = new Bun.CryptoHasher("sha256").update(String(size));
    const sample = new Uint8Array(4096);
    for (let i = 0; i < 4; i++) {
      const at = Math.floor((Math.max(0, size - sample.length) * i) / 3);
      hash.update(sample.subarray(0, readSync(file, sample, 0, sample.length, at)));
    }
    return hash.digest("hex");
  } finally {
    closeSync(file);
  }
}

function opened(path: string): number {
  try {
    return openSync(path, "r");
  } catch (cause) {
    throw unreadable(cause, path);
  }
}
