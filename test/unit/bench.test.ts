// `bun run bench` on a model that any machine can step: what it prints and writes, on the cpu device.

import { expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { join } from "node:path";
import { traceEvents } from "../../scripts/bench/trace.ts";
import { Plan, Range } from "../../src/plan/plan.ts";
import { temporaryDirectory } from "../support/models.ts";

setDefaultTimeout(patiently(120_000));

/** Runs the script with a cache of its own: measuring the machine takes a moment and leaves a file. */
async function bench(directory: string, ...args: string[]) {
  const child = Bun.spawn([process.execPath, "scripts/bench.ts", ...args], {
    env: { ...process.env, SLUICE_CACHE: join(directory, "cache") },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [output, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { output, errors, code };
}

test("steps of two batch sizes: one line of figures each, JSON, and a trace per batch size", async () => {
  using files = temporaryDirectory();
  const [json, trace] = ["bench.json", "trace"].map((name) => join(files.path, name)) as [string, string];
  const flags = ["--shape", "tiny", "--batchSize", "1,2", "--sequenceLength", "32", "--steps", "2"];
  const window = ["--window.residentBlocks", "3", "--window.keepBlocks", "4", "--window.keep", "products"];
  const found = await bench(files.path, ...flags, ...window, "--json", json, "--trace", trace);
  expect(found).toMatchObject({ errors: "", code: 0 });
  expect(found.output).toMatch(/tiny, 1 × 32 tokens, float32, not clipped\n {2}step .*predicted/);
  const { steps } = await Bun.file(json).json();
  expect(steps.map(({ rows, tokens }: { rows: number; tokens: number }) => [rows, tokens])).toEqual([
    [1, 32],
    [2, 64],
  ]);
  expect(steps[0]).toMatchObject({ residentBlocks: 3, keep: "8 recompute, 4 products", clips: false, microBatches: 1 });
  for (const { median, predicted, tflops, gemmShare, samples, loss } of steps) {
    for (const value of [median, predicted, tflops, gemmShare]) expect(value).toBeGreaterThan(0);
    expect(samples).toHaveLength(2);
    expect(loss).toBeGreaterThan(4); // random weights: about log 160
  }
  const { traceEvents: events } = await Bun.file(`${trace}.2`).json();
  const names = new Set(events.map(({ name }: { name: string }) => name));
  for (const op of ["thread_name", "linearForward", "adamw", "attentionBackward"]) expect(names).toContain(op);
});

test("forward and backward alone update nothing and stream nothing", async () => {
  using files = temporaryDirectory();
  const json = join(files.path, "bench.json");
  const flags = [
    "--shape",
    "tiny",
    "--batchSize",
    "2",
    "--sequenceLength",
    "32",
    "--steps",
    "1",
    "--dtype",
    "bfloat16",
  ];
  expect(await bench(files.path, ...flags, "--residentOnly", "--json", json)).toMatchObject({ errors: "", code: 0 });
  const [step] = (await Bun.file(json).json()).steps;
  expect(step).toMatchObject({ residentOnly: true, boundary: "device", slots: 12 });
  expect(step.busy.host).toBeLessThan(step.busy.compute);
});

test.each([
  [["--shape", "qwen3-9b"], "--shape must be one of tiny, small,"],
  [["--shape", "tiny", "--batchSize", "1,x"], '--batchSize must be a whole number, at least 1 (was "x")'],
  [["--shape", "tiny", "--maxGradNorm", "1", "--window.ring", "1"], 'window.ring (1) cannot be smaller than "all"'],
  [["--shape", "tiny", "--deviceMemory", "much"], "deviceMemory must be a size"],
  [["--shape", "tiny", "--window.keep", "all"], 'window.keep ("all") is what window.keepBlocks blocks keep'],
  [["--shape", "tiny", "--batchsize", "4"], "batchsize is not a known key; did you mean batchSize?"],
  [["--only", "gem"], "--only takes gemm,"],
])("%p is refused", async (flags, message) => {
  using files = temporaryDirectory();
  const found = await bench(files.path, ...flags);
  expect(found.errors).toContain(message);
  expect(found.code).toBe(1);
});

test("a trace has a row per stream and leaves out what did not run", () => {
  const plan = new Plan({ step: 3, phase: "forward", block: 1 });
  const range = new Range({ handle: 1, name: "a", tier: "device", bytes: 64 });
  plan.record("upload", "zero", { to: range });
  plan.record("compute", "zero", { to: range });
  const events = traceEvents([
    {
      plan,
      spans: [
        { start: 2000, end: 5000 },
        { start: NaN, end: NaN },
      ],
    },
  ]);
  expect(events.filter(({ ph }) => ph === "M").map(({ args }) => args["name"])).toEqual([
    "compute",
    "upload",
    "download",
    "host",
    "disk",
  ]);
  expect(events.filter(({ ph }) => ph === "X")).toEqual([
    {
      name: "zero",
      cat: "forward",
      ph: "X",
      pid: 1,
      tid: 1,
      ts: 0,
      dur: 3,
      args: { command: plan.base, of: "step 3 forward block 1" },
    },
  ]);
});
