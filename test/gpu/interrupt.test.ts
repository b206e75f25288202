// Ctrl-C at any time, as a person sends it: to a run that starts, measures the machine, tunes its first products, steps, or
// writes a checkpoint, once and twice. Each time it must end with code 130, leave nothing half written and nothing on the
// card, and the run after it must go on from the newest checkpoint. And a run that the card is too small for must say so with
// code 1 before it takes anything. Runs on each GPU (`bun run test:gpu`), and everywhere on the stand-in (stand-in.test.ts).

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { listCheckpoints, readManifest } from "../../src/keep/checkpoint.ts";
import type { TrainConfig } from "../../src/run/config.ts";
import { Engine } from "../../src/native/runtime.ts";
import { Random } from "../../src/words/random.ts";
import { ended, filesIn, lines, makeRecipe, namesIn, root, type Ended, type Run } from "../support/crash.ts";
import { temporaryDirectory } from "../support/models.ts";
import { onGpus } from "../support/ops.ts";

setDefaultTimeout(patiently(60_000));
const seed = Number(process.env["SLUICE_TEST_SEED"] ?? 11);

onGpus(onGpu);

/** When the interrupt is sent: as soon as `reached`, and `after` milliseconds more. */
interface Moment {
  name: string;
  reached(output: string): boolean;
  after: number;
  /** Sent again after so many milliseconds: then the step in hand is given up, too. */
  again?: number;
  /** Nothing is said about the window, so the machine's rates are measured. */
  probes?: boolean;
}

const metrics = (output: string): number => lines(join(output, "metrics.jsonl")).length;
const written = (output: string): string | undefined =>
  namesIn(join(output, "checkpoints")).find((name) => name.startsWith("."));
/** The file is made new by every run, just before its first step. */
const begins = (output: string): boolean => namesIn(output).includes("config.json");

function momentsOf(random: Random): Moment[] {
  const spread = (most: number): number => Math.floor(random.uniform() * most);
  const at = (lines: number) => (output: string) => metrics(output) >= lines;
  return [
    { name: "at once", reached: () => true, after: 0 },
    { name: "while it starts", reached: () => true, after: spread(400) },
    { name: "while the machine is measured", reached: () => true, after: 300 + spread(2500), probes: true },
    { name: "in the first step, while products are tuned", reached: begins, after: spread(20) },
    { name: "in a step", reached: at(20), after: spread(20) },
    { name: "in a checkpoint", reached: (output) => written(output) !== undefined, after: 0 },
    { name: "twice in a step", reached: at(40), after: 0, again: spread(5) },
    { name: "twice in a checkpoint", reached: (output) => written(output) !== undefined, after: 0, again: 0 },
  ];
}

function onGpu(device: "cuda" | "hip"): void {
  const directory = temporaryDirectory();
  const { evaluationData: _, evaluation: _1, ...recipe } = makeRecipe(directory.path);
  const window = { slots: 2, boundary: "pinned", keepBlocks: 1, residentBlocks: 1, ring: "all" } as const;
  const output = join(directory.path, "interrupted");
  const config: TrainConfig = {
    ...recipe,
    device,
    output,
    window,
    steps: 1_000_000,
    checkpoint: { every: 7, resume: "auto" },
  };
  const random = new Random(seed);
  /** Holds the device open, so that its own share of the card stays the same. */
  let engine: Engine;
  let free = 0;
  beforeAll(() => {
    engine = new Engine({ device, workers: 1 });
    free = engine.deviceInfo().freeBytes;
  });
  afterAll(() => {
    engine.close();
    directory[Symbol.dispose]();
  });

  /** A run of its own, with nothing measured before. */
  function start(run: TrainConfig, name: string): Run {
    const path = join(directory.path, `${name}.json`);
    writeFileSync(path, JSON.stringify(run));
    return Bun.spawn([process.execPath, join(root, "src/cli.ts"), "train", "--config", path], {
      cwd: root,
      env: { ...process.env, SLUICE_CACHE: join(directory.path, `cache of ${name}`) },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
  }

  /** Waits until the card is as free as before; a process that has ended may keep its memory for a moment. */
  async function expectCardFree(): Promise<void> {
    const until = performance.now() + 5000;
    while (engine.deviceInfo().freeBytes < free && performance.now() < until) await Bun.sleep(50);
    expect(engine.deviceInfo().freeBytes).toBeGreaterThanOrEqual(free);
  }

  async function interrupted(moment: Moment): Promise<Ended> {
    mkdirSync(output, { recursive: true });
    rmSync(join(output, "config.json"), { force: true });
    const { window: fixed, ...auto } = config;
    const run = start(moment.probes ? auto : { ...auto, window: fixed! }, moment.name);
    while (run.exitCode === null && !moment.reached(output)) await Bun.sleep(0);
    await Bun.sleep(moment.after);
    run.kill("SIGINT");
    if (moment.again !== undefined) {
      await Bun.sleep(moment.again);
      run.kill("SIGINT");
    }
    return ended(run);
  }

  const newest = (): string | undefined => listCheckpoints(join(output, "checkpoints"))[0];

  for (const moment of momentsOf(random))
    test(`Ctrl-C ${moment.name}`, async () => {
      const before = newest();
      const { code, signal, output: printed, errors } = await interrupted(moment);
      // Before there is anything to save, the signal itself ends the process.
      if (signal === null)
        expect([code, errors]).toEqual([
          130,
          expect.stringMatching(/^(interrupted after step|the run was cancelled|cancelled)/),
        ]);
      else expect([signal, begins(output)]).toEqual(["SIGINT", false]);
      if (before !== undefined && begins(output)) expect(printed).toContain(`resumed after step ${stepOf(before)}`);
      expect(filesIn(output).filter((name) => name.endsWith(".tmp"))).toEqual([]);
      for (const path of listCheckpoints(join(output, "checkpoints")))
        expect(readManifest(path).step).toBe(stepOf(path));
      await expectCardFree();
    });

  test("the next run goes on from there, and ends", async () => {
    const from = stepOf(newest()!);
    const { code, errors, output: printed } = await ended(start({ ...config, steps: from + 3 }, "the end"));
    expect([code, errors]).toEqual([0, ""]);
    expect(printed).toContain(`resumed after step ${from}`);
    expect(namesIn(output)).toContain("model");
    await expectCardFree();
  });

  test("too little device memory: one message, code 1, nothing taken", async () => {
    const small = join(directory.path, "too small");
    const refused = async (changes: Partial<TrainConfig>): Promise<string> => {
      const { code, errors } = await ended(start({ ...config, output: small, ...changes }, "too small"));
      expect(code).toBe(1);
      expect(filesIn(small)).toEqual([]);
      await expectCardFree();
      return errors;
    };
    const beside =
      /^deviceMemory is 52428800 bytes, but the context, kernels and libraries alone take (\d+) on .*; allow more\n$/;
    const overhead = await refused({ deviceMemory: 50 << 20 });
    expect(overhead).toMatch(beside);
    // What this process takes of the card counts, too: the run sees it as taken by others.
    const deviceMemory = Number(beside.exec(overhead)![1]) + (8 << 20);
    expect(await refused({ deviceMemory, sequenceLength: 512, batchSize: 32 })).toMatch(
      /^deviceMemory: the run needs .* on the device, .* of it for context, kernels and libraries; the limit is .*; reduce window\.residentBlocks \(1\), window\.keepBlocks, microBatchTokens \(16384\), or raise deviceMemory\n$/,
    );
  });
}

const stepOf = (path: string): number => Number(/\d+$/.exec(basename(path))![0]);
