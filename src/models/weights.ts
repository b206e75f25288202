// A block's parameters and their gradients on the device: flat ranges, whose groups are found by name.

import type { Dtype } from "../native/abi.gen.ts";
import { bytesOf } from "../plan/layout.ts";
import type { Range } from "../plan/plan.ts";
import { groupOf, vectorsOffset, type ParameterBlock, type ParameterGroup } from "./parameters.ts";

export class Weights {
  readonly block: ParameterBlock;
  readonly range: Range;
  readonly elementBytes: number;

  constructor(block: ParameterBlock, range: Range, elementBytes: number) {
    this.block = block;
    this.range = range;
    this.elementBytes = elementBytes;
  }

  group(name: string): Range {
    const { offset, count } = groupOf(this.block, name);
    return this.range.slice(offset * this.elementBytes, count * this.elementBytes);
  }

  optional(name: string): Range | null {
    return this.block.groups.has(name) ? this.group(name) : null;
  }
}

/**
 * Where a block's gradients go. Those of vectors are always float32 sums; those of matrices as well, or, when one product
 * makes the whole gradient, the compute dtype at once. Vectors lie behind the matrices in every block.
 */
export class BlockGradients {
  readonly block: ParameterBlock;
  readonly matrixDtype: Dtype;
  #matrices: Range;
  #vectors: Range;

  constructor(block: ParameterBlock, matrixDtype: Dtype, matrices: Range, vectors: Range) {
    this.block = block;
    this.matrixDtype = matrixDtype;
    this.#matrices = matrices;
    this.#vectors = vectors;
  }

  group(name: string): Range {
    return this.elements(groupOf(this.block, name));
  }

  /** Matrices or vectors (or padding between either), never some of both. */
  elements({ offset, count }: ParameterGroup): Range {
    const behind = offset - vectorsOffset(this.block);
    if (behind >= 0) return this.#vectors.slice(behind * 4, count * 4);
    const bytes = bytesOf(this.matrixDtype);
    return this.#matrices.slice(offset * bytes, count * bytes);
  }

  optional(name: string): Range | null {
    return this.block.groups.has(name) ? this.group(name) : null;
  }
}
