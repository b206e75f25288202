// What a run that is continued does otherwise than the checkpoint it continues, in words: changing the learning rate or the
// number of steps is a normal wish, and a key that was forgotten is a normal mistake.

import { isObject } from "../io/json.ts";
import { formatValue } from "../words/format.ts";

/** Keys that change nothing of what is learned. */
const harmless = [
  "output",
  "overwrite",
  "workers",
  "checkpoint",
  "logging",
  "tensorboard",
  "dashboard",
  "export",
  "evaluation",
  "window",
  "deviceMemory",
  "streamAbove",
];

/** "optimizer.learningRate 0.002 → 0.00002", one per key of the config that differs. */
export function configDifferences(before: unknown, now: unknown): string[] {
  const [old, current] = [flat(before), flat(now)];
  const keys = [...new Set([...old.keys(), ...current.keys()])].sort();
  return keys
    .filter((key) => !harmless.includes(key.split(".")[0]!) && old.get(key) !== current.get(key))
    .map((key) => `${key} ${old.get(key) ?? "not set"} → ${current.get(key) ?? "not set"}`);
}

/** Values by path, as text. */
function flat(config: unknown, path = ""): Map<string, string> {
  if (!isObject(config)) return new Map([[path, formatValue(config)]]);
  return new Map(
    Object.entries(config).flatMap(([key, value]) => [...flat(value, path === "" ? key : `${path}.${key}`)]),
  );
}

/** What decides the bits of a step beside the config: kept in a checkpoint, and compared when it is continued. */
export interface StepBits {
  device: string;
  dtype: string;
  /** Rows of logits at once; on a GPU they follow from the memory there is. */
  logitsChunk: number;
  /** Tokens of a micro-batch. */
  tokensMax: number;
}

/** Why the continued run's bits are not those that an uninterrupted one would have had; undefined when they are. */
export function bitDifferences(before: Partial<StepBits> | undefined, now: StepBits): string | undefined {
  if (before === undefined) return undefined;
  const words: Record<keyof StepBits, string> = {
    device: "device",
    dtype: "dtype",
    logitsChunk: "rows of logits at once (they follow from deviceMemory and what the GPU has free)",
    tokensMax: "tokens of a micro-batch",
  };
  const changed = (Object.keys(words) as (keyof StepBits)[]).filter((key) => before[key] !== now[key]);
  if (changed.length === 0) return undefined;
  return changed.map((key) => `${words[key]} ${before[key] ?? "unknown"} → ${now[key]}`).join(", ");
}
