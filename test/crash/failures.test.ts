// Failures of background work surface at the next wait, as an error that names the command, its block, its buffers and the
// cause. Nothing hangs, a failed step is never saved, and the process can go on with a new engine. A command is made to fail
// by its id: steps over the same batch are recorded alike, so the last plan says where in the next one it will stand.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { cpSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { restoreCheckpoint, saveCheckpoint } from "../../src/keep/checkpoint.ts";
import type { StepBatch } from "../../src/data/batches.ts";
import { Loader } from "../../src/data/loader.ts";
import { CancelledError, CheckpointError, StepError } from "../../src/words/errors.ts";
import { load } from "../../src/engine/model.ts";
import { Plan, accesses, describeLabel, type Command } from "../../src/plan/plan.ts";
import { Trainer } from "../../src/engine/trainer.ts";
import { filesIn, makeRecipe, tinyModel, trainToEnd } from "../support/crash.ts";
import { readRaw, temporaryDirectory } from "../support/models.ts";
import { plainConfig } from "../support/training.ts";

setDefaultTimeout(patiently(60_000)); // processes are slow to start on a busy machine; nothing should come near

const directory = temporaryDirectory();
const recipe = makeRecipe(directory.path);
afterAll(() => directory[Symbol.dispose]());

const rows = { sequenceLength: 32, passes: 1, microBatches: 4 };

async function open(maxGradNorm: number | null = 1) {
  const model = await load(tinyModel, { workers: 2 });
  const config = { ...plainConfig(rows), maxGradNorm };
  const trainer = await Trainer.open(model, config);
  const loader = new Loader(await model.dataset(recipe.data, { sequenceLength: 32 }), config, 1);
  const batch = loader.next();
  const saved = { data: loader.state(), config: {} };
  return { model, engine: model.engine, trainer, batch, saved, [Symbol.dispose]: () => model.close() };
}

/** Losses of the first steps when nothing fails. */
let expected: number[];
beforeAll(async () => {
  using opened = await open();
  expected = await losses(opened.trainer, opened.batch, 3);
});

async function losses(trainer: Trainer, batch: StepBatch, count: number): Promise<number[]> {
  const result: number[] = [];
  for (let step = 0; step < count; step++) result.push((await trainer.step(batch)).loss);
  return result;
}

/** The id that the next recorded command will get. */
const nextId = (): number => new Plan({ step: 0, phase: "load" }).base;

const indexOf = (trainer: Trainer, wanted: (command: Command) => boolean): number => {
  const index = trainer.plan!.commands.findIndex(wanted);
  expect(index).toBeGreaterThanOrEqual(0);
  return index;
};

function messageOf(command: Command): string {
  const buffers = new Set([...accesses(command)].map(({ range }) => range.buffer.name));
  const { label, op, stream } = command;
  return `${describeLabel(label)}: ${op} on ${stream} failed: injected failure (buffers ${[...buffers].join(", ")})`;
}

async function failure(work: () => Promise<unknown>): Promise<unknown> {
  try {
    await work();
    return undefined;
  } catch (error) {
    return error;
  }
}

/** Digests of weights and moments, where they lie. */
function stateOf({ model, trainer }: { model: { blocks: { name: string }[] }; trainer: Trainer }): string[] {
  return model.blocks.flatMap(({ name }) =>
    ["hi", "lo", "m", "v"].map((part) => {
      const window = trainer.session.buffers.get(`${name}.${part}`).view();
      return new Bun.CryptoHasher("sha256").update(window).digest("hex");
    }),
  );
}

const places: [string, (command: Command) => boolean][] = [
  ["an upload", ({ stream, label }) => stream === "upload" && label.phase === "forward" && label.block === 2],
  ["a computation", ({ op, label }) => op === "attentionForward" && label.block === 1],
  [
    "a download of a gradient",
    ({ stream, label }) => stream === "download" && label.phase === "backward" && label.block === 3,
  ],
  ["the sum of the losses", ({ op }) => op === "lossSum"],
  ["the norm", ({ op }) => op === "clipFactor"],
  ["a host update", ({ op, label }) => op === "adamw" && label.block === 3],
  ["the embedding's update", ({ op }) => op === "adamwRows"],
];

test.each(places)("%s fails: the step says which command, and so does everything after it", async (_, wanted) => {
  using opened = await open();
  const { engine, trainer, batch, saved } = opened;
  await losses(trainer, batch, 2);
  await trainer.drain();
  const index = indexOf(trainer, wanted);
  engine.disturb({ fail: nextId() + index, jitterUs: 100, seed: index });
  const error = await failure(async () => {
    await trainer.step(batch);
    await trainer.drain();
  });
  expect(error).toBeInstanceOf(StepError);
  const command = trainer.plan!.commands[index]!;
  expect(wanted(command)).toBe(true);
  expect((error as Error).message).toBe(messageOf(command));

  // What the step did to the state is anybody's guess, so nothing takes it for one.
  engine.disturb({});
  const target = join(directory.path, "never");
  for (const use of [
    () => trainer.step(batch),
    () => trainer.drain(),
    () => trainer.evaluate([batch]),
    () => saveCheckpoint(trainer, target, saved),
  ])
    expect(await failure(use)).toBe(error);
  expect(existsSync(target)).toBe(false);

  using again = await open();
  expect(await losses(again.trainer, again.batch, 3)).toEqual(expected);
});

/** An update fails after the step's loss and norm were read: nobody is waiting. Returns the failed command. */
async function failUnnoticed({ engine, trainer, batch }: Awaited<ReturnType<typeof open>>): Promise<Command> {
  await losses(trainer, batch, 2);
  await trainer.drain();
  const index = indexOf(trainer, ({ op, label }) => op === "adamw" && label.block === 3);
  engine.disturb({ fail: nextId() + index });
  await trainer.step(batch);
  const { plan } = trainer;
  while (Number.isNaN(engine.spans(plan!)[index]!.end)) await Bun.sleep(1);
  engine.disturb({});
  return plan!.commands[index]!;
}

test("an update that fails while nobody waits is reported by the next submit", async () => {
  using opened = await open();
  const command = await failUnnoticed(opened);
  const error = await failure(() => opened.trainer.submit(opened.batch));
  expect(error).toBeInstanceOf(StepError);
  expect((error as Error).message).toBe(messageOf(command));
});

test("a trainer whose update failed is told even if somebody else heard of it first", async () => {
  using opened = await open();
  const { model, trainer, batch, saved } = opened;
  const command = await failUnnoticed(opened);
  const dataset = await model.dataset(recipe.data, { sequenceLength: 32 });
  const evaluation = await failure(() => model.loss(dataset, plainConfig(rows)));
  expect((evaluation as Error).message).toBe(messageOf(command));
  for (let times = 0; times < 5; times++) await model.loss(dataset, plainConfig(rows)); // the engine itself goes on
  const target = join(directory.path, "torn");
  expect(await failure(() => saveCheckpoint(trainer, target, saved))).toBe(evaluation);
  expect(await failure(() => trainer.step(batch))).toBe(evaluation);
  expect(existsSync(target)).toBe(false);
});

test("a write of a checkpoint fails: nothing is left of it, and the next one is whole", async () => {
  using opened = await open();
  const { engine, trainer, batch, saved } = opened;
  const target = join(directory.path, "disk");
  await losses(trainer, batch, 1);
  await trainer.drain();
  for (const [offset, op, file] of [
    [0, "fileWrite", "embedding"],
    [7, "fileWrite", "layer-0"],
    [5, "fileSync", "embedding"],
  ] as const) {
    engine.disturb({ fail: nextId() + offset });
    const error = await failure(() => saveCheckpoint(trainer, target, saved));
    expect(error).toBeInstanceOf(CheckpointError);
    const { message } = error as Error;
    expect(message).toStartWith(
      `cannot save ${join(target, "step-000001")}: step 1 save: ${op} on disk failed: injected`,
    );
    expect(message).toContain(`${file}.safetensors`);
    expect(filesIn(target)).toEqual([]);
  }
  engine.disturb({});
  const path = await saveCheckpoint(trainer, target, saved);
  expect((await trainer.step(batch)).loss).toBe(expected[1]!);
  using again = await open();
  await restoreCheckpoint(again.trainer, path);
  expect(await losses(again.trainer, again.batch, 2)).toEqual(expected.slice(1));
});

test("a checkpoint cancelled in the middle is a cancellation and no damage", async () => {
  using opened = await open();
  const { engine, trainer, batch, saved } = opened;
  const target = join(directory.path, "cancelled");
  await losses(trainer, batch, 1);
  await trainer.drain();
  engine.disturb({ jitterUs: 5000, seed: 3 });
  const saving = failure(() => saveCheckpoint(trainer, target, saved));
  while (engine.held().file === 0) await Bun.sleep(0);
  engine.cancel();
  expect(await saving).toBeInstanceOf(CancelledError);
  expect(filesIn(target)).toEqual([]);
});

test("a cancelled step", async () => {
  using opened = await open();
  const { engine, trainer, batch } = opened;
  engine.disturb({ jitterUs: 1000, seed: 4 });
  const { result } = await trainer.submit(batch);
  engine.cancel();
  expect(await failure(() => result)).toBeInstanceOf(CancelledError);
  expect(await failure(() => trainer.drain())).toBeInstanceOf(CancelledError);
  using again = await open();
  expect(await losses(again.trainer, again.batch, 1)).toEqual(expected.slice(0, 1));
});

// Without clipping, updates start as soon as gradients land; with it, they wait for the norm.
test.each([1, null])("a weight that is NaN stops the step before any update (maxGradNorm %p)", async (maxGradNorm) => {
  using opened = await open(maxGradNorm);
  const { model, trainer, batch } = opened;
  await losses(trainer, batch, 1);
  await trainer.drain();
  new Uint16Array(model.state.get("layer 2.hi")!.view())[100] = 0x7fc0;
  trainer.restored(1);
  const before = stateOf(opened);
  const error = await failure(() => trainer.step(batch));
  expect(error).toBeInstanceOf(StepError);
  expect((error as Error).message).toMatch(
    /^step 2 loss head micro-batch 0: lossSum on host failed: the loss is nan at token 0/,
  );
  expect(stateOf(opened)).toEqual(before);
});

test("a model with an infinite weight: exit code 1, no checkpoint, no export", async () => {
  const model = join(directory.path, "infinite");
  cpSync(tinyModel, model, { recursive: true });
  const file = join(model, "model.safetensors");
  const bytes = readFileSync(file);
  const { header, data } = readRaw(file);
  const { dtype, data_offsets } = header["model.layers.1.self_attn.v_proj.weight"]!;
  expect(dtype).toBe("BF16");
  bytes.writeUInt16LE(0x7f80, bytes.length - data.length + data_offsets[0] + 10);
  writeFileSync(file, bytes);
  const config = {
    ...recipe,
    model,
    output: join(directory.path, "infinite run"),
    evaluationData: undefined!,
    evaluation: {},
  };
  delete (config as Partial<typeof config>).evaluationData;
  const { code, errors } = await trainToEnd(config);
  expect(errors).toMatch(
    /^the loss became (NaN|infinite) at step 1, before anything was learned: weights of the model are not finite/,
  );
  expect(code).toBe(1);
  expect(filesIn(config.output)).toEqual([".sluice", "config.json", "loss.csv", "metrics.jsonl", "run.json"]);
});
