// Data by its hub address, against the stand-in hub that models have (hub.test.ts): which files are fetched, that they
// arrive whole or not at all, and the words for every refusal. Nothing here reaches the outside.

import { afterEach, beforeEach, describe, expect, test, spyOn } from "bun:test";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readSamples, sourceFiles, type DataSource } from "../../src/data/read/source.ts";
import { DataError } from "../../src/words/errors.ts";
import { isHubPath, resolveDataset } from "../../src/io/hub-datasets.ts";
import { listed, StandInHub } from "../support/hub.ts";
import { temporaryDirectory } from "../support/models.ts";

const variables = ["HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"];
const before = Object.fromEntries([...variables, "HF_TOKEN_PATH", "NO_PROXY"].map((name) => [name, process.env[name]]));
const bytes = (text: string) => new TextEncoder().encode(text);
const line = (text: string) => `${JSON.stringify({ text })}\n`;
const large = bytes(Array.from({ length: 4000 }, (_, i) => line(`line ${i} of a large file`)).join(""));
const largeTag = createHash("sha256").update(large).digest("hex");
const uri = "hf://datasets/acme/tiny";

let hub: StandInHub;
let home: ReturnType<typeof temporaryDirectory>;

beforeEach(async () => {
  hub = await StandInHub.start(
    {
      "README.md": bytes("# About"),
      "data/test-0.jsonl": bytes(line("test")),
      "data/train-0.jsonl": bytes(line("train 0")),
      "data/train-1.jsonl": bytes(line("train 1")),
      "extra/large.jsonl": large,
      "plain.json": bytes('[{"text": "plain"}]'),
      "script.py": bytes("raise SystemExit"),
    },
    "datasets",
  );
  home = temporaryDirectory();
  for (const name of Object.keys(before)) delete process.env[name];
  Object.assign(process.env, { HF_ENDPOINT: hub.url, HF_HOME: home.path, NO_PROXY: "127.0.0.1" });
});

afterEach(() => {
  hub[Symbol.dispose]();
  home[Symbol.dispose]();
  for (const [name, value] of Object.entries(before)) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
});

const cache = () => join(home.path, "hub/datasets--acme--tiny");
const snapshot = () => join(cache(), "snapshots", hub.commit);
const quiet = { output: { write: () => {} } };
const fetchAll = (address: string) =>
  resolveDataset(address, (names, path) => names.filter((name) => name.startsWith(path)), quiet);

async function texts(source: DataSource): Promise<string[]> {
  const found: string[] = [];
  for await (const sample of readSamples(source)) found.push(sample.kind === "text" ? sample.text : sample.kind);
  return found;
}

async function failure(work: () => Promise<unknown>): Promise<string> {
  const outcome = await work().catch((error: unknown) => error);
  if (!(outcome instanceof DataError)) throw outcome instanceof Error ? outcome : new Error("accepted");
  return outcome.message.replaceAll(hub.url, "HUB").replaceAll(home.path, "HOME");
}

describe("which files", () => {
  test("all tables, those of a split, one file, a folder, a glob; never what could run", async () => {
    const names = async (source: DataSource) =>
      (await sourceFiles(source)).map((file) => file.slice(snapshot().length + 1));
    const train = ["data/train-0.jsonl", "data/train-1.jsonl"];
    expect(await names({ path: uri, split: "train" })).toEqual(train);
    expect(hub.takeFileNames()).toEqual(train);
    expect(await names({ path: `${uri}/data` })).toEqual(train);
    expect(await names({ path: uri })).toEqual(train);
    expect(hub.takeFileNames()).toEqual([]);
    expect(await names({ path: `${uri}/data/*-0.jsonl` })).toEqual(["data/test-0.jsonl", "data/train-0.jsonl"]);
    expect(hub.takeFileNames()).toEqual(["data/test-0.jsonl"]);
    expect(await names({ path: `${uri}/plain.json` })).toEqual(["plain.json"]);
    expect(await names({ path: `${uri}/extra` })).toEqual(["extra/large.jsonl"]);
    expect(existsSync(join(snapshot(), "script.py"))).toBe(false);
  });

  test("a dataset in several folders is read as a whole, with a word about it", async () => {
    hub.listing = ["main", "socratic"].flatMap((folder) =>
      ["train", "test"].map((split) => listed(`${folder}/${split}.jsonl`, bytes(line(folder)))),
    );
    for (const folder of ["main", "socratic"]) hub.files.set(`${folder}/train.jsonl`, bytes(line(folder)));
    const write = spyOn(process.stderr, "write").mockReturnValue(true);
    try {
      expect(await texts({ path: uri })).toEqual(["main", "socratic"]);
      expect(write.mock.calls.join("")).toContain(
        `${uri}: its folders main, socratic are read together; one is named as in ${uri}/socratic\n`,
      );
      expect(await texts({ path: `${uri}/main` })).toEqual(["main"]);
    } finally {
      write.mockRestore();
    }
  });

  test("their samples", async () => {
    expect(await texts({ path: uri, split: "train" })).toEqual(["train 0", "train 1"]);
    expect(await texts({ path: `${uri}@main/plain.json` })).toEqual(["plain"]);
  });

  test("an address that is none, and files that are not there", async () => {
    expect(isHubPath(uri)).toBe(true);
    expect(isHubPath("datasets/acme")).toBe(false);
    for (const address of ["hf://acme/tiny", "hf://datasets/tiny", "hf://datasets/a--b/c", "hf://datasets/../x"])
      expect(await failure(() => sourceFiles({ path: address }))).toBe(
        `${address}: is no dataset of the hub; write hf://datasets/OWNER/NAME or hf://datasets/OWNER/NAME/FILE`,
      );
    expect(hub.requests).toEqual([]);
    expect(await failure(() => sourceFiles({ path: `${uri}/nowhere` }))).toBe(
      `${uri}/nowhere: has no .jsonl, .ndjson, .csv, .tsv, .parquet, .json file there (found README.md, data/test-0.jsonl, ` +
        "data/train-0.jsonl, data/train-1.jsonl, extra/large.jsonl, plain.json, script.py); name one, as in hf://datasets/OWNER/NAME/FILE",
    );
    expect(await failure(() => sourceFiles({ path: uri, split: "dev" }))).toStartWith(
      `${uri}: no file has "dev" in its name`,
    );
  });
});

describe("the transfer", () => {
  const part = () => join(cache(), "blobs", `${largeTag}.sluice.incomplete`);

  test("goes through a redirect, and continues where it broke", async () => {
    hub.interruptions = [{ after: 60_000, how: "break" }];
    await fetchAll(`${uri}/extra`);
    expect(await Bun.file(join(snapshot(), "extra/large.jsonl")).bytes()).toEqual(large);
    expect(hub.stored).toHaveLength(2);
    expect(hub.stored[1]).toMatch(/^extra\/large\.jsonl bytes=[1-9]\d*-/);
    expect(readdirSync(join(cache(), "blobs"))).toEqual([largeTag]);
  });

  test("a wrong checksum leaves nothing behind", async () => {
    const wrong = bytes("x".repeat(large.length));
    hub.listing = [listed("extra/large.jsonl", large)];
    hub.files.set("extra/large.jsonl", wrong);
    expect(await failure(() => fetchAll(`${uri}/extra`))).toContain("extra/large.jsonl arrived with checksum ");
    expect(existsSync(part())).toBe(false);
    expect(existsSync(join(snapshot(), "extra/large.jsonl"))).toBe(false);
  });

  test("the second time asks for no file", async () => {
    await fetchAll(uri);
    hub.takeFileNames();
    await fetchAll(uri);
    expect(hub.takeFileNames()).toEqual([]);
  });
});

describe("refusals", () => {
  const answers: [status: number, headers: Record<string, string>, message: string][] = [
    [
      401,
      {},
      "acme/tiny: HUB refuses access (401); check the name, accept the licence at HUB/datasets/acme/tiny if the dataset is gated, " +
        "and set HF_TOKEN to a token that may read it",
    ],
    [404, {}, "acme/tiny: no such dataset on HUB (404); check the name"],
    [
      404,
      { "X-Error-Code": "RevisionNotFound" },
      'acme/tiny: has no revision "main" on HUB (404); name a branch, a tag or a full commit',
    ],
    [
      429,
      { "Retry-After": "60" },
      "acme/tiny: HUB asks for fewer requests (429); wait 1m 00s and run again, what has arrived is kept, or set HF_TOKEN for a higher limit",
    ],
    [503, {}, "acme/tiny: HUB answered 503 Service Unavailable; run again later, or give files on this machine"],
  ];
  for (const [status, headers, message] of answers) {
    test(message, async () => {
      const statusText = status === 503 ? "Service Unavailable" : "";
      hub.answer = () => new Response("{}", { status, headers, statusText });
      expect(await failure(() => fetchAll(uri))).toBe(message);
    });
  }

  test("the token goes to the hub and not to the storage", async () => {
    process.env["HF_TOKEN"] = "hf_secret";
    await fetchAll(`${uri}/extra`);
    expect(hub.requests.every((request) => request.endsWith(" hf_secret"))).toBe(true);
    expect(hub.stored.every((request) => request.endsWith("no token"))).toBe(true);
  });
});

describe("without a network", () => {
  test("what was fetched is used, and a part is not taken for the whole", async () => {
    await fetchAll(`${uri}/data`);
    process.env["HF_HUB_OFFLINE"] = "1";
    hub.requests = [];
    expect(await fetchAll(`${uri}/data`)).toHaveLength(3);
    expect(await failure(() => fetchAll(uri))).toBe(
      `acme/tiny: HF_HUB_OFFLINE is set and HOME/hub/datasets--acme--tiny has not all files of ${uri}; unset it to download them`,
    );
    rmSync(cache(), { recursive: true });
    expect(await failure(() => fetchAll(uri))).toBe(
      'acme/tiny: HF_HUB_OFFLINE is set and HOME/hub/datasets--acme--tiny has nothing of "main"; unset it to download the dataset',
    );
    expect(hub.requests).toEqual([]);
  });

  test("an outage is announced, and the copy used", async () => {
    await fetchAll(`${uri}/data`);
    hub.answer = () => new Response("", { status: 503 });
    const lines: string[] = [];
    const output = { write: (text: string) => lines.push(text) };
    const files = await resolveDataset(`${uri}/data`, (names) => names.filter((name) => name.startsWith("data/")), {
      output,
    });
    expect(files).toHaveLength(3);
    expect(lines.join("")).toContain("; until then the copy in ");
    hub.answer = () => new Response("", { status: 404 });
    expect(await failure(() => fetchAll(`${uri}/data`))).toContain("no such dataset");
  });
});

describe("a hub that means harm", () => {
  for (const path of ["../evil.jsonl", "a/../../evil.jsonl", "/evil.jsonl", "a//b.jsonl", "a\\b.jsonl", "./a.jsonl"]) {
    test(`a file named ${path}`, async () => {
      hub.listing = [{ ...listed("a.jsonl", bytes("{}")), path }];
      expect(await failure(() => fetchAll(uri))).toContain("HUB answered what no hub should (in its file list ");
    });
  }

  test("a note that was tampered with leads nowhere", async () => {
    await fetchAll(`${uri}/data`);
    writeFileSync(
      join(cache(), ".sluice", `${hub.commit}.json`),
      JSON.stringify([{ name: "../../../x", bytes: 1, etag: "a".repeat(40) }]),
    );
    process.env["HF_HUB_OFFLINE"] = "1";
    expect(await failure(() => fetchAll(uri))).toContain('has nothing of "main"');
  });
});
