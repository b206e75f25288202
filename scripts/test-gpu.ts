// `bun run test:gpu [bun test's own options]`: everything that a GPU has to pass, on each kind that this machine has: the device,
// runs that are interrupted, all ops against float64, parity with Hugging Face, and the same bits whatever the window does.
// Without a GPU it says why and ends with 0. The same suites run in every `bun run test` on a stand-in for
// the vendors' libraries (test/gpu/stand-in), and the ops on an emulation of the kernels (test/gpu/emulation).

import { NativeError } from "../src/words/errors.ts";
import { Engine } from "../src/native/runtime.ts";
import { root } from "./native.ts";

const suites = [
  "test/gpu/device.test.ts",
  "test/gpu/interrupt.test.ts",
  "test/ops",
  "test/models/parity.test.ts",
  "test/models/same-bits.test.ts",
];

/** The GPU's name, or why there is none. */
function find(device: "cuda" | "hip"): { name: string } | { reason: string } {
  try {
    using engine = new Engine({ device, workers: 1 });
    return { name: engine.deviceInfo().name };
  } catch (error) {
    if (error instanceof NativeError) return { reason: error.message };
    throw error;
  }
}

for (const device of ["cuda", "hip"] as const) {
  const found = find(device);
  if ("reason" in found) {
    console.log(`skipped on ${device}: ${found.reason}`);
    continue;
  }
  console.log(`testing ${device} on ${found.name}`);
  const child = Bun.spawn([process.execPath, "test", ...suites, ...process.argv.slice(2)], {
    cwd: root,
    env: { ...process.env, SLUICE_TEST_DEVICE: device },
    stdin: "ignore",
    stdout: "inherit",
    stderr: "inherit",
  });
  if ((await child.exited) !== 0) process.exitCode = 1;
}
