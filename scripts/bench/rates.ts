// Times commands of plans and turns seconds into rates. A rate is what the executor itself saw: start and end of each
// command on its own clock, so recording, submitting and waiting are not in it.

import type { Dtype, OpName, Ops } from "../../src/native/abi.gen.ts";
import type { NativeBuffer, Engine } from "../../src/native/runtime.ts";
import { Plan, type Range } from "../../src/plan/plan.ts";
import { Random } from "../../src/words/random.ts";

/** Work per second; more is better. */
export interface Rate {
  group: string;
  name: string;
  unit: "GFLOP/s" | "GB/s" | "Gparam/s" | "Mcommand/s";
  best: number;
  median: number;
  /** (best − worst of nine in ten) / best: how restless the machine was. */
  spread: number;
  runs: number;
  /** What issue 2 (on this many workers) or issue 3 (on a GPU) demands of the best run. */
  floor?: number;
}

const secondsPerOp = 0.5;
const runsMax = 400;

export class Bench implements Disposable {
  readonly engine: Engine;
  #buffers: NativeBuffer[] = [];

  constructor(engine: Engine) {
    this.engine = engine;
    if (this.onGpu) engine.trace(true); // a command's own time, not when the host saw it
  }

  get onGpu(): boolean {
    return this.engine.device !== "cpu";
  }

  /** What the device computes in. */
  get dtypes(): readonly ("float32" | "bfloat16")[] {
    return this.onGpu ? ["bfloat16"] : ["float32", "bfloat16"];
  }

  /**
   * Seconds of each run of a command, about half a second of them. `args` of run i may name other ranges. What an op
   * changes in tier is restored before each run: values that shrink from run to run end as denormals, which are slow.
   */
  async time<Name extends OpName>(
    stream: "compute" | "host",
    op: Name,
    args: (run: number) => Ops<Range>[Name],
    restore?: Ops<Range>["copy"],
  ): Promise<number[]> {
    const play = async (runs: number): Promise<number[]> => {
      const plan = new Plan({ step: 1, phase: "forward" });
      // The host stream takes whatever is ready: one after the other, so that no two share the workers.
      const afterLast = () => ({ waits: plan.commands.length > 0 ? [plan.last(stream)] : [] });
      for (let run = 0; run < runs; run++) {
        if (restore) plan.record(stream, "copy", restore, afterLast());
        plan.record(stream, op, args(run), afterLast());
      }
      await this.engine.play(plan);
      const spans = this.engine.spans(plan).filter((_, i) => plan.commands[i]!.op === op);
      return spans.map(({ start, end }) => (end - start) / 1e9);
    };
    const [first] = await play(1); // page faults and cold caches are not counted
    return play(Math.min(runsMax, Math.max(10, Math.round(secondsPerOp / first!))));
  }

  /** A buffer of normal numbers (or zeros), freed by `free`. */
  async buffer(
    tier: "device" | "pinned" | "host",
    count: number,
    dtype: Dtype,
    content: "normal" | "zero",
  ): Promise<Range> {
    const bytes = count * (dtype === "float32" ? 4 : 2);
    const buffer = this.engine.buffer(tier, bytes, `bench ${this.#buffers.length}`);
    this.#buffers.push(buffer);
    const plan = new Plan({ step: 1, phase: "load" });
    const stream = tier === "device" ? "upload" : "host";
    if (content === "zero" && tier === "device" && this.onGpu) return buffer.range(); // made zero by the device itself
    if (content === "zero") {
      plan.record(stream, "zero", { to: buffer.range() }); // it is zero already, but its pages are not there
      await this.engine.play(plan);
      return buffer.range();
    }
    const pattern = this.#pattern(dtype);
    for (let offset = 0; offset < bytes; offset += pattern.bytes) {
      const part = Math.min(pattern.bytes, bytes - offset);
      plan.record(stream, "copy", { to: buffer.range(offset, part), from: pattern.slice(0, part) });
    }
    await this.engine.play(plan);
    return buffer.range();
  }

  /** A host buffer with these values. */
  onHost(values: Float64Array): Range {
    const buffer = this.engine.buffer("host", values.byteLength, `bench ${this.#buffers.length}`);
    this.#buffers.push(buffer);
    new Float64Array(buffer.view()).set(values);
    return buffer.range();
  }

  /** A device buffer with these values. */
  async holding(values: Int32Array | Float64Array): Promise<Range> {
    const staging = this.engine.buffer("pinned", values.byteLength, "bench staging");
    const buffer = this.engine.buffer("device", values.byteLength, `bench ${this.#buffers.length}`);
    this.#buffers.push(staging, buffer);
    new Uint8Array(staging.view()).set(new Uint8Array(values.buffer));
    const plan = new Plan({ step: 1, phase: "load" });
    plan.record("upload", "copy", { to: buffer.range(), from: staging.range() });
    await this.engine.play(plan);
    return buffer.range();
  }

  /** 1 MiB of seeded normal numbers: other values, denormals or zeros say, may take another time. */
  #pattern(dtype: Dtype): Range {
    const pattern = this.engine.buffer("pinned", 1 << 20, `bench pattern ${this.#buffers.length}`);
    this.#buffers.push(pattern);
    const random = new Random(1);
    const normal = (): number =>
      Math.sqrt(-2 * Math.log(1 - random.uniform())) * Math.cos(2 * Math.PI * random.uniform());
    if (dtype === "float32") {
      const values = new Float32Array(pattern.view());
      for (let i = 0; i < values.length; i++) values[i] = normal();
    } else {
      const halves = new Uint16Array(pattern.view());
      const value = new Float32Array(1);
      const bits = new Uint32Array(value.buffer);
      for (let i = 0; i < halves.length; i++) {
        value[0] = normal();
        halves[i] = bits[0]! >>> 16;
      }
    }
    return pattern.range();
  }

  /** Frees every buffer made so far. */
  free(): void {
    for (const buffer of this.#buffers) buffer.free();
    this.#buffers = [];
  }

  [Symbol.dispose](): void {
    if (this.onGpu) this.engine.trace(false);
    this.free();
  }
}

/** Best, median and spread of `work` (in units of 1e9, or 1e6 for commands) done in each of these times. */
export function rateOf(
  named: Pick<Rate, "group" | "name" | "unit" | "floor">,
  work: number,
  seconds: readonly number[],
): Rate {
  const sorted = seconds.toSorted((a, b) => a - b);
  const at = (share: number): number => work / sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!;
  const best = at(0);
  return { ...named, best, median: at(0.5), spread: 1 - at(0.9) / best, runs: seconds.length };
}
