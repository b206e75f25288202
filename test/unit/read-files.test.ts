// What a data file is, whatever its name says; that reading takes the time of reading once, within limits that are stated; and
// that damage behind good records is never a shorter file.

import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { patience, patiently } from "../support/time.ts";
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { parquetWriteBuffer } from "hyparquet-writer";
import { fieldsMax, parseCsv } from "../../src/data/read/csv.ts";
import { lineBytesMax, readLineBlocks, readRange, readRecords } from "../../src/data/read/files.ts";
import { formatOf } from "../../src/data/read/format.ts";
import { findSources } from "../../src/data/read/source.ts";
import { toSample } from "../../src/data/read/shapes.ts";
import { DataError } from "../../src/words/errors.ts";
import { temporaryDirectory } from "../support/models.ts";

setDefaultTimeout(patiently(60_000)); // on a machine that others want too

let directory: ReturnType<typeof temporaryDirectory>;
beforeEach(() => void (directory = temporaryDirectory()));
afterEach(() => directory[Symbol.dispose]());

type Content = string | Uint8Array | ArrayBuffer;

/** The texts of a file's records and the problems of its bad ones, in order, and last what ends it. */
async function read(name: string, content: Content): Promise<string[]> {
  const path = join(directory.path, name);
  await Bun.write(path, content);
  const found: string[] = [];
  const say = (error: unknown) => {
    if (!(error instanceof DataError)) throw error;
    found.push(error.message.replaceAll(path, "FILE"));
  };
  try {
    for await (const { where, read } of readRecords(path)) {
      try {
        const sample = toSample(read(), where);
        found.push(sample.kind === "text" ? sample.text : JSON.stringify(sample));
      } catch (error) {
        say(error);
      }
    }
  } catch (error) {
    say(error);
  }
  return found;
}

const lines = (...texts: string[]) => texts.map((text) => `${JSON.stringify({ text })}\n`).join("");
const seconds = async (work: () => unknown) => {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
};

describe("what a file is", () => {
  test("packed files are read as what is in them", async () => {
    const jsonl = lines("one", "two");
    const csv = "text,id\none,1\ntwo,2\n";
    const array = '[{"text":"one"},{"text":"two"}]';
    for (const [ending, content] of Object.entries({ jsonl, csv, json: array, "": jsonl })) {
      expect(await read(`a.${ending}.gz`, gzipSync(content))).toEqual(["one", "two"]);
      expect(await read(`a.${ending}.zst`, zstdCompressSync(content))).toEqual(["one", "two"]);
    }
    expect(await read("a.txt.gz", gzipSync("a text"))).toEqual(["a text"]);
    const members = Buffer.concat([gzipSync(lines("one")), gzipSync(lines("two"))]);
    expect(await read("a.jsonl", members)).toEqual(["one", "two"]); // whatever it is called
    expect((await formatOf(join(directory.path, "a.jsonl"))).packing).toBe("gzip");
  });

  test("packed files that are cut off, or unpack without an end", async () => {
    const whole = gzipSync(lines(...Array.from({ length: 5000 }, (_, i) => `${Math.sin(i)}`)));
    const found = await read("a.jsonl.gz", whole.subarray(0, whole.length - 1000));
    expect(found.at(-1)).toStartWith("FILE: is damaged or cut off, it cannot be unpacked (");
    expect(found.length).toBeGreaterThan(10); // what came before was read
    const bomb = zstdCompressSync(Buffer.alloc(2 ** 28 + 2 ** 21, 10));
    expect(await read("a.txt.zst", bomb)).toEqual([
      "FILE: unpacks to more than 256.0 MiB, 250 times its size, as no text does; if it is meant so, unpack it and give what comes out",
    ]);
  });

  test("what Sluice cannot read is called by its name", async () => {
    const utf16 = Buffer.from(`\ufeff${lines("one")}`, "utf16le");
    const tar = Buffer.concat([Buffer.alloc(257), Buffer.from("ustar"), Buffer.alloc(250)]);
    const strange: [string, Content, RegExp][] = [
      [
        "a.jsonl",
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
        /git-lfs pointer.+; run git lfs pull/,
      ],
      ["a.parquet", "version https://git-lfs.github.com/spec/v1\n", /git-lfs pointer/],
      ["a.zip", "PK\x03\x04....a.jsonl", /is a zip archive; unpack it/],
      ["a.csv", "PK\x03\x04..[Content_Types].xml", /is an Excel workbook; save it as CSV/],
      ["a.bz2", "BZh91AY&SY", /is packed with bzip2; unpack it/],
      ["a.xz", new Uint8Array([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]), /is packed with xz/],
      ["a.arrow", "ARROW1\0\0", /is an Arrow file; write it as Parquet/],
      ["data-00000-of-00001.arrow", new Uint8Array([255, 255, 255, 255, 16, 1, 0, 0]), /is an Arrow file/],
      ["a.jsonl", utf16, /is UTF-16; save it as UTF-8: iconv/],
      ["a.csv", utf16.subarray(2), /looks like UTF-16/],
      ["a.tar.gz", gzipSync(tar), /is a tar archive/],
      ["a.jsonl", "<!DOCTYPE html><html>", /is a web page/],
      ["a.txt", Buffer.alloc(5000), /has a NUL|looks like UTF-16/],
      ["a.jsonl", '{"text":"a"}\r{"text":"b"}\r', /its lines end in carriage returns alone/],
    ];
    for (const [name, content, message] of strange) {
      const [found, ...more] = await read(name, content);
      expect(found).toMatch(message);
      expect(found).toStartWith("FILE: ");
      expect(more).toEqual([]);
    }
    const parquet = parquetWriteBuffer({ columnData: [{ name: "text", data: ["one"] }] });
    expect(await read("a.data", parquet)).toEqual(["one"]);
  });

  test("Parquet's whole numbers of 64 bits are numbers", async () => {
    const column = (name: string, data: unknown[], type?: "JSON") => ({ name, data, ...(type && { type }) });
    const numbers = parquetWriteBuffer({
      columnData: [column("prompt", ["a", "b"]), column("completion", [3n, 2n ** 60n])],
    });
    expect(await read("a.parquet", numbers)).toEqual([
      "FILE:row 1: completion must be a string (was 3)",
      "FILE:row 2: completion must be a string (was 1152921504606846976)",
    ]);
  });

  test("an array or pretty-printed objects under any name of JSON", async () => {
    const pretty = `${JSON.stringify({ text: "one" }, null, 2)}\n${JSON.stringify({ text: "two" }, null, 2)}\n`;
    for (const name of ["a.json", "a.jsonl"]) {
      expect(await read(name, pretty)).toEqual(["one", "two"]);
      expect(await read(name, ' [{"text":"one"},\n{"text":"two"}]\n')).toEqual(["one", "two"]);
    }
    expect(await read("a.json", JSON.stringify({ data: [{ text: "one" }] }, null, 2))).toEqual([
      'FILE:1: expected "messages", "conversations", "instruction" with "output", "prompt" with "completion", or "text" ' +
        `(found "data"); if the records are those in "data", take them out: jq -c '.data[]' OLD > NEW.jsonl`,
    ]);
    expect(await read("a.jsonl", '[{"role":"user","content":"a"}]\n[{"role":"user","content":"b"}]\n')).toEqual([
      'FILE:1: a list of messages is no record; write {"messages": [...]}',
      'FILE:2: a list of messages is no record; write {"messages": [...]}',
    ]);
  });

  test("the separator that a header speaks for", async () => {
    const row = '{"where":"PATH:2","kind":"prompt","prompt":"one; two","completion":"three, four"}';
    for (const [name, content] of [
      ["a.csv", 'prompt;completion\n"one; two";three, four\n'],
      ["a.csv", "prompt\tcompletion\none; two\tthree, four\n"],
      ["a.tsv", 'prompt,completion\none; two,"three, four"\n'],
    ] as const)
      expect(
        (await read(name, content)).map((line) =>
          line
            .replace("FILE", "PATH")
            .replace(directory.path, "")
            .replace(/"\/a\.\wsv/, '"PATH'),
        ),
      ).toEqual([row]);
    expect(await read("a.csv", "text\na;b\n")).toEqual(["a;b"]); // a single column is one
    expect(await read("a.csv", "text\rone\rtwo")).toEqual(["one", "two"]); // old Macs
  });
});

describe("damage behind good records", () => {
  test("a JSON array", async () => {
    const cases: [string, string[]][] = [
      [
        '[{"text":"one"}]\n[{"text":"two"},{"text":"three"}]',
        [
          "one",
          "FILE:2: more follows the array that began in line 1; put all records into one array, or one in each line without brackets",
        ],
      ],
      [
        '[{"text":"one"}]\n\n{"text":"two"}',
        [
          "one",
          "FILE:3: more follows the array that began in line 1; put all records into one array, or one in each line without brackets",
        ],
      ],
      [
        '[{"text":"one"}]]',
        [
          "one",
          "FILE:1: more follows the array that began in line 1; put all records into one array, or one in each line without brackets",
        ],
      ],
      [
        '[{"text":"one"},\n{"text":"two"]]',
        ["one", 'FILE:2: "]" closes the "{" of line 2; the file is damaged there or before'],
      ],
      ['[{"text":"one"}\n}', ['FILE:2: "}" closes nothing; the file is damaged there or before']],
      [
        '[{"text":"one"},,\n{"text":"two"},]',
        [
          "one",
          "FILE:1: nothing stands before a comma of the array; remove the comma",
          "two",
          "FILE:2: nothing follows the last comma of the array; remove the comma",
        ],
      ],
      [
        '[{"text":"one"},\n{"text":"two"}',
        ["one", "FILE:2: the array that begins the file is not closed; the file may be cut off"],
      ],
      [
        '{\n"text":"one"}\n{"text":\n"two"',
        ["one", 'FILE:4: the "{" of line 3 is not closed; the file may be cut off'],
      ],
      ["[]", []],
    ];
    for (const [content, found] of cases) expect(await read("a.json", content)).toEqual(found);
    const [, missing, ...rest] = await read(
      "b.json",
      '[{"text":"zero"}, {"text":"one"} {"text":"two"},{"text":"three"}]',
    );
    expect(missing).toStartWith("FILE:1: not valid JSON (");
    expect(rest).toEqual(["three"]);
  });

  test("CSV: a quote that is never closed ends the file, an empty text in quotes is a row", async () => {
    expect(await read("a.csv", 'text\none\n"two\nthree\nfour\n')).toEqual([
      "one",
      "FILE:3: a quoted field that begins in this row is never closed; add the missing quote",
    ]);
    expect(await read("a.csv", 'text\none\n""\n\ntwo\n')).toEqual(["one", "FILE:3: text must not be empty", "two"]);
  });

  test("half of a surrogate pair", async () => {
    expect(
      await read("a.jsonl", String.raw`{"text":"a\ud83d\ude00"}` + "\n" + String.raw`{"text":"a\ud83db"}`),
    ).toEqual([
      "a😀",
      String.raw`FILE:2: text has half of a surrogate pair, \ud83d, at character 2; write the whole character, or leave it out`,
    ]);
  });
});

describe("time and limits", () => {
  test("long rows, wide headers, long quoted fields: once through", async () => {
    const wide = Array.from({ length: 30_000 }, (_, i) => `column ${i}`).join(",");
    const quoted = Array.from({ length: 30_000 }, (_, i) => `"${i}"`).join(",");
    const csv = `${wide}\n${quoted}\n"${'""'.repeat(1e6)}"${",".repeat(29_999)}\n`;
    expect(await seconds(() => expect([...parseCsv(csv, ",")]).toHaveLength(3))).toBeLessThan(3 * patience);
    expect(await seconds(() => read("a.csv", csv))).toBeLessThan(5 * patience);
    const single = `text\n${"no separator at all\n".repeat(50_000)}`;
    expect(await seconds(() => expect([...parseCsv(single, ",")]).toHaveLength(50_001))).toBeLessThan(3 * patience);
  });

  test("a row of more fields than a table has", async () => {
    expect(await read("a.csv", `text\none\n${",".repeat(fieldsMax)}\ntwo\n`)).toEqual([
      "one",
      "FILE:3: has more than 65536 fields, the most that a row may have",
    ]);
  });

  test("a line of 24 MB, in one file, in blocks and in ranges", async () => {
    const text = "x".repeat(24e6);
    const content = lines("one", text, "two");
    expect(
      await seconds(async () => expect(await read("a.jsonl", content)).toEqual(["one", text, "two"])),
    ).toBeLessThan(6);
    const path = join(directory.path, "a.jsonl");
    const { size, mtimeMs } = await Bun.file(path).stat();
    expect(
      await seconds(async () => {
        let bytes = 0;
        for await (const block of readLineBlocks(path, 2 ** 18)) bytes += block.lines.length;
        expect(bytes).toBe(size);
        bytes = 0;
        for (let from = 0; from < size; from += 2 ** 18)
          bytes += readRange({ path, from, to: Math.min(size, from + 2 ** 18), size, mtimeMs }).lines.length;
        expect(bytes).toBe(size);
      }),
    ).toBeLessThan(3 * patience);
  });

  test("a pipe is refused: what is read twice must lie somewhere", async () => {
    const path = join(directory.path, "pipe");
    Bun.spawnSync(["mkfifo", path]);
    await expect(findSources(path)).rejects.toThrow(`${path}: is no file but a pipe or a device`);
  });

  test("a line beyond the limit is refused where it lies", async () => {
    const path = join(directory.path, "a.jsonl");
    const before = lines("one").repeat(5000);
    writeFileSync(path, before);
    truncateSync(path, before.length + lineBytesMax + 2 ** 20); // what follows is a hole
    const refused = `the line has more than ${lineBytesMax} bytes, the most that one may have`;
    const all = async (source: AsyncIterable<unknown>) => {
      for await (const _ of source);
    };
    await expect(all(readRecords(path))).rejects.toThrow(`${path}:5001: ${refused}`);
    await expect(all(readLineBlocks(path, 2 ** 18))).rejects.toThrow(`${path}:5001: ${refused}`);
    const { size, mtimeMs } = await Bun.file(path).stat();
    expect(() => readRange({ path, from: 0, to: before.length + 9, size, mtimeMs })).toThrow(refused);
  });
});
