// `sluice plan`: what a run would need and how long its steps would take, here or on a described machine.

import { availableParallelism, totalmem } from "node:os";
import { join } from "node:path";
import { parseConfig, type Config } from "../run/config.ts";
import { ConfigError, NativeError } from "../words/errors.ts";
import { isGpu } from "../native/devices.ts";
import type { Engine } from "../native/runtime.ts";
import type { Fits, Forecast } from "../predict/forecast.ts";
import type { Machine } from "../predict/machines.ts";
import { formatBytes, formatCount, formatDuration } from "../words/format.ts";
import type { DecoderConfig } from "../models/config.ts";
import { number, size, takeOwn, whole, type Command } from "./command.ts";
import { trainConfig } from "./train.ts";

const help = `sluice plan [--config FILE] [--KEY VALUE ...] [--machine NAME] [--ram SIZE] [--json]

The memory bill of a run, its predicted step time, and what binds. Takes what sluice train takes;
--data and --output may be left out, and --model may be a published shape (qwen3-0.6b, qwen3-1.7b,
qwen3-4b, qwen3-8b, llama3-8b) of which nothing is downloaded. Steps are recorded and played on a
virtual clock; src/predict/machines.ts says with which rates.

  --machine NAME       a described machine (h200, rtx4090, cpu-2core) instead of this one,
                       computing in bfloat16 unless told; or "measured": the rates of this machine's
                       GPU, or of its CPU where there is none. --gpu is the same flag
  --ram SIZE           memory of that machine's host, such as 128GiB
  --play N             steps to play, 3 to 20 (4)
  --jitter SHARE       commands take up to this share longer (0)
  --check              hold the recorded plans to the rules of order, too
  --json               one JSON object

The exit code is 1 when it does not fit.`;

const options = {
  machine: { type: "string" },
  gpu: { type: "string" },
  ram: { type: "string" },
  play: { type: "string" },
  jitter: { type: "string" },
  check: { type: "boolean" },
  json: { type: "boolean" },
} as const;

async function run(args: string[]): Promise<void> {
  const { own, rest } = takeOwn(args, options);
  const { forecast, thisMachine } = await import("../predict/forecast.ts");
  const name = own.machine ?? own.gpu;
  const ram = size("--ram", own.ram);
  const { hasGpu, machineNamed } = await import("../predict/machines.ts");
  const described = name !== undefined && name !== "measured" ? machineNamed(name) : undefined;
  using engine = name === "measured" ? await openedEngine() : undefined;
  const device = engine && isGpu(engine.device) ? engine.device : described && hasGpu(described) ? "cuda" : "cpu";
  const dtype = name === undefined ? ("float32" as const) : ("bfloat16" as const);
  const config = await parseConfig(await trainConfig(rest, { data: "-", output: "-", device, dtype }));
  const model = await decoderOf(config.model);
  const machine = described ?? (engine ? await measured(engine, model, config) : thisMachine());
  const hostBytes = ram ?? (described ? Infinity : totalmem());
  const steps = own.play === undefined ? 4 : whole("--play", own.play, 3, 20);
  const jitter = { share: number("--jitter", own.jitter) ?? 0, seed: 1 };
  if (!(jitter.share >= 0 && jitter.share <= 10))
    throw new ConfigError(`--jitter must be a share from 0 to 10, such as 0.1 (was "${own.jitter}")`);
  const { describeDisk, diskOf } = await import("../run/disk.ts");
  const found = forecast(model, config, { machine, hostBytes }, { steps, jitter, check: own.check === true });
  const disk = diskOf(config, { parameters: found.parameters, exportDtype: "bfloat16" }, config.steps);
  if (own.json) console.log(JSON.stringify({ ...found, disk }));
  else await print(config.model, config.dtype, found, describeDisk(disk));
  if (found.problem !== undefined) process.exitCode = 1;
}

/** The first GPU that works, or the cpu device. */
async function openedEngine(): Promise<Engine> {
  const { Engine } = await import("../native/runtime.ts");
  const workers = availableParallelism();
  for (const device of ["cuda", "hip"] as const)
    try {
      return new Engine({ device, workers });
    } catch (error) {
      if (!(error instanceof NativeError)) throw error; // no such GPU, or no kernels for it
    }
  return new Engine({ device: "cpu", workers, deviceBytesMax: totalmem() });
}

async function measured(engine: Engine, config: DecoderConfig, { dtype, microBatchTokens }: Config): Promise<Machine> {
  const { measuredMachine } = await import("../predict/probe.ts");
  return await measuredMachine(engine, { config, dtype, tokens: microBatchTokens });
}

/** The model's sizes: a directory's config.json, a published shape, or the config of a hub model that is in the cache. */
async function decoderOf(model: string): Promise<DecoderConfig> {
  const { publishedModel, publishedModels } = await import("../predict/rehearsal.ts");
  if (Object.hasOwn(publishedModels, model)) return publishedModel(model);
  const [{ resolveModel }, { readDecoderConfig }] = await Promise.all([
    import("../models/hub.ts"),
    import("../models/config.ts"),
  ]);
  return readDecoderConfig(join(await resolveModel(model), "config.json"));
}

async function print(model: string, dtype: string, found: Forecast, disk: string): Promise<void> {
  const { printBill } = await import("../tiers/bill.ts");
  const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;
  const { residentBlocks, keep, boundary, slots, ring } = found.window;
  const busy = Object.entries(found.busy).filter(([, share]) => share >= 0.005);
  const rows: [string, string][] = [
    ["step", `${formatDuration(found.secondsPerStep)} for ${formatCount(found.tokensPerStep)} tokens`],
    ["rate", `${formatCount(found.tokensPerSecond)} tokens/s, ${found.teraflopsPerSecond.toPrecision(3)} TFLOP/s`],
    ["binds", found.binds],
    ["window", `${residentBlocks} resident; ${keep}; boundaries ${boundary}; slots ${slots}, ring ${ring}`],
    ["busy", busy.map(([stream, share]) => `${stream} ${percent(share)}`).join(", ")],
    ["device", describeFit(found.device)],
    ["host", describeFit(found.host)],
    ["disk", disk],
  ];
  console.log(`${model}: ${formatCount(found.parameters)} parameters in ${dtype}, on ${found.machine}`);
  for (const [what, value] of rows) console.log(`  ${what.padEnd(8)} ${value}`);
  if (found.problem !== undefined) console.log(`does not fit: ${found.problem}`);
  console.log(printBill(found.bill, found.parameters));
}

const describeFit = ({ needed, limit }: Fits): string =>
  `${formatBytes(needed)}${limit === Infinity ? "" : ` of ${formatBytes(limit)}`}`;

export const command: Command = { help, run };
