// The process that reads Parquet for parquet.ts: one file at a time, one row group at a time. It ends with its parent.

import type { SchemaElement } from "hyparquet";
import type { ColumnTypes, ParquetReply, ParquetRequest } from "./parquet.ts";

let read: ((rowStart: number, rowEnd: number) => Promise<Record<string, unknown>[]>) | undefined;
let rows: Record<string, unknown>[] = [];

async function answer(request: ParquetRequest): Promise<ParquetReply> {
  if ("path" in request) return await open(request.path);
  if ("start" in request) {
    rows = (await read!(request.start, request.end)).map((row) => plain(row) as Record<string, unknown>);
    return { count: rows.length };
  }
  return { rows: rows.slice(request.from, request.to) };
}

/** Whole numbers of 64 bits as other formats have them, but for those that JavaScript's numbers cannot hold. */
function plain(value: unknown): unknown {
  if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object" || Object.getPrototypeOf(value) !== Object.prototype) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inside]) => [key, plain(inside)]));
}

async function open(path: string): Promise<ParquetReply> {
  const { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } = await import("hyparquet");
  const { compressors } = await import("hyparquet-compressors");
  const file = await asyncBufferFromFile(path);
  const metadata = await parquetMetadataAsync(file);
  const types = typesOf(metadata.schema);
  read = (rowStart, rowEnd) => parquetReadObjects({ file, metadata, compressors, rowStart, rowEnd });
  rows = [];
  const groups = metadata.row_groups.map((group) => Number(group.num_rows));
  const wrong = groups.find((count) => !Number.isSafeInteger(count) || count < 0);
  if (wrong !== undefined) throw new Error(`a row group of ${wrong} rows`);
  // No more than what a file of this size can hold, whatever it says.
  const bytesMax = 100 * file.byteLength;
  const bytes = metadata.row_groups.map((group) => Math.min(bytesMax, Math.max(0, Number(group.total_byte_size) || 0)));
  return { groups, bytes, types };
}

/** What values alone do not show: which are floats, and which are JSON; their texts are handed on as they are. */
function typesOf(schema: SchemaElement[]): ColumnTypes | undefined {
  let at = 0;
  const next = (isListsOwn: boolean): ColumnTypes | undefined => {
    const element = schema[at++]!;
    const { num_children: children, type, converted_type: converted, logical_type: logical } = element;
    if (!children) {
      if (type === "DOUBLE" || type === "FLOAT") return "float";
      if (converted !== "JSON" && logical?.type !== "JSON") return undefined;
      element.converted_type = "UTF8";
      delete element.logical_type;
      return "json";
    }
    const isList = converted === "LIST" || logical?.type === "LIST";
    const inside = new Map<string, ColumnTypes>();
    let only: ColumnTypes | undefined;
    for (let i = 0; i < children; i++) {
      const { name } = schema[at]!;
      only = next(isList);
      if (only !== undefined) inside.set(name, only);
    }
    // A list's elements stand inside two groups that are no values.
    if (isList || (isListsOwn && children === 1)) return only;
    return inside.size > 0 ? inside : undefined;
  };
  return next(false);
}

process.on("message", async (request: ParquetRequest) => {
  try {
    process.send!(await answer(request));
  } catch (cause) {
    const { message, code, syscall } = cause as NodeJS.ErrnoException;
    process.send!({ error: { message, code, syscall } } satisfies ParquetReply);
  }
});
process.on("disconnect", () => process.exit());
process.on("SIGINT", () => {}); // Ctrl-C goes to the whole group; the parent decides what ends
