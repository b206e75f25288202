// The curves of a run as a table: a column per quantity, a row per step, null where there is nothing. Report, comparison
// and dashboard draw the same `plots` from it; charts.js does the drawing. Values are in the units that the axes name.

import type { EvaluationMetrics, StepMetrics } from "../keep/metrics.ts";

/** Columns of equal length. `step` is the horizontal axis and rises. */
export type Table = { step: number[] } & Record<string, (number | null)[]>;

/** What is known about one step; columns that are missing stay as they were, or null. */
export type Row = { step: number } & Record<string, number | null>;

export interface Curve {
  /** In the legend. */
  label: string;
  /** The column it shows. */
  column: string;
  /** 1 to 6: which of the page's colours. */
  colour: number;
  style: "line" | "faint" | "marked" | "dashed";
}

export interface Plot {
  title: string;
  /** Axis label with its unit. */
  axis: string;
  curves: Curve[];
  /** The axis begins at zero. */
  fromZero: boolean;
  /**
   * The axis ends at three times the median: when a step is reported late, the next seems fast, and one such spike would
   * press everything else to the ground.
   */
  cutsSpikes?: boolean;
  /** Takes a whole row of the page. */
  wide?: boolean;
}

const MIB = 2 ** 20;
/** More points than this are averaged: more than the widest screen shows, and the page stays small. */
const pointsMax = 2000;

/** The plots of one run. */
export const runPlots: Plot[] = [
  {
    title: "Loss",
    axis: "loss (nats per token)",
    fromZero: false,
    wide: true,
    curves: [
      { label: "train, each step", column: "loss", colour: 1, style: "faint" },
      { label: "train, running mean", column: "lossMean", colour: 1, style: "line" },
      { label: "evaluation", column: "evaluation", colour: 2, style: "marked" },
    ],
  },
  {
    title: "Learning rate",
    axis: "learning rate",
    fromZero: true,
    curves: [{ label: "learning rate", column: "learningRate", colour: 3, style: "line" }],
  },
  {
    title: "Gradient norm",
    axis: "gradient norm (before clipping)",
    fromZero: true,
    curves: [{ label: "gradient norm", column: "gradNorm", colour: 4, style: "line" }],
  },
  {
    title: "Speed",
    axis: "tokens/s",
    fromZero: true,
    cutsSpikes: true,
    curves: [{ label: "tokens/s", column: "tokensPerSecond", colour: 5, style: "line" }],
  },
  {
    title: "Memory",
    axis: "memory (MiB)",
    fromZero: true,
    curves: [
      { label: "device", column: "device", colour: 1, style: "line" },
      { label: "host, buffers", column: "host", colour: 6, style: "line" },
      { label: "process, resident", column: "resident", colour: 4, style: "line" },
    ],
  },
];

/** Steps over which the running mean of a loss goes: a fiftieth of the run, five at least. */
export function meanWindow(steps: number): number {
  return Math.max(5, Math.round(steps / 50));
}

/** The mean of the last `window` values pushed. A loss that is no number any more is left out, and the curve goes on. */
export class RunningMean {
  #values: number[] = [];
  #sum = 0;
  #window: number;

  constructor(window: number) {
    this.#window = window;
  }

  push(value: number): number {
    if (Number.isFinite(value)) {
      this.#values.push(value);
      this.#sum += value;
      if (this.#values.length > this.#window) this.#sum -= this.#values.shift()!;
    }
    return this.#sum / this.#values.length;
  }
}

export function stepRow(metrics: StepMetrics, lossMean: number): Row {
  const { step, loss, learningRate, gradNorm, tokensPerSecond } = metrics;
  return {
    step,
    loss,
    lossMean,
    learningRate,
    gradNorm,
    tokensPerSecond,
    device: metrics.deviceBytes / MIB,
    host: metrics.hostBytes / MIB,
    resident: metrics.residentBytes / MIB,
  };
}

export function evaluationRow({ step, loss }: EvaluationMetrics): Row {
  return { step, evaluation: loss };
}

/** All curves of a run, a row per step that has any; long runs as means over equal stretches of steps. */
export function runTable(run: { steps: readonly StepMetrics[]; evaluations: readonly EvaluationMetrics[] }): Table {
  const mean = new RunningMean(meanWindow(run.steps.length));
  const rows = thin(run.steps.map((metrics) => stepRow(metrics, mean.push(metrics.loss))));
  return table([...rows, ...run.evaluations.map(evaluationRow)]);
}

/** Rows in any order as columns; rows of the same step become one. */
export function table(rows: readonly Row[]): Table {
  const bySteps = new Map<number, Row>();
  for (const row of rows) bySteps.set(row.step, { ...bySteps.get(row.step), ...row });
  const sorted = [...bySteps.values()].sort((a, b) => a.step - b.step);
  const names = [...new Set(sorted.flatMap((row) => Object.keys(row)))];
  const columns = names.map((name) => [name, sorted.map((row) => row[name] ?? null)] as const);
  return { step: [], ...Object.fromEntries(columns) } as Table;
}

/** Means over as many neighbouring rows as bring the number below `pointsMax`; a mean stands at its last step. */
export function thin(rows: readonly Row[], most = pointsMax): Row[] {
  const stride = Math.ceil(rows.length / most);
  if (stride <= 1) return [...rows];
  const count = Math.ceil(rows.length / stride);
  return Array.from({ length: count }, (_, index) => meanRow(rows.slice(index * stride, (index + 1) * stride)));
}

function meanRow(rows: readonly Row[]): Row {
  const last = rows.at(-1)!;
  const means = Object.keys(last).map((name) => {
    const values = rows.map((row) => row[name]).filter((value) => typeof value === "number");
    return [name, values.length > 0 ? values.reduce((sum, value) => sum + value, 0) / values.length : null] as const;
  });
  return { ...Object.fromEntries(means), step: last.step };
}
