// bun run simulate --shape qwen3-8b --batch 16 --seq 1024 [options]
//
// Predicts a training step on a described machine without the model, the data or the machine: records the plans that the
// engine would play, checks their order (src/plan-check.ts), and plays them on a virtual clock (src/simulate.ts). Assumptions are at the top of src/machines.ts.

import { parseArgs, styleText } from "node:util";
import { ConfigError, assert } from "../src/errors.ts";
import { stepFlops } from "../src/flops.ts";
import { formatBytes, formatCount } from "../src/format.ts";
import { machineNamed, machines, type Machine } from "../src/machines.ts";
import { run } from "../src/main.ts";
import { checkBill, checkShape, keepLast, memoryBill, printBill, type StepShape } from "../src/memory.ts";
import { keepLevels } from "../src/models/decoder.ts";
import { parameterCount } from "../src/models/parameters.ts";
import {
  publishedModel,
  publishedModels,
  rehearse,
  rehearsedBatch,
  rehearsedMicroBatch,
  rehearsedSettings,
  rehearsedShape,
} from "../src/rehearsal.ts";
import { checkPlans } from "../src/plan-check.ts";
import { Random } from "../src/random.ts";
import { simulate } from "../src/simulate.ts";
import { recordStep } from "../src/step.ts";

const help = `bun run simulate --shape NAME --batch ROWS --seq TOKENS [options]

Predicts seconds per step, tokens per second, how busy each stream is, and the memory bill.

  --shape NAME              ${Object.keys(publishedModels).join(", ")}
  --batch ROWS              rows of one step                              [16]
  --seq TOKENS              tokens of a row, one document each            [1024]
  --machine NAME            ${Object.keys(machines).join(", ")}                    [h200]
  --dtype NAME              bfloat16 or float32                           [bfloat16]
  --micro-batch-tokens N    tokens that pass a block at once              [all, at most 16384]
  --slots N                 blocks on the device                          [2]
  --boundary PLACE          device or pinned                              [device]
  --keep N                  last blocks that keep activations             [0]
  --keep-level NAME         what they keep: ${keepLevels.slice(1).join(", ")}       [all]
  --resident N              first blocks that stay on the device          [0]
  --ring N                  gradients that may wait on the host           [all]
  --logits-chunk ROWS       rows of logits at once                        [2048]
  --clip                    clip by the exact global norm
  --steps N                 steps to play, 3 to 20                        [4]
  --jitter SHARE            commands take up to this share longer         [0]
  --json                    one JSON object instead of tables
  --help`;

const options = {
  shape: { type: "string" },
  batch: { type: "string", default: "16" },
  seq: { type: "string", default: "1024" },
  machine: { type: "string", default: "h200" },
  dtype: { type: "string", default: "bfloat16" },
  "micro-batch-tokens": { type: "string" },
  slots: { type: "string", default: "2" },
  boundary: { type: "string", default: "device" },
  keep: { type: "string", default: "0" },
  "keep-level": { type: "string", default: "all" },
  resident: { type: "string", default: "0" },
  ring: { type: "string", default: "all" },
  "logits-chunk": { type: "string", default: "2048" },
  clip: { type: "boolean", default: false },
  steps: { type: "string", default: "4" },
  jitter: { type: "string", default: "0" },
  json: { type: "boolean", default: false },
  help: { type: "boolean", default: false },
} as const;

type Values = ReturnType<typeof parse>;
const parse = (args: string[]) => parseArgs({ args, options }).values;

export interface Prediction {
  machine: string;
  parameters: number;
  tokensPerStep: number;
  secondsPerStep: number;
  tokensPerSecond: number;
  /** Of the model's own FLOPs, recompute not counted. */
  teraflopsPerSecond: number;
  busy: Record<string, number>;
  binds: string;
  bytes: Record<string, number>;
  bill: ReturnType<typeof memoryBill>;
}

/** What the command line asks for. ConfigError names the flag. */
export function predict(values: Values): Prediction {
  const machine = machineNamed(values.machine);
  const { shape, rowsPerMicroBatch, batch: rows, sequence } = shapeOf(values);
  const bill = memoryBill(shape);
  checkBill(bill, machine.deviceBytes);
  const random = new Random(0);
  const microBatches = Array.from({ length: shape.microBatches }, (_, index) => {
    const count = Math.min(rowsPerMicroBatch, rows - index * rowsPerMicroBatch);
    return rehearsedMicroBatch(
      Array.from({ length: count }, () => sequence),
      shape.config.vocabulary,
      () => random.uniform(),
    );
  });
  const batch = rehearsedBatch([microBatches]);
  const recorder = rehearse(shape);
  const steps = whole(values, "steps", 3, 20);
  const recorded = Array.from({ length: steps }, (_, step) =>
    recordStep(recorder, batch, rehearsedSettings(shape, step + 1)),
  );
  const [broken] = checkPlans(recorded, { shape, recorder });
  assert(broken === undefined, `the recorded plans break rule ${broken?.rule}: ${broken?.message}`);
  const jitter = { share: share(values), seed: 1 };
  const { secondsPerStep, busy, binds, places } = simulate(recorded, { machine, jitter });
  return {
    machine: machine.name,
    parameters: parameterCount(shape.blocks),
    tokensPerStep: batch.tokens,
    secondsPerStep,
    tokensPerSecond: batch.tokens / secondsPerStep,
    teraflopsPerSecond: stepFlops(shape.config, batch) / secondsPerStep / 1e12,
    busy,
    binds,
    bytes: places,
    bill,
  };
}

function shapeOf(values: Values): { shape: StepShape; rowsPerMicroBatch: number; batch: number; sequence: number } {
  if (values.shape === undefined)
    throw new ConfigError(`--shape is missing; known: ${Object.keys(publishedModels).join(", ")}`);
  const config = publishedModel(values.shape);
  const { layers } = config;
  const [batch, sequence] = [whole(values, "batch", 1), whole(values, "seq", 2, config.maxPositions)];
  const wanted =
    values["micro-batch-tokens"] === undefined
      ? Math.max(sequence, 16384)
      : whole(values, "micro-batch-tokens", sequence);
  const rowsPerMicroBatch = Math.min(batch, Math.floor(wanted / sequence));
  if (values.clip && values.ring !== "all")
    throw new ConfigError(
      `--ring ${values.ring} and --clip exclude each other: exact clipping keeps every gradient until the norm is known; leave one out`,
    );
  const shape = rehearsedShape(config, {
    tokensMax: Math.ceil((rowsPerMicroBatch * sequence) / 32) * 32,
    microBatches: Math.ceil(batch / rowsPerMicroBatch),
    positions: sequence,
    dtype: one(values, "dtype", ["bfloat16", "float32"] as const),
    boundary: one(values, "boundary", ["device", "pinned"] as const),
    slots: whole(values, "slots", 2, Math.max(2, layers)),
    keep: keepLast(layers, whole(values, "keep", 0, layers), one(values, "keep-level", keepLevels.slice(1))),
    residentBlocks: whole(values, "resident", 0),
    ring: values.ring === "all" ? layers : whole(values, "ring", 1, layers),
    logitsChunk: Math.ceil(whole(values, "logits-chunk", 1) / 16) * 16,
    clips: values.clip,
  });
  checkShape(shape);
  return { shape, rowsPerMicroBatch, batch, sequence };
}

type Flag = keyof typeof options;

function whole(values: Values, flag: Flag, least: number, most = Number.MAX_SAFE_INTEGER): number {
  const text = String(values[flag]);
  const value = Number(text);
  const range = most === Number.MAX_SAFE_INTEGER ? `at least ${least}` : `${least} to ${most}`;
  if (!Number.isInteger(value) || value < least || value > most || text.trim() === "")
    throw new ConfigError(`--${flag} must be a whole number, ${range} (was "${text}")`);
  return value;
}

function share(values: Values): number {
  const value = Number(values.jitter);
  if (!(value >= 0 && value <= 10))
    throw new ConfigError(`--jitter must be a share from 0 to 10, such as 0.1 (was "${values.jitter}")`);
  return value;
}

function one<Choice extends string>(values: Values, flag: Flag, choices: readonly Choice[]): Choice {
  const found = choices.find((choice) => choice === values[flag]);
  if (found === undefined) throw new ConfigError(`--${flag} must be ${choices.join(" or ")} (was "${values[flag]}")`);
  return found;
}

function print(values: Values, found: Prediction, machine: Machine): void {
  const percent = (value: number): string => `${(100 * value).toFixed(0)} %`;
  console.log(
    styleText("bold", `${values.shape}, ${values.batch} × ${values.seq} tokens, ${values.dtype}, on ${found.machine}`),
  );
  const rows = {
    "seconds per step": found.secondsPerStep.toFixed(2),
    "tokens per second": formatCount(found.tokensPerSecond),
    "model TFLOP/s": found.teraflopsPerSecond.toFixed(1),
    ...Object.fromEntries(Object.entries(found.busy).map(([stream, value]) => [`${stream} busy`, percent(value)])),
    "busiest stream": found.binds,
    "device limit": formatBytes(machine.deviceBytes),
  };
  for (const [what, value] of Object.entries(rows)) console.log(`${what.padEnd(18)} ${value}`);
  console.log("");
  console.log(printBill(found.bill, found.parameters));
}

function main(): void {
  const values = parse(process.argv.slice(2));
  if (values.help) return console.log(help);
  const found = predict(values);
  if (values.json) console.log(JSON.stringify(found));
  else print(values, found, machineNamed(values.machine));
}

if (import.meta.main) await run(() => Promise.try(main));
