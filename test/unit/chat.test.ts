import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { ChatTemplate, encodeConversation, encodePrompt, type Message } from "../../src/data/text/chat.ts";
import { loadTokenizer, Tokenizer } from "../../src/data/text/tokenizer.ts";

const fixtures = join(import.meta.dir, "../fixtures");

interface ChatCase {
  messages: Message[];
  text: string;
  text_with_generation_prompt: string;
  ids: number[];
  assistant_mask?: number[];
  error?: string;
}

for (const kind of ["qwen", "llama3", "spm"]) {
  describe(`tokenizer-${kind}`, async () => {
    const directory = join(fixtures, `tokenizer-${kind}`);
    const tokenizer = await loadTokenizer(directory);
    const template = new ChatTemplate(tokenizer);
    const { chats } = (await Bun.file(join(directory, "cases.json")).json()) as { chats: ChatCase[] };

    for (const chat of chats) {
      test(JSON.stringify(chat.messages.map(({ content }) => content)), () => {
        if (chat.error !== undefined) {
          expect(() => template.render(chat, { generationPrompt: false })).toThrow(chat.error);
          return;
        }
        expect(template.render(chat, { generationPrompt: false })).toBe(chat.text);
        expect(template.render(chat, { generationPrompt: true })).toBe(chat.text_with_generation_prompt);
        const [document, ...others] = encodeConversation(template, tokenizer, chat, "assistant");
        expect(others).toEqual([]);
        expect(document!.ids).toEqual(chat.ids);
        if (chat.assistant_mask) expect(document!.counted.map(Number)).toEqual(chat.assistant_mask);
        expect(encodeConversation(template, tokenizer, chat, "all")[0]!.counted).not.toContain(false);
      });
    }
  });
}

/** The qwen tokenizer with a template of the test's own. */
async function withTemplate(source: string): Promise<{ tokenizer: Tokenizer; template: ChatTemplate }> {
  const directory = join(fixtures, "tokenizer-qwen");
  const json = await Bun.file(join(directory, "tokenizer.json")).json();
  const tokenizer = new Tokenizer(directory, {
    tokenizer: json,
    config: { eos_token: "<|im_end|>" },
    templates: { default: source },
  });
  return { tokenizer, template: new ChatTemplate(tokenizer) };
}

/** What counts, as text. */
async function counted(source: string, messages: Message[]): Promise<string[]> {
  const { tokenizer, template } = await withTemplate(source);
  return encodeConversation(template, tokenizer, { messages }, "assistant").map((document) =>
    tokenizer.decode(
      document.ids.filter((_, i) => document.counted[i]),
      { skipSpecial: false },
    ),
  );
}

const twoTurns: Message[] = [
  { role: "user", content: "1+1?" },
  { role: "assistant", content: "<think>easy</think>2" },
  { role: "user", content: "2+2?" },
  { role: "assistant", content: "<think>hard</think>4" },
];

describe("assistant turns", () => {
  test("a template that drops earlier thinking gives one document per turn", async () => {
    // As Qwen 3 does: thinking stays only in the last turn.
    const source =
      "{%- for message in messages %}<|im_start|>{{ message.role }}\n" +
      "{%- if message.role == 'assistant' and not loop.last %}{{ message.content.split('</think>')[-1] }}" +
      "{%- else %}{{ message.content }}{%- endif %}<|im_end|>\n{%- endfor %}" +
      "{%- if add_generation_prompt %}<|im_start|>assistant\n{%- endif %}";
    expect(await counted(source, twoTurns)).toEqual([
      "<think>easy</think>2<|im_end|>",
      "<think>hard</think>4<|im_end|>",
    ]);
  });

  test("a token that reaches across the border counts", async () => {
    // The prompt ends with a space, which joins the first word of the answer: " 4" of "A: 4" is what must be learned.
    const source =
      "{%- for message in messages %}{{ 'Q: ' if message.role == 'user' else 'A: ' }}{{ message.content + '\n' }}{%- endfor %}" +
      "{%- if add_generation_prompt %}{{ 'A: ' }}{%- endif %}";
    const messages = [
      { role: "user", content: "Name a colour" },
      { role: "assistant", content: "the blue" },
    ];
    expect(await counted(source, messages)).toEqual([" the blue\n"]);
  });

  test("a template whose turns do not begin with its generation prompt is refused", async () => {
    const source =
      "{%- for message in messages %}<|im_start|>{{ message.role + '\n' + message.content }}<|im_end|>{%- endfor %}" +
      "{%- if add_generation_prompt %}<|im_start|>{{ 'assistant\n<think>\n' }}{%- endif %}";
    await expect(
      counted(source, [
        { role: "user", content: "a" },
        { role: "assistant", content: "b" },
      ]),
    ).rejects.toThrow(
      `the chat template of ${join(fixtures, "tokenizer-qwen")} asks for an answer with "<think>\\n" but writes "b<|im_end|>" there when the ` +
        `answer is given, so what the assistant says cannot be told from what it is given; set chat.loss to "all" or use a template whose ` +
        `answers begin with its generation prompt`,
    );
  });

  test("no assistant turn, nothing counts", async () => {
    expect(await counted("{{ messages[0].content }}", [{ role: "user", content: "a" }])).toEqual([""]);
  });
});

describe("what templates may use", () => {
  const render = async (source: string, messages: Message[] = [], tools?: unknown[]) =>
    (await withTemplate(source)).template.render({ messages, tools }, { generationPrompt: false });

  test("the clock stands still, so that a run resumed tomorrow has the same tokens", async () => {
    expect(await render('{{ strftime_now("%d %b %Y") }} {{ strftime_now("%Y-%m-%d") }}')).toBe(
      "26 Jul 2024 2024-07-26",
    );
  });

  test("special tokens, tools, range, none and the template's own refusal", async () => {
    expect(await render("{{ eos_token }}{% if tools is none %}-{% endif %}")).toBe("<|im_end|>-");
    expect(await render("{{ tools[0].name }}", [], [{ name: "f" }])).toBe("f");
    expect(
      await render("{% for i in range(3) %}{{ i }}{% endfor %}{% for i in range(5, 1, -2) %}{{ i }}{% endfor %}"),
    ).toBe("01253");
    await expect(render("{{ raise_exception('no') }}")).rejects.toThrow(
      "the chat template cannot render these messages: no",
    );
  });

  test("lines that hold only a block leave no trace, as transformers sets Jinja up", async () => {
    expect(await render("a\n  {% if true %}\nb\n  {% endif %}\nc")).toBe("a\nb\nc");
  });

  test("a template that does not parse", async () => {
    await expect(withTemplate("{% if %}")).rejects.toThrow(
      `the chat template of ${join(fixtures, "tokenizer-qwen")} cannot be read (`,
    );
  });
});

test("the prompt for an answer", async () => {
  const tokenizer = await loadTokenizer(join(fixtures, "tokenizer-llama3"));
  const ids = encodePrompt(new ChatTemplate(tokenizer), tokenizer, { messages: [{ role: "user", content: "Hi" }] });
  expect(tokenizer.decode(ids, { skipSpecial: false })).toBe(
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
  );
});
