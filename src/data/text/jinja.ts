// Jinja templates, rendered within limits. A chat template is a program that comes with a model: it may loop for ever or
// make a text that fills the memory, by mistake or on purpose. @huggingface/jinja walks the template's syntax tree and
// gives it no way to files, network or JavaScript; what it does not bound is bounded here:
//
// - processor time of one rendering, by the engine's own watchdog (node:vm), which also stops a loop inside the library;
// - every text and list, and all that one rendering makes, counted at each node of the tree as it is evaluated;
// - what multiplies inside one call (`replace`, `join`, `indent`, `tojson`), estimated before the call is made;
// - `range`, as Jinja's own sandbox does; and the template's size and its runs of spaces, because one of the library's
//   regular expressions takes their square in time, and regular expressions cannot be interrupted.
//
// A template that passes a limit throws a `TemplateLimitError`; any other failure is the library's plain `Error`.

import { createContext, Script } from "node:vm";
import { assert } from "../../words/errors.ts";

/** The library, loaded at the first template: importing Sluice does not wait for it. */
let loaded: typeof import("@huggingface/jinja") | undefined;
const library = () => (loaded ??= require("@huggingface/jinja") as typeof import("@huggingface/jinja"));

/** A template's syntax tree. */
export type Template = ReturnType<ReturnType<typeof library>["parse"]>;

/** What a rendering may take. */
export interface RenderLimits {
  /** Processor time. */
  milliseconds: number;
  /** Letters of one text; four million tokens of a conversation. */
  textMax: number;
  /** Letters of all texts, and eight times the elements of all lists, that a rendering makes on its way. */
  madeMax: number;
}

const limitsDefault: RenderLimits = { milliseconds: 3000, textMax: 2 ** 24, madeMax: 2 ** 28 };
const sourceMax = 2 ** 18;
const spacesMax = 500;
/** As Jinja's own sandbox has it. */
const rangeMax = 100_000;

/** A template that took too long or made too much. */
export class TemplateLimitError extends Error {}

/** Reads a template as Hugging Face's tools do; an `Error` says what is wrong with it. */
export function parseTemplate(source: string): Template {
  if (source.length > sourceMax)
    throw new TemplateLimitError(`has ${source.length} letters, the limit is ${sourceMax}`);
  if (new RegExp(`\\s{${spacesMax + 1}}`).test(source))
    throw new TemplateLimitError(`has more than ${spacesMax} spaces in a row`);
  const { parse, tokenize } = library();
  const parsed = within(limitsDefault.milliseconds, () =>
    parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true })),
  );
  return parsed;
}

/** The text that a template makes of its variables. */
export function renderTemplate(
  template: Template,
  variables: Record<string, unknown>,
  limits: RenderLimits = limitsDefault,
): string {
  const { Environment, Interpreter } = library();
  return within(limits.milliseconds, () => {
    const environment = new Environment();
    for (const [name, value] of Object.entries({ range, ...variables })) environment.set(name, value);
    const interpreter = new Interpreter(environment);
    limit(interpreter as unknown as Machine, limits);
    return (interpreter.run(template) as { value: string }).value;
  });
}

/** Jinja's `range`. */
function range(from: number, to?: number, step = 1): number[] {
  const [start, end] = to === undefined ? [0, from] : [from, to];
  const length = Math.max(0, Math.ceil((end - start) / step)) || 0;
  if (length > rangeMax)
    throw new TemplateLimitError(`asks for a range of ${length} numbers, the limit is ${rangeMax}`);
  return Array.from({ length }, (_, i) => start + i * step);
}

// ---- time -----------------------------------------------------------------------------------------------------------

const call: { work?: () => unknown } = createContext({}) as { work?: () => unknown };
const caller = new Script("work()");

/** Runs something for so long at most; what it throws comes through. Costs 3 µs. */
function within<T>(milliseconds: number, work: () => T): T {
  call.work = work;
  try {
    return caller.runInContext(call, { timeout: milliseconds }) as T;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ERR_SCRIPT_EXECUTION_TIMEOUT") throw error;
    throw new TemplateLimitError(`was stopped after ${milliseconds / 1000} s`);
  } finally {
    delete call.work;
  }
}

// ---- size -----------------------------------------------------------------------------------------------------------

interface Node {
  type: string;
  [key: string]: unknown;
}

interface Value {
  type: string;
  value: unknown;
}

type Keywords = Map<string, Value>;

/** The parts of the library's interpreter that call each other by name, and so may be replaced in one interpreter. */
interface Machine {
  evaluate(node: Node | undefined, scope: unknown): Value;
  evaluateMemberExpression(node: Node, scope: unknown): Value;
  evaluateArguments(nodes: Node[], scope: unknown): [Value[], Keywords];
  applyFilter(operand: Value, filter: Node, scope: unknown): Value;
}

/** Nodes that give what is there already. */
const borrows = new Set(["Identifier", "MemberExpression", "StringLiteral", "Ternary", "SelectExpression", "Given"]);

/** A node whose value is known. */
const given = (value: Value): Node => ({ type: "Given", value });

/** Makes an interpreter count. */
function limit(machine: Machine, { textMax, madeMax }: RenderLimits): void {
  const { evaluate, evaluateMemberExpression, evaluateArguments, applyFilter } = machine;
  for (const method of [evaluate, evaluateMemberExpression, evaluateArguments, applyFilter])
    assert(typeof method === "function", "this version of the template engine cannot be limited");
  let made = 0;

  machine.evaluate = function (node, scope) {
    if (node?.type === "Given") return node["value"] as Value;
    const value = evaluate.call(this, node, scope);
    const size = sizeOf(value);
    if (size > textMax) throw tooLong(size, textMax);
    if (!borrows.has(node?.type ?? "")) made += size + 1;
    if (made > madeMax) throw new TemplateLimitError(`makes more than ${madeMax} letters on its way`);
    return value;
  };

  // A text's own `replace`, wherever it is called later.
  machine.evaluateMemberExpression = function (node, scope) {
    if (!mayNameReplace(node)) return evaluateMemberExpression.call(this, node, scope);
    const object = this.evaluate(node["object"] as Node, scope);
    const value = evaluateMemberExpression.call(this, { ...node, object: given(object) }, scope);
    if (object.type !== "StringValue" || value.type !== "FunctionValue") return value;
    const method = value.value as (args: Value[], scope: unknown) => Value;
    const FunctionValue = value.constructor as new (work: typeof method) => Value;
    return new FunctionValue((args, inner) => {
      check(replaced(object, args), textMax);
      return method(args, inner);
    });
  };

  machine.applyFilter = function (operand, filter, scope) {
    const isCall = filter.type === "CallExpression";
    const name = isCall ? (filter["callee"] as Node)["value"] : filter["value"];
    const grown = growth[String(name)];
    if (!grown) return applyFilter.call(this, operand, filter, scope);
    const [args, keywords] = isCall ? this.evaluateArguments(filter["args"] as Node[], scope) : [[], new Map()];
    check(grown(operand, args, keywords, textMax), textMax);
    const again = [
      ...args.map(given),
      ...Array.from(keywords, ([key, value]) => ({
        type: "KeywordArgumentExpression",
        key: { value: key },
        value: given(value),
      })),
    ];
    return applyFilter.call(this, operand, isCall ? { ...filter, args: again } : filter, scope);
  };
}

function sizeOf({ type, value }: Value): number {
  if (type === "StringValue") return (value as string).length;
  return Array.isArray(value) ? 8 * value.length : 0;
}

function tooLong(size: number, textMax: number): TemplateLimitError {
  return new TemplateLimitError(`makes a text of ${size} letters, the limit is ${textMax}`);
}

function check(size: number, textMax: number): void {
  if (size > textMax) throw tooLong(size, textMax);
}

function mayNameReplace(node: Node): boolean {
  const { type, value } = node["property"] as Node;
  if (!node["computed"] || type === "StringLiteral") return value === "replace";
  return type !== "IntegerLiteral" && type !== "SliceExpression";
}

/** How long a filter's result may become, from its operand and arguments. */
const growth: Record<string, (operand: Value, args: Value[], keywords: Keywords, textMax: number) => number> =
  Object.assign(Object.create(null) as object, {
    replace: replaced,
    join(operand: Value, args: Value[], keywords: Keywords): number {
      const separator = textOf(args[0] ?? keywords.get("separator")).length;
      const { value } = operand;
      if (typeof value === "string") return value.length * (1 + separator);
      if (!Array.isArray(value)) return 0;
      return value.reduce((sum: number, item: Value) => sum + textOf(item).length + separator, 0);
    },
    indent(operand: Value, args: Value[], keywords: Keywords): number {
      const width = Number((args[0] ?? keywords.get("width"))?.value ?? 4);
      const text = textOf(operand);
      return text.length + text.split("\n").length * width;
    },
    tojson: jsonSize,
    string: jsonSize,
  });

function textOf(value: Value | undefined): string {
  return typeof value?.value === "string" ? value.value : "";
}

function replaced(operand: Value, [from, to]: Value[]): number {
  const text = textOf(operand);
  return text.length + (text.length / Math.max(1, textOf(from).length) + 1) * textOf(to).length;
}

/** Of a value as JSON. What is inside twice counts twice, so the walk ends at the limit. */
function jsonSize(operand: Value, _: Value[], keywords: Keywords, textMax: number): number {
  const indent = Number(keywords.get("indent")?.value ?? 0);
  const separators = ((keywords.get("separators")?.value ?? []) as Value[]).map((text) => textOf(text).length);
  const perItem = Math.max(2, ...separators);
  let size = 0;
  const walk = ({ value }: Value, depth: number): void => {
    size += 8 + perItem + indent * depth;
    if (size > textMax) return;
    if (typeof value === "string") size += 6 * value.length;
    else if (Array.isArray(value)) for (const item of value as Value[]) walk(item, depth + 1);
    else if (value instanceof Map)
      for (const [key, item] of value as Keywords) {
        size += 6 * key.length;
        walk(item, depth + 1);
      }
  };
  walk(operand, 0);
  return size;
}
