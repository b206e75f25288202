// Which commands of recorded plans happen before which, and rule 1: two commands that touch the same bytes, one of them
// writing, are ordered by stream or event.
//
// Each command gets a clock: how far each in-order stream has come when it starts, and, as a bit per command, which host
// commands are done, because those are ordered by waits alone. JavaScript takes part, too: it writes the staging buffers
// of a side when the last step of that side is measured and its inputs are free, submits the plan, and reads results
// at the step's `measured` event. Those are nodes in lanes of their own.
//
// Accesses are compared with the last writer and the readers since. That is enough: what came earlier is ordered before
// those, or was reported when they came.

import { ByteMap } from "./byte-map.ts";
import { streams, type Stream } from "../../native/abi.gen.ts";
import { accesses, describeCommand, type Command, type Event } from "../plan.ts";
import type { RecordedStep } from "../../step/step.ts";
import { memoryBill } from "../../step/bill.ts";
import type { StepShape } from "../../tiers/shape.ts";
import type { Role } from "../buffers.ts";

/** A rule (`rules.ts`) that plans break: which, what is wrong, and the commands and bytes it is about. */
export interface Violation {
  rule: number;
  message: string;
  commands: Command[];
}

/** Something that takes part in the order: a command, or what JavaScript does around a plan. */
interface Node {
  lane: number;
  /** Position in its lane. */
  position: number;
  command: Command | undefined;
  text: string;
}

const streamCount = Object.keys(streams).length;
const lanes: Record<Stream, number> & Record<"staging" | "reading 0" | "reading 1", number> = {
  ...streams,
  staging: streamCount,
  "reading 0": streamCount + 1,
  "reading 1": streamCount + 2,
};
const laneCount = streamCount + 3;

export class Order {
  readonly violations: Violation[] = [];
  #nodes: Node[] = [];
  #byEvent = new Map<Event, number>();
  /** Per node, the first position of each lane that it does not come after; unused for the host's. */
  #clocks: Int32Array[] = [];
  /** Per node, the host commands that it comes after; nodes with the same ones share the array. */
  #hosts: Uint32Array[] = [];
  /** Per lane, its last node and how many it has. */
  #last = new Int32Array(laneCount).fill(-1);
  #counts = new Int32Array(laneCount);
  #noHosts: Uint32Array;
  #bytes = new Map<string, ByteMap<Access>>();

  constructor(hostCommands: number) {
    this.#noHosts = new Uint32Array((hostCommands + 31) >> 5);
  }

  /** Whether `first` is done when `second` starts, whatever the timing. */
  isBefore(first: number, second: number): boolean {
    const { lane, position } = this.#nodes[first]!;
    if (lane !== lanes.host) return this.#clocks[second]![lane]! > position;
    return (this.#hosts[second]![position >> 5]! & (1 << (position & 31))) !== 0;
  }

  /** Adds a command after those of its lane (not on the host) and these nodes. */
  #add(lane: number, after: readonly number[], command: Command | undefined, text: string): number {
    const clock = new Int32Array(laneCount);
    let host = this.#noHosts;
    const last = this.#last[lane]!;
    for (const node of lane !== lanes.host && last >= 0 ? [last, ...after] : after) {
      const { lane: of, position } = this.#nodes[node]!;
      const other = this.#clocks[node]!;
      for (let index = 0; index < laneCount; index++) if (other[index]! > clock[index]!) clock[index] = other[index]!;
      host = union(host, this.#hosts[node]!);
      if (of !== lanes.host) clock[of] = Math.max(clock[of]!, position + 1);
      else if ((host[position >> 5]! & (1 << (position & 31))) === 0) {
        host = host.slice();
        host[position >> 5]! |= 1 << (position & 31);
      }
    }
    this.#nodes.push({ lane, position: this.#counts[lane]!++, command, text });
    this.#clocks.push(clock);
    this.#hosts.push(host);
    return (this.#last[lane] = this.#nodes.length - 1);
  }

  /** JavaScript comes after these nodes and touches the whole of these buffers (bytes by name). */
  javascript(
    lane: keyof typeof lanes,
    after: readonly number[],
    touched: ReadonlyMap<string, number>,
    text: string,
  ): number {
    const node = this.#add(lanes[lane], after, undefined, text);
    for (const [buffer, bytes] of touched) this.#touch(node, buffer, bytes, 0, bytes, lane === "staging");
    return node;
  }

  /** The node of a command. */
  of(event: Event): number {
    return this.#byEvent.get(event)!;
  }

  /** The next command in the order of recording; `submitted` is the node before its plan. */
  command(command: Command, submitted: number): void {
    const waits = [submitted];
    for (const event of command.waits) {
      const node = this.#byEvent.get(event);
      if (node !== undefined && event < command.id) waits.push(node);
      else if (event >= command.id)
        this.violations.push({
          rule: 3,
          message: `waits for ${event}, which is not recorded before it: ${describeCommand(command)}`,
          commands: [command],
        });
    }
    const node = this.#add(lanes[command.stream], waits, command, "");
    this.#byEvent.set(command.id, node);
    for (const { access, range } of accesses(command))
      this.#touch(
        node,
        range.buffer.name,
        range.buffer.bytes,
        range.offset,
        range.offset + range.bytes,
        access !== "read",
      );
  }

  #touch(node: number, buffer: string, bytes: number, start: number, end: number, write: boolean): void {
    let map = this.#bytes.get(buffer);
    if (!map) this.#bytes.set(buffer, (map = new ByteMap<Access>(bytes, { writer: -1, readers: [] }, copied)));
    for (const segment of map.read(start, end)) {
      const { writer, readers } = segment.value;
      if (writer >= 0 && writer !== node && !this.isBefore(writer, node)) this.#report(buffer, segment, writer, node);
      if (write)
        for (const reader of readers)
          if (reader !== node && !this.isBefore(reader, node)) this.#report(buffer, segment, reader, node);
    }
    if (write) map.write(start, end, { writer: node, readers: [] });
    else map.update(start, end, (access) => this.#withReader(access, node));
  }

  /** Of readers that follow each other in a stream the last one is enough. */
  #withReader(access: Access, node: number): Access {
    const { lane } = this.#nodes[node]!;
    if (lane !== lanes.host) access.readers = access.readers.filter((reader) => this.#nodes[reader]!.lane !== lane);
    access.readers.push(node);
    return access;
  }

  #report(buffer: string, { start, end }: { start: number; end: number }, first: number, second: number): void {
    const nodes = [this.#nodes[first]!, this.#nodes[second]!];
    const commands = nodes.flatMap(({ command }) => command ?? []);
    const [a, b] = nodes.map(({ command, text }) => (command ? describeCommand(command) : text));
    this.violations.push({
      rule: 1,
      message: `nothing orders these two on ${buffer}[${start}..${end}]:\n  ${a}\n  ${b}`,
      commands,
    });
  }
}

/** Bits of both; one of the two arrays where it has them all. */
function union(a: Uint32Array, b: Uint32Array): Uint32Array {
  if (a === b) return a;
  let [moreInA, moreInB] = [false, false];
  for (let word = 0; word < a.length; word++) {
    moreInA ||= (a[word]! & ~b[word]!) !== 0;
    moreInB ||= (b[word]! & ~a[word]!) !== 0;
  }
  if (!moreInB) return a;
  return moreInA ? a.map((bits, word) => bits | b[word]!) : b;
}

interface Access {
  writer: number;
  /** Since the writer. Each segment has its own list: it grows in place. */
  readers: number[];
}

const copied = ({ writer, readers }: Access): Access => ({ writer, readers: [...readers] });

/** Rules 1 and 3. */
export function checkOrder(steps: readonly RecordedStep[], { shape }: { shape: StepShape }): Violation[] {
  const bill = memoryBill(shape);
  const hostCommands = steps.flatMap(({ plan }) => plan.commands).filter(({ stream }) => stream === "host").length;
  const order = new Order(hostCommands);
  const over = new Map<number, number[]>();
  for (const { plan, side, measured, inputsFree } of steps) {
    const { label } = plan.commands[0]!;
    const touched = (role: Role) =>
      new Map(bill.filter((line) => line.side === side && line.role === role).map(({ name, bytes }) => [name, bytes]));
    const staged = order.javascript(
      "staging",
      over.get(side) ?? [],
      touched("input"),
      `JavaScript writes the inputs of step ${label.step}`,
    );
    for (const command of plan.commands) order.command(command, staged);
    if (![measured, inputsFree].every((event) => plan.has(event))) {
      const message = `the step's events ${measured} (measured) and ${inputsFree} (inputs free) are not of its plan`;
      order.violations.push({ rule: 3, message, commands: [] });
      continue;
    }
    const text = `JavaScript reads the results of step ${label.step}`;
    const read = order.javascript(`reading ${side}`, [order.of(measured)], touched("result"), text);
    over.set(side, [read, order.of(inputsFree)]);
  }
  return order.violations;
}
