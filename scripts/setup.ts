// Makes a fresh clone ready: installs what bun.lock names and builds the native library. It is the pre-script of every
// command that needs either, so it says one line per thing it does, and nothing within milliseconds when there is
// nothing to do. It may only import what a clone without node_modules has.

import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BuildError, buildLibrary, hostTarget, isLibraryFresh, root, zigVersion } from "./native.ts";
import { SluiceError } from "../src/words/errors.ts";

/** Installs dependencies unless node_modules was made from this very bun.lock. */
export async function install(): Promise<void> {
  const stamp = join(root, "node_modules/.sluice-lock");
  const wanted = createHash("sha256")
    .update(readFileSync(join(root, "bun.lock")))
    .digest("hex");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return;
  console.log("setup: installing dependencies");
  const command = [process.execPath, "install", "--frozen-lockfile"];
  const child = Bun.spawn(command, { cwd: root, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [output, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (code !== 0) throw new BuildError(`${(output + errors).trim()}\nbun install failed with exit code ${code}`);
  writeFileSync(stamp, wanted);
}

/** Everything: afterwards `src` can be imported and the library opened. */
export async function setup(): Promise<void> {
  await install();
  if (isLibraryFresh()) return;
  console.log(`setup: building the native library with Zig ${zigVersion()}, about half a minute the first time`);
  await buildLibrary(hostTarget());
}

/** Runs a script's main function: an error for the user is printed without its stack and makes the exit code 1. */
export async function main(body: () => Promise<void>): Promise<void> {
  try {
    await body();
  } catch (error) {
    if (!(error instanceof SluiceError)) throw error;
    console.error(error.message.trim());
    process.exitCode = 1;
  }
}

if (import.meta.main) await main(setup);
