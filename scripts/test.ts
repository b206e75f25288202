// bun run test [bun test's own options and files]    all tests, two files at a time
// bun run test:fast                                   no processes, no network, nothing slow: plan, state, models, data logic
//
// Time limits are those of a quiet machine times SLUICE_PATIENCE, which this sets from the machine's load unless it is given.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { patience } from "../test/support/time.ts";
import { root } from "./native.ts";

/** What starts a process, or talks to one over a socket. */
const outside = /Bun\.spawn|spawnSync|Bun\.serve|support\/(cli|crash|hub)\.ts|new Worker|StandInHub|train\(/;
/** Seconds by themselves. */
const slow = [
  "plan/fit",
  "plan/rules",
  "plan/simulate",
  "plan/null-device",
  "unit/quickstart",
  "unit/tokenize",
  "unit/stream",
];
const fastFolders = ["unit", "plan", "models", "ops"];

/** The files of the fast lane. */
export function fastFiles(): string[] {
  const names = fastFolders.flatMap((folder) =>
    [...new Bun.Glob("*.test.ts").scanSync(join(root, "test", folder))].map((name) => `${folder}/${name}`),
  );
  return names
    .filter((name) => !slow.includes(name.replace(".test.ts", "")))
    .filter((name) => !outside.test(readFileSync(join(root, "test", name), "utf8")))
    .map((name) => `./test/${name}`)
    .sort();
}

if (import.meta.main) {
  const args = process.argv.slice(2);
  const fast = args.includes("--fast");
  const words = fast ? [...args.filter((word) => word !== "--fast"), ...fastFiles()] : args;
  const limit = `--timeout=${Math.round(5000 * patience)}`;
  const child = Bun.spawn([process.execPath, "test", "--parallel=2", limit, ...words], {
    cwd: root,
    env: { ...process.env, SLUICE_DEVICE: "cpu", SLUICE_PATIENCE: String(patience) },
    stdio: ["ignore", "inherit", "inherit"],
  });
  process.exitCode = await child.exited;
}
