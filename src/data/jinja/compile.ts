// A template's tokens to functions. The parser follows Jinja's own, precedences and oddities included, and makes no tree: every
// expression becomes a function of the scope, every statement one that adds to the output, and both are called again and again.
//
// A scope has the names of a loop's round, a macro or a block, and the scope around it, so names are found as Jinja finds them:
// `set` in a loop, a macro or a block stays inside, `if` has no scope of its own. What makes work is counted (limits.ts), so a template ends.

import { call, callMethod, functions, getAttribute, getItem } from "./attributes.ts";
import { findFilter, findTest, isFilter, isTest } from "./filters.ts";
import { tokenize, type Token } from "./lexer.ts";
import { loopOf, Output, Scope, type LoopState } from "./runtime.ts";
import { formatPercent } from "./texts.ts";
import { called, made, spend, TemplateError, TemplateLimitError, unsupported } from "./limits.ts";
import { negate, operate, type Operator } from "./numbers.ts";
import { toText } from "./show.ts";
import {
  Callable,
  compare,
  contains,
  equal,
  isTrue,
  listOf,
  newKey,
  sliceOf,
  Thing,
  Tuple,
  Undefined,
  type Dict,
  type Keywords,
  type Value,
} from "./values.ts";

type Eval = (scope: Scope) => Value;
/** What ends a loop's round early. */
type Signal = "break" | "continue" | undefined;
type Exec = (scope: Scope, out: Output) => Signal;
type Assign = (scope: Scope, value: Value) => void;

export interface Program {
  run: (variables: Record<string, Value>) => Output;
  /** Every name, attribute and text that stands in its expressions. */
  words: ReadonlySet<string>;
  /** Whether it says with `{% generation %}` what the assistant says. */
  marksAnswers: boolean;
}

/** Reads a template. A `TemplateError` says what is wrong with it and on which line. */
export function compile(source: string): Program {
  const parser = new Parser(tokenize(source));
  const body = parser.template();
  return {
    words: parser.words,
    marksAnswers: parser.marksAnswers,
    run: (variables) => {
      const out = new Output();
      body(new Scope(new Scope(undefined, new Map(Object.entries({ ...functions, ...variables })))), out);
      return out;
    },
  };
}

const inner = (scope: Scope): Scope => new Scope(scope);
/** Parentheses, blocks and calls inside each other, in the source. */
const depthMax = 200;

/** What a block renders, as a text. */
function captured(body: Exec, scope: Scope): string {
  const out = new Output();
  body(scope, out);
  return out.text;
}

class Parser {
  readonly words = new Set<string>();
  marksAnswers = false;
  readonly #tokens: Token[];
  #at = 0;
  #depth = 0;
  #loops = 0;
  /** Whether what is read may never run: then Jinja looks for its filters only when it does. */
  #isSoft = false;
  /** Names in the macro that is being read. */
  #names: Set<string> | undefined;

  constructor(tokens: Token[]) {
    this.#tokens = tokens;
  }

  template(): Exec {
    return this.#statements([]);
  }

  // ---- tokens ---------------------------------------------------------------------------------------------------------

  get #token(): Token {
    return this.#tokens[this.#at]!;
  }

  #fail(problem: string): never {
    throw new TemplateError(`line ${this.#token.line}: ${problem}`);
  }

  #is(kind: Token["kind"], ...texts: string[]): boolean {
    const { kind: found, text } = this.#token;
    return found === kind && (texts.length === 0 || texts.includes(text));
  }

  #skip(kind: Token["kind"], ...texts: string[]): boolean {
    if (!this.#is(kind, ...texts)) return false;
    this.#at++;
    return true;
  }

  #expect(kind: Token["kind"], text?: string): Token {
    const token = this.#token;
    if (text === undefined ? this.#is(kind) : this.#is(kind, text)) {
      this.#at++;
      return token;
    }
    const found =
      token.kind === "eof"
        ? "the end of the template"
        : token.kind === "end"
          ? "the end of the tag"
          : `"${token.text}"`;
    return this.#fail(`expected ${text === undefined ? `a ${kind}` : `"${text}"`}, found ${found}`);
  }

  #op(text: string): boolean {
    return this.#skip("operator", text);
  }

  #word(text: string): boolean {
    return this.#skip("name", text);
  }

  #deeper<T>(work: () => T): T {
    if (++this.#depth > depthMax) throw new TemplateLimitError(`nests more than ${depthMax} deep`);
    const result = work();
    this.#depth--;
    return result;
  }

  #softly<T>(isSoft: boolean, work: () => T): T {
    const before = this.#isSoft;
    this.#isSoft = isSoft;
    const result = work();
    this.#isSoft = before;
    return result;
  }

  // ---- statements -------------------------------------------------------------------------------------------------------

  /** Statements up to a block that begins with one of some words, at which it stops; or up to the end. */
  #statements(ends: string[]): Exec {
    const list: Exec[] = [];
    while (!this.#is("eof")) {
      if (this.#is("data")) {
        const { text } = this.#token;
        this.#at++;
        list.push((_, out) => void out.add(text));
      } else if (this.#skip("print")) {
        const value = this.#tuple();
        this.#expect("end");
        list.push((scope, out) => void out.add(toText(value(scope))));
      } else {
        this.#expect("block");
        if (this.#is("name", ...ends) && ends.length > 0) return sequence(list);
        list.push(this.#deeper(() => this.#statement()));
        this.#expect("end");
      }
    }
    if (ends.length > 0) this.#fail(`the template ends where {% ${ends.at(-1)} %} is expected`);
    return sequence(list);
  }

  /** The body of a block: its tag's end, statements, and the word that ends it. */
  #body(...ends: string[]): Exec {
    this.#op(":");
    this.#expect("end");
    return this.#statements(ends);
  }

  /** A body whose text is taken as a whole, so that a loop around it cannot be left from inside. */
  #block(end: string): Exec {
    const loops = this.#loops;
    this.#loops = 0;
    const body = this.#softly(false, () => this.#body(end));
    this.#at++;
    this.#loops = loops;
    return body;
  }

  #statement(): Exec {
    const { text: tag } = this.#expect("name");
    switch (tag) {
      case "set":
        return this.#set();
      case "for":
        return this.#for();
      case "if":
        return this.#softly(true, () => this.#if());
      case "macro":
        return this.#macro();
      case "call":
        return this.#call();
      case "with":
        return this.#with();
      case "filter": {
        const filter = this.#filters(true);
        const body = this.#block("endfilter");
        return (scope, out) => void out.add(toText(filter(captured(body, inner(scope)), scope)));
      }
      case "generation": {
        this.marksAnswers = true;
        const body = this.#block("endgeneration");
        return (scope, out) => {
          const from = out.text.length;
          out.add(captured(body, inner(scope)));
          out.generated.push({ from, to: out.text.length });
          return undefined;
        };
      }
      case "break":
      case "continue":
        if (this.#loops === 0) this.#fail(`${tag} is outside of a loop`);
        return () => tag;
      case "print": {
        const values: Eval[] = [];
        while (!this.#is("end")) {
          if (values.length > 0) this.#expect("operator", ",");
          values.push(this.#expression());
        }
        return (scope, out) => {
          for (const value of values) out.add(toText(value(scope)));
          return undefined;
        };
      }
      case "do":
      case "block":
      case "extends":
      case "include":
      case "import":
      case "from":
      case "autoescape":
      case "trans":
        throw unsupported(`{% ${tag} %} (line ${this.#token.line})`);
      default:
        return this.#fail(`there is no {% ${tag} %}`);
    }
  }

  #set(): Exec {
    const assign = this.#target(true);
    if (this.#op("=")) {
      const value = this.#tuple();
      return (scope) => void assign(scope, value(scope));
    }
    const filter = this.#is("operator", "|") ? this.#filters(false) : undefined;
    const body = this.#block("endset");
    return (scope) => {
      const text = captured(body, inner(scope));
      assign(scope, filter ? filter(text, scope) : text);
      return undefined;
    };
  }

  #for(): Exec {
    const assign = this.#target(false, "in");
    this.#expect("name", "in");
    const items = this.#tuple(false, "recursive");
    const test = this.#word("if") ? this.#expression() : undefined;
    const isRecursive = this.#word("recursive");
    this.#loops++;
    const body = this.#softly(false, () => this.#body("endfor", "else"));
    this.#loops--;
    const otherwise = this.#word("else") ? this.#softly(false, () => this.#body("endfor")) : undefined;
    this.#expect("name", "endfor");
    const run = (scope: Scope, out: Output, given: Value, depth: number): Signal => {
      let list = listOf(given);
      if (test)
        list = list.filter((item) => {
          const round = inner(scope);
          assign(round, item);
          return isTrue(test(round));
        });
      const state: LoopState = { list, at: 0, depth, before: undefined };
      const loop = loopOf(state, (again) => {
        if (!isRecursive) throw new TemplateError("the loop must be marked as recursive to be called");
        const nested = new Output();
        called(() => run(scope, nested, again, depth + 1));
        return nested.text;
      });
      for (; state.at < list.length; state.at++) {
        spend(1);
        const round = inner(scope);
        round.set("loop", loop);
        assign(round, list[state.at]!);
        if (body(round, out) === "break") break;
      }
      if (list.length === 0) otherwise?.(inner(scope), out);
      return undefined;
    };
    return (scope, out) => run(scope, out, items(scope), 0);
  }

  #if(): Exec {
    const test = this.#tuple(false);
    const body = this.#body("elif", "else", "endif");
    let otherwise: Exec | undefined;
    if (this.#word("elif")) otherwise = this.#deeper(() => this.#if());
    else {
      if (this.#word("else")) otherwise = this.#body("endif");
      this.#expect("name", "endif");
    }
    return (scope, out) => (isTrue(test(scope)) ? body(scope, out) : otherwise?.(scope, out));
  }

  #with(): Exec {
    const pairs: { assign: Assign; value: Eval }[] = [];
    while (!this.#is("end")) {
      if (pairs.length > 0) this.#expect("operator", ",");
      const assign = this.#target(false);
      this.#expect("operator", "=");
      pairs.push({ assign, value: this.#expression() });
    }
    const body = this.#softly(false, () => this.#body("endwith"));
    this.#at++;
    return (scope, out) => {
      const own = inner(scope);
      for (const { assign, value } of pairs.map((pair) => ({ ...pair, value: pair.value(scope) }))) assign(own, value);
      return body(own, out);
    };
  }

  /** Parameters and body of a macro or a call block. */
  #callable(
    name: string,
    end: string,
    parameters: { name: string; otherwise: Eval | undefined }[],
  ): (scope: Scope) => Callable {
    const outer = this.#names;
    const names = (this.#names = new Set());
    const body = this.#block(end);
    this.#names = outer;
    for (const used of names) outer?.add(used);
    const isNamed = (word: string) => parameters.some((parameter) => parameter.name === word);
    const [caller, varargs, kwargs] = ["caller", "varargs", "kwargs"].map((word) => names.has(word) && !isNamed(word));
    return (scope) => {
      const run = (args: Value[], keywords: Keywords = new Map()): Value => {
        const own = inner(scope);
        const rest = new Map(keywords);
        for (const [i, { name: parameter, otherwise }] of parameters.entries()) {
          let value = args[i];
          if (i >= args.length && rest.has(parameter)) {
            value = rest.get(parameter);
            rest.delete(parameter);
          }
          if (value === undefined)
            value = otherwise ? otherwise(own) : new Undefined(`parameter "${parameter}" was not provided`);
          own.set(parameter, value);
        }
        if (caller) own.set("caller", rest.get("caller") ?? new Undefined("no caller defined"));
        if (caller) rest.delete("caller");
        if (kwargs) own.set("kwargs", new Map(rest));
        else
          for (const [extra] of rest) throw new TemplateError(`the macro "${name}" takes no argument named "${extra}"`);
        if (varargs) own.set("varargs", Tuple.from(args.slice(parameters.length)));
        else if (args.length > parameters.length)
          throw new TemplateError(`the macro "${name}" takes at most ${parameters.length} arguments`);
        return called(() => captured(body, own));
      };
      const attributes: Record<string, Value> = {
        name,
        arguments: Tuple.from(parameters.map((parameter) => parameter.name)),
      };
      return new Callable(run, (attribute) =>
        Object.hasOwn(attributes, attribute) ? attributes[attribute] : undefined,
      );
    };
  }

  #signature(): { name: string; otherwise: Eval | undefined }[] {
    const parameters: { name: string; otherwise: Eval | undefined }[] = [];
    this.#expect("operator", "(");
    while (!this.#op(")")) {
      if (parameters.length > 0) this.#expect("operator", ",");
      const { text } = this.#expect("name");
      const otherwise = this.#op("=") ? this.#expression() : undefined;
      if (otherwise === undefined && parameters.some((parameter) => parameter.otherwise))
        this.#fail("a parameter without a default follows one that has one");
      parameters.push({ name: text, otherwise });
    }
    return parameters;
  }

  #macro(): Exec {
    const { text: name } = this.#expect("name");
    const make = this.#callable(name, "endmacro", this.#signature());
    return (scope) => void scope.set(name, make(scope));
  }

  #call(): Exec {
    const parameters = this.#is("operator", "(") ? this.#signature() : [];
    const called = this.#expression();
    if (this.#lastCall?.value !== called) this.#fail("{% call %} needs a call");
    const { invoke } = this.#lastCall;
    const make = this.#callable("caller", "endcall", parameters);
    return (scope, out) => void out.add(toText(invoke(scope, new Map([["caller", make(scope)]]))));
  }

  /** The latest call that was read; a call block adds its caller to it. */
  #lastCall: { value: Eval; invoke: (scope: Scope, extra: Keywords) => Value } | undefined;

  /** What is assigned to: names, in tuples too, and with `set` an attribute of a namespace. */
  #target(withNamespace: boolean, end?: string): Assign {
    const targets: Assign[] = [];
    let isTuple = false;
    while (true) {
      if (this.#op("(")) {
        targets.push(this.#target(withNamespace));
        this.#expect("operator", ")");
      } else targets.push(this.#oneTarget(withNamespace));
      if (!this.#op(",")) break;
      isTuple = true;
      if (this.#is("operator", "=", ")") || this.#is("end") || (end !== undefined && this.#is("name", end))) break;
    }
    const [only] = targets;
    if (!isTuple) return only!;
    return (scope, value) => {
      const values = listOf(value);
      if (values.length !== targets.length)
        throw new TemplateError(`${values.length} values cannot be unpacked into ${targets.length} names`);
      for (const [i, assign] of targets.entries()) assign(scope, values[i]!);
    };
  }

  #oneTarget(withNamespace: boolean): Assign {
    const { text } = this.#expect("name");
    if (/^([tT]rue|[fF]alse|[nN]one)$/.test(text)) this.#fail(`${text} cannot be assigned to`);
    if (!withNamespace || !this.#op("."))
      return (scope, value) => {
        scope.set(text, value);
      };
    const { text: name } = this.#expect("name");
    this.#use(text);
    return (scope, value) => {
      const space = scope.get(text);
      if (!(space instanceof Thing && space.set))
        throw new TemplateError(`"${text}" is no namespace, so "${text}.${name}" cannot be set`);
      space.set(name, value);
    };
  }

  // ---- expressions ------------------------------------------------------------------------------------------------------

  /** An expression, or several with commas between as a tuple. */
  #tuple(withIf = true, end?: string, isEmptyAllowed = false): Eval {
    const items: Eval[] = [];
    const isEnd = () => this.#is("end") || this.#is("operator", ")") || (end !== undefined && this.#is("name", end));
    let isTuple = false;
    while (!isEnd()) {
      items.push(this.#expression(withIf));
      if (!this.#op(",")) break;
      isTuple = true;
    }
    if (!isTuple && items.length === 1) return items[0]!;
    if (items.length === 0 && !isEmptyAllowed) this.#fail("expected an expression");
    return (scope) => Tuple.from(items, (item) => item(scope));
  }

  #expression(withIf = true): Eval {
    return this.#deeper(() => {
      if (!withIf) return this.#or();
      // Whether what stands here is a condition's branch is seen only behind it.
      let value = this.#softly(this.#isSoft || this.#hasIf(), () => this.#or());
      while (this.#word("if")) {
        const then = value;
        const test = this.#softly(true, () => this.#or());
        const otherwise = this.#word("else") ? this.#softly(true, () => this.#expression()) : undefined;
        value = (scope) => {
          if (isTrue(test(scope))) return then(scope);
          return otherwise ? otherwise(scope) : new Undefined("the inline if-expression was false and has no else");
        };
      }
      return value;
    });
  }

  /** Whether an `if` follows on the same level. */
  #hasIf(): boolean {
    let depth = 0;
    for (let i = this.#at; ; i++) {
      const { kind, text } = this.#tokens[i]!;
      if (kind === "end" || kind === "eof") return false;
      if (kind === "operator" && /^[([{]$/.test(text)) depth++;
      if (kind === "operator" && /^[)\]}]$/.test(text) && --depth < 0) return false;
      if (depth === 0 && kind === "operator" && text === ",") return false;
      if (depth === 0 && kind === "name" && text === "if") return true;
    }
  }

  #or(): Eval {
    let left = this.#and();
    while (this.#word("or")) {
      const [a, b] = [left, this.#and()];
      left = (scope) => {
        const value = a(scope);
        return isTrue(value) ? value : b(scope);
      };
    }
    return left;
  }

  #and(): Eval {
    let left = this.#not();
    while (this.#word("and")) {
      const [a, b] = [left, this.#not()];
      left = (scope) => {
        const value = a(scope);
        return isTrue(value) ? b(scope) : value;
      };
    }
    return left;
  }

  #not(): Eval {
    if (!this.#word("not")) return this.#compare();
    const value = this.#deeper(() => this.#not());
    return (scope) => !isTrue(value(scope));
  }

  #compare(): Eval {
    const first = this.#sum();
    const rest: { holds: (a: Value, b: Value) => boolean; value: Eval }[] = [];
    while (true) {
      const { kind, text } = this.#token;
      const isNotIn = kind === "name" && text === "not" && this.#tokens[this.#at + 1]!.text === "in";
      const holds =
        kind === "operator" ? comparisons[text] : isNotIn ? notIn : kind === "name" && text === "in" ? isIn : undefined;
      if (holds === undefined) break;
      this.#at += isNotIn ? 2 : 1;
      rest.push({ holds, value: this.#sum() });
    }
    if (rest.length === 0) return first;
    if (rest.length === 1) {
      const { holds, value } = rest[0]!;
      return (scope) => holds(first(scope), value(scope));
    }
    return (scope) => {
      let left = first(scope);
      for (const { holds, value } of rest) {
        const right = value(scope);
        if (!holds(left, right)) return false;
        left = right;
      }
      return true;
    };
  }

  #binary(operators: string[], next: () => Eval): Eval {
    let left = next();
    while (this.#is("operator", ...operators)) {
      const operator = this.#token.text as Operator;
      this.#at++;
      const [a, b] = [left, next()];
      left =
        operator === "%" ? (scope) => remainder(a(scope), b(scope)) : (scope) => operate(operator, a(scope), b(scope));
    }
    return left;
  }

  #sum(): Eval {
    return this.#binary(["+", "-"], () => this.#concat());
  }

  #concat(): Eval {
    const parts = [this.#product()];
    while (this.#op("~")) parts.push(this.#product());
    if (parts.length === 1) return parts[0]!;
    return (scope) => {
      let text = "";
      for (const part of parts) text += toText(part(scope));
      return made(text);
    };
  }

  #product(): Eval {
    return this.#binary(["*", "/", "//", "%"], () => this.#binary(["**"], () => this.#unary(true)));
  }

  #unary(withFilter: boolean): Eval {
    let value: Eval;
    if (this.#op("-")) {
      const operand = this.#deeper(() => this.#unary(false));
      value = (scope) => negate(operand(scope));
    } else if (this.#op("+")) {
      const operand = this.#deeper(() => this.#unary(false));
      value = (scope) => negate(negate(operand(scope)));
    } else value = this.#primary();
    value = this.#postfix(value);
    return withFilter ? this.#filtered(value) : value;
  }

  #use(name: string): void {
    this.words.add(name);
    this.#names?.add(name);
  }

  #primary(): Eval {
    const token = this.#token;
    this.#at++;
    if (token.kind === "name") {
      const { text } = token;
      const constant = constants.get(text);
      if (constant !== undefined) return () => constant;
      this.#use(text);
      return (scope) => {
        const value = scope.get(text);
        return value === undefined ? new Undefined(`"${text}" is undefined`) : value;
      };
    }
    if (token.kind === "text") {
      let { text } = token;
      while (this.#is("text")) text += this.#tokens[this.#at++]!.text;
      this.words.add(text);
      return () => text;
    }
    if (token.kind === "number") return () => token.value;
    if (token.kind === "operator" && token.text === "(") {
      const value = this.#deeper(() => this.#tuple(true, undefined, true));
      this.#expect("operator", ")");
      return value;
    }
    if (token.kind === "operator" && token.text === "[") {
      const items = this.#items("]", () => this.#expression());
      return (scope) => {
        spend(items.length + 1);
        return items.map((item) => item(scope));
      };
    }
    if (token.kind === "operator" && token.text === "{") {
      const pairs = this.#items("}", () => {
        const key = this.#expression();
        this.#expect("operator", ":");
        return { key, value: this.#expression() };
      });
      return (scope) => {
        spend(pairs.length + 1);
        const dict: Dict = new Map();
        for (const { key, value } of pairs) dict.set(newKey(key(scope)), value(scope));
        return dict;
      };
    }
    this.#at--;
    return this.#fail(
      token.kind === "end" || token.kind === "eof" ? "expected an expression" : `unexpected "${token.text}"`,
    );
  }

  /** What stands between brackets, with commas between, the last of which may follow nothing. */
  #items<T>(close: string, item: () => T): T[] {
    const items: T[] = [];
    while (!this.#op(close)) {
      if (items.length > 0) this.#expect("operator", ",");
      if (this.#op(close)) break;
      items.push(item());
    }
    return items;
  }

  #postfix(value: Eval): Eval {
    while (true) {
      if (this.#op(".")) value = this.#attribute(value);
      else if (this.#op("[")) value = this.#subscript(value);
      else if (this.#is("operator", "(")) value = this.#invocation(value, call);
      else return value;
    }
  }

  #attribute(object: Eval): Eval {
    if (this.#is("number")) {
      const { value: index } = this.#expect("number");
      if (typeof index !== "number") this.#fail("expected a name or a whole number");
      return (scope) => getItem(object(scope), index);
    }
    const { text: name } = this.#expect("name");
    this.words.add(name);
    if (!this.#is("operator", "(")) return (scope) => getAttribute(object(scope), name);
    return this.#invocation(object, (value, args, keywords) => callMethod(value, name, args, keywords));
  }

  #subscript(object: Eval): Eval {
    const keys: (Eval | { bounds: Eval[] })[] = [];
    const isBoundary = () => this.#is("operator", "]", ",", ":");
    while (!this.#op("]")) {
      if (keys.length > 0) this.#expect("operator", ",");
      const bounds: Eval[] = [isBoundary() ? none : this.#expression()];
      let isSlice = false;
      while (bounds.length < 3 && this.#op(":")) {
        isSlice = true;
        bounds.push(isBoundary() ? none : this.#expression());
      }
      if (!isSlice && bounds[0] === none) this.#fail("expected an expression");
      keys.push(isSlice ? { bounds: [...bounds, none, none] } : bounds[0]!);
    }
    const [key, ...more] = keys;
    if (key === undefined) this.#fail("expected an expression");
    if (more.length > 0) throw unsupported("several keys in brackets");
    if (typeof key === "function") return (scope) => getItem(object(scope), key(scope));
    const [start, stop, step] = key!.bounds;
    return (scope) => sliceOf(object(scope), start!(scope), stop!(scope), step!(scope));
  }

  /** A call, remembered in case it is a call block's, which adds its caller. */
  #invocation(object: Eval, work: (object: Value, args: Value[], keywords: Keywords | undefined) => Value): Eval {
    const given = this.#arguments();
    const invoke = (scope: Scope, extra: Keywords | undefined): Value => {
      const target = object(scope);
      const { args, keywords } = given(scope);
      return work(target, args, extra ? new Map([...(keywords ?? []), ...extra]) : keywords);
    };
    const value: Eval = (scope) => invoke(scope, undefined);
    this.#lastCall = { value, invoke };
    return value;
  }

  #arguments(): (scope: Scope) => Arguments {
    const positions: Eval[] = [];
    const names: { name: string; value: Eval }[] = [];
    let [list, dict]: (Eval | undefined)[] = [];
    this.#expect("operator", "(");
    this.#items(")", () => {
      if (this.#op("*")) list = this.#expression();
      else if (this.#op("**")) dict = this.#expression();
      else if (
        this.#is("name") &&
        this.#tokens[this.#at + 1]!.kind === "operator" &&
        this.#tokens[this.#at + 1]!.text === "="
      ) {
        const name = this.#token.text;
        this.#at += 2;
        names.push({ name, value: this.#expression() });
      } else {
        if (names.length > 0 || list || dict) this.#fail("an argument without a name follows one with a name");
        positions.push(this.#expression());
      }
    });
    if (names.length === 0 && !list && !dict) {
      if (positions.length === 0) return noArguments;
      return (scope) => ({ args: positions.map((position) => position(scope)), keywords: undefined });
    }
    return (scope) => {
      const args = positions.map((position) => position(scope));
      if (list) args.push(...listOf(list(scope)));
      const keywords: Keywords = new Map(names.map(({ name, value }) => [name, value(scope)]));
      const more = dict?.(scope);
      if (more !== undefined && !(more instanceof Map)) throw new TemplateError("the argument after ** must be a dict");
      for (const [key, value] of more ?? []) keywords.set(String(key), value);
      return { args, keywords: keywords.size > 0 ? keywords : undefined };
    };
  }

  /** Filters, tests and calls behind a value. */
  #filtered(value: Eval): Eval {
    while (true) {
      if (this.#is("operator", "|")) {
        const [object, filter] = [value, this.#filters(false, true)];
        value = (scope) => filter(object(scope), scope);
      } else if (this.#word("is")) value = this.#test(value);
      else if (this.#is("operator", "(")) value = this.#invocation(value, call);
      else return value;
    }
  }

  #dottedName(): string {
    let { text } = this.#expect("name");
    while (this.#op(".")) text += `.${this.#expect("name").text}`;
    return text;
  }

  /** One filter or several behind each other, without what they are applied to. */
  #filters(startsInline: boolean, isOne = false): (value: Value, scope: Scope) => Value {
    const chain: ((value: Value, scope: Scope) => Value)[] = [];
    while (startsInline || this.#op("|")) {
      startsInline = false;
      const name = this.#dottedName();
      if (!isFilter(name) && !this.#isSoft) this.#fail(`there is no filter named "${name}"`);
      const given = this.#is("operator", "(") ? this.#arguments() : noArguments;
      let filter: ReturnType<typeof findFilter> | undefined;
      chain.push((value, scope) => {
        const { args, keywords } = given(scope);
        return (filter ??= findFilter(name))(value, args, keywords);
      });
      if (isOne) break;
    }
    if (chain.length === 1) return chain[0]!;
    return (value, scope) => chain.reduce((result, filter) => filter(result, scope), value);
  }

  #test(value: Eval): Eval {
    const isNegated = this.#word("not");
    const name = this.#dottedName();
    if (!isTest(name) && !this.#isSoft) this.#fail(`there is no test named "${name}"`);
    let given: (scope: Scope) => Arguments = noArguments;
    const startsValue = this.#is("name") || this.#is("text") || this.#is("number") || this.#is("operator", "[", "{");
    if (this.#is("operator", "(")) given = this.#arguments();
    else if (startsValue && !this.#is("name", "else", "or", "and")) {
      if (this.#is("name", "is")) this.#fail("tests cannot be chained with is");
      const argument = this.#postfix(this.#primary());
      given = (scope) => ({ args: [argument(scope)], keywords: undefined });
    }
    let test: ReturnType<typeof findTest> | undefined;
    return (scope) => {
      const object = value(scope);
      const { args, keywords } = given(scope);
      return isTrue((test ??= findTest(name))(object, args, keywords)) !== isNegated;
    };
  }
}

const none: Eval = () => null;
interface Arguments {
  args: Value[];
  keywords: Keywords | undefined;
}
const noArguments = (): Arguments => ({ args: [], keywords: undefined });
const constants = new Map<string, Value>(
  Object.entries({ true: true, True: true, false: false, False: false, none: null, None: null }),
);
const isIn = (a: Value, b: Value) => contains(b, a);
const notIn = (a: Value, b: Value) => !contains(b, a);
const comparisons: Record<string, (a: Value, b: Value) => boolean> = {
  "==": equal,
  "!=": (a, b) => !equal(a, b),
  "<": (a, b) => compare(a, b) < 0,
  "<=": (a, b) => compare(a, b) <= 0,
  ">": (a, b) => compare(a, b) > 0,
  ">=": (a, b) => compare(a, b) >= 0,
};
const remainder = (a: Value, b: Value) => (typeof a === "string" ? formatPercent(a, b) : operate("%", a, b));

function sequence(list: Exec[]): Exec {
  if (list.length === 1) return list[0]!;
  return (scope, out) => {
    for (const run of list) {
      const signal = run(scope, out);
      if (signal !== undefined) return signal;
    }
    return undefined;
  };
}
