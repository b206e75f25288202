// What lies in the cache of tokens is used whole or not at all: whatever byte of it changes, somebody makes it again; and what
// killed processes left half written goes.

import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { noCounts, type Batch } from "../../src/data/batch.ts";
import { sealed, unsealed } from "../../src/data/store/checksum.ts";
import { PartStore, type StreamProgress } from "../../src/data/store/part-store.ts";
import { storeKey } from "../../src/data/store/store-key.ts";
import { FileStore, findStored } from "../../src/data/store/token-store.ts";
import { loadTokenizer } from "../../src/data/text/tokenizer.ts";
import { cacheDirectory } from "../../src/words/cache.ts";
import { temporaryDirectory } from "../support/models.ts";

let directory: ReturnType<typeof temporaryDirectory>;
beforeEach(() => void (directory = temporaryDirectory()));
afterEach(() => directory[Symbol.dispose]());

const batch: Batch = {
  tokens: Int32Array.of(5, 6, 7, 8, 9, 10),
  targets: Int32Array.of(6, -100, 8, 9, 10, -100),
  lengths: Int32Array.of(2, 4),
  counts: noCounts(),
  problems: [],
  remarks: new Map(),
};

/** Every byte of a file changed in turn; each time `look` must find nothing wrong, which `restore` then undoes. */
async function flipEach(path: string, look: (byte: number) => Promise<void>): Promise<void> {
  const whole = readFileSync(path);
  for (let byte = 0; byte < whole.length; byte++) {
    const flipped = Buffer.from(whole);
    flipped[byte]! ^= 1 << (byte % 8);
    writeFileSync(path, flipped);
    await look(byte);
  }
  writeFileSync(path, whole);
}

/** What is said to stderr while some work is done. */
async function said(work: () => unknown): Promise<string> {
  const write = spyOn(process.stderr, "write").mockReturnValue(true);
  try {
    await work();
    return write.mock.calls.join("");
  } finally {
    write.mockRestore();
  }
}

describe("a dataset", () => {
  async function stored(): Promise<string> {
    await using store = await FileStore.create("key", directory.path);
    await store.add(batch);
    await store.finish((digest) => ({ digest, report: "r" }));
    return join(directory.path, "key");
  }
  const find = () => findStored<{ report: string }>("key", directory.path);

  test("is found as it was stored", async () => {
    await stored();
    const { tokens, targets, starts, about } = (await find())!;
    expect([tokens, targets, starts, about.report]).toEqual([batch.tokens, batch.targets, Int32Array.of(0, 2, 6), "r"]);
  });

  test("whatever byte changes, is not found, and is said to be damaged", async () => {
    const names = readdirSync(await stored());
    expect(names.sort()).toEqual(["about.json", "starts", "targets", "tokens"]);
    for (const name of names) {
      const path = join(directory.path, "key", name);
      const others = names.map(
        (other) => [join(directory.path, "key", other), readFileSync(join(directory.path, "key", other))] as const,
      );
      await flipEach(path, async () => {
        expect(await find()).toBeUndefined();
        expect(existsSync(path)).toBe(false);
        mkdirSync(join(directory.path, "key"));
        for (const [other, bytes] of others) writeFileSync(other, bytes);
      });
      for (const length of [0, 4, 1000]) {
        writeFileSync(path, Buffer.alloc(length));
        expect(await find()).toBeUndefined();
        mkdirSync(join(directory.path, "key"));
        for (const [other, bytes] of others) writeFileSync(other, bytes);
      }
    }
    expect(await find()).toBeDefined();
    writeFileSync(join(directory.path, "key", "tokens"), "");
    expect(await said(find)).toBe(""); // it was said before
    using other = temporaryDirectory();
    mkdirSync(join(other.path, "key"));
    expect(await said(() => findStored("key", other.path))).toBe(
      `${join(other.path, "key")}: the tokens that are kept there are damaged, and are made again\n`,
    );
  });
});

describe("the parts of a stream", () => {
  const progress = (tasks: number): StreamProgress => ({
    tasks,
    bytes: tasks * 10,
    counts: noCounts(),
    tokens: tasks * 6,
    bad: { count: 0, first: [] },
    sources: [{ samples: tasks, bad: 0 }],
  });

  test("whatever byte changes, are found up to there, and not read", async () => {
    const store = PartStore.open("key", directory.path);
    const parts = [await store.write(0, [batch], progress(1)), await store.write(1, [batch], progress(2))];
    const about = { ...progress(2), parts: 2 };
    await store.end(about);
    expect(await store.found()).toEqual({ parts, about });
    const { tokens, targets, starts } = (await store.read(1))!;
    expect([tokens, targets, starts]).toEqual([batch.tokens, batch.targets, Int32Array.of(0, 2, 6)]);
    await flipEach(store.path(1), async () => {
      expect(await store.read(1)).toBeUndefined();
      expect(await store.readLengths(1)).toBeUndefined();
      const found = await store.found();
      if (found.parts.length === 2)
        expect(found).toEqual({ parts, about }); // its body is looked at when it is read
      else expect(found).toEqual({ parts: parts.slice(0, 1), about: undefined });
    });
    await flipEach(join(directory.path, "key/about.json"), async () =>
      expect(await store.found()).toEqual({ parts, about: undefined }),
    );
    expect(await store.found()).toEqual({ parts, about });
  });
});

test("a sealed value comes back, or not at all", () => {
  const value = { a: [1, "é", null], b: { c: 1e-7 } };
  const text = sealed(value);
  expect(unsealed(text)).toEqual(value);
  for (const other of ["", "{}", text.slice(1), `${text} `, text.replace("1e-7", "1e-8")])
    expect(unsealed(other)).toBeUndefined();
});

test("what processes left half written goes when they are gone", async () => {
  const gone = Bun.spawnSync(["true"]).pid;
  const host = hostname().replace(/[^\w-]/g, "-");
  const left = [`.aa@${host}.${gone}.1.tmp`, `.bb.${gone}.12.tmp`, ".cc@elsewhere.1.1.tmp"];
  const stay = [`.dd@${host}.${process.pid}.1.tmp`, `.ee@elsewhere.${gone}.1.tmp`, "ff"];
  for (const name of [...left, ...stay]) mkdirSync(join(directory.path, name));
  const old = new Date(Date.now() - 25 * 3600 * 1000);
  utimesSync(join(directory.path, left[2]!), old, old);
  await using store = await FileStore.create("key", directory.path);
  expect(store).toBeDefined();
  const now = readdirSync(directory.path);
  expect(now).toEqual(expect.arrayContaining(stay));
  expect(now.filter((name) => left.includes(name))).toEqual([]);
  mkdirSync(join(directory.path, "key"));
  writeFileSync(join(directory.path, "key", `.part-000001@${host}.${gone}.1.tmp`), "half");
  PartStore.open("key", directory.path);
  expect(readdirSync(join(directory.path, "key"))).toEqual([]);
});

test("the key of a file that was changed and given its old size and time again is another", async () => {
  const tokenizer = await loadTokenizer(join(import.meta.dir, "../fixtures/tokenizer-qwen"));
  const path = join(directory.path, "a.jsonl");
  const key = () =>
    storeKey([{ path, files: [path], hasBlocks: true }], tokenizer, {
      sequenceLength: 8,
      loss: "all",
      form: ["dataset"],
    });
  writeFileSync(path, '{"text":"one"}');
  const { atime, mtime } = statSync(path);
  const before = await key();
  expect(await key()).toBe(before!);
  await Bun.sleep(20);
  writeFileSync(path, '{"text":"two"}');
  utimesSync(path, atime, mtime);
  expect(statSync(path).mtimeMs).toBe(mtime.getTime());
  expect(await key()).not.toBe(before!);
});

test("one rule for where caches are", () => {
  const { SLUICE_CACHE, XDG_CACHE_HOME } = process.env;
  try {
    process.env["SLUICE_CACHE"] = "/somewhere";
    expect(cacheDirectory()).toBe("/somewhere");
    process.env["SLUICE_CACHE"] = "";
    process.env["XDG_CACHE_HOME"] = "/caches";
    expect(cacheDirectory()).toBe("/caches/sluice");
    process.env["XDG_CACHE_HOME"] = "relative";
    expect(cacheDirectory()).toEndWith("/.cache/sluice");
  } finally {
    for (const [name, value] of Object.entries({ SLUICE_CACHE, XDG_CACHE_HOME }))
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
  }
});
