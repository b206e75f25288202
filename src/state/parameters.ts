// The training state where it lives: for each block its parts (format.ts), in pieces that are copied and updated by one
// command each, with who wrote and read each piece last and how many updates the block has seen.

import { partBytes, byPart, stateName, partsOf, type PartName, type StatePart } from "./format.ts";
import type { ParameterBlock } from "../models/parameters.ts";
import { Resource, type Range } from "../plan/plan.ts";
import type { Buffers } from "../tiers/bill.ts";
import type { StepShape } from "../tiers/shape.ts";

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

/** The parameters of a block where they live, with the order of who reads and writes them. */
export class BlockParameters {
  readonly block: ParameterBlock;
  readonly chunks: (Chunk & { resource: Resource })[];
  /** Counts updates. */
  version = 0;
  readonly #parts: readonly StatePart[];
  readonly #buffers: Buffers;

  constructor(block: ParameterBlock, shape: StepShape, buffers: Buffers) {
    this.block = block;
    this.chunks = chunksOf(block, shape.chunkParameters).map((chunk) => ({ ...chunk, resource: new Resource() }));
    this.#parts = partsOf(shape.state, { training: shape.training && shape.updates });
    this.#buffers = buffers;
  }

  /** These elements of every part, as the arguments of an update. */
  ranges(chunk: Chunk): Record<PartName, Range> {
    return byPart(this.#parts, (part) => this.#range(part, chunk));
  }

  /** All elements, padding included. */
  get whole(): Record<PartName, Range> {
    return this.ranges({ offset: 0, count: this.block.length });
  }

  #range(part: StatePart, { offset, count }: Chunk): Range {
    const name = stateName(this.block, part);
    return this.#buffers.range(name, partBytes(part, offset), partBytes(part, count));
  }

  /** Everything of the block, for readers of all of it. */
  get resources(): Resource[] {
    return this.chunks.map(({ resource }) => resource);
  }
}
