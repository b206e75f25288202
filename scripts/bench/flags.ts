// Flags that `bun run simulate` and `bun run bench` share: a published shape, full rows of one length, and where things
// live. What is not given is "auto", as in a config of a GPU run.

import { evenTokens, parseSize } from "../../src/run/config.ts";
import { ConfigError } from "../../src/words/errors.ts";
import type { DecoderConfig } from "../../src/models/config.ts";
import { keepLevels } from "../../src/models/decoder.ts";
import type { TrainerConfig } from "../../src/engine/trainer.ts";

export const shapeOptions = {
  seq: { type: "string", default: "1024" },
  "device-memory": { type: "string" },
  "micro-batch-tokens": { type: "string" },
  clip: { type: "boolean", default: false },
  "clip-previous": { type: "boolean", default: false },
  slots: { type: "string", default: "auto" },
  boundary: { type: "string", default: "auto" },
  keep: { type: "string", default: "auto" },
  "keep-level": { type: "string" },
  resident: { type: "string", default: "auto" },
  ring: { type: "string", default: "auto" },
} as const;

export const shapeHelp = `  --seq TOKENS              tokens of a row, one document each            [1024]
  --device-memory SIZE      the most that the process may take of it      [all]
  --micro-batch-tokens N    tokens that pass a block at once              [even parts of at most 16384]
  --clip                    clip by the exact global norm
  --clip-previous           clip by the norm of the step before

What lives where; what is not given is fitted to the machine, as in training on a GPU (src/predict/fit.ts):
  --slots N|all             blocks on the device
  --boundary PLACE          device or pinned
  --keep N|all              last blocks that keep activations
  --keep-level NAME         what they keep: ${keepLevels.slice(1).join(", ")}       [all]
  --resident N|all          first blocks that stay on the device
  --ring N|all              gradients that may wait on the host`;

/** The flags' values, by name. */
export type ShapeValues = { [Flag in keyof typeof shapeOptions]?: string | boolean | undefined };

/** The config of a step of `rows` full rows. ConfigError names the flag. */
export function trainerConfigOf(values: ShapeValues, model: DecoderConfig, rows: number): TrainerConfig {
  const { layers } = model;
  const sequenceLength = whole(values, "seq", 2, model.maxPositions);
  const microBatchTokens =
    values["micro-batch-tokens"] === undefined
      ? evenTokens(rows, sequenceLength)
      : whole(values, "micro-batch-tokens", sequenceLength);
  if (values.clip && values["clip-previous"])
    throw new ConfigError("--clip and --clip-previous exclude each other; leave one out");
  if (values.clip && values.ring !== "auto" && values.ring !== "all")
    throw new ConfigError(
      `--ring ${values.ring} and --clip exclude each other: exact clipping keeps every gradient until the norm is known; leave one out`,
    );
  const keepBlocks = countOr(values, "keep", 0, layers);
  if (keepBlocks === "auto" && values["keep-level"] !== undefined)
    throw new ConfigError("--keep-level is what --keep blocks keep; give --keep, too");
  return {
    sequenceLength,
    batchSize: rows,
    microBatchTokens,
    gradientAccumulation: 1,
    maxGradNorm: values.clip ? 1 : values["clip-previous"] ? { value: 1, mode: "previous" } : null,
    optimizer: { learningRate: 1e-5, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, state: "fp32" },
    window: {
      slots: countOr(values, "slots", 2, Math.max(2, layers)),
      boundary: one(values, "boundary", ["auto", "device", "pinned"] as const),
      keepBlocks,
      ...(keepBlocks === "auto" ? {} : { keep: one(values, "keep-level", ["all", "products", "attention"] as const) }),
      residentBlocks: countOr(values, "resident", 0, layers),
      ring: countOr(values, "ring", 1, layers),
    },
  };
}

/** `--device-memory` in bytes. */
export function deviceMemoryOf(values: ShapeValues): number | undefined {
  const text = values["device-memory"];
  if (text === undefined) return undefined;
  const bytes = parseSize(String(text));
  if (bytes) return bytes;
  throw new ConfigError(`--device-memory must be a size such as "24GiB" (was "${text}")`);
}

/** A flag that is a whole number. */
export function whole<Flag extends string>(
  values: { [Name in Flag]?: string | boolean | undefined },
  flag: Flag,
  least: number,
  most = Number.MAX_SAFE_INTEGER,
): number {
  const text = String(values[flag]);
  const value = Number(text);
  const range = most === Number.MAX_SAFE_INTEGER ? `at least ${least}` : `${least} to ${most}`;
  if (!Number.isInteger(value) || value < least || value > most || text.trim() === "")
    throw new ConfigError(`--${flag} must be a whole number, ${range} (was "${text}")`);
  return value;
}

function countOr(values: ShapeValues, flag: keyof ShapeValues, least: number, most: number): number | "all" | "auto" {
  const value = values[flag] ?? "auto";
  return value === "auto" || value === "all" ? value : whole(values, flag, least, most);
}

/** A flag that is one of a few words; the first when it is not given. */
export function one<Flag extends string, Choice extends string>(
  values: { [Name in Flag]?: string | boolean | undefined },
  flag: Flag,
  choices: readonly Choice[],
): Choice {
  const value = values[flag] ?? choices[0];
  const found = choices.find((choice) => choice === value);
  if (found === undefined) throw new ConfigError(`--${flag} must be ${choices.join(" or ")} (was "${value}")`);
  return found;
}
