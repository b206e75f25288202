// Runs single ops through plans, the way a step does: inputs are uploaded, the op runs on its stream, results come down.
//
// Every run is three: with one worker, with two, and with two again, and all must give the same bits. Ranges lie between
// guard bytes and only as aligned as their element; after a run, every byte outside the ranges the op may write must be
// what it was, inputs included. Outputs start as NaN (`output` in tensors.ts), so what is not written shows.
//
// A new device is one line in `devices`, and has to pass every test that `onDevices` makes. SLUICE_CPU=v3 runs the tests on
// the kernels of the smaller CPU level; SLUICE_TEST_DEVICE=cuda runs those of one device; SLUICE_TEST_SEED=n draws other numbers.

import { afterAll, beforeAll, describe, test } from "bun:test";
import { NativeError } from "../../src/words/errors.ts";
import { ops, type DeviceKind, type Dtype, type OpName, type Ops } from "../../src/native/abi.gen.ts";
import { Engine, type NativeBuffer } from "../../src/native/runtime.ts";
import { Plan, type Range } from "../../src/plan/plan.ts";
import { Draw, Tensor } from "./tensors.ts";

interface Device {
  device: DeviceKind;
  /** What it computes in. */
  dtypes: readonly Dtype[];
  /** Missing hardware skips the tests instead of failing them. */
  optional?: boolean;
  /** Refuses values that make no sense, by name; a GPU reads nothing wrong and lets NaN stop the step. */
  refuses?: boolean;
  /** Ranges start at multiples of this; else only where their element may. */
  alignment?: number;
  /**
   * Its matrix unit takes bfloat16, so attention rounds probabilities and their gradients before it multiplies them, and the
   * library rounds a product before it adds a bias: one rounding more than the reference.
   */
  matrixUnit?: boolean;
}

const all: Device[] = [
  { device: "cpu", dtypes: ["float32", "bfloat16"], refuses: true },
  { device: "cuda", dtypes: ["bfloat16"], optional: true, alignment: 16, matrixUnit: true },
  { device: "hip", dtypes: ["bfloat16"], optional: true, alignment: 16, matrixUnit: true },
];
const only = process.env["SLUICE_TEST_DEVICE"];
const devices = all.filter(({ device }) => only === undefined || device === only);

/** Tests of ops that a device computes, once per device. */
export function onDevices(body: (machine: Machine) => void): void {
  for (const device of devices) {
    const tests = () => onMachine(new Machine(device, "compute"), body);
    if (device.optional) describeIfThere(device.device, tests);
    else describe(device.device, tests);
  }
}

/** Tests of what only a GPU does, once per kind of GPU. */
export function onGpus(body: (device: "cuda" | "hip") => void): void {
  for (const device of ["cuda", "hip"] as const)
    if (only === undefined || only === device) describeIfThere(device, () => body(device));
}

/** One line for the file where the hardware is missing: thousands of skipped tests would hide the one that fails. */
function describeIfThere(device: DeviceKind, tests: () => void): void {
  const reason = whyMissing(device);
  if (reason !== undefined) test.skip(`${device} (${reason})`, () => {});
  else describe(device, tests);
}

/** Tests of ops that the host's worker pool computes, whatever the device is. */
export function onHost(body: (machine: Machine) => void): void {
  describe("host", () => onMachine(new Machine(all[0]!, "host"), body));
}

function onMachine(machine: Machine, body: (machine: Machine) => void): void {
  beforeAll(() => machine.open());
  afterAll(() => machine.close());
  body(machine);
}

/** Why tests on a device are skipped here; undefined where the hardware is there. */
export function whyMissing(device: DeviceKind): string | undefined {
  try {
    new Engine({ device, workers: 1 }).close();
    return undefined;
  } catch (error) {
    if (error instanceof NativeError) return error.message;
    throw error;
  }
}

/** A test with seeded numbers; a failure says how to draw the same ones again. */
export function trial(name: string, body: (draw: Draw) => Promise<void> | void): void {
  const seed = Number(process.env["SLUICE_TEST_SEED"] ?? Bun.hash.crc32(name));
  test(name, async () => {
    try {
      await body(new Draw(seed));
    } catch (error) {
      if (error instanceof Error) error.message += ` (SLUICE_TEST_SEED=${seed})`;
      throw error;
    }
  });
}

/** NaN, and an index that is none: what is read outside a range shows too. */
const guardByte = 0xff;
const guardBytes = 128;

export class Machine {
  readonly dtypes: readonly Dtype[];
  readonly refuses: boolean;
  readonly matrixUnit: boolean;
  /** How often a result of the matrix unit is rounded: more than once where operands are. */
  readonly productRoundings: number;
  readonly #device: DeviceKind;
  readonly #stream: "compute" | "host";
  readonly #alignment: number;
  #benches: Bench[] = [];

  constructor(
    { device, dtypes, refuses = false, alignment = 1, matrixUnit = false }: Device,
    stream: "compute" | "host",
  ) {
    this.#device = device;
    this.dtypes = dtypes;
    this.refuses = refuses;
    this.matrixUnit = matrixUnit;
    this.productRoundings = matrixUnit ? 2 : 1;
    this.#alignment = alignment;
    this.#stream = stream;
  }

  open(): void {
    this.#benches = [1, 2].map((workers) => new Bench(this.#device, workers, this.#stream));
  }
  close(): void {
    for (const bench of this.#benches) bench.engine.close();
  }

  /** The arguments again, what the op wrote in the place of what was there. */
  async run<Name extends OpName>(op: Name, args: Ops<Tensor>[Name]): Promise<Ops<Tensor>[Name]> {
    const layout = new Layout(op, args, this.#alignment);
    const [one, two] = this.#benches as [Bench, Bench];
    const first = layout.check(await one.play(op, layout), "with one worker");
    const second = layout.check(await two.play(op, layout), "with two workers");
    const third = layout.check(await two.play(op, layout), "when run again");
    for (const [other, what] of [
      [second, "two workers"],
      [third, "a second run"],
    ] as const)
      if (Buffer.compare(first, other) !== 0)
        throw new Error(`${op}: ${what} changed bits, ${layout.describe(first, other)}`);
    return layout.results(first);
  }

  /** The message of an op that must fail. */
  async failure<Name extends OpName>(op: Name, args: Ops<Tensor>[Name]): Promise<string> {
    const layout = new Layout(op, args, this.#alignment);
    const messages = new Set<string>();
    for (const bench of this.#benches)
      messages.add(
        await bench.play(op, layout).then(
          () => "no failure",
          (error: Error) => error.message,
        ),
      );
    return [...messages].join(" | ");
  }
}

/** An engine, and a buffer on its device that is laid anew for every run. */
class Bench {
  readonly engine: Engine;
  readonly #stream: "compute" | "host";
  #arena: NativeBuffer | undefined;
  #staging: NativeBuffer | undefined;

  constructor(device: DeviceKind, workers: number, stream: "compute" | "host") {
    this.engine = new Engine({ device, workers });
    this.#stream = stream;
  }

  /** Every byte of the arena after the op. */
  async play(op: OpName, layout: Layout): Promise<Uint8Array> {
    const { arena, staging } = this.#grown(layout.before.length);
    const bytes = layout.before.length;
    const window = new Uint8Array(staging.view(0, bytes));
    window.set(layout.before);
    const plan = new Plan({ step: 1, phase: this.#stream === "host" ? "update" : "forward" });
    const uploaded = plan.record("upload", "copy", { to: arena.range(0, bytes), from: staging.range(0, bytes) });
    const args = layout.arguments(arena) as Ops<Range>[OpName];
    const computed = plan.record(this.#stream, op, args, { waits: [uploaded] });
    plan.record(
      "download",
      "copy",
      { to: staging.range(0, bytes), from: arena.range(0, bytes) },
      { waits: [computed] },
    );
    await this.engine.play(plan);
    return window.slice();
  }

  #grown(bytes: number): { arena: NativeBuffer; staging: NativeBuffer } {
    if (this.#arena === undefined || this.#arena.bytes < bytes) {
      const size = 2 ** Math.ceil(Math.log2(Math.max(bytes, 1 << 20)));
      this.#arena?.free();
      this.#staging?.free();
      this.#arena = this.engine.buffer(this.#stream === "host" ? "host" : "device", size, "arena");
      this.#staging = this.engine.buffer("pinned", size, "staging");
    }
    return { arena: this.#arena, staging: this.#staging! };
  }
}

interface Placed {
  fields: string[];
  tensor: Tensor;
  offset: number;
  written: boolean;
}

/** Where a command's ranges lie in one buffer, between guards. The same tensor in two fields is the same range. */
class Layout {
  readonly before: Uint8Array<ArrayBuffer>;
  readonly #op: OpName;
  readonly #args: Record<string, unknown>;
  readonly #placed = new Map<Tensor, Placed>();

  constructor(op: OpName, args: object, alignment: number) {
    this.#op = op;
    this.#args = args as Record<string, unknown>;
    let end = guardBytes;
    for (const [field, value] of Object.entries(args)) {
      if (!(value instanceof Tensor)) continue;
      const written = ops[op].ranges[field] !== "read";
      const placed = this.#placed.get(value);
      if (placed) {
        placed.fields.push(field);
        placed.written ||= written;
        continue;
      }
      // One element, or what the device wants, past a multiple of 64 bytes: no more alignment than is promised.
      const offset = end + Math.max(alignment, value.elementBytes);
      this.#placed.set(value, { fields: [field], tensor: value, offset, written });
      end = Math.ceil((offset + value.bytes.length) / 64) * 64 + guardBytes;
    }
    this.before = new Uint8Array(end).fill(guardByte);
    for (const { tensor, offset } of this.#placed.values()) this.before.set(tensor.bytes, offset);
  }

  arguments(arena: NativeBuffer): Record<string, unknown> {
    const rangeOf = (value: Tensor): Range | null =>
      value.bytes.length === 0 ? null : arena.range(this.#placed.get(value)!.offset, value.bytes.length);
    return mapValues(this.#args, (value) => (value instanceof Tensor ? rangeOf(value) : value));
  }

  /** What the op wrote, in order of its ranges; throws when it wrote anything else. */
  check(after: Uint8Array, when: string): Uint8Array {
    const written = [...this.#placed.values()].filter((placed) => placed.written);
    let from = 0;
    for (const { fields, offset, tensor } of [
      ...written,
      { fields: ["the end"], offset: after.length, tensor: undefined },
    ]) {
      if (Buffer.compare(after.subarray(from, offset), this.before.subarray(from, offset)) !== 0)
        throw new Error(`${this.#op} wrote outside its outputs ${when}, before ${fields.join(" and ")}`);
      from = offset + (tensor?.bytes.length ?? 0);
    }
    return Buffer.concat(written.map(({ offset, tensor }) => after.subarray(offset, offset + tensor.bytes.length)));
  }

  results<Args>(written: Uint8Array): Args {
    const after = new Map<unknown, Tensor>();
    let from = 0;
    for (const { tensor } of [...this.#placed.values()].filter((placed) => placed.written)) {
      after.set(tensor, new Tensor(tensor.element, new Uint8Array(written.slice(from, from + tensor.bytes.length))));
      from += tensor.bytes.length;
    }
    return mapValues(this.#args, (value) => after.get(value) ?? value) as Args;
  }

  /** The first field in which two results differ. */
  describe(one: Uint8Array, other: Uint8Array): string {
    const [a, b] = [this.results<Record<string, unknown>>(one), this.results<Record<string, unknown>>(other)];
    for (const [field, value] of Object.entries(a)) {
      if (!(value instanceof Tensor)) continue;
      const [found, again] = [value.bytes, (b[field] as Tensor).bytes];
      const at = found.findIndex((byte, i) => byte !== again[i]);
      if (at >= 0) return `first in ${field} at ${Math.floor(at / value.elementBytes)}`;
    }
    return "nowhere";
  }
}

function mapValues(object: Record<string, unknown>, map: (value: unknown) => unknown): Record<string, unknown> {
  return Object.fromEntries(Object.entries(object).map(([key, value]) => [key, map(value)]));
}
