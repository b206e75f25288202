// Which directories may be written: new ones, empty ones, and our own of the same kind, which a marker in them says, not
// their name. Never one that an input lies in or that lies in an input, links resolved. Everything else takes a word of
// the user's, `overwrite`, and even then nothing is deleted that we have not written.

import {
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  readFileSync,
  readdirSync,
  realpathSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join, relative, resolve } from "node:path";
import { ConfigError } from "../words/errors.ts";
import { fileError } from "./atomic.ts";
import { isObject, parseJson } from "./json.ts";

/** A run's directory, in which it writes among what else may be there; an exported model's, which is replaced as a whole. */
export type DirectoryKind = "run" | "model";

const markerName = ".sluice";
const described: Record<DirectoryKind, string> = { run: "a run", model: "an exported model" };

interface Marker {
  kind: DirectoryKind;
  /** Of a model: all names that were written. */
  files?: string[];
}

/** Says in the directory itself whose it is. `files`: everything that was written into it. */
export function markDirectory(directory: string, kind: DirectoryKind, files?: readonly string[]): void {
  const marker: Marker = { kind, ...(files && { files: [...files] }) };
  try {
    writeFileSync(join(directory, markerName), `${JSON.stringify(marker)}\n`, { flush: true });
    const entry = openSync(directory, "r"); // a power cut may not leave a run that nobody knows as ours
    fsyncSync(entry);
    closeSync(entry);
  } catch (cause) {
    throw fileError(cause, "write", join(directory, markerName));
  }
}

function markerOf(directory: string): Marker | undefined {
  try {
    const value = parseJson(readFileSync(join(directory, markerName), "utf8"));
    return isObject(value) && (value["kind"] === "run" || value["kind"] === "model")
      ? (value as unknown as Marker)
      : undefined;
  } catch {
    return undefined; // none, or none of ours
  }
}

/** A path with links resolved, as far as it exists. */
function realPath(path: string): string {
  const whole = resolve(path);
  if (existsSync(whole)) return realpathSync(whole);
  const above = dirname(whole);
  return above === whole ? whole : join(realPath(above), basename(whole));
}

const isInside = (path: string, directory: string): boolean => {
  const way = relative(directory, path);
  return way === "" || (way !== ".." && !way.startsWith("../"));
};

export interface Claim {
  kind: DirectoryKind;
  /** What is read: model, data. Names that are no paths are passed over. */
  inputs: readonly string[];
  /** The user's word that what is there may go. */
  overwrite: boolean;
  /** How the directory is called in messages, such as `output`. */
  name: string;
  /** Of a run: the entries that it writes; an input may lie beside them. */
  entries?: readonly string[];
}

/**
 * Whether `directory` may be written; a ConfigError says why not and what to do. True when something is there that is not
 * ours and `overwrite` was said: a model then moves it aside.
 */
export function checkClaim(directory: string, { kind, inputs, overwrite, name, entries }: Claim): boolean {
  const target = realPath(directory);
  const said = `${name} (${JSON.stringify(directory)})`;
  for (const input of inputs) {
    if (!existsSync(input)) continue;
    const source = realPath(input);
    const written = entries ? entries.map((entry) => join(target, entry)) : [target];
    if (target === source || (isInside(target, source) && statSync(source).isDirectory()))
      throw new ConfigError(
        `${said} is ${target === source ? "" : "inside "}${JSON.stringify(input)}, which is read; choose another directory`,
      );
    if (written.some((path) => isInside(source, path)))
      throw new ConfigError(
        `${said} would be written over ${JSON.stringify(input)}, which is read; choose another directory`,
      );
  }
  const found = existsSync(target) ? statSync(target) : undefined;
  if (found === undefined) return false;
  if (!found.isDirectory()) throw new ConfigError(`${said} is a file; choose a new directory`);
  const marker = markerOf(target);
  // A run goes on beside its own leftovers; an export replaces everything, so that everything counts.
  const own = (entry: string): boolean =>
    (entry === markerName && marker !== undefined) ||
    (kind === "run" && (entry === "run.lock" || /^\..+\.\d+\.\d+\.tmp$/.test(entry)));
  const present = readdirSync(target)
    .filter((entry) => !own(entry))
    .sort();
  if (present.length === 0) return false;
  const foreign =
    marker?.kind !== kind ? present : kind === "model" ? present.filter((entry) => !marker.files?.includes(entry)) : [];
  if (foreign.length === 0) return false;
  if (overwrite) return true;
  const some = foreign.slice(0, 3).join(", ") + (foreign.length > 3 ? `, and ${foreign.length - 3} more` : "");
  const holds =
    marker && marker.kind !== kind ? `is ${described[marker.kind]}` : `holds what Sluice has not written (${some})`;
  throw new ConfigError(
    `${said} ${holds}; choose a new or empty directory, or say --overwrite: ` +
      (kind === "run"
        ? "the run is then written among the other files"
        : `what is there is then moved to ${JSON.stringify(`${directory}.before`)}`),
  );
}
