// The JSON schema agrees with `parseConfig`: the same configs pass and fail, every key is described, and defaults are the
// ones that are filled in. The validator is a small one of this test's own.

import { expect, test } from "bun:test";
import { configSchema, type JsonSchema } from "../../src/run/config-schema.ts";
import { parseConfig } from "../../src/run/config.ts";
import { trainConfig } from "../../src/cli/train.ts";
import { sluice } from "../support/cli.ts";
import { temporaryDirectory } from "../support/models.ts";

const schema = await configSchema();
const minimal = { model: "a", data: "b.jsonl", output: "c" };

/** As much of draft 2020-12 as the schema uses; a keyword that this does not know fails the test. */
function accepts(schema: JsonSchema, value: unknown): boolean {
  const rules: Record<string, (rule: never) => boolean> = {
    type: (rule: string) =>
      ({ array: Array.isArray(value), null: value === null, integer: Number.isInteger(value) })[rule] ??
      (rule === "object"
        ? typeof value === "object" && value !== null && !Array.isArray(value)
        : typeof value === rule),
    const: (rule: unknown) => value === rule,
    enum: (rule: unknown[]) => rule.includes(value),
    anyOf: (rule: JsonSchema[]) => rule.some((inner) => accepts(inner, value)),
    minimum: (rule: number) => typeof value !== "number" || value >= rule,
    maximum: (rule: number) => typeof value !== "number" || value <= rule,
    exclusiveMinimum: (rule: number) => typeof value !== "number" || value > rule,
    exclusiveMaximum: (rule: number) => typeof value !== "number" || value < rule,
    minLength: (rule: number) => typeof value !== "string" || value.length >= rule,
    pattern: (rule: string) => typeof value !== "string" || new RegExp(rule, "u").test(value),
    minItems: (rule: number) => !Array.isArray(value) || value.length >= rule,
    items: (rule: JsonSchema) => !Array.isArray(value) || value.every((inner) => accepts(rule, inner)),
    required: (rule: string[]) => rule.every((key) => Object.hasOwn(value as object, key)),
    properties: (rule: Record<string, JsonSchema>) =>
      Object.entries(rule).every(
        ([key, inner]) => !Object.hasOwn(value as object, key) || accepts(inner, (value as never)[key]),
      ),
    additionalProperties: (rule: boolean) =>
      rule || Object.keys(value as object).every((key) => Object.hasOwn(schema.properties ?? {}, key)),
  };
  const words = new Set(["$schema", "title", "description", "default"]);
  const keywords = Object.keys(schema).filter((keyword) => !words.has(keyword));
  keywords.sort((a, b) => Number(b === "type") - Number(a === "type")); // the others may rely on it
  return keywords.every((keyword) => {
    const rule = rules[keyword];
    if (rule === undefined) throw new Error(`this validator does not know ${keyword}`);
    return rule(schema[keyword] as never);
  });
}

const good = [
  {},
  { steps: 10, schedule: { type: "wsd", warmup: "3%", decay: 2 } },
  { deviceMemory: "24GiB", window: { slots: "all", ring: "all" } },
  { data: ["a", { path: "b" }], evaluationData: "c/*.csv", maxBadLines: "1%" },
  {
    data: [
      { path: "a", weight: 2.5, split: "train[:90%]", limit: 10 },
      { path: "b", weight: 1, split: "[90%:]" },
    ],
  },
  { data: ["a", "b"], maxGradNorm: null, checkpoint: { every: null, resume: "auto" } },
  { optimizer: { learningRate: 1e-5, weightDecayGroups: [{ match: "*.bias", weightDecay: 0 }] } },
];
const bad = [
  { modle: "a" },
  { batchSize: 0 },
  { batchSize: 1.5 },
  { steps: "ten" },
  { schedule: { warmup: "101%" } },
  { optimizer: { learningRate: -1 } },
  { optimizer: { lr: 1 } },
  { optimizer: { weightDecayGroups: [{ match: "*.bias" }] } },
  { checkpoint: { every: 0 } },
  { dtype: "float16" },
  { window: { slots: 1 } },
  { output: "" },
  { data: 3 },
  { data: "" },
  { data: [] },
  { data: ["a", ""] },
  { data: { path: "a" } },
  { data: [{ weight: 1 }] },
  { data: [{ path: "a", weight: 0 }] },
  { data: [{ path: "a", split: "90%" }] },
  { data: [{ path: "a", limit: 0 }] },
  { evaluationData: [{ path: "a", fliter: "x" }] },
  { data: [{ path: "a", map: "(row) => row" }] },
  { maxBadLines: -1 },
];

for (const config of good)
  test(`accepts what parseConfig accepts: ${JSON.stringify(config)}`, async () => {
    expect(accepts(schema, { ...minimal, ...config })).toBe(true);
    await parseConfig({ ...minimal, ...config });
  });
for (const config of bad)
  test(`refuses what parseConfig refuses: ${JSON.stringify(config)}`, () => {
    expect(accepts(schema, { ...minimal, ...config })).toBe(false);
    expect(parseConfig({ ...minimal, ...config })).rejects.toThrow();
  });
test("what is required is required", () => {
  expect(schema["required"]).toEqual(expect.arrayContaining(["model", "data", "output"]));
  expect(accepts(schema, { model: "a" })).toBe(false);
});

test("every key is described, and defaults are those that parseConfig fills in", async () => {
  const config = (await parseConfig(minimal)) as Record<string, unknown>;
  const undescribed: string[] = [];
  const walk = ({ properties = {} }: JsonSchema, path: string, values: Record<string, unknown>): void => {
    for (const [key, property] of Object.entries(properties)) {
      if (property.properties) walk(property, `${path}${key}.`, values[key] as Record<string, unknown>);
      else if (property.description === undefined) undescribed.push(path + key);
      for (const { items } of (property["anyOf"] ?? []) as JsonSchema[])
        for (const inside of (items?.["anyOf"] ?? []) as JsonSchema[]) walk(inside, `${path}${key}[].`, {});
      // "auto" stands for what this machine has.
      if (property.default !== undefined && path + key !== "device") expect(values[key]).toEqual(property.default);
    }
  };
  walk(schema, "", config);
  expect(undescribed).toEqual(["$schema"]);
  expect(schema.properties!["batchSize"]).toEqual({
    type: "integer",
    minimum: 1,
    description: "Rows in one step.",
    default: 8,
  });
  expect(schema.properties!["workers"]!.default).toBeUndefined(); // this machine's, not the next one's
});

test("sluice schema prints it, and a config file may name it", async () => {
  expect(JSON.parse((await sluice(["schema"])).out)).toEqual(JSON.parse(JSON.stringify(schema)));
  using directory = temporaryDirectory();
  const path = `${directory.path}/config.json`;
  await Bun.write(path, JSON.stringify({ $schema: "./sluice.schema.json", ...minimal }));
  expect(await trainConfig(["--config", path, "--steps", "3"])).toEqual({ ...minimal, steps: 3 });
});
