// The learning rate of each step, as a pure function of the step's number.
//
// `step` counts from 0. The warm-up rises in a straight line and reaches the peak at step `warmup`, so that the first
// step already moves something; the shape then runs from there to step `steps`, one past the last, and stays at its
// final value after that. `wsd` (warm-up, stable, decay) holds the peak until the last `decay` steps.

export interface Schedule {
  type: "constant" | "linear" | "cosine" | "wsd";
  /** Steps, or a share of all steps such as "3%". */
  warmup: number | string;
  decay?: number | string;
  /** The final rate over the peak. */
  minRatio: number;
}

const DECAY_SHARE_DEFAULT = "20%";

/** Steps as they stand; a share of all steps rounded to the nearest whole step. */
function spanSteps(span: number | string, steps: number): number {
  return typeof span === "number" ? span : Math.round((Number.parseFloat(span) / 100) * steps);
}

/** What contradicts the number of steps; empty when the schedule fits. */
export function scheduleProblems(schedule: Schedule, steps: number): string[] {
  const warmup = spanSteps(schedule.warmup, steps);
  const decay = schedule.type === "wsd" ? spanSteps(schedule.decay ?? DECAY_SHARE_DEFAULT, steps) : 0;
  if (warmup > steps)
    return [
      `schedule.warmup (${schedule.warmup}) is longer than the run (${steps} steps); use fewer steps or a share such as "3%"`,
    ];
  if (warmup + decay > steps)
    return [
      `schedule.warmup (${warmup} steps) and schedule.decay (${decay} steps) together are longer than the run (${steps} steps); shorten one`,
    ];
  return [];
}

/** The rate of one step; `steps` is the length of the whole run. */
export function learningRate(peak: number, schedule: Schedule, step: number, steps: number): number {
  const { type, minRatio } = schedule;
  const warmup = spanSteps(schedule.warmup, steps);
  if (step < warmup) return (peak * (step + 1)) / (warmup + 1);
  if (type === "constant") return peak;
  const decay = type === "wsd" ? spanSteps(schedule.decay ?? DECAY_SHARE_DEFAULT, steps) : steps - warmup;
  // From 0 where the decay begins to 1 at its end; a decay of no steps ends where it begins.
  const progress = decay > 0 ? Math.min(Math.max((step - (steps - decay)) / decay, 0), 1) : step < steps ? 0 : 1;
  const height = type === "cosine" ? (1 + Math.cos(Math.PI * progress)) / 2 : 1 - progress;
  return peak * (minRatio + (1 - minRatio) * height);
}
