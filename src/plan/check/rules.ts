// The rules of order that a recorded plan keeps, and what proves each. `docs/design.md` prints this table, and a failing
// check the sentence of its rule. Number 11 is for scratch files, which no plan has yet.

import type { RecordedStep, StepRecorder } from "../../step/step.ts";
import type { StepShape } from "../../tiers/shape.ts";
import { checkLengths } from "./lengths.ts";
import { checkOrder, type Violation } from "./order.ts";
import { checkContents } from "./provenance.ts";
import { checkTiers } from "./tiers.ts";

/** What the plans were recorded for; with the recorder, also what it still holds after the last of them. */
export interface CheckOptions {
  shape: StepShape;
  recorder?: StepRecorder;
}

export interface Rule {
  number: number;
  sentence: string;
  /** Finds what breaks this rule, and maybe others; null where only playing a plan shows it. */
  check: ((steps: readonly RecordedStep[], options: CheckOptions) => Violation[]) | null;
  /** The file that proves it. */
  proof: string;
}

const order = { check: checkOrder, proof: "src/plan/check/order.ts" };
const contents = { check: checkContents, proof: "src/plan/check/provenance.ts" };

export const rules: readonly Rule[] = [
  {
    number: 1,
    sentence: "Two commands that touch the same bytes, one of them writing, are ordered by stream or event.",
    ...order,
  },
  {
    number: 2,
    sentence:
      "A slot is filled before it is read and drained before it is filled again; what is read is one group of weights.",
    ...contents,
  },
  { number: 3, sentence: "Every awaited event is recorded earlier in the plan; there are no cycles.", ...order },
  {
    number: 4,
    sentence:
      "Forward and backward of a step read the same version of each weight; the next step reads the next version.",
    ...contents,
  },
  {
    number: 5,
    sentence:
      "A gradient is complete over all micro-batches before its update; each parameter is updated once per step.",
    ...contents,
  },
  { number: 6, sentence: "With clipping, the norm precedes every update.", ...contents },
  {
    number: 7,
    sentence: "Tied weights have one owner: both gradients are added, and there is one update.",
    ...contents,
  },
  {
    number: 8,
    sentence:
      "A boundary is stored before its buffer is reused and back before it is read; activations are their own layer's.",
    ...contents,
  },
  {
    number: 9,
    sentence: "Peak bytes in each tier equal the memory bill; nothing is held at the end.",
    check: checkTiers,
    proof: "src/plan/check/tiers.ts",
  },
  {
    number: 10,
    sentence: "The result does not depend on the number of slots, on chunk sizes, on tiers, or on who finishes first.",
    check: null,
    proof: "test/plan/null-device.test.ts",
  },
  {
    number: 12,
    sentence: "Every range an op is given has the length that the op's own declaration says.",
    check: checkLengths,
    proof: "src/plan/check/lengths.ts",
  },
  {
    number: 13,
    sentence: "Layers of one kind are computed alike, in every micro-batch and step: the same ops on the same things.",
    ...contents,
  },
];

/** The table as the documentation has it. */
export const rulesTable = (): string =>
  rules.map(({ number, sentence, proof }) => `| ${number} | ${sentence} | \`${proof}\` |`).join("\n");
