// What is recorded and what it holds, word for word: the guard of every change that should alter nothing. Each case below
// is the text of its plans (scalars included, events counted from the plan's first) with its memory bill; the texts are kept
// in fixtures/plans/texts.json.zst for a diff, their hashes in fixtures/plans/hashes.json for a reader of commits.
//
// A buffer that gets another name is entered in `renamed`; a plan that is meant to change is recorded anew with
// SLUICE_UPDATE_SNAPSHOTS=1 in a commit that says why.

import { resolve } from "../../src/predict/fit.ts";
import { expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseConfig } from "../../src/run/config.ts";
import { logits } from "../../src/engine/logits.ts";
import { machines } from "../../src/predict/machines.ts";
import { memoryBill } from "../../src/step/bill.ts";
import { type BillLine } from "../../src/plan/buffers.ts";
import { load } from "../../src/engine/model.ts";
import { parameterBlocks } from "../../src/models/parameters.ts";
import { Range, describeCommand, type Plan } from "../../src/plan/plan.ts";
import { Random } from "../../src/words/random.ts";
import { fullBatch, publishedModel, rehearse, rehearsedSettings } from "../../src/predict/rehearsal.ts";
import { recordStep } from "../../src/step/step.ts";
import { Trainer } from "../../src/engine/trainer.ts";
import { fixtures } from "../support/models.ts";
import { plainConfig, randomStep } from "../support/training.ts";
import { Draw } from "../support/tensors.ts";
import { randomCase, recordAll, shapeOf } from "./cases.ts";

/** Names of buffers, purposes and labels that changed since the texts were kept: old to new. */
const renamed: Record<string, string> = {
  '"updates":true': '"state":"fp32"',
  "(step 0 loss head)": "(step 0 loss head micro-batch 0)", // logits are recorded as every other forward pass
};

const folder = join(import.meta.dir, "../fixtures/plans");
const update = process.env["SLUICE_UPDATE_SNAPSHOTS"] === "1";
const kept = read();

function read(): Record<string, string> {
  const path = join(folder, "texts.json.zst");
  return existsSync(path) ? JSON.parse(new TextDecoder().decode(Bun.zstdDecompressSync(readFileSync(path)))) : {};
}

/** A plan as text that does not depend on what the process recorded before. */
export function planText(plan: Plan, before = plan.base): string {
  const lines = plan.commands.map((command) => {
    const relative = (event: number): number => event - before;
    const waits = command.waits.map(relative).sort((a, b) => a - b);
    const described = describeCommand({ ...command, id: relative(command.id), waits });
    const scalars = Object.entries(command.arguments).filter(([, value]) => !(value instanceof Range));
    return `${described} ${JSON.stringify(Object.fromEntries(scalars.sort(([a], [b]) => (a < b ? -1 : 1))))}`;
  });
  return lines.join("\n");
}

const billText = (bill: readonly BillLine[]): string =>
  bill.map(({ name, tier, bytes, purpose }) => `${name} ${tier} ${bytes} ${purpose}`).join("\n");

const now: Record<string, string> = {};

function compare(name: string, parts: readonly string[]): void {
  const text = parts.join("\n----\n");
  now[name] = text;
  if (update) return;
  const old = kept[name];
  if (old === undefined) throw new Error(`no text is kept of "${name}"; record it with SLUICE_UPDATE_SNAPSHOTS=1`);
  const [before, after] = [withNewNames(old), text].map((all) => sortedKeys(all).split("\n")) as [string[], string[]];
  const first = before.findIndex((line, index) => line !== after[index]);
  const at = first < 0 && before.length !== after.length ? Math.min(before.length, after.length) : first;
  if (at >= 0)
    throw new Error(
      `${name} differs from line ${at + 1} of ${before.length} (now ${after.length}):\n` +
        `  was ${before[at] ?? "the end"}\n  is  ${after[at] ?? "the end"}`,
    );
}

/** The first line may hold a shape as JSON; the order of its keys means nothing. */
const sortedKeys = (text: string): string =>
  text.replace(/^\{.*\}$/m, (line) =>
    JSON.stringify(Object.fromEntries(Object.entries(JSON.parse(line)).sort(([a], [b]) => (a < b ? -1 : 1)))),
  );

const withNewNames = (text: string): string =>
  Object.entries(renamed).reduce((all, [old, name]) => all.replaceAll(old, name), text);

test.each(Array.from({ length: 32 }, (_, index) => index + 1))("small case %i", (seed) => {
  const chosen = randomCase(seed);
  const shape = shapeOf(chosen);
  const steps = recordAll(chosen, rehearse(shape));
  const base = steps[0]!.plan.base;
  compare(`small ${seed}`, [billText(memoryBill(shape)), ...steps.map(({ plan }) => planText(plan, base))]);
});

const GiB = 2 ** 30;
/** Real sizes with everything said by hand, and small ones with everything left to the fit. */
const real: Record<string, { model: string; layers?: number; config: Record<string, unknown>; room?: number }> = {
  "qwen3-8b streams with exact clipping": {
    model: "qwen3-8b",
    config: { batchSize: 4, window: { residentBlocks: 0, slots: 3, keepBlocks: 4, boundary: "pinned", ring: "all" } },
  },
  "llama3-8b half resident, accumulates": {
    model: "llama3-8b",
    config: {
      batchSize: 8,
      gradientAccumulation: 2,
      window: { residentBlocks: 16, slots: 2, keepBlocks: 8, keep: "attention", boundary: "device", ring: "all" },
    },
  },
  "qwen3-0.6b unclipped with a short ring": {
    model: "qwen3-0.6b",
    config: { batchSize: 16, maxGradNorm: null, window: { residentBlocks: 4, slots: 2, keepBlocks: 0, ring: 3 } },
  },
  "qwen3-4b clipped by the norm before": {
    model: "qwen3-4b",
    config: {
      batchSize: 6,
      microBatchTokens: 2048,
      maxGradNorm: { value: 1, mode: "previous" },
      window: { residentBlocks: 2, slots: 4, keepBlocks: 36, keep: "products", boundary: "pinned", ring: 5 },
    },
  },
  "six layers of qwen3-1.7b fitted to 5 GiB": {
    model: "qwen3-1.7b",
    layers: 6,
    config: { batchSize: 8 },
    room: 5 * GiB,
  },
  "four layers of llama3-8b fitted to a whole card": {
    model: "llama3-8b",
    layers: 4,
    config: { batchSize: 32, maxGradNorm: null },
    room: 100 * GiB,
  },
};

test.each(Object.keys(real))("%s", async (name) => {
  const { model, layers, config: given, room } = real[name]!;
  const published = publishedModel(model);
  const count = layers ?? published.layers;
  const described = { ...published, layers: count, slidingWindows: published.slidingWindows.slice(0, count) };
  const config = await parseConfig({ model, data: "x", output: "y", device: "cuda", ...given });
  const blocks = parameterBlocks(described);
  const fitted = room === undefined ? undefined : { machine: machines["h200"]!, deviceBytes: room };
  const limits = { device: Infinity, overhead: 0, capped: false, pieceBytes: 2 << 20, host: Infinity };
  const asked = { config: described, blocks, dtype: "bfloat16" as const };
  const { shape } = resolve(asked, config, { limits, room: fitted });
  const { blocks: _, model: __, ...choices } = shape;
  const recorder = rehearse(shape);
  const random = new Random(0);
  const batch = fullBatch(described, config, () => random.uniform());
  const plans = [1, 2].map((step) => recordStep(recorder, batch, rehearsedSettings(shape, step)).plan);
  const texts = plans.map((plan) => planText(plan, plans[0]!.base));
  compare(name, [JSON.stringify(choices), billText(memoryBill(shape)), ...texts]);
});

test.each(["qwen3-tiny", "mistral-tiny"])("training, evaluation, answers and logits of %s", async (name) => {
  using model = await load(join(fixtures, name), { workers: 1, dtype: name === "qwen3-tiny" ? "float32" : "bfloat16" });
  const texts: string[] = [];
  const submit = model.engine.submit.bind(model.engine);
  model.engine.submit = (plan: Plan) => {
    texts.push(planText(plan));
    return submit(plan);
  };
  const draw = new Draw(5);
  const rows = { sequenceLength: 32, passes: 2, microBatches: 2 };
  using trainer = await Trainer.open(model, plainConfig(rows));
  const step = randomStep(draw, model.config, rows);
  await trainer.step(step);
  await trainer.evaluate([step]);
  texts.push(billText(trainer.bill));
  await model.generate(["one", "and two words"], { maxTokens: 3 });
  await logits(trainer.session, step.passes[0]![0]!);
  compare(`runs ${name}`, texts);
});

test("hashes are those of the texts", () => {
  if (update) {
    mkdirSync(folder, { recursive: true });
    writeFileSync(
      join(folder, "texts.json.zst"),
      Bun.zstdCompressSync(Buffer.from(JSON.stringify(now)), { level: 19 }),
    );
    writeFileSync(join(folder, "hashes.json"), `${JSON.stringify(hashes(now), null, 2)}\n`);
  }
  const stored = JSON.parse(readFileSync(join(folder, "hashes.json"), "utf8")) as Record<string, string>;
  expect(hashes(update ? now : kept)).toEqual(stored);
});

const hashes = (texts: Record<string, string>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(texts).map(([name, text]) => [name, new Bun.CryptoHasher("sha256").update(text).digest("hex")]),
  );
