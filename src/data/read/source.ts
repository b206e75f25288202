// Where samples come from: a path, or a list of paths and of sources with settings of their own.
//
//   data: "chat.jsonl"
//   data: ["books/", "data/*.parquet", "hf://datasets/OWNER/NAME", "qa:train", "chat.jsonl[:90%]"]
//   data: [{ path: "chat.jsonl", weight: 7 }, { path: "books/", weight: 3 }]
//   data: [{ path: "qa.csv", split: "[:90%]", filter: (row) => row.score > 3, map: (row) => ({ text: row.answer }) }]
//
// A record goes through `split`, `filter`, `columns`, `map` and `limit` in this order, and what is left must have one of the shapes
// of shapes.ts. A record that has none stops the run with `file:line:`, because a dropped line is never missed, unless
// `maxBadLines` allows for some.
//
// `filter` and `map` are functions, so they exist in recipes only: a config file is JSON and says so when it meets one.
// Files become records in files.ts; dataset.ts is next.

import { statSync } from "node:fs";
import { isObject } from "../../io/json.ts";
import { DataError } from "../../words/errors.ts";
import { formatValue } from "../../words/format.ts";
import { closest } from "../../words/suggest.ts";
import type { Item } from "../batch.ts";
import type { BadLines } from "./bad-lines.ts";
import { findFiles, readRecords, unreadable } from "./files.ts";
import { formatOf, type Format } from "./format.ts";
import { EXPECTED, SHAPE_KEYS, toSample, type Sample } from "./shapes.ts";
import { filesOfSplit, isInSplit, isSplit, parseSplit, splitOff, type Purpose } from "./splits.ts";

/** A line, row or element of a data file as `filter` and `map` get it. What it holds is known to the recipe alone. */
export type DataRecord = Record<string, any>; // oxlint-disable-line typescript/no-explicit-any

/** One of the places that data comes from, and how much of it counts. */
export interface DataSource {
  /**
   * A file, a folder or a glob on this machine, or `hf://datasets/OWNER/NAME[@REVISION][/FILE]` on the hub. Of a folder or
   * data set in splits, `train` is taken unless `split` says something else.
   */
  path: string;
  /**
   * The share of the tokens of an epoch that come from this source, relative to the weights of the others; all sources
   * have one or none has. Without weights an epoch is all documents once. With weights it ends when the source that is
   * scarcest for its weight has been gone through once; the others go on in the next epoch where they were left.
   */
  weight?: number;
  /**
   * A part of the source: "train" takes the files that have this word in their name or folder, "[:90%]" and "[90%:]"
   * cut the records in two, and "train[:90%]" does both. A cut takes records from everywhere in the source, evenly, so
   * that a sorted file gives a fair held-out part; the same percentages always give the same records.
   */
  split?: string;
  /** Use the first so many samples that are left. */
  limit?: number;
  /**
   * What the keys of a shape are called in this source: `{ prompt: "question", completion: "answer" }` where a record has
   * `question` and `answer`.
   */
  columns?: Record<string, string>;
  /** Keeps the records for which it returns true. */
  filter?: (record: DataRecord) => boolean;
  /** Turns a record into one that has a shape: `(row) => ({ prompt: row.question, completion: row.answer })`. */
  map?: (record: DataRecord) => DataRecord;
}

/**
 * What `data` and `evaluationData` may be. A source alone is not among them: beside a list, which has a `map` and a
 * `filter` too, TypeScript could not tell what its functions are given.
 */
export type DataInput = string | readonly (string | DataSource)[];

/** What a function becomes when a config is written down; `sourceProblems` knows it again. */
export const FUNCTION_MARK = "(a function of the recipe)";

/** The sources of an input; a path may end in a split. */
export function listSources(input: DataInput): DataSource[] {
  return [input].flat().map((source) => (typeof source === "string" ? splitOff(source) : source));
}

/** A source and its files, which are on this machine; blocks of them may be read in any order where each line is a sample. */
export type FoundSource = DataSource & { files: string[]; hasBlocks: boolean };

export interface FoundSources {
  sources: FoundSource[];
  /** Of all files. */
  bytes: number;
}

/** The files of all sources of an input; those of the hub are downloaded. The purpose decides among a data set's splits. */
export async function findSources(input: DataInput, purpose: Purpose = "training"): Promise<FoundSources> {
  const sources: FoundSource[] = [];
  for (const source of listSources(input)) {
    const files = await sourceFiles(source, purpose);
    const formats: Format[] = []; // of all files: what one of them is had better be said at once
    for (const file of files)
      formats.push(await formatOf(file).catch((cause: unknown) => Promise.reject(unreadable(cause, file))));
    const isLines = formats.every(({ form, packing }) => form === "lines" && packing === undefined);
    sources.push({ ...source, files, hasBlocks: isLines && takesAll(source) });
  }
  const bytes = sources.flatMap(({ files }) => files).reduce((sum, file) => sum + statSync(file).size, 0);
  return { sources, bytes };
}

/** Whether somebody has looked for the files already. */
export function isFound(input: DataInput | FoundSources): input is FoundSources {
  return typeof input === "object" && !Array.isArray(input);
}

/** The files of a source, in order; those of the hub are downloaded. */
export function sourceFiles({ path, split }: DataSource, purpose: Purpose = "training"): Promise<string[]> {
  const { name } = parseSplit(split);
  return findFiles(path, (files, isWhole) => filesOfSplit(files, { path, name, purpose, isWhole }));
}

/** Whether all records of its files are samples, so that nobody has to look at one to know about the next. */
export function takesAll({ split, limit, columns, filter, map }: DataSource): boolean {
  const { from, to } = parseSplit(split);
  return from === 0 && to === 1 && [limit, columns, filter, map].every((setting) => setting === undefined);
}

/** What a source holds, record by record, malformed ones as their problem. `files` are those of `sourceFiles`. */
export async function* readItems(source: DataSource, files: string[]): AsyncGenerator<Item> {
  const { path, limit = Infinity, filter, columns = {}, map } = source;
  const split = parseSplit(source.split);
  let records = 0;
  let items = 0;
  let samples = 0;
  for (const file of files) {
    if (samples >= limit) break;
    for await (const { where, read } of readRecords(file)) {
      if (!isInSplit(records++, split)) continue;
      let item: Item;
      try {
        let record = read();
        if (filter && !callback("filter", filter, record, where)) continue;
        if (isObject(record)) record = renamed(record, columns);
        item = toSample(map ? callback("map", map, record, where) : record, where);
        samples++;
      } catch (error) {
        if (!(error instanceof DataError)) throw error;
        item = { problem: error.message };
      }
      items++;
      yield item;
      if (samples >= limit) break;
    }
  }
  if (records > 0 && items === 0)
    throw new DataError(`${path}: none of its ${records} records is left after split and filter; loosen them`);
}

/** The samples of one source; throws a `DataError` at the first record that is not one, and if there are none. */
export async function* readSamples(source: DataSource, purpose?: Purpose): AsyncGenerator<Sample> {
  let samples = 0;
  for await (const item of readItems(source, await sourceFiles(source, purpose))) {
    if ("problem" in item) throw new DataError(item.problem);
    samples++;
    yield item;
  }
  if (samples === 0) throw noSamples(source);
}

/** What a source without a sample is refused with; `found` of the bad lines are its own. */
export function noSamples({ path }: DataSource, bad?: BadLines, found = 0): DataError {
  if (bad === undefined || found === 0)
    return new DataError(`${path}: no samples; expected one JSON object per line with ${EXPECTED}`);
  return new DataError(`${path}: none of its ${found} records is a sample; the first bad lines:\n${bad.show()}`);
}

/** What samples without a token that is learned are refused with. */
export function nothingCounts(sources: DataSource[], samples: number, sequenceLength: number): DataError {
  return new DataError(
    `${sources.map(({ path }) => path).join(", ")}: none of the ${samples} samples has a token that ` +
      `counts within ${sequenceLength} tokens; raise sequenceLength or look at the data`,
  );
}

/** A record whose columns have the names of a shape; itself if there is nothing to rename. */
function renamed(record: DataRecord, columns: Record<string, string>): DataRecord {
  const renames = Object.entries(columns).filter(([, column]) => Object.hasOwn(record, column));
  if (renames.length === 0) return record;
  const old = renames.map(([, column]) => column);
  const others = Object.entries(record).filter(([key]) => !old.includes(key));
  return Object.fromEntries([...others, ...renames.map(([key, column]) => [key, record[column]])]);
}

/** A function of the recipe; what it throws is about the record it was given. */
function callback<T>(name: string, work: (record: DataRecord) => T, record: unknown, where: string): T {
  try {
    return work(record as DataRecord);
  } catch (error) {
    if (error instanceof DataError) throw new DataError(`${where}: ${error.message}`); // the recipe's own words
    throw new DataError(`${where}: ${name} failed (${String(error)}) on ${formatValue(record)}`);
  }
}

// ---- what may be wrong with it --------------------------------------------------------------------------------------

const KEYS = ["path", "weight", "split", "limit", "columns", "filter", "map"];

/** Everything that is wrong with a `data` value, each with its path in the config. */
export function sourceProblems(input: unknown, name: string): string[] {
  const expected = "a path, or a list of paths and of sources such as { path: ... }";
  if (typeof input === "string") return input === "" ? [`${name} must be ${expected} (was "")`] : [];
  if (!Array.isArray(input) || input.length === 0) return [`${name} must be ${expected} (was ${formatValue(input)})`];
  const problems = input.flatMap((source, i) =>
    typeof source === "string" && source !== "" ? [] : oneSourceProblems(source, `${name}[${i}]`),
  );
  const without = input.findIndex((source) => (source as DataSource)?.weight === undefined);
  if (problems.length === 0 && without !== -1 && input.some((source) => source.weight !== undefined))
    problems.push(`${name}[${without}] has no weight and others have one; give a weight to all sources or to none`);
  return problems;
}

function oneSourceProblems(source: unknown, name: string): string[] {
  if (source === null || typeof source !== "object" || Array.isArray(source))
    return [`${name} must be a path or a source such as { path: ... } (was ${formatValue(source)})`];
  const { path, weight, split, limit, columns = {}, filter, map } = source as Record<string, unknown>;
  const problems: string[] = [];
  const must = (key: string, what: string, value: unknown) =>
    problems.push(`${name}.${key} must be ${what} (was ${formatValue(value)})`);
  for (const key of Object.keys(source)) {
    if (KEYS.includes(key)) continue;
    const near = closest(key, KEYS);
    problems.push(
      `${name}.${key} is not a known key; ${near ? `did you mean ${name}.${near}?` : `known here: ${KEYS.join(", ")}`}`,
    );
  }
  if (typeof path !== "string" || path === "") must("path", "a non-empty string", path);
  if (weight !== undefined && !(typeof weight === "number" && weight > 0 && weight < Infinity))
    must("weight", "a number > 0", weight);
  if (limit !== undefined && !(Number.isInteger(limit) && (limit as number) >= 1))
    must("limit", "a whole number >= 1", limit);
  if (split !== undefined && !isSplit(split))
    must("split", 'a name, a cut such as "[:90%]", or both as in "train[:90%]"', split);
  if (!isObject(columns)) must("columns", 'an object such as { prompt: "question", completion: "answer" }', columns);
  else
    for (const [key, column] of Object.entries(columns)) {
      if (!SHAPE_KEYS.includes(key))
        problems.push(`${name}.columns.${key} is no key of a shape; known here: ${SHAPE_KEYS.join(", ")}`);
      if (typeof column !== "string" || column === "") must(`columns.${key}`, "the name of a column", column);
    }
  for (const [key, value] of Object.entries({ filter, map })) {
    if (value === undefined || typeof value === "function") continue;
    if (value === FUNCTION_MARK)
      problems.push(`${name}.${key} was a function, which a config file cannot hold; run the recipe it was written in`);
    else must(key, "a function", value);
  }
  return problems;
}
