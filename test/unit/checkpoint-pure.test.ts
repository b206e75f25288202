// What can be said about checkpoints without an engine: which are listed, kept, set aside, and when a manifest is believed.
// Writing and reading state is tested in test/models and test/crash.

import { describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import {
  checkpointsToDelete,
  listCheckpoints,
  pruneCheckpoints,
  readManifest,
  setAside,
} from "../../src/keep/checkpoint.ts";
import { temporaryDirectory } from "../support/models.ts";

/** A directory with entries of these names. */
function withNames(...names: string[]) {
  const directory = temporaryDirectory();
  for (const name of names) mkdirSync(join(directory.path, name));
  return directory;
}
const found = (directory: string): string[] => listCheckpoints(directory).map((path) => basename(path));

describe("which checkpoints", () => {
  test("the newest are kept, by number and not by spelling", () => {
    const paths = ["a/step-000002", "a/step-1000000", "a/step-000010", "a/step-999999"];
    expect(checkpointsToDelete(paths, 1)).toEqual(["a/step-999999", "a/step-000010", "a/step-000002"]);
    expect(checkpointsToDelete(paths, 3)).toEqual(["a/step-000002"]);
    expect(checkpointsToDelete(paths, 4)).toEqual([]);
    expect(checkpointsToDelete([], 2)).toEqual([]);
  });

  test("a list is newest first and has nothing but finished checkpoints", () => {
    using directory = withNames(
      "step-000002",
      "step-1000000",
      ".step-000012.77.1.tmp",
      "step-12",
      "step-000010",
      "notes",
    );
    expect(found(directory.path)).toEqual(["step-1000000", "step-000010", "step-000002"]);
    expect(found(join(directory.path, "nowhere"))).toEqual([]);
  });

  test("pruning takes old ones and leftovers, and nothing that is not ours", () => {
    using directory = withNames("step-000001", "step-000002", "step-000003", ".step-000004.77.1.tmp", "notes");
    pruneCheckpoints(directory.path, 2);
    expect(readdirSync(directory.path).sort()).toEqual(["notes", "step-000002", "step-000003"]);
  });

  test("checkpoints past a step are moved aside; what was there before stays", () => {
    using directory = withNames("checkpoints", "checkpoints.earlier");
    const checkpoints = join(directory.path, "checkpoints");
    const aside = join(directory.path, "checkpoints.earlier-2");
    mkdirSync(join(directory.path, "checkpoints.earlier", "step-000001"));
    for (const name of ["step-000002", "step-000004", "step-000006"]) mkdirSync(join(checkpoints, name));
    expect(setAside(checkpoints, 2)).toBe(aside);
    expect([found(checkpoints), found(aside)]).toEqual([["step-000002"], ["step-000006", "step-000004"]]);
    expect(setAside(checkpoints, 2)).toBeUndefined();
    expect(found(aside)).toHaveLength(2);
    expect(found(join(directory.path, "checkpoints.earlier"))).toEqual(["step-000001"]);
  });
});

describe("a manifest", () => {
  /** Writes a manifest; `digest` says of which content. */
  function write(directory: string, content: object, digestOf: object = content): string {
    const digest = new Bun.CryptoHasher("sha256").update(JSON.stringify(digestOf)).digest("hex");
    const path = join(directory, "manifest.json");
    writeFileSync(path, JSON.stringify({ ...content, digest }));
    return path;
  }
  const content = { format: 1, step: 7, model: "m", data: { epoch: 0 }, config: {}, files: [] };

  test("reads back without its digest", () => {
    using directory = temporaryDirectory();
    write(directory.path, content);
    expect(readManifest(directory.path) as object).toEqual(content);
  });

  test("one changed number is damage", () => {
    using directory = temporaryDirectory();
    const path = write(directory.path, { ...content, step: 8 }, content);
    expect(() => readManifest(directory.path)).toThrow(`${path} is damaged (its digest does not match)`);
  });

  test("of a later format", () => {
    using directory = temporaryDirectory();
    const path = write(directory.path, { ...content, format: 2 });
    expect(() => readManifest(directory.path)).toThrow(`${path} has format 2, this version reads format 1`);
  });

  test("missing, cut off, or no object", () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, "manifest.json");
    const incomplete = "; this is no complete checkpoint";
    expect(() => readManifest(directory.path)).toThrow(`${path}: does not exist${incomplete}`);
    writeFileSync(path, '{"format": 1, "st');
    expect(() => readManifest(directory.path)).toThrow(incomplete);
    writeFileSync(path, "null");
    expect(() => readManifest(directory.path)).toThrow(`${path}: is no JSON object${incomplete}`);
  });
});
