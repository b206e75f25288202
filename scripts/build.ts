// `bun run build`: builds the native library and the GPU kernels into build/ and writes what follows from the Zig
// declarations: src/native/abi.gen.ts and cuda/abi.gen.cuh. Kernels are compiled for the vendors whose compiler is here.
//   --target aarch64-linux|aarch64-macos   builds for another machine into build/<target>/ instead
//   --check                                only compares the generated files with the declarations; exit code 1 when stale

import { relative } from "node:path";
import { parseArgs } from "node:util";
import { buildKernels } from "./kernels.ts";
import * as native from "./native.ts";
import { install, main } from "./setup.ts";

async function build(): Promise<void> {
  const { values } = parseArgs({ options: { target: { type: "string" }, check: { type: "boolean" } } });
  await install();
  if (values.check) return checkGenerated();
  const target = values.target ?? native.hostTarget();
  if (!native.isTarget(target))
    throw new native.BuildError(`--target must be one of ${native.targetNames.join(", ")} (was "${target}")`);
  const start = performance.now();
  if (target === native.hostTarget())
    for (const file of native.generatedFiles) native.writeGenerated(file, await file.generate());
  await native.buildLibrary(target);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`built ${relative(native.root, native.libraryPath(target))} in ${seconds} s`);
  if (target === native.hostTarget()) await buildKernels();
}

async function checkGenerated(): Promise<void> {
  for (const file of native.generatedFiles)
    if ((await file.generate()) !== native.readGenerated(file))
      throw new native.BuildError(
        `${relative(native.root, file.path)} is not what the Zig declarations say; run "bun run build"`,
      );
}

await main(build);
