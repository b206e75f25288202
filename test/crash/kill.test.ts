// kill -9 at twenty seeded moments. A run is killed again and again, each time at another moment, resumed each time from
// the newest checkpoint, and must end with the files of a run that nobody disturbed: weights and state byte for byte, each
// step and evaluation exactly once in the metrics, nothing left over.
//
// The moments are seen from outside, in the run directory: a state file of a temporary checkpoint appears, its manifest, the
// published name, a line of the metrics, a file of the export. What a kill really hit is read off what it left behind.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { statSync } from "node:fs";
import { basename, join } from "node:path";
import { listCheckpoints, readManifest } from "../../src/keep/checkpoint.ts";
import type { TrainConfig } from "../../src/run/config.ts";
import { Random } from "../../src/words/random.ts";
import {
  killWhen,
  leftBehind,
  makeRecipe,
  namesIn,
  outcome,
  startTraining,
  stateFiles,
  trainToEnd,
  type Run,
} from "../support/crash.ts";
import { temporaryDirectory } from "../support/models.ts";

setDefaultTimeout(patiently(300_000)); // half a minute, and more on a busy machine

const seed = 20;
const killsWanted = 20;
const directory = temporaryDirectory();
const recipe = makeRecipe(directory.path);
/** Options that must not matter; each series of kills has another. */
const windows: TrainConfig["window"][] = [
  {},
  { residentBlocks: 2 },
  { slots: "all", boundary: "device" },
  { keepBlocks: 1 },
];

afterAll(() => directory[Symbol.dispose]());

let undisturbed: ReturnType<typeof outcome>;
beforeAll(async () => {
  const { code, errors } = await trainToEnd(recipe);
  expect(errors).toBe("");
  expect(code).toBe(0);
  undisturbed = outcome(recipe.output);
});

interface Moment {
  name: string;
  reached(run: Run, output: string): boolean;
}

const checkpointsOf = (output: string): string => join(output, "checkpoints");

/** The temporary directory of this name that the process works on at the moment, and the how many-th it is. */
function temporary(within: (output: string) => string, isWanted: (name: string, beside: string[]) => boolean) {
  const seen = new Set<string>();
  return (run: Run, output: string): { nth: number; path: string } | undefined => {
    const here = within(output);
    const names = namesIn(here);
    const found = names.find((name) => name.includes(`.${run.pid}.`) && isWanted(name, names));
    if (found === undefined) return undefined;
    seen.add(found);
    return { nth: seen.size, path: join(here, found) };
  };
}

/** Whether a temporary name is of a checkpoint that has a newer one beside it: it is on its way out. */
const isOld = (name: string, beside: string[]): boolean =>
  beside.some((other) => other > name.slice(1, 12) && other.startsWith("step-"));

function duringCheckpoint(nth: number, file: string): Moment {
  const written = temporary(checkpointsOf, (name, beside) => name.startsWith(".step-") && !isOld(name, beside));
  return {
    name: `${file} of checkpoint ${nth}`,
    reached: (run, output) => {
      const now = written(run, output);
      return now?.nth === nth && namesIn(now.path).some((name) => name.includes(file));
    },
  };
}

function duringPruning(nth: number): Moment {
  const deleted = temporary(checkpointsOf, (name, beside) => name.startsWith(".step-") && isOld(name, beside));
  return { name: `pruning ${nth}`, reached: (run, output) => deleted(run, output)?.nth === nth };
}

function duringExport(file: string): Moment {
  const written = temporary(
    (output) => output,
    (name) => name.startsWith(".model@"),
  );
  return {
    name: `${file} of the export`,
    reached: (run, output) => {
      const now = written(run, output);
      return now !== undefined && namesIn(now.path).includes(file);
    },
  };
}

/** The name of a checkpoint that this process published appears; what follows is pruning. */
function afterPublishing(nth: number): Moment {
  let before: Set<string> | undefined;
  const published = (output: string) => namesIn(checkpointsOf(output)).filter((name) => name.startsWith("step-"));
  const fresh = new Set<string>();
  return {
    name: `publication ${nth}`,
    reached: (_, output) => {
      before ??= new Set(published(output));
      for (const name of published(output)) if (!before.has(name)) fresh.add(name);
      return fresh.size >= nth;
    },
  };
}

/** So many milliseconds after the metrics first grew; 0 is right after a line was written. */
function afterMetrics(nth: number, milliseconds: number): Moment {
  const bytesOf = (output: string) => statSync(join(output, "metrics.jsonl"), { throwIfNoEntry: false })?.size ?? 0;
  let bytes: number | undefined;
  let grown = 0;
  let since = Infinity;
  return {
    name: `${milliseconds} ms after metrics line ${nth}`,
    reached: (_, output) => {
      const now = bytesOf(output);
      if (bytes !== undefined && now > bytes && ++grown === nth) since = performance.now();
      bytes = now;
      return performance.now() - since >= milliseconds;
    },
  };
}

/** One series: somewhere in training, inside checkpoints, around publication, and at last inside the export. */
function series(random: Random): Moment[] {
  const one = <T>(choices: readonly T[]): T => choices[random.below(choices.length)]!;
  const nth = () => 1 + random.below(2);
  return [
    afterMetrics(1 + random.below(3), random.below(40)),
    duringCheckpoint(nth(), one(stateFiles)),
    one([duringCheckpoint(nth(), "manifest.json"), afterPublishing(nth())]),
    one([duringCheckpoint(nth(), one(stateFiles)), afterMetrics(1, 0), duringPruning(nth())]),
    duringExport(one(["model.safetensors", "config.json", "tokenizer.json"])),
  ];
}

test(`killed at ${killsWanted} moments (seed ${seed}), a run ends as if nothing had happened`, async () => {
  const random = new Random(seed);
  const hits = new Map<string, number>();
  const count = (...places: string[]) => places.reduce((sum, where) => sum + (hits.get(where) ?? 0), 0);
  const inCheckpoints = () => count("writing a checkpoint's state", "writing a manifest", "publishing a checkpoint");
  const wanted = () => kills >= killsWanted && inCheckpoints() >= 5 && count("exporting") >= 3;
  let kills = 0;
  for (let index = 0; !wanted() && index < 8; index++) {
    const config = {
      ...recipe,
      output: join(directory.path, `series ${index}`),
      window: windows[index % windows.length]!,
    };
    const report: string[] = [];
    for (const moment of series(random)) {
      const newest = newestStep(config.output);
      const run = startTraining(config);
      const { signal, output, errors } = await killWhen(run, () => moment.reached(run, config.output));
      expect(errors).toBe("");
      if (newest > 0) expect(output).toContain(`resumed after step ${newest}\n`);
      if (signal === null) break; // the moment was over too quickly, and the run has ended
      kills++;
      const where = leftBehind(config.output, run.pid);
      hits.set(where, (hits.get(where) ?? 0) + 1);
      report.push(`${moment.name}: ${where}`);
      for (const path of listCheckpoints(checkpointsOf(config.output))) readManifest(path);
    }
    const { code, errors } = await trainToEnd(config);
    expect({ code, errors }).toEqual({ code: 0, errors: "" });
    console.log(`series ${index} (seed ${seed}): ${report.join("; ")}`);
    expect(outcome(config.output)).toEqual(undisturbed);
  }
  console.log(`${kills} kills: ${[...hits].map(([where, count]) => `${count} ${where}`).join(", ")}`);
  expect(wanted()).toBe(true);
});

function newestStep(output: string): number {
  const [newest] = listCheckpoints(checkpointsOf(output));
  return newest === undefined ? 0 : Number(basename(newest).replace("step-", ""));
}
