// Small calls of every op, made from what `zig/abi.zig` declares of it: as many elements in each range as it must have, and
// indexes that name rows that are there.

import { dtypes, ops, type OpName } from "../../src/native/abi.gen.ts";
import { Range, type BufferLike } from "../../src/plan/plan.ts";

export type Arguments = Record<string, Range | number | string | null>;

export interface Field {
  name: string;
  kind: "range" | "dtype" | "u32" | "u64" | "float";
}

const rows = { tokens: 6, tokenCount: 6, rows: 5, totalRows: 9, count: 37, distinct: 3, vocabulary: 11, parts: 3 };
const widths = { heads: 4, kvHeads: 2, headDim: 8, capacity: 16, inputs: 24, outputs: 16, width: 24 };
const sizes: Record<string, number> = { ...rows, ...widths, documents: 1, sequences: 1, step: 1 };

export const opNames = Object.keys(ops) as OpName[];

/** An op's fields in order, as its encoder takes them. */
export function fieldsOf(op: OpName): Field[] {
  const fields: Field[] = [];
  let name = "";
  const asked = new Proxy({}, { get: (_, key) => ((name = String(key)), "float32") });
  const took = (kind: Field["kind"]) => (): void => void fields.push({ name, kind });
  ops[op].encode(
    {
      word: (value) => took(value === dtypes.float32 ? "dtype" : "u32")(),
      double: took("u64"),
      float: took("float"),
      float64: took("float"),
      range: took("range"),
    },
    asked as never,
  );
  return fields;
}

/** A call that plays. Its ranges lie in `arena` with 64 bytes or more between them; a file's in `file`. */
export function declaredCall(op: OpName, arena: BufferLike, file: BufferLike): Arguments {
  const fields = fieldsOf(op);
  const args: Arguments = {};
  for (const { name, kind } of fields)
    if (kind !== "range") args[name] = kind === "dtype" ? "float32" : (sizes[name] ?? (kind === "float" ? 0.5 : 0));
  let offset = 0;
  // Twice, because a length may depend on a range that comes later.
  for (const _ of [1, 2]) {
    offset = 0;
    for (const [name, { bytes, any }] of Object.entries(ops[op].lengths)) {
      const length = (bytes as (a: unknown) => number)(args) * (any ? 64 : 1);
      const buffer = name === "file" ? file : arena;
      args[name] = length > 0 ? new Range(buffer, name === "file" ? 0 : offset, length) : null;
      offset += Math.ceil(length / 64) * 64 + 64;
    }
  }
  return args;
}

/** What an index range holds: 0, 1, 2, …, the bounds of one document, or no length yet. */
export function indexesOf(op: OpName, name: string, args: Arguments): Int32Array | undefined {
  const range = args[name];
  if (!(range instanceof Range) || !ops[op].lengths[name]!.says.endsWith("of i32")) return undefined;
  const values = Int32Array.from({ length: range.bytes / 4 }, (_, index) => index);
  if (name === "lengths") values.fill(0);
  if (name === "starts" && "tokens" in args) values.fill(args["tokens"] as number, 1);
  return values;
}
