// Which part of the data a run learns from: `train` of a data set in splits, what a path's end or a share says, and a word where the
// evaluation would see what was trained on.

import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";
import { join } from "node:path";
import { trainConfig } from "../../src/cli/train.ts";
import { findRunData } from "../../src/data/read/run-data.ts";
import { findSources, readItems, type DataInput, type FoundSources } from "../../src/data/read/source.ts";
import { keepShare, splitOff } from "../../src/data/read/splits.ts";
import { parseConfig, type TrainConfig } from "../../src/run/config.ts";
import { DataError } from "../../src/words/errors.ts";
import { temporaryDirectory } from "../support/models.ts";

let directory: ReturnType<typeof temporaryDirectory>;
let write: ReturnType<typeof spyOn<typeof process.stderr, "write">>;
beforeEach(() => {
  directory = temporaryDirectory();
  write = spyOn(process.stderr, "write").mockReturnValue(true);
});
afterEach(() => {
  write.mockRestore();
  directory[Symbol.dispose]();
});

const at = (name: string) => join(directory.path, name);
const put = async (...names: string[]) => {
  for (const name of names) await Bun.write(at(name), `{"text":"${name}"}\n`);
};
const said = () => write.mock.calls.join("").replaceAll(directory.path, "DIR");
const files = async (input: DataInput, purpose?: "training" | "evaluation") =>
  (await findSources(input, purpose)).sources.flatMap(({ files: found }) =>
    found.map((file) => file.slice(directory.path.length + 1)),
  );
const failure = (work: Promise<unknown>) =>
  work.then(
    () => expect.unreachable(),
    (error: unknown) => {
      expect(error).toBeInstanceOf(DataError);
      return (error as Error).message.replaceAll(directory.path, "DIR");
    },
  );

/** The texts of some sources, as numbers. */
async function numbers({ sources }: FoundSources): Promise<number[]> {
  const found: number[] = [];
  for (const source of sources)
    for await (const item of readItems(source, source.files)) found.push(Number("text" in item ? item.text : NaN));
  return found.sort((a, b) => a - b);
}

describe("a data set in splits", () => {
  test("gives train to a run and validation to an evaluation, and says so", async () => {
    await put("set/train.jsonl", "set/validation.jsonl", "set/test.jsonl");
    expect(await files(at("set"))).toEqual(["set/train.jsonl"]);
    expect(said()).toBe(
      "DIR/set: has the splits train, test, validation; train is taken (1 of 3 files), " +
        "another is named as in --evaluationData DIR/set:test\n",
    );
    expect(await files(at("set"), "evaluation")).toEqual(["set/validation.jsonl"]);
    expect(await files(`${at("set")}:test`)).toEqual(["set/test.jsonl"]);
    expect(await files(at("set/*.jsonl"))).toHaveLength(3); // a glob says what it means
    expect(await files(at("set/test.jsonl"))).toEqual(["set/test.jsonl"]);
  });

  test("by folders and by the hub's names, under any of the usual words", async () => {
    await put(
      "hub/data/train-00000-of-00002.jsonl",
      "hub/data/train-00001-of-00002.jsonl",
      "hub/data/dev-00000-of-00001.jsonl",
    );
    expect(await files(at("hub"))).toEqual([
      "hub/data/train-00000-of-00002.jsonl",
      "hub/data/train-00001-of-00002.jsonl",
    ]);
    await put("folders/training/a.jsonl", "folders/Testing/a.jsonl", "folders/val/a.jsonl");
    expect(await files(at("folders"))).toEqual(["folders/training/a.jsonl"]);
    await put("rest/part-1.jsonl", "rest/part-2.jsonl", "rest/part_test.jsonl");
    expect(await files(at("rest"))).toEqual(["rest/part-1.jsonl", "rest/part-2.jsonl"]);
    await put("none/validation.jsonl", "none/test.jsonl");
    expect(await failure(files(at("none")))).toBe(
      "DIR/none: has the splits test and validation and none to train on; name one, as in DIR/none:test",
    );
  });

  test("is no folder whose files only sound like it", async () => {
    await put("latest/greatest.jsonl", "latest/trainers.jsonl", "latest/contest.jsonl");
    expect(await files(at("latest"))).toHaveLength(3);
    await put("test/a.jsonl", "test/b.jsonl"); // a folder that was named has any name
    expect(await files(at("test"))).toHaveLength(2);
    await put("notes/test plan.md", "notes/a train.md");
    expect(await files(at("notes"))).toHaveLength(2); // titles
    expect(said()).toBe("");
  });
});

describe("a part of a path", () => {
  test("behind its end", async () => {
    expect(splitOff("a.jsonl[:90%]")).toEqual({ path: "a.jsonl", split: "[:90%]" });
    expect(splitOff("a:train[10%:]")).toEqual({ path: "a", split: "train[10%:]" });
    expect(splitOff("hf://datasets/o/n@main:train")).toEqual({ path: "hf://datasets/o/n@main", split: "train" });
    for (const path of ["a.jsonl", "hf://datasets/o/n", "dir/*.jsonl", "a[1].jsonl", "C:/data/a.jsonl", "a:b/c"])
      expect(splitOff(path)).toEqual({ path });
    expect(() => splitOff("a.jsonl[90%:10%]")).toThrow(
      'a.jsonl[90%:10%]: "[90%:10%]" is no part of a file; write PATH:train,',
    );
    await put("odd:train");
    expect(splitOff(at("odd:train"))).toEqual({ path: at("odd:train") });
  });

  test("as flags of the command line, and JSON", async () => {
    const config = await trainConfig([
      "--data",
      '[{"path":"a","split":"train"},"b"]',
      "--evaluationData",
      '{"path":"a","split":"test"}',
    ]);
    expect(config).toEqual({
      data: [{ path: "a", split: "train" }, "b"],
      evaluationData: [{ path: "a", split: "test" }],
    } as unknown as TrainConfig);
    expect((await trainConfig(["--data", "[ab].jsonl"])).data).toBe("[ab].jsonl");
    await parseConfig({ ...config, model: "m", output: "o" });
    await parseConfig({ model: "m", output: "o", data: "a", evaluationData: "5%" });
  });
});

describe("a share that is kept for evaluation", () => {
  test("is the same each time, spread evenly, and never trained on", async () => {
    await Bun.write(at("a.jsonl"), Array.from({ length: 400 }, (_, i) => `{"text":"${i}"}\n`).join(""));
    const { training, heldOut } = await findRunData({ data: at("a.jsonl"), evaluationData: "5%" });
    const [learned, kept] = [await numbers(training), await numbers(heldOut!)];
    expect([...learned, ...kept].sort((a, b) => a - b)).toEqual(Array.from({ length: 400 }, (_, i) => i));
    expect(kept.length).toBeWithin(18, 23);
    for (const from of [0, 100, 200, 300])
      expect(kept.filter((n) => n >= from && n < from + 100).length).toBeWithin(3, 8);
    expect(await numbers((await findRunData({ data: at("a.jsonl"), evaluationData: "5%" })).heldOut!)).toEqual(kept);
    expect(said()).toBe("");
  });

  test("is a share of a part as well", () => {
    expect(keepShare(undefined, 0.05)).toEqual({ rest: "[0%:95%]", kept: "[95%:100%]" });
    expect(keepShare("train[20%:40%]", 0.125)).toEqual({ rest: "train[20%:37.5%]", kept: "train[37.5%:40%]" });
  });
});

test("evaluating on what is trained on is said, a copy under another name too; other parts of a file are not that", async () => {
  await put("a.jsonl", "b.jsonl");
  await Bun.write(at("copy.jsonl"), Bun.file(at("a.jsonl")));
  const remarkFor = async (evaluationData: DataInput) => {
    write.mockClear();
    await findRunData({ data: at("a.jsonl"), evaluationData });
    return said();
  };
  expect(await remarkFor(at("a.jsonl"))).toBe(
    "evaluationData reads DIR/a.jsonl, which is trained on as well: such an evaluation tells what was remembered; " +
      'name other data, or keep a share apart with evaluationData: "5%"\n',
  );
  expect(await remarkFor(at("copy.jsonl"))).toContain(
    "evaluationData reads DIR/copy.jsonl, which is trained on as well",
  );
  expect(await remarkFor(at("b.jsonl"))).toBe("");
  write.mockClear();
  await findRunData({ data: `${at("a.jsonl")}[:90%]`, evaluationData: `${at("a.jsonl")}[90%:]` });
  expect(said()).toBe("");
});
