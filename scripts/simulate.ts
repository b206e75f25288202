// bun run simulate --shape qwen3-8b --batch 16 --seq 1024 [options]
//
// Predicts a training step on a described machine without the model, the data or the machine: fits what is left open to
// its memory (src/predict/fit.ts), records the plans that the engine would play, checks their order (src/plan/check/check.ts), and plays
// them on a virtual clock (src/predict/simulate.ts). Assumptions are at the top of src/predict/machines.ts.

import { availableParallelism, totalmem } from "node:os";
import { parseArgs, styleText } from "node:util";
import { ConfigError, NativeError, assert } from "../src/words/errors.ts";
import { stepFlops } from "../src/predict/flops.ts";
import { formatBytes, formatCount } from "../src/words/format.ts";
import { machineNamed, machines, type Machine } from "../src/predict/machines.ts";
import { run } from "../src/cli/main.ts";
import { memoryBill, printBill } from "../src/tiers/bill.ts";
import { checkBill, devicePieceBytes } from "../src/tiers/limits.ts";
import { checkShape } from "../src/tiers/shape.ts";
import { describeKeep } from "../src/models/decoder.ts";
import { parameterBlocks, parameterCount } from "../src/models/parameters.ts";
import { fullBatch, publishedModel, publishedModels, rehearse, rehearsedSettings } from "../src/predict/rehearsal.ts";
import { checkPlans } from "../src/plan/check/check.ts";
import { Engine } from "../src/native/runtime.ts";
import { measuredMachine } from "../src/predict/probe.ts";
import { Random } from "../src/words/random.ts";
import { simulate } from "../src/predict/simulate.ts";
import { recordStep } from "../src/step/step.ts";
import { trainingShape } from "../src/engine/trainer.ts";
import { deviceMemoryOf, one, shapeHelp, shapeOptions, trainerConfigOf, whole } from "./bench/flags.ts";

const help = `bun run simulate --shape NAME --batch ROWS [options]

Predicts seconds per step, tokens per second, how busy each stream is, and the memory bill.

  --shape NAME              ${Object.keys(publishedModels).join(", ")}
  --batch ROWS              rows of one step                              [16]
  --machine NAME            ${Object.keys(machines).join(", ")}                    [h200]
                            or measured: this machine's GPU, or its CPU (src/predict/probe.ts)
  --dtype NAME              bfloat16 or float32                           [bfloat16]
  --steps N                 steps to play, 3 to 20                        [4]
  --jitter SHARE            commands take up to this share longer         [0]
  --json                    one JSON object instead of tables
  --help
${shapeHelp}`;

const options = {
  shape: { type: "string" },
  batch: { type: "string", default: "16" },
  machine: { type: "string", default: "h200" },
  dtype: { type: "string", default: "bfloat16" },
  steps: { type: "string", default: "4" },
  jitter: { type: "string", default: "0" },
  json: { type: "boolean", default: false },
  help: { type: "boolean", default: false },
  ...shapeOptions,
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
  /** What was given or fitted. */
  window: { residentBlocks: number; keep: string; boundary: string; slots: number; ring: number };
  bytes: Record<string, number>;
  bill: ReturnType<typeof memoryBill>;
}

/** What a command line asks for. ConfigError names the flag. */
export function predict(args: string[], machine = machineNamed(parse(args).machine)): Prediction {
  const values = parse(args);
  if (values.shape === undefined)
    throw new ConfigError(`--shape is missing; known: ${Object.keys(publishedModels).join(", ")}`);
  const model = publishedModel(values.shape);
  const config = trainerConfigOf(values, model, whole(values, "batch", 1));
  const deviceBytes = deviceBytesOf(values, machine);
  const described = {
    config: model,
    blocks: parameterBlocks(model),
    dtype: one(values, "dtype", ["bfloat16", "float32"] as const),
  };
  const shape = trainingShape(described, config, { machine, deviceBytes });
  checkShape(shape);
  const bill = memoryBill(shape);
  checkBill(shape, {
    device: deviceBytes,
    overhead: machine.deviceOverhead,
    capped: deviceMemoryOf(values) !== undefined,
    pieceBytes: devicePieceBytes,
    host: Infinity,
  });
  const random = new Random(0);
  const batch = fullBatch(model, config, () => random.uniform());
  const recorder = rehearse(shape);
  const steps = whole(values, "steps", 3, 20);
  const recorded = Array.from({ length: steps }, (_, step) =>
    recordStep(recorder, batch, rehearsedSettings(shape, step + 1)),
  );
  const [broken] = checkPlans(recorded, { shape, recorder });
  assert(broken === undefined, `the recorded plans break rule ${broken?.rule}: ${broken?.message}`);
  const jitter = { share: share(values), seed: 1 };
  const { secondsPerStep, busy, binds, tiers } = simulate(recorded, { machine, jitter });
  const { residentBlocks, boundary, slots, ring } = shape;
  return {
    machine: machine.name,
    parameters: parameterCount(shape.blocks),
    tokensPerStep: batch.tokens,
    secondsPerStep,
    tokensPerSecond: batch.tokens / secondsPerStep,
    teraflopsPerSecond: stepFlops(shape.model, batch) / secondsPerStep / 1e12,
    busy,
    binds,
    window: { residentBlocks, keep: describeKeep(shape.keep, model.layers), boundary, slots, ring },
    bytes: tiers,
    bill,
  };
}

function deviceBytesOf(values: Values, machine: Machine): number {
  return Math.min(machine.deviceBytes, deviceMemoryOf(values) ?? Infinity) - machine.deviceOverhead;
}

function share(values: Values): number {
  const value = Number(values.jitter);
  if (!(value >= 0 && value <= 10))
    throw new ConfigError(`--jitter must be a share from 0 to 10, such as 0.1 (was "${values.jitter}")`);
  return value;
}

/** The rates of the machine that this runs on, at the shape's widths. */
async function measured(values: Values): Promise<Machine> {
  const dtype = one(values, "dtype", ["bfloat16", "float32"] as const);
  const config = publishedModel(values.shape ?? "qwen3-8b");
  using engine = openEngine();
  return await measuredMachine(engine, { config, dtype, tokens: 16_384 });
}

function openEngine(): Engine {
  const workers = availableParallelism();
  for (const device of ["cuda", "hip"] as const)
    try {
      return new Engine({ device, workers });
    } catch (error) {
      if (!(error instanceof NativeError)) throw error; // no such GPU, or no kernels for it
    }
  return new Engine({ device: "cpu", workers, deviceBytesMax: totalmem() });
}

function print(values: Values, found: Prediction, machine: Machine): void {
  const percent = (value: number): string => `${(100 * value).toFixed(0)} %`;
  console.log(
    styleText("bold", `${values.shape}, ${values.batch} × ${values.seq} tokens, ${values.dtype}, on ${found.machine}`),
  );
  const { residentBlocks, keep, boundary, slots, ring } = found.window;
  const rows = {
    "seconds per step": found.secondsPerStep.toFixed(2),
    "tokens per second": formatCount(found.tokensPerSecond),
    "model TFLOP/s": found.teraflopsPerSecond.toFixed(1),
    ...Object.fromEntries(Object.entries(found.busy).map(([stream, value]) => [`${stream} busy`, percent(value)])),
    "busiest stream": found.binds,
    "resident blocks": residentBlocks,
    "blocks keep": keep,
    boundaries: boundary,
    "slots, ring": `${slots}, ${ring}`,
    "device limit": formatBytes(deviceBytesOf(values, machine)),
  };
  for (const [what, value] of Object.entries(rows)) console.log(`${what.padEnd(18)} ${value}`);
  console.log("");
  console.log(printBill(found.bill, found.parameters));
}

async function main(): Promise<void> {
  const args = process.argv.slice(2);
  const values = parse(args);
  if (values.help) return console.log(help);
  const machine = values.machine === "measured" ? await measured(values) : machineNamed(values.machine);
  const found = predict(args, machine);
  if (values.json) console.log(JSON.stringify(found));
  else print(values, found, machine);
}

if (import.meta.main) await run(main);
