// The rates of the machine that a process runs on, measured through plans on an engine, the way a step will use it: matrix
// products and attention at the model's shapes, device memory, the link each way and both ways, AdamW on the host alone and
// beside the link. Takes seconds, so what was found is kept in the cache directory, per device, host and shape.
//
// `roomOf` is what the fit of a GPU run starts from (fit.ts); `--machine measured` of `sluice plan` uses the same.
// Rates of machines that are not here are in machines.ts, where it says what each of them means.

import { cpus } from "node:os";
import { join } from "node:path";
import type { Room } from "./fit.ts";
import { causalPairs } from "./flops.ts";
import { readFileSync } from "node:fs";
import { writeFileAtomic } from "../io/atomic.ts";
import { machines, type Machine } from "./machines.ts";
import type { DecoderConfig } from "../models/config.ts";
import { parameterBlocks } from "../models/parameters.ts";
import { bytesOf } from "../plan/layout.ts";
import type { Dtype, OpName, Ops } from "../native/abi.gen.ts";
import { isGpu } from "../native/devices.ts";
import { writableCacheDirectory } from "../words/cache.ts";
import type { NativeBuffer, Engine } from "../native/runtime.ts";
import { Plan, type Range } from "../plan/plan.ts";
import { byPart, formatDefault, partBytes, partsOf, stateBytes } from "../state/format.ts";
import { Random } from "../words/random.ts";

/** What the probe measures at: the model's widths, and how many tokens pass a block at once. */
export interface ProbeSizes {
  config: DecoderConfig;
  dtype: Dtype;
  tokens: number;
}

/**
 * What a fit may count on: undefined where the device is no GPU and nothing is fitted. Rates are asked for by `simulates`
 * alone: when the config leaves nothing open, no candidate is played and nothing needs measuring.
 */
export async function roomOf(engine: Engine, sizes: ProbeSizes, simulates: boolean): Promise<Room | undefined> {
  if (!isGpu(engine.device)) return undefined;
  const machine = simulates ? await measuredMachine(engine, sizes) : undefined;
  return { machine, deviceBytes: engine.deviceBytesMax - marginOf(engine), hostBytes: engine.limits().host };
}

/** Left free: the driver takes a little more in the course of a run, and a limit is a limit. */
const marginOf = ({ deviceBytesMax }: Engine): number => Math.min(256 << 20, deviceBytesMax / 50);

/** The machine's rates from the cache, or measured now and kept there. */
export async function measuredMachine(engine: Engine, sizes: ProbeSizes): Promise<Machine> {
  const path = cachePath(engine, sizes);
  const known = path && readCached(path);
  if (known) return known;
  const machine = await measureMachine(engine, sizes);
  if (path) await writeFileAtomic(path, `${JSON.stringify(machine, null, 2)}\n`).catch(() => {}); // measured again next time
  return machine;
}

/** Of the format below; a change of what is measured changes the number. */
const format = 2;

function cachePath(engine: Engine, { config, dtype }: ProbeSizes): string | undefined {
  const directory = writableCacheDirectory();
  if (directory === "") return undefined;
  const { hidden, intermediate, heads, kvHeads, headDim } = config;
  const key = [format, nameOf(engine), engine.workers, dtype, hidden, intermediate, heads, kvHeads, headDim].join();
  return join(directory, `machine-${Bun.hash(key).toString(16)}.json`);
}

function readCached(path: string): Machine | undefined {
  try {
    const found = JSON.parse(readFileSync(path, "utf8")) as Machine;
    return found.hostMemory > 0 ? found : undefined;
  } catch {
    return undefined; // not there, or cut off: it is measured again
  }
}

function nameOf(engine: Engine): string {
  const host = `${cpus()[0]?.model.trim() ?? "unknown CPU"}, ${engine.workers} workers`;
  return isGpu(engine.device) ? `${engine.deviceInfo().name}, ${host}` : `CPU device, ${host}`;
}

/** Measures; about seven seconds on a GPU. */
export async function measureMachine(engine: Engine, sizes: ProbeSizes): Promise<Machine> {
  using probe = new Probe(engine, sizes);
  const isCpu = !isGpu(engine.device);
  if (!isCpu) engine.trace(true);
  const gemm = await probe.gemm();
  probe.free();
  const attention = await probe.attention();
  probe.free();
  const deviceMemory = await probe.deviceMemory();
  const launch = await probe.launch();
  probe.free();
  const { link, linkBoth, host, hostMemory } = await probe.host();
  if (!isCpu) engine.trace(false);
  const described = machines["h200"]!;
  const info = isCpu ? undefined : engine.deviceInfo();
  return {
    name: nameOf(engine),
    gemm: { float32: gemm, bfloat16: gemm }, // of the dtype that was asked for
    attentionForward: attention.forward,
    attentionBackward: attention.backward,
    deviceMemory,
    launch,
    link,
    linkBoth,
    host,
    hostMemory,
    diskRead: described.diskRead,
    diskWrite: described.diskWrite,
    deviceBytes: info?.totalBytes ?? engine.deviceBytesMax,
    deviceOverhead: info?.overheadBytes ?? 0,
    ...(isCpu ? { cores: engine.workers } : {}),
  };
}

const runs = 4;
/**
 * A card that has just been idle is faster than one that computes all the time: it lowers its clock as it nears its power
 * limit, within some tenths of a second. So what keeps it busy in a step is repeated for so many seconds, and the last two
 * thirds count.
 */
const sustainedSeconds = 0.6;
const repeatsMax = 3000;
/** Of random values, repeated; no multiple of a row, so that rows differ. */
const patternBytes = (1 << 20) + 64 * 13;

/** Measurements of one kind after the other; each fastest of a few runs. */
class Probe implements Disposable {
  #engine: Engine;
  #sizes: ProbeSizes;
  #buffers: NativeBuffer[] = [];
  /** A GPU is measured at real sizes; the cpu device, which tests run on, at small ones. */
  #scale: number;

  constructor(engine: Engine, sizes: ProbeSizes) {
    this.#engine = engine;
    this.#sizes = sizes;
    this.#scale = isGpu(engine.device) ? Math.min(1, engine.deviceBytesMax / 8e9) : 1 / 64;
  }

  free(): void {
    for (const buffer of this.#buffers) buffer.free();
    this.#buffers = [];
  }

  [Symbol.dispose](): void {
    this.free();
  }

  #buffer(tier: "device" | "pinned" | "host", bytes: number): Range {
    const buffer = this.#engine.buffer(tier, Math.max(64, Math.ceil(bytes / 64) * 64), `probe ${this.#buffers.length}`);
    this.#buffers.push(buffer);
    return buffer.range(0, bytes);
  }

  /**
   * A device buffer of random values between -1 and 1: a matrix unit that multiplies zeros takes less power, and so keeps a
   * higher clock, than a step ever sees.
   */
  async #random(elements: number): Promise<Range> {
    const { dtype } = this.#sizes;
    const to = this.#buffer("device", elements * bytesOf(dtype));
    const pattern = this.#engine.buffer("pinned", Math.min(to.bytes, patternBytes), "probe values");
    const random = new Random(3);
    const values = new Float32Array(pattern.bytes / bytesOf(dtype)).map(() => 2 * random.uniform() - 1);
    if (dtype === "float32") new Float32Array(pattern.view()).set(values);
    else new Uint16Array(pattern.view()).set(new Uint32Array(values.buffer).map((bits) => bits >>> 16));
    await this.#play((plan) => {
      for (let offset = 0; offset < to.bytes; offset += pattern.bytes) {
        const bytes = Math.min(pattern.bytes, to.bytes - offset);
        plan.record("upload", "copy", { to: to.slice(offset, bytes), from: pattern.range(0, bytes) });
      }
    });
    pattern.free();
    return to;
  }

  /** Seconds of each command of a plan, in the order of recording. */
  async #play(record: (plan: Plan) => void): Promise<{ start: number; end: number }[]> {
    const plan = new Plan({ step: 0, phase: "load" });
    record(plan);
    await this.#engine.play(plan);
    return this.#engine.spans(plan).map(({ start, end }) => ({ start: start / 1e9, end: end / 1e9 }));
  }

  /** The fastest of a few runs of one command, after one that does not count. */
  async #fastest<Name extends OpName>(stream: "compute" | "host", op: Name, args: Ops<Range>[Name]): Promise<number> {
    const once = (): Promise<{ start: number; end: number }[]> =>
      this.#play((plan) => void plan.record(stream, op, args));
    await once();
    let best = Infinity;
    for (let run = 0; run < runs; run++) {
      const [span] = await once();
      best = Math.min(best, span!.end - span!.start);
    }
    return best;
  }

  /** Seconds of some commands of compute one after the other, when nothing else has run for a while. */
  async #sustained(record: (plan: Plan) => void): Promise<number> {
    await this.#play(record); // loads kernels, and chooses algorithms
    const once = spanOf(await this.#play(record));
    const repeats = Math.max(3, Math.min(repeatsMax, Math.ceil((sustainedSeconds * this.#scale) / once)));
    const spans = await this.#play((plan) => {
      for (let repeat = 0; repeat < repeats; repeat++) record(plan);
    });
    const each = spans.length / repeats;
    const skipped = Math.ceil(repeats / 3);
    return spanOf(spans.slice(skipped * each)) / (repeats - skipped);
  }

  /** TFLOP/s over the layers' matrix products, forward and backward, weighted as a step has them. */
  async gemm(): Promise<number> {
    const { config, dtype } = this.#sizes;
    const tokens = this.#tokens();
    const e = bytesOf(dtype);
    const products = parameterBlocks(config).flatMap(({ kind, products }) => (kind === "decoder" ? products : []));
    const alike = Map.groupBy(products, ({ inputs, outputs }) => `${inputs} ${outputs}`);
    let [work, seconds] = [0, 0];
    for (const [{ inputs, outputs }, { length: times }] of [...alike.values()].map(
      (same) => [same[0]!, same] as const,
    )) {
      const [x, weight] = [await this.#random(tokens * inputs), await this.#random(outputs * inputs)];
      const [y, dx, dWeight] = [tokens * outputs, tokens * inputs, outputs * inputs].map((values) =>
        this.#buffer("device", values * e),
      ) as [Range, Range, Range];
      const linear = { tokens, inputs, outputs, dtype };
      const forward = { ...linear, y, x, weight, bias: null, residual: null };
      const toWeight = { ...linear, dWeight, dBias: null, dy: y, x, accumulate: 0, gradientDtype: dtype };
      const once = await this.#sustained((plan) => {
        plan.record("compute", "linearForward", forward);
        plan.record("compute", "linearBackwardInput", { ...linear, dx, dy: y, weight });
        plan.record("compute", "linearBackwardWeight", toWeight);
      });
      seconds += times * once;
      work += times * 6 * tokens * inputs * outputs;
      this.free();
    }
    return work / seconds / 1e12;
  }

  #tokens(): number {
    const most = Math.max(32, Math.floor((16_384 * this.#scale) / 32) * 32);
    return Math.min(this.#sizes.tokens, most);
  }

  /** TFLOP/s of attention by document length. */
  async attention(): Promise<Record<"forward" | "backward", [number, number][]>> {
    const { config, dtype } = this.#sizes;
    const { heads, kvHeads, headDim } = config;
    const e = bytesOf(dtype);
    const found: Record<"forward" | "backward", [number, number][]> = { forward: [], backward: [] };
    for (const length of [1024, 4096, 16_384].map((tokens) => Math.max(16, Math.floor(tokens * this.#scale)))) {
      const documents = Math.max(1, Math.floor(this.#tokens() / length));
      const tokens = documents * length;
      const all = (heads + 2 * kvHeads) * headDim;
      const [dQkv, out] = [all, heads * headDim].map((width) => this.#buffer("device", tokens * width * e)) as [
        Range,
        Range,
      ];
      const qkv = await this.#random(tokens * all);
      const qk = await this.#random(tokens * (heads + kvHeads) * headDim);
      const dOut = await this.#random(tokens * heads * headDim);
      const [lse, delta] = [this.#buffer("device", heads * tokens * 4), this.#buffer("device", heads * tokens * 4)];
      const sums = this.#buffer("device", tokens * heads * headDim * 4);
      const starts = await this.#starts(documents, length);
      const shape = { tokens, heads, kvHeads, headDim, documents, window: 0, scale: headDim ** -0.5, dtype };
      const work = (documents * causalPairs(length, 0) * heads * headDim) / 1e12;
      const common = { out, lse, qk, qkv, starts, ...shape };
      const forward = await this.#sustained((plan) => void plan.record("compute", "attentionForward", common));
      const backward = await this.#sustained(
        (plan) => void plan.record("compute", "attentionBackward", { dQkv, delta, sums, dOut, ...common }),
      );
      found.forward.push([length, (4 * work) / forward]);
      found.backward.push([length, (10 * work) / backward]);
      this.free();
    }
    return found;
  }

  async #starts(documents: number, length: number): Promise<Range> {
    const values = Int32Array.from({ length: documents + 1 }, (_, index) => index * length);
    const [device, pinned] = [this.#buffer("device", values.byteLength), this.#buffer("pinned", values.byteLength)];
    new Int32Array(this.#buffers.at(-1)!.view()).set(values);
    await this.#play((plan) => void plan.record("upload", "copy", { to: device, from: pinned }));
    return device;
  }

  /** GB/s of device memory, by a copy: read plus write. */
  async deviceMemory(): Promise<number> {
    const bytes = this.#megabytes(512);
    const [to, from] = [this.#buffer("device", bytes), this.#buffer("device", bytes)];
    return (2 * bytes) / (await this.#fastest("compute", "copy", { to, from })) / 1e9;
  }

  /** Microseconds from one small command of compute to the next. */
  async launch(): Promise<number> {
    const to = this.#buffer("device", 64);
    const commands = 256;
    let best = Infinity;
    for (let run = 0; run < runs; run++) {
      const spans = await this.#play((plan) => {
        for (let index = 0; index < commands; index++) plan.record("compute", "zero", { to });
      });
      best = Math.min(best, (spans.at(-1)!.end - spans[0]!.start) / commands);
    }
    return best * 1e6;
  }

  #megabytes(count: number): number {
    return Math.max(1 << 20, Math.floor((count * this.#scale * 2 ** 20) / 64) * 64);
  }

  /** GB/s of the link alone and both ways, of AdamW alone, and of all of them at once. */
  async host(): Promise<Record<"link" | "linkBoth" | "host" | "hostMemory", number>> {
    const bytes = this.#megabytes(256);
    const [up, down] = [this.#buffer("device", bytes), this.#buffer("device", bytes)];
    const [from, to] = [this.#buffer("pinned", bytes), this.#buffer("pinned", bytes)];
    const upload = (plan: Plan): void => void plan.record("upload", "copy", { to: up, from });
    const download = (plan: Plan): void => void plan.record("download", "copy", { to, from: down });
    const alone = async (record: (plan: Plan) => void): Promise<number> => {
      await this.#play(record);
      const [span] = await this.#play(record);
      return bytes / (span!.end - span!.start);
    };
    const link = Math.min(await alone(upload), await alone(download));
    const repeats = 4;
    const both = (plan: Plan): void => {
      for (let index = 0; index < repeats; index++) [upload, download].map((one) => one(plan));
    };
    const linkBoth = (2 * repeats * bytes) / spanOf(await this.#play(both));

    const count = Math.max(1 << 18, Math.floor((128 << 20) * this.#scale));
    const update = this.#update(count);
    const touched = count * (2 * stateBytes(formatDefault) + bytesOf("bfloat16"));
    const host = touched / (await this.#fastest("host", "adamw", update));
    // Enough copies to last as long as the update, so that its rate is one among others from start to end.
    const passes = Math.max(1, Math.ceil((1.5 * (touched / host) * linkBoth) / (2 * bytes)));
    const spans = await this.#play((plan) => {
      plan.record("host", "adamw", update);
      for (let index = 0; index < passes; index++) [upload, download].map((one) => one(plan));
    });
    const [beside, ...copies] = spans;
    const together = touched / (beside!.end - beside!.start) + (2 * passes * bytes) / spanOf(copies);
    const rates = { link, linkBoth: Math.max(link, linkBoth), host, hostMemory: Math.max(host, together) };
    return Object.fromEntries(Object.entries(rates).map(([name, rate]) => [name, rate / 1e9])) as typeof rates;
  }

  #update(count: number): Ops<Range>["adamw"] {
    const parts = partsOf(formatDefault, { training: true });
    const state = byPart(parts, (part) => this.#buffer(part.tier, partBytes(part, count)));
    const gradient = this.#buffer("pinned", count * bytesOf("bfloat16"));
    const factor = this.#buffer("host", 16);
    new Float64Array(this.#buffers.at(-1)!.view())[0] = 1;
    const settings = { step: 1, learningRate: 1e-5, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1 };
    return { ...state, gradient, factor, count, gradientDtype: "bfloat16", ...settings };
  }
}

const spanOf = (spans: readonly { start: number; end: number }[]): number =>
  Math.max(...spans.map(({ end }) => end)) - Math.min(...spans.map(({ start }) => start));
