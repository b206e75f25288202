// The command line for tests: as a process of its own, as people start it.

import { join } from "node:path";

const entry = join(import.meta.dir, "../../src/cli.ts");

export interface Finished {
  out: string;
  error: string;
  code: number;
}

/** Runs `sluice ARGS`; `input` is what its standard input holds. */
export async function sluice(args: readonly string[], input = ""): Promise<Finished> {
  const child = Bun.spawn([process.execPath, entry, ...args], {
    stdin: Buffer.from(input),
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, NO_COLOR: "1" },
  });
  const [out, error, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { out, error, code };
}
