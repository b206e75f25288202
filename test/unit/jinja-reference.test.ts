// The template engine against Python's: a thousand snippets, and templates in the styles of published ones with many conversations,
// rendered once by jinja2 as transformers sets it up (scripts/reference/make_jinja_cases.py). Where Python renders, the text is the
// same, or the template is refused with the name of what is missing here; where Python raises, so does this.

import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import {
  parseTemplate,
  renderTemplate,
  templateFunctions,
  TemplateError,
  TemplateLimitError,
  toValue,
  type Value,
} from "../../src/data/text/jinja.ts";
import { parseExact } from "../../src/io/exact-json.ts";

const directory = join(import.meta.dir, "../fixtures/jinja");
const read = (name: string) => parseExact(readFileSync(join(directory, name), "utf8"));
const valuesOf = (json: unknown) => Object.fromEntries(toValue(json) as Map<string, Value>);

/** What Python renders and this engine refuses by name. */
const refused = new Map([
  ["{{ '%c' % 'a' }}", "uses the format %c, which"],
  ["{{ 3 is sameas 4 }}", "uses sameas of texts and numbers, which"],
  ["{{ ('<b>' | e)[0] }}", "uses a letter of text that was marked as safe, which"],
  ["{{ joiner }}", 'prints a "function" object'],
  ["{% block a %}x{% endblock %}", "uses {% block %} (line 1), which"],
  ["{% autoescape true %}{{ '<' }}{% endautoescape %}", "uses {% autoescape %} (line 1), which"],
]);

test("every snippet is Python's text, or no text where Python has none", () => {
  const [context, ...cases] = read("snippets.json") as [unknown, ...[source: string, text: string | null][]];
  const variables = { ...valuesOf(context), ...templateFunctions };
  expect(cases.length).toBeGreaterThan(900);
  const wrong: unknown[] = [];
  for (const [source, right] of cases) {
    let text: string | null = null;
    let problem = "";
    try {
      ({ text } = renderTemplate(parseTemplate(source), variables));
    } catch (error) {
      if (!(error instanceof TemplateError || error instanceof TemplateLimitError)) throw error;
      problem = error.message;
    }
    const known = refused.get(source);
    if (known !== undefined ? !problem.includes(known) : text !== right) wrong.push({ source, right, text, problem });
  }
  expect(wrong).toEqual([]);
});

interface Rendered {
  text: string;
  marks: [number, number][];
  added?: string;
  prompt?: string | null;
}

describe("templates", () => {
  const conversations = read("conversations.json") as Record<string, Record<string, unknown>>;
  const rendered = read("rendered.json") as Record<string, Rendered | null>;
  const tokens = { bos_token: "<s>", eos_token: "</s>", pad_token: "<pad>" };
  for (const name of readdirSync(join(directory, "templates")).map((file) => file.replace(".jinja", ""))) {
    const template = parseTemplate(readFileSync(join(directory, "templates", `${name}.jinja`), "utf8"));
    test(name, () => {
      for (const [which, conversation] of Object.entries(conversations)) {
        const right = rendered[`${name} ${which}`];
        const variables = { tools: null, documents: null, ...tokens, ...templateFunctions, ...valuesOf(conversation) };
        const render = (prompt: boolean) => renderTemplate(template, { ...variables, add_generation_prompt: prompt });
        if (right === null) {
          expect(() => render(false), which).toThrow(TemplateError);
          continue;
        }
        const { text, marks, added, prompt } = right!;
        const output = render(false);
        expect({ which, text: output.text }).toEqual({ which, text });
        expect(output.generated.map(({ from, to }) => [from, to])).toEqual(
          marks.map(([from, to]) => [unitsOf(text, from), unitsOf(text, to)]),
        );
        if (prompt === null) expect(() => render(true), which).toThrow(TemplateError);
        else expect(render(true).text).toBe(prompt ?? text + added);
      }
    });
  }
});

/** Where a place in code points is in JavaScript's units. */
function unitsOf(text: string, points: number): number {
  return Array.from(text).slice(0, points).join("").length;
}
