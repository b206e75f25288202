// Where blocks compute: one workspace for whatever is used up at once, what each layer keeps for its backward pass, and the
// rotary tables.

import { rotaryTables, sameRotary, type BlockContext } from "../models/block.ts";
import { activationSizes, scratchSizes, type Chain } from "../models/parts/chain.ts";
import { headSizes } from "../models/parts/head.ts";
import type { Weights } from "../models/weights.ts";
import { alignBytes, totalBytes } from "../plan/layout.ts";
import type { Plan, Range } from "../plan/plan.ts";
import { line, type Buffers, type Kind } from "../plan/buffers.ts";
import { decoderBlocks, keepOf, keptBytes, type StepShape } from "../tiers/shape.ts";

export class Workspace {
  readonly #shape: StepShape;
  /** Activations and scratch of a block, or all that the head computes with. */
  readonly scratch: Range;
  /** Rotary tables, one for each kind. */
  readonly tables: Range;
  readonly #kept: Range | undefined;

  static bill(shape: StepShape) {
    const { model, tokensMax, dtype, logitsChunk, training } = shape;
    const blocks = decoderBlocks(shape).map(({ chain }) => blockBytes(chain, shape));
    const head = totalBytes(headSizes(model, tokensMax, logitsChunk, dtype));
    const tables = rotaryTables(shape.blocks, shape.positions).map(({ bytes }) => alignBytes(bytes));
    const kept = training ? keptBefore(shape, model.layers) : 0;
    const scratch: Kind = { role: "scratch", tier: "device", purpose: "workspace" };
    const table: Kind = { ...scratch, role: "table", purpose: "rope table" };
    const saved: Kind = { ...scratch, role: "saved", purpose: "kept activations" };
    return {
      scratch: line(scratch, "workspace", Math.max(...blocks.map(totalBytes), head)),
      tables: line(table, "rope table", sum(tables)),
      kept: kept > 0 ? line(saved, "kept", kept) : undefined,
    };
  }

  constructor(shape: StepShape, buffers: Buffers) {
    const held = buffers.held(Workspace.bill(shape));
    this.#shape = shape;
    this.scratch = held.scratch;
    this.tables = held.tables;
    this.#kept = held.kept;
  }

  /** What a layer computes one micro-batch with. */
  block(plan: Plan, layer: number, weights: Weights, microBatch: number): BlockContext {
    const { dtype, tokensMax, training, blocks, positions } = this.#shape;
    const bytes = blockBytes(weights.block.chain, this.#shape);
    const kept = training ? keptBytes(this.#shape, layer) : 0;
    return {
      plan,
      dtype,
      tokensMax,
      weights,
      keep: training ? keepOf(this.#shape, layer) : "recompute",
      kept: kept > 0 ? this.#kept!.slice(keptBefore(this.#shape, layer) + microBatch * kept, kept) : null,
      activations: this.scratch.slice(0, bytes.activations),
      scratch: this.scratch.slice(bytes.activations, bytes.scratch),
      rotaryTable: (rotary) => {
        const table = rotaryTables(blocks, positions).find((one) => sameRotary(one.rotary, rotary))!;
        return this.tables.slice(table.offset, table.bytes);
      },
    };
  }
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

const blockBytes = (chain: Chain, { tokensMax, dtype }: StepShape) => ({
  activations: totalBytes(activationSizes(chain, tokensMax, dtype)),
  scratch: totalBytes(scratchSizes(chain, tokensMax, dtype)),
});

/** What all layers below one keep: its own part begins there, one micro-batch behind the other. */
const keptBefore = (shape: StepShape, layer: number): number =>
  sum(Array.from({ length: layer }, (_, below) => shape.microBatches * keptBytes(shape, below)));
