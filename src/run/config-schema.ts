// The config as a JSON schema, for editors: a config file that begins with `"$schema": "./sluice.schema.json"` is completed
// and checked while it is written. Types and limits are those that `parseConfig` checks, defaults are what it fills in, and
// the descriptions are the comments in config.ts, so that nothing is said twice.

import { bareSchema, parseConfig } from "./config.ts";
import { keyDocs } from "./docs.gen.ts";
import { splitPattern } from "../data/read/splits.ts";

/** A schema, as far as is needed here. */
export interface JsonSchema {
  type?: string;
  description?: string;
  default?: unknown;
  properties?: Record<string, JsonSchema>;
  items?: JsonSchema;
  [keyword: string]: unknown;
}

/** Defaults that follow from the machine or from other keys. */
const derived = new Set(["workers", "dtype", "microBatchTokens", "epochs"]);

/** Draft 2020-12. */
export async function configSchema(): Promise<JsonSchema> {
  const schema = finite((await bareSchema()) as JsonSchema);
  const required = { model: "-", data: "-", output: "-" };
  const { model: _, data: __, output: ___, ...resolved } = await parseConfig(required);
  const defaults = { ...resolved, device: "auto" };
  for (const key of ["data", "evaluationData"]) Object.assign(schema.properties![key]!, dataSchema());
  describe(schema, "root", defaults);
  schema.properties = { $schema: { type: "string" }, ...schema.properties };
  return { ...schema, title: "Sluice training run" };
}

/** A `DataInput` as far as JSON can hold one: `filter` and `map` are functions. */
function dataSchema(): JsonSchema {
  const path = { type: "string", minLength: 1 };
  const properties: Record<string, JsonSchema> = {
    path: { ...path },
    weight: { type: "number", exclusiveMinimum: 0 },
    split: { type: "string", minLength: 1, pattern: splitPattern.source },
    limit: { type: "integer", minimum: 1 },
    columns: { type: "object", additionalProperties: path },
  };
  const source: JsonSchema = { type: "object", properties, required: ["path"], additionalProperties: false };
  describe(source, "DataSource", {});
  return { anyOf: [path, { type: "array", minItems: 1, items: { anyOf: [path, source] } }] };
}

/** Without bounds that JSON cannot write and that bound nothing, such as `exclusiveMaximum: Infinity`. */
function finite<T>(schema: T): T {
  return JSON.parse(JSON.stringify(schema, (_, value) => (Math.abs(value) === Infinity ? undefined : value))) as T;
}

/** Adds comments and defaults to a group's keys, and to those of the groups inside. */
function describe(schema: JsonSchema, group: string, defaults: Record<string, unknown>): void {
  for (const [key, property] of Object.entries(schema.properties ?? {})) {
    const comment = keyDocs[`${group}.${key}`];
    if (comment !== undefined) property.description = comment;
    const value = defaults[key];
    if (property.properties) describe(property, key, value as Record<string, unknown>);
    else if (value !== undefined && !derived.has(key)) property.default = value;
    if (property.items?.properties) describe(property.items, key.replace(/s$/, ""), {});
  }
}
