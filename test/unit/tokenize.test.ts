// Tokenizing in workers into the cache: the outcome is that of one thread in memory, whatever the number of workers; a
// second start finds it; and everything that tokens depend on makes another entry.

import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { appendFileSync, cpSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { loadDataset, type DatasetOptions } from "../../src/data/dataset.ts";
import { readLineBlocks } from "../../src/data/read/files.ts";
import type { DataInput } from "../../src/data/read/source.ts";
import { dataCache } from "../../src/data/store/token-store.ts";
import { loadTokenizer } from "../../src/data/text/tokenizer.ts";
import { Random } from "../../src/words/random.ts";
import { temporaryDirectory } from "../support/models.ts";

setDefaultTimeout(patiently(60_000)); // workers start slowly while other processes want the cores

const tokenizer = await loadTokenizer(join(import.meta.dir, "../fixtures/tokenizer-qwen"));
const cacheBefore = process.env["XDG_CACHE_HOME"];
let directory: ReturnType<typeof temporaryDirectory>;
let path: string;

beforeEach(async () => {
  directory = temporaryDirectory();
  process.env["XDG_CACHE_HOME"] = join(directory.path, "cache");
  path = join(directory.path, "data.jsonl");
  await Bun.write(path, samples(60).join("\n"));
});

afterEach(() => {
  directory[Symbol.dispose]();
  if (cacheBefore === undefined) delete process.env["XDG_CACHE_HOME"];
  else process.env["XDG_CACHE_HOME"] = cacheBefore;
});

/** Lines of all kinds and lengths, more than one task. */
function samples(count: number): string[] {
  const random = new Random(5);
  return Array.from({ length: count }, (_, i) => {
    const words = (most: number) =>
      Array.from({ length: 1 + random.below(most) }, () => `w${random.below(99)}é`).join(" ");
    if (i % 3 === 0) return JSON.stringify({ text: words(200) });
    if (i % 3 === 1) return JSON.stringify({ prompt: words(9), completion: words(30) });
    return JSON.stringify({
      messages: [
        { role: "user", content: words(20) },
        { role: "assistant", content: words(60) },
      ],
    });
  });
}

const taskBytes = 2000;
const load = (input: DataInput = path, options: Partial<DatasetOptions> = {}) =>
  loadDataset(input, tokenizer, { sequenceLength: 64, loss: "assistant", bytesMin: 0, taskBytes, ...options });
const inMemory = (input: DataInput = path, options: Partial<DatasetOptions> = {}) =>
  load(input, { ...options, bytesMin: Infinity });
const entries = () => readdirSync(dataCache()).sort();

describe("workers", () => {
  test("any number of them gives what one thread in memory gives", async () => {
    expect(Bun.file(path).size).toBeGreaterThan(5 * taskBytes);
    const expected = await inMemory();
    for (const workers of [1, 2]) {
      process.env["XDG_CACHE_HOME"] = join(directory.path, `cache-${workers}`);
      expect(await load(path, { workers })).toEqual(expected);
    }
  });

  test("sources with settings, files of other formats and weights", async () => {
    const table = join(directory.path, "table.csv");
    await Bun.write(table, `text\n${Array.from({ length: 130 }, (_, i) => `row ${i}`).join("\n")}\n`);
    const input = [
      { path, weight: 2, split: "[:50%]", limit: 25 },
      { path: table, weight: 1 },
    ];
    const data = await load(input);
    expect(data).toEqual(await inMemory(input));
    expect(data.sources!.map(({ weight }) => weight)).toEqual([2, 1]);
    expect(await load(input)).toEqual(data);
  });

  test("bad lines come in the order of the files, and too many stop the work", async () => {
    await Bun.write(path, ["{", ...samples(90), "[", ...samples(30), '{"text": 5}'].join("\n"));
    const first = [1, 92, 123].map((line) => `${path}:${line}`);
    const { report } = await load(path, { maxBadLines: 3 });
    expect(report.badLines!.count).toBe(3);
    expect(report.badLines!.first.map((line) => line.split(": ")[0]!)).toEqual(first);
    await expect(load(path)).rejects.toThrow(`${path}:1: not valid JSON (`);
    await expect(load(path, { maxBadLines: 2 })).rejects.toThrow("3 bad lines, maxBadLines is 2; correct them");
    expect(entries()).toHaveLength(1); // what failed leaves nothing behind
  });

  test("what is wrong with the model reaches the caller", async () => {
    const model = join(directory.path, "nothing");
    cpSync(tokenizer.directory, model, { recursive: true });
    const broken = await loadTokenizer(model);
    rmSync(model, { recursive: true });
    const options = { sequenceLength: 64, loss: "assistant", bytesMin: 0 } as const;
    await expect(loadDataset([{ path, filter: () => true }], broken, options)).rejects.toThrow(
      `${join(directory.path, "nothing/tokenizer.json")} is missing; copy it from the original model`,
    );
  });
});

describe("the cache", () => {
  test("a second start finds the tokens, and a damaged entry is made again", async () => {
    const data = await load();
    const [name] = entries();
    expect(entries()).toEqual([name!]);
    const { ino } = await Bun.file(join(dataCache(), name!, "tokens")).stat();
    expect(await load()).toEqual(data);
    expect((await Bun.file(join(dataCache(), name!, "tokens")).stat()).ino).toBe(ino);
    rmSync(join(dataCache(), name!, "tokens")); // a new file: the old one is still mapped
    writeFileSync(join(dataCache(), name!, "tokens"), new Int32Array(10));
    expect(await load()).toEqual(data);
  });

  test("a change of file, settings, sources or template makes another entry", async () => {
    await load();
    let count = 1;
    const makesAnother = async (work: () => Promise<unknown>) => {
      await work();
      expect(entries()).toHaveLength(++count);
    };
    await makesAnother(() => load(path, { sequenceLength: 65 }));
    await makesAnother(() => load(path, { loss: "all" }));
    await makesAnother(() => load(path, { maxBadLines: 1 }));
    await makesAnother(() => load([{ path, limit: 10 }]));
    await makesAnother(() => load([{ path, split: "[:10%]" }]));
    utimesSync(path, new Date(), new Date(1e12));
    await makesAnother(() => load());
    appendFileSync(path, '\n{"text": "one more"}');
    await makesAnother(() => load());
    await load(path, { workers: 1 });
    expect(entries()).toHaveLength(count);
  });

  test("functions may read anything, so what they made is not kept", async () => {
    const map = (record: object) => record;
    expect((await load([{ path, map }])).tokens).toEqual((await inMemory()).tokens);
    expect(entries()).toEqual([]);
  });

  test("an entry that nobody has used for a month is removed", async () => {
    await load();
    const old = new Date(Date.now() - 31 * 24 * 3600 * 1000);
    utimesSync(join(dataCache(), entries()[0]!), old, old);
    await load(path, { loss: "all" });
    expect(entries()).toHaveLength(1);
  });

  test("a cache that cannot be written is named", async () => {
    process.env["XDG_CACHE_HOME"] = path; // a file
    await expect(load()).rejects.toThrow(/data\.jsonl\/sluice\/data\/.+ \(tokens are kept there; SLUICE_CACHE says/);
  });
});

test("a terminal shows how far it is, a pipe nothing", async () => {
  const shown = async (isTTY: boolean) => {
    const lines: string[] = [];
    let now = 0;
    const clock = performance.now;
    performance.now = () => (now += 600);
    try {
      await load([{ path, limit: 59 }, path], {
        progress: { isTTY, write: (text) => lines.push(text) },
        loss: isTTY ? "all" : "last",
      });
    } finally {
      performance.now = clock;
    }
    return lines.join("");
  };
  expect(await shown(false)).toBe("");
  const lines = Bun.stripANSI(await shown(true)).split("\r");
  expect(lines.at(-1)).toBe(""); // the line goes when the work is done
  for (const line of lines.slice(1, -1))
    expect(line).toMatch(/^tokenizing (█+░+ \d+ %, )?[\d.]+k tokens, [\d.]+k?\/s(, [\d.]+s left)?$/);
  expect(lines.length).toBeGreaterThan(2);
});

test("blocks of lines: nothing lost, no line torn, the line numbers right", async () => {
  const lines = samples(100);
  await Bun.write(path, lines.join("\n"));
  for (const bytesMin of [1, 1000, 20_000, 1e9]) {
    let next = 1;
    let text = "";
    for await (const block of readLineBlocks(path, bytesMin)) {
      expect(block.firstLine).toBe(next);
      const content = new TextDecoder().decode(block.lines);
      next += content.split("\n").length - 1;
      text += content;
    }
    expect(text).toBe(lines.join("\n"));
  }
});
