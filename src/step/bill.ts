// Everybody's buffers, in the order in which they are allocated and printed.

import { State } from "../state/parameters.ts";
import { linesOf, type BillLine } from "../plan/buffers.ts";
import { verdictOf, type Judged } from "../tiers/limits.ts";
import type { StepShape } from "../tiers/shape.ts";
import type { Limits } from "../native/runtime.ts";
import { Accumulators } from "./accumulators.ts";
import { Boundaries } from "./boundaries.ts";
import { Inputs, sides } from "./inputs.ts";
import { Landing } from "./landing.ts";
import { Norms } from "./norms.ts";
import { Results } from "./results.ts";
import { RowGradients } from "./row-gradients.ts";
import { Updates } from "./updates.ts";
import { Window } from "./window.ts";
import { Workspace } from "./workspace.ts";

/** Every buffer of a run. Pure; an owner finds no line of its own that is forgotten here, and says so. */
export function memoryBill(shape: StepShape): BillLine[] {
  const [inputs, results, boundaries] = [Inputs.bill(shape), Results.bill(shape), Boundaries.bill(shape)];
  const { kept, ...workspace } = Workspace.bill(shape);
  const { dRows, rows, ...hidden } = boundaries;
  const both = sides.map((side) => [inputs.sides[side], results.sides[side]]);
  const forward = [State.bill(shape), Window.bill(shape), workspace, inputs.device, results.losses, rows, both, hidden];
  if (!shape.training) return linesOf(forward);
  const { kept: resident, sums, ...landing } = Landing.bill(shape);
  const { device: deviceFactor, ...factors } = Updates.bill(shape);
  const gradients = [Accumulators.bill(shape), Norms.bill(shape), resident, deviceFactor, landing];
  return linesOf([forward, kept, gradients, dRows, RowGradients.bill(shape), sums, factors]);
}

/** A shape with its bill, held against what device and host have. */
export function judge(shape: StepShape, limits: Limits): Judged {
  const bill = memoryBill(shape);
  return { shape, bill, verdict: verdictOf(shape, bill, limits) };
}
