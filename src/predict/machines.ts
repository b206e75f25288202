// Machines as a few rates, and what each op costs on one: the numbers behind the simulator's clock.
//
// A rate is what a good kernel reaches, not what a datasheet promises. Where they come from: `h200` was measured (GEMM at
// Qwen3-8B shapes, cuDNN's attention, PCIe, AdamW on 16 cores with 26 bytes a parameter: 4.6 Gparam/s; device memory is
// taken as 4.0 of 4.8 TB/s). `rtx4090` is a desktop as published benchmarks describe it: PCIe 4 x16, two channels of DDR5.
// `cpu-2core` is the CPU device on two AVX-512 cores, where compute, copies and the host stream share the cores.
//
// An op on the compute stream takes the longer of its FLOPs and its bytes, and a launch. Everything else takes its bytes. How
// many each op has is declared beside the op, in `zig/abi.zig`.

import { ConfigError } from "../words/errors.ts";
import { causalPairs } from "./flops.ts";
import { ops, type OpName, type Ops } from "../native/abi.gen.ts";
import { accesses, type Command, type Range } from "../plan/plan.ts";
import { closest } from "../words/suggest.ts";

export interface Machine {
  name: string;
  /** TFLOP/s of matrix products. */
  gemm: Record<"float32" | "bfloat16", number>;
  /** TFLOP/s of attention in bf16, by document length; between two lengths the rate is interpolated. */
  attentionForward: [length: number, rate: number][];
  attentionBackward: [length: number, rate: number][];
  /** GB/s of device memory. */
  deviceMemory: number;
  /** Between two commands of a stream, microseconds. */
  launch: number;
  /** GB/s between host and device one way, and both ways together. */
  link: number;
  linkBoth: number;
  /** GB/s of one host command, and of host memory in all. */
  host: number;
  hostMemory: number;
  diskRead: number;
  diskWrite: number;
  deviceBytes: number;
  /** What context, kernels and libraries take of it. */
  deviceOverhead: number;
  /** Set where the device is the CPU: compute, copies and host commands share these cores. */
  cores?: number;
}

export const machines: Record<string, Machine> = {
  h200: {
    name: "H200, 16 Xeon cores, PCIe 5 x16",
    gemm: { float32: 50, bfloat16: 700 },
    attentionForward: [
      [1024, 385],
      [4096, 553],
      [16384, 634],
    ],
    attentionBackward: [
      [1024, 260],
      [4096, 445],
      [16384, 543],
    ],
    deviceMemory: 4000,
    launch: 4,
    link: 55,
    linkBoth: 95,
    host: 120,
    hostMemory: 150,
    diskRead: 3.1,
    diskWrite: 2,
    deviceBytes: 150e9,
    deviceOverhead: 1.2e9,
  },
  rtx4090: {
    name: "RTX 4090, desktop, PCIe 4 x16",
    gemm: { float32: 60, bfloat16: 150 },
    attentionForward: [
      [1024, 130],
      [4096, 145],
    ],
    attentionBackward: [
      [1024, 95],
      [4096, 110],
    ],
    deviceMemory: 900,
    launch: 5,
    link: 25,
    linkBoth: 45,
    host: 55,
    hostMemory: 65,
    diskRead: 6,
    diskWrite: 5,
    deviceBytes: 24e9,
    deviceOverhead: 0.8e9,
  },
  "cpu-2core": {
    name: "CPU device, 2 cores",
    gemm: { float32: 0.17, bfloat16: 0.15 },
    attentionForward: [[1024, 0.08]],
    attentionBackward: [[1024, 0.08]],
    deviceMemory: 40,
    launch: 10,
    link: 8,
    linkBoth: 16,
    host: 61,
    hostMemory: 80,
    diskRead: 1,
    diskWrite: 0.5,
    deviceBytes: 16e9,
    deviceOverhead: 0,
    cores: 2,
  },
};

/** A GPU with its host; the cpu device says how many cores it has. */
export const hasGpu = ({ cores }: Machine): boolean => cores === undefined;

/** A described machine by name. */
export function machineNamed(name: string): Machine {
  const machine = machines[name];
  if (machine) return machine;
  const names = Object.keys(machines);
  const near = closest(name, names);
  throw new ConfigError(
    `no machine is called "${name}"${near ? `, did you mean "${near}"?` : ""}; known: ${names.join(", ")}`,
  );
}

/** What a command keeps busy: the device for so many seconds, or a link, host memory or the disk for so many bytes. */
export interface Cost {
  resource: "device" | "toDevice" | "toHost" | "host" | "diskRead" | "diskWrite";
  /** Seconds of the device, else bytes. */
  amount: number;
}

export function costOf(command: Command, machine: Machine): Cost {
  const { op, stream } = command;
  if (stream === "disk")
    return { resource: op === "fileRead" ? "diskRead" : "diskWrite", amount: touchedBytes(command) / 2 };
  if (stream === "host")
    return { resource: "host", amount: hostBytes(command) + machine.launch * 1e-6 * machine.host * 1e9 };
  const deviceSeconds = touchedBytes(command) / (machine.deviceMemory * 1e9);
  if (stream === "compute")
    return {
      resource: "device",
      amount: Math.max(deviceSeconds, arithmeticSeconds(command, machine)) + machine.launch * 1e-6,
    };
  const crossing = crossingBytes(command);
  if (crossing === 0) return { resource: "device", amount: deviceSeconds + machine.launch * 1e-6 };
  return {
    resource: stream === "upload" ? "toDevice" : "toHost",
    amount: crossing + machine.launch * 1e-6 * machine.link * 1e9,
  };
}

/** Bytes read plus bytes written. */
function touchedBytes(command: Command): number {
  let bytes = 0;
  for (const { access, range } of accesses(command)) bytes += range.bytes * (access === "readwrite" ? 2 : 1);
  return bytes;
}

/** Bytes a copy reads on one side of the link to write them on the other. */
function crossingBytes(command: Command): number {
  const all = [...accesses(command)];
  const target = all.find(({ access }) => access === "write")!.range.buffer.tier;
  const sources = all.filter(
    ({ access, range }) => access === "read" && (range.buffer.tier === "device") !== (target === "device"),
  );
  return sources.reduce((sum, { range }) => sum + range.bytes, 0);
}

// ---- FLOPs on the device --------------------------------------------------------------------------------------------

function arithmeticSeconds({ op, arguments: values }: Command, machine: Machine): number {
  const flops = ops[op].flops as ((values: unknown, pairs: number) => number) | undefined;
  if (flops === undefined) return 0;
  const { dtype } = values as Ops<Range>["linearForward"];
  const product = machine.gemm[dtype === "float32" ? "float32" : "bfloat16"];
  const rates = attentionRates[op]?.(machine);
  if (rates === undefined) return flops(values, 0) / (product * 1e12);
  // Documents are taken to be of equal length: a plan knows how many there are, not where they begin.
  const { tokens, documents, window } = values as Ops<Range>["attentionForward"];
  const length = tokens / documents;
  const slower = machine.gemm.bfloat16 / product;
  return (slower * flops(values, documents * causalPairs(length, window))) / (interpolate(rates, length) * 1e12);
}

const attentionRates: { [Name in OpName]?: (machine: Machine) => [number, number][] } = {
  attentionForward: (machine) => machine.attentionForward,
  attentionBackward: (machine) => machine.attentionBackward,
};

function interpolate(points: readonly [number, number][], at: number): number {
  const above = points.findIndex(([length]) => length >= at);
  if (above === 0) return points[0]![1];
  if (above < 0) return points.at(-1)![1];
  const [[x0, y0], [x1, y1]] = [points[above - 1]!, points[above]!];
  return y0 + ((y1 - y0) * (at - x0)) / (x1 - x0);
}

// ---- bytes on the host ----------------------------------------------------------------------------------------------

/** Most host ops walk their ranges; those of the embedding say that they touch some rows of ranges they are given whole. */
function hostBytes(command: Command): number {
  const bytes = ops[command.op].bytes as ((values: unknown) => number) | undefined;
  return bytes?.(command.arguments) ?? touchedBytes(command);
}
