// The stream timeline of one finished step: what each stream did when, from the executor's clock. Thousands of commands
// become hundreds of spans, because neighbours of the same phase and block that follow each other closely are one span
// to the eye. Pure; `dashboard.ts` asks for it, dashboard.js draws it.

import type { Command } from "../plan/plan.ts";
import type { Stream } from "../native/abi.gen.ts";

export interface Timeline {
  step: number;
  /** From the first command's start to the last one's end. */
  milliseconds: number;
  /** Streams that did anything, in the order in which they are drawn. */
  streams: { name: Stream; busy: number; spans: TimelineSpan[] }[];
}

/** Times in milliseconds since the step began. */
export interface TimelineSpan {
  start: number;
  end: number;
  phase: Command["label"]["phase"];
  block: number | "embedding" | "head" | null;
}

const order: Stream[] = ["compute", "upload", "download", "host", "disk"];
/** Of the step: a gap that would be narrower than a pixel or so is closed. */
const gapShare = 1 / 1500;

/** Undefined when nothing of the plan ran. `times` are nanoseconds on one clock, NaN for what did not run. */
export function timelineOf(
  commands: readonly Command[],
  times: readonly { start: number; end: number }[],
): Timeline | undefined {
  const ran = commands
    .map((command, index) => ({ command, ...times[index]! }))
    .filter(({ start, end }) => Number.isFinite(start) && Number.isFinite(end))
    .sort((a, b) => a.start - b.start);
  if (ran.length === 0) return undefined;
  const begin = ran[0]!.start;
  const milliseconds = (ran.reduce((latest, { end }) => Math.max(latest, end), begin) - begin) / 1e6;
  const streams = order.flatMap((name) => {
    const own = ran.filter(({ command }) => command.stream === name);
    const spans: TimelineSpan[] = [];
    let busy = 0;
    for (const { command, start, end } of own) {
      const { phase, block = null } = command.label;
      const span = { start: (start - begin) / 1e6, end: (end - begin) / 1e6, phase, block };
      busy += span.end - span.start;
      const last = spans.at(-1);
      const joins = last?.phase === phase && last.block === block && span.start - last.end < milliseconds * gapShare;
      if (joins) last.end = Math.max(last.end, span.end);
      else spans.push(span);
    }
    return own.length > 0 ? [{ name, busy: milliseconds > 0 ? Math.min(1, busy / milliseconds) : 0, spans }] : [];
  });
  return { step: ran[0]!.command.label.step, milliseconds, streams };
}
