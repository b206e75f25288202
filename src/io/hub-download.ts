// One file from the hub to the cache, whole or not at all.
//
// A file appears under its final name when its size and checksum are right and its bytes are on the disk. A broken
// transfer leaves `*.sluice.incomplete`, which the next attempt, in this run or a later one, continues.
//
// @huggingface/hub knows addresses, redirects and ranges. Storing is done here, because its `downloadFileToCacheDir`
// compares neither size nor checksum, starts a broken file again from the first byte, and writes to stdout. Its Xet
// protocol is not used: the tests have no server that speaks it, and the hub serves the same files by plain HTTP.

import { createHash } from "node:crypto";
import { constants, statSync } from "node:fs";
import { type FileHandle, mkdir, open, rename, rm, statfs, symlink } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { ModelError } from "../words/errors.ts";
import { formatBytes } from "../words/format.ts";
import type { StatusStream } from "../words/status-stream.ts";
import { syncDirectory, temporaryPath } from "./atomic.ts";
import { Connection, HubError, type HubModel } from "./hub-connection.ts";

export interface Repository extends HubModel {
  /** Where the cache keeps it. */
  folder: string;
  output: StatusStream;
}

export interface RemoteFile {
  /** Its path in the repository. */
  name: string;
  bytes: number;
  /** SHA-256 of a large file, git's SHA-1 of a small one: its checksum, and its blob's name in the cache. */
  etag: string;
}

/** How something of the hub is brought here. */
export interface ResolveOptions {
  /** Gets a line per downloaded file, a live one on a terminal. Default stderr: stdout may belong to a machine. */
  output?: StatusStream;
  /** How long the hub may send nothing before the connection counts as broken. Default 30,000. */
  silenceMsMax?: number;
}

/** A revision, and the checksum of a file: git's SHA-1, or SHA-256. */
export const commitPattern = /^[0-9a-f]{40}$/;
export const etagPattern = /^([0-9a-f]{40}|[0-9a-f]{64})$/;

/** What a file's size may be. */
export function isSize(bytes: number): boolean {
  return Number.isSafeInteger(bytes) && bytes >= 0;
}

/** Attempts in a row that bring no new byte before a file is given up. */
const attemptsMax = 3;

/** Brings the files that are missing into the cache, and links them into the snapshot; `revision` is a commit. */
export async function downloadMissing(repository: Repository, wanted: RemoteFile[], snapshot: string): Promise<void> {
  const { id, folder } = repository;
  const blobs = join(folder, "blobs");
  const missing = wanted.filter(({ name, bytes }) => fileBytes(join(snapshot, name)) !== bytes);
  await mkdir(blobs, { recursive: true });
  const toCome = missing.map(
    ({ etag, bytes }) => bytes - Math.min(bytes, fileBytes(partialPath(join(blobs, etag))) ?? 0),
  );
  const needed = toCome.reduce((sum, bytes) => sum + bytes, 0);
  const { bavail, bsize } = await statfs(blobs);
  if (needed > bavail * bsize)
    throw new ModelError(
      `${id}: needs ${formatBytes(needed)} more in ${folder}, whose disk has ${formatBytes(bavail * bsize)} left; free space, or set HF_HOME to a directory on a larger disk`,
    );
  for (const file of missing) {
    const blob = join(blobs, file.etag);
    if (fileBytes(blob) !== file.bytes) await downloadBlob(repository, file, blob);
    await link(join(snapshot, file.name), blob);
  }
}

/** Downloads a file, or the rest of it, and publishes it as `blob`. */
async function downloadBlob(repository: Repository, file: RemoteFile, blob: string): Promise<void> {
  // Two runs may download the same blob at once: both write the same bytes to the same places of the same file. The
  // name is not Python's `.incomplete`, because Python appends.
  const partial = partialPath(blob);
  const handle = await open(partial, constants.O_RDWR | constants.O_CREAT, 0o644);
  try {
    const start = (await handle.stat()).size;
    await receive(repository, file, handle, start);
    let digest = await checksum(handle, file);
    if (digest !== file.etag && start > 0) {
      await handle.truncate(0); // what an earlier run had left was wrong
      await receive(repository, file, handle, 0);
      digest = await checksum(handle, file);
    }
    if (digest !== file.etag) {
      await rm(partial, { force: true });
      throw new ModelError(
        `${repository.id}: ${file.name} arrived with checksum ${digest} instead of ${file.etag}; run again, and if it stays so, something on the way to ${repository.endpoint} changes files`,
      );
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(partial, blob).catch((cause: unknown) => {
    if (fileBytes(blob) !== file.bytes) throw cause; // else the other run was faster
  });
  await syncDirectory(dirname(blob));
}

/** Fills the file from byte `start` to its end, over as many connections as it takes. */
async function receive(repository: Repository, file: RemoteFile, handle: FileHandle, start: number): Promise<void> {
  const progress = new Progress(repository, file, start);
  let at = start;
  let failures = 0;
  try {
    while (at < file.bytes) {
      const attemptStart = at;
      try {
        for await (const chunk of pieces(repository, file, at)) {
          await writeAll(handle, chunk, at);
          at += chunk.length;
          progress.show(at);
        }
      } catch (cause) {
        failures = at > attemptStart ? 0 : failures + 1;
        if (!(cause instanceof HubError && cause.isOutage) || failures === attemptsMax) throw cause;
        await Bun.sleep(failures * 1000);
      }
    }
  } finally {
    progress.end(at);
  }
}

/** A file's bytes from `start` on, over one connection; never more of them than it has. */
async function* pieces(repository: Repository, file: RemoteFile, start: number): AsyncGenerator<Uint8Array> {
  const { downloadFile } = await import("@huggingface/hub");
  using connection = new Connection(repository);
  const { kind, id, revision } = repository;
  let at = start;
  try {
    const repo = { type: kind, name: id };
    const content = await downloadFile({ ...connection.parameters, repo, path: file.name, revision, xet: false });
    const reader = content!.slice(start, file.bytes).stream().getReader();
    while (at < file.bytes) {
      const { value } = await reader.read();
      if (value === undefined) throw new Error("the transfer ended early");
      connection.heard();
      yield value.subarray(0, file.bytes - at);
      at += value.length;
    }
  } catch (cause) {
    throw connection.failure ?? connection.lost(cause);
  }
}

// ---- the cache's files ----------------------------------------------------------------------------------------------

function partialPath(blob: string): string {
  return `${blob}.sluice.incomplete`;
}

/** Undefined if there is no such file; a snapshot's link is followed. */
function fileBytes(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.size;
}

/** A write may take less than it is given. */
async function writeAll(handle: FileHandle, chunk: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < chunk.length;)
    done += (await handle.write(chunk, done, chunk.length - done, position + done)).bytesWritten;
}

/** Of what is on the disk, not of what came by: a part may be from an earlier run. */
async function checksum(handle: FileHandle, file: RemoteFile): Promise<string> {
  const isLarge = file.etag.length === 64;
  const hash = isLarge ? createHash("sha256") : createHash("sha1").update(`blob ${file.bytes}\0`);
  const buffer = new Uint8Array(4 << 20);
  for (let at = 0; ;) {
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, at);
    if (bytesRead === 0) return hash.digest("hex");
    hash.update(buffer.subarray(0, bytesRead));
    at += bytesRead;
  }
}

/** Lets a snapshot's name point at a blob, relative to each other, so that the cache can be moved. */
async function link(path: string, blob: string): Promise<void> {
  const temporary = temporaryPath(path);
  await mkdir(dirname(path), { recursive: true }); // files of a dataset may lie in folders
  await symlink(relative(dirname(path), blob), temporary);
  await rename(temporary, path);
}

// ---- what a person sees ---------------------------------------------------------------------------------------------

/** One line per file: live on a terminal, else written when the download begins. */
class Progress {
  readonly #output: StatusStream;
  readonly #label: string;
  readonly #bytes: number;
  readonly #start: number;
  readonly #began = performance.now();
  #shown = 0;

  constructor({ id, output }: Repository, { name, bytes }: RemoteFile, start: number) {
    this.#output = output;
    this.#label = `downloading ${id} ${name}, ${formatBytes(bytes)}${start > 0 ? ` from ${formatBytes(start)} on` : ""}`;
    this.#bytes = bytes;
    this.#start = start;
    output.write(this.#label + (output.isTTY ? "" : "\n"));
  }

  show(at: number, end = ""): void {
    const now = performance.now();
    if (!this.#output.isTTY || (!end && now - this.#shown < 100)) return;
    this.#shown = now;
    const share = Math.floor((100 * at) / Math.max(this.#bytes, 1));
    const rate = formatBytes((1000 * (at - this.#start)) / Math.max(now - this.#began, 1));
    const line = `${this.#label}: ${share} %, ${rate}/s`;
    this.#output.write(`\r\x1b[2K${Bun.sliceAnsi(line, 0, (this.#output.columns ?? 80) - 1)}${end}`);
  }

  end(at: number): void {
    this.show(at, "\n");
  }
}
