// The machine's rates, measured: plausible numbers on the cpu device, kept for the next time, and good enough to simulate.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { predictedSeconds } from "../../src/predict/fit.ts";
import { Engine } from "../../src/native/runtime.ts";
import { measuredMachine, roomOf } from "../../src/predict/probe.ts";
import { describeModel, rehearsedShape } from "../../src/predict/rehearsal.ts";
import { temporaryDirectory } from "../support/models.ts";

setDefaultTimeout(patiently(60_000));

const config = describeModel({
  modelType: "qwen3",
  tied: true,
  layers: 2,
  vocabulary: 512,
  hidden: 128,
  intermediate: 256,
  heads: 4,
  kvHeads: 2,
  headDim: 32,
});
const sizes = { config, dtype: "float32", tokens: 64 } as const;
const cacheBefore = process.env["SLUICE_CACHE"];
const files = temporaryDirectory();
beforeAll(() => void (process.env["SLUICE_CACHE"] = files.path));
afterAll(() => {
  if (cacheBefore === undefined) delete process.env["SLUICE_CACHE"];
  else process.env["SLUICE_CACHE"] = cacheBefore;
  files[Symbol.dispose]();
});

test("rates are measured once, and again when what was kept is cut off", async () => {
  using engine = new Engine({ device: "cpu", workers: 2 });
  const machine = await measuredMachine(engine, sizes);
  expect(machine).toMatchObject({ cores: 2, name: expect.stringContaining("2 workers") });
  for (const rate of [machine.gemm.float32, machine.deviceMemory, machine.launch, machine.link, machine.host])
    expect(rate).toBeGreaterThan(0);
  expect(machine.linkBoth).toBeGreaterThanOrEqual(machine.link);
  expect(machine.hostMemory).toBeGreaterThanOrEqual(machine.host);
  for (const rates of [machine.attentionForward, machine.attentionBackward]) {
    const lengths = rates.map(([length]) => length);
    expect(lengths).toEqual(lengths.toSorted((a, b) => a - b));
    for (const [, rate] of rates) expect(rate).toBeGreaterThan(0);
  }
  expect(predictedSeconds(rehearsedShape(config, { tokensMax: 64 }), machine)).toBeGreaterThan(0);

  expect(await measuredMachine(engine, sizes)).toEqual(machine);
  const [kept] = readdirSync(files.path);
  writeFileSync(join(files.path, kept!), "{");
  expect(await measuredMachine(engine, sizes)).not.toEqual(machine);
});

test("only a GPU has room to fit to", async () => {
  using engine = new Engine({ device: "cpu", workers: 1 });
  expect(await roomOf(engine, sizes, true)).toBeUndefined();
});
