// CSV as spreadsheets write it (RFC 4180): a header, commas (tabs in a .tsv), fields in quotes when they hold a comma, a
// newline or a quote, which is then doubled. Every value is a string.

import { DataError } from "../../words/errors.ts";

/** One row; `line` is where it begins. A malformed row carries what is wrong with it instead of fields. */
export interface CsvRow {
  line: number;
  fields: string[];
  problem?: string;
}

/** The rows of a text, the header among them; empty lines are left out. */
export function* parseCsv(text: string, separator: "," | "\t"): Generator<CsvRow> {
  let line = 1;
  let at = text.startsWith("\ufeff") ? 1 : 0;
  while (at < text.length) {
    const row: CsvRow = { line, fields: [] };
    for (let more = true; more;) {
      let field: string;
      if (text[at] === '"') {
        const end = closingQuote(text, at + 1);
        if (end === -1) {
          yield { ...row, problem: "a quoted field that begins in this row is never closed; add the missing quote" };
          return;
        }
        field = text.slice(at + 1, end).replaceAll('""', '"');
        for (let i = text.indexOf("\n", at); i !== -1 && i < end; i = text.indexOf("\n", i + 1)) line++;
        at = end + 1;
      } else {
        const end = endOfField(text, at, separator);
        field = text.slice(at, end);
        at = end;
      }
      row.fields.push(field);
      more = text[at] === separator;
      if (more) at++;
    }
    if (!/^(\r?\n|\r?$)/.test(text.slice(at, at + 2))) {
      row.problem = "text follows a closing quote; double the quotes inside a quoted field";
      const end = text.indexOf("\n", at);
      at = end === -1 ? text.length : end;
    }
    at = text.indexOf("\n", at) + 1 || text.length;
    line++;
    if (row.fields.length > 1 || row.fields[0] !== "") yield row;
  }
}

/** The rows after the header as objects, each as a function that throws a `DataError` when its row is malformed. */
export function* csvRecords(
  text: string,
  path: string,
  separator: "," | "\t",
): Generator<{ where: string; read: () => Record<string, string> }> {
  let names: string[] | undefined;
  for (const { line, fields, problem } of parseCsv(text, separator)) {
    const where = `${path}:${line}`;
    if (names === undefined) {
      const twice = fields.find((name, i) => fields.indexOf(name) !== i);
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
            `${separator === "," ? "a comma" : "a tab"} in quotes`,
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

/** Where an unquoted field ends: at a separator, the end of the line (also \r\n), or the end of the text. */
function endOfField(text: string, at: number, separator: string): number {
  let end = text.indexOf("\n", at);
  if (end === -1) end = text.length;
  if (text[end - 1] === "\r" && end > at) end--;
  const next = text.slice(at, end).indexOf(separator);
  return next === -1 ? end : at + next;
}
