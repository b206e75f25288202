// `sluice plan`: what a run would need and how long its steps would take, here or on a described machine.

import { join } from "node:path";
import { parseConfig } from "../run/config.ts";
import { ConfigError } from "../words/errors.ts";
import type { Fit, Forecast, Target } from "../predict/forecast.ts";
import { formatBytes, formatCount, formatDuration } from "../words/format.ts";
import type { DecoderConfig } from "../models/config.ts";
import { size, type Command } from "./command.ts";
import { trainConfig } from "./train.ts";

const help = `sluice plan [--config FILE] [--KEY VALUE ...] [--gpu NAME] [--ram SIZE] [--json]

The memory bill of a run, its predicted step time, and what binds. Takes what sluice train takes;
--data and --output may be left out, and --model may be a published shape (qwen3-0.6b, qwen3-1.7b,
qwen3-4b, qwen3-8b, llama3-8b) of which nothing is downloaded. Steps are recorded and played on a
virtual clock; src/predict/machines.ts says with which rates.

  --gpu NAME           a described machine (h200, rtx4090, cpu-2core) instead of this one; computes
                       in bfloat16 unless told
  --ram SIZE           memory of that machine's host, such as 128GiB
  --json               one JSON object

The exit code is 1 when it does not fit.`;

async function run(args: string[]): Promise<void> {
  const { own, rest } = takeOwn(args);
  const { forecast } = await import("../predict/forecast.ts");
  const ram = await size("--ram", own.ram);
  const target = await targetOf(own.gpu, ram);
  const dtype = own.gpu === undefined ? ("float32" as const) : ("bfloat16" as const);
  const config = await parseConfig(await trainConfig(rest, { data: "-", output: "-", dtype }));
  const found = forecast(await decoderOf(config.model), config, target);
  if (own.json) console.log(JSON.stringify(found));
  else await print(config.model, config.dtype, found);
  if (!found.device.fits || !found.host.fits) process.exitCode = 1;
}

/** `--gpu`, `--ram` and `--json`; everything else is the config's. */
function takeOwn(args: string[]) {
  const own: { gpu?: string; ram?: string; json?: boolean } = {};
  const rest: string[] = [];
  for (let at = 0; at < args.length; at++) {
    const [, name, inline] = /^--(gpu|ram|json)(?:=(.*))?$/.exec(args[at]!) ?? [];
    if (name === "json") own.json = true;
    else if (name === "gpu" || name === "ram") {
      const value = inline ?? args[++at];
      if (value === undefined) throw new ConfigError(`--${name} needs a value`);
      own[name] = value;
    } else rest.push(args[at]!);
  }
  return { own, rest };
}

async function targetOf(gpu: string | undefined, ram: number | undefined): Promise<Target> {
  const [{ thisMachine }, { machineNamed }] = await Promise.all([
    import("../predict/forecast.ts"),
    import("../predict/machines.ts"),
  ]);
  const here = thisMachine();
  if (gpu === undefined) return { ...here, hostBytes: ram ?? here.hostBytes };
  return { machine: machineNamed(gpu), hostBytes: ram ?? Infinity };
}

/** The model's sizes: a directory's config.json, a published shape, or the config of a hub model that is in the cache. */
async function decoderOf(model: string): Promise<DecoderConfig> {
  const { publishedModel, publishedModels } = await import("../predict/rehearsal.ts");
  if (Object.hasOwn(publishedModels, model)) return publishedModel(model);
  const [{ resolveModel }, { readDecoderConfig }] = await Promise.all([
    import("../io/hub.ts"),
    import("../models/config.ts"),
  ]);
  return readDecoderConfig(join(await resolveModel(model), "config.json"));
}

async function print(model: string, dtype: string, found: Forecast): Promise<void> {
  const { printBill } = await import("../tiers/bill.ts");
  const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;
  const busy = Object.entries(found.busy).filter(([, share]) => share >= 0.005);
  const rows: [string, string][] = [
    ["step", `${formatDuration(found.secondsPerStep)} for ${formatCount(found.tokensPerStep)} tokens`],
    ["rate", `${formatCount(found.tokensPerSecond)} tokens/s, ${found.teraflopsPerSecond.toPrecision(3)} TFLOP/s`],
    ["binds", found.binds],
    ["busy", busy.map(([stream, share]) => `${stream} ${percent(share)}`).join(", ")],
    ["device", describeFit(found.device, "reduce microBatchTokens, window.slots, keepBlocks or residentBlocks")],
    ["host", describeFit(found.host, "take a smaller model, or maxGradNorm: null with a short window.ring")],
  ];
  console.log(`${model}: ${formatCount(found.parameters)} parameters in ${dtype}, on ${found.machine}`);
  for (const [what, value] of rows) console.log(`  ${what.padEnd(8)} ${value}`);
  console.log(printBill(found.bill, found.parameters));
}

function describeFit({ needed, limit, fits }: Fit, remedy: string): string {
  const of = limit === Infinity ? "" : ` of ${formatBytes(limit)}`;
  return `${formatBytes(needed)}${of}${fits ? "" : `: does not fit; ${remedy}`}`;
}

export const command: Command = { help, run };
