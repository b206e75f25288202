// What a running template has: its names, its output, and `loop`.

import { grown, TemplateError } from "./limits.ts";
import { Callable, equal, Undefined, type Value } from "./values.ts";

/** Names of a template, a round of a loop, or a macro, and what is around it. */
export class Scope {
  readonly #around: Scope | undefined;
  readonly #values: Map<string, Value>;

  constructor(around: Scope | undefined, values = new Map<string, Value>()) {
    this.#around = around;
    this.#values = values;
  }

  get(name: string): Value | undefined {
    const value = this.#values.get(name);
    return value === undefined ? this.#around?.get(name) : value;
  }

  set(name: string, value: Value): void {
    this.#values.set(name, value);
  }
}

/** The text so far, and where `{% generation %}` blocks stand in it. */
export class Output {
  text = "";
  readonly generated: { from: number; to: number }[] = [];

  add(text: string): void {
    this.text = grown(this.text, text);
  }
}

/** How far a loop is. */
export interface LoopState {
  list: Value[];
  at: number;
  depth: number;
  /** What `changed` was last asked about. */
  before: Value[] | undefined;
}

/** What `loop` is inside a loop; called, it goes through something else in the same way. */
export function loopOf(state: LoopState, again: (items: Value) => Value): Callable {
  const cycle = (args: Value[]): Value => {
    if (args.length === 0) throw new TemplateError("loop.cycle needs items");
    return args[state.at % args.length]!;
  };
  const changed = (args: Value[]): Value => {
    if (state.before !== undefined && equal(state.before, args)) return false;
    state.before = args;
    return true;
  };
  const attribute = (name: string): Value | undefined => {
    const { list, at, depth } = state;
    switch (name) {
      case "index":
        return at + 1;
      case "index0":
        return at;
      case "first":
        return at === 0;
      case "last":
        return at === list.length - 1;
      case "length":
        return list.length;
      case "revindex":
        return list.length - at;
      case "revindex0":
        return list.length - at - 1;
      case "previtem":
        return at > 0 ? list[at - 1] : new Undefined("there is no previous item");
      case "nextitem":
        return at < list.length - 1 ? list[at + 1] : new Undefined("there is no next item");
      case "depth":
        return depth + 1;
      case "depth0":
        return depth;
      case "cycle":
        return new Callable(cycle);
      case "changed":
        return new Callable(changed);
      default:
        return undefined;
    }
  };
  return new Callable(([items = new Undefined("loop(...) needs a list")]) => again(items), attribute);
}
