// What the commands share: their shape, the flags that several have, and messages for flags that are wrong. Imports of a
// command are light; what it works with is imported when it runs.

import { ConfigError } from "../words/errors.ts";
import { parseSize } from "../words/format.ts";
import type { GenerateOptions } from "../engine/generate.ts";
import type { Model } from "../engine/model.ts";

export interface Command {
  /** What `sluice COMMAND --help` prints. */
  help: string;
  /** Runs it on the arguments after its name. */
  run(args: string[]): Promise<void>;
}

/** Flags of commands that open a model. */
export const modelFlags = {
  device: { type: "string" },
  dtype: { type: "string" },
  deviceMemory: { type: "string" },
} as const;
export const modelHelp = `  --device D           auto (default: a GPU that is there and works, else the CPU), cpu, cuda, hip
  --dtype D            float32 or bfloat16: what the device computes in (on GPUs bfloat16)
  --deviceMemory SIZE  the most the device may hold, such as 24GiB`;

/** Flags of commands that generate. */
export const generateFlags = {
  maxTokens: { type: "string" },
  temperature: { type: "string" },
  topP: { type: "string" },
  seed: { type: "string" },
} as const;
export const generateHelp = `  --maxTokens N        the most tokens an answer may have (256)
  --temperature T      0 (default) is greedy
  --topP P             sample from the smallest set of tokens with this much probability (1)
  --seed N             for sampling (1)`;

/** Splits off a command's own flags, as parseArgs describes them; everything else is for the config. */
export function takeOwn<Options extends Record<string, { type: "string" | "boolean" }>>(
  args: readonly string[],
  options: Options,
): { own: { [Name in keyof Options]?: Options[Name]["type"] extends "string" ? string : boolean }; rest: string[] } {
  const own: Record<string, string | boolean> = {};
  const rest: string[] = [];
  for (let at = 0; at < args.length; at++) {
    const [, name, inline] = /^--([\w-]+)(?:=(.*))?$/s.exec(args[at]!) ?? [];
    if (name === undefined || !Object.hasOwn(options, name)) rest.push(args[at]!);
    else if (options[name]!.type === "boolean") own[name] = true;
    else {
      const value = inline ?? args[++at];
      if (value === undefined) throw new ConfigError(`--${name} needs a value`);
      own[name] = value;
    }
  }
  return { own: own as never, rest };
}

/** A flag that is a whole number, `least` or more. */
export function whole(flag: string, text: string, least: number, most = Number.MAX_SAFE_INTEGER): number {
  const value = Number(text);
  const range = most === Number.MAX_SAFE_INTEGER ? `at least ${least}` : `${least} to ${most}`;
  if (!Number.isInteger(value) || value < least || value > most || text.trim() === "")
    throw new ConfigError(`${flag} must be a whole number, ${range} (was "${text}")`);
  return value;
}

type Texts<Flags> = { [Name in keyof Flags]?: string | undefined };

/** The model that a command looks at. */
export async function openModel(name: string | undefined, flags: Texts<typeof modelFlags>): Promise<Model> {
  if (name === undefined) throw new ConfigError("MODEL is missing; give a Hugging Face directory or hub id");
  const device = oneOf("--device", flags.device ?? "auto", ["auto", "cpu", "cuda", "hip"]);
  const dtype = flags.dtype === undefined ? undefined : oneOf("--dtype", flags.dtype, ["float32", "bfloat16"]);
  const bytes = size("--deviceMemory", flags.deviceMemory);
  const [{ load }, { resolveModel }] = await Promise.all([import("../engine/model.ts"), import("../models/hub.ts")]);
  const reason = device === "auto" ? (await import("../native/choose.ts")).chooseDevice().reason : undefined;
  if (reason !== undefined) console.error(reason); // stdout may belong to a machine
  return load(await resolveModel(name), {
    device,
    ...(dtype === undefined ? {} : { dtype }),
    ...(bytes === undefined ? {} : { deviceMemory: bytes }),
  });
}

/** Those of the generation flags that were given. */
export function generateOptions(flags: Texts<typeof generateFlags>): GenerateOptions {
  const given = {
    maxTokens: number("--maxTokens", flags.maxTokens),
    temperature: number("--temperature", flags.temperature),
    topP: number("--topP", flags.topP),
    seed: number("--seed", flags.seed),
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

/** Which numbers are allowed is said where they are used. */
export function number(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (text.trim() === "" || Number.isNaN(Number(text)))
    throw new ConfigError(`${flag} must be a number (was "${text}")`);
  return Number(text);
}

/** A size such as "24GiB" in bytes. */
export function size(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const bytes = parseSize(text);
  if (bytes === undefined) throw new ConfigError(`${flag} must be a size such as "24GiB" or "512MiB" (was "${text}")`);
  return bytes;
}

export function oneOf<Choice extends string>(flag: string, text: string, choices: readonly Choice[]): Choice {
  const found = choices.find((choice) => choice === text);
  if (found === undefined) throw new ConfigError(`${flag} must be ${choices.join(" or ")} (was ${text})`);
  return found;
}
