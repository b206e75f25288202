// Damaged checkpoints and models are refused with the file and the tensor: every file of a checkpoint cut off and with one
// bit flipped, at seeded positions in its header and in each of its tensors; files that are missing, of another kind, or
// of another model; weights that end too early.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { chmodSync, cpSync, mkdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { restoreCheckpoint, type Manifest } from "../../src/keep/checkpoint.ts";
import { CheckpointError, ModelError } from "../../src/words/errors.ts";
import { readSafetensors } from "../../src/io/safetensors.ts";
import { loadTensors } from "../../src/io/tensors.ts";
import { Model, load } from "../../src/engine/model.ts";
import { targetsOf } from "../../src/engine/weights.ts";
import { openModel } from "../../src/models/open.ts";
import { Engine } from "../../src/native/runtime.ts";
import { Random } from "../../src/words/random.ts";
import { Trainer } from "../../src/engine/trainer.ts";
import { filesIn, flipBit, interruptedRun, makeRecipe, stateFiles, tinyModel } from "../support/crash.ts";
import { fixtures, temporaryDirectory } from "../support/models.ts";
import { plainConfig, stateDigests } from "../support/training.ts";

setDefaultTimeout(patiently(60_000)); // processes are slow to start on a busy machine; nothing should come near

const seed = 30;
const directory = temporaryDirectory();
const recipe = makeRecipe(directory.path);
const interrupted = join(directory.path, "interrupted");
const asRoot = process.getuid?.() === 0;

let model: Model;
let trainer: Trainer;

beforeAll(async () => {
  await interruptedRun(recipe, interrupted);
  model = await load(tinyModel, { workers: 2 });
  trainer = await Trainer.open(model, plainConfig({ sequenceLength: 32, passes: 1, microBatches: 4 }));
});
afterAll(() => {
  model.close();
  directory[Symbol.dispose]();
});

/** Runs `test` with a changed copy of the newest checkpoint. */
async function withCopy(change: (path: string) => void, check: (path: string) => Promise<void>): Promise<void> {
  const path = join(directory.path, "copy/step-000006");
  cpSync(join(interrupted, "checkpoints/step-000006"), path, { recursive: true });
  try {
    change(path);
    await check(path);
  } finally {
    rmSync(path, { recursive: true });
  }
}

async function refusal(path: string): Promise<string> {
  const error = await restoreCheckpoint(trainer, path).then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(error).toBeInstanceOf(CheckpointError);
  return (error as Error).message;
}

const sealed = (manifest: object): string =>
  JSON.stringify({
    ...manifest,
    digest: new Bun.CryptoHasher("sha256").update(JSON.stringify(manifest)).digest("hex"),
  });

describe(`a checkpoint given by its path (seed ${seed})`, () => {
  test("the copy as it is restores", async () => {
    await withCopy(
      () => {},
      async (path) => {
        expect((await restoreCheckpoint(trainer, path)).step).toBe(6);
        const digests = await stateDigests(trainer);
        const bytes = readFileSync(join(path, "layer-1.safetensors"));
        const { offset, bytes: length } = readSafetensors(join(path, "layer-1.safetensors")).tensors.get("layer 1.m")!;
        expect(Bun.hash(bytes.subarray(offset, offset + length)).toString(16)).toBe(digests["layer 1.m"]!);
      },
    );
  });

  test.each(stateFiles)("%s: each tensor and the header, flipped and cut", async (file) => {
    const random = new Random(seed, stateFiles.indexOf(file));
    const { tensors } = readSafetensors(join(interrupted, "checkpoints/step-000006", file));
    const parts: [string, number, number][] = [
      ["its header", 0, Math.min(...[...tensors.values()].map((t) => t.offset))],
    ];
    for (const [name, { offset, bytes }] of tensors) parts.push([`tensor ${name}`, offset, bytes]);
    expect(parts.map(([name]) => name.split(".").at(-1))).toEqual(["its header", "hi", "lo", "m", "v"]);
    for (const [name, offset, bytes] of parts) {
      const position = offset + random.below(bytes);
      const bit = random.below(8);
      await withCopy(
        (path) => flipBit(join(path, file), position, bit),
        async (path) => expect(await refusal(path)).toStartWith(`${join(path, file)}: ${name} is damaged (checksum `),
      );
      await withCopy(
        (path) => truncateSync(join(path, file), position),
        async (path) => {
          const { size } = statSync(join(interrupted, "checkpoints/step-000006", file));
          const message = `${join(path, file)} has ${position} bytes, ${size} were written; it is cut off`;
          expect(await refusal(path)).toBe(message);
        },
      );
    }
  });

  test("manifest.json, flipped and cut", async () => {
    const random = new Random(seed, 100);
    const text = readFileSync(join(interrupted, "checkpoints/step-000006/manifest.json"), "utf8");
    const end = text.lastIndexOf("}"); // the newline behind it means nothing
    for (let count = 0; count < 30; count++) {
      const position = random.below(end);
      const bit = random.below(8);
      // 1e-8 and 1E-8 are one number.
      if (/[eE]/.test(text[position]!) && bit === 5) continue;
      await withCopy(
        (path) => flipBit(join(path, "manifest.json"), position, bit),
        async (path) => expect(await refusal(path)).toStartWith(join(path, "manifest.json")),
      );
      await withCopy(
        (path) => truncateSync(join(path, "manifest.json"), position),
        async (path) =>
          expect(await refusal(path)).toMatch(/manifest\.json: is not valid JSON: .*; this is no complete checkpoint$/),
      );
    }
  });

  const manifestOf = (path: string): Omit<Manifest, "config"> => {
    const { digest: _, ...manifest } = JSON.parse(readFileSync(join(path, "manifest.json"), "utf8"));
    return manifest;
  };
  const others: [string, (path: string) => void, (path: string) => string][] = [
    [
      "a missing state file",
      (path) => rmSync(join(path, "layer-2.safetensors")),
      (path) => `${path}/layer-2.safetensors is missing; resume from another checkpoint`,
    ],
    [
      "no manifest",
      (path) => rmSync(join(path, "manifest.json")),
      (path) => `${path}/manifest.json: does not exist; this is no complete checkpoint`,
    ],
    [
      "a manifest that is a list",
      (path) => writeFileSync(join(path, "manifest.json"), "[]"),
      (path) => `${path}/manifest.json: is no JSON object; this is no complete checkpoint`,
    ],
    [
      "a manifest that is null",
      (path) => writeFileSync(join(path, "manifest.json"), "null"),
      (path) => `${path}/manifest.json: is no JSON object; this is no complete checkpoint`,
    ],
    [
      "an empty directory",
      (path) => (rmSync(path, { recursive: true }), mkdirSync(path)),
      (path) => `${path}/manifest.json: does not exist; this is no complete checkpoint`,
    ],
    [
      "a file instead of the directory",
      (path) => (rmSync(path, { recursive: true }), writeFileSync(path, "")),
      (path) =>
        `${path}/manifest.json: cannot be read, part of its path is a file and not a directory; this is no complete checkpoint`,
    ],
    [
      "a directory instead of a state file",
      (path) => (rmSync(join(path, "head.safetensors")), mkdirSync(join(path, "head.safetensors"))),
      (path) => `${path}/head.safetensors is no file; resume from another checkpoint`,
    ],
    [
      "a directory instead of the manifest",
      (path) => (rmSync(join(path, "manifest.json")), mkdirSync(join(path, "manifest.json"))),
      (path) => `${path}/manifest.json: is a directory, a file was expected; this is no complete checkpoint`,
    ],
    [
      "a newer format",
      (path) => writeFileSync(join(path, "manifest.json"), sealed({ ...manifestOf(path), format: 2 })),
      (path) => `${path}/manifest.json has format 2, this version reads format 1`,
    ],
    [
      "other files",
      (path) => writeFileSync(join(path, "manifest.json"), sealed({ ...manifestOf(path), files: [] })),
      (path) => `${path}/manifest.json lists other files than this model's state has`,
    ],
  ];
  test.each(others)("%s", async (_, change, expected) => {
    await withCopy(change, async (path) => expect(await refusal(path)).toBe(expected(path)));
  });

  test("of another model", async () => {
    using other = await load(join(fixtures, "llama-tiny"), { workers: 2 });
    using stranger = await Trainer.open(other, plainConfig({ sequenceLength: 32, passes: 1, microBatches: 4 }));
    await withCopy(
      () => {},
      async (path) => {
        const error = await restoreCheckpoint(stranger, path).catch((error: unknown) => error);
        expect(error).toBeInstanceOf(CheckpointError);
        expect((error as Error).message).toMatch(
          /belongs to another model, or to an earlier config.json \(qwen3 4x48 .*, this is llama 4x64 .*\)$/,
        );
        expect(stranger.steps).toBe(0);
      },
    );
  });

  test.skipIf(asRoot)(
    `a file without read permission${asRoot ? " (skipped: root may read everything)" : ""}`,
    async () => {
      await withCopy(
        (path) => chmodSync(join(path, "layer-0.safetensors"), 0),
        async (path) =>
          expect(await refusal(path)).toContain(`cannot open ${path}/layer-0.safetensors: Permission denied`),
      );
    },
  );
});

describe("a model directory", () => {
  const copy = join(directory.path, "model");
  const weights = join(copy, "model.safetensors");
  const prepare = (): void => {
    rmSync(copy, { recursive: true, force: true });
    cpSync(tinyModel, copy, { recursive: true });
  };
  const problem = async (work: () => Promise<unknown>): Promise<string> => {
    const error = await work().catch((error: unknown) => error);
    expect(error).toBeInstanceOf(ModelError);
    return (error as Error).message;
  };

  test("weights cut off before they are opened", async () => {
    prepare();
    truncateSync(weights, 100_000);
    expect(await problem(() => load(copy))).toStartWith(`${weights}: `);
  });

  test("weights cut off after their header was read: the native read says where", async () => {
    prepare();
    const opened = openModel(copy);
    truncateSync(weights, 100_000);
    using engine = new Engine({ device: "cpu", workers: 2 });
    const targets = targetsOf(new Model(copy, opened.config, opened.blocks, engine, "float32"));
    const held = engine.held();
    const message = await problem(() => loadTensors(engine, opened, targets));
    expect(message).toStartWith(
      `${copy}: cannot load the weights: step 0 load: fileRead on disk failed: ${weights} is cut off: `,
    );
    expect(engine.held()).toEqual(held);
  });

  test("a directory instead of the weights", async () => {
    prepare();
    rmSync(weights);
    mkdirSync(weights);
    expect(await problem(() => load(copy))).toBe(`${weights}: is not a regular file`);
  });

  test.skipIf(asRoot)(
    `weights without read permission${asRoot ? " (skipped: root may read everything)" : ""}`,
    async () => {
      prepare();
      chmodSync(weights, 0);
      expect(await problem(() => load(copy))).toContain(weights);
    },
  );

  test("nothing of this has touched the fixture", () => {
    expect(filesIn(tinyModel)).toContain("model.safetensors");
    expect(filesIn(tinyModel).some((file) => file.endsWith(".tmp"))).toBe(false);
  });
});
