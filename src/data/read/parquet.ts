// Parquet, a row group at a time, read by a process of its own (parquet-reader.ts). The format is full of counts
// and lengths, and a damaged file sends its reader round in circles or asks for all memory: a process can be ended.

import { fileURLToPath } from "node:url";
import { DataError } from "../../words/errors.ts";
import { bunFlags } from "../../words/real-environment.ts";
import { keepText, parseExact } from "../../io/exact-json.ts";
import type { FileRecord } from "./record.ts";

/** What the reader is asked for: a file's row groups, one group, or some of that group's rows. */
export type ParquetRequest = { path: string } | { start: number; end: number } | { from: number; to: number };

/** A number of rows for each group, how many rows a group turned out to have, or rows. */
export type ParquetReply =
  | { groups: number[]; bytes: number[]; types: ColumnTypes | undefined }
  | { count: number }
  | { rows: Record<string, unknown>[] }
  | { error: ReadError };

/** Of a structure by the names in it, and of a list as of its elements; what needs no word is left out. */
export type ColumnTypes = "float" | "json" | Map<string, ColumnTypes>;

/** A system error keeps its code on its way between processes. */
interface ReadError {
  message: string;
  code: string | undefined;
  syscall: string | undefined;
}

/** Rows that cross at once. */
const rowsAtOnce = 4096;
/** How long an answer may take, and how much longer that of a large row group: a hundred times what it does. */
const secondsMax = 5;
const bytesPerSecond = 2 ** 20;
/** For the first answer, before which the process has to start. */
const startSecondsMax = 60;

/** A process that nobody uses at the moment; starting one takes as long as ten thousand rows. */
let idle: ReaderProcess | undefined;

/** The rows of a file. A `DataError` says what is wrong with it. */
export async function* parquetRecords(path: string): AsyncGenerator<FileRecord> {
  using reader = new Reader(path);
  const { groups, bytes, types } = (await reader.ask({ path }, startSecondsMax)) as Extract<
    ParquetReply,
    { groups: unknown }
  >;
  let start = 0;
  for (const [index, rows] of groups.entries()) {
    const seconds = secondsMax + bytes[index]! / bytesPerSecond;
    const reply = await reader.ask({ start, end: start + rows }, seconds);
    const { count } = reply as Extract<ParquetReply, { count: unknown }>;
    for (let from = 0; from < count; from += rowsAtOnce) {
      const piece = await reader.ask({ from, to: Math.min(count, from + rowsAtOnce) });
      const { rows: read } = piece as Extract<ParquetReply, { rows: unknown }>;
      for (const [at, row] of read.entries()) {
        const where = `${path}:row ${start + from + at + 1}`;
        yield { where, read: () => (types === undefined ? row : typed(row, types, where)) };
      }
    }
    start += rows;
  }
}

/** A value whose floats are known as such, 20 as 20.0, and whose JSON is read. */
function typed<T>(value: T, types: ColumnTypes, where: string): T {
  if (typeof value !== "object" || value === null || (typeof types === "string" && !Array.isArray(value))) return value;
  const set = (key: string | number, type: ColumnTypes): void => {
    const inside = value as Record<string | number, unknown>;
    const item = inside[key];
    if (type === "float" && Number.isInteger(item)) {
      const text = Object.is(item, -0) ? "-0" : String(item);
      keepText(value, key, text.includes("e") ? text : `${text}.0`);
    } else if (type === "json" && typeof item === "string") inside[key] = parsed(item, `${where}: ${key}`);
    else typed(item, type, where);
  };
  if (Array.isArray(value)) for (let i = 0; i < value.length; i++) set(i, types);
  else for (const [name, type] of types as Exclude<ColumnTypes, string>) set(name, type);
  return value;
}

function parsed(text: string, name: string): unknown {
  try {
    return parseExact(text);
  } catch (error) {
    throw new DataError(`${name} is not valid JSON (${(error as Error).message})`);
  }
}

class Reader implements Disposable {
  readonly #path: string;
  #process: ReaderProcess | undefined;

  constructor(path: string) {
    this.#path = path;
    this.#process = idle?.isAlive ? idle : new ReaderProcess();
    idle = undefined;
  }

  /** Asks the process. One that does not answer is ended. */
  async ask(request: ParquetRequest, seconds = secondsMax): Promise<ParquetReply> {
    const giveUp = (problem: string): DataError => {
      this.#process?.end();
      this.#process = undefined;
      return this.#unreadable(problem);
    };
    const reply = await this.#process!.ask(request, seconds);
    if (reply === "late") throw giveUp(`takes longer than ${Math.round(seconds)} s`);
    if (reply === "ended") throw giveUp("its reader ended, perhaps for want of memory");
    if (!("error" in reply)) return reply;
    const { message, code, syscall } = reply.error;
    throw syscall === undefined ? this.#unreadable(message) : Object.assign(new Error(message), { code, syscall });
  }

  #unreadable(problem: string): DataError {
    return new DataError(`${this.#path}: cannot be read as Parquet (${problem}); write the file again`);
  }

  [Symbol.dispose](): void {
    if (this.#process === undefined) return;
    if (idle === undefined) idle = this.#process;
    else this.#process.end();
  }
}

/** parquet-reader.ts, which keeps nobody waiting at the end: it has no say in when this process ends. */
class ReaderProcess {
  #answered: ((reply: ParquetReply | "ended" | "late") => void) | undefined;
  readonly #child = Bun.spawn(
    [process.execPath, ...bunFlags, fileURLToPath(new URL("./parquet-reader.ts", import.meta.url))],
    {
      ipc: (reply: ParquetReply) => this.#answered?.(reply),
      serialization: "advanced",
      stdio: ["ignore", "ignore", "inherit"],
      onExit: () => this.#answered?.("ended"),
    },
  );

  get isAlive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  async ask(request: ParquetRequest, seconds: number): Promise<ParquetReply | "ended" | "late"> {
    const { promise, resolve } = Promise.withResolvers<ParquetReply | "ended" | "late">();
    this.#answered = resolve;
    const timer = setTimeout(() => resolve("late"), seconds * 1000);
    this.#child.ref();
    try {
      if (this.isAlive) this.#child.send(request);
      else resolve("ended");
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#child.unref();
    }
  }

  end(): void {
    this.#child.kill("SIGKILL");
  }
}
