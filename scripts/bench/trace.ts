// Steps as Chrome and Perfetto draw them (the "Trace Event Format"): one row per stream, one event per command that ran.

import type { Stream } from "../../src/native/abi.gen.ts";
import { describeLabel, type Plan } from "../../src/plan/plan.ts";

/** A complete event ("X", times in microseconds) or the name of a row ("M"). */
export interface TraceEvent {
  name: string;
  ph: "X" | "M";
  pid: number;
  tid: number;
  ts?: number;
  dur?: number;
  cat?: string;
  args: Record<string, unknown>;
}

const rows: Stream[] = ["compute", "upload", "download", "host", "disk"];

/** Events of plans whose commands took these times (nanoseconds; NaN where one did not run). Time starts at 0. */
export function traceEvents(
  played: readonly { plan: Plan; spans: readonly { start: number; end: number }[] }[],
): TraceEvent[] {
  const starts = played.flatMap(({ spans }) => spans.flatMap(({ start }) => (Number.isNaN(start) ? [] : start)));
  const begin = starts.reduce((least, start) => Math.min(least, start), Infinity);
  const events: TraceEvent[] = rows.map((stream, row) => ({
    name: "thread_name",
    ph: "M",
    pid: 1,
    tid: row,
    args: { name: stream },
  }));
  for (const { plan, spans } of played)
    for (const [index, { id, op, stream, label }] of plan.commands.entries()) {
      const { start, end } = spans[index]!;
      if (Number.isNaN(start) || Number.isNaN(end)) continue;
      events.push({
        name: op,
        cat: label.phase,
        ph: "X",
        pid: 1,
        tid: rows.indexOf(stream),
        ts: (start - begin) / 1e3,
        dur: (end - start) / 1e3,
        args: { command: id, of: describeLabel(label) },
      });
    }
  return events;
}
