// What a run is told and what it keeps: config, flags, plans on their way to native code, manifests of checkpoints.

import { toArrayBuffer, type Pointer } from "bun:ffi";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { restoreCheckpoint, saveCheckpoint } from "../../src/keep/checkpoint.ts";
import { trainConfig } from "../../src/cli/train.ts";
import { configJson, parseConfig, type TrainConfig } from "../../src/run/config.ts";
import { Loader } from "../../src/data/loader.ts";
import { CheckpointError, ConfigError, NativeError } from "../../src/words/errors.ts";
import { isObject, parseJson } from "../../src/io/json.ts";
import { memoryBill } from "../../src/step/bill.ts";
import { Buffers } from "../../src/plan/buffers.ts";
import { load } from "../../src/engine/model.ts";
import { deviceKinds, tiers, type Tier } from "../../src/native/abi.gen.ts";
import { native } from "../../src/native/library.ts";
import { Plan, Range } from "../../src/plan/plan.ts";
import { Random } from "../../src/words/random.ts";
import { rehearsedDecays } from "../../src/predict/rehearsal.ts";
import { StepRecorder } from "../../src/step/step.ts";
import { Trainer } from "../../src/engine/trainer.ts";
import { randomCase, recordCase, shapeOf } from "../plan/cases.ts";
import { declaredCall, opNames } from "../support/declared.ts";
import { fixtures, readJson } from "../support/models.ts";
import { conversations } from "../support/small-run.ts";
import { plainConfig } from "../support/training.ts";
import { must, type Target } from "./harness.ts";
import { bytesOf, one, textOf, type Bytes } from "./mutate.ts";

// ---- config and flags -----------------------------------------------------------------------------------------------

const full: TrainConfig = {
  model: "m",
  data: [
    { path: "a.jsonl", weight: 2, split: "train[:90%]", limit: 5 },
    { path: "b", weight: 1 },
  ],
  evaluationData: "c",
  output: "o",
  maxBadLines: "1%",
  deviceMemory: "2GiB",
  batchSize: 4,
  gradientAccumulation: 2,
  epochs: 2,
  optimizer: { learningRate: 1e-3, weightDecayGroups: [{ match: "*.bias", weightDecay: 0 }] },
  schedule: { type: "wsd", warmup: "5%", decay: 10 },
  window: { slots: "all", boundary: "device", keepBlocks: 1, residentBlocks: 0 },
  checkpoint: { every: null, keep: 3, resume: "auto" },
  evaluation: { every: 5 },
  dashboard: 7777,
};
const configWords =
  `24GiB 1e400GiB 0B 100% 101% [:90%] [90%:10%] auto all cosine wsd float32 steps epochs lr optimizer learningRate window
   weightDecayGroups deviceMemory filter`.split(/\s+/);

/** A config that is accepted is complete, and stays what it is when it is written down and read again. */
async function checkConfig(input: unknown): Promise<void> {
  const config = await parseConfig(input);
  const written = configJson(config);
  must(Bun.deepEquals(await parseConfig(written), config), `a config stays what it is: ${JSON.stringify(written)}`);
}

/** Nothing that is read may change what all objects have. */
function checkPrototype(): void {
  const added = Object.keys(Object.prototype);
  for (const key of added) delete (Object.prototype as Record<string, unknown>)[key];
  must(added.length === 0, `no input changes all objects (${added})`);
}

// oxlint-disable-next-line typescript/no-explicit-any
function jsonOf(input: Bytes): any {
  try {
    return JSON.parse(textOf(input));
  } catch (cause) {
    throw new ConfigError(`not JSON: ${(cause as Error).message}`);
  }
}

export const config: Target = {
  seeds: () => [full, { model: "m", data: "d", output: "o", steps: 3 }].map((value) => bytesOf(JSON.stringify(value))),
  isJson: true,
  words: configWords,
  open: (directory) => async (input) => {
    const value: unknown = jsonOf(input);
    await checkConfig(value);
    if (!isObject(value)) return;
    // As a file beside flags: what it says is merged into what they say.
    const path = join(directory, `config-${Bun.hash(input)}.json`);
    writeFileSync(path, input);
    await checkConfig(await trainConfig(["--optimizer.learningRate", "1", "--config", path])).finally(checkPrototype);
  },
  planted: () => async (input) => (await parseConfig(jsonOf(input)), jsonOf(input).optimizer.learningRate.toFixed()),
};

const flagTexts = [
  ["--model", "m", "--data", "d", "--output", "o", "--optimizer.learningRate", "1e-4", "--steps=3", "--dashboard"],
  ["--model", "m", "--data", "a", "--data", "b", "--output", "o", "--window.slots", "all", "--maxGradNorm", "null"],
].map((args) => args.join("\n"));

export const flags: Target = {
  seeds: () => flagTexts.map(bytesOf),
  words: ["--", "=", "\n", ".", "--a.__proto__.b\n1\n", "--constructor.prototype.b\n1\n", "--data\n", ...configWords],
  open: () => async (input) => {
    const args = textOf(input).split("\n");
    if (args.some((word) => word.startsWith("--config"))) throw new ConfigError("files are the target config's matter");
    await (async () => checkConfig(await trainConfig(args)))().finally(checkPrototype);
  },
  // Without a look at the names of keys.
  planted: () => (input) => {
    const made: Record<string, any> = {}; // oxlint-disable-line typescript/no-explicit-any
    for (const [, path, value] of textOf(input).matchAll(/^--([\w.]+)\n(.*)$/gm)) {
      const keys = path!.split(".");
      const group = keys.slice(0, -1).reduce((inside, key) => (inside[key] = Object(inside[key] ?? {})), made);
      group[keys.at(-1)!] = value;
    }
    checkPrototype();
  },
};

// ---- plans ----------------------------------------------------------------------------------------------------------

interface Bytewise {
  tier: Tier;
  bytes: number;
  name: string;
}

const planShape = shapeOf({ ...randomCase(1), layers: 2, slots: 2, ring: 2, keepBlocks: 1, residentBlocks: 1 });
const extras: Bytewise[] = [
  { tier: "host", bytes: 4096, name: "some bytes" },
  { tier: "host", bytes: 64, name: "checksum" },
  { tier: "file", bytes: 4096, name: "/dev/zero" },
];

const planBuffers: readonly Bytewise[] = [...memoryBill(planShape), ...extras];

/** An engine with the buffers that the seeds name; handles come out the same each time. */
function openEngine(
  device: "null" | "cpu",
  buffers: readonly Bytewise[],
): { handle: number; made: Map<string, number>; close(): void } {
  const library = native();
  const out = new BigUint64Array(8);
  const check = (status: number) => {
    if (status !== 0) throw new Error(`${library.sluice_last_error()}`);
    return Number(out[0]! & 0xffffffffn);
  };
  const handle = check(
    library.sluice_engine_create(deviceKinds[device], 1, Number.MAX_SAFE_INTEGER, null, null, 0, out),
  );
  const made = new Map<string, number>();
  for (const { tier, bytes, name } of buffers) {
    const text = bytesOf(`${name}\0`);
    const status =
      tier === "file"
        ? library.sluice_file_open(handle, text, 0, bytes, out)
        : library.sluice_buffer_create(handle, tiers[tier], bytes, text, text.length - 1, out);
    made.set(name, check(status));
  }
  return { handle, made, close: () => void library.sluice_engine_destroy(handle) };
}

/** A plan as it is handed over: the first id in two words, the number of commands, the words of the commands. */
function planBytes({ base, commands, words }: { base: number; commands: number; words: Uint32Array }): Bytes {
  const all = Uint32Array.from([base >>> 0, Math.floor(base / 2 ** 32), commands, ...words]);
  return new Uint8Array(all.buffer);
}

/** Some commands of a plan, as a plan of their own. */
function partOf(plan: Plan, from: number, to: number): Bytes {
  const commands = plan.commands.slice(from, to);
  const part = Object.assign(Object.create(Plan.prototype) as Plan, { commands });
  return planBytes({ base: commands[0]!.id, commands: commands.length, words: part.encode() });
}

function planSeeds(): Bytes[] {
  const { made, close } = openEngine("null", planBuffers);
  close();
  const buffer = ({ tier, bytes, name }: Bytewise) => ({ handle: made.get(name)!, tier, bytes, name });
  const recorder = new StepRecorder(
    planShape,
    Buffers.make(memoryBill(planShape), buffer),
    rehearsedDecays(planShape),
    () => {},
  );
  const plans = Array.from(
    recordCase({ ...randomCase(1), passes: 1, steps: 2, evaluations: 1 }, recorder),
    (record) => record().plan,
  );
  const files = new Plan({ step: 0, phase: "save" });
  const [bytes, checksum, file] = extras.map((extra) => new Range(buffer(extra))) as [Range, Range, Range];
  files.record("disk", "fileRead", { to: bytes, file, checksum: checksum.slice(0, 8) });
  files.record("disk", "fileWrite", { file, from: bytes, checksum: checksum.slice(0, 8) });
  files.record("disk", "fileSync", { file });
  const random = new Random(1);
  const parts = [...plans, files].flatMap((plan) =>
    Array.from({ length: 40 }, () => {
      const from = random.below(plan.commands.length);
      return partOf(plan, from, from + 1 + random.below(6));
    }),
  );
  return [...plans.map((plan) => partOf(plan, 0, plan.commands.length)), ...parts];
}

const oddWords = [0, 1, 2, 3, 7, 8, 63, 64, 65, 2 ** 16, 2 ** 31, 2 ** 32 - 1, 2 ** 32 - 64, 0x7f800000, 0x7fc00000];

function mutateWords(random: Random, good: Bytes): Bytes {
  const words = [...new Uint32Array(good.buffer)];
  for (let changes = 1 + random.below(3); changes > 0; changes--) {
    const at = random.below(random.below(8) === 0 ? 3 : words.length);
    const other = words[random.below(words.length)] ?? 0;
    switch (random.below(6)) {
      case 0:
        words[at] = one(random, oddWords);
        break;
      case 1:
        words[at] = other;
        break;
      case 2:
        words[at]! += one(random, [-1, 1, 64, -64]);
        break;
      case 3:
        words[at]! ^= 1 << random.below(32);
        break;
      case 4:
        words.splice(at, 1 + random.below(4));
        break;
      default:
        words.splice(at, 0, other, ...words.slice(at, at + random.below(8)));
    }
  }
  while (words.length < 3) words.push(0);
  return new Uint8Array(Uint32Array.from(words).buffer);
}

/** Submits it; all that is accepted must end. Returns the refusal. */
function submit(
  input: Bytes,
  device: "null" | "cpu" = "null",
  buffers: readonly Bytewise[] = planBuffers,
): string | undefined {
  const library = native();
  const [low, high, count, ...rest] = new Uint32Array(input.buffer) as Iterable<number> as [number, number, number];
  const base = (BigInt(high) << 32n) | BigInt(low);
  const { handle, made, close } = openEngine(device, buffers);
  try {
    if (device === "cpu") fillArena(handle, made.get(arena.name)!, low);
    const words = Uint32Array.from(rest.length > 0 ? rest : [0]);
    if (library.sluice_plan_submit(handle, base, count, words, rest.length) !== 0)
      return `${library.sluice_last_error()}`;
    for (let index = 0; index < count; index++)
      must(library.sluice_command_wait(handle, base + BigInt(index), 8000) === 0, "an accepted plan ends");
    return undefined;
  } finally {
    close();
  }
}

export const plan: Target = {
  seeds: planSeeds,
  mutate: mutateWords,
  open: () => (input) => {
    const refusal = submit(input);
    if (refusal !== undefined) throw new NativeError(refusal);
  },
  // As if the decoder had gone where a word told it to.
  planted: () => (input) => {
    const refusal = submit(input);
    if (/takes bytes/.test(refusal ?? "")) process.kill(process.pid, "SIGSEGV");
    if (refusal !== undefined) throw new NativeError(refusal);
  },
};

// ---- single ops, computed -------------------------------------------------------------------------------------------

const arena: Bytewise = { tier: "host", bytes: 1 << 16, name: "arena" };
const opBuffers: Bytewise[] = [arena, { tier: "file", bytes: 64, name: "/dev/zero" }];

/** Small integers, here and there one that names nothing; as floats they are small, too. The input's first word draws them. */
function fillArena(handle: number, buffer: number, seed: number): void {
  const address = new BigUint64Array(1);
  must(native().sluice_buffer_address(handle, buffer, address) === 0, "the arena is there");
  const random = new Random(seed);
  const values = new Int32Array(toArrayBuffer(Number(address[0]!) as Pointer, 0, arena.bytes));
  for (let at = 0; at < values.length; at++)
    values[at] = random.below(16) === 0 ? one(random, [-1, 2 ** 31 - 1, -(2 ** 31), 64, 5000]) : Math.min(at & 63, 5);
}

function opSeeds(): Bytes[] {
  const { made, close } = openEngine("cpu", opBuffers);
  close();
  const [space, file] = opBuffers.map((buffer) => ({ ...buffer, handle: made.get(buffer.name)! }));
  return opNames.map((op) => {
    const plan = new Plan({ step: 1, phase: "forward" });
    plan.record(op.startsWith("file") ? "disk" : "compute", op, declaredCall(op, space!, file!) as never);
    return partOf(plan, 0, 1);
  });
}

export const op: Target = {
  seeds: opSeeds,
  mutate: mutateWords,
  open: () => (input) => {
    const refusal = submit(input, "cpu", opBuffers);
    if (refusal !== undefined) throw new NativeError(refusal);
  },
  // As if an op went as far as its scalars say.
  planted: () => (input) => {
    const refusal = submit(input, "cpu", opBuffers);
    if (/it needs|would need/.test(refusal ?? "")) process.kill(process.pid, "SIGSEGV");
    if (refusal !== undefined) throw new NativeError(refusal);
  },
};

// ---- manifests ------------------------------------------------------------------------------------------------------

const rows = { sequenceLength: 64, passes: 1, microBatches: 2 };

async function openTrainer(directory: string) {
  const model = await load(join(fixtures, "qwen3-tiny"), { workers: 1 });
  const data = join(directory, "data.jsonl");
  writeFileSync(data, conversations(20));
  const trainer = await Trainer.open(model, plainConfig(rows));
  return { trainer, loader: new Loader(await model.dataset(data, rows), trainer.config, 1) };
}

function digestOf(manifest: unknown): string {
  return new Bun.CryptoHasher("sha256").update(JSON.stringify(manifest)).digest("hex");
}

export const manifest: Target = {
  async seeds(directory) {
    const { trainer, loader } = await openTrainer(directory);
    const path = await saveCheckpoint(trainer, directory, { data: loader.state(), config: { model: "m", steps: 3 } });
    cpSync(path, join(directory, "checkpoint"), { recursive: true });
    trainer.model.close();
    return [new Uint8Array(readFileSync(join(path, "manifest.json")))];
  },
  isJson: true,
  words: ["embedding.safetensors", "../x", "0000000000000000", "epoch", "checksums", "data", "files"],
  // Three of four have their digest made right again, or little else would be found.
  finish(random, input) {
    if (random.below(4) === 0) return input;
    try {
      const value = parseJson(textOf(input));
      if (!isObject(value)) return input;
      const { digest: _, ...rest } = value;
      return bytesOf(JSON.stringify({ ...rest, digest: digestOf(rest) }));
    } catch {
      return input;
    }
  },
  async open(directory) {
    const { trainer, loader } = await openTrainer(directory);
    const path = join(directory, "checkpoint");
    return async (input) => {
      writeFileSync(join(path, "manifest.json"), input);
      const { data } = await restoreCheckpoint(trainer, path);
      must(Number.isSafeInteger(trainer.steps) && trainer.steps >= 0, "a number of steps");
      loader.restore(data);
      must(loader.next().tokens > 0 && Number.isFinite(loader.epochs), "a position in the data");
    };
  },
  // As if the digest were enough.
  planted: (directory) => (input) => {
    writeFileSync(join(directory, "manifest.json"), input);
    const { digest, ...rest } = (() => {
      try {
        return readJson(join(directory, "manifest.json"));
      } catch {
        throw new CheckpointError("not JSON");
      }
    })();
    if (digest !== digestOf(rest)) throw new CheckpointError("damaged");
    return (rest["files"] as { checksums: string[] }[]).map(({ checksums }) => checksums.length);
  },
};
