// What `bun run check` asks of the GPU kernels, on a machine without a GPU: that they compile for every architecture, that
// no hot kernel keeps values in memory because registers ran out, and that AMD's attention really multiplies with the matrix
// unit. Returns a note for the check's line, "skipped: …" where the compiler is not here.

import { basename } from "node:path";
import * as kernels from "./kernels.ts";

/** A kernel's registers that went to memory, in bytes per thread. */
interface Spill {
  kernel: string;
  architecture: string;
  bytes: number;
}

export async function checkKernels(vendor: kernels.Vendor): Promise<string> {
  const missing = kernels.missingCompiler(vendor);
  if (missing !== undefined) return `skipped: ${missing}`;
  const made = await kernels.compileKernels(vendor);
  const objects = kernels.kernelObjects(vendor);
  const spilled = objects
    .flatMap((object) => spills(vendor, kernels.reportOf(object), object.architecture ?? ""))
    .filter(({ kernel }) => isHot(kernel));
  const problems = spilled
    .filter(({ architecture }) => mayNotSpill(architecture))
    .map(({ kernel, architecture, bytes }) => `${kernel} on ${architecture} keeps ${bytes} bytes per thread in memory`);
  const notes = [`${objects.length} files, ${made} compiled`];
  const tolerated = spilled.length - problems.length;
  if (tolerated > 0) notes.push(`${tolerated} spills on architectures that nobody tuned for`);
  if (vendor === "amd") {
    if (Bun.which(disassembler)) problems.push(...withoutMatrixUnit(objects));
    else notes.push(`matrix instructions not looked for: ${disassembler} is not installed (apt-get install llvm-19)`);
  }
  if (problems.length > 0) throw new Error(problems.join("\n"));
  return notes.join("; ");
}

/** The kernels that take whatever the fast ones do not, `_any`, and those between an op's kernels may spill. */
function isHot(kernel: string): boolean {
  return !/_any(_|$)|__/.test(kernel);
}

/** Tiles are chosen for Hopper, where they are measured, and for AMD's registers; elsewhere a few bytes may not fit. */
function mayNotSpill(architecture: string): boolean {
  return architecture === "sm_90a" || architecture.startsWith("gfx");
}

/** What the compilers' reports say, kernels without spills left out. */
export function spills(vendor: kernels.Vendor, report: string, architecture: string): Spill[] {
  const found: Spill[] = [];
  let kernel = "";
  let target = architecture;
  for (const line of report.split("\n")) {
    const entry = /Compiling entry function '(\w+)' for '(\w+)'/.exec(line) ?? /Function Name: (\w+)/.exec(line);
    if (entry) [kernel, target] = [entry[1]!, entry[2] ?? architecture];
    // Spilled scalar registers go to lanes of vector registers, not to memory: scratch is what counts on AMD.
    const size =
      vendor === "nvidia"
        ? /(\d+) bytes spill stores/.exec(line)?.[1]
        : /ScratchSize \[bytes\/lane\]: (\d+)/.exec(line)?.[1];
    if (size !== undefined && Number(size) > 0) found.push({ kernel, architecture: target, bytes: Number(size) });
  }
  return found;
}

const disassembler = "llvm-objdump-19";

/** Objects made with `matrix.cuh` whose code has no instruction of the matrix unit. */
function withoutMatrixUnit(objects: readonly kernels.KernelObject[]): string[] {
  return objects
    .filter((object) => kernels.includes(object, "matrix.cuh"))
    .filter(({ path, architecture }) => {
      const child = Bun.spawnSync([disassembler, "-d", `--mcpu=${architecture}`, path]);
      return !/\bv_(mfma|wmma)_/.test(child.stdout.toString());
    })
    .map(({ path }) => `${basename(path)} has no instruction of the matrix unit`);
}
