// Opening and closing leaves nothing behind: threads, file descriptors, bytes in any place, resident memory. The first
// rounds fill what allocators and the runtime keep for themselves; after them nothing may grow.

import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { readFileSync, readdirSync } from "node:fs";
import { saveCheckpoint } from "../../src/keep/checkpoint.ts";
import { Loader } from "../../src/data/loader.ts";
import { load } from "../../src/engine/model.ts";
import { Engine } from "../../src/native/runtime.ts";
import { Plan } from "../../src/plan/plan.ts";
import { Trainer } from "../../src/engine/trainer.ts";
import { makeRecipe, tinyModel } from "../support/crash.ts";
import { temporaryDirectory } from "../support/models.ts";
import { plainConfig } from "../support/training.ts";

setDefaultTimeout(patiently(60_000)); // processes are slow to start on a busy machine; nothing should come near

const directory = temporaryDirectory();
const recipe = makeRecipe(directory.path);
afterAll(() => directory[Symbol.dispose]());

/** What a process holds; undefined where the system does not say (it takes Linux's /proc). */
function held(): { threads: number; descriptors: number; residentMiB: number } | undefined {
  if (process.platform !== "linux") return undefined;
  Bun.gc(true);
  return {
    threads: readdirSync("/proc/self/task").length,
    descriptors: readdirSync("/proc/self/fd").length,
    residentMiB: Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"))![1]) / 1024,
  };
}

/** Runs `round` until things are warm, then `rounds` times more, and compares. */
async function growth(rounds: number, round: () => Promise<void>): Promise<void> {
  for (let warm = 0; warm < rounds / 4; warm++) await round();
  const before = held();
  for (let count = 0; count < rounds; count++) await round();
  const after = held();
  if (!before || !after) return console.log("not compared: this system has no /proc/self");
  const grown = after.residentMiB - before.residentMiB;
  console.log(
    `${rounds} rounds: ${after.threads} threads, ${after.descriptors} descriptors, ${grown.toFixed(1)} MiB grown`,
  );
  expect(after.threads).toBeLessThan(before.threads + threadSlack);
  expect(after.descriptors).toBeLessThanOrEqual(before.descriptors);
  expect(grown).toBeLessThan(residentSlackMiB);
}

/** The runtime starts and ends threads of its own; an engine has nine. */
const threadSlack = 5;

/** What a round holds at a time is far more than this: a leak of one buffer or stack per round shows. */
const residentSlackMiB = 16;

test("200 engines", async () => {
  await growth(200, async () => {
    using engine = new Engine({ device: "cpu", workers: 2 });
    const [to, from] = ["to", "from"].map((name) => engine.buffer("pinned", 1 << 20, name));
    new Uint8Array(from!.view()).fill(1);
    const plan = new Plan({ step: 0, phase: "load" });
    plan.record("upload", "copy", { to: to!.range(), from: from!.range() });
    await engine.play(plan);
    expect(engine.held()).toEqual({ device: 0, pinned: 2 << 20, host: 0, file: 0 });
  });
});

test("50 trainers of one model, each with a step and a checkpoint", async () => {
  using model = await load(tinyModel, { workers: 2 });
  const config = plainConfig({ sequenceLength: 32, passes: 1, microBatches: 2 });
  const loader = new Loader(await model.dataset(recipe.data, { sequenceLength: 32 }), config, 1);
  const before = model.engine.held();
  await growth(50, async () => {
    {
      using trainer = await Trainer.open(model, config);
      await trainer.step(loader.next());
      await saveCheckpoint(trainer, directory.path, { data: loader.state(), config: {} });
    }
    expect(model.engine.held()).toEqual(before);
  });
});

test("30 models, some closed in the middle of a step", async () => {
  const config = plainConfig({ sequenceLength: 32, passes: 1, microBatches: 2 });
  let round = 0;
  await growth(30, async () => {
    using model = await load(tinyModel, { workers: 2 });
    const trainer = await Trainer.open(model, config);
    const loader = new Loader(await model.dataset(recipe.data, { sequenceLength: 32 }), config, 1);
    const { result } = await trainer.submit(loader.next());
    if (++round % 2 === 0) result.catch(() => {});
    else await result;
  });
});
