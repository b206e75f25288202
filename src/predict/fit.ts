// What lives where, when the config leaves it open: which blocks stay on the device, what each block keeps for its backward
// pass, where boundaries wait, how many slots and how deep a ring.
//
// Two kinds of choices, made differently. What changes bits follows from a rule, so that a run repeats itself: tokens of a
// micro-batch and rows of logits at once (tiers/shape.ts). The others change no bit and are chosen by playing candidates on
// the simulator's clock, with the rates of the machine: host and device trade memory for time in opposite directions, and
// which of them a step waits for depends on everything at once.
//
// Numbers in the config win; what they leave free is fitted around them. Read `simulate.ts` for the clock, `machines.ts`
// for the rates, `bill.ts` for the bytes.

import { costOf, type Machine } from "./machines.ts";
import { judge, memoryBill } from "../step/bill.ts";
import { bytesIn } from "../tiers/bill.ts";
import { deviceBytesOf, devicePieceBytes, type Judged } from "../tiers/limits.ts";
import {
  checkShape,
  decoderBlocks,
  keptBytes,
  leastShape,
  leavesOpen,
  ringLeast,
  trainingShape,
  type Choice,
  type DescribedModel,
  type StepConfig,
  type StepShape,
} from "../tiers/shape.ts";
import type { Limits } from "../native/runtime.ts";
import { keepLevels, type KeepLevel } from "../models/parts/chain.ts";
import type { ParameterBlock } from "../models/parameters.ts";
import { fullBatch, rehearse, rehearsedSettings } from "./rehearsal.ts";
import { simulate, type SimulationOptions, type Simulation } from "./simulate.ts";
import { checkPlans, describeViolation } from "../plan/check/check.ts";
import type { StepBatch } from "../data/batches.ts";
import { assert } from "../words/errors.ts";
import { recordStep } from "../step/step.ts";

/** What a GPU's fit may count on. */
export interface Room {
  /** The rates; undefined when the config leaves nothing to play candidates for. */
  machine: Machine | undefined;
  /** Device bytes left for buffers: the limit less what context, kernels and libraries take. */
  deviceBytes: number;
  /** Host bytes, pinned ones included; without it, as many as are wanted. */
  hostBytes?: number;
}

/**
 * The one way from a config, a model and a machine to a training step: its shape, its bill, and whether that fits `limits`.
 * What the config leaves open is fitted to the `room` a GPU has; without one (on the cpu device, where device memory is host
 * memory) it takes the simplest value. ConfigError where config and model contradict each other.
 */
export function resolve(
  model: DescribedModel,
  config: StepConfig,
  { limits, room }: { limits: Limits; room?: Room | undefined },
  overrides: Partial<StepShape> = {},
): Judged {
  const shape = trainingShape(model, config, room?.deviceBytes, overrides);
  const open = leavesOpen(config);
  const fitted = room?.machine && open.size > 0 ? fit(shape, open, { ...room, machine: room.machine }) : shape;
  checkShape(fitted);
  return judge(fitted, limits);
}

/** The least that a config can be fitted to, judged before weights are read, rates measured, or anything is allocated. */
export function resolveLeast(
  model: DescribedModel,
  config: StepConfig,
  limits: Limits,
  overrides: Partial<StepShape> = {},
): Judged {
  const gpu = limits.pieceBytes !== undefined;
  const shape = trainingShape(model, config, gpu ? limits.device : undefined, overrides);
  checkShape(shape);
  // What the host must hold depends on what the device can, so it is judged when both are known.
  return judge(gpu ? leastShape(shape, leavesOpen(config)) : shape, gpu ? { ...limits, host: Infinity } : limits);
}

/** The shape with everything that is open chosen for the least time per step; `leastShape` when not even that fits. */
export function fit(shape: StepShape, open: ReadonlySet<Choice>, room: Room & { machine: Machine }): StepShape {
  const { machine, deviceBytes, hostBytes = Infinity } = room;
  const kinds = layerKinds(shape, machine);
  const hostOf = (candidate: StepShape): number => {
    const bill = memoryBill(candidate);
    return bytesIn(bill, "pinned") + bytesIn(bill, "host");
  };
  /** What is left of the device goes into kept activations. Undefined when the rest alone is too large, here or on the host. */
  const filled = (candidate: StepShape): StepShape | undefined => {
    const left = deviceBytes - deviceBytesOf(memoryBill(candidate));
    if (left < 0 || hostOf(candidate) > hostBytes) return undefined;
    if (!open.has("keep") || left < devicePieceBytes) return candidate;
    return { ...candidate, keep: fillKeep(kinds, left - devicePieceBytes) };
  };
  const least = leastShape(shape, open);
  const freeRing = open.has("ring") && shape.clips !== "exact";
  /** A ring with a slot for every block, unless the host has no room for it. */
  const withRing = (candidate: StepShape): StepShape => {
    if (!freeRing) return candidate;
    const long = { ...candidate, ring: shape.model.layers };
    return hostOf(long) <= hostBytes ? long : candidate;
  };
  const clock = new Clock(shape, machine);
  let best: StepShape | undefined;
  for (const boundary of open.has("boundary") ? (["device", "pinned"] as const) : [shape.boundary]) {
    const resident = (residentBlocks: number) => filled(withRing({ ...least, boundary, residentBlocks }));
    const found = open.has("residentBlocks")
      ? bestResident(resident, shape.model.layers, clock)
      : filled(withRing({ ...least, boundary }));
    if (found && (!best || clock.seconds(found) < clock.seconds(best) * better)) best = found;
  }
  if (!best) return least;
  if (open.has("slots")) {
    const three = filled({ ...best, slots: 3, ...(open.has("keep") ? { keep: [] } : {}) });
    if (three && clock.seconds(three) < clock.seconds(best) * better) best = three;
  }
  return freeRing ? shortestRing(best, clock) : best;
}

/** What must be gained for a choice that costs something. */
const better = 0.99;

/** The number of resident blocks with the shortest step: time falls and then rises with it, but not smoothly. */
function bestResident(
  candidate: (residentBlocks: number) => StepShape | undefined,
  layers: number,
  clock: Clock,
): StepShape | undefined {
  let most = layers;
  while (most >= 0 && !candidate(most)) most--;
  if (most < 0) return undefined;
  const time = (count: number): number => {
    const shape = count >= 0 && count <= most ? candidate(count) : undefined;
    return shape ? clock.seconds(shape) : Infinity;
  };
  let stride = Math.max(1, Math.ceil(most / 4));
  let at = 0;
  for (let count = 0; count < most + stride; count += stride)
    if (time(Math.min(count, most)) < time(at)) at = Math.min(count, most);
  while (stride > 1) {
    stride = Math.ceil(stride / 2);
    for (const count of [at - stride, at + stride]) if (time(count) < time(at)) at = count;
  }
  return candidate(at);
}

const shortRings = [ringLeast, 8, 12, 16];

/** Pinned memory is dear: the shortest ring that is as good as one with a slot for every block. */
function shortestRing(shape: StepShape, clock: Clock): StepShape {
  const streaming = shape.model.layers - shape.residentBlocks;
  for (const ring of shortRings)
    if (ring < streaming && clock.seconds({ ...shape, ring }) * better <= clock.seconds(shape))
      return { ...shape, ring };
  return shape;
}

/** Layers that are alike in everything but their weights; what a level keeps of one, and the device seconds it saves. */
interface LayerKind {
  layers: number[];
  bytes: Record<KeepLevel, number>;
  saved: Record<KeepLevel, number>;
}

function layerKinds(shape: StepShape, machine: Machine): LayerKind[] {
  // Functions say nothing here: what distinguishes parts is what they declare.
  const kinds = Map.groupBy(decoderBlocks(shape), ({ chain }) => JSON.stringify(chain));
  return [...kinds.values()].map((blocks) => {
    const [first] = blocks as [ParameterBlock];
    const again = secondsAgain(shape, first, machine);
    const each = (of: (level: KeepLevel) => number) =>
      Object.fromEntries(keepLevels.map((level) => [level, of(level)])) as Record<KeepLevel, number>;
    return {
      layers: blocks.map(({ layer }) => layer),
      bytes: each((level) => shape.microBatches * keptBytes(shape, first.layer, level)),
      saved: each((level) => again("recompute") - again(level)),
    };
  });
}

/** Upgrades layers, the most seconds per byte first, as long as it fits. */
function fillKeep(kinds: readonly LayerKind[], bytes: number): KeepLevel[] {
  const levels: KeepLevel[] = kinds.flatMap(({ layers }) => layers).map(() => "recompute");
  let left = bytes;
  for (;;) {
    let step: { layer: number; to: KeepLevel; bytes: number; worth: number } | undefined;
    for (const { layers, bytes, saved } of kinds)
      for (const from of keepLevels) {
        const layer = layers.findLast((candidate) => levels[candidate] === from); // backward begins there
        if (layer === undefined) continue;
        for (const to of keepLevels) {
          const more = bytes[to] - bytes[from];
          const gain = saved[to] - saved[from];
          if (gain <= 0 || more > left) continue;
          const worth = gain / Math.max(1, more);
          if (!step || worth > step.worth) step = { layer, to, bytes: more, worth };
        }
      }
    if (!step) break;
    levels[step.layer] = step.to;
    left -= step.bytes;
  }
  const rank = (level: KeepLevel): number => keepLevels.indexOf(level);
  for (const { layers } of kinds) {
    const sorted = layers.map((layer) => levels[layer]!).sort((a, b) => rank(a) - rank(b));
    for (const [index, layer] of layers.entries()) levels[layer] = sorted[index]!;
  }
  return levels;
}

/** Device seconds of a step that a layer like this one spends on computing again what a level does not keep. */
function secondsAgain(shape: StepShape, block: ParameterBlock, machine: Machine): (level: KeepLevel) => number {
  const blocks = [shape.blocks[0]!, { ...block, name: "layer 0", index: 1, layer: 0 }, shape.blocks.at(-1)!];
  const one: StepShape = {
    ...shape,
    model: { ...shape.model, layers: 1 },
    blocks,
    residentBlocks: 0,
    ring: 1,
    slots: 2,
  };
  return (level) => {
    const small = { ...one, keep: [level] };
    const { plan } = recordStep(rehearse(small), batchOf(small), rehearsedSettings(small, 1));
    const repeated = plan.commands.filter(
      ({ op, label }) => label.phase === "backward" && label.block === 0 && op.endsWith("Forward"),
    );
    return repeated.reduce((sum, command) => sum + costOf(command, machine).amount, 0);
  };
}

/** Seconds per step by simulation, remembered; copies and updates in large pieces, because there are many candidates. */
class Clock {
  #seconds = new Map<string, number>();
  #machine: Machine;
  #shape: StepShape;

  constructor(shape: StepShape, machine: Machine) {
    this.#shape = { ...shape, chunkParameters: Math.max(shape.chunkParameters, 48 << 20) };
    this.#machine = machine;
  }

  seconds({ keep, residentBlocks, boundary, slots, ring }: StepShape): number {
    const choice = { keep, residentBlocks, boundary, slots, ring };
    const key = JSON.stringify(choice);
    let seconds = this.#seconds.get(key);
    if (seconds === undefined) {
      seconds = predictedSeconds({ ...this.#shape, ...choice }, this.#machine);
      this.#seconds.set(key, seconds);
    }
    return seconds;
  }
}

/**
 * Records steps of a shape without an engine, and plays them on a machine's clock. `check` holds them to the rules of order;
 * `record` is what a step is.
 */
export function playSteps(
  shape: StepShape,
  batch: StepBatch,
  {
    steps: count = 3,
    check = false,
    record = recordStep,
    ...options
  }: SimulationOptions & { steps?: number; check?: boolean; record?: typeof recordStep },
): Simulation {
  const recorder = rehearse(shape);
  const steps = Array.from({ length: count }, (_, step) => record(recorder, batch, rehearsedSettings(shape, step + 1)));
  const [broken] = check ? checkPlans(steps, { shape, recorder }) : [];
  assert(broken === undefined, broken ? `the recorded plans break ${describeViolation(broken)}` : "");
  return simulate(steps, options);
}

/** Seconds per step of full rows, by simulation. */
export const predictedSeconds = (shape: StepShape, machine: Machine): number =>
  playSteps(shape, batchOf(shape), { machine }).secondsPerStep;

/** Tokens per second of such steps. */
export function predictedTokensPerSecond(shape: StepShape, machine: Machine): number {
  return batchOf(shape).tokens / predictedSeconds(shape, machine);
}

/** Full rows of one document each; which tokens they have matters little here. */
function batchOf({ model, tokensMax, microBatches, passes, positions }: StepShape) {
  const rows = Math.max(1, Math.floor(tokensMax / positions));
  const sizes = {
    sequenceLength: positions,
    batchSize: rows * microBatches * passes,
    microBatchTokens: rows * positions,
    gradientAccumulation: passes,
  };
  return fullBatch(model, sizes, () => 0.5);
}
