// `bun run check`: everything a laptop can tell about a change without running the tests. All checks run even when one
// fails; each prints one line, a failed one what it found. Exit code 1 when any failed. CI runs the same command.

import { availableParallelism } from "node:os";
import { join } from "node:path";
import { checkKernels } from "./kernel-check.ts";
import { buildLibrary, root, testKernels, zigPath } from "./native.ts";
import { main, setup } from "./setup.ts";

/** A text that `run` returns is a note for the check's line. */
type Check = { name: string; run: () => Promise<string | void> };

/** A process that must end with 0; what it wrote is the finding. */
async function command(...words: string[]): Promise<void> {
  const child = Bun.spawn(words, { cwd: root, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [output, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (code !== 0) throw new Error((output + errors).trim() || `${words.join(" ")} ended with exit code ${code}`);
}

const bun = process.execPath;

/** The long ones first, so that they overlap with the short ones. */
const checks: Check[] = [
  { name: "NVIDIA kernels", run: () => checkKernels("nvidia") },
  { name: "kernel tests", run: testKernels },
  { name: "aarch64 Linux build", run: () => buildLibrary("aarch64-linux") },
  { name: "aarch64 macOS build", run: () => buildLibrary("aarch64-macos") },
  { name: "AMD kernels", run: () => checkKernels("amd") },
  { name: "bindings", run: () => command(bun, "scripts/build.ts", "--check") },
  { name: "config docs", run: () => command(bun, "scripts/config-docs.ts", "--check") },
  { name: "types", run: () => command(bun, "check", "--no-script", "--no-pretty") },
  { name: "lint", run: () => command(join(root, "node_modules/.bin/oxlint"), "--deny-warnings", "--format=unix") },
  { name: "format", run: () => command(bun, "fmt", "--check", "--no-script") },
  { name: "zig format", run: () => command(zigPath(), "fmt", "--check", "zig", "--exclude", "zig/.zig-cache") },
  { name: "tidy", run: () => command(bun, "scripts/tidy.ts") },
  { name: "structure", run: () => command(bun, "scripts/structure.ts") },
];

/** Runs one check and prints its line; whether it passed. */
async function report(check: Check): Promise<boolean> {
  const start = performance.now();
  let note = "";
  const problem = await check.run().then(
    (text) => void (note = text ?? ""),
    (error: Error) => error.message.trim(),
  );
  const seconds = `${((performance.now() - start) / 1000).toFixed(1)} s`;
  console.log(
    `${problem === undefined ? "ok  " : "FAIL"}  ${check.name.padEnd(20)} ${seconds.padStart(7)}${note && `  ${note}`}`,
  );
  if (problem !== undefined) console.log(problem.replace(/^/gm, "      "));
  return problem === undefined;
}

async function check(): Promise<void> {
  await setup();
  const waiting = [...checks];
  let failed = 0;
  const worker = async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) if (!(await report(next))) failed += 1;
  };
  await Promise.all(Array.from({ length: Math.max(2, availableParallelism()) }, worker));
  console.log(`${checks.length - failed} of ${checks.length} checks passed`);
  if (failed > 0) process.exitCode = 1;
}

await main(check);
