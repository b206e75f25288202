// Whether files are still what they were when somebody began to read them: their size, time of change and identity. A file
// that is written to, or replaced, while it is read gives half of one and half of another, and nothing else would tell.

import { statSync } from "node:fs";
import { DataError } from "../words/errors.ts";

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
  return found ? `${found.dev} ${found.ino} ${found.size} ${found.mtimeNs}` : "missing";
}
