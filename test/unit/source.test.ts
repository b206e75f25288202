// Every file format and every shape, and what a source's settings do to the records. Weights are in loader.test.ts, the
// words for malformed lines in bad-input.test.ts.

import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { parquetWriteBuffer } from "hyparquet-writer";
import { configJson, parseConfig, type TrainConfig } from "../../src/run/config.ts";
import { parseCsv } from "../../src/data/read/csv.ts";
import { toSample } from "../../src/data/read/shapes.ts";
import { listSources, readSamples, type DataInput } from "../../src/data/read/source.ts";
import { DataError } from "../../src/words/errors.ts";
import { temporaryDirectory } from "../support/models.ts";

let directory: ReturnType<typeof temporaryDirectory>;
beforeEach(() => void (directory = temporaryDirectory()));
afterEach(() => directory[Symbol.dispose]());

const at = (name: string) => join(directory.path, name);
const put = (files: Record<string, string | ArrayBuffer>) =>
  Promise.all(Object.entries(files).map(([name, content]) => Bun.write(at(name), content)));

/** All samples; texts as `where text`. */
async function read(input: DataInput): Promise<string[]> {
  const found: string[] = [];
  for (const source of listSources(input))
    for await (const sample of readSamples(source)) {
      const content =
        sample.kind === "text"
          ? sample.text
          : sample.kind === "prompt"
            ? `${sample.prompt} -> ${sample.completion}`
            : sample.messages.map((message) => `${message.role}: ${message.content}`).join(" | ");
      found.push(`${sample.where.slice(directory.path.length + 1)} ${content}`);
    }
  return found;
}

async function failure(input: DataInput): Promise<string> {
  const error = await read(input).catch((caught: unknown) => caught);
  if (!(error instanceof DataError)) throw new Error(`accepted: ${String(error)}`);
  return error.message.replaceAll(directory.path, "DIR");
}

const lines = (texts: string[]) => texts.map((text) => `${JSON.stringify({ text })}\n`).join("");

describe("shapes", () => {
  const messages = (record: unknown) => {
    const sample = toSample(record, "here");
    return sample.kind === "conversation" ? sample.messages : sample;
  };

  test("ShareGPT: who speaks, by any of the usual names", () => {
    const turns = [
      { from: "system", value: "Be brief." },
      { from: "human", value: "Hi" },
      { from: "gpt", value: "Hello" },
      { from: "user", value: "Bye" },
      { from: "assistant", value: "Goodbye" },
    ];
    const roles = ["system", "user", "assistant", "user", "assistant"];
    expect(messages({ id: "x", conversations: turns })).toEqual(
      turns.map(({ value }, i) => ({ role: roles[i]!, content: value })),
    );
    expect(messages({ system: "Be kind.", conversations: turns.slice(1, 3) })).toEqual([
      { role: "system", content: "Be kind." },
      { role: "user", content: "Hi" },
      { role: "assistant", content: "Hello" },
    ]);
    expect(messages({ conversations: [{ role: "user", content: "Hi" }] })).toEqual([{ role: "user", content: "Hi" }]);
  });

  test("Alpaca: the input follows the instruction, and its own text is left aside", () => {
    const answer = { role: "assistant", content: "3" };
    expect(messages({ instruction: "Add", input: "1 and 2", output: "3", text: "Below is ..." })).toEqual([
      { role: "user", content: "Add\n\n1 and 2" },
      answer,
    ]);
    for (const input of ["", null, undefined])
      expect(messages({ instruction: "Add", input, output: "3" })).toEqual([{ role: "user", content: "Add" }, answer]);
  });

  test("contents in parts are one text; prompt and completion may be lists of messages", () => {
    const parts = [
      { type: "text", text: "one, " },
      { type: "text", text: "two" },
    ];
    expect(messages({ messages: [{ role: "user", content: parts }] })).toEqual([{ role: "user", content: "one, two" }]);
    const turn = (role: string, content: string) => ({ role, content });
    const prompt = [turn("user", "a"), turn("assistant", "b"), turn("user", "c")];
    expect(messages({ prompt, completion: [turn("assistant", "d")] })).toEqual([
      ...prompt.map((message) => ({ ...message, train: false })),
      turn("assistant", "d"),
    ]);
  });

  test("what is wrong with one", () => {
    const problem = (record: unknown) => {
      try {
        return JSON.stringify(toSample(record, "here"));
      } catch (error) {
        return (error as Error).message;
      }
    };
    expect(problem({ instruction: "Add" })).toBe('here: "instruction" needs an "output" (found "instruction")');
    expect(problem({ output: "3" })).toBe('here: "output" needs an "instruction" (found "output")');
    expect(problem({ instruction: "Add", output: "" })).toBe("here: output must not be empty");
    expect(problem({ instruction: "Add", input: 3, output: "3" })).toBe("here: input must be a string (was 3)");
    expect(problem({ conversations: [] })).toBe(
      "here: conversations must be a list with at least one message (was [])",
    );
    expect(problem({ conversations: [{ from: "gpt", value: 3 }] })).toBe(
      "here: conversations[0].value must be a string (was 3)",
    );
    expect(problem({ conversations: [{ from: "toString", value: "x" }] })).toBe(
      'here: conversations[0].from must be one of "human", "gpt", "chatgpt", "bing", "bard", "model", "bot", "function_call", "observation", ' +
        '"system", "developer", "user", "assistant", "tool" (was "toString")',
    );
    expect(problem({ messages: [{ role: "user", content: "a" }], conversations: [] })).toBe(
      'here: has "messages" and "conversations"; keep one of them',
    );
  });
});

describe("formats", () => {
  test("JSON Lines, with a byte order mark and empty lines", async () => {
    await put({ "a.jsonl": `\ufeff${lines(["one"])}\n \r\n${lines(["two"])}` });
    expect(await read(at("a.jsonl"))).toEqual(["a.jsonl:1 one", "a.jsonl:4 two"]);
  });

  test("a JSON array, each element with the line on which it begins", async () => {
    const pretty =
      '[\n  {"text": "one, [\\"1\\"] }"},\n\n  {\n    "text": "two",\n    "tags": ["a", {"b": []}]\n  }, {"text": "three"}\n]\n';
    await put({
      "a.json": pretty,
      "flat.json": '[{"text":"one"},{"text":"two"}]',
      "lines.json": lines(["one", "two"]),
    });
    expect(await read(at("a.json"))).toEqual(['a.json:2 one, ["1"] }', "a.json:4 two", "a.json:7 three"]);
    expect(await read(at("flat.json"))).toEqual(["flat.json:1 one", "flat.json:1 two"]);
    expect(await read(at("lines.json"))).toEqual(["lines.json:1 one", "lines.json:2 two"]);
    await put({ "cut.json": '[\n{"text": "one"},\n{"text": "tw', "bad.json": '[\n{"text": "one"},\n{"text": }]' });
    expect(await failure(at("cut.json"))).toBe(
      "DIR/cut.json:3: the array that begins the file is not closed; the file may be cut off",
    );
    expect(await failure(at("bad.json"))).toStartWith("DIR/bad.json:3: not valid JSON (");
  });

  test("CSV: quotes, commas and newlines inside fields; TSV", async () => {
    await put({
      "a.csv": '\ufeffprompt,completion\r\n"1,5 ""plus"" 1","2\n1/2"\r\n\r\nplain,answer\r\n',
      "a.tsv": "text\tid\none, two\t1\n",
    });
    expect(await read(at("a.csv"))).toEqual(['a.csv:2 1,5 "plus" 1 -> 2\n1/2', "a.csv:5 plain -> answer"]);
    expect(await read(at("a.tsv"))).toEqual(["a.tsv:2 one, two"]);
  });

  test("CSV: what is wrong with a row", async () => {
    const wrong: [string, string][] = [
      ["text,id\na,b,1\n", ":2: has 3 fields, the header has 2; put fields that hold a comma in quotes"],
      ['text,id\n"a,1\n', ":2: a quoted field that begins in this row is never closed; add the missing quote"],
      ['text,id\n"a" b,1\n', ":2: text follows a closing quote; double the quotes inside a quoted field"],
      ["text,text\na,b\n", ':1: the header names "text" twice'],
      [
        "question,answer\na,b\n",
        ':2: expected "messages", "conversations", "instruction" with "output", "prompt" with "completion", or "text" (found "question", "answer"); say what is what with columns: { prompt: "question", completion: "answer" }, as in --data \'{"path": FILE, "columns": {"prompt": "question", "completion": "answer"}}\'',
      ],
    ];
    for (const [content, message] of wrong) {
      await put({ "a.csv": content });
      expect(await failure(at("a.csv"))).toBe(`DIR/a.csv${message}`);
    }
  });

  test("CSV: any fields come back as they were", () => {
    const parts = ["", "a", '"', ",", "\n", "\r\n", " ", "é", '""'];
    for (let seed = 0; seed < 2000; seed++) {
      const field = (i: number) =>
        Array.from({ length: (seed * 7 + i) % 4 }, (_, j) => parts[(seed * (i + 3) + j * 5) % 9]).join("");
      const rows = Array.from({ length: 3 }, (_, row) => ["x", field(row), field(row + 5)]);
      const text = rows.map((row) => row.map((value) => `"${value.replaceAll('"', '""')}"`).join(",")).join("\r\n");
      expect([...parseCsv(text, ",")].map(({ fields }) => fields)).toEqual(rows);
    }
  });

  test("Parquet: texts, and conversations as lists of structures, over several row groups", async () => {
    const texts = Array.from({ length: 250 }, (_, i) => `text ${i}`);
    const turns = [
      { role: "user", content: "Hi" },
      { role: "assistant", content: "Hello" },
    ];
    await put({
      "a.parquet": parquetWriteBuffer({ columnData: [{ name: "text", data: texts }], rowGroupSize: 100 }),
      "b.parquet": parquetWriteBuffer({ columnData: [{ name: "messages", data: [turns], type: "JSON" }] }),
      "bad.parquet": "PAR1 is not enough",
    });
    expect(await read(at("a.parquet"))).toEqual(texts.map((text, i) => `a.parquet:row ${i + 1} ${text}`));
    expect(await read(at("b.parquet"))).toEqual(["b.parquet:row 1 user: Hi | assistant: Hello"]);
    expect(await failure(at("bad.parquet"))).toMatch(
      /^DIR\/bad\.parquet: cannot be read as Parquet \(.+\); write the file again$/,
    );
  });

  test("folders of text and Markdown, each file one text; beside data files they are no data", async () => {
    await put({ "books/b.md": "# B", "books/part/a.txt": "A", "books/.hidden/c.txt": "C", "books/d.html": "D" });
    expect(await read(at("books"))).toEqual(["books/b.md # B", "books/part/a.txt A"]);
    await put({ "set/README.md": "About", "set/data/x.jsonl": lines(["x"]), "set/data/a.csv": "text\na\n" });
    expect(await read(at("set"))).toEqual(["set/data/a.csv:2 a", "set/data/x.jsonl:1 x"]);
    await put({ "none/a.html": "x" });
    expect(await failure(at("none"))).toContain("DIR/none: the folder has no .jsonl, ");
  });

  test("globs", async () => {
    await put({ "b.jsonl": lines(["b"]), "a.jsonl": lines(["a"]), "deep/c.jsonl": lines(["c"]) });
    expect(await read(at("*.jsonl"))).toEqual(["a.jsonl:1 a", "b.jsonl:1 b"]);
    expect(await read(at("**/{b,c}.jsonl"))).toEqual(["b.jsonl:1 b", "deep/c.jsonl:1 c"]);
    expect(await failure(at("*.csv"))).toContain("DIR/*.csv: the glob matches no file in ");
    await put({ "odd[1].jsonl": lines(["odd"]) });
    expect(await read(at("odd[1].jsonl"))).toEqual(["odd[1].jsonl:1 odd"]);
  });
});

describe("settings", () => {
  const numbers = Array.from({ length: 100 }, (_, i) => String(i));
  const values = async (input: DataInput) => (await read(input)).map((line) => Number(line.split(" ")[1]));

  test("filter, map and limit, in this order", async () => {
    await put({ "a.jsonl": numbers.map((n) => `{"n": ${n}}\n`).join("") });
    const seen: number[] = [];
    const map = (record: { n?: number }) => {
      seen.push(record.n!);
      return { text: String(record.n! * 10) };
    };
    const path = at("a.jsonl");
    expect(await values([{ path, filter: ({ n }) => n % 2 === 1, map, limit: 3 }])).toEqual([10, 30, 50]);
    expect(seen).toEqual([1, 3, 5]);
    expect(await failure([{ path, filter: () => false }])).toBe(
      "DIR/a.jsonl: none of its 100 records is left after split and filter; loosen them",
    );
    expect(await failure([{ path, map: (record) => record["missing"].text }])).toMatch(
      /^DIR\/a\.jsonl:1: map failed \(TypeError: .+\) on \{"n":0\}$/,
    );
  });

  test("columns of any name, without a recipe", async () => {
    await put({ "a.csv": "question,answer,prompt\nq,a,p\n" });
    const columns = { prompt: "question", completion: "answer" };
    expect(await read([{ path: at("a.csv"), columns }])).toEqual(["a.csv:2 q -> a"]);
    const swapped = { prompt: "answer", completion: "prompt" };
    expect(await read([{ path: at("a.csv"), columns: swapped }])).toEqual(["a.csv:2 a -> p"]);
    expect(await failure([{ path: at("a.csv"), columns: { text: "story" } }])).toContain("(found ");
  });

  test("a cut parts the records evenly, and its halves make the whole", async () => {
    await put({ "a.jsonl": lines(numbers) });
    const path = at("a.jsonl");
    const most = await values([{ path, split: "[:90%]" }]);
    const rest = await values([{ path, split: "[90%:]" }]);
    expect([...most, ...rest].sort((a, b) => a - b)).toEqual(numbers.map(Number));
    for (const from of [0, 25, 50, 75]) {
      const count = rest.filter((n) => n >= from && n < from + 25).length;
      expect(count).toBeWithin(2, 4);
    }
    expect(await values([{ path, split: "[90%:]" }])).toEqual(rest);
    expect((await values([{ path, split: "[12.5%:50%]" }])).length).toBeWithin(35, 41);
  });

  test("a name takes the files that carry it", async () => {
    await put({
      "train/part/train-0.jsonl": lines(["1"]),
      "train/part/test-0.jsonl": lines(["2"]),
      "train/test/x.jsonl": lines(["3"]),
      "train/part/latest.jsonl": lines(["4"]),
    });
    expect(await values([{ path: at("train"), split: "test" }])).toEqual([2, 3]);
    expect(await values([{ path: at("train"), split: "train" }])).toEqual([1]);
    expect(await values([{ path: at("train/*/*.jsonl"), split: "train[:100%]" }])).toEqual([1]);
    expect(await failure([{ path: at("train"), split: "dev" }])).toStartWith(
      'DIR/train: no file has "dev" in its name (found DIR/train/part/latest.jsonl, ',
    );
  });
});

describe("in the config", () => {
  const base = { model: "m", output: "o" };
  const problems = async (data: unknown) =>
    ((await parseConfig({ ...base, data }).catch((error: Error) => error)) as Error).message;

  test("sources are kept, functions too, and written down as what they were", async () => {
    const map = () => ({ text: "x" });
    const config = await parseConfig({
      ...base,
      data: [
        { path: "a", weight: 2, map },
        { path: "b", weight: 1 },
      ],
    });
    expect(config.data).toEqual([
      { path: "a", weight: 2, map },
      { path: "b", weight: 1 },
    ]);
    const written = configJson(config) as { data: unknown };
    expect(written.data).toEqual([
      { path: "a", weight: 2, map: "(a function of the recipe)" },
      { path: "b", weight: 1 },
    ]);
    expect(await problems(written.data)).toBe(
      "data[0].map was a function, which a config file cannot hold; run the recipe it was written in",
    );
  });

  test("functions know what they are given", () => {
    const config = {
      ...base,
      data: ["a", { path: "b", map: (row) => ({ text: row["x"] as string }) }],
    } satisfies TrainConfig;
    expect(config.data).toHaveLength(2);
  });

  test("what may be wrong", async () => {
    const wrong: [unknown, string][] = [
      [
        { path: "a" },
        'data must be a path, or a list of paths and of sources such as { path: ... } (was {"path":"a"})',
      ],
      [[{}], "data[0].path must be a non-empty string (was undefined)"],
      [[{ path: "a", wieght: 1 }], "data[0].wieght is not a known key; did you mean data[0].weight?"],
      [
        [{ path: "a", rows: 1 }],
        "data[0].rows is not a known key; known here: path, weight, split, limit, columns, filter, map",
      ],
      [[{ path: "a", weight: 0 }], "data[0].weight must be a number > 0 (was 0)"],
      [
        [{ path: "a", columns: "b" }],
        'data[0].columns must be an object such as { prompt: "question", completion: "answer" } (was "b")',
      ],
      [[{ path: "a", columns: { text: 3 } }], "data[0].columns.text must be the name of a column (was 3)"],
      [
        [{ path: "a", columns: { question: "a" } }],
        "data[0].columns.question is no key of a shape; known here: messages, conversations, instruction, output, prompt, completion, text, input, system, tools",
      ],
      [[{ path: "a", limit: 0 }], "data[0].limit must be a whole number >= 1 (was 0)"],
      [[{ path: "a", filter: "x > 1" }], 'data[0].filter must be a function (was "x > 1")'],
      [
        ["a", { path: "b", weight: 1 }],
        "data[0] has no weight and others have one; give a weight to all sources or to none",
      ],
      ...["[90%:10%]", "[:90]", "", "[:101%]"].map((split): [unknown, string] => [
        [{ path: "a", split }],
        `data[0].split must be a name, a cut such as "[:90%]", or both as in "train[:90%]" (was ${JSON.stringify(split)})`,
      ]),
    ];
    for (const [data, message] of wrong) expect(await problems(data)).toBe(message);
  });
});
