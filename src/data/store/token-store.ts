// Where a dataset's arrays are kept while they grow and afterwards: in memory, or in files that are mapped.
//
// The files lie in `data` of the user's cache (words/cache.ts), one folder per key; a key is the hash of everything that the tokens
// depend on, so a second start with the same data finds them and reads nothing else. A folder appears under its key when it is
// complete, and its `about.json` has the checksum of everything else in it: what is damaged is made again. What has not been used
// for 30 days is deleted, and so is what a process that is gone left half written.

import { existsSync, mkdirSync, readdirSync, rmSync, statSync, utimesSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { assert, DataError } from "../../words/errors.ts";
import { cacheDirectory } from "../../words/cache.ts";
import { fileError, publishDirectory, removeAbandoned, temporaryPath, writeFileAtomic } from "../../io/atomic.ts";
import { remark } from "../../words/remark.ts";
import type { Batch } from "../batch.ts";
import { checksumOf, sealed, unsealed } from "./checksum.ts";

const NAMES = ["tokens", "targets", "starts"] as const;

/** The three arrays of a dataset (dataset.ts). */
export type Arrays = Record<(typeof NAMES)[number], Int32Array>;

export type Stored = Arrays & { digest: string };

/** A mapped array ends at 4 GiB. */
const TOKENS_MAX = 2 ** 30;
const UNUSED_MS_MAX = 30 * 24 * 3600 * 1000;

/** Takes batches in order. */
export interface TokenStore {
  add(batch: Batch): Promise<void> | void;
  /** The arrays and their digest; `about` is kept beside them where they are kept. */
  finish(about: (digest: string) => unknown): Promise<Stored> | Stored;
}

/** Adds up batches and their digest; what the two stores have in common. */
class Sums {
  readonly #hashers = NAMES.map(() => new Bun.CryptoHasher("sha256"));
  tokens = 0;

  /** The batch as it is stored, document starts instead of lengths. */
  next({ tokens, targets, lengths }: Batch, limit: number): Int32Array[] {
    let at = this.tokens;
    this.tokens += tokens.length;
    if (this.tokens > limit)
      throw new DataError(
        `the data has more than ${limit} tokens, the most that one dataset holds; use limit or split to take a part of it`,
      );
    const arrays = [tokens, targets, lengths.map((length) => (at += length))];
    arrays.forEach((array, i) => this.#hashers[i]!.update(array));
    return arrays;
  }

  digest(): string {
    const whole = new Bun.CryptoHasher("sha256");
    for (const hasher of this.#hashers) whole.update(hasher.digest());
    return whole.digest("hex");
  }
}

/** In memory, 8 bytes per token. */
export class MemoryStore implements TokenStore {
  readonly #sums = new Sums();
  readonly #parts: Int32Array[][] = [];

  add(batch: Batch): void {
    this.#parts.push(this.#sums.next(batch, TOKENS_MAX));
  }

  finish(): Stored {
    const joined = (index: number, before: number[]) => {
      const parts = [before, ...this.#parts.map((part) => part[index]!)];
      const array = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
      let at = 0;
      for (const part of parts) {
        array.set(part, at);
        at += part.length;
      }
      return array;
    };
    return { tokens: joined(0, []), targets: joined(1, []), starts: joined(2, [0]), digest: this.#sums.digest() };
  }
}

/** In the cache. Without a key the files go when the process does: what they depend on cannot be known. */
export class FileStore implements TokenStore, AsyncDisposable {
  readonly #sums = new Sums();
  readonly #final: string;
  readonly #folder: string;
  readonly #isKept: boolean;
  readonly #files: FileHandle[];

  private constructor(final: string, folder: string, isKept: boolean, files: FileHandle[]) {
    this.#final = final;
    this.#folder = folder;
    this.#isKept = isKept;
    this.#files = files;
  }

  static async create(key: string | undefined, cache = dataCache()): Promise<FileStore> {
    const final = join(cache, key ?? "unnamed");
    const folder = temporaryPath(final);
    try {
      mkdirSync(folder, { recursive: true });
      removeUnused(cache);
      const files = await Promise.all(NAMES.map((name) => open(join(folder, name), "w")));
      await writeAll(files[NAMES.indexOf("starts")]!, new Int32Array(1));
      return new FileStore(final, folder, key !== undefined, files);
    } catch (cause) {
      throw cacheError(cause, folder);
    }
  }

  async add(batch: Batch): Promise<void> {
    const arrays = this.#sums.next(batch, TOKENS_MAX);
    try {
      for (const [i, file] of this.#files.entries()) await writeAll(file, arrays[i]!);
    } catch (cause) {
      throw cacheError(cause, this.#folder);
    }
  }

  async finish(about: (digest: string) => unknown): Promise<Stored> {
    const digest = this.#sums.digest();
    try {
      for (const file of this.#files.splice(0)) await file.close();
      if (!this.#isKept) {
        const arrays = mapArrays(this.#folder);
        rmSync(this.#folder, { recursive: true }); // what is mapped stays until the process ends
        return { ...arrays, digest };
      }
      const arrays = mapArrays(this.#folder);
      const seal: Seal<unknown> = { checksum: checksumOf(...NAMES.map((name) => arrays[name])), about: about(digest) };
      await writeFileAtomic(join(this.#folder, "about.json"), sealed(seal));
      // Another run may have been faster with the same data; what is mapped stays.
      if (!existsSync(this.#final)) await publishDirectory(this.#folder, this.#final);
      return { ...arrays, digest };
    } catch (cause) {
      throw cacheError(cause, this.#folder);
    }
  }

  /** Removes what was not finished. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const file of this.#files.splice(0)) await file.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** What about.json holds: of everything in the folder. */
interface Seal<T> {
  checksum: string;
  about: T;
}

/** What an earlier run has stored under this key; what is not whole is removed, with a word. */
export async function findStored<T>(key: string, cache = dataCache()): Promise<(Arrays & { about: T }) | undefined> {
  const folder = join(cache, key);
  if (!existsSync(folder)) return undefined;
  try {
    const seal = unsealed(await Bun.file(join(folder, "about.json")).text()) as Seal<T> | undefined;
    const arrays = mapArrays(folder);
    if (seal !== undefined && seal.checksum === checksumOf(...NAMES.map((name) => arrays[name]))) {
      const now = new Date();
      utimesSync(folder, now, now); // it is in use
      return { ...arrays, about: seal.about };
    }
  } catch {} // a file is missing, or cannot be read: not whole either
  try {
    rmSync(folder, { recursive: true, force: true });
  } catch (cause) {
    throw cacheError(cause, folder);
  }
  remark(`${folder}: the tokens that are kept there are damaged, and are made again`);
  return undefined;
}

/** A write may take less than it was given. */
async function writeAll(file: FileHandle, array: Int32Array): Promise<void> {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  for (let at = 0; at < bytes.length;) at += (await file.write(bytes, at, bytes.length - at)).bytesWritten;
}

/** Where stored datasets are. */
export function dataCache(): string {
  return join(cacheDirectory(), "data");
}

function mapArrays(folder: string): Arrays {
  const map = (name: string) => {
    const { buffer, byteOffset, length } = Bun.mmap(join(folder, name));
    return new Int32Array(buffer, byteOffset, length / 4);
  };
  const arrays = { tokens: map("tokens"), targets: map("targets"), starts: map("starts") };
  const { length } = arrays.tokens;
  assert(arrays.targets.length === length && arrays.starts.at(-1) === length, `${folder} is damaged`);
  return arrays;
}

/** Nobody else's files lie in the cache, and a dataset that is being written is never that old. */
export function removeUnused(cache: string): void {
  removeAbandoned(cache);
  for (const name of readdirSync(cache)) {
    const path = join(cache, name);
    const age = Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now());
    if (age > UNUSED_MS_MAX) rmSync(path, { recursive: true, force: true });
  }
}

export function cacheError(cause: unknown, path: string): unknown {
  const error = fileError(cause, "write", path) as Error;
  return error === cause ? cause : new DataError(`${error.message} (tokens are kept there; SLUICE_CACHE says where)`);
}
