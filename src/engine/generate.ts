// Generation: greedy or sampled answers to a batch of prompts, with the key/value cache on the device.
//
// The blocks slide through the window here as they do in training, once per token and for all sequences together, so a
// model that does not fit costs an upload per token and a larger batch costs almost nothing. When the device has room for
// all blocks, they are uploaded once. Prompts are read in pieces of at most `prefillTokens`; a sequence that has ended
// keeps its place in the cache and brings no more tokens.

import { judge, memoryBill } from "../step/bill.ts";
import { decoderBlocks, inferenceShape, type StepShape } from "../tiers/shape.ts";
import { ChatTemplate, encodePrompt, type Message } from "../data/text/chat.ts";
import type { MicroBatch } from "../data/batches.ts";
import { ConfigError, MemoryError, ModelError } from "../words/errors.ts";
import { formatBytes } from "../words/format.ts";
import { bytesIn } from "../tiers/bill.ts";
import type { ModelWeights } from "./weights.ts";
import { headLogits } from "../models/parts/head.ts";
import { alignBytes, bytesOf, totalBytes } from "../plan/layout.ts";
import type { NativeBuffer } from "../native/runtime.ts";
import { Plan, Resource, type Range } from "../plan/plan.ts";
import { Random } from "../words/random.ts";
import { Session } from "./session.ts";
import { forward } from "../step/step.ts";
import { toFloat32 } from "./logits.ts";
import { stopsOf } from "./stops.ts";

/** Text to continue, or a conversation to answer. */
export type Prompt = string | readonly Message[];

/** What `generate` may be told. ConfigError when a value is out of its range. */
export interface GenerateOptions {
  /** The most tokens an answer may have; default 256. */
  maxTokens?: number;
  /** 0 (default) is greedy. */
  temperature?: number;
  /** Sample from the smallest set of tokens with this much probability; default 1. */
  topP?: number;
  /** For sampling; default 1. */
  seed?: number;
  /** The most sequences at a time; default 32, fewer when the cache would not fit. */
  batchSize?: number;
  /** Called with every new piece of text; `index` is the prompt's. Together they are the answer, if that is valid UTF-8. */
  onText?: (index: number, text: string) => void;
}

const prefillTokens = 256;

interface Sequence {
  index: number;
  /** Tokens that are not in the cache yet: the rest of the prompt, then each token as it is chosen. */
  pending: number[];
  cached: number;
  answer: number[];
  /** Characters of the answer that `onText` has been given. */
  told: number;
  random: Random;
  done: boolean;
}

/** Answers to prompts, in their order; see `Model.generate`. */
export async function generate(
  model: ModelWeights,
  prompts: readonly Prompt[],
  options: GenerateOptions,
): Promise<string[]> {
  const { maxTokens = 256, batchSize = 32, seed = 1 } = options;
  checkOptions(options);
  const tokenizer = await model.tokenizer();
  const { named, learned } = stopsOf(model, tokenizer);
  let template: ChatTemplate | undefined;
  const sequences = prompts.map((prompt, index): Sequence => {
    const pending =
      typeof prompt === "string"
        ? tokenizer.encode(prompt, { special: true })
        : encodePrompt((template ??= new ChatTemplate(tokenizer)), tokenizer, { messages: [...prompt] });
    const room = model.config.maxPositions - pending.length;
    if (pending.length === 0) throw new ModelError(`prompt ${index} has no tokens`);
    if (room < 1)
      throw new ModelError(
        `prompt ${index} has ${pending.length} tokens, the model has ${model.config.maxPositions} positions; shorten it`,
      );
    return { index, pending, cached: 0, answer: [], told: 0, random: new Random(seed, index), done: false };
  });
  // Sequences of like length share a batch, so that the cache is not made for the longest of all.
  const order = [...sequences].sort((a, b) => a.pending.length - b.pending.length);
  for (let first = 0; first < order.length;) {
    const wanted = order.slice(first, first + batchSize);
    const { shape, count, capacity } = shapeFor(model, wanted, maxTokens);
    using generator = new Generator(model, shape, count, capacity);
    await generator.run(wanted.slice(0, count), (sequence, logits) => {
      const token = choose(logits, options, sequence.random);
      // Every comparison with NaN is false, so that damaged weights would answer with token 0 for ever.
      if (!Number.isFinite(logits[token]))
        throw new ModelError(
          `prompt ${sequence.index}: the logits are not finite (${logits[token]}); the model's weights are damaged`,
        );
      const ended = named.has(token) || (token === learned && typeof prompts[sequence.index] !== "string");
      if (!ended) sequence.answer.push(token);
      sequence.done = ended || sequence.answer.length === maxTokens || sequence.cached + 1 >= model.config.maxPositions;
      if (!sequence.done) sequence.pending = [token];
      if (!options.onText) return;
      // A character may need several tokens: text is passed on once it decodes, and all of it at the end.
      const text = tokenizer.decode(sequence.answer, { skipSpecial: true });
      if (text.endsWith("\ufffd") && !sequence.done) return;
      if (text.length > sequence.told) options.onText(sequence.index, text.slice(sequence.told));
      sequence.told = text.length;
    });
    first += count;
  }
  return sequences.map(({ answer }) => tokenizer.decode(answer, { skipSpecial: true }));
}

function checkOptions({ maxTokens = 1, batchSize = 1, temperature = 0, topP = 1, seed = 0 }: GenerateOptions): void {
  const must = (holds: boolean, name: string, what: string, value: number): void => {
    if (!holds) throw new ConfigError(`${name} must be ${what} (was ${value})`);
  };
  must(Number.isInteger(maxTokens) && maxTokens >= 1, "maxTokens", "a whole number >= 1", maxTokens);
  must(Number.isInteger(batchSize) && batchSize >= 1, "batchSize", "a whole number >= 1", batchSize);
  must(Number.isInteger(seed) && seed >= 0, "seed", "a whole number >= 0", seed);
  must(temperature >= 0 && temperature < Infinity, "temperature", "a number >= 0", temperature);
  must(topP > 0 && topP <= 1, "topP", "a number > 0 and <= 1", topP);
  if (temperature === 0 && topP < 1)
    throw new ConfigError(`topP (${topP}) has no effect at temperature 0, which is greedy; set a temperature`);
}

/** As many sequences, and then as many slots, as fit on the device beside each other. */
function shapeFor(
  model: ModelWeights,
  wanted: readonly Sequence[],
  maxTokens: number,
): { shape: StepShape; count: number; capacity: number } {
  const { layers, maxPositions } = model.config;
  const limit = model.engine.deviceBytesMax - model.engine.held().device;
  for (let count = wanted.length; ; count = Math.floor(count / 2)) {
    const longest = Math.max(...wanted.slice(0, count).map(({ pending }) => pending.length));
    const capacity = Math.min(longest + maxTokens, maxPositions);
    const tokens = Math.max(
      count,
      Math.min(
        prefillTokens,
        wanted.slice(0, count).reduce((sum, { pending }) => sum + pending.length, 0),
      ),
    );
    const batch = {
      sequenceLength: capacity,
      batchSize: 1,
      microBatchTokens: Math.max(tokens, capacity),
      gradientAccumulation: 1,
    };
    const shape = { ...inferenceShape(model, batch), tokensMax: Math.ceil(tokens / 32) * 32 };
    const needed = (slots: number): number => {
      const bill = memoryBill({ ...shape, slots }).filter(({ role }) => role !== "state");
      return bytesIn(bill, "device") + totalCacheBytes(shape, count, capacity);
    };
    if (needed(2) > limit) {
      if (count > 1) continue;
      throw new MemoryError(
        `deviceMemory: generation needs ${formatBytes(needed(2))} on the device for one sequence of ${capacity} tokens, ${formatBytes(limit)} are free; reduce maxTokens or the prompt`,
      );
    }
    let slots = 2;
    while (slots < layers && needed(slots + 1) <= limit) slots++;
    return { shape: { ...shape, slots }, count, capacity };
  }
}

/** Bytes of each kind of cache, and where each layer's lies in it: what its parts ask for. */
function cachePlaces(shape: StepShape, sequences: number, capacity: number) {
  const totals: Record<string, number> = {};
  const layers = decoderBlocks(shape).map(({ chain }) => {
    const places: Record<string, { offset: number; bytes: number }> = {};
    for (const { part } of chain.links)
      for (const [name, elements] of Object.entries(part.cache?.(capacity) ?? {})) {
        const bytes = sequences * elements * bytesOf(shape.dtype);
        places[name] = { offset: totals[name] ?? 0, bytes };
        totals[name] = places[name].offset + alignBytes(bytes);
      }
    return places;
  });
  return { totals, layers };
}

const totalCacheBytes = (shape: StepShape, sequences: number, capacity: number): number =>
  totalBytes(cachePlaces(shape, sequences, capacity).totals) +
  alignBytes(sequences * 4) +
  alignBytes(sequences * shape.model.vocabulary * bytesOf(shape.dtype));

const mapValues = <A, B>(record: Record<string, A>, map: (value: A, name: string) => B): Record<string, B> =>
  Object.fromEntries(Object.entries(record).map(([name, value]) => [name, map(value, name)]));

/** One batch of sequences with its cache. */
class Generator implements Disposable {
  #session: Session;
  #sequences: number;
  #capacity: number;
  #own: NativeBuffer[] = [];
  /** By layer and kind. */
  #caches: Record<string, Range>[];
  #lengths: { device: NativeBuffer; staging: NativeBuffer; resource: Resource };
  #logits: { device: NativeBuffer; pinned: NativeBuffer; resource: Resource };

  constructor(model: ModelWeights, shape: StepShape, sequences: number, capacity: number) {
    this.#session = new Session(model, judge(shape, model.engine.limits()));
    this.#sequences = sequences;
    this.#capacity = capacity;
    const make = (tier: "device" | "pinned", bytes: number, name: string): NativeBuffer => {
      const buffer = model.engine.buffer(tier, bytes, name);
      this.#own.push(buffer);
      return buffer;
    };
    const { totals, layers } = cachePlaces(shape, sequences, capacity);
    const caches = mapValues(totals, (bytes, name) => make("device", bytes, `${name} cache`));
    this.#caches = layers.map((places) =>
      mapValues(places, ({ offset, bytes }, name) => caches[name]!.range(offset, bytes)),
    );
    const logits = alignBytes(sequences * shape.model.vocabulary * bytesOf(shape.dtype));
    this.#lengths = {
      device: make("device", alignBytes(sequences * 4), "cached lengths"),
      staging: make("pinned", alignBytes(sequences * 4), "cached lengths staging"),
      resource: new Resource(),
    };
    this.#logits = {
      device: make("device", logits, "logits"),
      pinned: make("pinned", logits, "logits"),
      resource: new Resource(),
    };
  }

  /** Runs until every sequence is done; `next` is given the logits (V) of a sequence whose pending tokens are all in. */
  async run(sequences: readonly Sequence[], next: (sequence: Sequence, logits: Float32Array) => void): Promise<void> {
    await this.#session.prepare();
    while (sequences.some(({ done }) => !done)) {
      const { batch, ready } = this.#round(sequences);
      new Int32Array(this.#lengths.staging.view(), 0, sequences.length).set(sequences.map(({ cached }) => cached));
      const counts = sequences.map((_, b) => batch.starts[b + 1]! - batch.starts[b]!);
      const logits = await this.#forward(batch, ready.length);
      for (const [b, sequence] of sequences.entries()) {
        sequence.cached += counts[b]!;
        sequence.pending.splice(0, counts[b]!);
      }
      const { vocabulary } = this.#session.shape.model;
      for (const [row, sequence] of ready.entries())
        next(sequence, logits.subarray(row * vocabulary, (row + 1) * vocabulary));
    }
  }

  /** What each sequence brings this time, and which of them bring their last pending token. */
  #round(sequences: readonly Sequence[]): { batch: MicroBatch; ready: Sequence[] } {
    let left = this.#session.shape.tokensMax;
    const [tokens, targets, positions, starts]: number[][] = [[], [], [], [0]] as [
      number[],
      number[],
      number[],
      number[],
    ];
    const ready: Sequence[] = [];
    for (const sequence of sequences) {
      const count = sequence.done ? 0 : Math.min(left, sequence.pending.length);
      left -= count;
      for (let i = 0; i < count; i++) {
        const last = i === sequence.pending.length - 1;
        tokens!.push(sequence.pending[i]!);
        positions!.push(sequence.cached + i);
        targets!.push(last ? 0 : -100); // a row that counts is a row whose logits are wanted
        if (last) ready.push(sequence);
      }
      starts!.push(tokens!.length);
    }
    const ints = (values: number[]): Int32Array => Int32Array.from(values);
    const batch = {
      tokens: ints(tokens!),
      targets: ints(targets!),
      positions: ints(positions!),
      starts: ints(starts!),
    };
    return { batch, ready };
  }

  async #forward(batch: MicroBatch, rows: number): Promise<Float32Array> {
    const { recorder, shape, model } = this.#session;
    const { inputs } = recorder;
    const plan = new Plan({ step: 0, phase: "generate", block: "embedding" });
    const staged = inputs.stage(recorder.side, [[batch]]);
    inputs.upload(plan, recorder.side);
    const { device: lengths, staging, resource } = this.#lengths;
    plan.record("upload", "copy", { to: lengths.range(), from: staging.range() }, { writes: [resource] });
    const bytes = rows * shape.model.vocabulary * bytesOf(shape.dtype);
    const logits = this.#logits;
    forward(recorder, plan, { step: 0, phase: "generate" }, staged, {
      store: false,
      cache: {
        of: (layer) => ({
          ranges: this.#caches[layer]!,
          lengths: lengths.range(0, this.#sequences * 4),
          capacity: this.#capacity,
        }),
        resource,
      },
      head:
        rows === 0
          ? undefined
          : (context, x, tokens) => {
              plan.acquire(logits.resource, "write");
              headLogits(context, x, logits.device.range(0, bytes), tokens);
            },
    });
    plan.settle(inputs.resource, "read");
    if (rows > 0) {
      plan.settle(logits.resource, "write");
      const args = { to: logits.pinned.range(0, bytes), from: logits.device.range(0, bytes) };
      plan.record("download", "copy", args, { reads: [logits.resource] });
    }
    await model.engine.play(plan);
    return rows > 0 ? toFloat32(this.#logits.pinned.view(0, bytes), shape.dtype === "bfloat16") : new Float32Array(0);
  }

  [Symbol.dispose](): void {
    for (const buffer of this.#own) buffer.free();
    this.#session[Symbol.dispose]();
  }
}

/** The next token: the largest logit, or a sample from the nucleus. */
export function choose(
  logits: Float32Array,
  options: Pick<GenerateOptions, "temperature" | "topP">,
  random: Random,
): number {
  const { temperature = 0, topP = 1 } = options;
  let best = 0;
  for (let token = 1; token < logits.length; token++) if (logits[token]! > logits[best]!) best = token;
  if (temperature === 0) return best;
  const weights = Array.from(logits, (logit, token) => ({
    token,
    weight: Math.exp((logit - logits[best]!) / temperature),
  }));
  weights.sort((a, b) => b.weight - a.weight);
  const total = weights.reduce((sum, { weight }) => sum + weight, 0);
  let kept = 0;
  let mass = 0;
  while (kept < weights.length && mass < topP * total) mass += weights[kept++]!.weight;
  let point = random.uniform() * mass;
  for (const { token, weight } of weights.slice(0, kept)) if ((point -= weight) < 0) return token;
  return weights[kept - 1]!.token;
}
