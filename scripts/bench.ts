// bun run bench --shape NAME --batchSize 4,8 [options]   seconds per training step, and what bounds them
// bun run bench [--ops] [--only gemm,adamw,...]          rates of single ops, and the floors they have to meet
//
// Everything runs through plans on an engine, so what is measured is what is used. Nothing here passes or fails: figures of
// a machine that others use mean little, and the last line says how much they did. `--help` lists the options.

import { styleText } from "node:util";
import { takeOwn, whole } from "../src/cli/command.ts";
import { run } from "../src/cli/main.ts";
import { trainConfig } from "../src/cli/train.ts";
import { deviceKinds, type DeviceKind } from "../src/native/abi.gen.ts";
import { Engine } from "../src/native/runtime.ts";
import { parseConfig, type Config } from "../src/run/config.ts";
import { ConfigError, SluiceError } from "../src/words/errors.ts";
import { formatBytes, formatCount, formatDuration } from "../src/words/format.ts";
import { conditions, cpuHasBfloat16, watchOthers } from "./bench/machine.ts";
import { groups, measureOps, type Group } from "./bench/ops.ts";
import { Bench, type Rate } from "./bench/rates.ts";
import { measureStep, randomModel, shapeNamed, shapeNames, type StepRate } from "./bench/step.ts";

const help = `bun run bench --shape NAME --batchSize ROWS[,ROWS...] [options] [--KEY VALUE ...]
bun run bench [--ops] [--only GROUP,...] [options]

Takes the config's own keys, such as these:
  --device NAME             ${Object.keys(deviceKinds).slice(1).join(", ")}                                [cpu]
  --dtype NAME              float32 or bfloat16                           [bfloat16 on GPUs, float32 on the CPU]
  --workers N               host threads                                  [as many as there are cores]
  --deviceMemory SIZE       the most that the process may take of it      [all]
  --sequenceLength TOKENS   tokens of a row, one document each            [1024]
  --maxGradNorm VALUE       clip by the exact global norm                 [null: never]
  --window.residentBlocks N|all, --window.keepBlocks, --window.keep, --window.slots, --window.boundary,
  --window.ring             what lives where; what is not given is fitted to a GPU, as in training

Steps of a model with random weights, one after the other for each batch size:
  --shape NAME              ${shapeNames.join(", ")}
  --batchSize ROWS,...      rows of one step                              [4]
  --steps N                 steps to measure                              [4]
  --warmup N                steps before them; long steps need one        [2]
  --residentOnly            forward and backward alone, everything on the device
  --trace FILE              commands of three steps, for Perfetto or chrome://tracing (several batch sizes: FILE.ROWS)

Single ops:
  --ops                     all of them
  --only GROUP,...          ${groups.join(", ")}

  --json FILE               writes everything that was measured, and under which conditions`;

const options = {
  ops: { type: "boolean" },
  only: { type: "string" },
  shape: { type: "string" },
  batchSize: { type: "string" },
  steps: { type: "string" },
  warmup: { type: "string" },
  residentOnly: { type: "boolean" },
  trace: { type: "string" },
  json: { type: "string" },
  help: { type: "boolean" },
} as const;

type Own = ReturnType<typeof takeOwn<typeof options>>["own"];

async function bench(): Promise<void> {
  const { own, rest } = takeOwn(process.argv.slice(2), options);
  if (own.help) return console.log(help);
  const wanted = wantedGroups(own.only);
  if (own.shape !== undefined) shapeNamed(own.shape);
  const configs = await Promise.all(batchSizes(own).map((rows) => configOf(rest, rows)));
  const { device, workers, deviceMemory } = configs[0]!;
  using engine = new Engine({
    device,
    workers,
    ...(deviceMemory === undefined ? {} : { deviceBytesMax: deviceMemory }),
  });
  const where = conditions({ workers, device, ...(device === "cpu" ? {} : { gpu: engine.deviceInfo() }) });
  const { date, commit, cpu, cores, gpu } = where;
  console.log(
    `${date.slice(0, 16)} ${commit} · ${cpu}, ${cores} cores · ${workers} workers on ${gpu ? gpu.name : device}`,
  );

  const others = watchOthers();
  const rates = own.ops || own.shape === undefined ? await benchOps(engine, wanted) : [];
  const steps = own.shape === undefined ? [] : await benchSteps(engine, own, own.shape, configs);
  const othersShare = others();
  if (othersShare !== undefined) printOthers(othersShare);
  if (own.json !== undefined)
    await Bun.write(own.json, JSON.stringify({ ...where, othersShare, rates, steps }, null, 2) + "\n");
}

const batchSizes = ({ batchSize = "4" }: Own): number[] =>
  batchSize.split(",").map((rows) => whole("--batchSize", rows, 1));

/** The config of a step of so many full rows: the run's own, but for clipping, which costs time of its own. */
const configOf = async (rest: readonly string[], batchSize: number): Promise<Config> =>
  parseConfig(await trainConfig(rest, { model: "-", data: "-", output: "-", batchSize, maxGradNorm: null }));

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

async function benchSteps(engine: Engine, own: Own, shape: string, configs: readonly Config[]): Promise<StepRate[]> {
  const settings = {
    shape,
    steps: whole("--steps", own.steps ?? "4", 1),
    warmUp: whole("--warmup", own.warmup ?? "2", 0),
    residentOnly: own.residentOnly === true,
  };
  const model = await randomModel(engine, shape, configs[0]!.dtype);
  const rates: StepRate[] = [];
  for (const config of configs) {
    const { batchSize: rows } = config;
    try {
      const trace = own.trace !== undefined;
      const { events, ...rate } = await measureStep(model, config, { ...settings, trace });
      rates.push(rate);
      printStep(rate);
      const file = configs.length > 1 ? `${own.trace}.${rows}` : own.trace!;
      if (trace) await Bun.write(file, JSON.stringify({ traceEvents: events }));
    } catch (error) {
      if (!(error instanceof SluiceError) || configs.length === 1) throw error;
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
