// Builds the native library and its TypeScript bindings with the Zig that package.json pins. A library is built in a
// directory of its own and renamed into place, so a build that fails or is killed leaves the last good one alone.
// Imports nothing from node_modules: `setup.ts` runs this before there is one.

import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { hostTarget, libraryOptions, root, sourcesHash, type Target, targets, zigBuild } from "../src/native/build.ts";
import { SluiceError } from "../src/words/errors.ts";

export { hostTarget, root, zigPath, zigVersion } from "../src/native/build.ts";

const buildDirectory = join(root, "build");
const bindingsPath = join(root, "src/native/abi.gen.ts");
const kernelStructsPath = join(root, "cuda/abi.gen.cuh");
const opsPagePath = join(root, "docs/ops.md");

export const targetNames = Object.keys(targets) as Target[];

/** A message for the person at the terminal; anything else that is thrown is a bug and keeps its stack. */
export class BuildError extends SluiceError {
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
    await zig(libraryOptions(target, stage));
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
  await zig(["stand-in", "--prefix", directory]);
  return join(directory, "lib", process.platform === "darwin" ? "libstand_in.dylib" : "libstand_in.so");
}

/** Runs the tests written in Zig; throws with their output. */
export async function testKernels(): Promise<void> {
  await zig(["test"]);
}

/** A file that follows from the Zig declarations: TypeScript's bindings, the structs that kernels take, the page about ops. */
export interface Generated {
  path: string;
  /** What it should say now. */
  generate(): Promise<string>;
}

export const generatedFiles: readonly Generated[] = [
  { path: bindingsPath, generate: () => formatted(bindingsPath, "abi") },
  { path: kernelStructsPath, generate: () => zig(["cuda-abi"]) },
  { path: opsPagePath, generate: () => formatted(opsPagePath, "ops-page") },
];

/** What a step of zig/build.zig prints, as `bun fmt` writes it. */
async function formatted(path: string, step: string): Promise<string> {
  return run([process.execPath, "fmt", `--stdin-filepath=${path}`], await zig([step]));
}

export function readGenerated({ path }: Generated): string {
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}

/** Written beside and renamed, because a test may be importing the file. */
export function writeGenerated({ path }: Generated, text: string): void {
  writeFileSync(`${path}.tmp`, text);
  renameSync(`${path}.tmp`, path);
}

/** Caches stay in build/, so that nothing outside the clone is written or needed. */
function zig(options: string[]): Promise<string> {
  return run(zigBuild(join(buildDirectory, "zig-cache"), options));
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
