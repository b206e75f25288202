// `sluice train`: a run from a config file and flags. Flags are the config's own keys (`--optimizer.learningRate 1e-4`), so
// there is one list of options and one set of messages.

import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { TrainConfig } from "../run/config.ts";
import { isObject } from "../io/json.ts";
import { ConfigError } from "../words/errors.ts";
import type { Command } from "./command.ts";

const help = `sluice train [--config FILE] [--KEY VALUE ...]

KEY is any key of the config: --model, --data, --output, --steps, --optimizer.learningRate,
--window.slots, ... A flag given twice makes a list, and a VALUE may be JSON. --data PATH:train and
--data 'PATH[:90%]' take a part of it, --evaluationData 5% keeps one for evaluation. --dashboard
shows the run live in a browser on this machine. FILE is JSON, or TypeScript with a default export;
flags replace what it says.
src/run/config.ts documents every key.`;

async function run(args: string[]): Promise<void> {
  const { train } = await import("../run/train.ts");
  const { model } = await train(await trainConfig(args));
  console.log(`model: ${model}`);
}

/** Flags that mean true when no value follows. */
const switches = new Set(["dashboard", "tensorboard", "overwrite", "checkpoint.resume"]);

/**
 * A config file, and flags that replace or add keys; a flag given twice makes a list. `defaults` fill in what neither says.
 * What comes out is whatever the user wrote: `train` checks it.
 */
export async function trainConfig(args: readonly string[], defaults: Partial<TrainConfig> = {}): Promise<TrainConfig> {
  const config: Record<string, unknown> = {};
  const seen = new Set<string>();
  for (let at = 0; at < args.length; at += 2) {
    const match = /^--([A-Za-z][\w.]*)(?:=(.*))?$/s.exec(args[at]!);
    if (!match) throw new ConfigError(`"${args[at]}" is no flag; write --KEY VALUE, see sluice train --help`);
    if (match[1] === "resume") match[1] = "checkpoint.resume"; // the word that everybody tries first
    const following = args[at + 1]?.startsWith("--") ? undefined : args[at + 1];
    const inline = match[2] !== undefined || following === undefined;
    const value = match[2] ?? following ?? (switches.has(match[1]!) ? "true" : undefined);
    if (value === undefined) throw new ConfigError(`--${match[1]} needs a value`);
    if (inline) at--;
    if (match[1]!.split(".").includes("__proto__")) throw new ConfigError(`--${match[1]} is no key of the config`);
    if (match[1] === "config") mergeInto(config, await configFile(value));
    else setPath(config, match[1]!, plainValue(value), seen);
  }
  // One source alone is a list of one.
  for (const key of ["data", "evaluationData"]) if (seen.has(key) && isObject(config[key])) config[key] = [config[key]];
  mergeInto(config, defaults);
  return config as TrainConfig;
}

async function configFile(path: string): Promise<Record<string, unknown>> {
  try {
    const module = (await import(pathToFileURL(resolve(path)).href)) as { default?: unknown };
    if (typeof module.default === "object" && module.default !== null) {
      const { $schema: _, ...config } = module.default as Record<string, unknown>; // that one is for editors
      return config;
    }
  } catch (cause) {
    throw new ConfigError(`--config ${path}: ${(cause as Error).message}`);
  }
  throw new ConfigError(
    `--config ${path} has no config; JSON, or a TypeScript file with a default export, was expected`,
  );
}

/** Numbers, true, false, null, lists and objects of JSON are what they look like; everything else is text. */
function plainValue(text: string): unknown {
  if (/^\s*[[{]/.test(text)) {
    try {
      return JSON.parse(text);
    } catch {
      return text; // a glob may begin like that
    }
  }
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
    // What all objects have in common is no place for a config.
    if (key === "__proto__") throw new ConfigError("__proto__ is no key of the config");
    const both = [config[key], value].every(
      (side) => typeof side === "object" && side !== null && !Array.isArray(side),
    );
    if (both) mergeInto(config[key] as Record<string, unknown>, value as Record<string, unknown>);
    else if (!Object.hasOwn(config, key)) config[key] = copyOf(value);
  }
}

/** Lists and groups anew, so that flags do not change what a file exports; anything else as it is. */
function copyOf(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(copyOf);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inside]) => [key, copyOf(inside)]));
}

export const command: Command = { help, run };
