// Files that change under a run: the model's while it is loaded and before it is exported, the data while it is read, and
// either of them before a run is resumed. Each is an error that names the file or what differs, and no checkpoint is lost.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { appendFileSync, cpSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TrainConfig } from "../../src/run/config.ts";
import { loadDataset } from "../../src/data/dataset.ts";
import { findSources } from "../../src/data/read/source.ts";
import { TokenStream } from "../../src/data/stream.ts";
import { loadTokenizer } from "../../src/data/text/tokenizer.ts";
import { DataError, ModelError, SluiceError } from "../../src/words/errors.ts";
import { exportModel } from "../../src/keep/export.ts";
import { loadTensors } from "../../src/io/tensors.ts";
import { Model, load } from "../../src/engine/model.ts";
import { targetsOf } from "../../src/engine/weights.ts";
import { openModel } from "../../src/models/open.ts";
import { Engine } from "../../src/native/runtime.ts";
import { interruptedRun, makeRecipe, namesIn, outcome, snapshot, tinyModel, trainToEnd } from "../support/crash.ts";
import { readJson, temporaryDirectory } from "../support/models.ts";
import { conversations } from "../support/small-run.ts";

setDefaultTimeout(patiently(60_000)); // processes are slow to start on a busy machine; nothing should come near

const directory = temporaryDirectory();
const model = join(directory.path, "model");
cpSync(tinyModel, model, { recursive: true });
const recipe = { ...makeRecipe(directory.path), model };
const interrupted = join(directory.path, "interrupted");
let undisturbed: Record<string, unknown>;
beforeAll(async () => {
  expect(await trainToEnd(recipe)).toMatchObject({ code: 0, errors: "" });
  undisturbed = outcome(recipe.output);
  await interruptedRun(recipe, interrupted);
});
afterAll(() => directory[Symbol.dispose]());

/** A file with other bytes for as long as `use` takes, then as it was. */
async function whileChanged(path: string, change: (text: string) => string, use: () => Promise<void>): Promise<void> {
  const bytes = readFileSync(path);
  writeFileSync(path, change(bytes.toString()));
  try {
    await use();
  } finally {
    writeFileSync(path, bytes);
  }
}

async function expectRefused(name: string, message: RegExp, changes: Partial<TrainConfig> = {}): Promise<TrainConfig> {
  const config = { ...recipe, ...changes, output: join(directory.path, name) };
  cpSync(interrupted, config.output, { recursive: true });
  const before = snapshot(config.output);
  const { code, errors } = await trainToEnd(config);
  expect(errors).toMatch(message);
  expect({ code, lines: errors.trim().split("\n").length }).toEqual({ code: 1, lines: 1 });
  expect(snapshot(config.output)).toEqual(before);
  return config;
}

async function expectExactResume(config: TrainConfig): Promise<void> {
  expect(await trainToEnd(config)).toMatchObject({ code: 0, errors: "" });
  expect(outcome(config.output)).toEqual(undisturbed);
}

test("data that has changed since: the run is not resumed, and with the old data it is", async () => {
  let config: TrainConfig | undefined;
  const another = `${JSON.stringify({ prompt: "one", completion: " more" })}\n`;
  await whileChanged(
    recipe.data as string,
    (text) => text + another,
    async () => {
      config = await expectRefused(
        "data",
        /^cannot continue at epoch \d+, row \d+: the data is not what it was at the checkpoint \(\S+\.jsonl was written to at [\d-]+T[\d:]+Z, it had .+ and has .+, or else split, .+ is another one\); put back what it was, or begin a new run with another --output$/m,
      );
    },
  );
  await expectExactResume(config!);
});

test("a config.json that computes something else: the same, and a key that means nothing here does no harm", async () => {
  const file = join(model, "config.json");
  const changed = (key: string, value: unknown) => () => JSON.stringify({ ...readJson(file), [key]: value });
  let config: TrainConfig | undefined;
  await whileChanged(file, changed("rms_norm_eps", 1e-5), async () => {
    config = await expectRefused(
      "config",
      /step-000004 belongs to another model, or to an earlier config\.json \(qwen3 4x48 vocabulary \d+ (\w+), this is qwen3 4x48 vocabulary \d+ (?!\1)\w+\)$/m,
    );
  });
  await whileChanged(file, changed("max_position_embeddings", 1024), async () => {
    expect(await trainToEnd(config!)).toMatchObject({ code: 0, errors: "" });
  });
});

test("a tokenizer that has changed since: other tokens, so it is other data", async () => {
  await whileChanged(
    join(model, "tokenizer.json"),
    (text) => {
      const tokenizer = JSON.parse(text) as { model: { merges: unknown[] } };
      tokenizer.model.merges.length = Math.floor(tokenizer.model.merges.length / 2);
      return JSON.stringify(tokenizer);
    },
    async () =>
      void (await expectRefused(
        "tokenizer",
        /the data is not what it was at the checkpoint \(.*the tokenizer, its template /,
      )),
  );
});

test("weights that are replaced between their header and their bytes", async () => {
  const opened = openModel(model);
  const file = join(model, "model.safetensors");
  writeFileSync(file, readFileSync(file)); // the same size, and nobody can tell what else
  utimesSync(file, 1, 1);
  using engine = new Engine({ device: "cpu", workers: 1 });
  const targets = targetsOf(new Model(model, opened.config, opened.blocks, engine, "float32"));
  await expect(loadTensors(engine, opened, targets)).rejects.toThrow(
    new ModelError(`${file}: was changed while it was loaded; load the model again when nobody writes to it`),
  );
});

test("a tokenizer that is changed while the model is in memory: the export says so, and works again", async () => {
  using loaded = await load(model, { workers: 1 });
  const target = join(directory.path, "exported");
  await exportModel(loaded, target);
  const before = snapshot(target);
  const file = join(model, "tokenizer_config.json");
  await whileChanged(
    file,
    (text) => `${text} `,
    async () =>
      void (await expect(exportModel(loaded, target)).rejects.toThrow(
        new SluiceError(
          `cannot export ${target}: ${file} was changed since the model was loaded, and belongs to its weights; put the original back, ` +
            `then export again`,
        ),
      )),
  );
  expect(snapshot(target)).toEqual(before);
  expect(namesIn(directory.path).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  utimesSync(file, 5, 5); // another time and the same bytes
  await exportModel(loaded, target);
  expect(snapshot(target)).toEqual(before);
});

test("data that is written to while it is read", async () => {
  const tokenizer = await loadTokenizer(model);
  const path = join(directory.path, "growing.jsonl");
  for (const bytesMin of [0, 2 ** 30]) {
    writeFileSync(path, conversations(200));
    let grew = false;
    const source = {
      path,
      filter: () => {
        if (!grew) appendFileSync(path, conversations(1));
        return (grew = true);
      },
    };
    const loading = loadDataset([source], tokenizer, { sequenceLength: 64, loss: "assistant", workers: 1, bytesMin });
    await expect(loading).rejects.toThrow(
      new DataError(`${path}: was changed while it was read; start again when nobody writes to it`),
    );
  }
});

test("data that is written to while it is streamed: what was read before stays, what comes after is refused", async () => {
  const tokenizer = await loadTokenizer(model);
  const path = join(directory.path, "streamed.jsonl");
  writeFileSync(path, conversations(3000));
  const found = await findSources([{ path, filter: () => true }]);
  const options = { sequenceLength: 64, loss: "assistant", workers: 1, taskBytes: 1000, firstPartTokens: 300 } as const;
  await using stream = await TokenStream.open(found, tokenizer, options);
  expect((await stream.part(0))!.tokens.length).toBeGreaterThan(300);
  appendFileSync(path, conversations(1));
  await expect(stream.ended()).rejects.toThrow(
    new DataError(`${path}: was changed while it was read; start again when nobody writes to it`),
  );
});
