// A model in memory: its split master weights in host memory, its tokenizer, and what can be done without training it.
// `load` reads a Hugging Face directory; `Trainer` (trainer.ts) adds optimizer state and steps; `generate.ts` answers.
//
// Handles own native memory: `using model = await load(...)` or `model.close()` frees it.

import { availableParallelism } from "node:os";
import { DataError, ModelError } from "./errors.ts";
import { evaluationBatches, type BatchShape, type StepBatch } from "./data/loader.ts";
import { loadDataset, type Dataset } from "./data/dataset.ts";
import { loadTokenizer, type Tokenizer } from "./data/tokenizer.ts";
import { formatCount } from "./format.ts";
import { loadTensors } from "./io/tensors.ts";
import { Buffers, checkBill, memoryBill, type BillLine, type StepShape } from "./memory.ts";
import { alignBytes } from "./models/decoder.ts";
import type { DecoderConfig } from "./models/config.ts";
import { openModel } from "./models/open.ts";
import { parameterCount, type ParameterBlock } from "./models/parameters.ts";
import { ropeTable } from "./models/rope.ts";
import type { DeviceKind, Dtype } from "./native/abi.gen.ts";
import { Engine, type Buffer } from "./native/runtime.ts";
import { Plan } from "./plan.ts";
import { StepRecorder, recordEvaluation, resultRange, type RecordedStep } from "./step.ts";

export interface LoadOptions {
  /** Default "cpu". */
  device?: DeviceKind;
  /** What the device computes in; default "float32". */
  dtype?: Dtype;
  /** Threads; default: as many as there are cores. */
  workers?: number;
  /** The most bytes the device may hold. */
  deviceMemory?: number;
  /** Reads this file instead of the directory's config.json. */
  configPath?: string;
}

/** Reads a Hugging Face model directory into host memory. ModelError says what is wrong with it. */
export async function load(directory: string, options: LoadOptions = {}): Promise<Model> {
  const opened = openModel(directory, options.configPath);
  const engine = new Engine({
    device: options.device ?? "cpu",
    workers: options.workers ?? availableParallelism(),
    ...(options.deviceMemory === undefined ? {} : { deviceBytesMax: options.deviceMemory }),
  });
  try {
    const model = new Model(directory, opened.config, opened.blocks, engine, options.dtype ?? "float32");
    const targets = opened.blocks.flatMap((block) =>
      block.tensors.map(({ name, offset, count }) => ({
        name,
        count,
        hi: model.state.get(`${block.name}.hi`)!.range(offset * 2, count * 2),
        lo: model.state.get(`${block.name}.lo`)!.range(offset * 2, count * 2),
      })),
    );
    await loadTensors(engine, opened, targets);
    return model;
  } catch (error) {
    engine.close();
    throw error;
  }
}

export class Model implements Disposable {
  readonly directory: string;
  readonly config: DecoderConfig;
  readonly blocks: ParameterBlock[];
  readonly engine: Engine;
  readonly dtype: Dtype;
  readonly parameters: number;
  /** Split masters (and, while training, moments) by name; `layer 3.hi`. */
  readonly state = new Map<string, Buffer>();
  #tokenizer: Tokenizer | undefined;

  /** Use `load`. */
  constructor(directory: string, config: DecoderConfig, blocks: ParameterBlock[], engine: Engine, dtype: Dtype) {
    this.directory = directory;
    this.config = config;
    this.blocks = blocks;
    this.engine = engine;
    this.dtype = dtype;
    this.parameters = parameterCount(blocks);
    for (const block of blocks) {
      this.state.set(`${block.name}.hi`, engine.buffer("pinned", block.length * 2, `${block.name}.hi`));
      this.state.set(`${block.name}.lo`, engine.buffer("host", block.length * 2, `${block.name}.lo`));
    }
  }

  /** The directory's tokenizer, read on first use. */
  async tokenizer(): Promise<Tokenizer> {
    if (!this.#tokenizer) {
      const tokenizer = await loadTokenizer(this.directory);
      const { vocabulary } = this.config;
      if (tokenizer.vocabularySize > vocabulary)
        throw new ModelError(
          `${this.directory}: the tokenizer has ${tokenizer.vocabularySize} tokens, the embedding ${vocabulary} rows; they belong to different models`,
        );
      this.#tokenizer = tokenizer;
    }
    return this.#tokenizer;
  }

  /** Data files as token documents for this model. */
  async dataset(paths: string | readonly string[], options: { sequenceLength: number; loss?: "assistant" | "all" }): Promise<Dataset> {
    const { sequenceLength, loss = "assistant" } = options;
    const { maxPositions } = this.config;
    if (sequenceLength > maxPositions)
      throw new DataError(`sequenceLength (${sequenceLength}) is longer than the model's ${maxPositions} positions; use at most ${maxPositions}`);
    return loadDataset(paths, await this.tokenizer(), { sequenceLength, loss });
  }

  /** Mean loss over all valid tokens of a dataset, nothing is changed. Needs no trainer and allocates its own buffers. */
  async loss(dataset: Dataset, options: BatchShape): Promise<{ loss: number; validTokens: number }> {
    using session = new Session(this, inferenceShape(this, options), new Map());
    return session.evaluate(evaluationBatches(dataset, options));
  }

  /** Moves weights to the device where `wanted` says so, and back to host memory elsewhere. */
  async setResident(wanted: (layer: number) => boolean): Promise<void> {
    for (const block of this.blocks) {
      const resident = wanted(block.layer);
      for (const [part, hostPlace] of [["hi", "pinned"], ["lo", "host"]] as const) {
        const name = `${block.name}.${part}`;
        const old = this.state.get(name)!;
        if ((old.place === "device") === resident) continue;
        const moved = this.engine.buffer(resident ? "device" : hostPlace, old.bytes, name);
        const plan = new Plan({ step: 0, phase: "load" });
        plan.record(resident ? "upload" : "download", "copy", { to: moved.range(), from: old.range() });
        await this.engine.play(plan);
        old.free();
        this.state.set(name, moved);
      }
      if (resident) this.#resident.add(block.layer);
      else this.#resident.delete(block.layer);
    }
  }
  #resident = new Set<number>();

  /** How many first layers live on the device. */
  get residentBlocks(): number {
    return this.#resident.size;
  }

  /** Frees everything, optimizer state of a trainer included. */
  close(): void {
    this.engine.close();
    this.state.clear();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  [Bun.inspect.custom](): string {
    const { layers, hidden, modelType } = this.config;
    return `Model(${modelType}, ${formatCount(this.parameters)} parameters, ${layers} layers × ${hidden}, ${this.dtype} on ${this.engine.device})`;
  }
}

/** Rows of logits at once: enough to keep the matrix unit busy, few enough to stay small beside a block. */
export function logitsChunkFor(tokensMax: number, vocabulary: number): number {
  const wanted = Math.max(16, Math.floor((64 << 20) / (vocabulary * 4)));
  return Math.min(Math.ceil(tokensMax / 16) * 16, Math.ceil(Math.min(wanted, 2048) / 16) * 16);
}

/** Micro-batch capacity, so that rows of any width start at multiples of 64 bytes. */
export const tokensMaxFor = (microBatchTokens: number): number => Math.ceil(microBatchTokens / 32) * 32;

/** The most micro-batches of a pass: whole rows, greedily laid end to end. */
export function microBatchesFor({ batchSize, gradientAccumulation, microBatchTokens, sequenceLength }: BatchShape): number {
  return Math.ceil(batchSize / gradientAccumulation / Math.floor(microBatchTokens / sequenceLength));
}

/** A shape for forward passes alone. */
export function inferenceShape(model: Model, options: BatchShape, slots = 2): StepShape {
  const tokensMax = tokensMaxFor(options.microBatchTokens);
  return {
    config: model.config,
    blocks: model.blocks,
    dtype: model.dtype,
    training: false,
    tokensMax,
    microBatches: microBatchesFor({ ...options, gradientAccumulation: 1 }),
    passes: 1,
    positions: options.sequenceLength,
    slots,
    boundary: "pinned",
    keepBlocks: 0,
    residentBlocks: model.residentBlocks,
    ring: 0,
    clips: false,
    logitsChunk: logitsChunkFor(tokensMax, model.config.vocabulary),
    chunkParameters: chunkParametersDefault,
  };
}

/** 4 Mi parameters: 16 to 64 MB a command, long enough to amortise it and short enough to overlap. */
export const chunkParametersDefault = 4 << 20;

/** Buffers of a shape beside the model's own, and a recorder over them; freed together. */
export class Session implements Disposable {
  readonly model: Model;
  readonly shape: StepShape;
  readonly bill: BillLine[];
  readonly buffers: Buffers<Buffer>;
  readonly recorder: StepRecorder;
  #own: Buffer[] = [];

  /** `decays`: weight decay per tensor, when training. MemoryError when the bill is above the device's limit. */
  constructor(model: Model, shape: StepShape, decays: ReadonlyMap<string, number>) {
    this.model = model;
    this.shape = shape;
    this.bill = memoryBill(shape);
    checkBill(this.bill, model.engine.deviceBytesMax);
    const { engine } = model;
    try {
      this.buffers = Buffers.make(this.bill, (line) => model.state.get(line.name) ?? this.#make(line));
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
    const windows = new Map<string, ArrayBuffer>();
    const write = (buffer: string, offset: number, values: Int32Array): void => {
      let window = windows.get(buffer);
      if (!window) windows.set(buffer, (window = this.buffers.get(buffer).window()));
      new Int32Array(window, offset, values.length).set(values);
    };
    this.recorder = new StepRecorder(shape, this.buffers, decays, engine.device === "null" ? () => {} : write);
  }

  #make({ place, bytes, name }: BillLine): Buffer {
    const buffer = this.model.engine.buffer(place, bytes, name);
    this.#own.push(buffer);
    return buffer;
  }

  /** Fills what no step writes: the rotary table, and the factor of unclipped updates. Before the first plan. */
  async prepare(): Promise<void> {
    if (this.#prepared || this.model.engine.device === "null") return;
    this.#prepared = true;
    const table = ropeTable(this.shape.config, this.shape.positions);
    const staging = this.model.engine.buffer("pinned", alignBytes(table.byteLength), "rope table staging");
    new Float32Array(staging.window(0, table.byteLength)).set(table);
    const plan = new Plan({ step: 0, phase: "load" });
    plan.record("upload", "copy", { to: this.buffers.range("rope table"), from: staging.range() });
    await this.model.engine.play(plan);
    staging.free();
    if (this.buffers.has("unit factor")) new Float64Array(this.buffers.get("unit factor").window())[0] = 1;
  }
  #prepared = false;

  /** Mean loss over batches; every batch may have at most the shape's micro-batches. */
  async evaluate(batches: Iterable<StepBatch>, step = 0): Promise<{ loss: number; validTokens: number }> {
    await this.prepare();
    let sum = 0;
    let validTokens = 0;
    for (const { passes, validTokens: valid } of batches) {
      for (const microBatches of passes) {
        const recorded = recordEvaluation(this.recorder, step, microBatches);
        this.model.engine.submit(recorded.plan);
        await this.model.engine.done(recorded.measured);
        sum += this.lossSum(recorded);
      }
      validTokens += valid;
    }
    return { loss: sum / validTokens, validTokens };
  }

  /** Sum of the losses of a finished step. */
  lossSum({ parity, totals }: RecordedStep): number {
    const range = resultRange(this.shape, this.buffers, parity)("totals");
    const values = new Float64Array(this.buffers.get(range.buffer.name).window(range.offset, range.bytes));
    return totals.reduce((sum, index) => sum + values[index * 8]!, 0);
  }

  /** Norm of a finished training step's gradient, before clipping. */
  gradNorm({ parity }: RecordedStep): number {
    const range = resultRange(this.shape, this.buffers, parity)("factor");
    return new Float64Array(this.buffers.get(range.buffer.name).window(range.offset, 16))[1]!;
  }

  [Symbol.dispose](): void {
    for (const buffer of this.#own) buffer.free();
    this.#own = [];
  }
}
