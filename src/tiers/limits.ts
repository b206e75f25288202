// What a bill may take of a machine, judged here and nowhere else, with the remedy in the sentence.

import type { Tier } from "../native/abi.gen.ts";
import type { Limits } from "../native/runtime.ts";
import { MemoryError } from "../words/errors.ts";
import { formatBytes } from "../words/format.ts";
import { bytesIn, memoryBill, summarizeBill, type BillLine } from "./bill.ts";
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

/** Throws a MemoryError that says what to change when a shape's bill is above the limits, of the device or of the host. */
export function checkBill(shape: StepShape, { device, overhead, capped, pieceBytes, host }: Limits): void {
  const bill = memoryBill(shape);
  const onDevice = pieceBytes === undefined ? bytesIn(bill, "device") : deviceBytesOf(bill, pieceBytes);
  const largest = (tiers: readonly Tier[]): string =>
    summarizeBill(bill.filter(({ tier }) => tiers.includes(tier)))
      .sort((a, b) => b.bytes - a.bytes)
      .slice(0, 3)
      .map(({ purpose, bytes }) => `${purpose} ${formatBytes(bytes)}`)
      .join(", ");
  if (onDevice > device) {
    const beside = overhead > 0 ? `, ${formatBytes(overhead)} of it for context, kernels and libraries` : "";
    throw new MemoryError(
      `${capped ? "deviceMemory: " : ""}the run needs ${formatBytes(onDevice + overhead)} on the device${beside}; ` +
        `${capped ? "the limit is" : "it has"} ${formatBytes(device + overhead)}; the largest parts are ${largest(["device"])}; ` +
        `${deviceRemedies(shape)}, or ${capped ? "raise deviceMemory" : "free memory that others use, or take a larger GPU"}`,
    );
  }
  const tiers: Tier[] = pieceBytes === undefined ? ["device", "pinned", "host"] : ["pinned", "host"];
  const onHost = tiers.reduce((total, tier) => total + bytesIn(bill, tier), 0);
  if (onHost > host)
    throw new MemoryError(
      `the run needs ${formatBytes(onHost)} of the host's memory, which has ${formatBytes(host)} for it; the largest parts are ` +
        `${largest(tiers)}; ${hostRemedies(shape)}`,
    );
}

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
