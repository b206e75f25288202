// The kernels are compiled once per CPU level, and a machine uses its best. Where that is x86_64_v4, the v3 kernels would
// never run before they reach a smaller machine; so the families that lean on vector widths and register blocks run again.

import { expect, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { join } from "node:path";
import { native } from "../../src/native/library.ts";

const families = ["linear", "attention", "attention-cached", "norm", "rope", "swiglu", "loss"];
const reason =
  native().sluice_cpu_level() === 4 ? undefined : "this CPU's kernels are tested already, and it has no others";
if (reason !== undefined) console.log(`skipped the v3 kernels: ${reason}`);

test.skipIf(reason !== undefined)(
  "ops on the kernels for x86_64_v3",
  async () => {
    const files = families.map((family) => join(import.meta.dir, `${family}.test.ts`));
    const env = { ...process.env, SLUICE_CPU: "v3" };
    const child = Bun.spawn([process.execPath, "test", `--timeout=${patiently(20_000)}`, ...files], {
      env,
      stdout: "pipe",
      stderr: "pipe",
    });
    const [code, output] = await Promise.all([child.exited, child.stderr.text()]);
    const failures = output.split("\n").filter((line) => /^(error|\(fail\))/.test(line));
    expect({ code, failures }).toEqual({ code: 0, failures: [] });
  },
  patiently(300_000),
);
