// The training state where it lives: for each block its parts (format.ts), in pieces that are copied and updated by one
// command each, with who wrote and read each piece last and how many updates the block has seen.

import { byPart, partBytes, partsOf, stateName, type PartName, type StateFormat, type StatePart } from "./format.ts";
import type { ParameterBlock } from "../models/parameters.ts";
import { Resource, type Range } from "../plan/plan.ts";
import { line, type Buffers } from "../plan/buffers.ts";

/** What of a step's shape decides what is kept, and where. */
interface StateShape {
  blocks: readonly ParameterBlock[];
  state: StateFormat;
  training: boolean;
  residentBlocks: number;
  chunkParameters: number;
}

/** Whether a layer's state stays on the device. */
export const isResident = ({ residentBlocks }: Pick<StateShape, "residentBlocks">, layer: number): boolean =>
  layer >= 0 && layer < residentBlocks;

/** Elements of a block. */
export interface Chunk {
  offset: number;
  count: number;
}

/** A block in pieces of at most `chunkParameters`, each a multiple of 64 elements. */
function chunksOf(block: ParameterBlock, chunkParameters: number): Chunk[] {
  const chunks: Chunk[] = [];
  for (let offset = 0; offset < block.length; offset += chunkParameters)
    chunks.push({ offset, count: Math.min(chunkParameters, block.length - offset) });
  return chunks;
}

/** A block's parameters, with the order of who reads and writes them. */
export class BlockParameters {
  readonly block: ParameterBlock;
  readonly chunks: (Chunk & { resource: Resource })[];
  /** Counts updates. */
  version = 0;
  readonly #parts: readonly StatePart[];
  readonly #ranges: Record<PartName, Range>;

  constructor(
    block: ParameterBlock,
    { state, training, chunkParameters }: StateShape,
    ranges: Record<PartName, Range>,
  ) {
    this.block = block;
    this.chunks = chunksOf(block, chunkParameters).map((chunk) => ({ ...chunk, resource: new Resource() }));
    this.#parts = partsOf(state, { training });
    this.#ranges = ranges;
  }

  /** These elements of every part, as the arguments of an update. */
  ranges({ offset, count }: Chunk): Record<PartName, Range> {
    return byPart(this.#parts, (part) =>
      this.#ranges[part.name].slice(partBytes(part, offset), partBytes(part, count)),
    );
  }

  /** All elements, padding included. */
  get whole(): Record<PartName, Range> {
    return this.#ranges;
  }

  /** Everything of the block, for readers of all of it. */
  get resources(): Resource[] {
    return this.chunks.map(({ resource }) => resource);
  }
}

/** The state of a model, block by block. */
export class State {
  /** By block: embedding, layers, head. */
  readonly blocks: readonly BlockParameters[];

  /** Per block, its parts. */
  static bill(shape: StateShape) {
    return shape.blocks.map((block) =>
      byPart(partsOf(shape.state, shape), (part) => {
        const tier = isResident(shape, block.layer) ? "device" : part.tier;
        const { purpose } = part;
        return line({ role: "state", tier, purpose }, stateName(block, part), partBytes(part, block.length));
      }),
    );
  }

  constructor(shape: StateShape, buffers: Buffers) {
    const held = buffers.held(State.bill(shape));
    this.blocks = shape.blocks.map((block, index) => new BlockParameters(block, shape, held[index]!));
  }

  get embedding(): BlockParameters {
    return this.blocks[0]!;
  }
  layer(layer: number): BlockParameters {
    return this.blocks[layer + 1]!;
  }
  get head(): BlockParameters {
    return this.blocks.at(-1)!;
  }

  /** Every part of every block by its name. */
  named(): Map<string, Range> {
    return new Map(this.blocks.flatMap(({ whole }) => Object.values(whole).map((range) => [range.buffer.name, range])));
  }

  /** Parameters were changed from outside: no copy of them is of use. */
  forget(): void {
    for (const parameters of this.blocks) parameters.version++;
  }
}
