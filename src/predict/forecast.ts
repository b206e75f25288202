// What a run would need and how long its steps would take, before there is a run: the memory bill of a config, compared
// with a machine, and a few steps recorded without buffers (rehearsal.ts) and played on a virtual clock (simulate.ts).
//
// The machine is this one, or one described in machines.ts. Rows are taken to be full, one document each, every token
// counting: real data is a little kinder. Next: `cli/plan.ts` prints this.

import { availableParallelism, totalmem } from "node:os";
import { stepFlops } from "./flops.ts";
import { hasGpu, machines, type Machine } from "./machines.ts";
import type { BillLine } from "../plan/buffers.ts";
import type { DecoderConfig } from "../models/config.ts";
import { parameterBlocks, parameterCount } from "../models/parameters.ts";
import { Random } from "../words/random.ts";
import { fullBatch } from "./rehearsal.ts";
import { playSteps, resolve } from "./fit.ts";
import { describeKeep } from "../models/parts/chain.ts";
import type { Dtype } from "../native/abi.gen.ts";
import type { StepConfig } from "../tiers/shape.ts";
import { devicePieceBytes } from "../tiers/limits.ts";

/** A machine, and how much memory its host has. */
export interface Target {
  machine: Machine;
  hostBytes: number;
}

export interface Fits {
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
  device: Fits;
  /** Pinned and plain memory together. */
  host: Fits;
  /** What does not fit, and what to change; undefined when everything does. */
  problem: string | undefined;
  /** What was given or fitted. */
  window: { residentBlocks: number; keep: string; boundary: string; slots: number; ring: number };
  bill: BillLine[];
}

/** How steps are played: how many, by how much commands may take longer, and whether the rules of order are checked. */
export interface PlayOptions {
  steps?: number;
  jitter?: { share: number; seed: number };
  check?: boolean;
}

/** This machine: the cpu device on its cores, or some of them, at the rates of the two cores that were measured. */
export function thisMachine(workers = Infinity): Machine {
  const cores = Math.min(workers, availableParallelism());
  const measured = machines["cpu-2core"]!;
  const scale = cores / measured.cores!;
  const faster = (rates: [number, number][]) => rates.map(([at, rate]): [number, number] => [at, rate * scale]);
  return {
    ...measured,
    name: `this machine: the cpu device on ${cores} ${cores === 1 ? "core" : "cores"}`,
    gemm: { float32: measured.gemm.float32 * scale, bfloat16: measured.gemm.bfloat16 * scale },
    attentionForward: faster(measured.attentionForward),
    attentionBackward: faster(measured.attentionBackward),
    deviceBytes: totalmem(),
    cores,
  };
}

/** The bill and the predicted step of a config on a machine. ConfigError when config and model contradict each other. */
export function forecast(
  model: DecoderConfig,
  config: StepConfig & { dtype: Dtype; deviceMemory?: number },
  { machine, hostBytes }: Target,
  options: PlayOptions = {},
): Forecast {
  const blocks = parameterBlocks(model);
  const limit = Math.min(machine.deviceBytes, config.deviceMemory ?? Infinity) - machine.deviceOverhead;
  const gpu = hasGpu(machine);
  const { shape, bill, verdict } = resolve({ config: model, blocks, dtype: config.dtype }, config, {
    limits: {
      device: limit,
      overhead: machine.deviceOverhead,
      capped: config.deviceMemory !== undefined,
      pieceBytes: gpu ? devicePieceBytes : undefined,
      host: hostBytes,
    },
    room: gpu ? { machine, deviceBytes: limit } : undefined,
  });
  const random = new Random(0);
  const batch = fullBatch(model, config, () => random.uniform());
  const { secondsPerStep, busy, binds } = playSteps(shape, batch, { machine, steps: 4, ...options });
  const { residentBlocks, boundary, slots, ring } = shape;
  return {
    machine: machine.name,
    parameters: parameterCount(blocks),
    tokensPerStep: batch.tokens,
    secondsPerStep,
    tokensPerSecond: batch.tokens / secondsPerStep,
    teraflopsPerSecond: stepFlops(shape.blocks, batch) / secondsPerStep / 1e12,
    busy,
    binds,
    device: fits(verdict.device),
    host: fits(verdict.host),
    problem: verdict.problem,
    window: { residentBlocks, keep: describeKeep(shape.keep, model.layers), boundary, slots, ring },
    bill,
  };
}

const fits = ({ needed, limit }: { needed: number; limit: number }): Fits => ({ needed, limit, fits: needed <= limit });
