// Jinja templates, rendered as Python's jinja2 renders them in the sandbox that transformers sets up, within limits. A chat
// template is a program that comes with a model: it may loop for ever or make a text that fills the memory, by mistake or on
// purpose. It has no way to files, network or JavaScript, and what it makes is counted while it is made (../jinja/limits.ts).
//
// That it is Python's is shown by test/unit/jinja-reference.test.ts: snippets and whole templates that Python rendered once.

import { keysOf, numberText } from "../../io/exact-json.ts";
import { compile, type Program } from "../jinja/compile.ts";
import type { Output } from "../jinja/runtime.ts";
import { TemplateError, TemplateLimitError, unsupported, within, type RenderLimits } from "../jinja/limits.ts";
import { toText } from "../jinja/show.ts";
import { Callable, Float, int, type Value } from "../jinja/values.ts";

export { TemplateError, TemplateLimitError, type RenderLimits } from "../jinja/limits.ts";
export { type Value } from "../jinja/values.ts";
export type Template = Program;

const limitsDefault: RenderLimits = { milliseconds: 10_000, textMax: 2 ** 24, madeMax: 2 ** 28 };
const sourceMax = 2 ** 18;

/** Reads a template; a `TemplateError` says what is wrong with it. */
export function parseTemplate(source: string): Template {
  if (source.length > sourceMax)
    throw new TemplateLimitError(`has ${source.length} letters, the limit is ${sourceMax}`);
  return within(limitsDefault, () => compile(source));
}

/** The text that a template makes of its variables; a `TemplateError` says why it makes none. */
export function renderTemplate(template: Template, variables: Record<string, Value>, limits = limitsDefault): Output {
  return within(limits, () => template.run(variables));
}

/** A value of a data file as a template sees it: numbers and the order of keys are the file's. */
export function toValue(json: unknown): Value {
  if (typeof json === "string" || typeof json === "boolean" || json === null) return json;
  if (typeof json === "number") return Number.isInteger(json) ? int(BigInt(json)) : new Float(json);
  if (typeof json === "bigint") return int(json);
  if (typeof json !== "object") throw new TemplateError(`a value of type ${typeof json} cannot be given to a template`);
  const item = (key: string | number, value: unknown): Value => {
    const text = typeof value === "number" ? numberText(json, key) : undefined;
    if (text === undefined) return toValue(value);
    return /[.eE]/.test(text) ? new Float(Number(text)) : int(BigInt(text));
  };
  if (Array.isArray(json)) return json.map((value, index) => item(index, value));
  if (Object.getPrototypeOf(json) !== Object.prototype && Object.getPrototypeOf(json) !== null)
    throw new TemplateError(`a value of type ${json.constructor.name} cannot be given to a template; write it as text`);
  const entries = keysOf(json).map((key) => [key, (json as Record<string, unknown>)[key]] as const);
  return new Map(entries.filter(([, value]) => value !== undefined).map(([key, value]) => [key, item(key, value)]));
}

// ---- what transformers gives every template ---------------------------------------------------------------------------

/** A template's clock stands still: a date that moves would change the tokens of a run that is resumed the next day. */
const date = new Map(
  "Y=2024 y=24 m=07 d=26 b=Jul B=July a=Fri A=Friday j=208 H=00 I=12 M=00 S=00 p=AM %=%"
    .split(" ")
    .map((pair) => pair.split("=") as [string, string]),
);

function strftime([format]: Value[]): Value {
  if (typeof format !== "string") throw new TemplateError("strftime_now needs a text");
  return format.replace(/%(-?)([^]?)/g, (code, minus: string, letter: string) => {
    const part = date.get(letter);
    if (part === undefined) throw unsupported(`${code} in strftime_now`);
    return minus === "" ? part : part.replace(/^0(?=.)/, "");
  });
}

/** The functions that transformers adds to Jinja's own. */
export const templateFunctions: Record<string, Value> = {
  raise_exception: new Callable(([message = ""]) => {
    throw new TemplateError(toText(message));
  }),
  strftime_now: new Callable(strftime),
};
