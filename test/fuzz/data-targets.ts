// The readers of data files: every record is read, shaped and encoded, or is a problem that names its place.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { parquetWriteBuffer } from "hyparquet-writer";
import { Encoder } from "../../src/data/text/encode.ts";
import { readRecords } from "../../src/data/read/files.ts";
import { readItems } from "../../src/data/read/source.ts";
import { loadTokenizer } from "../../src/data/text/tokenizer.ts";
import { DataError } from "../../src/words/errors.ts";
import { fixtures } from "../support/models.ts";
import { must, type Reader, type Target } from "./harness.ts";
import { bytesOf, type Bytes } from "./mutate.ts";

const turns = [
  { role: "user", content: "Hé?" },
  { role: "assistant", content: "Hi." },
];
const records = [
  { messages: turns },
  { messages: [{ role: "system", content: "S" }, ...turns], tools: [{ name: "t" }] },
  {
    conversations: [
      { from: "human", value: "a" },
      { from: "gpt", value: "b" },
    ],
  },
  { instruction: "Add", input: "1 2", output: "3" },
  { prompt: "p ", completion: "c" },
  { text: "some text\nmore" },
];
const words =
  `"messages": "conversations": "role": "content": "assistant" "user" "from": "gpt" "value": "instruction": "output":
   "prompt": "completion": "text": "tools": null {} [] "tool_calls":[]`.split(/\s+/);

/** Reads a file of this name in full. */
async function open(directory: string, ending: string): Promise<Reader> {
  const path = join(directory, `data${ending}`);
  const encoder = new Encoder(await loadTokenizer(join(fixtures, "qwen3-tiny")), {
    sequenceLength: 64,
    loss: "assistant",
  });
  return async (input) => {
    writeFileSync(path, input);
    let good = 0;
    let firstProblem: string | undefined;
    for await (const item of readItems({ path }, [path])) {
      try {
        if ("problem" in item) throw new DataError(item.problem);
        const { documents } = encoder.encode(item);
        for (const { ids, labels } of documents)
          must(ids.length === labels.length && ids.every(Number.isSafeInteger), "a label for each token");
        good++;
      } catch (error) {
        if (!(error instanceof DataError)) throw error;
        must(error.message.startsWith(path), `a problem names its file, ${error.message}`);
        firstProblem ??= error.message;
      }
    }
    if (good === 0) throw new DataError(firstProblem ?? "no samples");
  };
}

/** As if whoever reads a record trusted its shape. */
// oxlint-disable-next-line typescript/no-explicit-any
function trusting(ending: string, use: (record: any) => unknown): (directory: string) => Reader {
  return (directory) => async (input) => {
    const path = join(directory, `data${ending}`);
    writeFileSync(path, input);
    for await (const { read } of readRecords(path)) use(read());
  };
}

const contents = (record: { messages?: { content: string }[] }) =>
  record.messages?.map(({ content }) => content.length);

export const jsonl: Target = {
  seeds: () => [bytesOf(records.map((record) => `${JSON.stringify(record)}\n`).join(""))],
  words: ["\n", "\r\n", ...words],
  open: (directory) => open(directory, ".jsonl"),
  planted: trusting(".jsonl", contents),
};

export const json: Target = {
  seeds: () => [JSON.stringify(records), JSON.stringify(records, null, 2), JSON.stringify(records[0])].map(bytesOf),
  words,
  isJson: true,
  open: (directory) => open(directory, ".json"),
  planted: trusting(".json", contents),
};

const table = (separator: string) =>
  `prompt,completion\r\n"a ""b""\nc",d\r\ne,f\n"g,h",i\n`.replaceAll(",", separator).replace(`g${separator}h`, "g,h");
const quoted = ['"', '""', ",", "\t", "\n", "\r\n", '"\n', ',"', "prompt", "text"];

export const csv: Target = {
  seeds: () => [bytesOf(table(",")), bytesOf("text\nfirst\nsecond\n")],
  words: quoted,
  open: (directory) => open(directory, ".csv"),
  planted: trusting(".csv", (record) => (record.prompt ?? record.text).length),
};

export const tsv: Target = {
  seeds: () => [bytesOf(table("\t"))],
  words: quoted,
  open: (directory) => open(directory, ".tsv"),
  planted: trusting(".tsv", (record) => record.prompt.length),
};

export const parquet: Target = {
  seeds: () => {
    const texts = Array.from({ length: 40 }, (_, i) => `text number ${i % 7}`);
    const written = [
      { columnData: [{ name: "text", data: texts }], rowGroupSize: 15 },
      { columnData: [{ name: "text", data: texts }], codec: "UNCOMPRESSED" as const },
      { columnData: [{ name: "messages", data: [turns, turns], type: "JSON" as const }] },
      {
        columnData: [
          { name: "prompt", data: ["a", "b"] },
          { name: "completion", data: ["c", "d"] },
        ],
        statistics: false,
      },
    ];
    return written.map((options) => new Uint8Array(parquetWriteBuffer(options)) as Bytes);
  },
  words: ["PAR1", "text", "\xff\xff\xff\x7f", "\x15\x00", "\0\0\0\0"],
  open: (directory) => open(directory, ".parquet"),
  planted: (directory) => async (input) => {
    const path = join(directory, "data.parquet");
    writeFileSync(path, input);
    const { asyncBufferFromFile, parquetReadObjects } = await import("hyparquet");
    await parquetReadObjects({ file: await asyncBufferFromFile(path) });
  },
};
