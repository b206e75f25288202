// Checks recorded plans against the rules of order (DESIGN section 5), without playing them. Pure: plans in, violations
// out, each naming its rule, the commands and the bytes. Rule 10, that the result depends on nothing else, is the null
// device's (`test/plan/null-device.test.ts`).
//
// The plans are those of one recorder from its first step on: versions of weights are counted from there.
// Rules 1 and 3 are in `order.ts`, 2 and 4 to 8 in `provenance.ts`, 9 is here.

import { memoryBill } from "../../tiers/bill.ts";
import { type StepShape } from "../../tiers/shape.ts";
import { checkOrder, type Violation } from "./order.ts";
import { Provenance } from "./provenance.ts";
import { accesses } from "../plan.ts";
import type { RecordedStep, StepRecorder } from "../../step/step.ts";

export type { Violation } from "./order.ts";

/** What the plans were recorded for; with the recorder, also what it still holds after the last of them. */
export interface CheckOptions {
  shape: StepShape;
  recorder?: StepRecorder;
}

export function checkPlans(steps: readonly RecordedStep[], { shape, recorder }: CheckOptions): Violation[] {
  const provenance = new Provenance(shape);
  for (const { plan } of steps) provenance.play(plan);
  return [
    ...checkOrder(steps),
    ...provenance.violations,
    ...checkPlaces(steps, shape),
    ...(recorder ? checkHeld(recorder) : []),
  ];
}

/** Rule 9: what the commands touch is what the bill lists, to the byte. */
function checkPlaces(steps: readonly RecordedStep[], shape: StepShape): Violation[] {
  const violations: Violation[] = [];
  const bill = new Map(memoryBill(shape).map((line) => [line.name, line]));
  const touched = new Set<string>();
  for (const { plan } of steps)
    for (const command of plan.commands)
      for (const { range } of accesses(command)) {
        const { name, tier, bytes } = range.buffer;
        if (touched.has(name)) continue;
        touched.add(name);
        const line = bill.get(name);
        if (line?.tier === tier && line.bytes === bytes) continue;
        const billed = line ? `${line.bytes} bytes of ${line.tier}` : "nothing";
        const message = `${name} takes ${bytes} bytes of ${tier}, the bill has ${billed} under that name`;
        violations.push({ rule: 9, message, commands: [command] });
      }
  const parities = new Set(steps.map(({ side }) => side));
  for (const { name, bytes, tier } of bill.values()) {
    const [, side] = /^(?:batch|embed|results)\.([01])$/.exec(name) ?? [];
    if (touched.has(name) || (side !== undefined && !parities.has(side === "0" ? 0 : 1))) continue;
    violations.push({
      rule: 9,
      message: `the bill has ${bytes} bytes of ${tier} for ${name}, which no command touches`,
      commands: [],
    });
  }
  return violations;
}

/** Rule 9: nothing is held at the end. */
function checkHeld({ window, boundaries }: StepRecorder): Violation[] {
  return [...window.held(), ...boundaries.held()].map((what) => ({
    rule: 9,
    message: `${what} is still held after the last plan`,
    commands: [],
  }));
}
