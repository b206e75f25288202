// Headers of safetensors files, model directories with one file or shards, and the layout for writing; then that small
// files and directories appear whole or not at all.

import { describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join, resolve } from "node:path";
import { SluiceError } from "../../src/words/errors.ts";
import { explainFileError, publishDirectory, temporaryPath, writeFileAtomic } from "../../src/io/atomic.ts";
import {
  type FileLayout,
  layoutSafetensors,
  openModelTensors,
  readSafetensors,
  type TensorToWrite,
} from "../../src/io/safetensors.ts";
import { fixtures, readRaw, temporaryDirectory, writeRaw } from "../support/models.ts";

describe("reading a file", () => {
  test("a fixture: dtype, shape, absolute offset, bytes, metadata", () => {
    const path = join(fixtures, "llama-tiny/model.safetensors");
    const { tensors, metadata } = readSafetensors(path);
    const { header } = readRaw(path);
    const length = Number(readFileSync(path).readBigUInt64LE());
    expect(metadata).toEqual({ format: "pt" });
    expect(tensors.size).toBe(Object.keys(header).length - 1);
    expect(tensors.get("model.layers.0.mlp.down_proj.weight")).toEqual({
      dtype: "BF16",
      shape: [64, 112],
      offset: 8 + length + (header["model.layers.0.mlp.down_proj.weight"]?.data_offsets[0] ?? 0),
      bytes: 64 * 112 * 2,
    });
  });

  test("scalars, empty tensors, other dtypes, any order, padding after the JSON", () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, "x.safetensors");
    const header = {
      b: { dtype: "F32", shape: [2], data_offsets: [8, 16] },
      a: { dtype: "I64", shape: [], data_offsets: [0, 8] },
      empty: { dtype: "U8", shape: [3, 0], data_offsets: [16, 16] },
      "1": { dtype: "BOOL", shape: [1, 1], data_offsets: [16, 17] },
    };
    writeRaw(path, `${JSON.stringify(header)}     `, 17);
    const { tensors } = readSafetensors(path);
    expect([...tensors.keys()]).toEqual(["a", "b", "empty", "1"]);
    expect(tensors.get("a")?.shape).toEqual([]);
    expect(tensors.get("empty")?.bytes).toBe(0);
  });

  test("no tensors at all", () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, "x.safetensors");
    writeRaw(path, "{}", 0);
    expect(readSafetensors(path).tensors.size).toBe(0);
  });
});

describe("layout for writing", () => {
  const tensors: TensorToWrite[] = [
    { name: "2", dtype: "BF16", shape: [10, 10] },
    { name: "1", dtype: "BF16", shape: [7] },
    { name: "a", dtype: "F32", shape: [50] },
    { name: "b", dtype: "BF16", shape: [1000] },
    { name: "c", dtype: "BF16", shape: [1] },
  ];
  const write = (directory: string, file: FileLayout) =>
    writeFileSync(
      join(directory, file.name),
      Buffer.concat([file.header, Buffer.alloc(file.fileBytes - file.header.length)]),
    );

  test("one file: what is laid out is what is read", () => {
    using directory = temporaryDirectory();
    const { files, index } = layoutSafetensors(tensors, { format: "pt" });
    expect(index).toBeUndefined();
    expect(files.map((file) => file.name)).toEqual(["model.safetensors"]);
    for (const file of files) {
      write(directory.path, file);
      expect(file.header.length % 4096).toBe(0);
      const read = readSafetensors(join(directory.path, file.name));
      expect(read.metadata).toEqual({ format: "pt" });
      expect([...read.tensors.keys()]).toEqual(["2", "1", "a", "b", "c"]);
      for (const { name, dtype, shape, offset, bytes } of file.tensors)
        expect(read.tensors.get(name)).toEqual({ dtype, shape: [...shape], offset, bytes });
    }
  });

  test("shards: full to the limit, larger tensors alone, an index as Hugging Face writes it", () => {
    using directory = temporaryDirectory();
    const { files, index } = layoutSafetensors(tensors, { format: "pt" }, { shardBytesMax: 414 });
    expect(files.map((file) => [file.name, file.tensors.map((tensor) => tensor.name)])).toEqual([
      ["model-00001-of-00003.safetensors", ["2", "1", "a"]],
      ["model-00002-of-00003.safetensors", ["b"]],
      ["model-00003-of-00003.safetensors", ["c"]],
    ]);
    expect(index?.metadata).toEqual({ total_size: 2416, total_parameters: 1158 });
    for (const file of files) write(directory.path, file);
    writeFileSync(join(directory.path, "model.safetensors.index.json"), JSON.stringify(index));
    const model = openModelTensors(directory.path);
    expect(model.tensors.size).toBe(5);
    expect(model.files.length).toBe(3);
    expect(model.tensors.get("b")).toMatchObject({
      file: join(directory.path, "model-00002-of-00003.safetensors"),
      offset: 4096,
    });
  });

  test("a first tensor above the limit does not leave an empty shard before it", () => {
    const { files } = layoutSafetensors(tensors, {}, { shardBytesMax: 150 });
    expect(files.map((file) => file.tensors.map((tensor) => tensor.name))).toEqual([["2"], ["1"], ["a"], ["b"], ["c"]]);
  });

  test("no metadata, no tensors", () => {
    const { files } = layoutSafetensors([], {});
    expect(new TextDecoder().decode(files[0]?.header.subarray(8)).trim()).toBe("{}");
  });

  test("two tensors of one name are our mistake", () => {
    const one = { name: "a", dtype: "F32", shape: [1] } as const;
    expect(() => layoutSafetensors([one, one])).toThrow("internal error: two tensors have the same name");
  });
});

test("shards behind symbolic links, as the hub's cache keeps them", () => {
  using directory = temporaryDirectory();
  symlinkSync(join(fixtures, "qwen3-tiny/model.safetensors"), join(directory.path, "model.safetensors"));
  expect(openModelTensors(directory.path).tensors.size).toBe(46);
});

test("an index leads to links inside its directory, and into the blobs of the hub's cache, but nowhere else", () => {
  using directory = temporaryDirectory();
  const cache = join(directory.path, "models--a--b");
  const snapshot = join(cache, "snapshots", "c");
  const [layout] = layoutSafetensors([{ name: "w", dtype: "F32", shape: [2] }]).files;
  const bytes = Buffer.concat([layout!.header, new Uint8Array(8)]);
  for (const folder of [join(cache, "blobs"), snapshot, join(directory.path, "plain")])
    mkdirSync(folder, { recursive: true });
  for (const path of ["models--a--b/blobs/hash", "plain/real.safetensors", "outside.safetensors"])
    writeFileSync(join(directory.path, path), bytes);
  const open = (folder: string, target: string) => {
    const link = join(folder, "w.safetensors");
    rmSync(link, { force: true });
    symlinkSync(target, link);
    writeFileSync(join(folder, "model.safetensors.index.json"), JSON.stringify({ weight_map: { w: "w.safetensors" } }));
    return openModelTensors(folder).files;
  };
  const plain = join(directory.path, "plain");
  expect(open(snapshot, "../../blobs/hash")).toHaveLength(1);
  expect(open(plain, "real.safetensors")).toHaveLength(1);
  for (const [folder, target] of [
    [plain, "../outside.safetensors"],
    [plain, join(cache, "blobs/hash")],
    [plain, "../models--a--b/blobs/hash"],
    [snapshot, "../../../outside.safetensors"],
  ] as const)
    expect(() => open(folder, target)).toThrow(
      `${join(folder, "w.safetensors")}: is a link to ${realpathSync(resolve(folder, target))}, outside of the model's directory; an index may not lead there`,
    );
});

describe("atomic files", () => {
  test("a file is replaced, and nothing else is left in its directory", async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, "state.json");
    await writeFileAtomic(path, "old");
    await writeFileAtomic(path, new TextEncoder().encode("new"));
    expect(readFileSync(path, "utf8")).toBe("new");
    expect(readdirSync(directory.path)).toEqual(["state.json"]);
  });

  test("a failed write leaves the old file and no temporary one", async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, "taken");
    mkdirSync(path);
    await expect(writeFileAtomic(path, "x")).rejects.toThrow(
      new SluiceError(`${path}: is a directory, a file was expected`),
    );
    await writeFileAtomic(path, "x").catch(() => {});
    expect(readdirSync(directory.path)).toEqual(["taken"]);
  });

  test("a missing directory, and a file where a directory should be", async () => {
    using directory = temporaryDirectory();
    const missing = join(directory.path, "no/state.json");
    await expect(writeFileAtomic(missing, "x")).rejects.toThrow(
      new SluiceError(`${missing}: cannot be written, its directory does not exist; create it first`),
    );
    writeFileSync(join(directory.path, "file"), "");
    const below = join(directory.path, "file/state.json");
    await expect(writeFileAtomic(below, "x")).rejects.toThrow(
      new SluiceError(`${below}: cannot be written, part of its path is a file and not a directory`),
    );
  });

  test("a directory is published under its final name, and never over another one", async () => {
    using directory = temporaryDirectory();
    const final = join(directory.path, "step-10");
    for (const attempt of [1, 2]) {
      const temporary = temporaryPath(final);
      mkdirSync(join(temporary, "inner"), { recursive: true });
      writeFileSync(join(temporary, "inner/file"), `attempt ${attempt}`);
      if (attempt === 1) await publishDirectory(temporary, final);
      else
        await expect(publishDirectory(temporary, final)).rejects.toThrow(
          new SluiceError(`${final}: exists already; remove it or choose another name`),
        );
    }
    expect(readFileSync(join(final, "inner/file"), "utf8")).toBe("attempt 1");
  });

  test("publishing what is not there", async () => {
    using directory = temporaryDirectory();
    const temporary = join(directory.path, "x.tmp");
    await expect(publishDirectory(temporary, join(directory.path, "x"))).rejects.toBeInstanceOf(SluiceError);
    expect(existsSync(join(directory.path, "x"))).toBe(false);
  });

  test("each system error says what to do", () => {
    const say = (code: string) => explainFileError(Object.assign(new Error(`${code}: text`), { code }), "write");
    expect(say("ENOSPC")).toBe("the disk is full; free space or choose another directory");
    expect(say("EACCES")).toBe("no permission to write it; check its owner and mode");
    expect(say("EROFS")).toBe("is on a read-only file system; choose another directory");
    expect(say("EDQUOT")).toBe("the disk quota is used up; free space or choose another directory");
    expect(say("EIO")).toBe("the device failed to write it (input/output error); check the disk");
    expect(say("ESTRANGE")).toBe("cannot write it: ESTRANGE: text");
  });
});
