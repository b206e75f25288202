// Streamed data: every document is there once, in an order of the seed that neither the number of workers nor an
// interruption changes, from a first batch on that does not wait for the rest; and what goes wrong behind the scenes is said.

import { afterEach, beforeEach, describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { appendFileSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { loadDataset } from "../../src/data/dataset.ts";
import { readRange } from "../../src/data/read/files.ts";
import type { BatchShape, LoaderState, StepBatch } from "../../src/data/batches.ts";
import { findSources, type DataInput } from "../../src/data/read/source.ts";
import { StreamLoader } from "../../src/data/stream-loader.ts";
import { TokenStream, type StreamOptions } from "../../src/data/stream.ts";
import { dataCache } from "../../src/data/store/token-store.ts";
import { loadTokenizer } from "../../src/data/text/tokenizer.ts";
import type { DataError } from "../../src/words/errors.ts";
import { train, type DataRecord } from "../../src/index.ts";
import { readMetrics } from "../../src/keep/run-folder.ts";
import { Random } from "../../src/words/random.ts";
import { temporaryDirectory } from "../support/models.ts";
import { conversations, smallRun } from "../support/small-run.ts";

setDefaultTimeout(patiently(60_000)); // workers start slowly while other processes want the cores

const tokenizer = await loadTokenizer(join(import.meta.dir, "../fixtures/tokenizer-qwen"));
const cacheBefore = process.env["XDG_CACHE_HOME"];
let directory: ReturnType<typeof temporaryDirectory>;
let path: string;

beforeEach(async () => {
  directory = temporaryDirectory();
  process.env["XDG_CACHE_HOME"] = join(directory.path, "cache");
  path = join(directory.path, "data.jsonl");
  await Bun.write(path, samples(400));
});

afterEach(() => {
  directory[Symbol.dispose]();
  if (cacheBefore === undefined) delete process.env["XDG_CACHE_HOME"];
  else process.env["XDG_CACHE_HOME"] = cacheBefore;
});

/** Lines of some lengths; no two documents have the same tokens. */
function samples(count: number, seed = 5): string {
  const random = new Random(seed);
  return Array.from({ length: count }, (_, i) => {
    const words = Array.from({ length: 1 + random.below(30) }, () => `w${random.below(99)}é`).join(" ");
    const sample = i % 2 === 0 ? { text: `${i} ${words}` } : { prompt: `${i} `, completion: words };
    return `${JSON.stringify(sample)}\n`;
  }).join("");
}

const settings = { sequenceLength: 64, loss: "assistant" } as const;
const shape: BatchShape = { sequenceLength: 64, batchSize: 4, microBatchTokens: 128, gradientAccumulation: 1 };
const small: StreamOptions = { ...settings, taskBytes: 1000, firstPartTokens: 300, workers: 1 };

const open = async (input: DataInput = path, options: Partial<StreamOptions> = {}) =>
  TokenStream.open(await findSources(input), tokenizer, { ...small, ...options });

/** A cache that holds nothing. */
function emptyCache(): void {
  process.env["XDG_CACHE_HOME"] = join(directory.path, `cache-${Math.random()}`);
}

/** A stream's documents as text, labels included, part by part. */
async function partsOf(stream: TokenStream): Promise<string[][]> {
  const parts: string[][] = [];
  for (let index = 0; ; index++) {
    const part = await stream.part(index);
    if (part === undefined) return parts;
    parts.push(documents(part));
  }
}

function documents({ tokens, targets, starts }: { tokens: Int32Array; targets: Int32Array; starts: Int32Array }) {
  return Array.from({ length: starts.length - 1 }, (_, d) =>
    [tokens, targets].map((array) => array.subarray(starts[d], starts[d + 1]).join(" ")).join(" / "),
  );
}

/** The text of a document that `documents` gave. */
const textOf = (document: string) =>
  tokenizer.decode(document.split(" / ")[0]!.split(" ").map(Number), { skipSpecial: true });

const documentsOf = (batch: StepBatch) => batch.passes.flat().flatMap(documents);

describe("parts", () => {
  test("hold every document of the data once, and do not depend on workers or on what was there before", async () => {
    const whole = await loadDataset(path, tokenizer, settings);
    await using one = await open();
    const parts = await partsOf(one);
    expect(parts.length).toBeGreaterThan(5);
    expect(parts.flat().toSorted()).toEqual(documents(whole).toSorted());
    expect(one.report).toEqual(whole.report);
    expect(one.length).toBe(parts.length);

    emptyCache();
    await using two = await open(path, { workers: 2 });
    expect(await partsOf(two)).toEqual(parts);
    expect(two.digest).toBe(one.digest);

    emptyCache();
    const interrupted = await open();
    await interrupted.part(2);
    await interrupted.close();
    const [folder] = readdirSync(dataCache());
    const left = readdirSync(join(dataCache(), folder!)).sort();
    expect(left.length).toBeGreaterThanOrEqual(3);
    expect(left).not.toContain("about.json");
    const untouched = statSync(join(dataCache(), folder!, left[0]!)).mtimeMs;
    await using resumed = await open();
    expect(resumed.report.documents).toBeGreaterThan(0); // of what was there
    expect(await partsOf(resumed)).toEqual(parts);
    expect(resumed.report).toEqual(one.report);
    expect(statSync(join(dataCache(), folder!, left[0]!)).mtimeMs).toBe(untouched);
  });

  test("a second start tokenizes nothing", async () => {
    const first = await open();
    const parts = await partsOf(first);
    await first.close();
    const broken = Object.assign(Object.create(tokenizer), { encode: () => expect.unreachable() });
    await using second = await TokenStream.open(await findSources(path), broken, small);
    expect(second.length).toBe(parts.length);
    expect(await partsOf(second)).toEqual(parts);
  });

  test("the first are small and a mix of the whole file", async () => {
    await using stream = await open(path, { firstPartTokens: 600 });
    const parts = await partsOf(stream);
    const places = parts[0]!.map((document) => Number.parseInt(textOf(document), 10)).filter((place) => place >= 0);
    expect(Math.min(...places)).toBeLessThan(200);
    expect(Math.max(...places)).toBeGreaterThan(200);
    expect(parts[0]!.length).toBeLessThan(parts[1]!.length);
  });

  test("sources come mixed, those with settings too; what functions made is not kept", async () => {
    const other = join(directory.path, "other.csv");
    await Bun.write(
      other,
      `text\n${Array.from({ length: 200 }, (_, i) => `"row ${i} ${"x ".repeat(20)}"`).join("\n")}\n`,
    );
    const input = [path, { path: other, split: "[:50%]", map: (row: DataRecord) => ({ text: `${row["text"]}!` }) }];
    const whole = await loadDataset(input, tokenizer, settings);
    await using stream = await open(input);
    const parts = await partsOf(stream);
    expect(parts.flat().toSorted()).toEqual(documents(whole).toSorted());
    const rows = (part: string[]) => part.filter((document) => textOf(document).startsWith("row")).length;
    expect(rows(parts[1]!)).toBeGreaterThan(0);
    expect(rows(parts[1]!)).toBeLessThan(parts[1]!.length);
    await stream.close();
    expect(readdirSync(dataCache())).toEqual([]);
  });

  test("a part that was damaged is made again on the spot, a damaged head or end too", async () => {
    const first = await open();
    const parts = await partsOf(first);
    await first.close();
    const folder = join(dataCache(), readdirSync(dataCache())[0]!);
    const damage = (name: string, from: number) => {
      const bytes = readFileSync(join(folder, name));
      bytes[from < 0 ? bytes.length + from : from]! ^= 4;
      writeFileSync(join(folder, name), bytes);
    };
    damage("part-000001", -100);
    await using second = await open();
    expect(await partsOf(second)).toEqual(parts);
    damage("part-000002", 40);
    await using third = await open();
    expect(await partsOf(third)).toEqual(parts);
    damage("about.json", 40);
    await using fourth = await open();
    expect(await partsOf(fourth)).toEqual(parts);
    expect(fourth.report).toEqual(first.report);
  });
});

describe("batches", () => {
  test("every document once in an epoch; the order is the seed's", async () => {
    await using stream = await open();
    const all = (await partsOf(stream)).flat().toSorted();
    const epoch = async (loader: StreamLoader) => {
      const found: string[] = [];
      for (const now = Math.floor(loader.epochs); found.length < all.length;) {
        found.push(...documentsOf(await loader.next()));
        expect(loader.epochs).toBeGreaterThan(now);
      }
      return found;
    };
    const single = { ...shape, batchSize: 1 };
    const loader = new StreamLoader(stream, single, 7);
    const [first, second] = [await epoch(loader), await epoch(loader)];
    expect(first.toSorted()).toEqual(all);
    expect(second.toSorted()).toEqual(all);
    expect(second).not.toEqual(first);
    expect(loader.epochs).toBeCloseTo(2);
    expect(await epoch(new StreamLoader(stream, single, 7))).toEqual(first);
    expect(await epoch(new StreamLoader(stream, single, 8))).not.toEqual(first);
  });

  test("come before the rest is tokenized", async () => {
    await Bun.write(path, samples(20_000));
    await using stream = await open(path, { taskBytes: 20_000 });
    await new StreamLoader(stream, shape, 1).next();
    expect(stream.length).toBeUndefined();
    expect(stream.report.tokens).toBeLessThan(50_000);
  });

  test("a saved position leads to the same batches, in the middle of the stream and in later epochs", async () => {
    const loader = new StreamLoader(await open(), shape, 3);
    const seen: { state: ReturnType<StreamLoader["state"]>; batch: StepBatch }[] = [];
    while (loader.epochs < 2.5) seen.push({ state: loader.state(), batch: await loader.next() });
    const random = new Random(1);
    for (const workers of [1, 2]) {
      emptyCache(); // so that everything up to the position is tokenized once more
      const at = random.below(seen.length - 3);
      await using stream = await open(path, { workers });
      const resumed = new StreamLoader(stream, shape, 3);
      resumed.restore(JSON.parse(JSON.stringify(seen[at]!.state)));
      for (const { batch, state } of seen.slice(at, at + 3)) {
        expect(resumed.state()).toEqual(state);
        expect(await resumed.next()).toEqual(batch);
      }
    }
  });

  test("a position in other data is refused", async () => {
    await using stream = await open();
    const state = new StreamLoader(stream, shape, 3).state();
    expect(() => new StreamLoader(stream, shape, 4).restore(state)).toThrow(
      "the data is not what it was at the checkpoint (seed was 3 and is 4); put back what it was, or begin a new run with another --output",
    );
    appendFileSync(path, '{"text": "more"}\n');
    await using changed = await open();
    expect(() => new StreamLoader(changed, shape, 3).restore(state)).toThrow(`(${path} was written to at `);
  });

  test("a file that was edited at equal size is refused where the run had read it, whatever its times say", async () => {
    // Far more than the samples of 4 KiB that tell one file from another at once.
    await Bun.write(path, samples(1000));
    const { atime, mtime } = statSync(path);
    const first = await open();
    const loader = new StreamLoader(first, shape, 3);
    await loader.next();
    await first.ended();
    const state = JSON.parse(JSON.stringify(loader.state())) as LoaderState;
    expect(state.parts).toHaveLength(first.length!);
    await first.close();
    const text = readFileSync(path, "utf8");
    const edited = text.replaceAll(/(?<=w)\d(?=\dé)/g, "0");
    expect(edited.length).toBe(text.length);
    const middle = Math.floor(text.length / 6);
    writeFileSync(path, text.slice(0, middle) + edited.slice(middle, middle + 8000) + text.slice(middle + 8000));
    utimesSync(path, atime, mtime);
    await using second = await open();
    expect(second.digest).toBe(first.digest); // which does not see it
    const refuse = async () => {
      const resumed = new StreamLoader(second, shape, 3);
      resumed.restore(state);
      while (resumed.epochs < 1) await resumed.next();
    };
    await expect(refuse()).rejects.toThrow(`the data is not what it was at the checkpoint (${path} was written to at `);
    writeFileSync(path, text); // what it was, at another time
    await using third = await open();
    const resumed = new StreamLoader(third, shape, 3);
    resumed.restore(state);
    const undisturbed = new StreamLoader(third, shape, 3);
    await undisturbed.next();
    expect(await resumed.next()).toEqual(await undisturbed.next());
  });

  test("what had not been read at the checkpoint cannot be compared, and is remarked on", async () => {
    const first = await open();
    const state = new StreamLoader(first, shape, 3).state();
    await first.close();
    writeFileSync(path, samples(400));
    await using second = await open();
    const write = spyOn(process.stderr, "write").mockReturnValue(true);
    try {
      new StreamLoader(second, shape, 3).restore({ ...state, parts: [] });
      expect(write.mock.calls.join("")).toMatch(
        /data\.jsonl was written to at .+, its size is the same, after the checkpoint: /,
      );
    } finally {
      write.mockRestore();
    }
  });

  test("steps of an epoch: from a sample where bytes say how many there are, exact elsewhere", async () => {
    await Bun.write(path, samples(4000));
    const exact = async (stream: TokenStream) => {
      let steps = 0;
      for (const loader = new StreamLoader(stream, shape, 1); loader.epochs < 1; steps++) await loader.next();
      return steps;
    };
    await using uniform = await open(path, { firstPartTokens: 3000 });
    const steps = await new StreamLoader(uniform, shape, 1).stepsOf(1);
    expect(uniform.isUniform).toBe(true);
    const actual = await exact(uniform);
    expect(Math.abs(steps / actual - 1)).toBeLessThan(0.05);
    expect(await new StreamLoader(uniform, shape, 1).stepsOf(1)).toBe(steps); // also when all is known
    await using cut = await open([{ path, split: "[:30%]" }], { firstPartTokens: 3000 });
    expect(cut.isUniform).toBe(false);
    expect(Math.abs((await new StreamLoader(cut, shape, 1).stepsOf(1)) - (await exact(cut)))).toBeLessThanOrEqual(1);
  });
});

describe("what goes wrong", () => {
  const lines = () => readFileSync(path, "utf8").trimEnd().split("\n");

  test("bad lines have the number of their line, although nobody counts them", async () => {
    const bad = [50, 210, 399];
    await Bun.write(
      path,
      lines()
        .map((line, i) => (bad.includes(i + 1) ? '{"text": 3}' : line))
        .join("\n"),
    );
    await using stream = await open(path, { maxBadLines: 3 });
    await stream.ended();
    const { count, first } = stream.report.badLines!;
    expect(count).toBe(3);
    expect(first.toSorted()).toEqual(bad.map((line) => `${path}:${line}: text must be a string (was 3)`).toSorted());
    await using strict = await open();
    const message = await strict.ended().then(String, (error: DataError) => error.message);
    expect(first).toContain(message);
    await using share = await open(path, { maxBadLines: "0.5%" });
    await expect(share.ended()).rejects.toThrow(/3 of 400 lines are bad \(0\.75%\), maxBadLines is "0\.5%"/);
  });

  test("a file that changes under the run", async () => {
    await Bun.write(path, samples(20_000));
    await using stream = await open();
    await stream.part(0);
    appendFileSync(path, '{"text": "more"}\n');
    await expect(stream.ended()).rejects.toThrow(
      `${path}: was changed while it was read; start again when nobody writes to it`,
    );
  });

  test("nothing to learn, no samples, weights, a stream that was closed", async () => {
    await Bun.write(path, '{"prompt": "a b c d e f", "completion": "g"}\n'.repeat(3));
    await using nothing = await open(path, { sequenceLength: 2 });
    await expect(nothing.part(0)).rejects.toThrow("none of the 3 samples has a token that counts within 2 tokens");
    await Bun.write(path, "\n\n");
    await using empty = await open();
    await expect(empty.part(0)).rejects.toThrow("no samples; expected one JSON object per line");
    await expect(open([{ path, weight: 1 }])).rejects.toThrow("data with weights cannot be streamed");
    await Bun.write(path, samples(400));
    const closed = await open();
    await closed.close();
    await expect(closed.ended()).rejects.toThrow("the data stream is closed");
  });
});

test("ranges that lie end to end have every line once, however long", async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = new Random(seed);
    const lines = Array.from(
      { length: random.below(40) },
      (_, i) => `${i}${"x".repeat(random.below(seed < 10 ? 30 : 2000))}`,
    );
    const text = lines.join("\n") + (seed % 2 ? "\n" : "");
    await Bun.write(path, text);
    const { size, mtimeMs } = statSync(path);
    const blockBytes = 1 + random.below(100);
    const found: string[] = [];
    for (let from = 0; from < size; from += blockBytes) {
      const { lines: bytes, start } = readRange({ path, from, to: Math.min(size, from + blockBytes), size, mtimeMs });
      if (bytes.length === 0) continue;
      const piece = new TextDecoder().decode(bytes);
      expect(text.slice(start, start + piece.length)).toBe(piece);
      found.push(...piece.replace(/\n$/, "").split("\n"));
    }
    expect(found).toEqual(lines);
  }
});

describe("a run", () => {
  const losses = (output: string) =>
    readMetrics(output).steps.map(({ step, loss, tokens }) => ({ step, loss, tokens }));

  test("streams what is large, and resumes in the middle of it bit for bit", async () => {
    using run = smallRun();
    const config = { ...run.config, streamAbove: 1, steps: 8 };
    await Bun.write(config.data as string, conversations(200));
    const whole = await train(config);
    expect(run.printed()).toMatch(/data: [\d.]+ KiB streamed; so far 200 samples/);
    const output = join(run.path, "resumed");
    const stop = { onStep: ({ step }: { step: number }) => (step === 3 ? ("stop" as const) : undefined) };
    await train({ ...config, output }, stop);
    emptyCache();
    await train({ ...config, output, checkpoint: { resume: true } });
    expect(losses(output)).toEqual(losses(whole.output));
    const weights = (directory: string) => Bun.file(join(directory, "model/model.safetensors")).bytes();
    expect(await weights(output)).toEqual(await weights(whole.output));
  });

  test("says on resuming that what it is evaluated on has changed", async () => {
    using run = smallRun();
    const evaluationData = join(run.path, "held-out.jsonl");
    await Bun.write(evaluationData, conversations(4));
    const config = { ...run.config, evaluationData, steps: 2 };
    await train(config);
    const resume = { ...config, steps: 3, checkpoint: { resume: true } };
    await train(resume);
    expect(run.printed()).not.toContain("evaluationData is not");
    await Bun.write(evaluationData, conversations(5));
    await train({ ...resume, steps: 4 });
    expect(run.printed()).toMatch(
      /evaluationData is not what it was at step 3 \(\S+held-out\.jsonl was written to at .+, it had .+ and has .+\): evaluations from here on/,
    );
  });

  test("keeps a share of the data for evaluation", async () => {
    using run = smallRun();
    const write = spyOn(process.stderr, "write").mockReturnValue(true);
    try {
      const { evaluationAfter } = await train({ ...run.config, evaluationData: "10%", steps: 1 });
      expect(evaluationAfter).toBeGreaterThan(0);
      expect(write.mock.calls.join("")).toBe("3 samples, 10% of the data, are kept for evaluation\n");
      expect(run.printed()).toContain("data: 37 samples");
    } finally {
      write.mockRestore();
    }
  });

  test("ends after a checkpoint when the data goes wrong behind its back", async () => {
    using run = smallRun();
    const data = run.config.data as string;
    await Bun.write(data, conversations(20_000)); // seconds of work, of which the first steps need little
    const config = { ...run.config, streamAbove: 1, steps: 100_000 };
    const onStep = ({ step }: { step: number }) => void (step === 2 && appendFileSync(data, "\n"));
    await expect(train(config, { onStep })).rejects.toThrow("data.jsonl: was changed while it was read;");
    const { steps } = readMetrics(config.output);
    const [checkpoint] = readdirSync(join(config.output, "checkpoints"));
    expect(checkpoint).toEndWith(String(steps.at(-1)!.step));
  });
});
