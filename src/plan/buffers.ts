// Buffers: named ranges of bytes in one tier, each with a role. Whoever works with a buffer declares it: the window its slots,
// the gradients their ring (`step/bill.ts` has all of them), before anything is allocated.
//
// A declaration is lines of the memory bill in any shape, with `undefined` where there is no use for a buffer; `Buffers.held`
// gives its owner the same shape back with ranges for lines. So a buffer's name is written once, and so is the reason that it
// is there.

import type { Dtype, Tier } from "../native/abi.gen.ts";
import { Range, type BufferLike } from "./plan.ts";
import { formatTiers } from "../words/format.ts";

/** What a buffer holds, for those who check plans. */
export type Role =
  /** Parts of the training state. */
  | "state"
  /** Copies of a block's weights, which compute reads. */
  | "weights"
  /** Hidden states between blocks, and their gradients. */
  | "hidden"
  | "hidden gradient"
  /** Activations within a block: kept for backward, and used up at once. */
  | "saved"
  | "scratch"
  | "gradient"
  /** What clipped gradients are multiplied by. */
  | "factor"
  /** Written by JavaScript before a step, and read by it afterwards. */
  | "input"
  | "result"
  /** Written once, before the first step. */
  | "table";

export interface BillLine {
  /** Unique; the buffer's name. */
  readonly name: string;
  readonly tier: Exclude<Tier, "file">;
  readonly bytes: number;
  readonly role: Role;
  /** What it is for; lines of one purpose are printed as one. */
  readonly purpose: string;
  /** Of two that take turns from step to step: which. */
  readonly side?: 0 | 1;
  /** A gradient that compute adds to: of a whole block, of its vectors alone, or of the embedding that is the head's matrix. */
  readonly holds?: { readonly dtype: Dtype; readonly of: "block" | "vectors" | "embedding" };
}

/** Buffers as their owner thinks of them. */
export type Lines = BillLine | undefined | readonly Lines[] | { readonly [name: string]: Lines };

/** The same with ranges. */
export type Held<L> = L extends BillLine ? Range : L extends undefined ? L : { -readonly [K in keyof L]: Held<L[K]> };

/** What buffers of one kind have in common. */
export type Kind = Omit<BillLine, "name" | "bytes">;

export const line = (kind: Kind, name: string, bytes: number): BillLine => ({ ...kind, name, bytes });

const isLine = (lines: object): lines is BillLine => "purpose" in lines;

/** All lines of a declaration, in its order. */
export function linesOf(lines: Lines): BillLine[] {
  if (lines === undefined) return [];
  return isLine(lines) ? [lines] : Object.values(lines).flatMap(linesOf);
}

/** Buffers by name. A name that is not on the bill is our mistake and fails loudly. */
export class Buffers<B extends BufferLike = BufferLike> {
  readonly all: ReadonlyMap<string, B>;

  constructor(all: ReadonlyMap<string, B>) {
    this.all = all;
  }

  /** Makes every buffer of a bill; `make` allocates, or only describes (simulation). */
  static make<B extends BufferLike>(bill: readonly BillLine[], make: (line: BillLine) => B): Buffers<B> {
    return new Buffers(new Map(bill.map((line) => [line.name, make(line)])));
  }

  [Bun.inspect.custom](): string {
    return `Buffers(${this.all.size}: ${formatTiers(this.all.values())})`;
  }

  get(name: string): B {
    const buffer = this.all.get(name);
    if (buffer === undefined) throw new Error(`internal error: buffer "${name}" is not on the memory bill`);
    return buffer;
  }

  /** What an owner declared, as ranges of whole buffers. */
  held<L extends Lines>(lines: L): Held<L> {
    const held = (of: Lines): unknown => {
      if (of === undefined) return undefined;
      if (Array.isArray(of)) return of.map(held);
      if (isLine(of)) return this.range(of.name);
      return Object.fromEntries(Object.entries(of).map(([name, inner]) => [name, held(inner)]));
    };
    return held(lines) as Held<L>;
  }

  range(name: string, offset?: number, bytes?: number): Range {
    return new Range(this.get(name), offset, bytes);
  }
}
