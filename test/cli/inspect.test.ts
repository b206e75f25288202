// `sluice inspect` on models and checkpoints, whole and broken; `sluice doctor` on made-up machines; `sluice plan`.

import { expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { cpSync, mkdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { examine } from "../../src/view/doctor.ts";
import { inspect, type ModelInspection } from "../../src/keep/inspect.ts";
import { train } from "../../src/index.ts";
import { sluice } from "../support/cli.ts";
import { fixtures, temporaryDirectory } from "../support/models.ts";
import { smallRun } from "../support/small-run.ts";

setDefaultTimeout(patiently(30_000)); // whole runs and processes, on a machine that may be busy

for (const name of ["qwen3-tiny", "llama-tiny", "mistral-tiny", "qwen2-tiny"])
  test(`${name}: blocks add up, nothing is wrong`, async () => {
    const found = (await inspect(join(fixtures, name))) as ModelInspection;
    expect(found.problems).toEqual([]);
    expect(found.architecture!.modelType).toBe(name.split("-")[0]!);
    expect(found.blocks.reduce((sum, { parameters }) => sum + parameters, 0)).toBe(found.parameters);
    const bytes = Object.values(found.dtypes).reduce((sum, dtype) => sum + dtype.bytes, 0);
    expect(bytes).toBe(2 * found.parameters);
    expect(found.tokenizer!.chatTemplate).toBe(true);
  });

test("a broken part does not hide the others, and the exit code says so", async () => {
  using directory = temporaryDirectory();
  cpSync(join(fixtures, "qwen3-tiny"), directory.path, { recursive: true });
  rmSync(join(directory.path, "tokenizer.json"));
  truncateSync(join(directory.path, "model.safetensors"), 100_000);
  const { out, code } = await sluice(["inspect", directory.path]);
  expect(code).toBe(1);
  expect(out).toContain("qwen3, 220k parameters");
  expect(out).toContain("layer 0–3, each");
  expect(out).toMatch(/problems:\n {2}- .*model.safetensors.*\n {2}- .*tokenizer.json is missing; copy it/);
  const json = JSON.parse((await sluice(["inspect", directory.path, "--json"])).out) as ModelInspection;
  expect(json.problems).toHaveLength(2);
  expect(json.architecture!.layers).toBe(4);
});

test("a directory that is none, and a run's", async () => {
  expect(await sluice(["inspect", "nowhere"])).toMatchObject({ error: expect.stringContaining("nowhere"), code: 1 });
  using directory = temporaryDirectory();
  mkdirSync(join(directory.path, "checkpoints/step-000002"), { recursive: true });
  await expect(inspect(directory.path)).rejects.toThrow(/is a run directory; inspect its model.*: step-000002$/);
});

test("a checkpoint is inspected and exported; in float32 it is the exact masters", async () => {
  using run = smallRun();
  await train({ ...run.config, steps: 2 });
  const checkpoint = join(run.config.output, "checkpoints/step-000002");
  const found = await inspect(checkpoint);
  expect(found).toMatchObject({ kind: "checkpoint", step: 2, source: run.config.model, problems: [] });
  const exported = join(run.path, "exported");
  const { out, error, code } = await sluice(["export", run.config.output, exported, "--json"]);
  expect({ error, code }).toEqual({ error: "", code: 0 });
  expect(JSON.parse(out)).toEqual({ checkpoint, step: 2, directory: exported, dtype: "bfloat16" });
  const bytes = (directory: string) => Bun.file(join(directory, "model.safetensors")).bytes();
  expect(await bytes(exported)).toEqual(await bytes(join(run.config.output, "model")));

  await sluice(["export", checkpoint, exported, "--dtype", "float32"]);
  const exact = (await inspect(exported)) as ModelInspection;
  expect(Object.keys(exact.dtypes)).toEqual(["F32"]);
  expect(exact.problems).toEqual([]);

  truncateSync(join(checkpoint, "layer-1.safetensors"), 1000);
  const [problem] = (await inspect(checkpoint)).problems;
  expect(problem).toMatch(/layer-1.safetensors has 1000 bytes, \d+ were written; it is cut off/);
  const failed = await sluice(["export", checkpoint, exported]);
  expect(failed).toMatchObject({ error: `${problem}\n`, code: 1 });
});

test("the doctor finds drivers and cards by name and says how to get what is missing", () => {
  using directory = temporaryDirectory();
  const machine = (files: Record<string, string>) => {
    rmSync(directory.path, { recursive: true, force: true });
    for (const [path, contents] of Object.entries(files)) {
      mkdirSync(dirname(join(directory.path, path)), { recursive: true });
      writeFileSync(join(directory.path, path), contents);
    }
    return examine({ root: directory.path }).filter(({ what }) => what.endsWith("GPU"));
  };
  const card = { "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA GeForce RTX 4090\nIRQ: 1\n" };
  const cuda = { "usr/lib/x86_64-linux-gnu/libcuda.so.1": "" };
  expect(machine({})).toEqual([
    { what: "GPU", value: "none found; steps are computed by the cpu device", state: "note" },
  ]);
  expect(machine({ ...card, ...cuda })).toEqual([
    {
      what: "NVIDIA GPU",
      value: `NVIDIA GeForce RTX 4090; driver library ${join(directory.path, "usr/lib/x86_64-linux-gnu/libcuda.so.1")}`,
      state: "ok",
    },
  ]);
  expect(machine(card)[0]).toMatchObject({ state: "note", value: "NVIDIA GeForce RTX 4090; no driver library" });
  expect(machine(cuda)[0]!.remedy).toContain("--gpus all");
  const kfd = "sys/class/kfd/kfd/topology/nodes";
  const amd = {
    [`${kfd}/0/properties`]: "cpu_cores_count 8\nsimd_count 0\n",
    [`${kfd}/0/name`]: "\n",
    [`${kfd}/1/properties`]: "cpu_cores_count 0\nsimd_count 384\n",
    [`${kfd}/1/name`]: "navi31\n",
    "opt/rocm/lib/libamdhip64.so.7": "",
  };
  expect(machine(amd)[0]).toMatchObject({
    what: "AMD GPU",
    state: "ok",
    value: expect.stringMatching(/^navi31; driver/),
  });
});

test("sluice doctor on this machine: nothing is missing", async () => {
  const { out, code } = await sluice(["doctor", "--json"]);
  expect(code).toBe(0);
  const names = (JSON.parse(out) as { what: string; state: string }[]).map(({ what, state }) => [what, state]);
  for (const what of ["Bun", "packages", "native library"]) expect(names).toContainEqual([what, "ok"]);
});

test("sluice plan: the bill is the run's own, a described machine is faster, and what does not fit is said", async () => {
  using run = smallRun();
  let bill = "";
  await train({ ...run.config, steps: 1 });
  bill = run.printed();
  const flags = ["--model", run.config.model, "--batchSize", "2", "--sequenceLength", "64"];
  const here = await sluice(["plan", ...flags]);
  expect(here.code).toBe(0);
  expect(here.out).toContain("on this machine: the cpu device");
  for (const line of here.out.split("\n").slice(9)) expect(bill).toContain(line);
  const json = JSON.parse((await sluice(["plan", ...flags, "--gpu", "rtx4090", "--json"])).out);
  expect(json.secondsPerStep).toBeLessThan(0.1);
  expect(json).toMatchObject({ tokensPerStep: 128, device: { fits: true }, host: { fits: true } });
  const large = await sluice([
    "plan",
    "--model",
    "qwen3-0.6b",
    "--batchSize",
    "1",
    "--gpu",
    "rtx4090",
    "--ram",
    "1GiB",
  ]);
  expect(large.out).toMatch(
    /does not fit: the run needs .* of the host's memory, which has 1\.0 GiB for it; .* or take a smaller model/,
  );
  expect(large.code).toBe(1);
  const typo = await sluice(["plan", "--model", "qwen3-0.6b", "--gpu", "rtx4091"]);
  const checked = await sluice(["plan", ...flags, "--machine", "h200", "--play", "3", "--jitter", "0.2", "--check"]);
  expect(checked).toMatchObject({ code: 0, error: "" });
  expect((await sluice(["plan", ...flags, "--jitter", "x"])).error).toContain('--jitter must be a number (was "x")');
  expect(typo.error).toContain('no machine is called "rtx4091", did you mean "rtx4090"?');
});
