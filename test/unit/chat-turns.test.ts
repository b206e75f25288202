// Where a conversation's answers are, for templates and conversations that make it hard: what is learned, what is a bad line
// with its place, and what is said although it is learned.

import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parquetWriteBuffer } from "hyparquet-writer";
import { measureData } from "../../src/data/data-report.ts";
import { loadDataset } from "../../src/data/dataset.ts";
import { toSample } from "../../src/data/read/shapes.ts";
import type { DataRecord } from "../../src/data/read/source.ts";
import { ChatTemplate, encodeConversation, type ChatLoss, type Conversation } from "../../src/data/text/chat.ts";
import { loadTokenizer, Tokenizer } from "../../src/data/text/tokenizer.ts";
import { parseExact } from "../../src/io/exact-json.ts";
import { DataError } from "../../src/words/errors.ts";
import { temporaryDirectory } from "../support/models.ts";

const fixtures = join(import.meta.dir, "../fixtures");
const published = (name: string) => readFileSync(join(fixtures, `jinja/templates/${name}.jinja`), "utf8");
const directory = join(fixtures, "tokenizer-qwen");
const tokenizerJson = await Bun.file(join(directory, "tokenizer.json")).json();

function tokenizerWith(templates: Record<string, string>): Tokenizer {
  return new Tokenizer(directory, { tokenizer: tokenizerJson, config: { eos_token: "<|im_end|>" }, templates });
}

/** The documents of a conversation as text, what counts in brackets, and what is said of it. */
function learned(source: string | Record<string, string>, conversation: Conversation, loss: ChatLoss = "assistant") {
  const tokenizer = tokenizerWith(typeof source === "string" ? { default: source } : source);
  const remarks: string[] = [];
  const remark = (kind: string) => void remarks.push(kind);
  const documents = encodeConversation(new ChatTemplate(tokenizer), tokenizer, conversation, loss, remark);
  const texts = documents.map(({ ids, counted }) => {
    const pieces: string[] = [];
    for (let from = 0, to = 0; from < ids.length; from = to) {
      while (to < ids.length && counted[to] === counted[from]) to++;
      const text = tokenizer.decode(ids.slice(from, to), { skipSpecial: false });
      pieces.push(counted[from] ? `[${text}]` : text);
    }
    return pieces.join("");
  });
  return { texts, remarks };
}

const say = (...turns: [role: string, content: string, more?: object][]): Conversation => ({
  messages: turns.map(([role, content, more]) => ({ role, content, ...more })),
});
/** As Llama 3's: the first message brings begin-of-text, so no messages are no beginning. */
const llama =
  "{% for m in messages %}{% set content = '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' %}" +
  "{% if loop.index0 == 0 %}{% set content = 'BOS' + content %}{% endif %}{{ content }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
const chatml = published("chatml");

describe("answers are found", () => {
  test("when the assistant begins, whether or not the template needs a message", () => {
    const conversation = say(["assistant", "Welcome"], ["user", "q"], ["assistant", "a"]);
    expect(learned(llama, conversation).texts).toEqual([
      "BOS<|im_start|>assistant\n[Welcome<|im_end|>]<|im_start|>user\nq<|im_end|><|im_start|>assistant\n[a<|im_end|>]",
    ]);
    expect(learned(published("qwen2.5"), conversation).texts).toEqual([
      "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>assistant\n[Welcome<|im_end|>\n]" +
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[a<|im_end|>\n]",
    ]);
  });

  test("behind the prompt that the template makes, if it writes the question differently once it is answered", () => {
    const conversation = say(["system", "Be brief."], ["user", "q"], ["assistant", "a"]);
    expect(learned(published("mistral-v3"), conversation).texts).toEqual([
      "[INST] Be brief.\n\nq[/INST][ a<|im_end|>]",
    ]);
    const longer = say(
      ...conversation.messages.map(({ role, content }) => [role, content!] as [string, string]),
      ["user", "q"],
      ["assistant", "b"],
    );
    expect(learned(published("mistral-v3"), longer).texts).toEqual([
      "[INST] Be brief.\n\nq[/INST][ a<|im_end|>]",
      "[INST] q[/INST] a<|im_end|>[INST] Be brief.\n\nq[/INST][ b<|im_end|>]",
    ]);
  });

  test("two in a row", () => {
    expect(learned(published("qwen3"), say(["user", "a"], ["assistant", "b"], ["assistant", "c"])).texts).toEqual([
      "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[<think>\n\n</think>\n\nb<|im_end|>\n]",
      "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nb<|im_end|>\n<|im_start|>assistant\n" +
        "[<think>\n\n</think>\n\nc<|im_end|>\n]",
    ]);
  });

  test("with their indentation, which Qwen 3's lstrip leaves", () => {
    const { texts } = learned(published("qwen3"), say(["user", "code"], ["assistant", "\n    return x + 1"]));
    expect(texts[0]).toEndWith("[<think>\n\n</think>\n\n    return x + 1<|im_end|>\n]");
  });

  test("where the template marks them, in one rendering", () => {
    const conversation = say(["user", "q"], ["assistant", "a"], ["user", "r"], ["assistant", "b"]);
    const source = published("chatml-generation");
    const prefix = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n";
    const middle = "\n<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n";
    expect(learned(source, conversation).texts).toEqual([`${prefix}[a<|im_end|>]${middle}[b<|im_end|>]\n`]);
    expect(learned(source, conversation, "last").texts).toEqual([`${prefix}a<|im_end|>${middle}[b<|im_end|>]\n`]);
    // A mark of its own choice, the header included.
    const wide = source.replace(
      "{{- '<|im_start|>assistant\\n' }}\n        {%- generation %}",
      "{%- generation %}{{- '<|im_start|>assistant\\n' }}",
    );
    expect(learned(wide, conversation, "last").texts[0]).toEndWith(
      "<|im_end|>\n[<|im_start|>assistant\nb<|im_end|>]\n",
    );
  });
});

describe("what says that it is not to be learned", () => {
  for (const flag of [{ weight: 0 }, { weight: 0.0 }, { train: false }, { training: false }, { loss: false }])
    test(JSON.stringify(flag), () => {
      const conversation = say(
        ["user", "q1"],
        ["assistant", "bad", flag],
        ["user", "q2"],
        ["assistant", "good", { weight: 1, train: true }],
      );
      const context =
        "<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\nbad<|im_end|>\n<|im_start|>user\nq2<|im_end|>\n<|im_start|>assistant\n";
      expect(learned(chatml, conversation).texts).toEqual([`${context}[good<|im_end|>\n]`]);
      const all = context.replace("bad<|im_end|>\n", "]bad<|im_end|>\n[");
      expect(learned(chatml, conversation, "all").texts).toEqual([`[${all}good<|im_end|>\n]`]);
      const marked = learned(published("chatml-generation"), conversation).texts[0]!;
      expect(marked).toContain("\nbad<|im_end|>\n");
      expect(marked).toContain("[good<|im_end|>]");
      const last = say(["user", "q"], ["assistant", "good"], ["user", "r"], ["assistant", "bad", flag]);
      expect(learned(chatml, last, "last").texts[0]).not.toContain("[");
    });

  test("a whole record, which is refused", () => {
    const problem = (record: object) => {
      try {
        toSample(record, "here");
      } catch (error) {
        return (error as Error).message;
      }
      return "none";
    };
    const pair = { prompt: "a", completion: "b" };
    expect(problem({ ...pair, label: false })).toBe(
      'here: "label" is false, so it is not to be learned; leave such records out: filter: (row) => row.label !== false in a recipe',
    );
    expect(problem({ ...pair, weight: 0 })).toContain('"weight" is 0, so it is not to be learned');
    expect(problem({ messages: [{ role: "user", content: "x" }], kto_tag: false })).toContain('"kto_tag" is false');
    for (const kept of [
      { ...pair, label: true },
      { text: "x", label: false },
      { ...pair, weight: 1 },
    ])
      expect(problem(kept)).toBe("none");
    const turn = (more: object) => ({ messages: [{ role: "assistant", content: "x", ...more }] });
    expect(problem(turn({ weight: 0.5 }))).toBe(
      "here: messages[0].weight must be 0 or 1 (was 0.5); a turn is learned, or it is not",
    );
    expect(problem(turn({ train: "no" }))).toBe('here: messages[0].train must be true or false (was "no")');
    expect(problem(turn({ train_detail: [] }))).toContain(
      "messages[0].train_detail: parts of a turn cannot be left out",
    );
  });

  test("of ShareGPT's turns", () => {
    const sample = toSample(
      {
        conversations: [
          { from: "human", value: "q" },
          { from: "gpt", value: "bad", weight: 0 },
        ],
      },
      "here",
    );
    expect(sample).toMatchObject({ messages: [{ content: "q" }, { content: "bad", weight: 0 }] });
  });
});

describe("tools", () => {
  const tools = [
    { type: "function", function: { name: "f", description: "d", parameters: { type: "object", properties: {} } } },
  ];
  const call = { tool_calls: [{ type: "function", function: { name: "f", arguments: { x: 1 } } }] };
  const calling = (content: string | null): Conversation => ({
    messages: [
      { role: "user", content: "go" },
      { role: "assistant", content, ...call },
    ],
    tools,
  });
  const answer = '\n[<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call><|im_end|>\n]';

  test("the template for tools is taken where there are some", () => {
    const source = { default: chatml, tool_use: "{{ tools | length }} tools;" + chatml };
    const conversation = say(["user", "q"], ["assistant", "a"]);
    expect(learned(source, { ...conversation, tools }).texts[0]).toStartWith("1 tools;");
    expect(learned(source, conversation).texts[0]).toStartWith("<|im_start|>");
    expect(learned(source, { ...conversation, tools: [] }).texts[0]).toStartWith("0 tools;"); // as transformers does
  });

  test("a template that reads none is said, one that drops their calls is refused", () => {
    const { remarks } = learned(chatml, { ...say(["user", "q"], ["assistant", "a"]), tools });
    expect(remarks).toEqual(["tools"]);
    expect(() => learned(chatml, calling(""))).toThrow(
      new DataError(
        `messages[1] has tool_calls, which the chat template of ${directory} does not write, so an empty answer would be learned; ` +
          `use a model whose template knows tools, or write the call into content`,
      ),
    );
  });

  test("a content of null: as the template has it, or as an empty text where it fails, and that is said", () => {
    const { texts, remarks } = learned(published("qwen2.5"), calling(null));
    expect(texts[0]).toEndWith(`<|im_start|>assistant${answer}`);
    expect(remarks).toEqual([]);
    const strict = published("qwen2.5").replace("{%- if message.content %}", "{%- if message.content | length > 0 %}");
    expect(learned(strict, calling(null))).toEqual({ texts, remarks: ["null"] });
  });

  test("as JSON text, and ShareGPT's calls", () => {
    const record = { messages: [{ role: "user", content: "q" }], tools: JSON.stringify(tools) };
    expect(toSample(record, "here")).toMatchObject({ tools });
    expect(() => toSample({ ...record, tools: "[" }, "here")).toThrow("here: tools must be JSON (");
    expect(toSample({ ...record, tools: "" }, "here")).toMatchObject({ tools: undefined });
    const turns = [
      { from: "human", value: "q" },
      { from: "function_call", value: '{"name": "f", "arguments": {"x": 1.0}}' },
    ];
    const sample = toSample({ conversations: turns, tools }, "here") as unknown as Conversation;
    expect(sample.messages[1]).toMatchObject({ role: "assistant", tool_calls: [{ function: { name: "f" } }] });
    expect(learned(published("qwen2.5"), sample).texts[0]).toEndWith(answer.replace("1}", "1.0}"));
  });

  test("thoughts that no template writes are said", () => {
    const conversation = say(["user", "q"], ["assistant", "a", { reasoning_content: "hm" }]);
    expect(learned(chatml, conversation).remarks).toEqual(["thoughts"]);
    expect(learned(published("qwen3"), conversation).remarks).toEqual([]);
  });
});

describe("a system text that the template leaves out is not missed in silence", () => {
  const conversation = say(["system", "Be brief."], ["user", "q"], ["assistant", "a"]);
  test("of all of the text", () => {
    expect(() => learned(published("mistral-v3"), conversation, "all")).toThrow(
      `messages[0]: the chat template of ${directory} leaves the system text out`,
    );
  });
  test("of a template that knows no system", () => {
    const source =
      "{% for m in messages if m.role != 'system' %}{{ m.role + ': ' + m.content }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";
    expect(() => learned(source, conversation)).toThrow("leaves the system text out");
    expect(() =>
      learned(source.replace("m.content", "m.content.upper()").replace("!= 'system'", "!= 'x'"), conversation),
    ).not.toThrow();
  });
});

test("a conversation that becomes many documents is said", () => {
  const turns = Array.from({ length: 12 }, (_, i): [string, string][] => [
    ["user", `q${i}`],
    ["assistant", `<think>\nhm\n</think>\n\na${i}`],
  ]).flat();
  const { texts, remarks } = learned(published("qwen3"), say(...turns));
  expect(texts.length).toBe(12);
  expect(remarks).toEqual(["repeated"]);
});

describe("one line does not end a run", () => {
  const good = say(["user", "a"], ["assistant", "b"]);
  const bad: [what: string, template: string, conversation: Conversation, problem: string][] = [
    [
      "two users in a row",
      "mistral-v1",
      say(["user", "a"], ["user", "b"], ["assistant", "c"]),
      "messages[1]: the chat template cannot render these messages: Conversation roles must alternate",
    ],
    [
      "a system text where there must be none",
      "mistral-v1",
      say(["system", "s"], ["user", "b"], ["assistant", "c"]),
      "messages[0]: the chat template cannot render",
    ],
    [
      "a call of tools that is dropped",
      "chatml",
      {
        messages: [
          { role: "user", content: "x" },
          { role: "assistant", content: null, tool_calls: [{}] },
        ],
      },
      "messages[1] has tool_calls, which",
    ],
  ];
  for (const [what, name, conversation, problem] of bad)
    test(what, async () => {
      using folder = temporaryDirectory();
      for (const file of ["tokenizer.json", "tokenizer_config.json"])
        await Bun.write(join(folder.path, file), Bun.file(join(fixtures, "tokenizer-qwen", file)));
      writeFileSync(join(folder.path, "chat_template.jinja"), published(name));
      const path = join(folder.path, "data.jsonl");
      writeFileSync(path, [good, conversation, good].map((line) => `${JSON.stringify(line)}\n`).join(""));
      const tokenizer = await loadTokenizer(folder.path);
      const options = { sequenceLength: 128, loss: "assistant", workers: 2 } as const;
      for (const bytesMin of [0, 2 ** 20]) {
        const loading = loadDataset(path, tokenizer, { ...options, bytesMin });
        await expect(loading).rejects.toThrow(`${path}:2: ${problem}`);
        const { report } = await loadDataset(path, tokenizer, { ...options, bytesMin, maxBadLines: 1 });
        expect(report).toMatchObject({ samples: 2, badLines: { count: 1 } });
      }
      expect((await measureData(path, tokenizer, options)).bad.count).toBe(1);
    });
});

test("numbers and the order of keys come from the file to the tokens, through the workers too", async () => {
  using folder = temporaryDirectory();
  for (const file of ["tokenizer.json", "tokenizer_config.json"])
    await Bun.write(join(folder.path, file), Bun.file(join(fixtures, "tokenizer-qwen", file)));
  writeFileSync(join(folder.path, "chat_template.jinja"), published("qwen2.5"));
  const line =
    '{"messages":[{"role":"user","content":"Set it."},{"role":"assistant","content":null,"tool_calls":[{"type":"function",' +
    '"function":{"name":"heat","arguments":{"degrees":20.0,"10":1,"2":1234567890123456789,"tiny":1e-7}}}]}]}';
  const right = '{"degrees": 20.0, "10": 1, "2": 1234567890123456789, "tiny": 1e-07}';
  const tokenizer = await loadTokenizer(folder.path);
  const options = { sequenceLength: 256, loss: "assistant", workers: 1 } as const;
  for (const [name, text] of [
    ["data.jsonl", `${line}\n`],
    ["data.json", `[${line}, ${line}]`],
  ] as const) {
    const path = join(folder.path, name);
    writeFileSync(path, text);
    for (const bytesMin of [0, 2 ** 20]) {
      const { tokens } = await loadDataset(path, tokenizer, { ...options, bytesMin });
      expect(tokenizer.decode(tokens, { skipSpecial: false })).toContain(right);
    }
  }
  // A recipe has plain numbers, and what it passes on has kept its own.
  const map = (row: DataRecord) => ({
    messages: row["messages"].filter(({ role }: { role: string }) => role !== "x"),
  });
  const { tokens } = await loadDataset([{ path: join(folder.path, "data.jsonl"), map }], tokenizer, {
    ...options,
    bytesMin: 0,
  });
  expect(tokenizer.decode(tokens, { skipSpecial: false })).toContain(right);
  const days = {
    messages: [
      { role: "user", content: "x" },
      { role: "assistant", content: "", tool_calls: [{ function: { name: "f", arguments: { days: 2n } } }] },
    ],
  };
  expect(learned(published("qwen2.5"), days).texts[0]).toContain('"arguments": {"days": 2}');
  expect(parseExact(line)).toEqual(JSON.parse(line));
});

test("of Parquet too, where the columns know what is a float and what has 64 bits", async () => {
  using folder = temporaryDirectory();
  for (const file of ["tokenizer.json", "tokenizer_config.json"])
    await Bun.write(join(folder.path, file), Bun.file(join(fixtures, "tokenizer-qwen", file)));
  writeFileSync(join(folder.path, "chat_template.jinja"), published("qwen2.5"));
  const tokenizer = await loadTokenizer(folder.path);
  for (const bytesMin of [0, 2 ** 20]) {
    const options = { sequenceLength: 512, loss: "assistant", workers: 1, bytesMin } as const;
    // Written by pyarrow: lists of structures of doubles and int64.
    const { tokens } = await loadDataset(join(fixtures, "parquet/calls.parquet"), tokenizer, options);
    const text = tokenizer.decode(tokens, { skipSpecial: false });
    expect(text).toContain('"arguments": {"degrees": 20.0, "days": 2, "list": [1.0, 2.5]}');
    expect(text).toContain('"parameters": {"minimum": 0.0}');
    const columns = [
      { name: "prompt", data: ["a"] },
      { name: "completion", data: [3n] },
      { name: "meta", data: [{ x: 1 }], type: "JSON" as const },
    ];
    writeFileSync(join(folder.path, "a.parquet"), new Uint8Array(parquetWriteBuffer({ columnData: columns })));
    await expect(loadDataset(join(folder.path, "a.parquet"), tokenizer, options)).rejects.toThrow(
      "a.parquet:row 1: completion must be a string (was 3)",
    );
  }
});
