// What a run would need and how long its steps would take, before there is a run: the memory bill of a config, compared
// with a machine, and a few steps recorded without buffers (rehearsal.ts) and played on a virtual clock (simulate.ts).
//
// The machine is this one, or one described in machines.ts. Rows are taken to be full, one document each, every token
// counting: real data is a little kinder. Next: `cli/plan.ts` prints this.

import { availableParallelism, totalmem } from "node:os";
import type { Config } from "../run/config.ts";
import { stepFlops } from "./flops.ts";
import { machines, type Machine } from "./machines.ts";
import { bytesIn, memoryBill, type BillLine } from "../tiers/bill.ts";
import { checkShape } from "../tiers/shape.ts";
import type { DecoderConfig } from "../models/config.ts";
import { parameterBlocks, parameterCount } from "../models/parameters.ts";
import { Random } from "../words/random.ts";
import { fullBatch, rehearse, rehearsedSettings } from "./rehearsal.ts";
import { simulate } from "./simulate.ts";
import { recordStep } from "../step/step.ts";
import { trainingShape } from "../engine/trainer.ts";

/** A machine, and how much memory its host has. */
export interface Target {
  machine: Machine;
  hostBytes: number;
}

export interface Fit {
  needed: number;
  limit: number;
  fits: boolean;
}

export interface Forecast {
  machine: string;
  parameters: number;
  tokensPerStep: number;
  secondsPerStep: number;
  tokensPerSecond: number;
  /** Of the model's own FLOPs, recompute not counted. */
  teraflopsPerSecond: number;
  /** Share of a step in which each stream has work. */
  busy: Record<string, number>;
  /** The busiest stream: what a faster step would need more of. */
  binds: string;
  device: Fit;
  /** Pinned and plain memory together. */
  host: Fit;
  bill: BillLine[];
}

/** This machine: the cpu device on its cores, or some of them, at the rates of the two cores that were measured. */
export function thisMachine(workers = Infinity): Target {
  const cores = Math.min(workers, availableParallelism());
  const measured = machines["cpu-2core"]!;
  const scale = cores / measured.cores!;
  const faster = (rates: [number, number][]) => rates.map(([at, rate]): [number, number] => [at, rate * scale]);
  const machine: Machine = {
    ...measured,
    name: `this machine: the cpu device on ${cores} ${cores === 1 ? "core" : "cores"}`,
    gemm: { float32: measured.gemm.float32 * scale, bfloat16: measured.gemm.bfloat16 * scale },
    attentionForward: faster(measured.attentionForward),
    attentionBackward: faster(measured.attentionBackward),
    deviceBytes: totalmem(),
    cores,
  };
  return { machine, hostBytes: totalmem() };
}

/** The bill and the predicted step of a config on a machine. ConfigError when config and model contradict each other. */
export function forecast(model: DecoderConfig, config: Config, { machine, hostBytes }: Target): Forecast {
  const blocks = parameterBlocks(model);
  const limit = Math.min(machine.deviceBytes, config.deviceMemory ?? Infinity) - machine.deviceOverhead;
  const room = machine.cores === undefined ? { machine, deviceBytes: limit } : undefined;
  const shape = trainingShape({ config: model, blocks, dtype: config.dtype }, config, room);
  checkShape(shape);
  const bill = memoryBill(shape);
  const random = new Random(0);
  const batch = fullBatch(model, config, () => random.uniform());
  const recorder = rehearse(shape);
  const steps = [1, 2, 3, 4].map((step) => recordStep(recorder, batch, rehearsedSettings(shape, step)));
  const { secondsPerStep, busy, binds } = simulate(steps, { machine });
  const device = bytesIn(bill, "device");
  const host = bytesIn(bill, "pinned") + bytesIn(bill, "host");
  // On the cpu device both are the same memory.
  const shared = machine.cores === undefined ? 0 : device;
  return {
    machine: machine.name,
    parameters: parameterCount(blocks),
    tokensPerStep: batch.tokens,
    secondsPerStep,
    tokensPerSecond: batch.tokens / secondsPerStep,
    teraflopsPerSecond: stepFlops(model, batch) / secondsPerStep / 1e12,
    busy,
    binds,
    device: fit(device, limit),
    host: fit(host + shared, hostBytes),
    bill,
  };
}

const fit = (needed: number, limit: number): Fit => ({ needed, limit, fits: needed <= limit });
