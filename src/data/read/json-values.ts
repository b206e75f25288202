// JSON that is no line a record: an array of records, or records that go over several lines. Records are cut apart before they
// are parsed, so that one bad record has a line of its own; brackets are matched, and what comes behind the end of an array is
// refused: a file that is damaged behind its first records is not a shorter file.

import { DataError } from "../../words/errors.ts";

/** A record's text, or what is wrong where one should be; `line` is where it begins. */
export type JsonPiece = { line: number; text: string } | { line: number; problem: string };

/** The records of a text that holds one array, or objects one after another; throws a `DataError` where the text breaks off. */
export function* jsonPieces(text: string, path: string): Generator<JsonPiece> {
  const begin = text.search(/[^\s\ufeff]|$/);
  const isArray = text[begin] === "[";
  const marks = /["[\]{},\n]/g;
  marks.lastIndex = isArray ? begin + 1 : begin;
  const open: { bracket: string; line: number }[] = [];
  let line = 1 + newlines(text.slice(0, marks.lastIndex));
  const firstLine = line;
  let from = marks.lastIndex;
  let startLine = line;
  let count = 0;
  let isOver = false;
  const piece = (to: number): JsonPiece | undefined => {
    const source = text.slice(from, to);
    const blank = source.search(/\S|$/);
    const at = startLine + newlines(source.slice(0, blank));
    from = to;
    startLine = line;
    if (blank === source.length) return undefined;
    count++;
    return { line: at, text: source };
  };
  for (let mark = marks.exec(text); mark !== null && !isOver; mark = marks.exec(text)) {
    const [found] = mark;
    const depth = open.length;
    if (found === "\n") line++;
    else if (found === '"') marks.lastIndex = endOfString(text, mark.index + 1);
    else if (found === "[" || found === "{") open.push({ bracket: found, line });
    else if (found === "," && depth > 0) continue;
    else if (found === ",") {
      // Between objects without an array around them there is no comma; it makes the next one no JSON, which says so.
      if (!isArray) continue;
      yield piece(mark.index) ?? { line, problem: "nothing stands before a comma of the array; remove the comma" };
      from = marks.lastIndex;
    } else if (depth > 0) {
      const { bracket, line: opened } = open.pop()!;
      if ((bracket === "[") !== (found === "]"))
        throw new DataError(
          `${path}:${line}: "${found}" closes the "${bracket}" of line ${opened}; the file is damaged there or before`,
        );
      if (!isArray && open.length === 0) yield piece(marks.lastIndex)!;
    } else {
      if (!isArray || found === "}")
        throw new DataError(`${path}:${line}: "${found}" closes nothing; the file is damaged there or before`);
      const last = piece(mark.index);
      if (last !== undefined) yield last;
      else if (count > 0) yield { line, problem: "nothing follows the last comma of the array; remove the comma" };
      from = marks.lastIndex;
      isOver = true;
    }
  }
  if (open.length > 0 || (isArray && !isOver))
    throw new DataError(
      `${path}:${line}: the ${isArray ? "array that begins the file" : `"{" of line ${open[0]!.line}`} is not closed; ` +
        "the file may be cut off",
    );
  const rest = text.slice(from);
  const more = rest.search(/\S/);
  if (more === -1) return;
  if (!isArray) yield { line: startLine + newlines(rest.slice(0, more)), text: rest };
  else
    throw new DataError(
      `${path}:${line + newlines(rest.slice(0, more))}: more follows the array that began in line ${firstLine}; ` +
        "put all records into one array, or one in each line without brackets",
    );
}

/** The place after the quote that ends a JSON string; a string never holds a bare newline. */
function endOfString(text: string, at: number): number {
  const end = /["\\\n]/g;
  for (end.lastIndex = at; ;) {
    const found = end.exec(text);
    if (found === null) return text.length;
    if (found[0] === '"') return end.lastIndex;
    if (found[0] === "\n") return found.index;
    end.lastIndex++;
  }
}

function newlines(text: string): number {
  return text.split("\n").length - 1;
}
