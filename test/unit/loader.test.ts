import { describe, expect, test } from "bun:test";
import type { Dataset } from "../../src/data/dataset.ts";
import { IGNORED } from "../../src/data/text/encode.ts";
import type { BatchShape, MicroBatch, StepBatch } from "../../src/data/batches.ts";
import { evaluationBatches, Loader } from "../../src/data/loader.ts";
import { epochDocuments } from "../../src/data/mix.ts";
import { Random } from "../../src/words/random.ts";

/** Documents whose tokens are all different: token / 1000 is the document, token % 1000 the position. */
function dataset(lengths: number[]): Dataset {
  const starts = new Int32Array(lengths.length + 1);
  lengths.forEach((length, d) => (starts[d + 1] = starts[d]! + length));
  const tokens = Int32Array.from(lengths.flatMap((length, d) => Array.from({ length }, (_, i) => d * 1000 + i)));
  const targets = tokens.map((token, i) => (starts.includes(i + 1) ? IGNORED : token + 1));
  const report = {
    samples: 0,
    documents: 0,
    tokens: 0,
    validTokens: 0,
    truncated: 0,
    dropped: 0,
  };
  return { tokens, targets, starts, digest: String(lengths), report };
}

function randomCase(seed: number): { data: Dataset; shape: BatchShape; lengths: number[] } {
  const random = new Random(seed, 1);
  const sequenceLength = 2 + random.below(60);
  const lengths = Array.from({ length: 5 + random.below(80) }, () => 2 + random.below(sequenceLength - 1));
  const gradientAccumulation = 1 + random.below(3);
  const batchSize = gradientAccumulation * (1 + random.below(4));
  const microBatchTokens = sequenceLength + random.below(100);
  return {
    data: dataset(lengths),
    shape: { sequenceLength, batchSize, microBatchTokens, gradientAccumulation },
    lengths,
  };
}

function checkMicroBatch({ tokens, targets, starts, positions }: MicroBatch, lengths: number[]): number[] {
  expect(starts[0]).toBe(0);
  expect(starts.at(-1)).toBe(tokens.length);
  return Array.from({ length: starts.length - 1 }, (_, d) => {
    const [from, to] = [starts[d]!, starts[d + 1]!];
    const document = tokens[from]! / 1000;
    expect(to - from).toBe(lengths[document]!); // whole
    for (let t = from; t < to; t++) {
      expect(tokens[t]).toBe(document * 1000 + t - from);
      expect(positions[t]).toBe(t - from);
      expect(targets[t]).toBe(t + 1 < to ? tokens[t]! + 1 : IGNORED);
    }
    return document;
  });
}

describe("batches", () => {
  for (let seed = 1; seed <= 25; seed++) {
    test(`every document once in an epoch, whole and in bounds, seed ${seed}`, () => {
      const { data, shape, lengths } = randomCase(seed);
      const loader = new Loader(data, { ...shape, batchSize: 1, gradientAccumulation: 1 }, seed);
      const seen: number[] = [];
      for (let row = 0; row < loader.rowsPerEpoch; row++) {
        const batch = loader.next();
        expect(batch.tokens).toBeLessThanOrEqual(shape.sequenceLength);
        for (const microBatch of batch.passes.flat()) seen.push(...checkMicroBatch(microBatch, lengths));
      }
      expect(loader.epochs).toBe(1);
      expect(seen.toSorted((a, b) => a - b)).toEqual(lengths.map((_, d) => d));
    });

    test(`passes and micro-batches only divide the step, seed ${seed}`, () => {
      const { data, shape, lengths } = randomCase(seed);
      const loader = new Loader(data, shape, seed);
      const whole = new Loader(data, { ...shape, microBatchTokens: 1e9, gradientAccumulation: 1 }, seed);
      for (let step = 0; step < 10; step++) {
        const batch = loader.next();
        const all = batch.passes.flat();
        expect(batch.passes).toHaveLength(shape.gradientAccumulation);
        for (const microBatch of all) {
          expect(microBatch.tokens.length).toBeLessThanOrEqual(shape.microBatchTokens);
          checkMicroBatch(microBatch, lengths);
        }
        const [[one]] = whole.next().passes as [[MicroBatch]];
        expect(all.flatMap(({ tokens }) => [...tokens])).toEqual([...one.tokens]);
        expect(batch.tokens).toBe(one.tokens.length);
        expect(batch.validTokens).toBe([...one.targets].filter((target) => target !== IGNORED).length);
      }
    });

    test(`a restored loader goes on with the same batches, seed ${seed}`, () => {
      const { data, shape } = randomCase(seed);
      const loader = new Loader(data, shape, seed);
      for (let step = new Random(seed).below(30); step > 0; step--) loader.next();
      const state = JSON.parse(JSON.stringify(loader.state()));
      const resumed = new Loader(data, shape, seed);
      resumed.restore(state);
      for (let step = 0; step < 10; step++) expect(resumed.next()).toEqual(loader.next());
    });
  }

  const shape = { sequenceLength: 8, batchSize: 4, microBatchTokens: 8, gradientAccumulation: 1 };
  const tokensOf = (batch: StepBatch) => batch.passes.flat().flatMap(({ tokens }) => [...tokens]);

  test("epochs differ, seeds differ, the same seed does not", () => {
    const data = dataset(Array.from({ length: 40 }, () => 8));
    const epoch = (loader: Loader) => Array.from({ length: 10 }, () => tokensOf(loader.next()));
    const loader = new Loader(data, shape, 1);
    const first = epoch(loader);
    expect(epoch(loader)).not.toEqual(first);
    expect(epoch(new Loader(data, shape, 1))).toEqual(first);
    expect(epoch(new Loader(data, shape, 2))).not.toEqual(first);
  });

  test("a step is always full, across epochs and with more rows than the data has", () => {
    const loader = new Loader(dataset([8, 8, 8]), shape, 1);
    expect(loader.next().tokens).toBe(32);
    expect(loader.epochs).toBeCloseTo(4 / 3);
    expect(loader.stepsOf(1)).toBe(1);
    expect(loader.stepsOf(4)).toBe(3);
    expect(loader.stepsOf(4.1)).toBe(4);
  });

  test("a position in other data is refused", () => {
    const state = new Loader(dataset([8, 8]), shape, 1).state();
    const other = new Loader(dataset([8, 7]), { ...shape, sequenceLength: 9, microBatchTokens: 9 }, 1);
    expect(() => other.restore({ ...state, epoch: 2, row: 1 })).toThrow(
      "cannot continue at epoch 2, row 1: the data is not what it was at the checkpoint (sequenceLength was 8 and is 9; split, limit, filter, ",
    );
  });

  test("an evaluation passes once through the data, the last batch may be smaller", () => {
    const lengths = [8, 3, 8, 5, 8, 8, 8];
    const batches = [...evaluationBatches(dataset(lengths), { ...shape, gradientAccumulation: 2 })];
    expect(batches.map(({ tokens }) => tokens)).toEqual([32, 16]);
    expect(batches.map(({ passes }) => passes.length)).toEqual([1, 1]);
    const seen = batches.flatMap(({ passes }) =>
      passes.flat().flatMap((microBatch) => checkMicroBatch(microBatch, lengths)),
    );
    expect(seen.toSorted()).toEqual([0, 1, 2, 3, 4, 5, 6]);
  });
});

describe("weighted sources", () => {
  /** 40 documents of 5 tokens, 10 of 20, 30 of 10. */
  const lengths = [40, 10, 30].flatMap((count, i) => Array.from({ length: count }, () => [5, 20, 10][i]!));
  const weighted = (weights: [number, number, number]): Dataset => ({
    ...dataset(lengths),
    sources: [40, 10, 30].map((documents, i) => ({ documents, weight: weights[i]! })),
  });
  const epoch = (data: Dataset, seed: number, number: number) => [...epochDocuments(data, seed, number)];
  const sourceOf = (document: number) => (document < 40 ? 0 : document < 50 ? 1 : 2);

  test("have their shares of every epoch's tokens, and the scarcest is gone through once", () => {
    const data = weighted([1, 4, 3]); // 200, 200 and 300 tokens: the second is the scarcest
    for (let number = 0; number < 8; number++) {
      const tokens = [0, 0, 0];
      for (const d of epoch(data, 3, number)) tokens[sourceOf(d)]! += lengths[d]!;
      expect(tokens).toEqual([50, 200, 150]);
      expect(new Set(epoch(data, 3, number).filter((d) => sourceOf(d) === 1)).size).toBe(10);
    }
  });

  test("every document comes once before any comes again, across epochs", () => {
    const data = weighted([1, 4, 3]);
    const documents = [0, 1, 2, 3].flatMap((number) => epoch(data, 9, number));
    expect(documents.filter((d) => d < 40).sort((a, b) => a - b)).toEqual(Array.from({ length: 40 }, (_, d) => d));
    expect(documents.filter((d) => d >= 50)).toHaveLength(60);
    expect(new Set(documents).size).toBe(80);
  });

  test("the choice follows the seed", () => {
    const data = weighted([1, 1, 1]);
    expect(epoch(data, 1, 2)).toEqual(epoch(data, 1, 2));
    expect(epoch(data, 1, 2)).not.toEqual(epoch(data, 2, 2));
    expect(epoch(data, 1, 2)).not.toEqual(epoch(data, 1, 3));
  });

  test("a resumed loader goes on in the same order", () => {
    const data = weighted([1, 4, 3]);
    const shape = { sequenceLength: 40, batchSize: 3, microBatchTokens: 40, gradientAccumulation: 1 };
    const loader = new Loader(data, shape, 5);
    for (let step = 0; step < 7; step++) loader.next();
    const resumed = new Loader(data, shape, 5);
    resumed.restore(loader.state());
    expect(resumed.next()).toEqual(loader.next());
  });
});
