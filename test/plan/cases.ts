// Random and enumerated shapes for the plan tests: small models, every option, uneven micro-batches. A case is plain data
// and prints as one line, so that a failure can be played again from its text.

import type { MicroBatch, StepBatch } from "../../src/data/batches.ts";
import { keepLast, type StepShape } from "../../src/tiers/shape.ts";
import { keepLevels, type KeepLevel } from "../../src/models/parts/chain.ts";
import { Random } from "../../src/words/random.ts";
import {
  describeModel,
  rehearsedBatch,
  rehearsedMicroBatch,
  rehearsedSettings,
  rehearsedShape,
} from "../../src/predict/rehearsal.ts";
import { recordEvaluation, recordStep, type RecordedStep, type StepRecorder } from "../../src/step/step.ts";

export interface PlanCase {
  seed: number;
  modelType: string;
  tied: boolean;
  layers: number;
  dtype: "float32" | "bfloat16";
  slots: number;
  boundary: "device" | "pinned";
  keepBlocks: number;
  /** What they keep, each block its own in turn. */
  keepLevels: readonly KeepLevel[];
  residentBlocks: number;
  ring: number;
  clips: StepShape["clips"];
  passes: number;
  microBatches: number;
  chunkParameters: number;
  logitsChunk: number;
  steps: number;
  /** Evaluation plans between the steps. */
  evaluations: number;
}

export const describeCase = (chosen: PlanCase): string => JSON.stringify(chosen);

export function randomCase(seed: number): PlanCase {
  const random = new Random(seed);
  const from = (least: number, most: number): number => least + random.below(most - least + 1);
  const one = <T>(...choices: T[]): T => choices[random.below(choices.length)]!;
  const layers = from(1, 5);
  const clips = one<StepShape["clips"]>("exact", "exact", "previous", false);
  return {
    seed,
    modelType: one("qwen3", "qwen2", "llama"),
    tied: random.uniform() < 0.5,
    layers,
    dtype: one("float32", "bfloat16"),
    slots: from(2, Math.max(2, layers)),
    boundary: one("device", "pinned"),
    keepBlocks: from(0, layers),
    keepLevels: one<readonly KeepLevel[]>(["all"], ["products"], ["attention"], ["attention", "products", "all"]),
    residentBlocks: one(0, from(0, layers)),
    ring: clips === "exact" ? layers : from(1, layers),
    clips,
    passes: one(1, 1, from(1, 3)),
    microBatches: from(1, 3),
    chunkParameters: one(1024, 4096, 1 << 20),
    logitsChunk: one(16, 32, 64),
    steps: 3,
    evaluations: one(0, 0, 1, 2),
  };
}

export function shapeOf(chosen: PlanCase): StepShape {
  const { modelType, tied, layers, keepBlocks, keepLevels, dtype, slots, boundary, residentBlocks, ring } = chosen;
  const { clips, passes, microBatches, chunkParameters, logitsChunk } = chosen;
  const config = describeModel({
    modelType,
    tied,
    layers,
    vocabulary: 100,
    hidden: 32,
    intermediate: 48,
    heads: 2,
    kvHeads: 1,
    headDim: 16,
  });
  const keep = keepLast(layers, keepBlocks, "all").map((level, layer) =>
    level === "all" ? keepLevels[layer % keepLevels.length]! : level,
  );
  const window = { slots, boundary, keep, residentBlocks, ring };
  const sizes = { tokensMax: 64, passes, microBatches, chunkParameters, logitsChunk };
  return rehearsedShape(config, { ...sizes, ...window, dtype, clips });
}

/** A step's micro-batches: uneven, some without any target that counts. */
function passesOf(chosen: PlanCase, random: Random): MicroBatch[][] {
  return Array.from({ length: chosen.passes }, (_, pass) =>
    Array.from({ length: 1 + random.below(chosen.microBatches) }, () => {
      const lengths = Array.from({ length: 1 + random.below(2) }, () => 1 + random.below(32));
      const share = random.uniform() < 0.3 ? 0 : random.uniform();
      return rehearsedMicroBatch(lengths, 100, () => random.uniform(), share);
    }).map((batch, index, all) => {
      // A step without any valid target is refused before it is recorded.
      if (pass === chosen.passes - 1 && index === all.length - 1) batch.targets[0] = 1;
      return batch;
    }),
  );
}

/** The plans of a case, in the order in which they are submitted; each is recorded when it is called. */
export function* recordCase(chosen: PlanCase, recorder: StepRecorder): Generator<() => RecordedStep> {
  const [random, held] = [new Random(chosen.seed, 1), new Random(chosen.seed, 2)];
  for (let step = 1; step <= chosen.steps; step++) {
    const batch: StepBatch = rehearsedBatch(passesOf(chosen, random));
    yield () => recordStep(recorder, batch, rehearsedSettings(recorder.shape, step));
    for (let evaluation = 0; evaluation < chosen.evaluations; evaluation++) {
      const [microBatches] = passesOf({ ...chosen, passes: 1 }, held);
      yield () => recordEvaluation(recorder, step, microBatches!);
    }
  }
}

/** All of them without an engine. */
export const recordAll = (chosen: PlanCase, recorder: StepRecorder): RecordedStep[] =>
  Array.from(recordCase(chosen, recorder), (record) => record());

/** Every combination of options for one to three layers; one or two passes as it comes. */
export function* smallCases(): Generator<PlanCase> {
  const upTo = (least: number, most: number): number[] =>
    Array.from({ length: most - least + 1 }, (_, index) => least + index);
  const both = [false, true];
  const random = new Random(0);
  let seed = 0;
  for (const layers of [1, 2, 3])
    for (const slots of upTo(2, Math.max(2, layers)))
      for (const residentBlocks of upTo(0, layers))
        for (const keepBlocks of [0, layers])
          for (const boundary of ["device", "pinned"] as const)
            for (const dtype of ["float32", "bfloat16"] as const)
              for (const tied of both)
                for (const microBatches of [1, 2])
                  for (const [clips, ring] of [
                    ["exact", layers],
                    ...upTo(1, layers).map((ring) => [random.below(3) ? false : "previous", ring]),
                  ] as [StepShape["clips"], number][]) {
                    const options = {
                      layers,
                      slots,
                      residentBlocks,
                      keepBlocks,
                      keepLevels: keepLevels.slice(1 + random.below(3)),
                      boundary,
                      dtype,
                      tied,
                      microBatches,
                      clips,
                      ring,
                    };
                    const rest = {
                      modelType: "llama",
                      chunkParameters: 1 << 20,
                      logitsChunk: random.below(2) ? 32 : 64,
                      steps: 2,
                      evaluations: 0,
                    };
                    yield { ...options, ...rest, seed: ++seed, passes: 1 + random.below(2) };
                  }
}
