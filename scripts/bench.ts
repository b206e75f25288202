// bun run bench --shape NAME --batch 4,8 [options]   seconds per training step, and what bounds them
// bun run bench [--ops] [--only gemm,adamw,...]      rates of single ops, and the floors they have to meet
//
// Everything runs through plans on an engine, so what is measured is what is used. Nothing here passes or fails: figures of
// a machine that others use mean little, and the last line says how much they did. `--help` lists the options.

import { availableParallelism } from "node:os";
import { parseArgs, styleText } from "node:util";
import { defaultDtype, dtypeProblem } from "../src/run/config.ts";
import { ConfigError, SluiceError } from "../src/words/errors.ts";
import { formatBytes, formatCount, formatDuration } from "../src/words/format.ts";
import { run } from "../src/cli/main.ts";
import { deviceKinds, type DeviceKind } from "../src/native/abi.gen.ts";
import { Engine } from "../src/native/runtime.ts";
import { deviceMemoryOf, one, shapeHelp, shapeOptions, trainerConfigOf, whole } from "./bench/flags.ts";
import { conditions, cpuHasBfloat16, watchOthers } from "./bench/machine.ts";
import { groups, measureOps, type Group } from "./bench/ops.ts";
import { Bench, type Rate } from "./bench/rates.ts";
import { measureStep, randomModel, shapeNamed, shapeNames, type StepRate } from "./bench/step.ts";

const help = `bun run bench --shape NAME --batch ROWS[,ROWS...] [options]
bun run bench [--ops] [--only GROUP,...] [options]

  --device NAME             ${Object.keys(deviceKinds).slice(1).join(", ")}                                [cpu]
  --dtype NAME              float32 or bfloat16                           [bfloat16 on GPUs, float32 on the CPU]
  --workers N               host threads                                  [as many as there are cores]
  --json FILE               writes everything that was measured, and under which conditions

Steps of a model with random weights, one after the other for each batch size:
  --shape NAME              ${shapeNames.join(", ")}
  --batch ROWS,...          rows of one step                              [4]
  --steps N                 steps to measure                              [4]
  --warmup N                steps before them; long steps need one        [2]
  --resident-only           forward and backward alone, everything on the device
  --trace FILE              commands of three steps, for Perfetto or chrome://tracing (several batch sizes: FILE.ROWS)
${shapeHelp}

Single ops:
  --ops                     all of them
  --only GROUP,...          ${groups.join(", ")}`;

const options = {
  ops: { type: "boolean", default: false },
  only: { type: "string" },
  shape: { type: "string" },
  batch: { type: "string", default: "4" },
  steps: { type: "string", default: "4" },
  warmup: { type: "string", default: "2" },
  "resident-only": { type: "boolean", default: false },
  trace: { type: "string" },
  device: { type: "string", default: "cpu" },
  dtype: { type: "string" },
  workers: { type: "string" },
  json: { type: "string" },
  help: { type: "boolean", default: false },
  ...shapeOptions,
} as const;

const parse = () => parseArgs({ options }).values;
type Values = ReturnType<typeof parse>;

async function bench(): Promise<void> {
  const values = parse();
  if (values.help) return console.log(help);
  const device = one(values, "device", ["cpu", "cuda", "hip"] as const);
  const workers = values.workers === undefined ? availableParallelism() : whole(values, "workers", 1);
  const wanted = wantedGroups(values.only);
  const batches = values.shape === undefined ? [] : batchesOf(values);
  const deviceBytesMax = deviceMemoryOf(values);
  using engine = new Engine({ device, workers, ...(deviceBytesMax === undefined ? {} : { deviceBytesMax }) });
  const where = conditions({ workers, device, ...(device === "cpu" ? {} : { gpu: engine.deviceInfo() }) });
  const { date, commit, cpu, cores, gpu } = where;
  console.log(
    `${date.slice(0, 16)} ${commit} · ${cpu}, ${cores} cores · ${workers} workers on ${gpu ? gpu.name : device}`,
  );

  const others = watchOthers();
  const rates = values.ops || batches.length === 0 ? await benchOps(engine, wanted) : [];
  const steps = batches.length > 0 ? await benchSteps(engine, values, batches) : [];
  const othersShare = others();
  if (othersShare !== undefined) printOthers(othersShare);
  if (values.json !== undefined)
    await Bun.write(values.json, JSON.stringify({ ...where, othersShare, rates, steps }, null, 2) + "\n");
}

function wantedGroups(only: string | undefined): readonly Group[] {
  if (only === undefined) return groups;
  return only.split(",").map((name) => {
    const group = groups.find((known) => known === name);
    if (!group) throw new ConfigError(`--only takes ${groups.join(", ")}, separated by commas (was "${name}")`);
    return group;
  });
}

async function benchOps(engine: Engine, wanted: readonly Group[]): Promise<Rate[]> {
  using bench = new Bench(engine);
  const rates: Rate[] = [];
  for await (const rate of measureOps(bench, wanted)) {
    rates.push(rate);
    const { group, name, best, median, unit, spread } = rate;
    const numbers = `${digits(best)} best ${digits(median)} median ${unit.padEnd(10)} spread ${percent(spread)}`;
    console.log(`${group.padEnd(10)}${name.padEnd(44)}${numbers}`);
  }
  printFloors(engine.device, rates);
  return rates;
}

/** The short table: what has to meet a floor, and whether it does here. */
function printFloors(device: DeviceKind, rates: readonly Rate[]): void {
  const held = rates.filter(({ floor }) => floor !== undefined);
  if (held.length === 0) return;
  console.log(`\nfloors of issue ${device === "cpu" ? 2 : 3}, best of the runs`);
  for (const { name, best, unit, floor } of held) {
    const met = best >= floor! ? styleText("green", "ok   ") : styleText("red", "below");
    console.log(`${met} ${name.padEnd(44)}${digits(best)} of ${digits(floor!)} ${unit}`);
  }
  if (device === "cpu" && held.some(({ group }) => group === "gemm") && !cpuHasBfloat16())
    console.log(
      "This CPU has no bfloat16 instructions: bfloat16 products are held to the float32 floor, not to 198 GFLOP/s on two cores.",
    );
}

// ---- steps ----------------------------------------------------------------------------------------------------------

function batchesOf(values: Values): number[] {
  return values.batch.split(",").map((batch) => whole({ batch }, "batch", 1));
}

async function benchSteps(engine: Engine, values: Values, batches: readonly number[]): Promise<StepRate[]> {
  const shape = values.shape!;
  const { device } = engine;
  const config = shapeNamed(shape);
  const dtype =
    values.dtype === undefined ? defaultDtype(device) : one(values, "dtype", ["float32", "bfloat16"] as const);
  const problem = dtypeProblem(device, dtype);
  if (problem) throw new ConfigError(problem);
  const settings = {
    shape,
    steps: whole(values, "steps", 1),
    warmUp: whole(values, "warmup", 0),
    residentOnly: values["resident-only"],
  };
  const configs = batches.map((rows) => trainerConfigOf(values, config, rows));
  const model = await randomModel(engine, shape, dtype);
  const rates: StepRate[] = [];
  for (const [index, rows] of batches.entries()) {
    try {
      const trace = values.trace !== undefined;
      const { events, ...rate } = await measureStep(model, configs[index]!, { ...settings, trace });
      rates.push(rate);
      printStep(rate);
      const file = batches.length > 1 ? `${values.trace}.${rows}` : values.trace!;
      if (trace) await Bun.write(file, JSON.stringify({ traceEvents: events }));
    } catch (error) {
      if (!(error instanceof SluiceError) || batches.length === 1) throw error;
      console.error(`${shape}, ${rows} rows: ${error.message}`); // the other batch sizes may fit
      process.exitCode = 1;
    }
  }
  return rates;
}

function printStep(rate: StepRate): void {
  const { shape, rows, sequenceLength, dtype, residentOnly, clips, median, best, spread, predicted } = rate;
  const what = residentOnly ? "forward and backward alone" : clips ? `clipped (${clips})` : "not clipped";
  const busy = Object.entries(rate.busy).filter(([, share]) => share >= 0.005);
  const driver = rate.driverBytes === undefined ? "" : `, ${formatBytes(rate.driverBytes)} by the driver's count`;
  const lines = {
    step: `${seconds(median)} median, ${seconds(best)} best, spread ${percent(spread).trim()}; predicted ${seconds(predicted)}`,
    rate: `${formatCount(rate.tokensPerSecond)} tokens/s, ${rate.tflops.toPrecision(3)} TFLOP/s, ${percent(rate.gemmShare).trim()} of the matrix products' rate`,
    memory: `device ${formatBytes(rate.deviceBytes)}${driver}; host ${formatBytes(rate.rssBytes)}, ${(rate.rssBytes / rate.parameters).toFixed(2)} B a parameter`,
    busy: busy.map(([stream, share]) => `${stream} ${percent(share).trim()}`).join(", "),
    window: `${rate.residentBlocks} resident; ${rate.keep}; boundaries ${rate.boundary}; slots ${rate.slots}, ring ${rate.ring}; ${rate.microBatches} micro-batches, logits ${rate.logitsChunk}`,
    setup: `${formatDuration(rate.setupSeconds)}, loss ${rate.loss.toFixed(3)}`,
  };
  console.log(styleText("bold", `${shape}, ${rows} × ${sequenceLength} tokens, ${dtype}, ${what}`));
  for (const [name, text] of Object.entries(lines)) console.log(`  ${name.padEnd(8)}${text}`);
}

function printOthers(share: number): void {
  const text = `other processes took ${percent(share).trim()} of the cores' time while this ran`;
  console.log(share > 0.05 ? styleText("yellow", `${text}: the figures are too low`) : text);
}

const seconds = (value: number): string => (value < 0.1 ? `${(value * 1000).toFixed(1)} ms` : `${value.toFixed(3)} s`);
const digits = (value: number): string => (value < 10 ? value.toFixed(2) : value.toFixed(1)).padStart(7);
const percent = (share: number): string => `${(100 * share).toFixed(0)} %`.padStart(5);

if (import.meta.main) await run(bench);
