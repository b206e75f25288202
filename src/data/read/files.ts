// Data files to records, one by one, by the ending of their names:
//
//   .csv .tsv             a header and rows (csv.ts)
//   .parquet              columns, read a row group at a time
//   .txt .md .markdown    the whole file is one text
//   .json                 an array of records, or JSON Lines under another name
//   anything else         JSON Lines, read as a stream
//
// A record is given as its place and a function that reads it, so that one malformed line is the caller's to judge
// (`maxBadLines`), while a file that cannot be read at all throws here. Next: source.ts.

import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { extname, join } from "node:path";
import { DataError } from "../../words/errors.ts";
import { explainFileError } from "../../io/atomic.ts";
import { changedData } from "../../io/file-stamps.ts";
import { isHubPath, resolveDataset } from "../../io/hub-datasets.ts";
import { csvRecords } from "./csv.ts";
import { parquetRecords } from "./parquet.ts";

/** One line, row or element; `where` is its `file:line`. */
export interface FileRecord {
  where: string;
  /** The record itself; throws a `DataError` if it is malformed. */
  read: () => unknown;
}

const TEXTS = [".txt", ".md", ".markdown"];
const TABLES = [".jsonl", ".ndjson", ".csv", ".tsv", ".parquet"];
const ACCEPTED = "data takes files, folders and globs of JSONL, JSON, CSV, Parquet, text and Markdown";

/**
 * The files that a path stands for, in the order of their names: a file, what a glob matches, or what a folder holds.
 * In a folder with data files, its texts describe the data and are left out. A path of the hub is downloaded; `split`
 * says which of its files are needed.
 */
export async function findFiles(path: string, split: (files: string[]) => string[]): Promise<string[]> {
  if (isHubPath(path)) return resolveDataset(path, (names, inside) => split(chooseRemote(names, inside, path)));
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => error);
  if (found instanceof Error) {
    if (found.code !== "ENOENT") throw new DataError(`${path}: ${found.message}; ${ACCEPTED}`);
    if (!isGlob(path)) throw new DataError(`${path}: no such file; ${ACCEPTED}`);
    const matches = await Array.fromAsync(new Bun.Glob(path).scan({ onlyFiles: true }));
    if (matches.length === 0) throw new DataError(`${path}: the glob matches no file in ${process.cwd()}; ${ACCEPTED}`);
    return split(matches.sort());
  }
  if (!found.isDirectory()) return split([path]);
  const names = await readdir(path, { recursive: true }).catch((cause: unknown) => {
    throw unreadable(cause, path);
  });
  const visible = names.filter((name) => !/(^|[/\\])\./.test(name));
  const inside = dataFiles(visible.map((name) => join(path, name)));
  if (inside.length === 0)
    throw new DataError(
      `${path}: the folder has no ${[...TABLES, ...TEXTS].join(", ")} file; name the files if they end differently`,
    );
  return split(inside.sort());
}

/** The files of a repository that are meant by what follows its name: one, a glob, a folder, or all of its tables. */
function chooseRemote(names: string[], inside: string, path: string): string[] {
  if (names.includes(inside)) return [inside];
  const glob = new Bun.Glob(inside);
  const folder = inside === "" || inside.endsWith("/") ? inside : `${inside}/`;
  const chosen = isGlob(inside)
    ? names.filter((name) => glob.match(name))
    : names.filter((name) => name.startsWith(folder) && TABLES.includes(extname(name).toLowerCase()));
  if (chosen.length > 0) return chosen;
  throw new DataError(
    `${path}: has no ${isGlob(inside) ? "file that matches" : `${TABLES.join(", ")} file`} there ` +
      `(found ${names.slice(0, 8).join(", ") || "no files"}); name one, as in hf://datasets/OWNER/NAME/FILE`,
  );
}

function isGlob(path: string): boolean {
  return /[*?[{]/.test(path);
}

function dataFiles(names: string[]): string[] {
  const ends = (endings: string[]) => names.filter((name) => endings.includes(extname(name).toLowerCase()));
  const tables = ends(TABLES);
  return tables.length > 0 ? tables : ends(TEXTS);
}

/** Whether a file is read as JSON Lines, from its name alone; a .json file may be. */
export function isJsonLines(path: string): boolean {
  const ending = extname(path).toLowerCase();
  return ![...TEXTS, ".csv", ".tsv", ".parquet", ".json"].includes(ending);
}

/** The records of one file, in order. */
export async function* readRecords(path: string): AsyncGenerator<FileRecord> {
  try {
    yield* recordsOf(path);
  } catch (cause) {
    throw unreadable(cause, path);
  }
}

/** What the system says of a file that cannot be read, as a `DataError`; other errors as they are. */
export function unreadable(cause: unknown, path: string): unknown {
  if (!(cause as NodeJS.ErrnoException).syscall) return cause;
  return new DataError(`${path}: ${explainFileError(cause, "read")}`);
}

async function* recordsOf(path: string): AsyncGenerator<FileRecord> {
  const ending = extname(path).toLowerCase();
  if (TEXTS.includes(ending)) {
    const bytes = await Bun.file(path).bytes();
    yield { where: path, read: () => ({ text: decodeUtf8(bytes, path) }) };
  } else if (ending === ".csv" || ending === ".tsv") {
    yield* csvRecords(await readText(path), path, ending === ".csv" ? "," : "\t");
  } else if (ending === ".parquet") {
    yield* parquetRecords(path);
  } else if (ending === ".json" && (await firstCharacter(path)) === "[") {
    yield* arrayRecords(await readText(path), path);
  } else {
    let line = 0;
    for await (const bytes of readLines(path)) {
      line++;
      if (!isBlank(bytes)) yield lineRecord(bytes, `${path}:${line}`);
    }
  }
}

/** One line of JSON. */
export function lineRecord(bytes: Uint8Array, where: string): FileRecord {
  return { where, read: () => parse(decodeUtf8(bytes, where), where, "one JSON object per line") };
}

/** Spaces only, which nobody means as a sample. */
export function isBlank(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 32 || (byte >= 9 && byte <= 13));
}

/** A JSONL file in blocks of whole lines, each with the number of its first line, and its own memory. */
export async function* readLineBlocks(path: string, bytesMin: number) {
  try {
    yield* lineBlocksOf(path, bytesMin);
  } catch (cause) {
    throw unreadable(cause, path);
  }
}

async function* lineBlocksOf(path: string, bytesMin: number) {
  let firstLine = 1;
  let parts: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of Bun.file(path).stream()) {
    parts.push(chunk);
    length += chunk.length;
    const newline = chunk.lastIndexOf(10);
    if (length < bytesMin || newline === -1) continue;
    const rest = chunk.length - newline - 1;
    const whole = joinBytes(parts, length);
    const lines = whole.slice(0, length - rest);
    parts = [whole.slice(length - rest)];
    length = rest;
    const block = { lines, path, firstLine };
    for (let at = lines.indexOf(10); at !== -1; at = lines.indexOf(10, at + 1)) firstLine++;
    yield block; // who takes it may send it away to another thread
  }
  if (length > 0) yield { lines: joinBytes(parts, length), path, firstLine };
}

/** A part of a file that stays as it was when the part was planned. */
export interface FileRange {
  path: string;
  from: number;
  to: number;
  /** The whole file's. */
  size: number;
  mtimeMs: number;
}

/**
 * The whole lines that begin in a range, and where the first of them does; so ranges that lie end to end have every line
 * once. Read where it is called, by a worker: the main thread only names the range.
 */
export function readRange({ path, from, to, size, mtimeMs }: FileRange): { lines: Uint8Array; start: number } {
  let file: number | undefined;
  try {
    file = openSync(path, "r");
    const read = (begin: number, end: number): Uint8Array => {
      const bytes = new Uint8Array(end - begin);
      let length = 0;
      for (let got = -1; got !== 0 && length < bytes.length; length += got)
        got = readSync(file!, bytes, length, bytes.length - length, begin + length);
      return bytes.subarray(0, length);
    };
    const before = Math.max(0, from - 1); // a newline there ends the line of somebody else
    let bytes = read(before, to);
    const start = from === 0 ? 0 : bytes.indexOf(10) + 1;
    const begins = (from === 0 || start > 0) && before + start < to;
    // The last line goes on behind the range.
    while (begins && bytes.at(-1) !== 10 && before + bytes.length < size) {
      const at = before + bytes.length;
      const more = read(at, Math.min(size, at + 64 * 1024));
      if (more.length === 0) break;
      const newline = more.indexOf(10);
      const rest = newline === -1 ? more : more.subarray(0, newline + 1);
      bytes = joinBytes([bytes, rest], bytes.length + rest.length);
    }
    const now = fstatSync(file);
    if (now.size !== size || now.mtimeMs !== mtimeMs) throw changedData(path);
    return { lines: begins ? bytes.subarray(start) : new Uint8Array(), start: before + start };
  } catch (cause) {
    if (cause instanceof DataError || !(cause as NodeJS.ErrnoException).code) throw cause;
    throw new DataError(`${path}: ${explainFileError(cause, "read")}`);
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

/** The number of the line that begins at a byte of a file. */
export async function lineNumberAt(path: string, byte: number): Promise<number> {
  let line = 1;
  for await (const chunk of Bun.file(path).slice(0, byte).stream())
    for (let at = chunk.indexOf(10); at !== -1; at = chunk.indexOf(10, at + 1)) line++;
  return line;
}

function joinBytes(parts: Uint8Array[], length: number): Uint8Array {
  const joined = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** The lines of a file as bytes, without their newlines. */
async function* readLines(path: string): AsyncGenerator<Uint8Array> {
  let rest: Uint8Array = new Uint8Array();
  for await (const chunk of Bun.file(path).stream()) {
    const bytes = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk;
    let from = 0;
    for (let end = bytes.indexOf(10); end !== -1; end = bytes.indexOf(10, from)) {
      yield bytes.subarray(from, end);
      from = end + 1;
    }
    rest = bytes.subarray(from);
  }
  if (rest.length > 0) yield rest;
}

/** The elements of a JSON array, cut apart before they are parsed, so that one bad element has a line of its own. */
function* arrayRecords(text: string, path: string): Generator<FileRecord> {
  const marks = /["[\]{},\n]/g;
  marks.lastIndex = text.indexOf("[") + 1;
  let line = 1 + newlines(text.slice(0, marks.lastIndex));
  let depth = 0;
  let from = marks.lastIndex;
  let startLine = line;
  const element = (to: number): FileRecord | undefined => {
    const source = text.slice(from, to);
    const where = `${path}:${startLine + newlines(source.slice(0, source.search(/\S|$/)))}`;
    return source.trim() === "" ? undefined : { where, read: () => parse(source, where, "a JSON object") };
  };
  for (let mark = marks.exec(text); mark !== null; mark = marks.exec(text)) {
    const [found] = mark;
    if (found === "\n") line++;
    else if (found === '"') {
      const end = endOfString(text, mark.index + 1);
      marks.lastIndex = end;
    } else if (found === "[" || found === "{") depth++;
    else if (found === "," ? depth === 0 : depth-- === 0) {
      const record = element(mark.index);
      if (record) yield record;
      if (found !== ",") return;
      from = marks.lastIndex;
      startLine = line;
    }
  }
  throw new DataError(`${path}:${line}: the array that begins the file is not closed; the file may be cut off`);
}

/** The place after the quote that ends a JSON string; a string never holds a bare newline. */
function endOfString(text: string, at: number): number {
  for (let i = at; i < text.length; i++) {
    const character = text[i];
    if (character === "\\") i++;
    else if (character === '"') return i + 1;
    else if (character === "\n") return i;
  }
  return text.length;
}

function newlines(text: string): number {
  return text.split("\n").length - 1;
}

/** A file that must be in memory as a whole: CSV and JSON arrays. */
async function readText(path: string): Promise<string> {
  const { size } = Bun.file(path);
  const bytesMax = 2 ** 29; // a JavaScript string holds no more in every engine
  if (size > bytesMax)
    throw new DataError(
      `${path}: has ${size} bytes, and this format is read as a whole, up to ${bytesMax}; convert it to JSONL or Parquet`,
    );
  const text = decodeUtf8(await Bun.file(path).bytes(), path);
  return text.startsWith("\ufeff") ? text.slice(1) : text;
}

async function firstCharacter(path: string): Promise<string> {
  return (await Bun.file(path).slice(0, 4096).text()).trimStart()[0] ?? "";
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

function decodeUtf8(bytes: Uint8Array, where: string): string {
  try {
    return utf8.decode(bytes);
  } catch {
    throw new DataError(`${where}: not valid UTF-8; save the file as UTF-8`);
  }
}

function parse(source: string, where: string, expected: string): unknown {
  try {
    return JSON.parse(source);
  } catch (error) {
    throw new DataError(`${where}: not valid JSON (${(error as Error).message}); expected ${expected}`);
  }
}
