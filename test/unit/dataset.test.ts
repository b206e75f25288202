import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { ChatLoss } from "../../src/data/text/chat.ts";
import { loadDataset, type Dataset } from "../../src/data/dataset.ts";
import { IGNORED } from "../../src/data/text/encode.ts";
import { loadTokenizer } from "../../src/data/text/tokenizer.ts";
import { testDirectory } from "../support/models.ts";

const tokenizer = await loadTokenizer(join(import.meta.dir, "../fixtures/tokenizer-qwen"));
const llama = await loadTokenizer(join(import.meta.dir, "../fixtures/tokenizer-llama3"));

async function load(lines: unknown[], sequenceLength = 1000, from = tokenizer, loss: ChatLoss = "assistant") {
  const path = join(testDirectory(), "data.jsonl");
  await Bun.write(path, lines.map((line) => JSON.stringify(line)).join("\n"));
  return loadDataset(path, from, { sequenceLength, loss });
}

/** Documents as text, what counts as text. */
function read({ tokens, targets, starts }: Dataset, from = tokenizer): [string, string][] {
  return Array.from({ length: starts.length - 1 }, (_, d) => {
    const [begin, end] = [starts[d]!, starts[d + 1]!];
    const valid = [...targets.subarray(begin, end)].filter((target) => target !== IGNORED);
    const decode = (ids: Iterable<number>) => from.decode(ids, { skipSpecial: false });
    return [decode(tokens.subarray(begin, end)), decode(valid)];
  });
}

describe("the three shapes", () => {
  test("text: begin and end are marked as the model expects, everything is predicted", async () => {
    expect(read(await load([{ text: "Hello" }]))).toEqual([["Hello<|im_end|>", "ello<|im_end|>"]]);
    expect(read(await load([{ text: "Hello" }], 1000, llama), llama)).toEqual([
      ["<|begin_of_text|>Hello<|eot_id|>", "Hello<|eot_id|>"],
    ]);
  });

  test("prompt and completion: only the completion counts", async () => {
    expect(read(await load([{ prompt: "2+2=", completion: "4" }]))).toEqual([["2+2=4<|im_end|>", "4<|im_end|>"]]);
    expect(read(await load([{ prompt: "2+2=", completion: "4<|im_end|>" }]))[0]![0]).toBe("2+2=4<|im_end|>");
    expect(read(await load([{ prompt: "", completion: "Hi" }]))).toEqual([["Hi<|im_end|>", "i<|im_end|>"]]);
    expect(read(await load([{ prompt: "2+2=", completion: "4" }], 1000, tokenizer, "all"))).toEqual([
      ["2+2=4<|im_end|>", "+2=4<|im_end|>"],
    ]);
  });

  test("a conversation: what the assistant says counts, or everything", async () => {
    const messages = [
      { role: "system", content: "S" },
      { role: "user", content: "U" },
      { role: "assistant", content: "A" },
    ];
    const text = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n";
    expect(read(await load([{ messages, id: 7 }]))).toEqual([[text, "A<|im_end|>\n"]]);
    expect(read(await load([{ messages }], 1000, tokenizer, "all"))).toEqual([
      [text, text.slice("<|im_start|>".length)],
    ]);
    expect(read(await load([{ messages: messages.slice(0, 2) }], 1000, tokenizer, "all"))).toHaveLength(1);
  });
});

describe("what of a conversation counts", () => {
  const messages = ["user 1", "assistant 2", "user 3", "assistant 4", "tool 5", "assistant 6"].map((turn) => {
    const [role, content] = turn.split(" ");
    return { role, content };
  });
  const counts = async (loss: ChatLoss) =>
    read(await load([{ messages }], 1000, tokenizer, loss)).map(([, valid]) => valid);

  test("all assistant turns, the last, or what follows the last user turn", async () => {
    expect(await counts("assistant")).toEqual(["2<|im_end|>\n4<|im_end|>\n6<|im_end|>\n"]);
    expect(await counts("last")).toEqual(["6<|im_end|>\n"]);
    expect(await counts("completion")).toEqual(["4<|im_end|>\n6<|im_end|>\n"]);
  });

  test("of prompt and completion, the completion each time", async () => {
    for (const loss of ["assistant", "last", "completion"] as const)
      expect(read(await load([{ prompt: "2+2=", completion: "4" }], 1000, tokenizer, loss))).toEqual([
        ["2+2=4<|im_end|>", "4<|im_end|>"],
      ]);
  });

  test("nothing to learn is an error", async () => {
    const error = await load([{ messages: messages.slice(0, 3) }], 1000, tokenizer, "completion").catch(
      (caught) => caught,
    );
    expect(error).toMatchObject({ name: "DataError" });
    expect(error.message).toEndWith(
      'data.jsonl:1: messages has no "assistant" turn after the last "user" turn, so nothing can be learned; add one or set chat.loss to "all"',
    );
  });
});

describe("maxBadLines", () => {
  const lines = [
    "{",
    '{"text": "a"}',
    '{"text": 3}',
    '{"messages": [{"role": "user", "content": "x"}]}',
    '{"text": "b"}',
  ];
  async function attempt(maxBadLines: number | string, content = lines) {
    const path = join(testDirectory(), "data.jsonl");
    await Bun.write(path, content.join("\n"));
    const outcome = await loadDataset(path, tokenizer, { sequenceLength: 9, loss: "assistant", maxBadLines }).catch(
      (caught: Error) => caught,
    );
    if (outcome instanceof Error) return outcome.message.replaceAll(path, "FILE");
    const { samples, badLines } = outcome.report;
    return { samples, count: badLines?.count, first: badLines?.first.map((line) => line.replaceAll(path, "FILE")) };
  }
  const shown = [
    "FILE:1: not valid JSON (JSON Parse error: Expected '}'); expected one JSON object per line",
    "FILE:3: text must be a string (was 3)",
    'FILE:4: messages has no "assistant" turn, so nothing can be learned; add one or set chat.loss to "all"',
  ];

  test("lines that cannot be read, recognised or rendered are left out, counted and shown", async () => {
    for (const enough of [3, 100, "60%", "100%"])
      expect(await attempt(enough)).toEqual({ samples: 2, count: 3, first: shown });
  });

  test("too many stop the run: a count at once, a share when all lines are read", async () => {
    expect(await attempt(0)).toBe(shown[0]!);
    expect(await attempt(1)).toBe(
      `2 bad lines, maxBadLines is 1; correct them or raise maxBadLines. The first:\n  ${shown[0]}\n  ${shown[1]}`,
    );
    expect(await attempt("59.9%")).toBe(
      `3 of 5 lines are bad (60.00%), maxBadLines is "59.9%"; correct them or raise maxBadLines. The first:\n` +
        shown.map((line) => `  ${line}`).join("\n"),
    );
  });

  test("only the first few are shown, and a file without any good line is no data", async () => {
    const many = await attempt(
      "50%",
      Array.from({ length: 9 }, () => "{"),
    );
    expect(many).toMatch(
      /^FILE: none of its 9 records is a sample; the first bad lines:\n(  FILE:\d: .+\n){5}  \.\.\. and 4 more$/,
    );
  });
});

describe("longer than a row", () => {
  test("a text becomes pieces and no prediction is lost", async () => {
    const data = await load([{ text: "1234567" }], 3);
    const one = tokenizer.encode("1234567", { special: true });
    expect(data.tokens).toEqual(Int32Array.from([...one, tokenizer.eosId!]));
    expect([...data.starts]).toEqual([0, 3, 6, 8]);
    expect(data.targets).toEqual(Int32Array.from([...one.slice(1), tokenizer.eosId!, IGNORED]));
    expect(data.report).toMatchObject({
      samples: 1,
      documents: 3,
      tokens: 8,
      validTokens: 7,
      truncated: 0,
      dropped: 0,
    });
  });

  test("a last piece of one token predicts nothing and is left out", async () => {
    const data = await load([{ text: "123456" }], 3);
    expect([...data.starts]).toEqual([0, 3, 6]);
    expect(data.targets.at(-1)).toBe(tokenizer.eosId!);
    expect(data.report).toMatchObject({ documents: 2, validTokens: 6, dropped: 0 });
  });

  test("completions lose their end, and what then has nothing to learn is dropped", async () => {
    const data = await load(
      [{ prompt: "12", completion: "3456" }, { prompt: "12345", completion: "6" }, { text: "12" }],
      4,
    );
    // The fourth token of the first sample predicts the fifth, which is known although it is cut off.
    expect(read(data)).toEqual([
      ["1234", "345"],
      ["12<|im_end|>", "2<|im_end|>"],
    ]);
    expect(data.report).toMatchObject({ samples: 3, documents: 2, truncated: 2, dropped: 1 });
  });

  test("one token more than a row loses nothing", async () => {
    const data = await load([{ prompt: "12", completion: "34" }], 4);
    expect(read(data)).toEqual([["1234", "34<|im_end|>"]]);
    expect(data.report).toMatchObject({ truncated: 0, dropped: 0 });
  });
});

test("the digest follows the tokens", async () => {
  const [a, same, b] = [await load([{ text: "ab" }]), await load([{ text: "ab" }]), await load([{ text: "ac" }])];
  expect(a.digest).toBe(same.digest);
  expect(a.digest).not.toBe(b.digest);
});

test("files longer than a read chunk, several files, blank lines, a byte order mark, a missing last newline", async () => {
  const directory = testDirectory();
  const [one, two] = [join(directory, "one.jsonl"), join(directory, "two.jsonl")];
  const lines = Array.from({ length: 3000 }, (_, i) => JSON.stringify({ text: `line ${i} ${"x".repeat(i % 300)} é` }));
  await Bun.write(one, `\ufeff${lines.slice(0, 2000).join("\r\n")}\r\n\n`);
  await Bun.write(two, `\n${lines.slice(2000).join("\n")}`);
  const both = await loadDataset([one, two], tokenizer, { sequenceLength: 1000, loss: "assistant" });
  expect(both.report).toMatchObject({ samples: 3000, documents: 3000 });
  const texts = read(both).map(([text]) => text.replace("<|im_end|>", ""));
  expect(texts).toEqual(lines.map((line) => JSON.parse(line).text));
});
