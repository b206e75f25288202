// docs/first-half-hour.md says what a newcomer sees. Its CSV trains, and its three mistakes get the messages that stand there.

import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryDirectory } from "../support/models.ts";

setDefaultTimeout(patiently(60_000));

const root = join(import.meta.dir, "../..");
const page = readFileSync(join(root, "docs/first-half-hour.md"), "utf8");
const blocks = (kind: string) =>
  [...page.matchAll(new RegExp(`^\`\`\`${kind}\\n([^]*?)^\`\`\``, "gm"))].map(([, text]) => text!);

const directory = temporaryDirectory();
afterAll(() => directory[Symbol.dispose]());
writeFileSync(join(directory.path, "faq.csv"), blocks("csv")[0]!);

/** Types `$ bun recipes/…` in the directory of the CSV. */
async function type(command: string): Promise<{ out: string; error: string; code: number }> {
  const [bun, script, ...args] = command.replace(/^\$ /, "").split(" ");
  expect(bun).toBe("bun");
  const child = Bun.spawn([process.execPath, join(root, script!), ...args], {
    env: process.env,
    cwd: directory.path,
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, error, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { out, error, code };
}

test("the CSV of the page trains, by the page's command", async () => {
  const command = page.split("\n").find((line) => line.startsWith("$ bun recipes/csv.ts"))!;
  const { out, error, code } = await type(command.replace("--epochs 60", "--epochs 1"));
  expect({ error, code }).toEqual({ error: "", code: 0 });
  expect(out).toContain("data: 24 samples, 1.09k tokens, 552 count");
  expect(out).toContain("memory bill: 3.0 MiB on the device");
  expect(out).toContain("When do you open? → ");
});

test("there are three mistakes", () => expect(blocks("mistake")).toHaveLength(3));
for (const block of blocks("mistake")) {
  const [command, message] = block.split("\n");
  test(command!, async () => {
    expect(await type(command!)).toEqual({ out: "", error: `${message}\n`, code: 1 });
  });
}
