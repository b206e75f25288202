// CSV as spreadsheets write it (RFC 4180): a header, fields with commas between them (tabs in a .tsv), in quotes when they hold a
// comma, a newline or a quote, which is then doubled. Every value is a string. Where the header has one field by the file's
// ending and several by another separator, that one is taken, and said: half of Europe's spreadsheets write semicolons.
//
// The text is gone through once, whatever its rows and fields are like: no search begins before the end of the last one.

import { DataError } from "../../words/errors.ts";

/** One row; `line` is where it begins. A malformed row carries what is wrong with it instead of fields. */
export interface CsvRow {
  line: number;
  fields: string[];
  problem?: string;
  /** Where the next row begins cannot be known. */
  isLast?: true;
}

export const SEPARATORS = { ",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a bar" };
export type Separator = keyof typeof SEPARATORS;

/** More columns than any table of texts has; a file of separators alone is no table. */
export const fieldsMax = 65_536;

/** The rows of a text, the header among them; empty lines are left out. */
export function* parseCsv(text: string, separator: Separator): Generator<CsvRow> {
  // Of the files that old Macs wrote, a carriage return alone ends a line.
  const newline = !text.includes("\n") && text.includes("\r") ? "\r" : "\n";
  const newlines = new Search(text, newline);
  const separators = new Search(text, separator);
  let line = 1;
  let at = text.startsWith("\ufeff") ? 1 : 0;
  while (at < text.length) {
    const row: CsvRow = { line, fields: [] };
    let quoted = false;
    for (let more = true; more;) {
      if (row.fields.length === fieldsMax) {
        yield { ...row, problem: `has more than ${fieldsMax} fields, the most that a row may have`, isLast: true };
        return;
      }
      let field: string;
      quoted = text[at] === '"';
      if (quoted) {
        const end = closingQuote(text, at + 1);
        if (end === -1) {
          const problem = "a quoted field that begins in this row is never closed; add the missing quote";
          yield { ...row, problem, isLast: true };
          return;
        }
        field = text.slice(at + 1, end).replaceAll('""', '"');
        for (let i = newlines.from(at); i < end; i = newlines.from(i + 1)) line++;
        at = end + 1;
      } else {
        let end = newlines.from(at);
        if (text[end - 1] === "\r" && newline === "\n" && end > at) end--;
        end = Math.min(end, separators.from(at));
        field = text.slice(at, end);
        at = end;
      }
      row.fields.push(field);
      more = text[at] === separator;
      if (more) at++;
    }
    if (text[at] === "\r" && newline === "\n") at++;
    if (at < text.length && text[at] !== newline) {
      row.problem = "text follows a closing quote; double the quotes inside a quoted field";
      at = newlines.from(at);
    }
    at++;
    line++;
    if (quoted || row.fields.length > 1 || row.fields[0] !== "") yield row;
  }
}

/** The next place of a character, for questions that only move forward. */
class Search {
  readonly #text: string;
  readonly #wanted: string;
  #found = -1;

  constructor(text: string, wanted: string) {
    this.#text = text;
    this.#wanted = wanted;
  }

  /** The first place at or after `at`, or the text's end. */
  from(at: number): number {
    if (this.#found < at) {
      const next = this.#text.indexOf(this.#wanted, at);
      this.#found = next === -1 ? this.#text.length : next;
    }
    return this.#found;
  }
}

/** What separates the fields of a text: what its ending says, or the one other that its header speaks for. */
export function separatorOf(text: string, expected: Separator): Separator {
  const fields = (separator: Separator) => {
    const header = parseCsv(text, separator).next().value;
    return header === undefined || header.problem !== undefined ? 0 : header.fields.length;
  };
  if (fields(expected) !== 1) return expected;
  const others = (Object.keys(SEPARATORS) as Separator[]).filter((other) => other !== expected && fields(other) > 1);
  return others.length === 1 ? others[0]! : expected;
}

/** The rows after the header as objects, each as a function that throws a `DataError` when its row is malformed. */
export function* csvRecords(
  text: string,
  path: string,
  separator: Separator,
): Generator<{ where: string; read: () => Record<string, string> }> {
  let names: string[] | undefined;
  for (const { line, fields, problem, isLast } of parseCsv(text, separator)) {
    const where = `${path}:${line}`;
    if (isLast) throw new DataError(`${where}: ${problem}`);
    if (names === undefined) {
      const seen = new Set<string>();
      const twice = fields.find((name) => seen.size === seen.add(name).size);
      const wrong = problem ?? (twice === undefined ? undefined : `the header names ${JSON.stringify(twice)} twice`);
      if (wrong !== undefined) throw new DataError(`${where}: ${wrong}`);
      names = fields;
      continue;
    }
    const header = names;
    const read = () => {
      if (problem !== undefined) throw new DataError(`${where}: ${problem}`);
      if (fields.length !== header.length)
        throw new DataError(
          `${where}: has ${fields.length} fields, the header has ${header.length}; put fields that hold ` +
            `${SEPARATORS[separator]} in quotes`,
        );
      return Object.fromEntries(header.map((name, i) => [name, fields[i]!]));
    };
    yield { where, read };
  }
}

/** The first quote from `at` on that is not one of a pair, or −1. */
function closingQuote(text: string, at: number): number {
  for (let quote = text.indexOf('"', at); quote !== -1; quote = text.indexOf('"', quote + 2))
    if (text[quote + 1] !== '"') return quote;
  return -1;
}
