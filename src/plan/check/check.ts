// Checks recorded plans against the rules of order, without playing them. Pure: plans in, violations out, each naming its
// rule, the commands and the bytes. What the rules are and what proves each is the table in `rules.ts`.
//
// The plans are those of one recorder from its first step on: versions of weights are counted from there.

import type { RecordedStep } from "../../step/step.ts";
import type { Violation } from "./order.ts";
import { rules, type CheckOptions } from "./rules.ts";

export type { Violation } from "./order.ts";

export function checkPlans(steps: readonly RecordedStep[], options: CheckOptions): Violation[] {
  const checks = new Set(rules.map(({ check }) => check));
  return [...checks].flatMap((check) => check?.(steps, options) ?? []);
}

/** A violation as text: the rule, what is wrong, and the commands. */
export function describeViolation({ rule, message }: Violation): string {
  const { sentence } = rules.find(({ number }) => number === rule)!;
  return `rule ${rule} (${sentence}): ${message}`;
}
