// Rule 9: the bytes of every tier are those of the memory bill, and nothing is held at the end.

import type { RecordedStep, StepRecorder } from "../../step/step.ts";
import { memoryBill } from "../../step/bill.ts";
import type { StepShape } from "../../tiers/shape.ts";
import { accesses } from "../plan.ts";
import type { Violation } from "./order.ts";

export function checkTiers(
  steps: readonly RecordedStep[],
  { shape, recorder }: { shape: StepShape; recorder?: StepRecorder },
): Violation[] {
  return [...checkBill(steps, shape), ...(recorder ? checkHeld(recorder) : [])];
}

/** What the commands touch is what the bill lists, to the byte. */
function checkBill(steps: readonly RecordedStep[], shape: StepShape): Violation[] {
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
  const sides = new Set(steps.map(({ side }) => side));
  for (const { name, bytes, tier, side } of bill.values()) {
    if (touched.has(name) || (side !== undefined && !sides.has(side))) continue;
    violations.push({
      rule: 9,
      message: `the bill has ${bytes} bytes of ${tier} for ${name}, which no command touches`,
      commands: [],
    });
  }
  return violations;
}

/** Nothing is held at the end. */
function checkHeld({ window, boundaries }: StepRecorder): Violation[] {
  return [...window.held(), ...boundaries.held()].map((what) => ({
    rule: 9,
    message: `${what} is still held after the last plan`,
    commands: [],
  }));
}
