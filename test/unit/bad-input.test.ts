// What Sluice answers to wrong input, word for word: configs here, data lines below. Wrong model directories are in
// bad-model.test.ts and tokenizer.test.ts. A message names the place and the value, and says what to write instead.

import { describe, expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { parseConfig } from "../../src/run/config.ts";
import { loadDataset } from "../../src/data/dataset.ts";
import { loadTokenizer } from "../../src/data/text/tokenizer.ts";
import { testDirectory } from "../support/models.ts";

const minimal = { model: "models/tiny", data: "chat.jsonl", output: "runs/one" };

const configs: [wrong: unknown, message: string][] = [
  [null, "the config must be an object (was null)"],
  [{ ...minimal, model: "" }, 'model must be a non-empty string (was "")'],
  [{ data: "a", output: "b" }, "model is missing; it must be a non-empty string"],
  [{ ...minimal, data: [] }, "data must be a path, or a list of paths and of sources such as { path: ... } (was [])"],
  [{ ...minimal, data: ["a.jsonl", 3] }, "data[1] must be a path or a source such as { path: ... } (was 3)"],
  [{ ...minimal, dtpye: "float32" }, "dtpye is not a known key; did you mean dtype?"],
  [{ ...minimal, learningRate: 1e-4 }, "learningRate is not a known key; did you mean optimizer.learningRate?"],
  [{ ...minimal, lr: 1e-4 }, "lr is not a known key; did you mean optimizer.learningRate?"],
  [
    { ...minimal, optimizer: { learningrate: 1 } },
    "optimizer.learningrate is not a known key; did you mean optimizer.learningRate?",
  ],
  [
    { ...minimal, window: { prefetch: 1 } },
    "window.prefetch is not a known key; known here: boundary, keep, keepBlocks, residentBlocks, ring, slots",
  ],
  [
    { ...minimal, optimizer: { weightDecayGroups: [{ match: "*.bias", weightDecay: 0, decay: 1 }] } },
    "optimizer.weightDecayGroups[0].decay is not a known key; did you mean schedule.decay?",
  ],
  [
    { ...minimal, optimizer: { weightDecayGroups: [{ match: "*.bias" }] } },
    "optimizer.weightDecayGroups[0].weightDecay is missing; it must be a number >= 0",
  ],
  [{ ...minimal, optimizer: { learningRate: -0.1 } }, "optimizer.learningRate must be a number > 0 (was -0.1)"],
  [{ ...minimal, optimizer: { learningRate: "fast" } }, 'optimizer.learningRate must be a number > 0 (was "fast")'],
  [{ ...minimal, optimizer: { learningRate: Infinity } }, "optimizer.learningRate must be a number > 0 (was Infinity)"],
  [{ ...minimal, optimizer: { beta2: 1 } }, "optimizer.beta2 must be a number >= 0 and < 1 (was 1)"],
  [{ ...minimal, optimizer: 3 }, "optimizer must be an object (was 3)"],
  [
    { ...minimal, optimizer: { state: "int8-moments" } },
    'optimizer.state "int8-moments" is not available in this build yet; use "fp32"',
  ],
  [
    { ...minimal, device: "cuda", dtype: "float32" },
    'dtype "float32" is not computed on device "cuda", whose kernels are bfloat16; use "bfloat16", or device "cpu"',
  ],
  [{ ...minimal, device: "tpu" }, 'device must be "auto", "cpu", "cuda" or "hip" (was "tpu")'],
  [
    { ...minimal, dtype: "float16" },
    'dtype "float16" is not supported (its gradients need loss scaling); use "bfloat16" or "float32"',
  ],
  [
    { ...minimal, device: "null" },
    'device "null" computes nothing and keeps no weights, it is there to test plans; use "cpu", "cuda" or "hip"',
  ],
  [{ ...minimal, deviceMemory: "80 gigs" }, 'deviceMemory must be a size such as "24GiB" or "512MiB" (was "80 gigs")'],
  [{ ...minimal, deviceMemory: -1 }, 'deviceMemory must be a size such as "24GiB" or "512MiB" (was -1)'],
  [{ ...minimal, maxBadLines: 0.01 }, 'maxBadLines must be a whole number of lines or a share such as "1%" (was 0.01)'],
  [{ ...minimal, workers: 0 }, "workers must be a whole number >= 1 (was 0)"],
  [{ ...minimal, seed: 1.5 }, "seed must be a whole number from 0 to 4294967295 (was 1.5)"],
  [{ ...minimal, steps: 10, epochs: 2 }, "steps (10) and epochs (2) both say how long to train; give one of them"],
  [
    { ...minimal, sequenceLength: 2048, microBatchTokens: 1024 },
    "microBatchTokens (1024) is smaller than sequenceLength (2048), so a full row would not fit; use at least 2048, or shorten sequenceLength",
  ],
  [
    { ...minimal, batchSize: 8, gradientAccumulation: 3 },
    "batchSize (8) is not a multiple of gradientAccumulation (3); use 6 or 9",
  ],
  [
    { ...minimal, batchSize: 2, gradientAccumulation: 3 },
    "batchSize (2) is not a multiple of gradientAccumulation (3); use 3",
  ],
  [
    { ...minimal, maxGradNorm: 0 },
    'maxGradNorm must be a number > 0, { value, mode: "exact" | "previous" } or null (was 0)',
  ],
  [{ ...minimal, window: { slots: 1 } }, 'window.slots must be a whole number >= 2, "all" or "auto" (was 1)'],
  [{ ...minimal, window: { boundary: "disk" } }, 'window.boundary must be "auto", "device" or "pinned" (was "disk")'],
  [
    { ...minimal, window: { ring: 3 } },
    'window.ring (3) cannot be smaller than "all" while maxGradNorm is 1: exact clipping keeps every gradient until the norm is known; ' +
      'set maxGradNorm to null or window.ring to "all"',
  ],
  [
    { ...minimal, window: { keep: "attention" } },
    'window.keep ("attention") is what window.keepBlocks blocks keep, which is "auto"; give keepBlocks a number or "all", or leave keep out',
  ],
  [
    { ...minimal, maxGradNorm: { value: 1, mode: "last" } },
    'maxGradNorm.mode must be "exact" or "previous" (was "last")',
  ],
  [
    { ...minimal, schedule: { warmup: "a tenth" } },
    'schedule.warmup must be a whole number of steps or a share such as "3%" (was "a tenth")',
  ],
  [
    { ...minimal, schedule: { warmup: "101%" } },
    'schedule.warmup must be a whole number of steps or a share such as "3%" (was "101%")',
  ],
  [
    { ...minimal, steps: 10, schedule: { warmup: 20 } },
    'schedule.warmup (20) is longer than the run (10 steps); use fewer steps or a share such as "3%"',
  ],
  [
    { ...minimal, schedule: { type: "linear", decay: 10 } },
    'schedule.decay belongs to schedule.type "wsd" (was "linear"); remove it or change the type',
  ],
  [
    { ...minimal, schedule: { type: "constant", minRatio: 0.1 } },
    'schedule.minRatio has no effect on schedule.type "constant"; remove it or change the type',
  ],
  [
    { ...minimal, schedule: { type: "step" } },
    'schedule.type must be "constant", "cosine", "linear" or "wsd" (was "step")',
  ],
  [{ ...minimal, checkpoint: { every: 0 } }, 'checkpoint.every must be a whole number >= 1, null or "never" (was 0)'],
  [
    { ...minimal, checkpoint: { resume: 3 } },
    'checkpoint.resume must be true, false, "auto" or the path of a checkpoint (was 3)',
  ],
  [
    { ...minimal, evaluation: { every: 5 } },
    "evaluation.every (5) needs evaluationData, which is missing; give it a held-out file",
  ],
  [{ ...minimal, chat: { loss: "user" } }, 'chat.loss must be "all", "assistant", "completion" or "last" (was "user")'],
  [
    { ...minimal, workers: 0, chat: { los: "all" } },
    "2 problems in the config:\n  - chat.los is not a known key; did you mean chat.loss?\n  - workers must be a whole number >= 1 (was 0)",
  ],
];

describe("config", () => {
  for (const [wrong, message] of configs) {
    test(message, async () => {
      const error = await parseConfig(wrong).catch((caught: Error) => caught);
      expect(error).toMatchObject({ name: "ConfigError", message });
    });
  }
});

const user = '{"role": "user", "content": "Hi"}';
const good = '{"text": "fine"}\n';

/** File contents and the message, with FILE for the path. */
const files: [content: string | Uint8Array, message: string][] = [
  [
    "",
    'FILE: no samples; expected one JSON object per line with "messages", "conversations", "instruction" with "output", "prompt" with "completion", or "text"',
  ],
  [
    "\n \n",
    'FILE: no samples; expected one JSON object per line with "messages", "conversations", "instruction" with "output", "prompt" with "completion", or "text"',
  ],
  [
    `${good}{"text": "cut`,
    "FILE:2: not valid JSON (JSON Parse error: Unterminated string); expected one JSON object per line",
  ],
  [
    `${good}\n{"text": 1,}`,
    "FILE:3: not valid JSON (JSON Parse error: Property name must be a string literal); expected one JSON object per line",
  ],
  [
    '["a"]',
    'FILE:1: expected a JSON object with "messages", "conversations", "instruction" with "output", "prompt" with "completion", or "text" (was "a")',
  ],
  [
    "null",
    'FILE:1: expected a JSON object with "messages", "conversations", "instruction" with "output", "prompt" with "completion", or "text" (was null)',
  ],
  [
    "{}",
    'FILE:1: expected "messages", "conversations", "instruction" with "output", "prompt" with "completion", or "text" (found no keys)',
  ],
  [
    '{"dialog": [], "id": 3}',
    'FILE:1: expected "messages", "conversations", "instruction" with "output", "prompt" with "completion", or "text" (found "dialog", "id")',
  ],
  ['{"prompt": "a", "answer": "b"}', 'FILE:1: "prompt" needs a "completion" (found "prompt", "answer")'],
  ['{"completion": "b"}', 'FILE:1: "completion" needs a "prompt" (found "completion")'],
  [`{"messages": [${user}], "text": "a"}`, 'FILE:1: has "messages" and "text"; keep one of them'],
  [
    '{"prompt": "a", "completion": "b", "text": "c"}',
    'FILE:1: has "prompt" with "completion" and "text"; keep one of them',
  ],
  ['{"text": 5}', "FILE:1: text must be a string (was 5)"],
  ['{"text": ""}', "FILE:1: text must not be empty"],
  ['{"prompt": ["a"], "completion": "b"}', 'FILE:1: prompt[0] must be an object with role and content (was "a")'],
  [`{"prompt": [${user}], "completion": "b"}`, 'FILE:1: completion must be a list with at least one message (was "b")'],
  [
    '{"prompt": "a", "chosen": "b", "rejected": "c"}',
    'FILE:1: is preference data ("chosen" beside "rejected"), and Sluice trains on one answer: map it to one of those in a recipe: map: (row) => ({ prompt: row.prompt, completion: row.chosen })',
  ],
  [
    '{"question": "a", "answer": "b"}',
    'FILE:1: expected "messages", "conversations", "instruction" with "output", "prompt" with "completion", or "text" (found "question", "answer"); say what is what with columns: { prompt: "question", completion: "answer" }, as in --data \'{"path": FILE, "columns": {"prompt": "question", "completion": "answer"}}\'',
  ],
  ['{"text": null}', 'FILE:1: "text" is null; leave the record out, or give it a value (found "text")'],
  [
    '{"prompt": "a", "completion": null}',
    'FILE:1: "completion" is null; leave the record out, or give it a value (found "prompt", "completion")',
  ],
  [
    String.raw`{"messages": [{"role": "assistant", "tool_calls": [{"arguments": {"a": "\ud83d"}}]}]}`,
    "FILE:1: messages[0] has half of a surrogate pair, which is no character; write the whole one, or leave it out",
  ],
  ['{"input_ids": [1], "labels": [1]}', "FILE:1: is tokenized already; Sluice tokenizes texts, so give it those"],
  [
    `{"messages": [${user}], "images": ["a.png"]}`,
    'FILE:1: has "images", and Sluice trains on text alone; leave such records out (filter in a recipe), or take the text out of them',
  ],
  [
    '{"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url"}]}]}',
    'FILE:1: messages[0].content[1] is of type "image_url", and Sluice trains on text alone; leave such records out (filter in a recipe), or take the text out of them',
  ],
  ['{"prompt": "a", "completion": ""}', "FILE:1: completion must not be empty"],
  ['{"messages": []}', "FILE:1: messages must be a list with at least one message (was [])"],
  ['{"messages": "Hi"}', 'FILE:1: messages must be a list with at least one message (was "Hi")'],
  [`{"messages": [${user}, "Hello"]}`, 'FILE:1: messages[1] must be an object with role and content (was "Hello")'],
  [
    `{"messages": [${user}, {"role": "bot", "content": "x"}]}`,
    'FILE:1: messages[1].role must be one of "system", "developer", "user", "assistant", "tool" (was "bot")',
  ],
  [
    '{"messages": [{"content": "x"}]}',
    'FILE:1: messages[0].role must be one of "system", "developer", "user", "assistant", "tool" (was undefined)',
  ],
  ['{"messages": [{"role": "user"}]}', "FILE:1: messages[0].content must be a string (was undefined)"],
  [
    '{"messages": [{"role": "user", "content": [{"type": "text"}]}]}',
    'FILE:1: messages[0].content[0] must be a part such as {"type": "text", "text": "..."} (was {"type":"text"})',
  ],
  [`{"messages": [${user}], "tools": {}}`, "FILE:1: tools must be a list (was {})"],
  [
    `${good}{"messages": [${user}]}`,
    'FILE:2: messages has no "assistant" turn, so nothing can be learned; add one or set chat.loss to "all"',
  ],
  [
    `${good}{"messages": [{"role": "system", "content": "x"}, {"role": "assistant", "content": "x"}]}`,
    "FILE:2: messages[0]: the chat template cannot render these messages: Only user and assistant roles are supported!",
  ],
  [
    new Uint8Array([...Buffer.from(`${good}{"text": "`), 0xc3, 0x28, ...Buffer.from('"}')]),
    "FILE:2: not valid UTF-8; save the file as UTF-8",
  ],
  [
    '{"prompt": "a long prompt that fills the whole row", "completion": "b"}',
    "FILE: none of the 1 samples has a token that counts within 8 tokens; raise sequenceLength or look at the data",
  ],
];

describe("data", async () => {
  const tokenizer = await loadTokenizer(join(import.meta.dir, "../fixtures/tokenizer-spm"));
  const failure = (path: string) =>
    loadDataset(path, tokenizer, { sequenceLength: 8, loss: "assistant" }).catch((caught: Error) => caught);

  for (const [content, message] of files) {
    test(message, async () => {
      const path = join(testDirectory(), "data.jsonl");
      await Bun.write(path, content);
      expect(await failure(path)).toMatchObject({ name: "DataError", message: message.replace("FILE", path) });
    });
  }

  test("a file that is missing, and a directory", async () => {
    const directory = testDirectory();
    const path = join(directory, "no.jsonl");
    expect(await failure(path)).toMatchObject({
      name: "DataError",
      message: `${path}: no such file; data takes files, folders and globs of JSONL, JSON, CSV, Parquet, text and Markdown`,
    });
    mkdirSync(path);
    expect(await failure(path)).toMatchObject({
      name: "DataError",
      message: `${path}: the folder has no .jsonl, .ndjson, .csv, .tsv, .parquet, .json, .txt, .md, .markdown file; name the files if they end differently`,
    });
  });

  test("conversations for a model without a chat template", async () => {
    const path = join(testDirectory(), "data.jsonl");
    await Bun.write(path, `{"messages": [${user}, {"role": "assistant", "content": "x"}]}`);
    const plain = Object.create(tokenizer, { chatTemplate: { value: undefined } }) as typeof tokenizer;
    const error = await loadDataset(path, plain, { sequenceLength: 8, loss: "all" }).catch((caught: Error) => caught);
    expect(error).toMatchObject({
      name: "ModelError",
      message:
        `${tokenizer.directory}/chat_template.jinja is missing, and tokenizer_config.json has no chat_template, so "messages" cannot be ` +
        `rendered; add the file or use "prompt" and "completion"`,
    });
  });
});
