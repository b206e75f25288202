// What `device: "auto"` stands for on this machine, found out by opening it: a GPU that is there and works, else the CPU.

import { NativeError } from "../words/errors.ts";
import type { GpuKind } from "./devices.ts";
import { Engine } from "./runtime.ts";

export interface Chosen {
  device: "cpu" | GpuKind;
  /** "device: cpu, because ...": for the first lines of a run; nothing where SLUICE_DEVICE said it. */
  reason: string | undefined;
}

let chosen: Chosen | undefined;

/** The device, the same for the whole process. SLUICE_DEVICE says it, where somebody wants no GPU to be tried. */
export function chooseDevice(): Chosen {
  return (chosen ??= found());
}

function found(): Chosen {
  const said = process.env["SLUICE_DEVICE"];
  if (said === "cpu" || said === "cuda" || said === "hip") return { device: said, reason: undefined };
  const problems: string[] = [];
  for (const device of ["cuda", "hip"] as const)
    try {
      using engine = new Engine({ device, workers: 1 });
      return { device, reason: `device: ${device}, because ${engine.deviceInfo().name} is there and works` };
    } catch (error) {
      if (!(error instanceof NativeError)) throw error;
      problems.push(`${device}: ${error.message}`);
    }
  return { device: "cpu", reason: `device: cpu, because no GPU works here (${problems.join("; ")})` };
}
