// `bun run loss-curve` without PyTorch: what stands in for Python copies our curve, or bends it.

import { expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryDirectory } from "../support/models.ts";

setDefaultTimeout(patiently(120_000));

/** A program in Python's place: gets the script and the directory, and leaves each loss times `factor`. */
function standIn(directory: string, factor: number): string {
  const path = join(directory, `python-${factor}`);
  const body = `
    const [, , , directory] = process.argv;
    const losses = await Bun.file(directory + "/sluice.json").json();
    await Bun.write(directory + "/pytorch.json", JSON.stringify(losses.map((loss) => loss * ${factor})));`;
  writeFileSync(`${path}.ts`, body);
  writeFileSync(path, `#!/bin/sh\nexec "${process.execPath}" "${path}.ts" "$@"\n`);
  chmodSync(path, 0o755);
  return path;
}

test("the same curve passes, one two percent away fails, and our half trains", async () => {
  using files = temporaryDirectory();
  const run = async (python: string) => {
    const flags = [
      "--shape",
      "tiny",
      "--steps",
      "12",
      "--batchSize",
      "2",
      "--sequenceLength",
      "64",
      "--optimizer.learningRate",
      "3e-3",
    ];
    const words = ["scripts/loss-curve.ts", ...flags, "--output", join(files.path, "out"), "--python", python];
    const child = Bun.spawn([process.execPath, ...words], { env: process.env, stdout: "pipe", stderr: "pipe" });
    const [output, code] = await Promise.all([child.stdout.text(), child.exited]);
    return { output, code };
  };
  const same = await run(standIn(files.path, 1));
  expect(same).toMatchObject({ code: 0, output: expect.stringContaining("at most 0.000 %") });
  const bent = await run(standIn(files.path, 1.02));
  expect(bent).toMatchObject({ code: 1, output: expect.stringContaining("the limit is 1 %: FAILED") });
  const losses: number[] = await Bun.file(join(files.path, "out/sluice.json")).json();
  expect(losses).toHaveLength(12);
  expect(losses.at(-1)!).toBeLessThan(losses[0]! - 0.5);
});
