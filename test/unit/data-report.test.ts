// What `sluice data` prints: tokens and whether they count, lengths, packing, and the lines where something is lost.

import { expect, test } from "bun:test";
import { join } from "node:path";
import { describeData, measureData } from "../../src/data/data-report.ts";
import { loadDataset } from "../../src/data/dataset.ts";
import { Loader } from "../../src/data/loader.ts";
import { loadTokenizer } from "../../src/data/text/tokenizer.ts";
import { temporaryDirectory } from "../support/models.ts";

const tokenizer = await loadTokenizer(join(import.meta.dir, "../fixtures/tokenizer-qwen"));
const options = { sequenceLength: 16, loss: "assistant" } as const;

/** A file of 12 good lines and more that lose something. */
async function write(directory: string): Promise<string> {
  const path = join(directory, "data.jsonl");
  const lines: unknown[] = [
    {
      messages: [
        { role: "user", content: "U" },
        { role: "assistant", content: "A\u001b[31m" },
      ],
    },
    { prompt: "12", completion: "34567890".repeat(6) },
    { prompt: "12345678901234567890", completion: "6" },
    { text: 3 },
    ...Array.from({ length: 12 }, (_, i) => ({ text: "1".repeat(1 + i) })),
    { messages: [{ role: "user", content: "U" }] },
  ];
  await Bun.write(path, lines.map((line) => JSON.stringify(line)).join("\n"));
  return path;
}

test("the text, without colours", async () => {
  using directory = temporaryDirectory();
  const path = await write(directory.path);
  const text = (
    await describeData(path, tokenizer, { ...options, sequenceLength: 40, shown: 1, color: false })
  ).replaceAll(path, "FILE");
  expect(text).toBe(`FILE:1
<|im_start|>system⏎
You are a helpful assistant.<|im_end|>⏎
<|im_start|>user⏎
U<|im_end|>⏎
<|im_start|>assistant⏎
[A][·][[][3][1][m][<|im_end|>][⏎
]

15 samples, 15 documents, 192 tokens; 127 count (66.1 %)
tokens per document: 2 to 40, half have at most 9
  up to  5  ████████████████████████       4
  up to 10  ██████████████████████████████ 5
  up to 15  ██████████████████             3
  up to 20                                 0
  up to 25  ██████                         1
  up to 30                                 0
  up to 35                                 0
  up to 40  ████████████                   2
packed into 5 rows of 40, 4.0 % of their room unused
1 truncated, 10 tokens lost; a longer sequenceLength keeps them
  FILE:2: loses 10 tokens at its end
2 malformed; training stops at them unless maxBadLines allows for so many
  FILE:4: text must be a string (was 3)
  FILE:17: messages has no "assistant" turn, so nothing can be learned; add one or set chat.loss to "all"`);
});

test("the numbers are those of training", async () => {
  using directory = temporaryDirectory();
  const path = await write(directory.path);
  const facts = await measureData(path, tokenizer, options);
  const { report, ...data } = await loadDataset(path, tokenizer, { ...options, maxBadLines: 2 });
  const { samples, documents, tokens, validTokens } = facts;
  expect({ samples, documents, tokens, validTokens }).toEqual({
    samples: report.samples,
    documents: report.documents,
    tokens: report.tokens,
    validTokens: report.validTokens,
  });
  expect(facts.truncated.count).toBe(report.truncated);
  expect(facts.dropped.count).toBe(report.dropped);
  expect(facts.bad).toEqual({ count: report.badLines!.count, first: report.badLines!.first });
  const shape = { ...options, batchSize: 1, microBatchTokens: 16, gradientAccumulation: 1 };
  expect(facts.rows).toBe(new Loader({ report, ...data }, shape, 1).rowsPerEpoch);
  expect(facts.rowsUnused).toBeCloseTo(1 - tokens / (facts.rows * 16));
  expect(facts.histogram.reduce((sum, bin) => sum + bin.documents, 0)).toBe(documents);
});

test("with colours, what counts is green", async () => {
  using directory = temporaryDirectory();
  const path = join(directory.path, "data.jsonl");
  await Bun.write(path, '{"prompt": "1", "completion": "2"}');
  const text = await describeData(path, tokenizer, { ...options, color: true });
  expect(text).toContain("\u001b[2m1\u001b[22m\u001b[2m│\u001b[22m\u001b[32m2\u001b[39m");
});

test("many places are cut short", async () => {
  using directory = temporaryDirectory();
  const path = join(directory.path, "data.jsonl");
  await Bun.write(path, `{"text": "good"}\n${"{}\n".repeat(25)}`);
  const text = await describeData(path, tokenizer, { ...options, color: false });
  expect(text).toContain("25 malformed; training stops at them unless maxBadLines allows for so many\n");
  expect(text).toEndWith("\n  ... and 15 more");
});
