// `sluice doctor`: what this machine has of what Sluice can use, what is missing and how to get it.

import { parseArgs } from "node:util";
import type { Command } from "./command.ts";

const help = `sluice doctor [--json]

Looks at Bun, packages, the native library, drivers and GPUs, cores, memory and disks. The exit code
is 1 when something is missing without which Sluice does not work. A GPU that is there is opened, in
a process of its own, as a run would open it.`;

const marks = { ok: "ok", note: "note", missing: "MISSING" };

async function run(args: string[]): Promise<void> {
  const { values } = parseArgs({ args, options: { json: { type: "boolean" } } });
  const { examine } = await import("../view/doctor.ts");
  const found = examine();
  if (values.json) console.log(JSON.stringify(found));
  else
    for (const { what, value, state, remedy } of found) {
      console.log(`${marks[state].padEnd(8)} ${what.padEnd(24)} ${value}`);
      if (remedy !== undefined) console.log(`${" ".repeat(34)}→ ${remedy}`);
    }
  if (found.some(({ state }) => state === "missing")) process.exitCode = 1;
}

export const command: Command = { help, run };
