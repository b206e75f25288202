// Whoever is on this machine may open connections to the dashboard; they may not cost a run its checkpoints.

import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { temporaryDirectory } from "../support/models.ts";
import { patiently } from "../support/time.ts";
import { makeRecipe, namesIn, root } from "../support/crash.ts";

setDefaultTimeout(patiently(60_000));
const scope = new DisposableStack();
afterAll(() => scope.dispose());
const directory = scope.use(temporaryDirectory()).path;

test("a flood of half requests to the dashboard costs the dashboard, not the checkpoint", async () => {
  const config = { ...makeRecipe(directory), steps: 60, checkpoint: { every: 20 }, dashboard: true };
  const path = join(directory, "flooded.json");
  writeFileSync(path, JSON.stringify(config));
  const words = [
    "bash",
    "-c",
    'ulimit -n 100 && exec "$@"',
    "bash",
    process.execPath,
    join(root, "src/cli.ts"),
    "train",
  ];
  const run = Bun.spawn([...words, "--config", path], { cwd: root, env: process.env, stdout: "pipe", stderr: "pipe" });
  const sockets: Socket[] = [];
  let output = "";
  for await (const chunk of run.stdout) {
    output += new TextDecoder().decode(chunk);
    const port = Number(/dashboard: http:..[^:]+:(\d+)/.exec(output)?.[1]);
    if (port && sockets.length === 0)
      for (let count = 0; count < 200; count++) {
        const socket = connect(port, "127.0.0.1", () => void socket.write("GET / HTTP/1.1\r\n"));
        socket.on("error", () => {});
        sockets.push(socket);
      }
  }
  const code = await run.exited;
  for (const socket of sockets) socket.destroy();
  expect(await run.stderr.text()).toBe("");
  expect(code).toBe(0);
  expect(sockets).toHaveLength(200);
  expect(namesIn(join(config.output, "checkpoints"))).toContain("step-000060");
});
