// Jinja's filters and tests. `tojson` is transformers' own: json.dumps, which keeps letters as they are and escapes no HTML.

import { getAttribute, getItem } from "./attributes.ts";
import {
  callSigned,
  capitalize,
  formatPercent,
  isLower,
  isUpper,
  joined,
  pad,
  replace,
  signature,
  splitLines,
  strip,
  textOf,
  type Signature,
} from "./texts.ts";
import { checkLength, made, spend, TemplateError, unsupported } from "./limits.ts";
import { negate, operate, toFixed, toFloat, toInt } from "./numbers.ts";
import { repr, toJson, toText } from "./show.ts";
import {
  Callable,
  compare,
  contains,
  equal,
  Float,
  Group,
  isInt,
  isTrue,
  isTuple,
  iterate,
  keyOf,
  Lazy,
  lengthOf,
  listOf,
  Markup,
  numeric,
  Range,
  sorted,
  spaces,
  Tuple,
  typeName,
  Undefined,
  View,
  type Keywords,
  type Value,
} from "./values.ts";

/** A filter or test with a first value and arguments. */
type Filter = (value: Value, args: Value[], keywords: Keywords | undefined) => Value;

const missing = (what: string) => new Undefined(`no ${what}, the sequence was empty`);
const textFilter = (work: (text: string) => Value) => signature("", (value: Value) => work(toText(value)));
const intArg = (value: Value, who: string): number => {
  if (isInt(value)) return Number(value);
  throw new TemplateError(`${who} needs a whole number, not "${typeName(value)}"`);
};

// ---- attributes by name: "function.name", 0 --------------------------------------------------------------------------------

/** Reads an attribute, or several with dots between, of an item. */
function getter(attribute: Value | undefined, otherwise: Value = null): (item: Value) => Value {
  const parts: Value[] =
    attribute === undefined || attribute === null
      ? []
      : typeof attribute === "string"
        ? attribute.split(".").map((part) => (/^\d+$/.test(part) ? Number(part) : part))
        : [attribute];
  return (item) => {
    for (const part of parts) {
      item = getItem(item, part);
      if (otherwise !== null && item instanceof Undefined) item = otherwise;
    }
    return item;
  };
}

const ignoreCase = (value: Value): Value => (typeof value === "string" ? value.toLowerCase() : value);

function caseGetter(
  attribute: Value | undefined,
  caseSensitive: Value | undefined,
  otherwise?: Value,
): (item: Value) => Value {
  const get = getter(attribute, otherwise);
  return caseSensitive !== undefined && isTrue(caseSensitive) ? get : (item) => ignoreCase(get(item));
}

// ---- one function for each that is more than a line ---------------------------------------------------------------------------

function sort(value: Value, reverse: Value = false, caseSensitive?: Value, attribute?: Value): Value {
  const names: (Value | undefined)[] = typeof attribute === "string" ? attribute.split(",") : [attribute];
  const getters = names.map((name) => caseGetter(name, caseSensitive));
  const key = getters.length === 1 ? getters[0]! : (item: Value) => getters.map((get) => get(item));
  return sorted(listOf(value), key, intArg(reverse, "sort") !== 0);
}

/** Something that is the same for keys that are equal; throws for what can be no key. */
function markOf(key: Value): unknown {
  if (isTuple(key)) return `tuple ${repr(Array.from(key, (item) => String(markOf(item))))}`;
  if (typeof key === "string") return `text ${key}`;
  return key instanceof Undefined ? "undefined" : (keyOf(key) ?? key);
}

function* unique(value: Value, caseSensitive?: Value, attribute?: Value): Generator<Value> {
  const get = caseGetter(attribute, caseSensitive);
  const seen = new Set<unknown>();
  for (const item of iterate(value)) {
    const key = get(item);
    const mark = markOf(key);
    if (seen.has(mark)) continue;
    seen.add(mark);
    yield item;
  }
}

function extreme(sign: number, value: Value, caseSensitive?: Value, attribute?: Value): Value {
  const get = caseGetter(attribute, caseSensitive);
  const [first, ...rest] = listOf(value);
  if (first === undefined) return missing("aggregated item");
  let best = { item: first, key: get(first) };
  for (const item of rest) {
    const key = get(item);
    if (sign * compare(key, best.key) > 0) best = { item, key };
  }
  return best.item;
}

function groupBy(value: Value, attribute: Value, otherwise: Value = null, caseSensitive?: Value): Value {
  const key = caseGetter(attribute, caseSensitive, otherwise);
  const groups: { key: Value; items: Value[] }[] = [];
  for (const item of sorted(listOf(value), key)) {
    const found = key(item);
    const last = groups.at(-1);
    if (last !== undefined && equal(last.key, found)) last.items.push(item);
    else groups.push({ key: found, items: [item] });
  }
  const name = getter(attribute, otherwise);
  return groups.map((group) => Group.from([name(group.items[0]!), group.items]));
}

function dictSort(value: Value, caseSensitive: Value = false, by: Value = "key", reverse: Value = false): Value {
  if (!(value instanceof Map)) throw new TemplateError(`dictsort needs a dict, not "${typeName(value)}"`);
  if (by !== "key" && by !== "value") throw new TemplateError('dictsort sorts by "key" or "value"');
  const key = (pair: Value) => (pair as Value[])[by === "key" ? 0 : 1]!;
  const compared = isTrue(caseSensitive) ? key : (pair: Value) => ignoreCase(key(pair));
  return sorted(new View("items", value).items, compared, intArg(reverse, "dictsort") !== 0);
}

function sum(value: Value, attribute?: Value, start: Value = 0): Value {
  if (typeof start === "string") throw new TemplateError("sum cannot add texts");
  const get = getter(attribute);
  let total: Value = start;
  for (const item of iterate(value)) total = operate("+", total, get(item));
  return total;
}

function indent(value: Value, width: Value = 4, first: Value = false, blank: Value = false): Value {
  if (value instanceof Undefined) value.fail();
  const text = textOf(value, "indent");
  const count = typeof width === "string" ? width.length : Math.max(0, intArg(width, "indent"));
  checkLength(count);
  const margin = typeof width === "string" ? width : " ".repeat(count);
  const lines = splitLines(`${text}\n`);
  checkLength(text.length + lines.length * margin.length);
  const rest = lines.map((line, i) => (i > 0 && (line !== "" || isTrue(blank)) ? margin + line : line));
  return (isTrue(first) ? margin : "") + rest.join("\n");
}

function round(value: Value, precision: Value = 0, method: Value = "common"): Value {
  const digits = intArg(precision, "round");
  const number = numeric(value);
  if (value instanceof Undefined) value.fail();
  if (number === undefined) throw new TemplateError(`round needs a number, not "${typeName(value)}"`);
  if (method !== "common" && method !== "ceil" && method !== "floor")
    throw new TemplateError("round's method must be common, ceil or floor");
  if (digits < 0) throw unsupported("rounding to tens");
  if (method !== "common") {
    const raised = operate("*", value, operate("**", 10, digits));
    const whole = raised instanceof Float ? toInt(new Float(Math[method](raised.value)))! : raised;
    return operate("/", whole, operate("**", 10, digits));
  }
  if (!(value instanceof Float)) return number;
  return Number.isFinite(value.value) ? new Float(Number(toFixed(value.value, digits))) : value;
}

function* batches(value: Value, count: Value, fill: Value = null): Generator<Value> {
  const size = intArg(count, "batch");
  let batch: Value[] = [];
  for (const item of iterate(value)) {
    spend(1);
    if (batch.length === size) {
      yield batch;
      batch = [];
    }
    batch.push(item);
  }
  if (batch.length === 0) return;
  checkLength(8 * size);
  while (fill !== null && batch.length < size) batch.push(fill);
  yield batch;
}

function* slices(value: Value, count: Value, fill: Value = null): Generator<Value> {
  const number = intArg(count, "slice");
  const items = listOf(value);
  if (number === 0) throw new TemplateError("division by zero");
  checkLength(8 * Math.max(0, number));
  const size = Math.floor(items.length / number);
  const longer = items.length % number;
  for (let i = 0, from = 0; i < number; i++) {
    const part = items.slice(from, (from += size + (i < longer ? 1 : 0)));
    yield fill !== null && i >= longer ? [...part, fill] : part;
  }
}

function reverse(value: Value): Value {
  if (typeof value === "string") return made(Array.from(value).reverse().join(""));
  return value instanceof Lazy ? listOf(value).reverse() : new Lazy(listOf(value).reverse());
}

function truncate(
  value: Value,
  length: Value = 255,
  killWords: Value = false,
  end: Value = "...",
  leeway: Value = 5,
): Value {
  const mark = textOf(end, "truncate");
  const keep = intArg(length, "truncate") - lengthOf(mark)!;
  if (keep < 0 || intArg(leeway, "truncate") < 0)
    throw new TemplateError("truncate: the length is shorter than its end");
  const found = lengthOf(value);
  if (found !== undefined && found <= Number(length) + Number(leeway)) return value;
  const points = Array.from(textOf(value, "truncate"));
  const cut = points.slice(0, keep).join("");
  const space = isTrue(killWords) ? -1 : cut.lastIndexOf(" ");
  return (space === -1 ? cut : cut.slice(0, space)) + mark;
}

const quoted = (value: Value, isQuery = false): string => {
  const text = encodeURIComponent(toText(value)).replace(
    /[!'()*]/g,
    (letter) => `%${letter.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return made(isQuery ? text.replaceAll("%20", "+") : text.replaceAll("%2F", "/"));
};

function urlEncode(value: Value): Value {
  if (typeof value === "string" || isInt(value) || value === null || value instanceof Float) return quoted(value);
  const pairs = value instanceof Map ? new View("items", value).items : listOf(value);
  const texts = pairs.map((pair) => listOf(pair).map((item) => quoted(item, true)));
  if (texts.some(({ length }) => length !== 2)) throw new TemplateError("urlencode needs pairs");
  return joined(
    "&",
    texts.map(([key, item]) => `${key}=${item}`),
  );
}

function escapeHtml(value: Value): Value {
  if (value instanceof Markup) return value;
  const names: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&#39;", '"': "&#34;" };
  return new Markup(made(toText(value).replace(/[&<>'"]/g, (letter) => names[letter]!)));
}

function json(
  value: Value,
  ensureAscii: Value = false,
  indention: Value = null,
  separators: Value = null,
  sortKeys: Value = false,
): Value {
  const count = typeof indention === "string" || indention === null ? 0 : Math.max(0, intArg(indention, "tojson"));
  checkLength(count);
  const indentText = typeof indention === "string" ? indention : indention === null ? undefined : " ".repeat(count);
  const [item, key] = separators === null ? [indentText === undefined ? ", " : ",", ": "] : listOf(separators);
  return toJson(value, {
    ensureAscii: isTrue(ensureAscii),
    indent: indentText,
    item: textOf(item ?? null, "tojson's separators"),
    key: textOf(key ?? null, "tojson's separators"),
    sort: isTrue(sortKeys),
  });
}

function intFilter(value: Value, otherwise: Value = 0, base: Value = 10): Value {
  if (base !== 10) throw unsupported("int with a base");
  if (value instanceof Undefined) value.fail();
  if (value instanceof Float && !Number.isFinite(value.value)) {
    if (Number.isNaN(value.value)) return otherwise;
    throw new TemplateError("cannot convert float infinity to integer");
  }
  const whole = toInt(value);
  if (whole !== undefined) return whole;
  const number = toFloat(value);
  return number === undefined || !Number.isFinite(number.value) ? otherwise : toInt(number)!;
}

function absolute(value: Value): Value {
  const number = numeric(value);
  if (value instanceof Undefined || number === undefined)
    throw new TemplateError(`bad operand type for abs: "${typeName(value)}"`);
  if (value instanceof Float) return new Float(Math.abs(value.value));
  return number < 0 ? negate(value) : number;
}

function last(value: Value): Value {
  if (value instanceof Lazy) throw new TemplateError('"generator" object is not reversible');
  const list = listOf(value);
  return list.length > 0 ? list.at(-1)! : missing("last item");
}

function first(value: Value): Value {
  if (value instanceof Lazy) {
    const { value: item, done } = value.iterator.next();
    return done ? missing("first item") : item;
  }
  for (const item of iterate(value)) return item;
  return missing("first item");
}

function length(value: Value): Value {
  const found = lengthOf(value);
  if (found === undefined) throw new TemplateError(`object of type "${typeName(value)}" has no length`);
  return found;
}

const wordBreak = new RegExp(`([-${spaces}({[<]+)`);

const signatures: Record<string, Signature> = {
  abs: signature("", absolute),
  attr: signature("name", (value: Value, name: Value) => {
    const found = getAttribute(value, textOf(name, "attr"));
    if (value instanceof Map && value.get(name as string) === found) return missing("such attribute");
    return found;
  }),
  batch: signature("linecount fill_with?", (...args: [Value, Value, Value]) => new Lazy(batches(...args))),
  capitalize: textFilter(capitalize),
  center: signature("width?", (value: Value, width: Value = 80) => pad(toText(value), width)),
  default: signature("default_value? boolean?", (value: Value, otherwise: Value = "", boolean: Value = false) =>
    value instanceof Undefined || (isTrue(boolean) && !isTrue(value)) ? otherwise : value,
  ),
  dictsort: signature("case_sensitive? by? reverse?", dictSort),
  escape: signature("", escapeHtml),
  first: signature("", first),
  float: signature("default?", (value: Value, otherwise: Value = new Float(0)) => {
    if (value instanceof Undefined) value.fail();
    return toFloat(value) ?? otherwise;
  }),
  forceescape: signature("", (value: Value) => escapeHtml(toText(value))),
  groupby: signature("attribute default? case_sensitive?", groupBy),
  indent: signature("width? first? blank?", indent),
  int: signature("default? base?", intFilter),
  items: signature("", (value: Value) => {
    if (value instanceof Undefined) return new Lazy([]);
    if (value instanceof Map) return new Lazy(new View("items", value).items);
    // Python notices only when somebody goes through it.
    return new Lazy(
      eachOf([value], () => {
        throw new TemplateError("can only get item pairs from a mapping");
      }),
    );
  }),
  join: signature("d? attribute?", (value: Value, separator: Value = "", attribute?: Value) => {
    const get = attribute === undefined ? (item: Value) => item : getter(attribute);
    return joined(
      toText(separator),
      (function* () {
        for (const item of iterate(value)) yield toText(get(item));
      })(),
    );
  }),
  last: signature("", last),
  length: signature("", length),
  list: signature("", listOf),
  lower: textFilter((text) => made(text.toLowerCase())),
  max: signature("case_sensitive? attribute?", (...args: [Value]) => extreme(1, ...args)),
  min: signature("case_sensitive? attribute?", (...args: [Value]) => extreme(-1, ...args)),
  replace: signature("old new count?", (value: Value, old: Value, to: Value, count: Value = null) =>
    replace(toText(value), toText(old), toText(to), count === null ? -1 : intArg(count, "replace")),
  ),
  reverse: signature("", reverse),
  round: signature("precision? method?", round),
  safe: signature("", (value: Value) => new Markup(toText(value))),
  slice: signature("slices fill_with?", (...args: [Value, Value, Value]) => new Lazy(slices(...args))),
  sort: signature("reverse? case_sensitive? attribute?", sort),
  string: signature("", (value: Value) => (value instanceof Markup ? value : toText(value))),
  sum: signature("attribute? start?", sum),
  title: textFilter((text) => {
    const parts = text.split(wordBreak).filter((part) => part !== "");
    return made(
      parts
        .map((part) => {
          const [letter] = part;
          return letter!.toUpperCase() + part.slice(letter!.length).toLowerCase();
        })
        .join(""),
    );
  }),
  tojson: signature("ensure_ascii? indent? separators? sort_keys?", json),
  trim: signature("chars?", (value: Value, chars?: Value) => strip(toText(value), chars)),
  truncate: signature("length? killwords? end? leeway?", truncate),
  unique: signature("case_sensitive? attribute?", (...args: [Value]) => new Lazy(unique(...args))),
  upper: textFilter((text) => made(text.toUpperCase())),
  urlencode: signature("", urlEncode),
  wordcount: textFilter((text) => text.match(/[\p{L}\p{N}_]+/gu)?.length ?? 0),
};

/** Filters that take other filters or tests by name, or any arguments. */
const freeFilters: Record<string, Filter> = {
  format(value, args, keywords) {
    if (args.length > 0 && keywords !== undefined)
      throw new TemplateError("format takes arguments by position or by name");
    return formatPercent(toText(value), keywords ? new Map(keywords) : Tuple.from(args));
  },
  map(value, args, keywords) {
    const work = once(() => mapper(args, keywords));
    return new Lazy(eachOf(value, (item) => [work()(item)]));
  },
  select: (value, args, keywords) => choose(value, args, keywords, false, true),
  reject: (value, args, keywords) => choose(value, args, keywords, false, false),
  selectattr: (value, args, keywords) => choose(value, args, keywords, true, true),
  rejectattr: (value, args, keywords) => choose(value, args, keywords, true, false),
};

function once<T>(work: () => T): () => T {
  let known: { value: T } | undefined;
  return () => (known ??= { value: work() }).value;
}

function* eachOf(value: Value, work: (item: Value) => Value[]): Generator<Value> {
  if (!isTrue(value)) return;
  for (const item of iterate(value)) {
    spend(1);
    yield* work(item);
  }
}

function mapper(args: Value[], keywords: Keywords | undefined): (item: Value) => Value {
  if (args.length === 0 && keywords?.has("attribute")) {
    const other = [...keywords.keys()].find((name) => name !== "attribute" && name !== "default");
    if (other !== undefined) throw new TemplateError(`map takes no argument named "${other}"`);
    return getter(keywords.get("attribute"), keywords.get("default"));
  }
  const [name, ...rest] = args;
  if (name === undefined) throw new TemplateError("map needs the name of a filter");
  const filter = findFilter(textOf(name, "map"));
  return (item) => filter(item, rest, keywords);
}

function choose(
  value: Value,
  args: Value[],
  keywords: Keywords | undefined,
  byAttribute: boolean,
  isKept: boolean,
): Value {
  const chooser = once(() => {
    if (byAttribute && args.length === 0) throw new TemplateError("selectattr needs the name of an attribute");
    const get = byAttribute ? getter(args[0]) : (item: Value) => item;
    const [name, ...rest] = args.slice(byAttribute ? 1 : 0);
    if (name === undefined) return (item: Value) => isTrue(get(item));
    const test = findTest(textOf(name, "select"));
    return (item: Value) => isTrue(test(get(item), rest, keywords));
  });
  return new Lazy(eachOf(value, (item) => (chooser()(item) === isKept ? [item] : [])));
}

const otherFilters = new Set("filesizeformat pprint random striptags urlize wordwrap xmlattr".split(" "));
const aliases: Record<string, string> = { d: "default", e: "escape", count: "length" };

export function isFilter(name: string): boolean {
  return (
    Object.hasOwn(aliases, name) ||
    Object.hasOwn(signatures, name) ||
    Object.hasOwn(freeFilters, name) ||
    otherFilters.has(name)
  );
}

/** A filter by its name. */
export function findFilter(given: string): Filter {
  const name = Object.hasOwn(aliases, given) ? aliases[given]! : given;
  if (Object.hasOwn(freeFilters, name)) return freeFilters[name]!;
  if (Object.hasOwn(signatures, name)) {
    const found = signatures[name]!;
    const label = `the filter "${given}"`;
    return (value, args, keywords) => callSigned(label, found, value, args, keywords);
  }
  if (otherFilters.has(name)) throw unsupported(`the filter "${name}"`);
  throw new TemplateError(`there is no filter named "${name}"`);
}

// ---- tests ----------------------------------------------------------------------------------------------------------------------

const isCallable = (value: Value) => value instanceof Callable || value instanceof Undefined; // Undefined has a call, which raises
const isIterable = (value: Value) =>
  typeof value === "string" ||
  Array.isArray(value) ||
  [Map, Undefined, Range, View, Lazy, Markup].some((kind) => value instanceof kind);
const remainder = (value: Value, by: Value) =>
  typeof value === "string" ? formatPercent(value, by) : operate("%", value, by);

function isSame(value: Value, other: Value): boolean {
  if ((typeof value === "string" || isInt(value)) && typeof value === typeof other && typeof value !== "boolean")
    throw unsupported("sameas of texts and numbers");
  return value === other;
}

const tests: Record<string, Signature> = {
  boolean: signature("", (value: Value) => typeof value === "boolean"),
  callable: signature("", isCallable),
  defined: signature("", (value: Value) => !(value instanceof Undefined)),
  divisibleby: signature("num", (value: Value, by: Value) => equal(remainder(value, by), 0)),
  escaped: signature("", (value: Value) => value instanceof Markup),
  even: signature("", (value: Value) => equal(remainder(value, 2), 0)),
  false: signature("", (value: Value) => value === false),
  filter: signature("", (value: Value) => isFilter(textOf(value, "filter"))),
  float: signature("", (value: Value) => value instanceof Float),
  integer: signature("", (value: Value) => isInt(value) && typeof value !== "boolean"),
  iterable: signature("", isIterable),
  lower: signature("", (value: Value) => isLower(toText(value))),
  mapping: signature("", (value: Value) => value instanceof Map),
  none: signature("", (value: Value) => value === null),
  number: signature("", (value: Value) => numeric(value) !== undefined),
  odd: signature("", (value: Value) => equal(remainder(value, 2), 1)),
  sameas: signature("other", isSame),
  sequence: signature("", (value: Value) => isIterable(value) && !(value instanceof View || value instanceof Lazy)),
  string: signature("", (value: Value) => typeof value === "string" || value instanceof Markup),
  test: signature("", (value: Value) => isTest(textOf(value, "test"))),
  true: signature("", (value: Value) => value === true),
  undefined: signature("", (value: Value) => value instanceof Undefined),
  upper: signature("", (value: Value) => isUpper(toText(value))),
  in: signature("seq", (value: Value, list: Value) => contains(list, value)),
  eq: signature("other", equal),
  ne: signature("other", (a: Value, b: Value) => !equal(a, b)),
  lt: signature("other", (a: Value, b: Value) => compare(a, b) < 0),
  le: signature("other", (a: Value, b: Value) => compare(a, b) <= 0),
  gt: signature("other", (a: Value, b: Value) => compare(a, b) > 0),
  ge: signature("other", (a: Value, b: Value) => compare(a, b) >= 0),
};
const testAliases: Record<string, string> = {
  "==": "eq",
  equalto: "eq",
  "!=": "ne",
  "<": "lt",
  lessthan: "lt",
  "<=": "le",
  ">": "gt",
  greaterthan: "gt",
  ">=": "ge",
};

export function isTest(name: string): boolean {
  return Object.hasOwn(testAliases, name) || Object.hasOwn(tests, name);
}

/** A test by its name. */
export function findTest(given: string): Filter {
  const name = Object.hasOwn(testAliases, given) ? testAliases[given]! : given;
  if (!Object.hasOwn(tests, name)) throw new TemplateError(`there is no test named "${given}"`);
  const found = tests[name]!;
  return (value, args, keywords) => callSigned(`the test "${given}"`, found, value, args, keywords);
}
