// What a file is. Its ending says how it is meant, its first bytes say what it is, and where the two disagree the bytes are
// believed: a compressed file is unpacked while it is read, an array in a .jsonl is read as one, and what Sluice cannot read
// is called by its name, with what to do, instead of "not valid UTF-8". Next: files.ts reads what is found here.

import { open } from "node:fs/promises";
import { extname } from "node:path";
import { formatBytes } from "../../words/format.ts";
import { DataError } from "../../words/errors.ts";

/** How a file is read: whole as one text, as a table, as Parquet, a JSON object per line, or JSON over several lines. */
export type Form = "text" | "csv" | "parquet" | "lines" | "json";

export interface Format {
  form: Form;
  /** What it is packed with. */
  packing: Packing | undefined;
  /** The ending of its name, below that of the packing. */
  ending: string;
}

type Packing = "gzip" | "zstd";

export const TEXTS = [".txt", ".md", ".markdown"];
/** What a folder stands for: the files of the first kind that it has. */
export const KINDS = [[".jsonl", ".ndjson", ".csv", ".tsv", ".parquet"], [".json"], TEXTS];
const PACKINGS = [".gz", ".zst"];

/** Files that lie beside data and describe it. */
const ABOUT_DATA =
  /^(dataset_(info|infos|dict)|state|config|package(-lock)?|tokenizer|tokenizer_config|metadata)\.json$/i;

/** Enough to see a first line, or a header. */
const headBytes = 64 * 1024;

/** A name's ending in lower case, without what packs it. */
export function endingOf(path: string): string {
  const ending = extname(path).toLowerCase();
  return PACKINGS.includes(ending) ? extname(path.slice(0, -ending.length)).toLowerCase() : ending;
}

/** Those of a folder's files that hold its records. */
export function dataFiles(paths: string[], kinds = KINDS): string[] {
  for (const endings of kinds) {
    const found = paths.filter(
      (path) => endings.includes(endingOf(path)) && !ABOUT_DATA.test(path.replace(/^.*[/\\]/, "")),
    );
    if (found.length > 0) return found;
  }
  return [];
}

/** Looks into a file. A `DataError` names what cannot be read. */
export async function formatOf(path: string): Promise<Format> {
  const head = await headOf(path);
  const packing = packingOf(head);
  const ending = endingOf(path);
  if (packing === undefined) return { form: formOf(head, path, ending), packing, ending };
  for await (const chunk of openBytes(path, packing)) return { form: formOf(chunk, path, ending), packing, ending };
  return { form: formOf(new Uint8Array(), path, ending), packing, ending };
}

async function headOf(path: string): Promise<Uint8Array> {
  const file = await open(path);
  try {
    const head = new Uint8Array(headBytes);
    return head.subarray(0, (await file.read(head, 0, headBytes, 0)).bytesRead);
  } finally {
    await file.close();
  }
}

function packingOf(head: Uint8Array): Packing | undefined {
  if (begins(head, 0x1f, 0x8b)) return "gzip";
  return begins(head, 0x28, 0xb5, 0x2f, 0xfd) ? "zstd" : undefined;
}

function begins(head: Uint8Array, ...bytes: number[]): boolean {
  return bytes.every((byte, at) => head[at] === byte);
}

function formOf(head: Uint8Array, path: string, ending: string): Form {
  const latin = Buffer.from(head.buffer, head.byteOffset, Math.min(head.length, headBytes)).toString("latin1");
  if (latin.startsWith("PAR1")) return "parquet";
  const stranger = strangerOf(latin, path);
  if (stranger !== undefined) throw new DataError(`${path}: ${stranger}`);
  if (ending === ".parquet") return "parquet";
  if (TEXTS.includes(ending)) return "text";
  if (ending === ".csv" || ending === ".tsv") return "csv";
  const text = latin.replace(/^\xef\xbb\xbf/, "").trimStart();
  // A list a line is JSON Lines of the wrong kind, and each line says so.
  if (text.startsWith("[") && ending !== ".json" && /^\[.*\]\s*\n\s*\[/.test(text)) return "lines";
  const goesOn = /^\{\s*\n\s*["}]/.test(text) || (ending === ".json" && /^\{[^\n]*[,{[]\s*\n/.test(text));
  if (text.startsWith("[") || goesOn) return "json";
  if (/^[^\n]*\r(?!\n)/.test(text) && !text.includes("\n"))
    throw new DataError(
      `${path}: its lines end in carriage returns alone, as on old Macs; write it with tr '\\r' '\\n' < OLD > NEW`,
    );
  return "lines";
}

const TAKE_OUT = "unpack it and name the files inside";
const AS_TABLE = "save it as CSV (UTF-8) or Parquet";

/** Beginnings of files that Sluice does not read, and what to do with them. */
const STRANGERS: [beginning: string, name: string, remedy: string][] = [
  [
    "version https://git-lfs.github.com/",
    "a git-lfs pointer and not the file itself",
    "run git lfs pull where it lies",
  ],
  ["PK\x03\x04", "a zip archive", TAKE_OUT],
  ["PK\x05\x06", "an empty zip archive", TAKE_OUT],
  ["BZh91AY&SY", "packed with bzip2", "unpack it: bunzip2 FILE"],
  ["\xfd7zXZ\0", "packed with xz", "unpack it: unxz FILE"],
  ["\x04\x22\x4d\x18", "packed with lz4", "unpack it: unlz4 FILE"],
  ["7z\xbc\xaf\x27\x1c", "a 7z archive", TAKE_OUT],
  ["Rar!\x1a", "a rar archive", TAKE_OUT],
  ["ARROW1\0", "an Arrow file", "write it as Parquet: dataset.to_parquet(FILE), or pyarrow.parquet.write_table"],
  ["FEA1\0", "a Feather file", "write it as Parquet: pyarrow.parquet.write_table"],
  ["Obj\x01", "an Avro file", "write it as Parquet or JSON Lines"],
  ["\xd0\xcf\x11\xe0", "an Excel workbook or another office document", AS_TABLE],
  ["SQLite format 3\0", "an SQLite database", "write the rows that you mean as CSV, JSON Lines or Parquet"],
  ["\x89HDF", "an HDF5 file", "write it as Parquet or JSON Lines"],
  ["\x93NUMPY", "a NumPy array", "write its texts as JSON Lines"],
  ["%PDF", "a PDF document", "write its text to a .txt file"],
  ["{\\rtf", "an RTF document", "save it as plain text"],
];

/** What a beginning says that it is, if it is nothing that can be read; the bytes as Latin-1. */
function strangerOf(head: string, path: string): string | undefined {
  const known = STRANGERS.find(([beginning]) => head.startsWith(beginning));
  if (known !== undefined) {
    if (known[0].startsWith("PK") && /xl\/|\[Content_Types\]\.xml/.test(head))
      return `is an Excel workbook; ${AS_TABLE}`;
    return `is ${known[1]}; ${known[2]}`;
  }
  if (head.slice(257, 262) === "ustar") return `is a tar archive; ${TAKE_OUT}`;
  // The stream form of Arrow, which `save_to_disk` writes: a mark, the length of the schema, the schema.
  if (head.startsWith("\xff\xff\xff\xff") && head[7] === "\0")
    return "is an Arrow file; write it as Parquet: dataset.to_parquet(FILE)";
  const utf16 = "save it as UTF-8: iconv -f UTF-16 -t UTF-8 OLD > NEW";
  if (head.startsWith("\xff\xfe\0\0") || head.startsWith("\0\0\xfe\xff"))
    return "is UTF-32; save it as UTF-8: iconv -f UTF-32 -t UTF-8 OLD > NEW";
  if (head.startsWith("\xff\xfe") || head.startsWith("\xfe\xff")) return `is UTF-16; ${utf16}`;
  if (/^\s*<(!doctype|html|\?xml)/i.test(head) && !TEXTS.includes(endingOf(path)))
    return "is a web page or XML and no data; if it was downloaded, look at what the server says there";
  if (endingOf(path) === ".parquet" || !head.includes("\0")) return undefined;
  const pairs = head.slice(0, 1024);
  const zeros = (odd: number) => [...pairs].filter((byte, at) => at % 2 === odd && byte === "\0").length;
  if (Math.max(zeros(0), zeros(1)) > pairs.length / 4) return `looks like UTF-16; ${utf16}`;
  return `has a NUL at byte ${head.indexOf("\0") + 1}, so it is no text; give a text file, or Parquet under that ending`;
}

// ---- unpacking ------------------------------------------------------------------------------------------------------

/** What is unpacked may be so many times its file; text is packed to a fifth or a tenth, a bomb to a thousandth. */
const ratioMax = 250;
/** As much may be unpacked of any file. */
const unpackedFree = 256 * 2 ** 20;

/** A file's bytes as they come, unpacked. */
export async function* openBytes(path: string, packing: Packing | undefined): AsyncGenerator<Uint8Array> {
  const file = Bun.file(path);
  if (packing === undefined) return yield* file.stream();
  const bytesMax = Math.max(unpackedFree, ratioMax * file.size);
  let length = 0;
  try {
    // oxlint-disable-next-line typescript/no-explicit-any -- the types know gzip alone
    for await (const chunk of file.stream().pipeThrough(new DecompressionStream(packing as any))) {
      length += chunk.length;
      if (length > bytesMax)
        throw new DataError(
          `${path}: unpacks to more than ${formatBytes(bytesMax)}, ${ratioMax} times its size, as no text does; ` +
            "if it is meant so, unpack it and give what comes out",
        );
      yield chunk;
    }
  } catch (cause) {
    if (cause instanceof DataError || (cause as NodeJS.ErrnoException).syscall) throw cause;
    throw new DataError(
      `${path}: is damaged or cut off, it cannot be unpacked (${(cause as Error).message}); write or download it again`,
    );
  }
}
