// Rule 12: ranges have the lengths that `zig/abi.zig` declares. The decoder refuses others as well; here they are seen
// before anything is played, in plans that are only recorded.

import { ops, type Length } from "../../native/abi.gen.ts";
import type { RecordedStep } from "../../step/step.ts";
import { describeCommand, Range } from "../plan.ts";
import type { Violation } from "./order.ts";

export function checkLengths(steps: readonly RecordedStep[]): Violation[] {
  const violations: Violation[] = [];
  for (const { plan } of steps)
    for (const command of plan.commands) {
      const values = command.arguments as unknown as Record<string, unknown>;
      const lengths = ops[command.op].lengths as Record<string, Length<unknown>>;
      for (const field in lengths) {
        const range = values[field];
        if (!(range instanceof Range)) continue;
        const { bytes, says, any } = lengths[field]!;
        const wanted = bytes(values);
        if (any ? range.bytes > 0 && range.bytes % wanted === 0 : range.bytes === wanted) continue;
        const message = `${field} has ${range.bytes} bytes, it needs ${wanted}${any ? " or a multiple" : ""} (${says}):\n  ${describeCommand(command)}`;
        violations.push({ rule: 12, message, commands: [command] });
      }
    }
  return violations;
}
