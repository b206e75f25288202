// Typed reading of a parsed config.json that remembers which keys were asked for. What nobody asked for is, by
// definition, not honoured; `config.ts` then decides whether that is harmless. So the list of honoured keys cannot go
// stale: it is the code that reads them. Every error names the file and the key.

import { ModelError } from "../words/errors.ts";
import { isObject } from "../io/json.ts";

export class ConfigFields {
  readonly source: Record<string, unknown>;
  readonly #path: string;
  readonly #prefix: string;
  readonly #read = new Set<string>();

  constructor(source: Record<string, unknown>, path: string, prefix = "") {
    this.source = source;
    this.#path = path;
    this.#prefix = prefix;
  }

  fail(key: string, problem: string): never {
    throw new ModelError(`${this.#path}: ${this.#prefix}${key} ${problem}`);
  }

  /** Keys with a value (null means unset) that nothing has read yet. */
  unread(): string[] {
    return Object.keys(this.source).filter((key) => this.source[key] !== null && !this.#read.has(key));
  }

  readKeys(): Iterable<string> {
    return this.#read;
  }

  /** The raw value; undefined when the key is missing. */
  value(key: string): unknown {
    this.#read.add(key);
    return Object.hasOwn(this.source, key) ? this.source[key] : undefined;
  }

  integer(key: string, whenUnset?: number, min = 1): number {
    const value = this.value(key) ?? whenUnset;
    if (value === undefined) return this.fail(key, "is missing");
    if (!Number.isInteger(value) || (value as number) < min || (value as number) > 0x7fff_ffff)
      return this.fail(key, `must be a whole number of at least ${min} (was ${JSON.stringify(value)})`);
    return value as number;
  }

  /** Distinguishes null (returned) from a missing key (gives `whenMissing`). */
  integerOrNull(key: string, whenMissing: number | null, min = 1): number | null {
    const value = this.value(key);
    if (value === null) return null;
    return value === undefined ? whenMissing : this.integer(key, undefined, min);
  }

  positive(key: string, whenUnset?: number): number {
    const value = this.value(key) ?? whenUnset;
    if (value === undefined) return this.fail(key, "is missing");
    if (typeof value !== "number" || !Number.isFinite(value) || value <= 0)
      return this.fail(key, `must be a number above 0 (was ${JSON.stringify(value)})`);
    return value;
  }

  boolean(key: string, whenUnset: boolean): boolean {
    const value = this.value(key) ?? whenUnset;
    return typeof value === "boolean" ? value : this.fail(key, `must be true or false (was ${JSON.stringify(value)})`);
  }

  string(key: string, whenUnset?: string): string {
    const value = this.value(key) ?? whenUnset;
    if (value === undefined) return this.fail(key, "is missing");
    return typeof value === "string" ? value : this.fail(key, `must be a string (was ${JSON.stringify(value)})`);
  }

  list(key: string): unknown[] | undefined {
    const value = this.value(key) ?? undefined;
    if (value === undefined || Array.isArray(value)) return value;
    return this.fail(key, `must be a list (was ${JSON.stringify(value)})`);
  }

  object(key: string): ConfigFields | undefined {
    const value = this.value(key) ?? undefined;
    if (value === undefined) return undefined;
    if (isObject(value)) return new ConfigFields(value, this.#path, `${this.#prefix}${key}.`);
    return this.fail(key, `must be an object (was ${JSON.stringify(value)})`);
  }
}
