// The engine as TypeScript sees it: buffers, plans played asynchronously, failures as errors. One `Engine` owns native
// memory and threads; `using` or `close()` frees them, nothing is left to the garbage collector.
//
// Waiting holds one pending read on the library's notification pipe, shared by all engines, so that the process stays
// alive exactly as long as somebody waits.

import { read } from "node:fs";
import { CancelledError, MemoryError, NativeError, StepError, assert } from "../words/errors.ts";
import { accesses, describeLabel, Range, type BufferLike, type Event, type Plan } from "../plan/plan.ts";
import { deviceKinds, tiers, type DeviceKind, type Tier } from "./abi.gen.ts";
import { formatBytes, formatTiers } from "../words/format.ts";
import { isGpu } from "./devices.ts";
import { usableHostBytes } from "./host-memory.ts";
import { writableCacheDirectory } from "../words/cache.ts";
import { kernelFiles, native, viewInto, type Native } from "./library.ts";

/** A named range of native memory, or an open file. Zeroed when made. */
export class NativeBuffer implements BufferLike {
  readonly engine: Engine;
  readonly handle: number;
  readonly name: string;
  readonly tier: Tier;
  readonly bytes: number;

  /** Use `Engine.buffer` or `Engine.file`. */
  constructor(engine: Engine, handle: number, name: string, tier: Tier, bytes: number) {
    this.engine = engine;
    this.handle = handle;
    this.name = name;
    this.tier = tier;
    this.bytes = bytes;
  }

  range(offset?: number, bytes?: number): Range {
    return new Range(this, offset, bytes);
  }

  /** A window for JavaScript into pinned or host memory; not to be kept after `free`. */
  view(offset = 0, bytes = this.bytes - offset): ArrayBuffer {
    assert(this.tier === "pinned" || this.tier === "host", `no view into ${this.tier} buffer ${this.name}`);
    return this.engine.viewInto(this, offset, bytes);
  }

  free(): void {
    this.engine.free(this);
  }

  [Bun.inspect.custom](): string {
    return `NativeBuffer(${this.name}, ${this.tier}, ${formatBytes(this.bytes)})`;
  }
}

export interface EngineOptions {
  device: DeviceKind;
  /** Threads of the worker pools. */
  workers: number;
  /**
   * Hard limit for the device, bytes; no limit by default. On a GPU it covers everything that this process takes on the card,
   * context and libraries included.
   */
  deviceBytesMax?: number;
  /**
   * GPUs: measure the algorithms of matrix products, or take the library's first guess, which is always the same. True unless
   * SLUICE_TUNE is 0.
   */
  tune?: boolean;
}

/** What is known about an engine's GPU. */
export interface DeviceInfo {
  name: string;
  /** All memory of the card, and what is free now. */
  totalBytes: number;
  freeBytes: number;
  /** What context, kernels, libraries and workspaces take beside buffers. */
  overheadBytes: number;
  /** What the engine's device buffers take; each is rounded up to a multiple of `allocationBytes`. */
  bufferBytes: number;
  allocationBytes: number;
  /** Compute capability, 9 for Hopper; 0 on AMD. */
  capability: number;
  multiprocessors: number;
  /** As the driver numbers itself: 13000 is CUDA 13.0. */
  driverVersion: number;
}

/** What a run may take, in bytes. */
export interface Limits {
  /** For buffers on the device; a GPU's context, kernels and libraries are `overhead`, and not part of it. */
  device: number;
  overhead: number;
  /** Whether `deviceMemory` makes the limit, or the device does. */
  capped: boolean;
  /** How the device hands memory out; undefined where every byte counts by itself. */
  pieceBytes: number | undefined;
  /** For everything on the host; the cpu device's buffers are there, too. */
  host: number;
}

interface Waiter {
  event: Event;
  resolve(): void;
  reject(error: Error): void;
}

export class Engine implements Disposable {
  readonly device: DeviceKind;
  /** The most bytes that device buffers may take; on a GPU, what is left of the limit beside context and libraries. */
  readonly deviceBytesMax: number;
  readonly workers: number;
  #native: Native = native();
  #handle: number;
  #plans: Plan[] = [];
  #waiters = new Set<Waiter>();
  /** Plans that a failure cut short, by their ids; the last few. */
  #failed: { from: Event; below: Event; error: Error }[] = [];
  #closed = false;
  #out = new BigUint64Array(new ArrayBuffer(64));

  constructor(options: EngineOptions) {
    this.device = options.device;
    this.workers = options.workers;
    const limit = options.deviceBytesMax ?? Number.MAX_SAFE_INTEGER;
    const kernels = isGpu(options.device) ? kernelFiles(options.device).join("\n") : "";
    const cache = isGpu(options.device) ? writableCacheDirectory() : "";
    this.#check(
      this.#native.sluice_engine_create(
        deviceKinds[options.device],
        options.workers,
        limit,
        cString(kernels),
        cString(cache),
        (options.tune ?? process.env["SLUICE_TUNE"] !== "0") ? 1 : 0,
        this.#out,
      ),
    );
    this.#handle = Number(this.#out[0]! & 0xffffffffn);
    this.deviceBytesMax = limit;
    if (isGpu(options.device)) {
      const { totalBytes, overheadBytes } = this.deviceInfo();
      this.deviceBytesMax = Math.min(limit, totalBytes) - overheadBytes;
    }
    listening.engines.add(this);
  }

  /** Facts and figures of the GPU; NativeError on other devices. */
  deviceInfo(): DeviceInfo {
    const name = new Uint8Array(new ArrayBuffer(256));
    this.#check(this.#native.sluice_device_info(this.#handle, name, this.#out));
    const [total, free, overhead, buffers, capability, multiprocessors, version, granule] = [...this.#out].map(Number);
    return {
      name: new TextDecoder().decode(name.subarray(0, name.indexOf(0))),
      totalBytes: total!,
      freeBytes: free!,
      overheadBytes: overhead!,
      bufferBytes: buffers!,
      allocationBytes: granule!,
      capability: capability! / 10,
      multiprocessors: multiprocessors!,
      driverVersion: version!,
    };
  }

  /** What buffers may take in all, those that are there included. A GPU may have less than the limit: others use it, too. */
  limits(): Limits {
    const host = usableHostBytes();
    if (!isGpu(this.device))
      return { device: this.deviceBytesMax, overhead: 0, capped: true, pieceBytes: undefined, host };
    const { freeBytes, bufferBytes, overheadBytes: overhead, allocationBytes: pieceBytes } = this.deviceInfo();
    const there = freeBytes + bufferBytes;
    const device = Math.min(this.deviceBytesMax, there);
    return { device, overhead, capped: device < there, pieceBytes, host };
  }

  // ---- memory -------------------------------------------------------------------------------------------------------

  /** Makes a zeroed buffer; MemoryError when the tier is too small. */
  buffer(tier: Exclude<Tier, "file">, bytes: number, name: string): NativeBuffer {
    const text = new TextEncoder().encode(name);
    const status = this.#native.sluice_buffer_create(this.#handle, tiers[tier], bytes, text, text.length, this.#out);
    if (status !== 0) throw new MemoryError(this.#lastError());
    return new NativeBuffer(this, Number(this.#out[0]! & 0xffffffffn), name, tier, bytes);
  }

  /** Opens an existing file of `bytes` bytes for reading, or creates one. */
  file(path: string, mode: "read" | "write", bytes: number): NativeBuffer {
    this.#check(this.#native.sluice_file_open(this.#handle, cString(path), mode === "read" ? 0 : 1, bytes, this.#out));
    return new NativeBuffer(this, Number(this.#out[0]! & 0xffffffffn), path, "file", bytes);
  }

  free(buffer: NativeBuffer): void {
    this.#check(this.#native.sluice_buffer_destroy(this.#handle, buffer.handle));
  }

  viewInto(buffer: NativeBuffer, offset: number, bytes: number): ArrayBuffer {
    // The null device keeps a digest of 8 bytes for every 64.
    const bytesKept = this.device === "null" ? Math.ceil(buffer.bytes / 64) * 8 : buffer.bytes;
    assert(offset + bytes <= bytesKept, `view ${offset}+${bytes} is outside ${buffer.name}`);
    this.#check(this.#native.sluice_buffer_address(this.#handle, buffer.handle, this.#out));
    return viewInto(this.#out[0]!, offset, bytes);
  }

  /** Bytes held now, per tier. */
  held(): Record<Tier, number> {
    this.#check(this.#native.sluice_memory_held(this.#handle, this.#out));
    const [device, pinned, host, file] = [...this.#out.subarray(0, 4)].map(Number) as [number, number, number, number];
    return { device, pinned, host, file };
  }

  // ---- plans --------------------------------------------------------------------------------------------------------

  /**
   * Hands a plan to the native threads and returns at once. At most four plans are in flight. Throws the failure of an
   * earlier plan that nobody has waited for.
   */
  submit(plan: Plan): void {
    assert(plan.commands.length > 0, "an empty plan");
    const words = plan.encode();
    const { base, commands } = plan;
    const status = this.#native.sluice_plan_submit(this.#handle, base, commands.length, words, words.length);
    if (status === failureWaits) throw this.#failureAtRest();
    this.#check(status);
    this.#plans = [...this.#plans.slice(-3), plan];
  }

  /** Resolves when the event (marked by `plan.notify`) is there; StepError or CancelledError when the step stopped. */
  done(event: Event): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(closedError());
      const failure = this.#failureAt(event);
      if (failure) return reject(failure);
      this.#waiters.add({ event, resolve, reject });
      this.settle();
      listen();
    });
  }

  /** Blocks until the event is there. For tests and the REPL: timers and Ctrl-C wait too. */
  doneSync(event: Event, timeoutMs = 600_000): void {
    if (this.#native.sluice_command_wait(this.#handle, event, timeoutMs) !== 0)
      throw new NativeError(this.#lastError());
    if (this.#native.sluice_command_state(this.#handle, event) === 1) return;
    throw this.#failureAtRest();
  }

  /** Plays a plan and waits for all of it. */
  async play(plan: Plan): Promise<void> {
    for (const event of lastEvents(plan)) plan.notify(event);
    this.submit(plan);
    await Promise.all(lastEvents(plan).map((event) => this.done(event)));
  }

  /** What cut a plan short, once somebody has been told. */
  failureOf(plan: Plan): Error | undefined {
    return this.#failureAt(plan.base);
  }

  #failureAt(event: Event): Error | undefined {
    return this.#failed.find(({ from, below }) => event >= from && event < below)?.error;
  }

  /** Resolves when every plan submitted so far has ended; rejects when one fails of which nobody has been told. */
  async idle(): Promise<void> {
    for (const plan of this.#plans) await Promise.all(lastEvents(plan).map((event) => this.#poll(event)));
  }

  /** Waits for an event that nobody marked: looks every millisecond. */
  async #poll(event: Event): Promise<void> {
    while (this.#native.sluice_command_state(this.#handle, event) === 0) await Bun.sleep(1);
    await this.done(event);
  }

  /** Stops what is in flight between two commands; whoever waits gets a CancelledError. */
  cancel(): void {
    this.#native.sluice_cancel(this.#handle);
  }

  /**
   * Whether a GPU's own clock times every command from now on, which costs it two events a command; without, `spans` and `busy` know
   * GPU commands as the host sees them begin and end, some 50 µs apart. Other devices time everything anyway.
   */
  trace(on: boolean): void {
    this.#check(this.#native.sluice_trace(this.#handle, on ? 1 : 0));
  }

  /** Start and end of each command of a finished plan, nanoseconds on one clock; NaN for those that did not run. */
  spans(plan: Plan): { start: number; end: number }[] {
    const raw = new BigUint64Array(new ArrayBuffer(plan.commands.length * 16));
    this.#check(this.#native.sluice_plan_spans(this.#handle, plan.base, plan.commands.length, raw));
    return plan.commands.map((_, index) => ({
      start: Number(raw[index * 2]) || NaN,
      end: Number(raw[index * 2 + 1]) || NaN,
    }));
  }

  /** Seconds each stream has been busy since the engine was made. */
  busy(): { compute: number; upload: number; download: number; host: number; disk: number } {
    this.#check(this.#native.sluice_busy(this.#handle, this.#out));
    const [compute, upload, download, host, disk] = [...this.#out.subarray(0, 5)].map((ns) => Number(ns) / 1e9);
    return { compute: compute!, upload: upload!, download: download!, host: host!, disk: disk! };
  }

  /** For tests: a command that fails instead of running, and random pauses before each command. */
  disturb(options: { fail?: Event; jitterUs?: number; seed?: number }): void {
    const { fail = 0, jitterUs = 0, seed = 0 } = options;
    this.#check(this.#native.sluice_disturb(this.#handle, fail, jitterUs, seed));
  }

  /** Stops the threads and frees every buffer. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    listening.engines.delete(this);
    this.#check(this.#native.sluice_engine_destroy(this.#handle));
    for (const waiter of this.#waiters) waiter.reject(closedError());
    this.#waiters.clear();
    listen();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  [Bun.inspect.custom](): string {
    const held = (): string => formatTiers(Object.entries(this.held()).map(([tier, bytes]) => ({ tier, bytes })));
    return `Engine(${this.device}, ${this.workers} ${this.workers === 1 ? "worker" : "workers"}, ${this.#closed ? "closed" : `holds ${held()}`})`;
  }

  // ---- waiting ------------------------------------------------------------------------------------------------------

  get waits(): boolean {
    return this.#waiters.size > 0;
  }

  /** Resolves whoever's event is there; called when something has happened. */
  settle(): void {
    let skipped = false;
    for (const waiter of this.#waiters) {
      const state = this.#native.sluice_command_state(this.#handle, waiter.event);
      if (state === 1) {
        this.#waiters.delete(waiter);
        waiter.resolve();
      } else if (state === 2) skipped = true;
    }
    if (skipped) this.#takeFailure(); // nothing yet while other streams run dry; another notification follows
  }

  /** The failure that is on its way: what runs at the moment ends, nothing else begins. */
  #failureAtRest(): Error {
    for (;;) {
      const failure = this.#takeFailure();
      if (failure) return failure;
      Bun.sleepSync(1);
    }
  }

  /** The failure once everything has come to rest. Whoever waits for any plan in flight gets it, too. */
  #takeFailure(): Error | undefined {
    const done = (event: Event) => this.#native.sluice_command_state(this.#handle, event) === 1;
    const cut = this.#plans.filter((plan) => !lastEvents(plan).every(done));
    const status = this.#native.sluice_failure_take(this.#handle, this.#out);
    if (status <= 0) return undefined;
    const error = status === 2 ? new CancelledError(this.#lastError()) : this.#errorOf(Number(this.#out[0]));
    const ranges = cut.map(({ base, commands }) => ({ from: base, below: base + commands.length, error }));
    this.#failed = [...this.#failed, ...ranges].slice(-failuresKept);
    this.#plans = [];
    for (const waiter of this.#waiters) waiter.reject(error);
    this.#waiters.clear();
    return error;
  }

  #errorOf(id: Event): Error {
    const command = this.#plans.find((plan) => plan.has(id))?.command(id);
    if (!command) return new StepError(`command ${id} failed: ${this.#lastError()}`);
    const buffers = [...accesses(command)].map(({ range }) => range.buffer.name);
    return new StepError(
      `${describeLabel(command.label)}: ${command.op} on ${command.stream} failed: ${this.#lastError()} (buffers ${[...new Set(buffers)].join(", ")})`,
    );
  }

  #lastError(): string {
    return String(this.#native.sluice_last_error());
  }

  #check(status: number): void {
    if (status !== 0) throw new NativeError(this.#lastError());
  }
}

const cString = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(`${text}\0`);

const closedError = (): Error => new CancelledError("the engine was closed");

/** What the executor answers to a plan while a failure has not been taken. */
const failureWaits = 2;
const failuresKept = 64;

/**
 * Who may be waiting, and whether the pipe is being read. There is one pipe in a process, but `bun --hot` evaluates this
 * file again while engines of its former self live on: they share this, or two readers would take each other's notes.
 */
interface Listening {
  engines: Set<Pick<Engine, "waits" | "settle">>;
  reading: boolean;
}
const key = Symbol.for("sluice.listening");
const shared = globalThis as { [key]?: Listening };
const listening = (shared[key] ??= { engines: new Set(), reading: false });
const notification = new Uint8Array(new ArrayBuffer(4096));

/** One read at a time, and only while somebody waits: a read that nobody needs any more is woken up. */
function listen(): void {
  const wanted = [...listening.engines].some((engine) => engine.waits);
  if (listening.reading && !wanted) native().sluice_wake();
  if (listening.reading || !wanted) return;
  listening.reading = true;
  read(native().sluice_descriptor(), notification, 0, notification.length, null, () => {
    listening.reading = false;
    for (const engine of listening.engines) engine.settle();
    listen();
  });
}

/** The last command of each in-order stream and every host command: when these are there, the plan is done. */
function lastEvents(plan: Plan): Event[] {
  const last = new Map<string, Event>();
  for (const command of plan.commands)
    last.set(command.stream === "host" ? `host ${command.id}` : command.stream, command.id);
  return [...last.values()];
}
