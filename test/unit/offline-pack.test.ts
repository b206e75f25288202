// The folder that `bun run pack` makes, copied elsewhere and run with nothing of this machine on its path.

import { expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { cpSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { temporaryDirectory } from "../support/models.ts";

setDefaultTimeout(patiently(300_000)); // xz takes half a minute of one core

test("a pack benches, answers and tests on its own", async () => {
  using files = temporaryDirectory();
  const [made, moved] = ["made", "moved"].map((name) => join(files.path, name)) as [string, string];
  const run = async (words: string[], env: Record<string, string>, cwd = files.path) => {
    const child = Bun.spawn(words, { cwd, env, stdout: "pipe", stderr: "pipe" });
    const [output, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    return { output: output + errors, code };
  };
  const packed = await run(
    [process.execPath, "scripts/pack.ts", "--output", made, "--level", "0"],
    { ...Bun.env } as Record<string, string>,
    join(import.meta.dir, "../.."),
  );
  expect(packed).toMatchObject({ code: packed.output.includes("the limit is") ? 1 : 0 }); // level 0 may be too large
  expect(packed.output).toMatch(/packed .*: \d+\.\d MB \(bun\.xz/);
  cpSync(made, moved, { recursive: true });
  expect(readdirSync(moved)).toContain("run");

  mkdirSync(join(files.path, "home"));
  const bare = { PATH: "/usr/bin:/bin", HOME: join(files.path, "home") };
  const bench = await run(
    ["moved/run", "bench", "--shape", "tiny", "--batchSize", "1", "--sequenceLength", "32", "--steps", "1"],
    bare,
  );
  expect(bench).toMatchObject({ code: 0 });
  expect(bench.output).toContain("tiny, 1 × 32 tokens, float32");
  expect(await run(["moved/run"], bare)).toMatchObject({ code: 0, output: expect.stringContaining("sluice train") });
  const config = await run(["moved/run", "plan", "--model", "qwen3-0.6b", "--gpu", "cpu-2core"], bare);
  expect(config.output).toContain("qwen3-0.6b: 596M parameters");
  const tested = await run(["moved/run", "test", "test/unit/flops.test.ts", "test/ops/swiglu.test.ts"], bare);
  expect(tested).toMatchObject({ code: 0 });
});
