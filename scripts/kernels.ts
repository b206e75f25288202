// Compiles cuda/*.cu for the GPUs of each vendor whose compiler is here, into build/kernels: `norm.fatbin` for all of NVIDIA's,
// `norm.gfx942.hsaco` for one of AMD's. A kind of compiler that is not here is named in one line and skipped: the CPU
// device needs no kernels, and the GPU device says what it misses. Beside each object lie a hash of everything it was made
// from, so that nothing is compiled twice, and what the compiler said about registers and spills, for `bun run check`.
// Run by `bun run build`, by `bun run check`, and alone as `bun run kernels`. Imports nothing from node_modules or src.

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import { BuildError, root } from "./native.ts";
import { main } from "./setup.ts";

export type Vendor = "nvidia" | "amd";
export const vendors: readonly Vendor[] = ["nvidia", "amd"];

export const kernelDirectory = join(root, "build/kernels");

/** Ampere to Blackwell; a GPU newer than these compiles the intermediate code of the oldest. */
const nvidiaArchitectures = ["80", "86", "89", "90a", "100", "120"];
const amdArchitectures = ["gfx90a", "gfx942", "gfx1100", "gfx1201"];

/** One object file to make. */
export interface KernelObject {
  vendor: Vendor;
  /** `norm` of `cuda/norm.cu`. */
  family: string;
  /** One of AMD's architectures; NVIDIA's share an object. */
  architecture?: string;
  path: string;
  command: string[];
  /** The source and the headers that it reads, and the bytes of all. */
  files: string[];
  sourceBytes: number;
  /** Of the files, the compiler and its options. */
  hash: string;
}

/** The line that says why a vendor's kernels cannot be compiled here; undefined when they can. */
export function missingCompiler(vendor: Vendor): string | undefined {
  if (vendor === "nvidia") return nvcc() ? undefined : "nvcc is not installed (CUDA 13 toolkit)";
  const missing = ["clang-19", "ld.lld-19"].filter((name) => !Bun.which(name));
  if (missing.length === 0) return undefined;
  return `${missing.join(" and ")} ${missing.length > 1 ? "are" : "is"} not installed (apt-get install clang-19 lld-19 llvm-19)`;
}

/** Everything that a vendor's compiler has to make, whether it is there already or not. */
export function kernelObjects(vendor: Vendor): KernelObject[] {
  const version = compilerVersion(vendor);
  const families = sources();
  if (vendor === "nvidia") return families.map((family) => nvidiaObject(family, version));
  return families
    .filter((family) => !isHopperOnly(family))
    .flatMap((family) => amdArchitectures.map((architecture) => amdObject(family, architecture, version)));
}

/** Whether an object was made from what is there now. */
export function isFresh({ path, hash }: KernelObject): boolean {
  return existsSync(path) && existsSync(`${path}.hash`) && readFileSync(`${path}.hash`, "utf8") === hash;
}

/** What the compiler said when it made an object. */
export function reportOf({ path }: KernelObject): string {
  return readFileSync(`${path}.report`, "utf8");
}

export function includes({ files }: KernelObject, header: string): boolean {
  return files.some((file) => basename(file) === header);
}

/**
 * Makes what is not fresh, as many at a time as there are cores, the longest source first so that it does not run alone in the
 * end; throws with what the compiler said. Returns how many it made.
 */
export async function compileKernels(vendor: Vendor): Promise<number> {
  mkdirSync(kernelDirectory, { recursive: true });
  const objects = kernelObjects(vendor);
  removeOthers(vendor, objects);
  const stale = objects.filter((object) => !isFresh(object));
  const waiting = stale.toSorted((a, b) => b.sourceBytes - a.sourceBytes);
  const worker = async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) await compile(next);
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
  return stale.length;
}

/** Both vendors; prints a line for what it made and for what it cannot make. */
export async function buildKernels(): Promise<void> {
  for (const vendor of vendors) {
    const name = vendor === "nvidia" ? "NVIDIA" : "AMD";
    const missing = missingCompiler(vendor);
    if (missing !== undefined) {
      console.log(`skipped ${name} kernels: ${missing}`);
      continue;
    }
    const start = performance.now();
    const made = await compileKernels(vendor);
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    if (made > 0) console.log(`built ${made} ${name} kernel files in ${seconds} s`);
  }
}

function nvidiaObject(family: string, version: string): KernelObject {
  const architectures = isHopperOnly(family) ? ["90a"] : nvidiaArchitectures;
  const targets = architectures.flatMap((name) => ["-gencode", `arch=compute_${name},code=sm_${name}`]);
  if (!isHopperOnly(family)) targets.push("-gencode", "arch=compute_80,code=compute_80");
  const options = ["-std=c++17", "-O3", "-I", "cuda", "-fatbin", "-compress-mode=size", "-Xptxas", "-v", ...targets];
  return object("nvidia", family, undefined, `${family}.fatbin`, [nvcc()!, ...options], ["cuda"], version);
}

function amdObject(family: string, architecture: string, version: string): KernelObject {
  const language = ["-x", "hip", "--cuda-device-only", "--no-gpu-bundle-output", "-nogpuinc", "-nogpulib"];
  const options = ["-O3", "-std=c++17", "-I", "hip", "-I", "cuda", "-Rpass-analysis=kernel-resource-usage"];
  const command = ["clang-19", ...language, ...options, `--offload-arch=${architecture}`];
  const name = `${family}.${architecture}.hsaco`;
  return object("amd", family, architecture, name, command, ["hip", "cuda"], version);
}

function object(
  vendor: Vendor,
  family: string,
  architecture: string | undefined,
  name: string,
  compiler: string[],
  folders: readonly string[],
  version: string,
): KernelObject {
  const source = `cuda/${family}.cu`;
  const hash = createHash("sha256").update(`${version}\n${compiler.slice(1).join(" ")}\n`);
  const files = filesRead(source, folders);
  let sourceBytes = 0;
  for (const file of files) {
    const text = readFileSync(join(root, file));
    sourceBytes += text.length;
    hash.update(`${file} ${text.length}\n`).update(text);
  }
  const path = join(kernelDirectory, name);
  return {
    vendor,
    family,
    ...(architecture !== undefined && { architecture }),
    path,
    command: [...compiler, source],
    files,
    sourceBytes,
    hash: hash.digest("hex"),
  };
}

async function compile({ path, command, hash }: KernelObject): Promise<void> {
  const stage = `${path}.${process.pid}.tmp`;
  const child = Bun.spawn([...command, "-o", stage], { cwd: root, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [output, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (code !== 0) {
    rmSync(stage, { force: true });
    throw new BuildError(
      `${(output + errors).trim()}\n${command[0]} failed for ${basename(path)} with exit code ${code}`,
    );
  }
  writeFileSync(`${path}.report`, output + errors);
  renameSync(stage, path);
  writeFileSync(`${path}.hash`, hash);
}

/** What was made from a source that is gone would still be loaded. */
function removeOthers(vendor: Vendor, objects: readonly KernelObject[]): void {
  const ending = vendor === "nvidia" ? ".fatbin" : ".hsaco";
  const wanted = new Set(objects.map(({ path }) => basename(path)));
  for (const name of readdirSync(kernelDirectory)) {
    const made = name.replace(/\.(hash|report)$/, "");
    if (made.endsWith(ending) && !wanted.has(made)) rmSync(join(kernelDirectory, name), { force: true });
  }
}

/** The families: cuda/norm.cu is `norm`. */
function sources(): string[] {
  const names = readdirSync(join(root, "cuda")).filter((name) => name.endsWith(".cu"));
  return names.map((name) => basename(name, ".cu")).sort();
}

/** Written in instructions that only sm_90a has. */
function isHopperOnly(family: string): boolean {
  return family.includes("hopper");
}

/** A source and every header it includes, looked for in the folders in their order. */
function filesRead(source: string, folders: readonly string[]): string[] {
  const found = new Set([source]);
  for (const file of found) {
    for (const [, name] of readFileSync(join(root, file), "utf8").matchAll(/^#include\s+[<"]([\w./]+)[>"]/gm)) {
      const folder = folders.find((candidate) => existsSync(join(root, candidate, name!)));
      if (folder !== undefined) found.add(`${folder}/${name}`);
    }
  }
  return [...found].sort();
}

function nvcc(): string | undefined {
  const usual = "/usr/local/cuda/bin/nvcc";
  return Bun.which("nvcc") ?? (existsSync(usual) ? usual : undefined);
}

function compilerVersion(vendor: Vendor): string {
  return Bun.spawnSync([vendor === "nvidia" ? nvcc()! : "clang-19", "--version"]).stdout.toString();
}

if (import.meta.main) await main(buildKernels);
