// `sluice data` shows what training would see, from files or from a run's config; `sluice report` makes reports again.

import { expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { sluice } from "../support/cli.ts";
import { fixtures, temporaryDirectory } from "../support/models.ts";
import { writeRun } from "../support/runs.ts";

setDefaultTimeout(patiently(30_000)); // processes, on a machine that may be busy

const model = join(fixtures, "qwen3-tiny");

function write(directory: string): string {
  const path = join(directory, "data.jsonl");
  const lines = [{ prompt: "12", completion: "34" }, { text: "one two three four five six seven" }, { x: 1 }];
  writeFileSync(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  return path;
}

test("data: tokens, lengths, packing, malformed lines", async () => {
  using directory = temporaryDirectory();
  const path = write(directory.path);
  const { out, error, code } = await sluice(["data", path, "--model", model, "--sequenceLength", "16", "--shown", "1"]);
  expect({ error, code }).toEqual({ error: "", code: 0 });
  expect(out).toStartWith(`${path}:1\n12[3][4][`);
  expect(out).not.toContain(`${path}:2\n`);
  expect(out).toMatch(/2 samples, \d documents, \d+ tokens; \d+ count \([\d.]+ %\)/);
  expect(out).toMatch(/up to 16 /);
  expect(out).toMatch(/packed into \d rows of 16, [\d.]+ % of their room unused/);
  expect(out).toContain(
    `1 malformed; training stops at them unless maxBadLines allows for so many\n  ${path}:3: expected`,
  );
});

test("data: --json, --loss, and a config that says it all", async () => {
  using directory = temporaryDirectory();
  const path = write(directory.path);
  const facts = JSON.parse((await sluice(["data", path, "--model", model, "--json"])).out);
  expect(facts).toMatchObject({ samples: 2, documents: 2, bad: { count: 1 }, rows: 1 });
  const all = JSON.parse((await sluice(["data", path, "--model", model, "--json", "--loss", "all"])).out);
  expect(all.validTokens).toBeGreaterThan(facts.validTokens);

  const config = join(directory.path, "config.ts");
  const text = `export default { model: ${JSON.stringify(model)}, sequenceLength: 16, chat: { loss: "all" },
    data: [{ path: ${JSON.stringify(path)}, map: (record) => ({ text: record.prompt ?? "from a function" }) }] };`;
  writeFileSync(config, text);
  const shown = await sluice(["data", "--config", config]);
  expect({ error: shown.error, code: shown.code }).toEqual({ error: "", code: 0 });
  expect(shown.out).toContain("3 samples, 3 documents");
  expect(shown.out).toContain("rows of 16");
});

test("data: nothing that can be learned is exit code 1, so that a script may ask first", async () => {
  using directory = temporaryDirectory();
  const path = join(directory.path, "data.jsonl");
  for (const [content, message] of [
    ["", "nothing here can be learned: 0 samples without a token that counts, 0 malformed\n"],
    ["no\nlines\n", "nothing here can be learned: 0 samples without a token that counts, 2 malformed\n"],
  ]) {
    writeFileSync(path, content!);
    expect(await sluice(["data", path, "--model", model])).toMatchObject({ code: 1, error: message! });
    const json = await sluice(["data", path, "--model", model, "--json"]);
    expect({ ...json, out: JSON.parse(json.out).samples }).toMatchObject({ code: 1, error: message!, out: 0 });
  }
});

test("data: what is missing or wrong", async () => {
  const failure = async (...args: string[]) => (await sluice(["data", ...args])).error;
  expect(await failure()).toBe("sluice data needs a data file, or a --config that names one\n");
  expect(await failure("x.jsonl")).toBe(
    "--model is missing: whose tokenizer? Give a Hugging Face directory or hub id\n",
  );
  expect(await failure("x.jsonl", "--model", model)).toStartWith("x.jsonl: no such file; data takes");
  expect(await failure("x.jsonl", "--model", model, "--loss", "some")).toBe(
    "--loss must be assistant or last or completion or all (was some)\n",
  );
  expect(await failure("x.jsonl", "--model", model, "--sequenceLength", "1")).toBe(
    "sequenceLength must be a whole number >= 2 (was 1)\n",
  );
});

test("report: of one run, made again; of two, a comparison", async () => {
  using directory = temporaryDirectory();
  const [one, two] = ["one", "two"].map((name) => join(directory.path, name));
  writeRun(one!, 20);
  writeRun(two!, 10);
  expect(await sluice(["report", one!])).toEqual({ out: `${one}/report.html\n`, error: "", code: 0 });
  expect(existsSync(join(one!, "loss.svg"))).toBe(true);
  rmSync(join(one!, "report.html"));
  const output = join(directory.path, "both.html");
  const { out } = await sluice(["report", one!, two!, "--output", output, "--json"]);
  expect(JSON.parse(out)).toEqual({ report: output });
  expect(await Bun.file(output).text()).toContain("<h1>one · two</h1>");
  expect(existsSync(join(one!, "report.html"))).toBe(false);
});

test("report: what is missing or wrong", async () => {
  expect(await sluice(["report"])).toMatchObject({
    error: "sluice report needs a run directory, the `output` of a run\n",
    code: 1,
  });
  expect((await sluice(["report", "nowhere"])).error).toStartWith("nowhere is not a run directory");
  expect((await sluice(["report", "a", "--output", "b"])).error).toBe(
    "--output says where a comparison goes; the report of one run is always a/report.html\n",
  );
});
