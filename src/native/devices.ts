// The kinds of devices, and what each computes in.

import type { DeviceKind, Dtype } from "./abi.gen.ts";

export type GpuKind = "cuda" | "hip";

/** Whether a device has a memory of its own, kernels that are loaded, and a driver. */
export const isGpu = (device: DeviceKind): device is GpuKind => device === "cuda" || device === "hip";

/** What a device computes in when nothing is said. */
export const defaultDtype = (device: DeviceKind): "float32" | "bfloat16" => (isGpu(device) ? "bfloat16" : "float32");

/** What is wrong with a device's dtype, and what to write instead. */
export function dtypeProblem(device: DeviceKind, dtype: Dtype): string | undefined {
  if (dtype === "bfloat16" || !isGpu(device)) return undefined;
  return `dtype "${dtype}" is not computed on device "${device}", whose kernels are bfloat16; use "bfloat16", or device "cpu"`;
}
