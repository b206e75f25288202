// What lives where, when the config leaves it open: which blocks stay on the device, what each block keeps for its backward
// pass, where boundaries wait, how many slots and how deep a ring.
//
// Two kinds of choices, made differently. What changes bits follows from a rule, so that a run repeats itself: tokens of a
// micro-batch from the config (config.ts), rows of logits at once from model and device. The others change no bit and are chosen by playing candidates on the simulator's clock, with the rates of the machine: host and device trade
// memory for time in opposite directions, and which of them a step waits for depends on everything at once.
//
// Numbers in the config win; what they leave free is fitted around them. Read `simulate.ts` for the clock, `machines.ts`
// for the rates, `bill.ts` for the bytes.

import { costOf, type Machine } from "./machines.ts";
import { bytesIn, memoryBill } from "../tiers/bill.ts";
import { deviceBytesOf, devicePieceBytes } from "../tiers/limits.ts";
import { decoderBlocks, keptBytes, type StepShape } from "../tiers/shape.ts";
import { keepLevels, type KeepLevel } from "../models/decoder.ts";
import { fullBatch, rehearse, rehearsedSettings } from "./rehearsal.ts";
import { simulate } from "./simulate.ts";
import { recordStep } from "../step/step.ts";

/** What a fit may count on. */
export interface Room {
  machine: Machine;
  /** Device bytes left for buffers: the limit less what context, kernels and libraries take. */
  deviceBytes: number;
  /** Host bytes, pinned ones included; without it, as many as are wanted. */
  hostBytes?: number;
}

/** What the config leaves to the fit. */
export type Choice = "keep" | "residentBlocks" | "boundary" | "slots" | "ring";

// ---- rules ----------------------------------------------------------------------------------------------------------

/** At most this share for logits. */
const logitsShare = 0.03;

/**
 * Rows of logits at once. When all of a step's come in one chunk, the head's gradient needs no float32 sum (tiers/shape.ts,
 * `roundsAtOnce`), which pays for the larger logits as long as they take no more than that sum.
 */
export function logitsRowsFor(shape: StepShape, deviceBytes: number): number {
  const { tokensMax, microBatches, passes, dtype } = shape;
  const { vocabulary, hidden } = shape.model;
  const rows = (count: number): number => Math.ceil(Math.min(count, tokensMax) / 16) * 16;
  const sums = hidden * 4 + 2048 * 2;
  if (dtype === "bfloat16" && microBatches === 1 && passes === 1 && tokensMax * 2 <= sums) return rows(tokensMax);
  const fits = [8192, 4096, 2048].find((count) => count * vocabulary * 2 <= logitsShare * deviceBytes);
  return rows(fits ?? 1024);
}

// ---- fit ------------------------------------------------------------------------------------------------------------

/** The shape with everything that is open chosen so that the device holds the least. */
export const leastShape = (shape: StepShape, open: ReadonlySet<Choice>): StepShape => ({
  ...shape,
  ...(open.has("keep") ? { keep: [] } : {}),
  ...(open.has("residentBlocks") ? { residentBlocks: 0 } : {}),
  ...(open.has("boundary") ? { boundary: "pinned" as const } : {}),
  ...(open.has("slots") ? { slots: 2 } : {}),
  ...(open.has("ring") ? { ring: shape.clips === "exact" ? shape.model.layers : shortRings[0] } : {}),
});

/** The shape with everything that is open chosen for the least time per step; `leastShape` when not even that fits. */
export function fit(shape: StepShape, open: ReadonlySet<Choice>, room: Room): StepShape {
  const { machine, deviceBytes, hostBytes = Infinity } = room;
  const saved = new Map(keepLevels.map((level) => [level, keptSeconds(shape, level, machine)]));
  const hostOf = (candidate: StepShape): number => {
    const bill = memoryBill(candidate);
    return bytesIn(bill, "pinned") + bytesIn(bill, "host");
  };
  /** What is left of the device goes into kept activations. Undefined when the rest alone is too large, here or on the host. */
  const filled = (candidate: StepShape): StepShape | undefined => {
    const left = deviceBytes - deviceBytesOf(memoryBill(candidate));
    if (left < 0 || hostOf(candidate) > hostBytes) return undefined;
    if (!open.has("keep") || left < devicePieceBytes) return candidate;
    return { ...candidate, keep: fillKeep(candidate, left - devicePieceBytes, saved) };
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

const shortRings = [4, 8, 12, 16] as const;

/** Pinned memory is dear: the shortest ring that is as good as one with a slot for every block. */
function shortestRing(shape: StepShape, clock: Clock): StepShape {
  const streaming = shape.model.layers - shape.residentBlocks;
  for (const ring of shortRings)
    if (ring < streaming && clock.seconds({ ...shape, ring }) * better <= clock.seconds(shape))
      return { ...shape, ring };
  return shape;
}

/** Upgrades layers, the most seconds per byte first, as long as it fits. */
function fillKeep(shape: StepShape, bytes: number, saved: ReadonlyMap<KeepLevel, number>): KeepLevel[] {
  const { layers } = shape.model;
  const size = (level: KeepLevel): number => shape.microBatches * keptBytes(shape, level);
  const levels: KeepLevel[] = Array.from({ length: layers }, () => "recompute");
  let left = bytes;
  for (;;) {
    let step: { layer: number; to: KeepLevel; bytes: number; worth: number } | undefined;
    for (const from of keepLevels) {
      const layer = levels.lastIndexOf(from); // backward begins there
      if (layer < 0) continue;
      for (const to of keepLevels) {
        const more = size(to) - size(from);
        const gain = saved.get(to)! - saved.get(from)!;
        if (gain <= 0 || more > left) continue;
        const worth = gain / Math.max(1, more);
        if (!step || worth > step.worth) step = { layer, to, bytes: more, worth };
      }
    }
    if (!step) return levels.sort((a, b) => keepLevels.indexOf(a) - keepLevels.indexOf(b));
    levels[step.layer] = step.to;
    left -= step.bytes;
  }
}

/** Device seconds of a step that one layer saves at a level. */
function keptSeconds(shape: StepShape, level: KeepLevel, machine: Machine): number {
  const again = (keep: KeepLevel): number => {
    const { model } = shape;
    const one = { ...model, layers: 1, windows: model.windows.slice(-1) };
    const blocks = [shape.blocks[0]!, decoderBlocks(shape)[0]!, shape.blocks.at(-1)!];
    const small: StepShape = { ...shape, model: one, blocks, keep: [keep], residentBlocks: 0, ring: 1, slots: 2 };
    const { plan } = recordStep(rehearse(small), batchOf(small), rehearsedSettings(small, 1));
    const repeated = plan.commands.filter(
      ({ op, label }) => label.phase === "backward" && label.block === 0 && op.endsWith("Forward"),
    );
    return repeated.reduce((sum, command) => sum + costOf(command, machine).amount, 0);
  };
  return again("recompute") - again(level);
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

/** Seconds per step of full rows, by simulation. */
export function predictedSeconds(shape: StepShape, machine: Machine): number {
  const [recorder, batch] = [rehearse(shape), batchOf(shape)];
  const steps = [1, 2, 3].map((step) => recordStep(recorder, batch, rehearsedSettings(shape, step)));
  return simulate(steps, { machine }).secondsPerStep;
}

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
