#!/usr/bin/env bun
// The command line: `sluice train`, `evaluate`, `generate`. Flags of `train` are the config's own keys
// (`--optimizer.learningRate 1e-4`), so there is one list of options and one set of messages. Modules are imported when a
// command needs them: `--help` answers at once.

import { parseArgs } from "node:util";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { TrainConfig } from "./config.ts";
import { ConfigError } from "./errors.ts";
import { run } from "./main.ts";

const help = `sluice: fine-tune every parameter of a language model on one GPU it does not fit in

  sluice train [--config FILE] [--KEY VALUE ...]     KEY is any key of the config, such as --model, --data, --output,
                                                     --steps, --optimizer.learningRate, --window.slots
  sluice evaluate MODEL FILE... [--sequenceLength N] [--loss assistant|all] [--dtype D] [--deviceMemory SIZE] [--json]
  sluice generate MODEL [PROMPT...] [--chat] [--maxTokens N] [--temperature T] [--topP P] [--seed N] [--dtype D]
                        [--deviceMemory SIZE] [--json]
                                                     --chat renders each prompt by the chat template; without prompts
                                                     lines of the standard input are answered

MODEL is a Hugging Face directory or hub id. FILE of --config is JSON, or TypeScript with a default export.`;

const modelFlags = { dtype: { type: "string" }, deviceMemory: { type: "string" }, json: { type: "boolean" } } as const;

async function main(args: string[]): Promise<void> {
  const [command, ...rest] = args;
  if (command === undefined || command === "help" || args.includes("--help") || args.includes("-h")) {
    console.log(help);
    return;
  }
  if (command === "train") return train(rest);
  if (command === "evaluate") return evaluate(rest);
  if (command === "generate") return generate(rest);
  const { closest } = await import("./suggest.ts");
  const near = closest(command, ["train", "evaluate", "generate"]);
  throw new ConfigError(
    `sluice has no command "${command}"${near ? ` (did you mean ${near}?)` : ""}; see sluice --help`,
  );
}

async function train(args: string[]): Promise<void> {
  const { train } = await import("./train.ts");
  const { model } = await train(await trainConfig(args));
  console.log(`model: ${model}`);
}

/**
 * A config file, and flags that replace or add keys; a flag given twice makes a list. `defaults` fill in what neither says.
 * What comes out is whatever the user wrote: `train` checks it.
 */
export async function trainConfig(args: readonly string[], defaults: Partial<TrainConfig> = {}): Promise<TrainConfig> {
  const config: Record<string, unknown> = {};
  const seen = new Set<string>();
  for (let at = 0; at < args.length; at += 2) {
    const match = /^--([A-Za-z][\w.]*)(?:=(.*))?$/s.exec(args[at]!);
    if (!match) throw new ConfigError(`"${args[at]}" is no flag; write --KEY VALUE, see sluice --help`);
    const inline = match[2] !== undefined;
    const value = inline ? match[2] : args[at + 1];
    if (value === undefined || (!inline && value.startsWith("--")))
      throw new ConfigError(`--${match[1]} needs a value`);
    if (inline) at--;
    if (match[1] === "config") mergeInto(config, await configFile(value));
    else setPath(config, match[1]!, plainValue(value), seen);
  }
  mergeInto(config, defaults);
  return config as TrainConfig;
}

async function configFile(path: string): Promise<Record<string, unknown>> {
  try {
    const module = (await import(pathToFileURL(resolve(path)).href)) as { default?: unknown };
    if (typeof module.default === "object" && module.default !== null) return module.default as Record<string, unknown>;
  } catch (cause) {
    throw new ConfigError(`--config ${path}: ${(cause as Error).message}`);
  }
  throw new ConfigError(
    `--config ${path} has no config; JSON, or a TypeScript file with a default export, was expected`,
  );
}

/** Numbers, true, false and null are what they look like; everything else is text. */
function plainValue(text: string): unknown {
  if (text === "true" || text === "false" || text === "null") return JSON.parse(text);
  return text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}

function setPath(config: Record<string, unknown>, path: string, value: unknown, seen: Set<string>): void {
  const keys = path.split(".");
  const last = keys.pop()!;
  let group = config;
  for (const key of keys) {
    if (typeof group[key] !== "object" || group[key] === null) group[key] = {};
    group = group[key] as Record<string, unknown>;
  }
  group[last] = seen.has(path) ? [group[last], value].flat() : value;
  seen.add(path);
}

function mergeInto(config: Record<string, unknown>, more: Record<string, unknown>): void {
  for (const [key, value] of Object.entries(more)) {
    const both = [config[key], value].every(
      (side) => typeof side === "object" && side !== null && !Array.isArray(side),
    );
    if (both) mergeInto(config[key] as Record<string, unknown>, value as Record<string, unknown>);
    else if (!(key in config)) config[key] = structuredClone(value);
  }
}

/** The model that `evaluate` and `generate` look at. */
async function open(
  name: string | undefined,
  flags: { dtype?: string | undefined; deviceMemory?: string | undefined },
) {
  const [{ load }, { resolveModel }, { parseSize }] = await Promise.all([
    import("./model.ts"),
    import("./io/hub.ts"),
    import("./config.ts"),
  ]);
  if (name === undefined) throw new ConfigError("MODEL is missing; give a Hugging Face directory or hub id");
  const { dtype = "float32", deviceMemory } = flags;
  if (dtype !== "float32" && dtype !== "bfloat16")
    throw new ConfigError(`--dtype must be float32 or bfloat16 (was ${dtype})`);
  const bytes = deviceMemory === undefined ? undefined : parseSize(deviceMemory);
  if (deviceMemory !== undefined && bytes === undefined)
    throw new ConfigError(`--deviceMemory must be a size such as "24GiB" or "512MiB" (was "${deviceMemory}")`);
  return load(await resolveModel(name), { dtype, ...(bytes === undefined ? {} : { deviceMemory: bytes }) });
}

async function evaluate(args: string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { ...modelFlags, sequenceLength: { type: "string" }, loss: { type: "string" } },
  });
  const [name, ...files] = positionals;
  if (files.length === 0) throw new ConfigError("sluice evaluate needs a model and at least one data file");
  const { loss = "assistant" } = values;
  if (loss !== "assistant" && loss !== "all") throw new ConfigError(`--loss must be assistant or all (was ${loss})`);
  const { evaluate } = await import("./evaluate.ts");
  const sequenceLength = number("--sequenceLength", values.sequenceLength);
  using model = await open(name, values);
  const result = await evaluate(model, files, { loss, ...(sequenceLength === undefined ? {} : { sequenceLength }) });
  if (values.json) console.log(JSON.stringify(result));
  else
    console.log(
      `loss ${result.loss.toFixed(4)}  perplexity ${result.perplexity.toFixed(3)}  ${result.validTokens} tokens`,
    );
}

async function generate(args: string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      ...modelFlags,
      chat: { type: "boolean" },
      maxTokens: { type: "string" },
      temperature: { type: "string" },
      topP: { type: "string" },
      seed: { type: "string" },
    },
  });
  const [name, ...prompts] = positionals;
  const given = {
    maxTokens: number("--maxTokens", values.maxTokens),
    temperature: number("--temperature", values.temperature),
    topP: number("--topP", values.topP),
    seed: number("--seed", values.seed),
  };
  const options = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  using model = await open(name, values);
  const texts = prompts.length > 0 ? prompts : (await Bun.stdin.text()).split("\n").filter((line) => line !== "");
  const asked = texts.map((text) => (values.chat ? [{ role: "user", content: text }] : text));
  const answers = await model.generate(asked, options);
  if (values.json) console.log(JSON.stringify(texts.map((prompt, index) => ({ prompt, answer: answers[index] }))));
  else for (const answer of answers) console.log(answer);
}

/** Which numbers are allowed is said where they are used. */
function number(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (text.trim() === "" || Number.isNaN(Number(text)))
    throw new ConfigError(`${flag} must be a number (was "${text}")`);
  return Number(text);
}

if (import.meta.main) await run(() => main(process.argv.slice(2)));
