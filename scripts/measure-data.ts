// bun scripts/measure-data.ts [--size 1GB] [--tokenizer DIR] [--workers 2] [--words N] [--directory DIR] [--json FILE]
//
// Streams a file of generated chats (the same for everybody: its words and lengths come from a seed) and says how long the first
// batch takes and all of it, in tokens a second; and how much memory this process, workers included, had at most. The cache is
// cold, the file itself was just written, so the system has it in memory as far as it can.
//
// Beside it stands what as many workers reach that do nothing but encode, warm, the first chats of that file, already
// rendered and sent to them: no reading, no parsing, no template, no labels, nothing stored. They encode with Hugging Face's
// tokenizer library for JavaScript, and once more with Sluice's encoder, which remembers words (src/data/text/encoder.ts).
//
// The chats have the words of the project's own pages, which are few, so whoever remembers words soon knows all. With --words they
// have so many made-up ones, of which the n-th is 1/n times as frequent as the first, as in a language: most new ones are rare.
//
// DIR of --directory is where file and cache go for the while.

import { createWriteStream, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ChatTemplate, type Message } from "../src/data/text/chat.ts";
import { findSources } from "../src/data/read/source.ts";
import { StreamLoader } from "../src/data/stream-loader.ts";
import { TokenStream } from "../src/data/stream.ts";
import { loadTokenizer, type Tokenizer } from "../src/data/text/tokenizer.ts";
import { ConfigError } from "../src/words/errors.ts";
import { formatBytes, formatCount, formatDuration, parseSize } from "../src/words/format.ts";
import { run } from "../src/cli/main.ts";
import { Random } from "../src/words/random.ts";
import type { Encoding } from "./bench/encode-worker.ts";
import { conditions, watchOthers } from "./bench/machine.ts";

const root = join(import.meta.dir, "..");
// Rows that hold every chat whole: tokens that are cut off would be work that nobody counts.
const shape = { sequenceLength: 8192, batchSize: 4, microBatchTokens: 8192, gradientAccumulation: 1 };
const SEED = 1;
/** Chats that each worker encodes: some five seconds of the library's work, or half a minute's where most words are rare. */
const CHATS_ALONE = 4000;

async function measure(): Promise<void> {
  const { values } = parseArgs({
    options: {
      size: { type: "string", default: "1GB" },
      tokenizer: { type: "string", default: join(root, "test/fixtures/tokenizer-qwen") },
      workers: { type: "string", default: "2" },
      words: { type: "string" },
      directory: { type: "string", default: tmpdir() },
      json: { type: "string" },
    },
  });
  const bytes = parseSize(values.size);
  const workers = Number(values.workers);
  if (bytes === undefined) throw new ConfigError(`--size must be a size such as 1GB (was ${values.size})`);
  if (!Number.isInteger(workers) || workers < 1 || workers > availableParallelism())
    throw new ConfigError(
      `--workers must be a whole number from 1 to ${availableParallelism()} (was ${values.workers})`,
    );
  const words = values.words === undefined ? pageWords() : madeUpWords(Number(values.words));
  const tokenizer = await loadTokenizer(values.tokenizer);
  const directory = mkdtempSync(join(values.directory, "sluice-data-"));
  process.env["XDG_CACHE_HOME"] = join(directory, "cache");
  try {
    const path = join(directory, "chats.jsonl");
    await writeChats(path, bytes, words);
    const where = conditions({ workers, device: "none" });
    console.log(`${where.date.slice(0, 16)} ${where.commit} · ${where.cpu}, ${where.cores} cores · ${workers} workers`);
    const others = watchOthers();
    const stream = await measureStream(path, tokenizer, workers);
    const alone = await measureAlone(tokenizer, workers, words);
    const result = { ...where, bytes: Bun.file(path).size, stream, alone, othersShare: others() };
    const rate = stream.tokens / stream.seconds;
    const share = ({ tokensPerSecond, processorSecondsPerToken }: Alone) =>
      `${((100 * rate) / tokensPerSecond).toFixed(0)} % by the clock, ` +
      `${((100 * processorSecondsPerToken) / stream.processorSecondsPerToken).toFixed(0)} % by processor time`;
    const again = await measureStream(path, tokenizer, workers);
    console.log(
      [
        `file              ${formatBytes(result.bytes)} of JSONL, ${formatCount(stream.tokens)} tokens`,
        `first batch       ${formatDuration(stream.firstBatchSeconds)} after the tokenizer was loaded`,
        `all tokenized     ${formatDuration(stream.seconds)}, ${formatCount(rate)} tokens/s, ${formatBytes(result.bytes / stream.seconds)}/s`,
        `processor time    ${(1e6 * stream.processorSecondsPerToken).toFixed(2)} µs a token`,
        `library alone     ${formatCount(alone.library.tokensPerSecond)} tokens/s in ${workers} workers; the stream does ${share(alone.library)}`,
        `encoding alone    ${formatCount(alone.own.tokensPerSecond)} tokens/s in ${workers} workers; the stream does ${share(alone.own)}`,
        `memory            ${formatBytes(stream.peakBytes)} at most, workers included`,
        `second start      first batch after ${formatDuration(again.firstBatchSeconds)}`,
        ...(result.othersShare === undefined
          ? []
          : [`other processes   took ${(100 * result.othersShare).toFixed(0)} % of the cores' time`]),
      ].join("\n"),
    );
    if (values.json !== undefined) await Bun.write(values.json, `${JSON.stringify({ ...result, again }, null, 2)}\n`);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function measureStream(path: string, tokenizer: Tokenizer, workers: number) {
  const processor = process.cpuUsage();
  const start = performance.now();
  const seconds = () => (performance.now() - start) / 1000;
  const settings = { sequenceLength: shape.sequenceLength, loss: "assistant", workers } as const;
  await using stream = await TokenStream.open(await findSources(path), tokenizer, settings);
  await new StreamLoader(stream, shape, 1).next();
  const firstBatchSeconds = seconds();
  await stream.ended();
  const { user, system } = process.cpuUsage(processor);
  const { tokens } = stream.report;
  return {
    firstBatchSeconds,
    seconds: seconds(),
    tokens,
    processorSecondsPerToken: (user + system) / 1e6 / tokens,
    peakBytes: process.resourceUsage().maxRSS * 1024,
  };
}

interface Alone {
  tokens: number;
  tokensPerSecond: number;
  processorSecondsPerToken: number;
}

/** Workers that do nothing but encode whole rendered chats, each way some seconds long. */
async function measureAlone(tokenizer: Tokenizer, workers: number, words: Words): Promise<Record<Encoding, Alone>> {
  const template = new ChatTemplate(tokenizer);
  const make = chats(new Random(SEED), words);
  const lists = Array.from({ length: workers }, () =>
    Array.from({ length: CHATS_ALONE }, () => template.render({ messages: make() }, { generationPrompt: false })),
  );
  const threads = lists.map(() => new Worker(new URL("./bench/encode-worker.ts", import.meta.url).href));
  const ask = (message: (index: number) => unknown) =>
    Promise.all(
      threads.map((thread, index) => {
        const answer = Promise.withResolvers<number>();
        thread.addEventListener("message", ({ data }: MessageEvent<number>) => answer.resolve(data), { once: true });
        thread.addEventListener("error", ({ message: text }) => answer.reject(new Error(text)), { once: true });
        thread.postMessage(message(index), []);
        return answer.promise;
      }),
    );
  await ask(() => ({ directory: tokenizer.directory }));
  const encode = async (by: Encoding): Promise<Alone> => {
    await ask((index) => ({ texts: lists[index]!.slice(0, 1000), by })); // warm
    const processor = process.cpuUsage();
    const start = performance.now();
    const tokens = (await ask((index) => ({ texts: lists[index]!, by }))).reduce((sum, count) => sum + count, 0);
    const seconds = (performance.now() - start) / 1000;
    const { user, system } = process.cpuUsage(processor);
    return { tokens, tokensPerSecond: tokens / seconds, processorSecondsPerToken: (user + system) / 1e6 / tokens };
  };
  const alone = { library: await encode("library"), own: await encode("own") };
  for (const thread of threads) thread.postMessage("stop", []);
  return alone;
}

/** Writes chats until the file has so many bytes. */
async function writeChats(path: string, bytes: number, words: Words): Promise<void> {
  const file = createWriteStream(path);
  const make = chats(new Random(SEED), words);
  for (let written = 0; written < bytes;) {
    const lines = Buffer.from(Array.from({ length: 500 }, () => `${JSON.stringify({ messages: make() })}\n`).join(""));
    written += lines.length;
    if (!file.write(lines)) await new Promise((resolve) => file.once("drain", resolve));
  }
  await new Promise<void>((resolve) => file.end(resolve));
}

/** So many words of a text. */
type Words = (random: Random, count: number) => string[];

/** The project's own pages, every seventh word. */
function pageWords(): Words {
  const words = readFileSync(join(root, "docs/training-step.md"), "utf8").split(/\s+/);
  return (random, count) => {
    const from = random.below(words.length);
    return Array.from({ length: count }, (_, i) => words[(from + i * 7) % words.length]!);
  };
}

function madeUpWords(count: number): Words {
  if (!Number.isInteger(count) || count < 1 || count > 1e7)
    throw new ConfigError(`--words must be a whole number from 1 to 10,000,000 (was ${count})`);
  const random = new Random(SEED);
  const letters = "etaoinshrdlucmfwygpbvk";
  const letter = () => letters[Math.min(random.below(letters.length), random.below(letters.length))]!;
  const words = Array.from({ length: count }, () => Array.from({ length: 2 + random.below(10) }, letter).join(""));
  // The logarithm of a rank is uniform where the n-th is 1/n times as frequent as the first.
  return (of, length) => Array.from({ length }, () => words[Math.floor(count ** of.uniform()) - 1]!);
}

/** Chats of one to four turns; most are short and some are long. */
function chats(random: Random, words: Words): () => Message[] {
  const text = (median: number) => {
    // The logarithm of a length is about normal: the sum of a few uniform numbers is.
    const spread = random.uniform() + random.uniform() + random.uniform() + random.uniform() - 2;
    return words(random, Math.max(1, Math.round(median * Math.exp(1.7 * spread)))).join(" ");
  };
  return () =>
    Array.from({ length: 1 + random.below(4) }, () => [
      { role: "user", content: text(25) },
      { role: "assistant", content: text(110) },
    ]).flat();
}

await run(measure);
