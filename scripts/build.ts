// `bun run build`: builds the native library into build/ and writes its bindings to src/native/abi.gen.ts.
//   --target aarch64-linux|aarch64-macos   builds for another machine into build/<target>/ instead
//   --check                                only compares the bindings with the Zig declarations; exit code 1 when stale

import { relative } from "node:path";
import { parseArgs } from "node:util";
import * as native from "./native.ts";
import { install, main } from "./setup.ts";

async function build(): Promise<void> {
  const { values } = parseArgs({ options: { target: { type: "string" }, check: { type: "boolean" } } });
  await install();
  if (values.check) return checkBindings();
  const target = values.target ?? native.hostTarget();
  if (!native.isTarget(target))
    throw new native.BuildError(`--target must be one of ${native.targetNames.join(", ")} (was "${target}")`);
  const start = performance.now();
  if (target === native.hostTarget()) native.writeBindings(await native.generateBindings());
  await native.buildLibrary(target);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`built ${relative(native.root, native.libraryPath(target))} in ${seconds} s`);
}

async function checkBindings(): Promise<void> {
  if ((await native.generateBindings()) !== native.readBindings())
    throw new native.BuildError(`src/native/abi.gen.ts is not what the Zig declarations say; run "bun run build"`);
}

await main(build);
