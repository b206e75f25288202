// A model in memory: its split master weights in host memory, or on the device where blocks are resident, and its tokenizer.
// What is done with it lies beside it: `session.ts` and `trainer.ts` compute, `generate.ts` answers, `keep/` writes it down.

import { loadTokenizer, type Tokenizer } from "../data/text/tokenizer.ts";
import type { SplitTarget } from "../io/tensors.ts";
import { companionsOf, type Companions } from "../models/companions.ts";
import type { DecoderConfig } from "../models/config.ts";
import { parameterCount, type ParameterBlock } from "../models/parameters.ts";
import type { Dtype } from "../native/abi.gen.ts";
import type { NativeBuffer, Engine } from "../native/runtime.ts";
import { Plan, type Range } from "../plan/plan.ts";
import { byPart, formatDefault, partBytes, partsOf, stateName, type PartName } from "../state/format.ts";
import type { Chunk } from "../state/parameters.ts";
import { formatCount } from "../words/format.ts";

/** What every format has of them. */
const masterParts = partsOf(formatDefault, { training: false });

/** Where a model's tensors are read to. */
export const targetsOf = (model: ModelWeights): SplitTarget[] =>
  model.blocks.flatMap((block) =>
    block.tensors.map(({ name, offset, count }) => ({
      name,
      count,
      part: (first, length) => model.masters(block, { offset: offset + first, count: length }),
    })),
  );

/** A model's weights and tokenizer. Owns native memory until `close` or the end of a `using` scope. */
export class ModelWeights implements Disposable {
  readonly directory: string;
  readonly config: DecoderConfig;
  readonly blocks: ParameterBlock[];
  readonly engine: Engine;
  readonly dtype: Dtype;
  readonly parameters: number;
  /** Split masters by the names of their buffers; `layer 3.hi`. */
  readonly state = new Map<string, NativeBuffer>();
  /** Tokenizer and other files that an export passes on, as they were when the model was loaded. */
  readonly companions: Companions;
  /** What an export is written in unless it is said: what the files that were loaded are in. */
  exportDtype: "bfloat16" | "float32" = "bfloat16";
  #tokenizer: Tokenizer | undefined;

  /** Use `load`. */
  constructor(directory: string, config: DecoderConfig, blocks: ParameterBlock[], engine: Engine, dtype: Dtype) {
    this.directory = directory;
    this.config = config;
    this.blocks = blocks;
    this.engine = engine;
    this.dtype = dtype;
    this.parameters = parameterCount(blocks);
    this.companions = companionsOf(directory);
    for (const block of blocks)
      for (const part of masterParts) {
        const name = stateName(block, part);
        this.state.set(name, engine.buffer(part.tier, partBytes(part, block.length), name));
      }
  }

  /** These elements of a block's masters, where they are at the moment. */
  masters(block: ParameterBlock, { offset, count }: Chunk): Record<PartName, Range> {
    return byPart(masterParts, (part) =>
      this.state.get(stateName(block, part))!.range(partBytes(part, offset), partBytes(part, count)),
    );
  }

  /** The directory's tokenizer, read on first use. */
  async tokenizer(): Promise<Tokenizer> {
    if (!this.#tokenizer) {
      const tokenizer = await loadTokenizer(this.directory);
      tokenizer.limitTo(this.config.vocabulary);
      this.#tokenizer = tokenizer;
    }
    return this.#tokenizer;
  }

  /** Moves weights to the device where `wanted` says so, and back to host memory elsewhere. */
  async setResident(wanted: (layer: number) => boolean): Promise<void> {
    for (const block of this.blocks) {
      const resident = wanted(block.layer);
      for (const part of masterParts) {
        const name = stateName(block, part);
        const old = this.state.get(name)!;
        if ((old.tier === "device") === resident) continue;
        const moved = this.engine.buffer(resident ? "device" : part.tier, old.bytes, name);
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
    return `Model(${modelType}, ${formatCount(this.parameters)} parameters, ${layers} layers × ${hidden}, ${this.dtype} on ${this.engine.device}${this.state.size > 0 ? "" : ", closed"})`;
  }
}
