// Data files to records, one by one, as format.ts says what they are:
//
//   .csv .tsv             a header and rows (csv.ts)
//   .parquet              columns, read a row group at a time
//   .txt .md .markdown    the whole file is one text
//   .json                 an array of records, or records over several lines (json-values.ts), or JSON Lines
//   anything else         JSON Lines, read as a stream
//
// All but Parquet may be packed (.gz, .zst). No line may be longer than `lineBytesMax`, and what has to be in memory as a whole
// no larger than `wholeBytesMax`; the time is that of reading once, whatever lines and rows are like.
//
// A record is given as its place and a function that reads it, so that one malformed line is the caller's to judge
// (`maxBadLines`), while a file that cannot be read at all throws here. Next: source.ts.

import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { DataError } from "../../words/errors.ts";
import { remark } from "../../words/remark.ts";
import { explainFileError } from "../../io/atomic.ts";
import { parseExact } from "../../io/exact-json.ts";
import { changedData } from "../../io/file-stamps.ts";
import { isHubPath, resolveDataset } from "../../io/hub-datasets.ts";
import { csvRecords, SEPARATORS, separatorOf } from "./csv.ts";
import { dataFiles, formatOf, KINDS, openBytes, type Format } from "./format.ts";
import { jsonPieces } from "./json-values.ts";
import { parquetRecords } from "./parquet.ts";
import type { FileRecord } from "./record.ts";

/** The most bytes of a line; a JavaScript string holds half a gigabyte, and what is made of a line is many times as large. */
export const lineBytesMax = 2 ** 27;
/** The most bytes of a CSV, of JSON that is no JSON Lines, and of a text. */
export const wholeBytesMax = 2 ** 29;
const ACCEPTED = "data takes files, folders and globs of JSONL, JSON, CSV, Parquet, text and Markdown";

/** Takes those of some files that are needed; `isWhole`: a folder or a data set, and nobody chose among its files. */
type Choose = (files: string[], isWhole: boolean) => string[];

/**
 * The files that a path stands for, in the order of their names: a file, what a glob matches, or what a folder holds.
 * In a folder with data files, its texts describe the data and are left out. A path of the hub is downloaded; `split`
 * says which of its files are needed.
 */
export async function findFiles(path: string, split: Choose): Promise<string[]> {
  if (isHubPath(path))
    return resolveDataset(path, (names, inside) => {
      const chosen = split(chooseRemote(names, inside, path), !isGlob(inside));
      // Often the same data in several forms, of which other tools ask for one.
      const folders = inside === "" ? [...new Set(chosen.map((name) => dirname(name)))] : [];
      if (folders.length > 1)
        remark(
          `${path}: its folders ${folders.slice(0, 5).join(", ")} are read together; one is named as in ${path}/${folders.at(-1)}`,
        );
      return chosen;
    });
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => error);
  if (found instanceof Error) {
    if (found.code !== "ENOENT") throw new DataError(`${path}: ${found.message}; ${ACCEPTED}`);
    if (!isGlob(path)) throw new DataError(`${path}: no such file; ${ACCEPTED}`);
    const matches = await Array.fromAsync(new Bun.Glob(path).scan({ onlyFiles: true }));
    if (matches.length === 0) throw new DataError(`${path}: the glob matches no file in ${process.cwd()}; ${ACCEPTED}`);
    return split(matches.sort(), false);
  }
  if (found.isFile()) return split([path], false);
  if (!found.isDirectory())
    throw new DataError(
      `${path}: is no file but a pipe or a device, and data is read more than once; write it to a file first`,
    );
  const names = await readdir(path, { recursive: true }).catch((cause: unknown) => {
    throw unreadable(cause, path);
  });
  const visible = names.filter((name) => !/(^|[/\\])\./.test(name));
  const inside = dataFiles(visible.map((name) => join(path, name)));
  if (inside.length === 0)
    throw new DataError(
      `${path}: the folder has no ${KINDS.flat().join(", ")} file${strangersIn(visible)}; name the files if they end differently`,
    );
  return split(inside.sort(), true);
}

/** The files of a repository that are meant by what follows its name: one, a glob, a folder, or all of its tables. */
function chooseRemote(names: string[], inside: string, path: string): string[] {
  if (names.includes(inside)) return [inside];
  const glob = new Bun.Glob(inside);
  const folder = inside === "" || inside.endsWith("/") ? inside : `${inside}/`;
  const chosen = isGlob(inside)
    ? names.filter((name) => glob.match(name))
    : dataFiles(
        names.filter((name) => name.startsWith(folder)),
        KINDS.slice(0, 2),
      );
  if (chosen.length > 0) return chosen;
  throw new DataError(
    `${path}: has no ${isGlob(inside) ? "file that matches" : `${KINDS.slice(0, 2).flat().join(", ")} file`} there ` +
      `(found ${names.slice(0, 8).join(", ") || "no files"}); name one, as in hf://datasets/OWNER/NAME/FILE`,
  );
}

function isGlob(path: string): boolean {
  return /[*?[{]/.test(path);
}

/** What a folder without data has instead, as far as that is a known case. */
function strangersIn(names: string[]): string {
  const arrow = names.find((name) => name.endsWith(".arrow"));
  if (arrow === undefined) return "";
  return ` (${arrow} is Arrow, as save_to_disk writes it: write Parquet with dataset.to_parquet(FILE))`;
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
  const { form, packing, ending } = await formatOf(path);
  if (form === "text") {
    const bytes = await readWhole(path, packing);
    yield { where: path, read: () => ({ text: decodeUtf8(bytes, path) }) };
  } else if (form === "csv") {
    const text = decodeUtf8(await readWhole(path, packing), path);
    const expected = ending === ".tsv" ? "\t" : ",";
    const separator = separatorOf(text, expected);
    if (separator !== expected)
      remark(`${path}: read with ${SEPARATORS[separator]} between fields, as its header has it`);
    yield* csvRecords(text, path, separator);
  } else if (form === "parquet") {
    if (packing !== undefined) throw new DataError(`${path}: is Parquet inside ${packing}; unpack it first`);
    yield* parquetRecords(path);
  } else if (form === "json") {
    for (const piece of jsonPieces(decodeUtf8(await readWhole(path, packing), path), path)) {
      const where = `${path}:${piece.line}`;
      const read = () => {
        if ("problem" in piece) throw new DataError(`${where}: ${piece.problem}`);
        return parse(piece.text, where, "a JSON object");
      };
      yield { where, read };
    }
  } else {
    yield* lineRecords(path, packing);
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
  const { packing } = await formatOf(path);
  let firstLine = 1;
  let parts: Uint8Array[] = [];
  let length = 0;
  let tail = 0; // bytes of the line that is not over
  for await (const chunk of openBytes(path, packing)) {
    parts.push(chunk);
    length += chunk.length;
    const newline = chunk.lastIndexOf(10);
    tail = newline === -1 ? tail + chunk.length : chunk.length - newline - 1;
    if (tail > lineBytesMax)
      throw lineTooLong(`${path}:${firstLine + parts.reduce((sum, part) => sum + newlinesIn(part), 0)}`);
    if (length < bytesMin || newline === -1) continue;
    const rest = chunk.length - newline - 1;
    const whole = joinBytes(parts, length);
    const lines = whole.slice(0, length - rest);
    parts = [whole.slice(length - rest)];
    length = rest;
    const block = { lines, path, firstLine };
    firstLine += newlinesIn(lines);
    yield block; // who takes it may send it away to another thread
  }
  if (length > 0) yield { lines: joinBytes(parts, length), path, firstLine };
}

function newlinesIn(bytes: Uint8Array): number {
  let count = 0;
  for (let at = bytes.indexOf(10); at !== -1; at = bytes.indexOf(10, at + 1)) count++;
  return count;
}

function lineTooLong(where: string): DataError {
  return new DataError(
    `${where}: the line has more than ${lineBytesMax} bytes, the most that one may have; ` +
      "a record belongs on a line of its own, and a text that long into several records",
  );
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
    const parts = [read(before, to)];
    let [bytes] = parts as [Uint8Array];
    const start = from === 0 ? 0 : bytes.indexOf(10) + 1;
    const begins = (from === 0 || start > 0) && before + start < to;
    // The last line goes on behind the range: by ever longer pieces, since nobody knows how far.
    let length = bytes.length;
    for (let ends = bytes.at(-1) === 10; begins && !ends && before + length < size; length += parts.at(-1)!.length) {
      const at = before + length;
      if (at >= to + lineBytesMax) throw lineTooLong(`${path}: at byte ${to}`);
      const more = read(at, Math.min(size, to + lineBytesMax, at + Math.max(64 * 1024, length)));
      const newline = more.indexOf(10);
      ends = newline !== -1 || more.length === 0;
      parts.push(newline === -1 ? more : more.subarray(0, newline + 1));
    }
    if (parts.length > 1) bytes = joinBytes(parts, length);
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
  for await (const chunk of Bun.file(path).slice(0, byte).stream()) line += newlinesIn(chunk);
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

/** The lines of a file that are not blank. */
async function* lineRecords(path: string, packing: Format["packing"]): AsyncGenerator<FileRecord> {
  let parts: Uint8Array[] = [];
  let length = 0;
  let line = 1;
  for await (const chunk of openBytes(path, packing)) {
    let from = 0;
    for (; ; line++) {
      if (length === 0) for (; chunk[from] === 10; from++) line++; // a search for each of many empty lines would take long
      const end = chunk.indexOf(10, from);
      if (end === -1) break;
      const last = chunk.subarray(from, end);
      from = end + 1;
      const bytes = parts.length === 0 ? last : joinBytes([...parts, last], length + last.length);
      parts = [];
      length = 0;
      if (!isBlank(bytes)) yield lineRecord(bytes, `${path}:${line}`);
    }
    if (from === chunk.length) continue;
    parts.push(chunk.subarray(from));
    length += chunk.length - from;
    if (length > lineBytesMax) throw lineTooLong(`${path}:${line}`);
  }
  const bytes = joinBytes(parts, length);
  if (!isBlank(bytes)) yield lineRecord(bytes, `${path}:${line}`);
}

/** A file that must be in memory as a whole. */
async function readWhole(path: string, packing: Format["packing"]): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of openBytes(path, packing)) {
    parts.push(chunk);
    length += chunk.length;
    if (length > wholeBytesMax)
      throw new DataError(
        `${path}: has more than ${wholeBytesMax} bytes, and this format is read as a whole, up to so many; ` +
          "convert it to JSONL or Parquet, or cut it into several files",
      );
  }
  return joinBytes(parts, length);
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
    return parseExact(source);
  } catch (error) {
    const { message } = error as Error;
    if (message.includes("nested")) throw new DataError(`${where}: its ${message}`);
    throw new DataError(`${where}: not valid JSON (${message}); expected ${expected}`);
  }
}
