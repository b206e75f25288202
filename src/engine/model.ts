// A model as a user has it: `load` reads a Hugging Face directory into `ModelWeights` and adds what can be asked of a model
// without training it: data in its tokens, the loss on some, answers. `Trainer` (trainer.ts) adds optimizer state and steps.
//
// Handles own native memory: `using model = await load(...)` or `model.close()` frees it.

import { availableParallelism } from "node:os";
import type { Batches, BatchShape } from "../data/batches.ts";
import { loadDataset, type Dataset, type DatasetOptions } from "../data/dataset.ts";
import { evaluationBatches, Loader } from "../data/loader.ts";
import { findSources, isFound, type DataInput, type FoundSources } from "../data/read/source.ts";
import { StreamLoader } from "../data/stream-loader.ts";
import { TokenStream, type StreamOptions } from "../data/stream.ts";
import type { ChatLoss } from "../data/text/chat.ts";
import type { Tokenizer } from "../data/text/tokenizer.ts";
import { loadTensors } from "../io/tensors.ts";
import { openModel } from "../models/open.ts";
import type { DeviceKind, Dtype } from "../native/abi.gen.ts";
import { chooseDevice } from "../native/choose.ts";
import { defaultDtype, dtypeProblem } from "../native/devices.ts";
import { Engine } from "../native/runtime.ts";
import { judge } from "../step/bill.ts";
import { inferenceShape, type DescribedModel } from "../tiers/shape.ts";
import { ConfigError, DataError } from "../words/errors.ts";
import { formatCount, parseSize } from "../words/format.ts";
import { remark } from "../words/remark.ts";
import { generate, type GenerateOptions, type Prompt } from "./generate.ts";
import type { ModelTensors } from "../io/safetensors.ts";
import { Session } from "./session.ts";
import { ModelWeights, targetsOf } from "./weights.ts";

/** Where and in which type a model computes. */
export interface LoadOptions {
  /** Default "auto": the GPU that is there and works, else the CPU. */
  device?: DeviceKind | "auto";
  /** What the device computes in; default "bfloat16" on GPUs, which have nothing else, and "float32" elsewhere. */
  dtype?: Dtype;
  /** Threads; default: as many as there are cores. */
  workers?: number;
  /** The most the device may hold: bytes, or a size such as "8GiB". */
  deviceMemory?: number | string;
  /** Reads this file instead of the directory's config.json. */
  configPath?: string;
  /** Looks at model and engine before memory is taken and weights are read; what it throws, `load` throws. */
  check?: (model: DescribedModel, engine: Engine) => void;
}

/** How data is read for a model; "assistant" unless `loss` says what is learned. */
type ModelData<Options> = Omit<Options, "loss"> & { loss?: ChatLoss };

/** Reads a Hugging Face model directory into host memory. ModelError says what is wrong with it; notes about it go to stderr. */
export async function load(directory: string, options: LoadOptions = {}): Promise<Model> {
  const device = options.device === undefined || options.device === "auto" ? chooseDevice().device : options.device;
  const { dtype = defaultDtype(device) } = options;
  const deviceBytesMax = bytesOfSize(options.deviceMemory);
  const wrongDtype = dtypeProblem(device, dtype);
  if (wrongDtype !== undefined) throw new ConfigError(wrongDtype);
  const opened = openModel(directory, options.configPath);
  for (const note of opened.notes) remark(note);
  const engine = new Engine({
    device,
    workers: options.workers ?? availableParallelism(),
    ...(deviceBytesMax === undefined ? {} : { deviceBytesMax }),
  });
  try {
    options.check?.({ config: opened.config, blocks: opened.blocks, dtype }, engine);
    const model = new Model(directory, opened.config, opened.blocks, engine, dtype);
    model.exportDtype = exportDtypeOf(opened);
    await loadTensors(engine, opened, targetsOf(model));
    return model;
  } catch (error) {
    engine.close();
    throw error;
  }
}

function bytesOfSize(size: number | string | undefined): number | undefined {
  const bytes = typeof size === "string" ? parseSize(size) : size;
  if (size !== undefined && !(bytes! > 0))
    throw new ConfigError(
      `deviceMemory must be a size such as "24GiB" or a number of bytes > 0 (was ${JSON.stringify(size)})`,
    );
  return bytes;
}

/** The number format that loses nothing of a model's files: bfloat16 where all of them are, else float32. */
const exportDtypeOf = ({ tensors }: ModelTensors): Model["exportDtype"] =>
  tensors.values().every(({ dtype }) => dtype === "BF16") ? "bfloat16" : "float32";

/** A model in memory, from `load`. Owns native memory until `close` or the end of a `using` scope. */
export class Model extends ModelWeights {
  /** Data as token documents for this model; `data` is a path, or a list of paths and sources. */
  async dataset(data: DataInput | FoundSources, options: ModelData<DatasetOptions>): Promise<Dataset> {
    return shownShort(await loadDataset(data, await this.#tokenizerFor(options), { loss: "assistant", ...options }));
  }

  /**
   * Data as a stream, whose first batch is there while the rest is still being tokenized, and which need not fit in memory.
   * `StreamLoader` makes batches of it; close it after use.
   */
  async stream(data: DataInput, options: ModelData<StreamOptions>): Promise<TokenStream> {
    const tokenizer = await this.#tokenizerFor(options);
    return TokenStream.open(await findSources(data), tokenizer, { loss: "assistant", ...options });
  }

  /** What `train` learns from: of a stream if the files are that large and no source has a weight, else of a dataset. */
  async batches(
    data: DataInput | FoundSources,
    { streamAbove, ...options }: ModelData<StreamOptions> & { streamAbove: number },
    shape: BatchShape & { seed: number },
  ): Promise<Batches> {
    const tokenizer = await this.#tokenizerFor(options);
    const found = isFound(data) ? data : await findSources(data);
    const streams = found.bytes >= streamAbove && found.sources.every(({ weight }) => weight === undefined);
    if (!streams)
      return new Loader(await loadDataset(found, tokenizer, { loss: "assistant", ...options }), shape, shape.seed);
    const stream = await TokenStream.open(found, tokenizer, { loss: "assistant", ...options });
    try {
      await stream.lengths(0); // what is wrong with the first lines is said before anything else happens
      return new StreamLoader(stream, shape, shape.seed);
    } catch (error) {
      await stream.close();
      throw error;
    }
  }

  /** The tokenizer, if the model can take what it is to be used for. */
  async #tokenizerFor({ sequenceLength }: { sequenceLength: number }): Promise<Tokenizer> {
    const { maxPositions } = this.config;
    if (sequenceLength > maxPositions)
      throw new DataError(
        `sequenceLength (${sequenceLength}) is longer than the model's ${maxPositions} positions; use at most ${maxPositions}`,
      );
    return await this.tokenizer();
  }

  /** Mean loss over all valid tokens of a dataset, nothing is changed. Needs no trainer and allocates its own buffers. */
  async loss(dataset: Dataset, options: BatchShape): Promise<{ loss: number; validTokens: number }> {
    await this.engine.idle(); // updates of a trainer's last step may still run
    using session = new Session(this, judge(inferenceShape(this, options), this.engine.limits()));
    return await session.evaluate(evaluationBatches(dataset, options));
  }

  /** Answers to prompts, in their order. A string is continued; messages are rendered by the chat template. */
  async generate(prompts: readonly Prompt[], options: GenerateOptions = {}): Promise<string[]> {
    await this.engine.idle();
    return generate(this, prompts, options);
  }
}

/** The dataset, which a REPL shows without its tokens. */
function shownShort(dataset: Dataset): Dataset {
  const { documents, tokens, validTokens } = dataset.report;
  const text = `Dataset(${formatCount(documents)} documents, ${formatCount(tokens)} tokens, ${formatCount(validTokens)} count)`;
  return Object.defineProperty(dataset, Bun.inspect.custom, { value: () => text });
}
