// One process at a time in a run directory. The second one is told who has it, changes nothing and ends with exit code 1;
// the lock goes when the run ends, by itself, by Ctrl-C or by an error, and one that kill -9 left behind is taken over.

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import type { TrainConfig } from "../../src/run/config.ts";
import { RunBusyError } from "../../src/words/errors.ts";
import { RunLock } from "../../src/run/lock.ts";
import { ended, killWhen, lines, makeRecipe, namesIn, snapshot, startTraining, trainToEnd } from "../support/crash.ts";
import { temporaryDirectory } from "../support/models.ts";

setDefaultTimeout(patiently(60_000)); // processes are slow to start on a busy machine; nothing should come near

const directory = temporaryDirectory();
const recipe = makeRecipe(directory.path);
afterAll(() => directory[Symbol.dispose]());

/** A run that goes on until somebody ends it. */
const endless = (name: string): TrainConfig => ({ ...recipe, output: join(directory.path, name), steps: 100_000 });
const lockOf = (output: string): string => join(output, "run.lock");
const hasTrained = (output: string) => () => lines(join(output, "metrics.jsonl")).length > 2;
const until = async (reached: () => boolean): Promise<void> => {
  while (!reached()) await Bun.sleep(5);
};

test("a second process on the same run: a clear message, exit code 1, nothing touched; Ctrl-C frees it", async () => {
  const config = { ...endless("twice"), checkpoint: { every: null, resume: "auto" as const } };
  const first = startTraining(config);
  await until(hasTrained(config.output));
  const lock = readFileSync(lockOf(config.output), "utf8");
  const second = await trainToEnd(config);
  const since = (JSON.parse(lock) as { since: string }).since;
  expect(second).toEqual({
    code: 1,
    signal: null,
    output: "",
    errors: `${config.output}: process ${first.pid} has been training there since ${since}; wait for it to end, or choose another output\n`,
  });
  expect(readFileSync(lockOf(config.output), "utf8")).toBe(lock);
  first.kill("SIGINT");
  const { code, errors } = await ended(first);
  expect({ code, errors }).toMatchObject({ code: 130, errors: expect.stringContaining("interrupted after step") });
  expect(existsSync(lockOf(config.output))).toBe(false);
  // The first one's work is whole: the next goes on from it.
  const { steps } = JSON.parse(lines(join(config.output, "metrics.jsonl")).at(-1)!.replace('"step":', '"steps":'));
  const third = await trainToEnd({ ...config, steps: steps + 1 });
  expect(third.output).toContain(`resumed after step ${steps}\n`);
  expect(third.code).toBe(0);
  expect(namesIn(config.output)).not.toContain("run.lock");
});

test("kill -9 leaves a lock that the next run takes over", async () => {
  const config = endless("killed");
  await killWhen(startTraining(config), hasTrained(config.output));
  expect(existsSync(lockOf(config.output))).toBe(true);
  const { code, errors } = await trainToEnd({ ...config, steps: 2, checkpoint: {}, overwrite: true });
  expect({ code, errors }).toEqual({ code: 0, errors: "" });
  expect(existsSync(lockOf(config.output))).toBe(false);
});

test("a run that fails frees the directory, before its first step and after", async () => {
  const config = { ...recipe, output: join(directory.path, "failed") };
  for (const wrong of [{ data: join(directory.path, "none.jsonl") }, { window: { residentBlocks: 100 } }]) {
    expect((await trainToEnd({ ...config, ...wrong })).code).toBe(1);
    expect(namesIn(config.output)).toEqual([]);
  }
});

test("a process that leaves in the middle frees it, too", async () => {
  const config = endless("left");
  const script = `import { train } from "./src/run/train.ts"; await train(${JSON.stringify(config)}, { onStep: () => process.exit(7) });`;
  const cwd = join(import.meta.dir, "../..");
  const child = Bun.spawn([process.execPath, "-e", script], {
    env: process.env,
    cwd,
    stdout: "ignore",
    stderr: "inherit",
  });
  expect(await child.exited).toBe(7);
  expect(existsSync(lockOf(config.output))).toBe(false);
});

describe("the lock itself", () => {
  let count = 0;
  const fresh = (): string => {
    const path = join(directory.path, `lock ${count++}`);
    mkdirSync(path);
    return path;
  };
  const own = (): Record<string, unknown> => {
    const path = fresh();
    using _ = new RunLock(path);
    return JSON.parse(readFileSync(lockOf(path), "utf8"));
  };

  test("the same process twice", () => {
    const path = fresh();
    {
      using _ = new RunLock(path);
      expect(() => new RunLock(path)).toThrow(RunBusyError);
      expect(() => new RunLock(path)).toThrow(`${path}: this process has been training there since `);
    }
    using _ = new RunLock(path);
    expect(namesIn(path)).toEqual(["run.lock"]);
  });

  const stale: [string, () => string][] = [
    ["a process that is gone", () => JSON.stringify({ ...own(), pid: 2 ** 22 + 1 })],
    ["another process with the same id", () => JSON.stringify({ ...own(), started: "earlier 12345" })],
    ["nobody: half a line", () => JSON.stringify(own()).slice(0, 20)],
    ["nobody: nothing", () => ""],
    ["nobody: another kind of file", () => "[]"],
  ];
  for (const [whose, content] of stale)
    test(`of ${whose} is taken over`, () => {
      const path = fresh();
      writeFileSync(lockOf(path), content());
      {
        using _ = new RunLock(path);
        expect(JSON.parse(readFileSync(lockOf(path), "utf8"))).toMatchObject({ pid: process.pid, host: hostname() });
      }
      expect(namesIn(path)).toEqual([]);
    });

  test("of another machine is reported, with what to do", () => {
    const path = fresh();
    writeFileSync(lockOf(path), JSON.stringify({ ...own(), pid: 7, host: "elsewhere", since: "yesterday" }));
    expect(() => new RunLock(path)).toThrow(
      `${path}: process 7 on elsewhere has been training there since yesterday; wait for it or choose another output; if it is gone, remove ${lockOf(path)}`,
    );
  });

  test("removed by hand and taken by another: the first one leaves that alone", () => {
    const path = fresh();
    const other = JSON.stringify({ ...own(), host: "elsewhere" });
    {
      using _ = new RunLock(path);
      writeFileSync(lockOf(path), other);
    }
    expect(readFileSync(lockOf(path), "utf8")).toBe(other);
  });

  test("of twelve processes that find a stale lock at once, one gets it", async () => {
    const path = fresh();
    writeFileSync(lockOf(path), JSON.stringify({ ...own(), started: "earlier" }));
    const go = join(directory.path, "go");
    const script = `
      import { existsSync } from "node:fs";
      import { RunLock } from "./src/run/lock.ts";
      console.log("ready");
      while (!existsSync(${JSON.stringify(go)}));
      try { globalThis.lock = new RunLock(${JSON.stringify(path)}); console.log("got"); } catch (error) { console.log(error.name); }
      process.stdin.on("data", () => process.exit());`;
    const cwd = join(import.meta.dir, "../..");
    const children = Array.from({ length: 12 }, () =>
      Bun.spawn([process.execPath, "-e", script], {
        env: process.env,
        cwd,
        stdin: "pipe",
        stdout: "pipe",
        stderr: "inherit",
      }),
    );
    const readers = children.map(({ stdout }) => stdout.getReader());
    const next = async () => {
      const all = await Promise.all(readers.map((reader) => reader.read()));
      return all.map(({ value }) => new TextDecoder().decode(value).trim());
    };
    expect(new Set(await next())).toEqual(new Set(["ready"]));
    writeFileSync(go, "");
    expect((await next()).sort()).toEqual([...Array(11).fill("RunBusyError"), "got"]);
    for (const child of children) {
      child.stdin.write("end");
      child.stdin.end();
    }
    await Promise.all(children.map(({ exited }) => exited));
    expect(snapshot(path)).toEqual({});
  });
});
