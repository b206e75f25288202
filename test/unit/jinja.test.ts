// Templates that would not end, or would fill the memory, end with a named error within their limits; what templates
// usually do is not in the way of the counting.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { patience, patiently } from "../support/time.ts";
import { cpSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ChatTemplate } from "../../src/data/text/chat.ts";
import {
  parseTemplate,
  renderTemplate,
  TemplateLimitError,
  toValue,
  type RenderLimits,
} from "../../src/data/text/jinja.ts";
import { loadDataset } from "../../src/data/dataset.ts";
import { loadTokenizer } from "../../src/data/text/tokenizer.ts";
import { DataError, ModelError } from "../../src/words/errors.ts";
import { fixtures, temporaryDirectory } from "../support/models.ts";
import { conversations } from "../support/small-run.ts";

setDefaultTimeout(patiently(60_000)); // other jobs may share the machine

const small: RenderLimits = { milliseconds: 500, textMax: 2 ** 20, madeMax: 2 ** 24 };
const render = (source: string, limits = small) => renderTemplate(parseTemplate(source), { messages: [] }, limits).text;

/** What a rendering throws, how long it took, and how much memory the process gained. */
function failure(source: string, limits = small) {
  Bun.gc(true);
  const before = process.memoryUsage.rss();
  const start = performance.now();
  try {
    render(source, limits);
  } catch (error) {
    const seconds = (performance.now() - start) / 1000;
    return { error: error as Error, seconds, bytes: process.memoryUsage.rss() - before };
  }
  throw new Error("was rendered");
}

const range = "range(100000)";
const doubled = "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
const nested = "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
const long = "{% set ns = namespace(x='ab') %}{% for i in range(18) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";

describe("a hostile template ends with a named error", () => {
  const cases: [name: string, source: string, message: RegExp][] = [
    [
      "loops in loops",
      `{% for a in ${range} %}{% for b in ${range} %}{% endfor %}{% endfor %}`,
      /stopped after 0.5 s|on its way/,
    ],
    [
      "a macro that calls itself twice",
      "{% macro m(n) %}{{ m(n + 1) if n < 60 }}{{ m(n + 1) if n < 60 }}{% endmacro %}{{ m(0) }}",
      /stopped after 0.5 s|on its way/,
    ],
    ["a text that doubles", `${doubled}{{ ns.x }}`, /a text of \d+ letters, the limit is 1048576/],
    [
      "a list that doubles",
      "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
      /a text of|on its way/,
    ],
    [
      "many long texts",
      `${long}{% for i in ${range} %}{% set y = ns.x ~ i %}{% endfor %}`,
      /makes more than 16777216 letters on its way/,
    ],
    ["a gigabyte of output", `{% for a in ${range} %}${"x".repeat(20_000)}{% endfor %}`, /letters|stopped after 0.5 s/],
    ["range", "{% for i in range(1000000000) %}x{% endfor %}", /a range of 1000000000 numbers, the limit is 100000/],
    ["range without a step", "{{ range(0, 5, 0) }}", /the step of a range must not be zero/],
    ["a power", "{{ 2 ** 999999999 }}", /a number of \d+ bits/],
    [
      "numbers that double",
      "{% set ns = namespace(x=3) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
      /a number of \d+ bits/,
    ],
    ["a wide field", "{{ '%999999999d' % 1 }}", /a text of \d+ letters/],
    ["a wide field of format", "{{ '{:>999999999}'.format(1) }}", /a text of \d+ letters/],
    ["centre", "{{ 'a'.center(2000000000) }}", /a text of \d+ letters/],
    ["batch", "{{ [1] | batch(2000000000, 0) | list }}", /a text of \d+ letters/],
    [
      "equality of what is inside twice",
      `${nested}{% set a = ns.x %}${nested}{{ a == ns.x }}`,
      /stopped after|on its way/,
    ],
    ["replace", `${long}{{ ns.x.replace('a', ns.x) }}`, /a text of \d+ letters/],
    [
      "replace under another name",
      `${long}{% set f = ns.x['repl' ~ 'ace'] %}{{ f('', ns.x) }}`,
      /a text of \d+ letters/,
    ],
    ["replace as a filter", `${long}{{ ns.x | replace('b', ns.x) }}`, /a text of \d+ letters/],
    ["join", `${long}{{ ${range} | join(ns.x) }}`, /a text of \d+ letters/],
    ["join of one text many times", `${long}{{ [${"ns.x,".repeat(50)}] | join }}`, /a text of \d+ letters/],
    ["indent", "{{ 'a\nb' | indent(2000000000) }}", /a text of \d+ letters/],
    ["a filter block", "{% filter indent(width=2000000000) %}a\nb{% endfilter %}", /a text of \d+ letters/],
    ["tojson of what is inside twice", `${nested}{{ ns.x | tojson }}`, /a text of|stopped after|on its way/],
    ["the text of what is inside twice", `${nested}{{ ns.x }}`, /stopped after|on its way/],
    ["tojson with wide margins", "{{ [[1]] | tojson(indent=1000000000) }}", /a text of \d+ letters/],
    [
      "a namespace inside itself",
      "{% set a = namespace() %}{% set a.b = a %}{% set a.c = a %}{{ a }}",
      /call stack|stopped after/,
    ],
    ["depth", `{{ ${"(".repeat(100_000)}1${")".repeat(100_000)} }}`, /nests more than 200 deep/],
    ["a macro without end", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", /calls itself more than 200 times/],
  ];
  for (const [name, source, message] of cases)
    test(name, () => {
      const { error, seconds, bytes } = failure(source);
      expect(error.message).toMatch(message);
      expect(seconds).toBeLessThan(10 * patience); // of which 0.5 of work
      expect(bytes).toBeLessThan(2 ** 30);
    });

  test("before it is read: a template without end, or that nests without end", () => {
    expect(() => parseTemplate("x".repeat(2 ** 18 + 1))).toThrow("has 262145 letters, the limit is 262144");
    expect(() => parseTemplate(`{{ ${"-".repeat(100_000)}1 }}`)).toThrow("nests more than 200 deep");
    expect(() => parseTemplate("{% if 1 %}".repeat(10_000))).toThrow("nests more than 200 deep");
    const start = performance.now();
    for (const unit of [" ", "{% if 1 %}x{% endif %}", "{{ 1 }}", "{# #}", "{ ", "\n", "{% raw %}{% endraw %}"])
      parseTemplate(unit.repeat(Math.floor(2 ** 18 / unit.length)));
    expect(performance.now() - start).toBeLessThan(patiently(10_000));
  });
});

test("after a limit the next rendering is as good as ever, and a long one is no hostile one", () => {
  expect(() => render(`${nested}{{ ns.x }}`)).toThrow(TemplateLimitError);
  const messages = Array.from({ length: 1000 }, (_, i) => ({ role: "user", content: `${i} ${"word ".repeat(500)}` }));
  const source =
    "{% for m in messages %}{{ '<' + m.role + '>' + m['content'].strip().replace('0', 'null') | trim }}{% endfor %}";
  const { text } = renderTemplate(parseTemplate(source), { messages: toValue(messages) });
  expect(text).toStartWith("<user>null word word");
  expect(text.length).toBeGreaterThan(2_400_000);
});

describe("of a model", () => {
  const withTemplate = async (template: string) => {
    const directory = temporaryDirectory();
    cpSync(join(fixtures, "qwen3-tiny"), directory.path, { recursive: true });
    writeFileSync(join(directory.path, "chat_template.jinja"), template);
    return { directory, tokenizer: await loadTokenizer(directory.path) };
  };

  test("a limit is the model's fault and names it; the template's own refusal is the line's", async () => {
    const { directory, tokenizer } = await withTemplate(
      "{% if messages|length > 1 %}{% for i in range(1000000) %}{% endfor %}{% endif %}{{ raise_exception('no') }}",
    );
    using _ = directory;
    const template = new ChatTemplate(tokenizer);
    const message = { role: "user", content: "x" };
    const say = (count: number) => () =>
      template.render({ messages: Array.from({ length: count }, () => message) }, { generationPrompt: false });
    expect(say(1)).toThrow(new DataError("messages[0]: the chat template cannot render these messages: no"));
    expect(say(2)).toThrow(
      new ModelError(
        `the chat template of ${directory.path} asks for a range of 1000000 numbers, the limit is 100000; use the template of a model you trust`,
      ),
    );
  });

  test("in the workers too, where maxBadLines does not forgive it", async () => {
    const { directory, tokenizer } = await withTemplate("{% for i in range(1000000) %}{% endfor %}");
    using _ = directory;
    const data = join(directory.path, "data.jsonl");
    writeFileSync(data, conversations(20));
    for (const bytesMin of [0, 2 ** 20]) {
      const options = { sequenceLength: 64, loss: "assistant", workers: 2, bytesMin, maxBadLines: "100%" } as const;
      const loading = loadDataset(data, tokenizer, options);
      await expect(loading).rejects.toBeInstanceOf(ModelError);
      await expect(loading).rejects.toThrow(`the chat template of ${directory.path} asks for a range`);
    }
  });
});
