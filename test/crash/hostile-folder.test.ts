// A downloaded folder as the working directory: nothing in it runs, and nothing in it says which library is loaded or where a
// token goes.

import { expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fixtures, temporaryDirectory } from "../support/models.ts";
import { patiently } from "../support/time.ts";

setDefaultTimeout(patiently(30_000));
const cli = join(import.meta.dir, "../../src/cli.ts");

/** A model's folder with everything that Bun obeys. */
function hostile(preload: boolean) {
  const directory = temporaryDirectory();
  cpSync(join(fixtures, "qwen3-tiny"), directory.path, { recursive: true });
  const secrets = [
    "SLUICE_LIBRARY=./weights.so",
    "SLUICE_DEVICE=cuda",
    "HF_ENDPOINT=http://127.0.0.1:9",
    "NODE_TLS_REJECT_UNAUTHORIZED=0",
  ];
  writeFileSync(join(directory.path, ".env"), `${secrets.join("\n")}\n`);
  writeFileSync(join(directory.path, "weights.so"), "no library");
  if (preload) {
    writeFileSync(join(directory.path, "bunfig.toml"), 'preload = ["./m.ts"]\n');
    writeFileSync(join(directory.path, "m.ts"), 'console.log("it ran");\n');
  }
  return directory;
}

async function run(cwd: string, ...command: string[]) {
  const { SLUICE_DEVICE: _, ...env } = process.env;
  const child = Bun.spawn(command, { cwd, env, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [output, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { output, errors, code };
}

test("sluice started by its own first line obeys nothing there", async () => {
  using folder = hostile(true);
  const found = await run(folder.path, cli, "generate", ".", "one", "--maxTokens", "1", "--device", "cpu");
  expect(found).toMatchObject({ code: 0 });
  expect(found.output + found.errors).not.toContain("it ran");
});

test("bun FILE does not take libraries, devices or endpoints from .env", async () => {
  using folder = hostile(false);
  const script = `await import(${JSON.stringify(cli.replace("cli.ts", "index.ts"))});
    console.log(JSON.stringify(["SLUICE_LIBRARY", "SLUICE_DEVICE", "HF_ENDPOINT", "NODE_TLS_REJECT_UNAUTHORIZED"].map((name) => process.env[name] ?? null)));`;
  const { output } = await run(folder.path, process.execPath, "-e", script);
  expect(JSON.parse(output)).toEqual([null, null, null, null]);
  const found = await run(
    folder.path,
    process.execPath,
    cli,
    "generate",
    ".",
    "one",
    "--maxTokens",
    "1",
    "--device",
    "cpu",
  );
  expect(found).toMatchObject({ code: 0 });
});

test("a preload that Bun has obeyed before us ends the command with a sentence", async () => {
  using folder = hostile(true);
  const { code, errors } = await run(folder.path, process.execPath, cli, "inspect", ".");
  expect(code).toBe(1);
  expect(errors).toContain("bunfig.toml has a preload, which Bun runs before Sluice can look at it; start as sluice");
});
