// Whether files are still what they were when somebody began to read them: their size, time of change and identity. A file
// that is written to, or replaced, while it is read gives half of one and half of another, and nothing else would tell.

import { statSync } from "node:fs";
import { resolve } from "node:path";
import { DataError } from "../words/errors.ts";
import { formatBytes, formatWord } from "../words/format.ts";
import { isObject } from "./json.ts";

export class FileStamps {
  readonly #stamps = new Map<string, string>();

  constructor(paths: Iterable<string> = []) {
    for (const path of paths) this.add(path);
  }

  /** Call it before the file is opened. */
  add(path: string): void {
    this.#stamps.set(path, stampOf(path));
  }

  /** The first file that is not what it was; call it after all has been read. */
  changed(): string | undefined {
    for (const [path, stamp] of this.#stamps) if (stampOf(path) !== stamp) return path;
    return undefined;
  }

  /** The same for data: a `DataError` names the file. */
  checkData(): void {
    const changed = this.changed();
    if (changed !== undefined) throw changedData(changed);
  }
}

/** What a data file that did not stay what it was is refused with. */
export function changedData(path: string): DataError {
  return new DataError(`${path}: was changed while it was read; start again when nobody writes to it`);
}

function stampOf(path: string): string {
  const found = statSync(path, { bigint: true, throwIfNoEntry: false });
  return found ? `${found.dev} ${found.ino} ${found.size} ${found.mtimeNs} ${found.ctimeNs}` : "missing";
}

/** A file as it was at some moment, as a checkpoint remembers it. */
export interface FileNote {
  path: string;
  size: number;
  mtimeMs: number;
  ctimeMs: number;
}

/** So many are remembered; what has become of more than these is not told file by file. */
const notesMax = 1000;

export function noteFiles(paths: string[]): FileNote[] {
  return paths.slice(0, notesMax).map((path) => {
    const { size, mtimeMs, ctimeMs } = statSync(path);
    return { path: resolve(path), size, mtimeMs, ctimeMs };
  });
}

/** What has become of some files, in words; undefined if they are what they were. The notes may have been written by hand. */
export function fileChanges(before: unknown, now: FileNote[]): string | undefined {
  if (!Array.isArray(before) || !before.every(isObject)) return undefined;
  const notes = before as Record<keyof FileNote, unknown>[];
  const list = (paths: unknown[]) =>
    paths.slice(0, 3).map(formatWord).join(", ") + (paths.length > 3 ? ` and ${paths.length - 3} more` : "");
  const paths = now.map(({ path }) => path);
  const gone = notes.filter(({ path }) => !paths.includes(path as string)).map(({ path }) => path);
  const added = paths.filter((path) => !notes.some((note) => note.path === path));
  if (gone.length > 0 || added.length > 0) {
    if (gone.length === 0) return `${list(added)} came to it`;
    return added.length === 0 ? `${list(gone)} went from it` : `it was ${list(gone)} and is ${list(added)}`;
  }
  const differs = (note: FileNote, old: (typeof notes)[number]) =>
    (["size", "mtimeMs", "ctimeMs"] as const).some((key) => note[key] !== old[key]);
  const changed = now.filter((note) =>
    differs(
      note,
      notes.find(({ path }) => path === note.path)!,
    ),
  );
  if (changed.length === 0) return undefined;
  const [{ path, size, mtimeMs }] = changed as [FileNote];
  const old = notes.find((note) => note.path === path)!;
  const sizes =
    old.size === size ? "its size is the same" : `it had ${formatBytes(Number(old.size))} and has ${formatBytes(size)}`;
  const more = changed.length > 1 ? `, and so were ${changed.length - 1} more` : "";
  return `${path} was written to at ${new Date(mtimeMs).toISOString().slice(0, 19)}Z, ${sizes}${more}`;
}
