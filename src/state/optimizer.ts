// What AdamW does to each parameter of a step, as data: which ranges with which weight decay, in which chunks. Pure;
// `window.ts` decides when, and `zig/kernels/adamw.zig` does it.

import { decayRuns, type ParameterBlock } from "../models/parameters.ts";

/** The hyperparameters of one update. */
export interface AdamwStep {
  /** Counts from 1; bias correction uses it. */
  step: number;
  learningRate: number;
  beta1: number;
  beta2: number;
  epsilon: number;
}

/** A range of a block's parameters that is copied or updated by one command. */
export interface Chunk {
  /** In elements, within the block. */
  offset: number;
  count: number;
}

export interface UpdateRun extends Chunk {
  weightDecay: number;
}

/** A block in pieces of at most `chunkParameters`, each a multiple of 64 elements. */
export function chunksOf(block: ParameterBlock, chunkParameters: number): Chunk[] {
  const chunks: Chunk[] = [];
  for (let offset = 0; offset < block.length; offset += chunkParameters)
    chunks.push({ offset, count: Math.min(chunkParameters, block.length - offset) });
  return chunks;
}

/** The updates of one chunk: a run for each stretch of equal weight decay, none shorter than 64 elements. */
export function updateRuns(block: ParameterBlock, chunk: Chunk, decays: ReadonlyMap<string, number>): UpdateRun[] {
  const end = chunk.offset + chunk.count;
  return decayRuns(block, decays)
    .map((run) => {
      const offset = Math.max(run.offset, chunk.offset);
      return { offset, count: Math.min(run.offset + run.count, end) - offset, weightDecay: run.weightDecay };
    })
    .filter((run) => run.count > 0);
}
