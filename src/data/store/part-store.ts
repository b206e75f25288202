// The parts of a stream on disk: a folder per key in the user's cache, a file per part.
//
// What a part holds depends on the key alone, and a file appears whole or not at all. So a run that was stopped in the
// middle leaves parts that the next one uses, and two runs that write the same part at once write the same bytes.
// `about.json` is written last: with it the stream is complete.
//
// A part is 4 1/8 bytes per token: the token and whether it is learned. Labels need no more, because the label of a position
// is the next token; only that of a document's last position is kept, for it may be of the text's next piece.
//
//   magic, bytes of the head | head (JSON, sealed) | lengths, last labels (per document) | tokens | a bit per position that counts
//
// Head, body and about.json have checksums. Of a part that is damaged nothing is used; the stream makes it again.

import { existsSync, mkdirSync, rmSync, utimesSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { remark } from "../../words/remark.ts";
import { fileError, removeAbandoned, temporaryPath, writeFileAtomic } from "../../io/atomic.ts";
import type { Batch, Counts } from "../batch.ts";
import { checksumOf, sealed, unsealed } from "./checksum.ts";
import { IGNORED } from "../text/encode.ts";
import { cacheError, dataCache, removeUnused, type Arrays } from "./token-store.ts";

/** What is known of a stream after a part, from its beginning on. */
export interface StreamProgress {
  /** Tasks that are done, in the order of the stream. */
  tasks: number;
  /** Bytes of the files that these stand for. */
  bytes: number;
  counts: Counts;
  tokens: number;
  bad: { count: number; first: string[] };
  /** Samples and bad lines of each source. */
  sources: { samples: number; bad: number }[];
}

/** What `about.json` says of a stream that is complete. */
export interface StreamAbout extends StreamProgress {
  parts: number;
}

/** A part that is there: the progress after it, and the checksum of what it holds, which tells it from the same part of other data. */
export interface StoredPart {
  progress: StreamProgress;
  checksum: string;
}

interface Head extends StoredPart {
  documents: number;
  tokens: number;
}

const MAGIC = 0x32505353; // "SSP2"

export class PartStore {
  readonly #folder: string;
  readonly #isKept: boolean;

  private constructor(folder: string, isKept: boolean) {
    this.#folder = folder;
    this.#isKept = isKept;
  }

  /** Without a key what is written goes when the stream is closed: what it depends on cannot be known. */
  static open(key: string | undefined, cache = dataCache()): PartStore {
    const folder = key === undefined ? temporaryPath(join(cache, "unnamed")) : join(cache, key);
    try {
      mkdirSync(folder, { recursive: true });
      removeUnused(cache);
      removeAbandoned(folder);
      const now = new Date();
      utimesSync(folder, now, now); // it is in use
    } catch (cause) {
      throw cacheError(cause, folder);
    }
    return new PartStore(folder, key !== undefined);
  }

  /** The parts that an earlier run has left, without a gap, and `about.json` if that run came to the end. */
  async found(): Promise<{ parts: StoredPart[]; about: StreamAbout | undefined }> {
    const parts: StoredPart[] = [];
    for (;;) {
      const head = await this.#readHead(parts.length);
      if (head === undefined) break;
      parts.push({ progress: head.progress, checksum: head.checksum });
    }
    const path = join(this.#folder, "about.json");
    const about = unsealed(
      await Bun.file(path)
        .text()
        .catch(() => ""),
    ) as StreamAbout | undefined;
    if (about?.parts === parts.length) return { parts, about };
    if (existsSync(path) || existsSync(this.path(parts.length)))
      remark(
        `${this.#folder}: tokens that are kept there are damaged; they are made again from part ${parts.length} on`,
      );
    return { parts, about: undefined };
  }

  /** Batches in order as part number `index`. */
  async write(index: number, batches: Batch[], progress: StreamProgress): Promise<StoredPart> {
    const count = (of: (batch: Batch) => Int32Array) => batches.reduce((sum, batch) => sum + of(batch).length, 0);
    const documents = count(({ lengths }) => lengths);
    const tokens = count((batch) => batch.tokens);
    const body = new Int32Array(2 * documents + tokens + Math.ceil(tokens / 32));
    const counts = body.subarray(2 * documents + tokens);
    let document = 0;
    let at = 0;
    for (const batch of batches) {
      body.set(batch.lengths, document);
      body.set(batch.tokens, 2 * documents + at);
      let end = 0;
      for (const length of batch.lengths) {
        end += length;
        body[documents + document++] = batch.targets[end - 1]!;
      }
      for (let i = 0; i < batch.targets.length; i++, at++)
        if (batch.targets[i] !== IGNORED) counts[at >>> 5]! |= 1 << (at & 31);
    }
    const head: Head = { documents, tokens, checksum: checksumOf(body), progress };
    const text = new TextEncoder().encode(sealed(head));
    const headBytes = Math.ceil(text.length / 4) * 4;
    const file = new Uint8Array(8 + headBytes + body.byteLength).fill(32, 8, 8 + headBytes);
    new Uint32Array(file.buffer, 0, 2).set([MAGIC, headBytes]);
    file.set(text, 8);
    file.set(new Uint8Array(body.buffer), 8 + headBytes);
    await this.#put(this.path(index), file);
    return { progress, checksum: head.checksum };
  }

  /** The stream ends here. */
  async end(about: StreamAbout): Promise<void> {
    await this.#put(join(this.#folder, "about.json"), sealed(about));
  }

  /** Only documents' lengths, which is all that the number of rows depends on; undefined if the part is not whole. */
  async readLengths(index: number): Promise<Int32Array | undefined> {
    const found = await this.#readBody(index);
    return found?.body.slice(0, found.head.documents);
  }

  /** Undefined if the part is not whole. */
  async read(index: number): Promise<Arrays | undefined> {
    const found = await this.#readBody(index);
    if (found === undefined) return undefined;
    const { head, body } = found;
    const { documents, tokens: length } = head;
    const tokens = body.subarray(2 * documents, 2 * documents + length);
    const counts = body.subarray(2 * documents + length);
    const targets = new Int32Array(length).fill(IGNORED);
    for (let i = 0; i + 1 < length; i++) if ((counts[i >>> 5]! >>> (i & 31)) & 1) targets[i] = tokens[i + 1]!;
    const starts = new Int32Array(documents + 1);
    for (let document = 0; document < documents; document++) {
      starts[document + 1] = starts[document]! + body[document]!;
      targets[starts[document + 1]! - 1] = body[documents + document]!;
    }
    return { tokens, targets, starts };
  }

  /** Removes what nobody can use again. */
  close(): void {
    if (!this.#isKept) rmSync(this.#folder, { recursive: true, force: true });
  }

  /** Where a part lies. */
  path(index: number): string {
    return join(this.#folder, `part-${String(index).padStart(6, "0")}`);
  }

  async #put(path: string, content: string | Uint8Array): Promise<void> {
    try {
      await writeFileAtomic(path, content);
    } catch (cause) {
      throw cacheError(cause, path);
    }
  }

  /** Undefined if the part is not there, or not whole. */
  async #readHead(index: number): Promise<(Head & { headBytes: number }) | undefined> {
    const path = this.path(index);
    if (!existsSync(path)) return undefined;
    const file = await open(path);
    try {
      const first = new Uint32Array(2);
      await file.read(first, 0, 8, 0);
      const [magic, headBytes] = first as Uint32Array & [number, number];
      const { size } = await file.stat();
      if (magic !== MAGIC || headBytes > size) return undefined;
      const text = new Uint8Array(headBytes);
      await file.read(text, 0, headBytes, 8);
      const head = unsealed(new TextDecoder().decode(text).trimEnd()) as Head | undefined;
      if (head === undefined) return undefined;
      const { documents, tokens } = head;
      return size === 8 + headBytes + bodyBytes(documents, tokens) ? { ...head, headBytes } : undefined;
    } catch {
      return undefined;
    } finally {
      await file.close();
    }
  }

  async #readBody(index: number): Promise<{ head: Head; body: Int32Array } | undefined> {
    const head = await this.#readHead(index);
    if (head === undefined) return undefined;
    const path = this.path(index);
    try {
      const body = new Int32Array(await Bun.file(path).arrayBuffer(), 8 + head.headBytes);
      return checksumOf(body) === head.checksum ? { head, body } : undefined;
    } catch (cause) {
      throw fileError(cause, "read", path);
    }
  }
}

function bodyBytes(documents: number, tokens: number): number {
  return 4 * (2 * documents + tokens + Math.ceil(tokens / 32));
}
