// An exported model is the model: bit for bit in float32, the rounded weights in bfloat16, in one file or in many, with
// head and embedding tied or not, in the dialect of config.json that it came in.

import { describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SluiceError } from "../../src/words/errors.ts";
import { exportModel } from "../../src/keep/export.ts";
import { load, type Model } from "../../src/engine/model.ts";
import { Trainer } from "../../src/engine/trainer.ts";
import { fixtures, readJson, temporaryDirectory } from "../support/models.ts";
import { Draw } from "../support/tensors.ts";
import { masterWeights, plainConfig, randomStep } from "../support/training.ts";

setDefaultTimeout(patiently(30_000)); // other processes may want the cores too
const models = ["qwen3-tiny", "llama-tiny", "gemma3-tiny"]; // the second has a head of its own
const rows = { sequenceLength: 40, passes: 1, microBatches: 2 };

/** A fixture after two steps: its weights are no longer bfloat16 numbers. Two blocks are on the device if asked for. */
async function trained(directory: string, residentBlocks = 0): Promise<Model> {
  const model = await load(directory, { workers: 2 });
  const config = plainConfig(rows);
  const trainer = await Trainer.open(model, { ...config, window: { ...config.window, residentBlocks } });
  for (let step = 0; step < 2; step++) await trainer.step(randomStep(new Draw(step), model.config, rows));
  await trainer.drain();
  trainer.close();
  return model;
}

async function reload(directory: string): Promise<Float32Array> {
  using model = await load(directory, { workers: 1 });
  return masterWeights(model);
}

/** Rounded to bfloat16, ties away from zero: the upper half of the split master. */
function rounded(weights: Float32Array): Float32Array {
  const bits = new Uint32Array(weights.slice().buffer);
  return new Float32Array(bits.map((word) => ((word + 0x8000) >>> 16) << 16).buffer);
}

describe.each(models)("%s", (name) => {
  test("float32 is exact, bfloat16 is rounded, in one file and in many", async () => {
    using directory = temporaryDirectory();
    using model = await trained(join(fixtures, name));
    const weights = masterWeights(model);
    expect(weights).not.toEqual(rounded(weights));
    const largest = Math.max(...model.blocks.flatMap((block) => block.tensors.map(({ count }) => count)));
    for (const dtype of ["float32", "bfloat16"] as const) {
      const bytes = dtype === "float32" ? 4 : 2;
      for (const shardBytesMax of [undefined, largest * bytes, 1000]) {
        const path = join(directory.path, `${dtype} ${shardBytesMax}`);
        await exportModel(model, path, { dtype, ...(shardBytesMax === undefined ? {} : { shardBytesMax }) });
        expect(await reload(path)).toEqual(dtype === "float32" ? weights : rounded(weights));
        expect(readJson(join(path, "config.json"))["dtype"]).toBe(dtype);
        const shards = readdirSync(path).filter((file) => file.endsWith(".safetensors"));
        if (shardBytesMax === undefined) expect(shards).toEqual(["model.safetensors"]);
        else expectShards(path, shards, model);
      }
    }
    expect(masterWeights(model)).toEqual(weights);
  });

  test("resident blocks are exported from the device", async () => {
    using directory = temporaryDirectory();
    using sliding = await trained(join(fixtures, name));
    using resident = await trained(join(fixtures, name), 2);
    const path = join(directory.path, "model");
    await exportModel(resident, path, { dtype: "float32" });
    expect(await reload(path)).toEqual(masterWeights(sliding));
  });
});

/** Every tensor is in the index once, in a file that exists. */
function expectShards(path: string, shards: readonly string[], { config, parameters }: Model): void {
  const index = readJson(join(path, "model.safetensors.index.json")) as {
    metadata: { total_size: number };
    weight_map: Record<string, string>;
  };
  const count = String(shards.length).padStart(5, "0");
  expect(shards.length).toBeGreaterThan(1);
  expect(new Set(Object.values(index.weight_map))).toEqual(new Set(shards));
  for (const shard of shards) expect(shard).toMatch(new RegExp(`^model-\\d{5}-of-${count}\\.safetensors$`));
  expect("lm_head.weight" in index.weight_map).toBe(!config.tied);
  expect([parameters * 2, parameters * 4]).toContain(index.metadata.total_size);
}

test("config.json keeps its dialect and every other key; other files come along", async () => {
  using directory = temporaryDirectory();
  const source = join(directory.path, "source");
  cpSync(join(fixtures, "mistral-tiny"), source, { recursive: true });
  writeFileSync(join(source, "LICENSE"), "free");
  writeFileSync(join(source, "notes.txt"), "ours");
  rmSync(join(source, "generation_config.json"));
  for (const [file, key] of [
    ["config.json", "dtype"],
    ["config.legacy.json", "torch_dtype"],
  ] as const) {
    const written = readFileSync(join(source, file), "utf8").replace(/("initializer_range": )[^,]*/, "$12.0e-2");
    writeFileSync(join(source, file), written);
    using model = await load(source, { configPath: join(source, file) });
    const target = join(directory.path, "target"); // the second replaces the first
    await exportModel(model, target, { dtype: "float32" });
    // Numbers are spelled as they were: 10000.0 is a float to Python, and 10000 is none.
    const spelled = (text: string) =>
      [...text.matchAll(/"(\w+)": (-?\d[^,\s]*)/g)].map(([, key, number]) => `${key} ${number}`);
    expect(spelled(readFileSync(join(target, "config.json"), "utf8"))).toEqual(spelled(written));
    expect(spelled(written)).toContain("initializer_range 2.0e-2");
    expect(readJson(join(target, "config.json"))).toEqual({ ...readJson(join(source, file)), [key]: "float32" });
    expect(
      readdirSync(target)
        .filter((name) => name !== ".sluice")
        .sort(),
    ).toEqual([
      "LICENSE",
      ..."chat_template.jinja config.json config.legacy.json generation_config.json model.safetensors".split(" "),
      ..."notes.txt reference.json tokenizer.json tokenizer_config.json".split(" "),
    ]);
    const generation = { _from_model_config: true, bos_token_id: 1, eos_token_id: 2, pad_token_id: 2 };
    expect(readJson(join(target, "generation_config.json"))).toEqual(generation);
    expect(readFileSync(join(target, "LICENSE"), "utf8")).toBe("free");
  }
});

test("the default format is the one of the files: bfloat16 only where all of them are", async () => {
  using directory = temporaryDirectory();
  const [source, exact, again] = ["source", "exact", "again"].map((name) => join(directory.path, name));
  cpSync(join(fixtures, "llama-tiny"), source!, { recursive: true });
  {
    using model = await load(source!);
    expect(model.exportDtype).toBe("bfloat16");
    await exportModel(model, exact!, { dtype: "float32" });
  }
  using model = await load(exact!);
  await exportModel(model, again!);
  expect(readJson(join(again!, "config.json"))["dtype"]).toBe("float32");
  expect(await reload(again!)).toEqual(masterWeights(model));
});

test("a head of its own in a model that says it is tied is exported with it", async () => {
  using directory = temporaryDirectory();
  const [source, target] = [join(directory.path, "source"), join(directory.path, "target")];
  cpSync(join(fixtures, "llama-tiny"), source, { recursive: true });
  const config = readJson(join(source, "config.json"));
  writeFileSync(join(source, "config.json"), JSON.stringify({ ...config, tie_word_embeddings: true }));
  using warned = spyOn(process.stderr, "write").mockImplementation(() => true);
  using model = await load(source);
  expect(warned.mock.calls).toEqual([[expect.stringContaining("lm_head.weight is another matrix than")]]);
  await exportModel(model, target, { dtype: "float32" });
  expect(readJson(join(target, "config.json"))["tie_word_embeddings"]).toBe(false);
  using plain = await load(join(fixtures, "llama-tiny"));
  expect(await reload(target)).toEqual(masterWeights(plain));
});

describe("where an export may be written", () => {
  const openTiny = () => load(join(fixtures, "qwen2-tiny"), { workers: 2 });
  test("an earlier export is replaced as a whole", async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, "model");
    using model = await openTiny();
    await exportModel(model, path);
    await exportModel(model, path, { dtype: "float32", shardBytesMax: 100_000 });
    expect(readdirSync(path)).not.toContain("model.safetensors");
    expect(await reload(path)).toEqual(masterWeights(model));
    expect(readdirSync(directory.path)).toEqual(["model"]);
  });
  test("somebody's files are left alone; with overwrite they are moved aside", async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, "mine");
    mkdirSync(join(path, "photos"), { recursive: true });
    writeFileSync(join(path, "thesis.txt"), "years");
    using model = await openTiny();
    await expect(exportModel(model, path)).rejects.toThrow(
      `("${path}") holds what Sluice has not written (photos, thesis.txt); choose a new or empty directory, or say --overwrite`,
    );
    await exportModel(model, path, { overwrite: true });
    expect(readFileSync(join(`${path}.before`, "thesis.txt"), "utf8")).toBe("years");
    writeFileSync(join(path, "notes.md"), "mine");
    await expect(exportModel(model, path)).rejects.toThrow("has not written (notes.md)");
    await expect(exportModel(model, path, { overwrite: true })).rejects.toThrow(`${path}.before exists already`);
    expect(existsSync(join(path, "notes.md"))).toBe(true);
  });
  test("never over, inside or around the model that is read, also through links", async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, "base");
    cpSync(join(fixtures, "qwen2-tiny"), path, { recursive: true });
    symlinkSync(path, join(directory.path, "link"));
    using model = await load(path, { workers: 2 });
    for (const [target, message] of [
      [path, "which is read"],
      [join(directory.path, "link"), "which is read"],
      [join(path, "inside"), "is inside"],
      [directory.path, "would be written over"],
    ] as const)
      await expect(exportModel(model, target, { overwrite: true })).rejects.toThrow(message);
    expect(readdirSync(directory.path).sort()).toEqual(["base", "link"]);
  });
});

test("a directory that cannot be written", async () => {
  using directory = temporaryDirectory();
  writeFileSync(join(directory.path, "file"), "");
  using model = await load(join(fixtures, "qwen2-tiny"));
  const path = join(directory.path, "file", "deep", "model");
  const message = `${path}: cannot be written, part of its path is a file and not a directory`;
  await expect(exportModel(model, path)).rejects.toThrow(new SluiceError(message));
});
