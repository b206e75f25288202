// Plays a case on the null device and tells what the parameters' digests are at the end. Weights and staged inputs start
// as digests of their own, so a block in the wrong slot or a step with another step's tokens ends differently.

import { memoryBill } from "../../src/step/bill.ts";
import { Buffers } from "../../src/plan/buffers.ts";
import { Engine } from "../../src/native/runtime.ts";
import type { Event, Plan } from "../../src/plan/plan.ts";
import { rehearsedDecays } from "../../src/predict/rehearsal.ts";
import { StepRecorder, type RecordedStep } from "../../src/step/step.ts";
import { recordCase, shapeOf, type PlanCase } from "./cases.ts";

const granuleBytes = 64;

export interface PlayOptions {
  /** Every command waits for the one recorded before it. */
  sequential?: boolean;
  jitterUs?: number;
  seed?: number;
  workers?: number;
}

/** One digest for the parameters and moments of each block: `layer 3.m` to its value. */
export async function playCase(chosen: PlanCase, options: PlayOptions = {}): Promise<Map<string, string>> {
  const { sequential = false, jitterUs = 0, seed = 0, workers = 2 } = options;
  using engine = new Engine({ device: "null", workers });
  engine.disturb({ jitterUs, seed });
  const shape = shapeOf(chosen);
  const buffers = Buffers.make(memoryBill(shape), ({ tier, bytes, name }) => engine.buffer(tier, bytes, name));
  const digests = (name: string): BigUint64Array => {
    const buffer = buffers.get(name);
    return new BigUint64Array(engine.viewInto(buffer, 0, Math.ceil(buffer.bytes / granuleBytes) * 8));
  };
  const state = shape.blocks.flatMap(({ name }) => ["hi", "lo", "m", "v"].map((part) => `${name}.${part}`));
  for (const name of [...state, "rope table"])
    for (const [index, _] of digests(name).entries()) digests(name)[index] = Bun.hash.xxHash64(`${name} ${index}`);
  const staged = new Map(["batch.0", "batch.1", "embed.0", "embed.1"].map((name) => [name, digests(name)]));
  const recorder = new StepRecorder(shape, buffers, rehearsedDecays(shape), ({ buffer, offset }, values) => {
    for (let first = 0; first < values.length; first += 16)
      staged.get(buffer.name)![offset / granuleBytes + first / 16] = Bun.hash.xxHash64(values.slice(first, first + 16));
  });

  const over = new Map<number, Event[]>();
  for (const record of recordCase(chosen, recorder)) {
    for (const event of over.get(recorder.side) ?? []) await engine.done(event);
    const recorded: RecordedStep = record();
    if (sequential) chain(recorded.plan);
    engine.submit(recorded.plan);
    over.set(recorded.side, [recorded.measured, recorded.inputsFree]);
  }
  await engine.idle();
  return new Map(state.map((name) => [name, Bun.hash.xxHash64(digests(name)).toString(16)]));
}

/** Takes every freedom away: commands run in the order of recording. */
function chain(plan: Plan): void {
  for (const command of plan.commands) Object.assign(command, { waits: command.id > 1 ? [command.id - 1] : [] });
}
