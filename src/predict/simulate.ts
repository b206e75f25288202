// Plays plans on a virtual clock: how long a step would take on a machine described by a few rates, and what it waits for.
//
// The rules are the executor's: in-order streams, the host's earliest deadline, a plan submitted when the step before last
// is measured and its inputs are free. Recording a plan costs nothing here. Several steps are played, because they overlap;
// what is reported is the time between the last ones, when every step finds the updates of the one before still running.
//
// What runs at the same time shares: both directions of the link, host memory (copies and host commands in proportion to
// what each would take alone), and, where the device is the CPU, the cores. Rates change whenever a command starts or
// ends. Costs per op are in `machines.ts`.

import { costOf, type Cost, type Machine } from "./machines.ts";
import type { Tier, Stream } from "../native/abi.gen.ts";
import { accesses, describeCommand, type Command } from "../plan/plan.ts";
import { Random } from "../words/random.ts";
import type { RecordedStep } from "../step/step.ts";

export interface SimulationOptions {
  machine: Machine;
  /** Each command takes up to this share longer, drawn from the seed. */
  jitter?: { share: number; seed: number };
}

export interface Span {
  command: Command;
  start: number;
  end: number;
}

export interface Simulation {
  /** Between two steps in the long run, seconds. */
  secondsPerStep: number;
  /** Share of that time in which each stream had a command running. */
  busy: Record<Stream, number>;
  /** The busiest stream: what a faster step would need more of. */
  binds: Stream;
  /** Bytes of the buffers that the plans touched. */
  tiers: Record<Tier, number>;
  spans: Span[];
}

const inOrder: readonly Stream[] = ["compute", "upload", "download", "disk"];

interface Running extends Cost {
  index: number;
  stream: Stream;
  start: number;
}

/** Plays steps recorded one after another; three or more, so that the first ones can be left out. */
export function simulate(steps: readonly RecordedStep[], { machine, jitter }: SimulationOptions): Simulation {
  const commands = steps.flatMap(({ plan }) => plan.commands);
  const random = jitter && new Random(jitter.seed);
  const { dependents, unresolved } = dependencies(steps, commands);
  const queues = new Map(
    inOrder.map((stream) => [stream, commands.flatMap((command, index) => (command.stream === stream ? index : []))]),
  );
  const heads = new Map(inOrder.map((stream) => [stream, 0]));
  const ready = commands.flatMap((command, index) =>
    command.stream === "host" && unresolved[index] === 0 ? index : [],
  );
  const running = new Map<Stream, Running>();
  const spans: Span[] = [];
  let now = 0;

  const start = (stream: Stream, index: number): void => {
    const { resource, amount } = costOf(commands[index]!, machine);
    const longer = 1 + (random ? random.uniform() * jitter!.share : 0);
    running.set(stream, { index, stream, resource, amount: amount * longer, start: now });
  };

  for (;;) {
    for (const stream of inOrder) {
      const index = queues.get(stream)![heads.get(stream)!];
      if (running.has(stream) || index === undefined || unresolved[index]! > 0) continue;
      heads.set(stream, heads.get(stream)! + 1);
      start(stream, index);
    }
    if (!running.has("host") && ready.length > 0) start("host", takeEarliest(ready, commands));
    if (running.size === 0) break;

    const tasks = [...running.values()];
    const rates = ratesOf(tasks, machine);
    const elapsed = Math.min(...tasks.map(({ amount }, task) => amount / rates[task]!));
    now += elapsed;
    for (const [task, entry] of tasks.entries()) {
      entry.amount -= elapsed * rates[task]!;
      if (entry.amount > rates[task]! * 1e-12) continue;
      running.delete(entry.stream);
      spans.push({ command: commands[entry.index]!, start: entry.start, end: now });
      for (const index of dependents[entry.index]!)
        if (--unresolved[index]! === 0 && commands[index]!.stream === "host") ready.push(index);
    }
  }
  const stuck = commands.find((_, index) => unresolved[index]! > 0);
  if (stuck)
    throw new Error(
      `internal error: the plans never come to an end; this command's waits are never done: ${describeCommand(stuck)}`,
    );
  return report(steps, spans);
}

/** Per command, who waits for it and for how many it waits. */
function dependencies(steps: readonly RecordedStep[], commands: readonly Command[]) {
  const base = commands[0]!.id;
  const dependents: number[][] = commands.map(() => []);
  const unresolved = new Int32Array(commands.length);
  const over = new Map<number, number[]>();
  for (const { plan, side, measured, inputsFree } of steps) {
    const submitted = over.get(side) ?? [];
    for (const { id, waits } of plan.commands)
      for (const event of new Set([...waits, ...submitted])) {
        if (event < base) continue; // of a step before these
        dependents[event - base]!.push(id - base);
        unresolved[id - base]!++;
      }
    over.set(side, [measured, inputsFree]);
  }
  return { dependents, unresolved };
}

/** Removes the ready host command with the earliest deadline, then the lowest id. */
function takeEarliest(ready: number[], commands: readonly Command[]): number {
  let best = 0;
  for (let position = 1; position < ready.length; position++) {
    const [a, b] = [commands[ready[position]!]!, commands[ready[best]!]!];
    if (a.deadline < b.deadline || (a.deadline === b.deadline && a.id < b.id)) best = position;
  }
  const index = ready[best]!;
  ready[best] = ready.at(-1)!;
  ready.pop();
  return index;
}

/** How fast each running command goes: seconds of the device per second, else bytes per second. */
function ratesOf(tasks: readonly Running[], machine: Machine): number[] {
  const bothWays = tasks.filter(({ resource }) => resource === "toDevice" || resource === "toHost").length > 1;
  const link = bothWays ? Math.min(machine.link, machine.linkBoth / 2) : machine.link;
  const alone = {
    device: 1,
    toDevice: link * 1e9,
    toHost: link * 1e9,
    host: machine.host * 1e9,
    diskRead: machine.diskRead * 1e9,
    diskWrite: machine.diskWrite * 1e9,
  };
  let traffic = 0;
  for (const { resource } of tasks) if (resource !== "device") traffic += alone[resource];
  const share = Math.min(1, (machine.hostMemory * 1e9) / traffic);
  // On a CPU device a copy takes one core; compute and host commands would take all of them.
  let threads = 0;
  for (const { resource } of tasks) threads += resource === "device" || resource === "host" ? (machine.cores ?? 0) : 1;
  const cores = machine.cores === undefined ? 1 : Math.min(1, machine.cores / threads);
  return tasks.map(({ resource }) => alone[resource] * cores * (resource === "device" ? 1 : share));
}

function report(steps: readonly RecordedStep[], spans: Span[]): Simulation {
  const ends = new Map(spans.map(({ command, end }) => [command.id, end]));
  const measured = steps.map((step) => ends.get(step.measured)!);
  const first = Math.max(0, Math.min(1, steps.length - 2));
  const [from, to] = steps.length > 1 ? [measured[first]!, measured.at(-1)!] : [0, Math.max(...ends.values())];
  const busy: Record<Stream, number> = { compute: 0, upload: 0, download: 0, host: 0, disk: 0 };
  for (const { command, start, end } of spans)
    busy[command.stream] += Math.max(0, Math.min(end, to) - Math.max(start, from)) / (to - from);
  const streams = Object.keys(busy) as Stream[];
  const binds = streams.reduce((a, b) => (busy[b] > busy[a] ? b : a));
  return {
    secondsPerStep: (to - from) / Math.max(1, steps.length - 1 - first),
    busy,
    binds,
    tiers: touchedTiers(spans),
    spans,
  };
}

function touchedTiers(spans: readonly Span[]): Record<Tier, number> {
  const tiers: Record<Tier, number> = { device: 0, pinned: 0, host: 0, file: 0 };
  const seen = new Set<number>();
  for (const { command } of spans)
    for (const { range } of accesses(command)) {
      if (seen.has(range.buffer.handle)) continue;
      seen.add(range.buffer.handle);
      tiers[range.buffer.tier] += range.buffer.bytes;
    }
  return tiers;
}
