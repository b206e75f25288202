// A plan: the commands of one step, on streams, ordered by events. Recording does nothing but remember; the same plan is
// played by the executor (`native/runtime.ts`), checked (`check/check.ts`), simulated (`simulate.ts`) and printed.
//
// A command is its own event: `record` returns the event that is there when the command is done. Ids count on from plan
// to plan, so that a command can wait for one of the step before. `compute`, `upload`, `download` and `disk` take their
// commands in order; `host` takes, among those whose waits are done, the one with the earliest deadline.
// What a step's commands wait for is decided by the owners of buffers in `step/` (`window.ts` first); nobody else orders streams.

import { assert } from "../words/errors.ts";
import {
  ops,
  streams,
  type Access,
  type OpName,
  type Ops,
  type Tier,
  type Stream,
  type Writer,
} from "../native/abi.gen.ts";

/** What a plan needs to know of a buffer; the native ones and the simulator's have more. */
export interface BufferLike {
  readonly handle: number;
  readonly name: string;
  readonly tier: Tier;
  readonly bytes: number;
}

/** A range of bytes of a buffer. */
export class Range {
  readonly buffer: BufferLike;
  readonly offset: number;
  readonly bytes: number;

  constructor(buffer: BufferLike, offset = 0, bytes = buffer.bytes - offset) {
    // The sentences are only made when they are needed: a plan has tens of thousands of ranges.
    if (offset < 0 || bytes < 0 || offset + bytes > buffer.bytes)
      assert(false, `range ${offset}+${bytes} is outside ${buffer.name} (${buffer.bytes} bytes)`);
    this.buffer = buffer;
    this.offset = offset;
    this.bytes = bytes;
  }

  /** A part of this range, by bytes from its start. */
  slice(offset: number, bytes = this.bytes - offset): Range {
    if (offset + bytes > this.bytes) assert(false, `slice ${offset}+${bytes} is outside ${this.toString()}`);
    return new Range(this.buffer, this.offset + offset, bytes);
  }

  [Bun.inspect.custom](): string {
    return `Range(${this.toString()}, ${this.buffer.tier})`;
  }

  toString(): string {
    return `${this.buffer.name}[${this.offset}..${this.offset + this.bytes}]`;
  }
}

/** The id of a command, there once the command is done. */
export type Event = number;

/** What a command is part of; for errors, traces and the rules that are about blocks. */
export interface Label {
  readonly step: number;
  readonly phase: "load" | "embed" | "forward" | "loss" | "backward" | "update" | "save" | "generate";
  readonly pass?: number;
  readonly block?: number | "embedding" | "head";
  readonly microBatch?: number;
}

export interface Command<Name extends OpName = OpName> {
  readonly id: Event;
  readonly stream: Stream;
  readonly op: Name;
  readonly arguments: Ops<Range>[Name];
  readonly waits: readonly Event[];
  readonly deadline: number;
  readonly label: Label;
  notify: boolean;
}

/**
 * Bytes that one stream writes and another reads: who did so last. A slot, a ring slot, a chunk of parameters, a boundary.
 * Commands name the resources they touch, and the recorder turns that into waits: a reader waits for the last writer, a
 * writer for everybody since.
 */
export class Resource {
  #written: Event | undefined;
  #readers: { event: Event; stream: Stream }[] = [];

  toRead(): readonly Event[] {
    return this.#written === undefined ? [] : [this.#written];
  }

  /** Every reader waited for the writer, so the readers are enough where there are any. */
  toWrite(): readonly Event[] {
    return this.#readers.length > 0 ? this.#readers.map(({ event }) => event) : this.toRead();
  }

  wrote(event: Event): void {
    this.#written = event;
    this.#readers = [];
  }

  /** Of the readers on a stream that is in order the last one is enough; so weights that only evaluation reads stay few. */
  read(event: Event, stream: Stream): void {
    if (stream !== "host") this.#readers = this.#readers.filter((reader) => reader.stream !== stream);
    this.#readers.push({ event, stream });
  }
}

/** A range, and who touched it last. */
export interface Tracked {
  readonly range: Range;
  readonly resource: Resource;
}

export const tracked = (range: Range): Tracked => ({ range, resource: new Resource() });

/** A range in pieces of so many bytes, each with its own readers and writers. */
export const pieces = (range: Range, bytes: number): Tracked[] =>
  Array.from({ length: Math.floor(range.bytes / bytes) }, (_, index) => tracked(range.slice(index * bytes, bytes)));

export interface RecordOptions {
  /** Resources this command reads, and those it writes (or reads and writes). */
  reads?: readonly Resource[];
  writes?: readonly Resource[];
  /** Further events to wait for. */
  waits?: readonly Event[];
  /** On the host stream: lower runs first. */
  deadline?: number;
}

/** Ids are never used twice in a process, not even when `bun --hot` evaluates this file again: engines remember them. */
const counterKey = Symbol.for("sluice.events");
const counter = ((globalThis as { [counterKey]?: { next: Event } })[counterKey] ??= { next: 1 });

export class Plan {
  /** The id of the first command. */
  readonly base: Event = counter.next;
  readonly commands: Command[] = [];
  /** Stamped on every command recorded from now on. */
  label: Label;
  #pending = new Map<Stream, Event[]>();
  #last = new Map<Stream, Event>();

  constructor(label: Label) {
    this.label = label;
  }

  /** Adds a command to a stream; it starts when the stream is there (host: when its turn comes) and `waits` are done. */
  record<Name extends OpName>(stream: Stream, op: Name, args: Ops<Range>[Name], options: RecordOptions = {}): Event {
    const id = counter.next++;
    assert(id === this.base + this.commands.length, "two plans are being recorded at once");
    const { reads = [], writes = [], waits: further = [], deadline = 0 } = options;
    const orders = [...reads.map((resource) => resource.toRead()), ...writes.map((resource) => resource.toWrite())];
    const waits = this.#needed(stream, [...(this.#pending.get(stream) ?? []), ...further, ...orders.flat()]);
    for (const resource of reads) resource.read(id, stream);
    for (const resource of writes) resource.wrote(id);
    this.#pending.delete(stream);
    this.#last.set(stream, id);
    const command = { id, stream, op, arguments: args, waits, deadline, label: this.label, notify: false };
    this.commands.push(command as unknown as Command);
    return id;
  }

  /** `record` for one stream. */
  on(stream: Stream): <Name extends OpName>(op: Name, args: Ops<Range>[Name], options?: RecordOptions) => Event {
    return (op, args, options) => this.record(stream, op, args, options);
  }

  /** The next command recorded on `stream` waits for these, too. */
  wait(stream: Stream, ...events: Event[]): void {
    this.#pending.set(stream, [...(this.#pending.get(stream) ?? []), ...events]);
  }

  /** Compute is about to read (or write) this, over several commands; `settle` it after the last of them. */
  acquire(resource: Resource, access: "read" | "write"): void {
    this.wait("compute", ...(access === "read" ? resource.toRead() : resource.toWrite()));
  }

  /** Compute has read (or written) this. */
  settle(resource: Resource, access: "read" | "write"): void {
    if (access === "read") resource.read(this.last("compute"), "compute");
    else resource.wrote(this.last("compute"));
  }

  /** The last command of a stream so far. */
  last(stream: Stream): Event {
    const event = this.#last.get(stream);
    assert(event !== undefined, `nothing was recorded on ${stream} yet`);
    return event;
  }

  /** JavaScript will wait for this event. */
  notify(event: Event): void {
    this.command(event).notify = true;
  }

  command(event: Event): Command {
    const found = this.commands[event - this.base];
    assert(found !== undefined, `event ${event} is not of this plan`);
    return found;
  }

  has(event: Event): boolean {
    return event >= this.base && event < this.base + this.commands.length;
  }

  /** Drops waits that say nothing: twice the same, or an earlier command of a stream that is in order anyway. */
  #needed(stream: Stream, waits: readonly Event[]): Event[] {
    const latest = new Map<Stream, Event>();
    const others = new Set<Event>();
    for (const event of waits) {
      const of = this.has(event) ? this.command(event).stream : undefined;
      if (of === undefined || of === "host") others.add(event);
      else if (of !== stream) latest.set(of, Math.max(latest.get(of) ?? 0, event));
    }
    return [...others, ...latest.values()];
  }

  /** The plan as words for the native decoder. */
  encode(): Uint32Array<ArrayBuffer> {
    const writer = new WordWriter(this.commands.length * 64);
    for (const command of this.commands) {
      const { code, encode } = ops[command.op];
      writer.word(code);
      writer.word(streams[command.stream]);
      writer.word(command.deadline);
      writer.word(command.notify ? 1 : 0);
      writer.word(command.waits.length);
      for (const event of command.waits) writer.double(event);
      (encode as (w: Writer, a: unknown) => void)(writer, command.arguments);
    }
    return writer.words();
  }

  /** What a REPL shows: how many commands each stream has; `toString` has them all. */
  [Bun.inspect.custom](): string {
    const counts = Map.groupBy(this.commands, ({ stream }) => stream);
    const parts = [...counts].map(([stream, commands]) => `${commands.length} on ${stream}`);
    return `Plan(step ${this.label.step}: ${parts.join(", ") || "empty"})`;
  }

  /** One line per command: id, stream, op, what it is part of, ranges, waits. */
  toString(): string {
    return this.commands.map(describeCommand).join("\n");
  }
}

/** The ranges a command touches, and how. An accumulator that this command starts anew is only written. */
export function* accesses(command: Command): Generator<{ field: string; access: Access; range: Range }> {
  const { ranges, accumulators } = ops[command.op];
  const values = command.arguments as unknown as Record<string, Range | number | null>;
  for (const field in ranges) {
    const range = values[field];
    if (!(range instanceof Range) || range.bytes === 0) continue;
    const governing = accumulators[field];
    const access = governing !== undefined && values[governing] === 0 ? "write" : ranges[field]!;
    yield { field, access, range };
  }
}

export function describeLabel(label: Label): string {
  const parts: string[] = [`step ${label.step}`, label.phase];
  if (label.block !== undefined) parts.push(typeof label.block === "number" ? `block ${label.block}` : label.block);
  if (label.microBatch !== undefined) parts.push(`micro-batch ${label.microBatch}`);
  if (label.pass !== undefined && label.pass > 0) parts.push(`pass ${label.pass}`);
  return parts.join(" ");
}

export function describeCommand(command: Command): string {
  const touched = [...accesses(command)].map(
    ({ field, access, range }) => `${{ read: "", write: ">", readwrite: "<>" }[access]}${field}=${range}`,
  );
  const waits = command.waits.length > 0 ? ` after ${command.waits.join(",")}` : "";
  const deadline = command.stream === "host" ? ` deadline ${command.deadline}` : "";
  return `${command.id} ${command.stream} ${command.op} (${describeLabel(command.label)}) ${touched.join(" ")}${deadline}${waits}`;
}

/** Words of 32 bits, little-endian, growing as needed. */
class WordWriter implements Writer {
  #words: Uint32Array<ArrayBuffer>;
  #view: DataView;
  #count = 0;

  constructor(capacity: number) {
    this.#words = new Uint32Array(Math.max(capacity, 256));
    this.#view = new DataView(this.#words.buffer);
  }
  word(value: number): void {
    if (this.#count + 2 > this.#words.length) this.#grow();
    this.#words[this.#count++] = value;
  }
  double(value: number): void {
    this.word(value >>> 0);
    this.word(Math.floor(value / 2 ** 32));
  }
  float(value: number): void {
    this.word(0);
    this.#view.setFloat32((this.#count - 1) * 4, value, true);
  }
  float64(value: number): void {
    this.word(0);
    this.word(0);
    this.#view.setFloat64((this.#count - 2) * 4, value, true);
  }
  range(value: { buffer: { handle: number }; offset: number; bytes: number } | null): void {
    this.word(value === null ? 0 : value.buffer.handle);
    this.double(value === null ? 0 : value.offset);
    this.double(value === null ? 0 : value.bytes);
  }
  words(): Uint32Array<ArrayBuffer> {
    return this.#words.subarray(0, this.#count);
  }
  #grow(): void {
    const larger = new Uint32Array(this.#words.length * 2);
    larger.set(this.#words);
    this.#words = larger;
    this.#view = new DataView(larger.buffer);
  }
}
