// bun run bench [--ops] [--only gemm,adamw,...]    rates of single ops, and the floors they have to meet
// bun run bench --step [--shape tiny|small]        seconds per training step and how busy each stream is
//   --dtype float32|bfloat16   of --step; default float32, the CPU device's own
//   --workers n                default: as many as there are cores
//   --json FILE                writes everything that was measured, and under which conditions
//
// Everything runs through plans on an engine, so what is measured is what is used. Nothing here passes or fails: figures of
// a machine that others use mean little, and the last line says how much they did.

import { availableParallelism } from "node:os";
import { parseArgs, styleText } from "node:util";
import { ConfigError, SluiceError } from "../src/errors.ts";
import { formatCount, formatDuration } from "../src/format.ts";
import { Engine } from "../src/native/runtime.ts";
import { conditions, cpuHasBfloat16, watchOthers } from "./bench/machine.ts";
import { groups, measureOps, type Group } from "./bench/ops.ts";
import { Bench, type Rate } from "./bench/rates.ts";
import { measureStep, type StepRate } from "./bench/step.ts";

const device = "cpu";

const options = {
  ops: { type: "boolean" },
  only: { type: "string" },
  step: { type: "boolean" },
  shape: { type: "string" },
  dtype: { type: "string" },
  workers: { type: "string" },
  json: { type: "string" },
} as const;

async function bench(): Promise<void> {
  const { values } = parseArgs({ options });
  const workers = values.workers === undefined ? availableParallelism() : Number(values.workers);
  if (!Number.isInteger(workers) || workers < 1)
    throw new ConfigError(`--workers must be a whole number >= 1 (was ${values.workers})`);
  const where = conditions({ workers, device });
  const { date, commit, cpu, cores } = where;
  console.log(`${date.slice(0, 16)} ${commit} · ${cpu}, ${cores} cores · ${workers} workers on ${device}`);

  const others = watchOthers();
  const rates = values.ops || !values.step ? await benchOps(workers, wantedGroups(values.only)) : [];
  const steps = values.step ? [await benchStep(workers, values.shape ?? "tiny", values.dtype ?? "float32")] : [];
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

async function benchOps(workers: number, wanted: readonly Group[]): Promise<Rate[]> {
  using engine = new Engine({ device, workers });
  using bench = new Bench(engine);
  const rates: Rate[] = [];
  for await (const rate of measureOps(bench, wanted)) {
    rates.push(rate);
    const { group, name, best, median, unit, spread } = rate;
    const numbers = `${digits(best)} best ${digits(median)} median ${unit.padEnd(10)} spread ${percent(spread)}`;
    console.log(`${group.padEnd(10)}${name.padEnd(44)}${numbers}`);
  }
  printFloors(rates);
  return rates;
}

/** The short table: what has to meet a floor, and whether it does here. */
function printFloors(rates: readonly Rate[]): void {
  const held = rates.filter(({ floor }) => floor !== undefined);
  if (held.length === 0) return;
  console.log("\nfloors of issue 2, best of the runs");
  for (const { name, best, unit, floor } of held) {
    const met = best >= floor! ? styleText("green", "ok   ") : styleText("red", "below");
    console.log(`${met} ${name.padEnd(44)}${digits(best)} of ${digits(floor!)} ${unit}`);
  }
  if (held.some(({ group }) => group === "gemm") && !cpuHasBfloat16())
    console.log(
      "This CPU has no bfloat16 instructions: bfloat16 products are held to the float32 floor, not to 198 GFLOP/s on two cores.",
    );
}

async function benchStep(workers: number, shape: string, dtype: string): Promise<StepRate> {
  if (dtype !== "float32" && dtype !== "bfloat16")
    throw new ConfigError(`--dtype must be float32 or bfloat16 (was "${dtype}")`);
  const rate = await measureStep({ shape, device, dtype, workers });
  const busy = Object.entries(rate.busy).filter(([, share]) => share > 0);
  console.log(
    `${shape}, ${dtype}: ${formatCount(rate.parameters)} parameters, ${formatCount(rate.tokens)} tokens a step, ${rate.steps} steps`,
  );
  console.log(
    `  ${formatDuration(rate.best)} best, ${formatDuration(rate.median)} median, spread ${percent(rate.spread).trim()}`,
  );
  console.log(`  ${formatCount(rate.tokensPerSecond)} tokens/s, ${rate.gflops.toFixed(1)} GFLOP/s`);
  console.log(`  busy: ${busy.map(([stream, share]) => `${stream} ${percent(share).trim()}`).join(", ")}`);
  return rate;
}

function printOthers(share: number): void {
  const text = `other processes took ${percent(share).trim()} of the cores' time while this ran`;
  console.log(share > 0.05 ? styleText("yellow", `${text}: the figures are too low`) : text);
}

const digits = (value: number): string => (value < 10 ? value.toFixed(2) : value.toFixed(1)).padStart(7);
const percent = (share: number): string => `${(100 * share).toFixed(0)} %`.padStart(5);

if (import.meta.main)
  try {
    await bench();
  } catch (error) {
    if (!(error instanceof SluiceError || (error as { code?: string }).code?.startsWith("ERR_PARSE_ARGS"))) throw error;
    console.error((error as Error).message);
    process.exitCode = 1;
  }
