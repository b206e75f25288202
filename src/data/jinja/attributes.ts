// `value.name`, `value[key]` and calls, as Jinja's immutable sandbox has them: an attribute comes before a key of the same name
// (`message.items` is dict's method), a key before an attribute in brackets, and what would change a value cannot be reached.

import {
  callSigned,
  formatBraces,
  methodsWithNames,
  otherTextMethods,
  signature,
  textMethods,
  type Signature,
} from "./texts.ts";
import { spend, TemplateError, unsupported } from "./limits.ts";
import { repr } from "./show.ts";
import {
  Callable,
  equal,
  Float,
  Group,
  isInt,
  isTuple,
  itemOf,
  keyOf,
  Lazy,
  listOf,
  Markup,
  newKey,
  Range,
  Thing,
  typeName,
  Undefined,
  View,
  type Dict,
  type Keywords,
  type Value,
} from "./values.ts";

const dictMethods = new Map(
  Object.entries({
    copy: signature("", (dict: Dict) => new Map(dict)),
    get: signature("key default?", (dict: Dict, key: Value, otherwise: Value = null) =>
      either(dict.get(keyOf(key)!), () => otherwise),
    ),
    items: signature("", (dict: Dict) => new View("items", dict)),
    keys: signature("", (dict: Dict) => new View("keys", dict)),
    values: signature("", (dict: Dict) => new View("values", dict)),
  }),
);

const listMethods = new Map(
  Object.entries({
    copy: signature("", (list: Value[]) => [...list]),
    count: signature("value", (list: Value[], value: Value) => list.filter((item) => equal(item, value)).length),
    index: signature("value start? end?", (list: Value[], value: Value, start: Value = 0, end: Value = list.length) => {
      const [from, to] = [start, end].map((place) =>
        Number(place) < 0 ? Math.max(0, Number(place) + list.length) : Number(place),
      );
      const index = list.findIndex((item, i) => i >= from! && i < to! && equal(item, value));
      if (index === -1) throw new TemplateError("the value is not in the list");
      return index;
    }),
  }),
);

/** Methods that would change a value, which the sandbox hides. */
const changing = {
  dict: new Set("clear pop popitem setdefault update".split(" ")),
  list: new Set("append clear pop reverse insert sort extend remove".split(" ")),
};
const numberAttributes = new Set(
  "real imag numerator denominator bit_length bit_count conjugate as_integer_ratio to_bytes from_bytes is_integer hex fromhex".split(
    " ",
  ),
);

function invoke(name: string, method: Signature, value: Value, args: Value[], keywords: Keywords | undefined): Value {
  if (keywords !== undefined && !methodsWithNames.has(name))
    throw new TemplateError(`"${name}" takes no arguments by name`);
  return callSigned(`"${name}"`, method, value, args, keywords);
}

/** Whether dict has an attribute of this name, which comes before a key. */
function isDictAttribute(name: string): boolean {
  return dictMethods.has(name) || changing.dict.has(name) || name === "fromkeys" || name.startsWith("__");
}

/** What an object has besides its items; undefined if it has none of that name. */
function attribute(value: Value, name: string): Value | undefined {
  if (value instanceof Undefined) value.fail();
  if (name.startsWith("__") && name.endsWith("__")) return unsafe(value, name);
  if (typeof value === "string") {
    const method = textMethods.get(name);
    if (method) return new Callable((args, keywords) => invoke(name, method, value, args, keywords));
    if (name === "format") return new Callable((args, keywords) => formatBraces(value, args, keywords, getAttribute));
    if (otherTextMethods.has(name)) throw unsupported(`"${name}" of a text`);
    return undefined;
  }
  if (value instanceof Map || Array.isArray(value)) {
    if (value instanceof Group && name === "grouper") return value[0]!;
    if (value instanceof Group && name === "list") return value[1]!;
    const isDict = value instanceof Map;
    const method = isDict
      ? dictMethods.get(name)
      : name === "copy" && isTuple(value)
        ? undefined
        : listMethods.get(name);
    if (method) return new Callable((args, keywords) => invoke(name, method, value, args, keywords));
    if (name === "fromkeys" && isDict) throw unsupported(`"${name}" of a dict`);
    return (isDict ? changing.dict : isTuple(value) ? new Set() : changing.list).has(name)
      ? unsafe(value, name)
      : undefined;
  }
  if (value instanceof Thing || value instanceof Callable) return value.get?.(name);
  if (value instanceof Markup) throw unsupported(`"${name}" of text that was marked as safe`);
  if ((isInt(value) || value instanceof Float) && numberAttributes.has(name))
    throw unsupported(`"${name}" of a number`);
  if (value instanceof Lazy || value instanceof View) throw unsupported(`"${name}" of ${typeName(value)}`);
  return undefined;
}

function unsafe(value: Value, name: string): Undefined {
  return new Undefined(`access to attribute "${name}" of "${typeName(value)}" object is unsafe`);
}

/** `value.name`. */
export function getAttribute(value: Value, name: string): Value {
  if (value instanceof Map && !isDictAttribute(name)) return either(value.get(name), () => missing(value, name));
  return either(attribute(value, name), () => either(itemOf(value, name), () => missing(value, name)));
}

/** `value[key]`. */
export function getItem(value: Value, key: Value): Value {
  return either(itemOf(value, key), () =>
    either(typeof key === "string" ? attribute(value, key) : undefined, () => missing(value, key)),
  );
}

/** Not `??`: None is a value. */
function either(value: Value | undefined, otherwise: () => Value): Value {
  return value === undefined ? otherwise() : value;
}

function missing(value: Value, key: Value): Undefined {
  return new Undefined(() => {
    const what = value === null ? "None" : `${typeName(value)} object`;
    return typeof key === "string" ? `"${what}" has no attribute "${key}"` : `${what} has no such element`;
  });
}

/** `value(...)`. */
export function call(value: Value, args: Value[], keywords: Keywords | undefined): Value {
  spend(1);
  if (value instanceof Undefined) value.fail();
  if (value instanceof Callable) return value.call(args, keywords);
  throw new TemplateError(`"${typeName(value)}" object is not callable`);
}

/** `value.name(...)`, without a function in between where that is not needed. */
export function callMethod(value: Value, name: string, args: Value[], keywords: Keywords | undefined): Value {
  spend(1);
  const method =
    typeof value === "string" ? textMethods.get(name) : value instanceof Map ? dictMethods.get(name) : undefined;
  return method ? invoke(name, method, value, args, keywords) : call(getAttribute(value, name), args, keywords);
}

// ---- functions that templates find -------------------------------------------------------------------------------------------

/** `namespace(...)`: the one object that a template may change. */
function namespace(args: Value[], keywords: Keywords | undefined): Value {
  const all = toDict(args, keywords);
  return new Thing(
    "Namespace",
    (name) => all.get(name),
    (name, value) => all.set(name, value),
    () => `<Namespace ${repr(all)}>`,
  );
}

function toDict([from = new Map(), ...more]: Value[], keywords: Keywords | undefined): Dict {
  if (more.length > 0) throw new TemplateError("dict takes at most one value");
  const dict: Dict = new Map();
  const pairs = from instanceof Map ? from : listOf(from).map((pair) => listOf(pair));
  for (const [key, value, ...rest] of pairs) {
    if (key === undefined || value === undefined || rest.length > 0) throw new TemplateError("dict needs pairs");
    dict.set(newKey(key), value);
  }
  for (const [key, value] of keywords ?? []) dict.set(key, value);
  return dict;
}

function range(args: Value[]): Value {
  const numbers = args.map((value) => {
    if (isInt(value)) return Number(value);
    throw new TemplateError(`range needs whole numbers, not "${typeName(value)}"`);
  });
  if (numbers.length < 1 || numbers.length > 3) throw new TemplateError("range takes one to three numbers");
  const [from = 0, to = 0, step = 1] = numbers.length === 1 ? [0, numbers[0]!] : numbers;
  if (step === 0) throw new TemplateError("the step of a range must not be zero");
  return new Range(from, to, step);
}

function joiner([separator = ", "]: Value[]): Value {
  let isUsed = false;
  return new Callable(() => {
    const text = isUsed ? separator : "";
    isUsed = true;
    return text;
  });
}

function cycler(items: Value[]): Value {
  if (items.length === 0) throw new TemplateError("at least one item has to be provided");
  let at = 0;
  const next = new Callable(() => items[at++ % items.length]!);
  const reset = new Callable(() => ((at = 0), null));
  return new Thing("Cycler", (name) => ({ next, reset, current: items[at % items.length]! })[name]);
}

/** The functions that every template finds. */
export const functions: Record<string, Value> = Object.fromEntries(
  Object.entries({ namespace, range, joiner, cycler, dict: toDict }).map(([name, work]) => [name, new Callable(work)]),
);
