// Signals: what Slurm, docker stop and a closed terminal send saves as Ctrl-C does, and the run that goes on ends as one that
// nobody disturbed; SIGUSR1 saves and goes on; two in a row stop at once.

import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { temporaryDirectory } from "../support/models.ts";
import { patiently } from "../support/time.ts";
import { ended, lines, makeRecipe, namesIn, outcome, startTraining, trainToEnd, type Run } from "../support/crash.ts";

setDefaultTimeout(patiently(60_000));
const scope = new DisposableStack();
afterAll(() => scope.dispose());
const directory = scope.use(temporaryDirectory()).path;
// No checkpoint but those that a signal asks for.
const recipe = { ...makeRecipe(directory), steps: 60, checkpoint: { every: null, resume: "auto" as const } };
const undisturbed = await trainToEnd(recipe);

/** A run that has made some steps. */
async function underWay(name: string): Promise<{ run: Run; output: string }> {
  const output = join(directory, name);
  const run = startTraining({ ...recipe, output });
  while (lines(join(output, "metrics.jsonl")).length < 4 && run.exitCode === null) await Bun.sleep(1);
  return { run, output };
}

test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)("%s finishes the step in hand and saves", async (signal) => {
  expect(undisturbed).toMatchObject({ code: 0, errors: "" });
  const { run, output } = await underWay(signal);
  run.kill(signal);
  const { code, errors } = await ended(run);
  expect([code, errors]).toEqual([130, expect.stringMatching(/^interrupted after step \d+ of 60, which is saved in /)]);
  expect(namesIn(join(output, "checkpoints"))).toHaveLength(1);
  expect(await trainToEnd({ ...recipe, output })).toMatchObject({ code: 0, errors: "" });
  const weights = (of: Record<string, unknown>) => of["model/model.safetensors"];
  expect(weights(outcome(output))).toEqual(weights(outcome(recipe.output)));
  expect(lines(join(output, "loss.csv")).map((line) => line.split(",").slice(0, 2))).toEqual(
    lines(join(recipe.output, "loss.csv")).map((line) => line.split(",").slice(0, 2)),
  );
});

test("SIGUSR1 saves and goes on", async () => {
  const { run, output } = await underWay("SIGUSR1");
  run.kill("SIGUSR1");
  expect(await ended(run)).toMatchObject({ code: 0, errors: "" });
  const steps = namesIn(join(output, "checkpoints")).sort();
  expect(steps).toHaveLength(2);
  expect(steps.at(-1)).toBe("step-000060");
});

test("two within two seconds stop at once, and nothing is half written", async () => {
  const { run, output } = await underWay("twice");
  run.kill("SIGTERM");
  await Bun.sleep(1);
  run.kill("SIGTERM");
  const { code } = await ended(run);
  expect(code).toBe(130);
  expect(namesIn(join(output, "checkpoints")).filter((name) => name.endsWith(".tmp"))).toEqual([]);
});
