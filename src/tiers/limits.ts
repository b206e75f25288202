// What a bill may take of a machine, judged here and nowhere else, with the remedy in the sentence.

import type { Tier } from "../native/abi.gen.ts";
import type { Limits } from "../native/runtime.ts";
import { MemoryError } from "../words/errors.ts";
import { formatBytes } from "../words/format.ts";
import { type BillLine } from "../plan/buffers.ts";
import { bytesIn, summarizeBill } from "./bill.ts";
import type { StepShape } from "./shape.ts";

/** The pieces in which a GPU's driver hands out memory. */
export const devicePieceBytes = 2 << 20;

/** What a bill really takes of a GPU (`rounded` in zig/device/gpu/gpu.zig). */
export function deviceBytesOf(bill: readonly BillLine[], pieceBytes = devicePieceBytes): number {
  const rounded = (bytes: number): number => {
    const unit = bytes < pieceBytes / 2 ? 512 : pieceBytes;
    return Math.ceil(bytes / unit) * unit;
  };
  return bill.reduce((total, { tier, bytes }) => total + (tier === "device" ? rounded(bytes) : 0), 0);
}

/** What a shape needs beside what there is, in bytes, and the sentence that says what to change when it is too much. */
export interface Verdict {
  device: { needed: number; limit: number };
  host: { needed: number; limit: number };
  problem: string | undefined;
}

/** A shape with its bill, held against limits. */
export interface Judged {
  shape: StepShape;
  bill: BillLine[];
  verdict: Verdict;
}

/** Holds a shape's bill against what device and host have. */
export function verdictOf(shape: StepShape, bill: readonly BillLine[], limits: Limits): Verdict {
  const gpu = limits.pieceBytes !== undefined;
  // On the cpu device both are the same memory.
  const onHost: Tier[] = gpu ? ["pinned", "host"] : ["device", "pinned", "host"];
  const device = {
    needed: gpu ? deviceBytesOf(bill, limits.pieceBytes) : bytesIn(bill, "device"),
    limit: limits.device,
  };
  const host = { needed: onHost.reduce((total, tier) => total + bytesIn(bill, tier), 0), limit: limits.host };
  const problem =
    device.needed > device.limit
      ? deviceProblem(shape, bill, device.needed, limits)
      : host.needed > host.limit
        ? `the run needs ${formatBytes(host.needed)} of the host's memory, which has ${formatBytes(host.limit)} for it; ` +
          `the largest parts are ${largest(bill, onHost)}; ${hostRemedies(shape)}`
        : undefined;
  return { device, host, problem };
}

/** Throws the verdict's problem, if there is one, as a MemoryError. */
export function demand({ verdict: { problem } }: Judged): void {
  if (problem !== undefined) throw new MemoryError(problem);
}

function deviceProblem(
  shape: StepShape,
  bill: readonly BillLine[],
  needed: number,
  { device, overhead, capped }: Limits,
): string {
  const beside = overhead > 0 ? `, ${formatBytes(overhead)} of it for context, kernels and libraries` : "";
  return (
    `${capped ? "deviceMemory: " : ""}the run needs ${formatBytes(needed + overhead)} on the device${beside}; ` +
    `${capped ? "the limit is" : "it has"} ${formatBytes(device + overhead)}; the largest parts are ${largest(bill, ["device"])}; ` +
    `${deviceRemedies(shape)}, or ${capped ? "raise deviceMemory" : "free memory that others use, or take a larger GPU"}`
  );
}

/** The three largest purposes in some tiers. */
const largest = (bill: readonly BillLine[], tiers: readonly Tier[]): string =>
  summarizeBill(bill.filter(({ tier }) => tiers.includes(tier)))
    .sort((a, b) => b.bytes - a.bytes)
    .slice(0, 3)
    .map(({ purpose, bytes }) => `${purpose} ${formatBytes(bytes)}`)
    .join(", ");

function deviceRemedies(shape: StepShape): string {
  if (!shape.training) return "give it fewer or shorter rows at once";
  const window = [
    shape.residentBlocks > 0 && `window.residentBlocks (${shape.residentBlocks})`,
    shape.keep.some((level) => level !== "recompute") && "window.keepBlocks",
    shape.slots > 2 && `window.slots (${shape.slots})`,
  ];
  const names = [...window, tokensOf(shape)].filter((name) => name !== false);
  return `reduce ${names.join(", ")}${shape.boundary === "device" ? `, set window.boundary to "pinned"` : ""}`;
}

function hostRemedies(shape: StepShape): string {
  if (!shape.training) return "give it fewer or shorter rows at once";
  const ring = shape.clips === "exact" ? "" : ` and window.ring (${shape.ring})`;
  const boundary = shape.boundary === "pinned" ? `, set window.boundary to "device"` : "";
  return `reduce ${tokensOf(shape)}${ring}${boundary}, keep more blocks on the device (window.residentBlocks), or take a smaller model`;
}

/** A micro-batch has at least one row: where it has no more, only shorter rows help. */
const tokensOf = ({ tokensMax, positions }: StepShape): string =>
  tokensMax >= 2 * positions ? `microBatchTokens (${tokensMax})` : `sequenceLength (${positions})`;
