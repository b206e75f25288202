// Small files and finished directories appear whole or not at all.
//
// A file is written under a temporary name beside its final one, flushed to stable storage, renamed, and the directory
// entry is flushed too: after a crash the old file or the new one is there, never half of one. A directory is built
// under a temporary name by whoever fills it, and published by one rename. Leftovers of a crash end in `.tmp`.
// Failures (full disk, permissions) are `SluiceError`s that name the path and what to do.

import { existsSync, readdirSync, rmSync, statSync } from "node:fs";
import { type FileHandle, open, readdir, rename, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import { SluiceError } from "../words/errors.ts";

let serial = 0;

/** A name that file names may hold, of the machine whose process ids these are. */
const host = hostname().replace(/[^\w-]/g, "-");

/** The temporary name beside `path` under which its next version is prepared. */
export function temporaryPath(path: string): string {
  serial += 1;
  return join(dirname(path), `.${basename(path)}@${host}.${process.pid}.${serial}.tmp`);
}

/** Removes what interrupted writers left in a directory. Nobody may be writing there at the time. */
export function removeLeftovers(directory: string): void {
  for (const name of readdirSync(directory))
    if (/^\..+\.\d+\.\d+\.tmp$/.test(name)) rmSync(join(directory, name), { recursive: true, force: true });
}

/** How long another machine's writer may be silent before it counts as gone. */
const silenceMsMax = 24 * 3600 * 1000;

/** Removes what writers that are gone left in a directory where others may be writing, of this machine or of others. */
export function removeAbandoned(directory: string): void {
  for (const name of readdirSync(directory)) {
    const [found, writer = host, pid] = /^\..+?(?:@([\w-]+))?\.(\d+)\.\d+\.tmp$/.exec(name) ?? [];
    if (found === undefined) continue;
    const path = join(directory, name);
    if (writer === host ? !isAlive(Number(pid)) : Date.now() - lastWrite(path) > silenceMsMax)
      rmSync(path, { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === "EPERM"; // somebody else's
  }
}

/** When a file, or one inside a folder, was written last. */
function lastWrite(path: string): number {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) return Date.now();
  const inside = found.isDirectory() ? readdirSync(path).map((name) => lastWrite(join(path, name))) : [];
  return Math.max(found.mtimeMs, ...inside);
}

/** Writes a small file (JSON, a loss curve) atomically and durably, replacing what was there. */
export async function writeFileAtomic(path: string, content: string | Uint8Array): Promise<void> {
  const temporary = temporaryPath(path);
  try {
    await withHandle(temporary, "wx", async (handle) => {
      await handle.writeFile(content);
      await handle.sync();
    });
    await rename(temporary, path);
    await syncDirectory(dirname(path));
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => {});
    throw fileError(cause, "write", path);
  }
}

/**
 * Makes the finished directory `temporary` appear as `final`, which must not exist; both are on one file system. Every
 * file inside is flushed first, so that the rename never publishes names whose bytes are still in flight.
 */
export async function publishDirectory(temporary: string, final: string): Promise<void> {
  let at = temporary;
  try {
    for (const entry of await readdir(temporary, { recursive: true, withFileTypes: true })) {
      at = join(entry.parentPath, entry.name);
      if (entry.isFile() || entry.isDirectory()) await withHandle(at, "r", (handle) => handle.sync());
    }
    at = temporary;
    await syncDirectory(temporary);
    at = final;
    await rename(temporary, final);
    await syncDirectory(dirname(final));
  } catch (cause) {
    throw fileError(cause, "write", at);
  }
}

/**
 * Publishes `temporary` as `final`; what was there before is moved aside first, removed last, and put back when publishing
 * fails.
 */
export async function replaceDirectory(temporary: string, final: string): Promise<void> {
  const old = existsSync(final) ? temporaryPath(final) : undefined;
  if (old) await rename(final, old);
  try {
    await publishDirectory(temporary, final);
  } catch (cause) {
    if (old) await rename(old, final);
    throw cause;
  }
  if (old) await rm(old, { recursive: true, force: true });
}

/** Flushes a directory's entries: without it a rename or a new file may be lost in a power cut. */
export async function syncDirectory(path: string): Promise<void> {
  await withHandle(path, "r", (handle) => handle.sync());
}

async function withHandle(path: string, flags: string, use: (handle: FileHandle) => Promise<void>): Promise<void> {
  const handle = await open(path, flags);
  try {
    await use(handle);
  } finally {
    await handle.close();
  }
}

/** A system error as a `SluiceError` with its path; other errors (and `SluiceError`s) as they are. */
export function fileError(cause: unknown, doing: "read" | "write", path: string): unknown {
  if (cause instanceof SluiceError || !(cause as NodeJS.ErrnoException)?.code) return cause;
  return new SluiceError(`${path}: ${explainFileError(cause, doing)}`);
}

/** What went wrong and what to do, to follow "PATH: ". */
export function explainFileError(cause: unknown, doing: "read" | "write"): string {
  const { code, message } = cause as NodeJS.ErrnoException;
  switch (code) {
    case "ENOENT":
      return doing === "read" ? "does not exist" : "cannot be written, its directory does not exist; create it first";
    case "ENOTDIR":
      return `cannot be ${doing === "read" ? "read" : "written"}, part of its path is a file and not a directory`;
    case "EISDIR":
      return "is a directory, a file was expected";
    case "EACCES":
    case "EPERM":
      return `no permission to ${doing} it; check its owner and mode`;
    case "EROFS":
      return "is on a read-only file system; choose another directory";
    case "ENOSPC":
      return "the disk is full; free space or choose another directory";
    case "EDQUOT":
      return "the disk quota is used up; free space or choose another directory";
    case "EFBIG":
      return "the file would be larger than the system allows (ulimit -f, or the file system's limit)";
    case "EEXIST":
    case "ENOTEMPTY":
      return "exists already; remove it or choose another name";
    case "EXDEV":
      return "cannot be renamed across file systems; keep temporary and final directory on one";
    case "EMFILE":
    case "ENFILE":
      return "too many files are open; raise the limit (ulimit -n)";
    case "EIO":
      return `the device failed to ${doing} it (input/output error); check the disk`;
    default:
      return `cannot ${doing} it: ${message}`;
  }
}
