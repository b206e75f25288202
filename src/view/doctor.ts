// What this machine has of what Sluice can use: Bun, packages, the native library, drivers and GPUs, memory, cores, disks.
//
// Drivers are looked for by file name and GPUs in the kernel's own lists. What is found is tried, in a process of its own: an
// engine is opened on it, which needs everything that a run needs, and a driver that crashes or hangs takes nobody down.
// `root` is the file system to look at, for tests; on a made-up one nothing is tried.

import { existsSync, readFileSync, readdirSync, statfsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join, resolve } from "node:path";
import { SluiceError } from "../words/errors.ts";
import { bunFlags } from "../words/real-environment.ts";
import { formatBytes } from "../words/format.ts";
import { hostMemory } from "../native/host-memory.ts";
import type { DeviceKind } from "../native/abi.gen.ts";
import { cacheDirectory, huggingFaceHome, writableCacheDirectory } from "../words/cache.ts";
import { installedPackage, isInstalled, root as packageRoot } from "../native/build.ts";
import { kernelFiles, native } from "../native/library.ts";
import type { DeviceInfo } from "../native/runtime.ts";

export interface Finding {
  what: string;
  value: string;
  /** "missing": Sluice does not work without it. "note": it works, and this may be worth knowing. */
  state: "ok" | "note" | "missing";
  /** How to get what is missing. */
  remedy?: string;
}

/** Everything found, in the order in which it matters. */
export function examine({ root = "/" } = {}): Finding[] {
  const about = [bun(), packages(), library(), ...gpus(root), ...(root === "/" ? tried() : [])];
  return [...about, cores(root), memory(root), lockedMemory(root), ...disks()];
}

function bun(): Finding {
  const { engines } = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")) as {
    engines: { bun: string };
  };
  if (Bun.semver.satisfies(Bun.version, engines.bun)) return { what: "Bun", value: Bun.version, state: "ok" };
  const value = `${Bun.version}, ${engines.bun} is needed`;
  return { what: "Bun", value, state: "missing", remedy: "bun upgrade, or npx -y bun@1.4.5 run …" };
}

function packages(): Finding {
  const path = join(packageRoot, "package.json");
  const { dependencies } = JSON.parse(readFileSync(path, "utf8")) as { dependencies: Record<string, string> };
  const names = Object.keys(dependencies);
  const lacking = names.filter((name) => installedPackage(name) === undefined);
  if (lacking.length === 0) return { what: "packages", value: `${names.length} installed`, state: "ok" };
  return { what: "packages", value: `not installed: ${lacking.join(", ")}`, state: "missing", remedy: "bun install" };
}

function library(): Finding {
  try {
    const loaded = native();
    const level = loaded.sluice_cpu_level();
    const kernels =
      level === 0 ? "baseline kernels" : `kernels for x86_64_v${level} (${level === 4 ? "AVX-512" : "AVX2"})`;
    return { what: "native library", value: `${loaded.path}, ${kernels}`, state: "ok" };
  } catch (error) {
    if (!(error instanceof SluiceError)) throw error;
    return {
      what: "native library",
      value: error.message,
      state: "missing",
      ...(isInstalled ? {} : { remedy: "bun run build" }),
    };
  }
}

// ---- GPUs -----------------------------------------------------------------------------------------------------------

interface Vendor {
  name: string;
  device: DeviceKind & ("cuda" | "hip");
  library: RegExp;
  /** Names the library in place of the loader. */
  variable: string;
  remedy: string;
  /** The cards that the kernel driver knows. */
  cards(root: string): string[];
}

const vendors: Vendor[] = [
  {
    name: "NVIDIA",
    device: "cuda",
    library: /^libcuda\.so(\.1)?$/,
    variable: "SLUICE_LIBCUDA",
    remedy: "install NVIDIA's driver, or start the container with --gpus all",
    cards: (root) =>
      listed(join(root, "proc/driver/nvidia/gpus")).map(
        (card) => /Model:\s*(.+)/.exec(text(join(root, "proc/driver/nvidia/gpus", card, "information")))?.[1] ?? card,
      ),
  },
  {
    name: "AMD",
    device: "hip",
    library: /^libamdhip64\.so(\.\d+)?$/,
    variable: "SLUICE_LIBHIP",
    remedy: "install ROCm's HIP runtime (package hip-runtime-amd), or start the container with --device /dev/kfd",
    cards: (root) => {
      const nodes = join(root, "sys/class/kfd/kfd/topology/nodes");
      const ofGpu = (node: string) => /simd_count [1-9]/.test(text(join(nodes, node, "properties")));
      return listed(nodes)
        .filter(ofGpu)
        .map((node) => text(join(nodes, node, "name")).trim() || `node ${node}`);
    },
  },
];

function gpus(root: string): Finding[] {
  const found = vendors.flatMap((vendor) => gpusOf(vendor, root));
  if (found.length > 0) return found;
  return [{ what: "GPU", value: "none found; steps are computed by the cpu device", state: "note" }];
}

const driversOf = ({ library }: Vendor, root: string): string[] =>
  libraryFolders(root).flatMap((folder) =>
    listed(folder)
      .filter((file) => library.test(file))
      .map((file) => join(folder, file)),
  );

function gpusOf(vendor: Vendor, root: string): Finding[] {
  const { name, remedy, cards } = vendor;
  const drivers = driversOf(vendor, root);
  const models = cards(root);
  const what = `${name} GPU`;
  const value = models.join(", ");
  if (models.length > 0 && drivers.length > 0)
    return [{ what, value: `${value}; driver library ${drivers[0]}`, state: "ok" }];
  if (models.length > 0) return [{ what, value: `${value}; no driver library`, state: "note", remedy }];
  if (drivers.length > 0)
    return [{ what, value: `none visible, though ${drivers[0]} is there`, state: "note", remedy }];
  return [];
}

/** What opening an engine says of every GPU whose driver is there, and what runs have measured before. */
function tried(): Finding[] {
  const there = vendors.filter(
    (vendor) => process.env[vendor.variable] !== undefined || driversOf(vendor, "/").length > 0,
  );
  return there.length === 0 ? [] : [...there.map(tryDevice), measured()];
}

/** An engine takes a second or two to open; a minute means that the driver hangs. */
const openingMs = 60_000;

function tryDevice({ device }: Vendor): Finding {
  const what = `device "${device}"`;
  const runtime = JSON.stringify(join(import.meta.dir, "../native/runtime.ts"));
  const body = `import { Engine } from ${runtime};
    try { using engine = new Engine({ device: "${device}", workers: 1 }); console.log(JSON.stringify({ info: engine.deviceInfo() })); }
    catch (error) { console.log(JSON.stringify({ problem: error.message })); }`;
  const child = Bun.spawnSync([process.execPath, ...bunFlags, "-e", body], {
    env: process.env,
    stdin: "ignore",
    stderr: "pipe",
    timeout: openingMs,
    killSignal: "SIGKILL",
  });
  const answer = answerIn(child.stdout.toString());
  if (answer === undefined) {
    const how = child.exitedDueToTimeout
      ? `did not open within ${openingMs / 1000} s`
      : `ended the process that opened it`;
    const value = `${how} (${child.signalCode ?? `exit code ${child.exitCode}`})`;
    return { what, value, state: "note", remedy: "check the driver: nvidia-smi or rocminfo should answer" };
  }
  if (answer.info === undefined) return { what, value: answer.problem ?? "", state: "note" };
  const { name, totalBytes, freeBytes, overheadBytes, capability, multiprocessors, driverVersion } = answer.info;
  const version = `${Math.floor(driverVersion / 1000)}.${Math.floor((driverVersion % 1000) / 10)}`;
  const parts = [
    `works: ${name}`,
    `${formatBytes(totalBytes)} in all, ${formatBytes(freeBytes)} free, ${formatBytes(overheadBytes)} taken before the first buffer`,
    device === "cuda"
      ? `driver for CUDA ${version}, compute capability ${capability.toFixed(1)}`
      : `driver ${driverVersion}`,
    `${multiprocessors} multiprocessors`,
    `${kernelFiles(device === "cuda" ? "cuda" : "hip").length} files of kernels`,
    "matrix library found",
  ];
  return { what, value: parts.join("; "), state: "ok" };
}

function answerIn(output: string): { info?: DeviceInfo; problem?: string } | undefined {
  try {
    return JSON.parse(output) as { info?: DeviceInfo; problem?: string };
  } catch {
    return undefined; // it ended before it could say anything
  }
}

/** Rates of machines (probe.ts), and the algorithms of matrix products. */
function measured(): Finding {
  const what = "measured before";
  const folder = writableCacheDirectory();
  if (folder === "")
    return {
      what,
      value: "nowhere to keep it",
      state: "note",
      remedy: "name a folder that can be written in SLUICE_CACHE",
    };
  const files = listed(folder);
  const machines = files.filter((name) => /^machine-.*\.json$/.test(name)).length;
  const products = files
    .filter((name) => /^gemm-.*\.txt$/.test(name))
    .reduce((sum, name) => sum + text(join(folder, name)).split("\n").filter(Boolean).length, 0);
  const value = `rates for ${machines} ${machines === 1 ? "kind" : "kinds"} of model, algorithms of ${products} matrix products (${folder})`;
  return { what, value, state: "ok" };
}

/** Where the loader would look, near enough. */
function libraryFolders(root: string): string[] {
  const fixed = ["usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/lib", "usr/lib/wsl/lib"];
  const toolkits = ["usr/local/cuda/compat", "usr/local/nvidia/lib64", "opt/rocm/lib"];
  const named = (process.env["LD_LIBRARY_PATH"] ?? "").split(":").filter((folder) => folder !== "");
  return [...named, ...[...fixed, ...toolkits].map((folder) => join(root, folder))];
}

// ---- the host -------------------------------------------------------------------------------------------------------

function cores(root: string): Finding {
  const model = /model name\s*:\s*(.+)/.exec(text(join(root, "proc/cpuinfo")))?.[1] ?? process.arch;
  return { what: "cores", value: `${availableParallelism()} of ${model}`, state: "ok" };
}

function memory(root: string): Finding {
  const { total, available, limit } = hostMemory(root);
  const parts = [
    `${formatBytes(total)} in all`,
    available === undefined ? "" : `${formatBytes(available)} available`,
    limit === undefined ? "" : `this container may use ${formatBytes(limit)}`,
  ];
  return { what: "memory", value: parts.filter(Boolean).join(", "), state: "ok" };
}

/** Weights and gradients on their way to a GPU lie in locked memory. */
function lockedMemory(root: string): Finding {
  const limit = /Max locked memory\s+(\w+)/.exec(text(join(root, "proc/self/limits")))?.[1];
  const what = "locked memory";
  if (limit === undefined || limit === "unlimited") return { what, value: limit ?? "unknown", state: "ok" };
  const remedy = "ulimit -l unlimited, or --ulimit memlock=-1 for a container; only GPUs need it";
  return { what, value: `at most ${formatBytes(Number(limit))}`, state: "note", remedy };
}

/** Where runs and downloaded models go. */
function disks(): Finding[] {
  return [
    ["disk of this directory", "."],
    ["disk of the model cache", huggingFaceHome()],
    ["disk of the token cache", cacheDirectory()],
  ].map(([what, path]) => {
    const folder = existing(resolve(path!));
    const { bavail, blocks, bsize } = statfsSync(folder);
    const value = `${formatBytes(bavail * bsize)} free of ${formatBytes(blocks * bsize)} (${folder})`;
    if (bavail * bsize > 20e9) return { what: what!, value, state: "ok" };
    const remedy = "free some space: a checkpoint takes 12 bytes a parameter, an exported model 2";
    return { what: what!, value, state: "note", remedy };
  });
}

/** The nearest directory that is there. */
function existing(path: string): string {
  return existsSync(path) ? path : existing(dirname(path));
}

/** A file's text, or nothing. */
function text(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** A directory's names, or none. */
function listed(path: string): string[] {
  try {
    return readdirSync(path).sort();
  } catch {
    return [];
  }
}
