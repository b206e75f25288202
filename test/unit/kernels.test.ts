// What is read from compilers' reports about kernels: a spill that is overlooked is a kernel that is slow for no visible reason.

import { expect, test } from "bun:test";
import { spills } from "../../scripts/kernel-check.ts";
import { kernelObjects, missingCompiler } from "../../scripts/kernels.ts";

test("spills of NVIDIA kernels, per architecture", () => {
  const report = `ptxas info    : Compiling entry function 'rmsnorm_forward' for 'sm_90a'
ptxas info    : Function properties for rmsnorm_forward
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 128 bytes smem
ptxas info    : Compiling entry function 'rmsnorm_backward' for 'sm_80'
ptxas info    : Function properties for rmsnorm_backward
    72 bytes stack frame, 80 bytes spill stores, 80 bytes spill loads`;
  expect(spills("nvidia", report, "")).toEqual([{ kernel: "rmsnorm_backward", architecture: "sm_80", bytes: 80 }]);
});

test("scratch of AMD kernels; scalar registers in vector lanes are not in memory", () => {
  const kernel = (name: string, scratch: number, scalars: number) => `
cuda/loss.cu:1:1: remark: Function Name: ${name} [-Rpass-analysis=kernel-resource-usage]
cuda/loss.cu:1:1: remark:     ScratchSize [bytes/lane]: ${scratch} [-Rpass-analysis=kernel-resource-usage]
cuda/loss.cu:1:1: remark:     SGPRs Spill: ${scalars} [-Rpass-analysis=kernel-resource-usage]`;
  const report = kernel("cross_entropy", 0, 64) + kernel("cross_entropy_any", 12, 0);
  expect(spills("amd", report, "gfx942")).toEqual([{ kernel: "cross_entropy_any", architecture: "gfx942", bytes: 12 }]);
});

test.skipIf(missingCompiler("amd") !== undefined)("a kernel object's files are its source and all it includes", () => {
  const norm = kernelObjects("amd").find(({ family }) => family === "norm")!;
  expect(norm.files).toEqual([
    "cuda/abi.gen.cuh",
    "cuda/norm.cu",
    "cuda/reduce.cuh",
    "cuda/vectors.cuh",
    "hip/gpu.cuh",
  ]);
});
