// A block's forward, recompute and backward, recorded part by part. Nothing here allocates or orders anything: the functions
// record ops on the compute stream over ranges they are given. What lies where is `parts/chain.ts`'s; what an op does, the
// part's own.

import type { Dtype } from "../native/abi.gen.ts";
import { alignBytes, carve } from "../plan/layout.ts";
import type { Plan, Range } from "../plan/plan.ts";
import {
  activationSizes,
  keptSizes,
  opsAgain,
  opsOf,
  scratchSizes,
  valueBytes,
  type KeepLevel,
  type Link,
} from "./parts/chain.ts";
import type { At, Cache, DeviceBatch, Part } from "./parts/part.ts";
import type { Rotary } from "./parts/rope.ts";
import type { ParameterBlock } from "./parameters.ts";
import type { BlockGradients, Weights } from "./weights.ts";

/** Everything a block's computation is given. */
export interface BlockContext {
  plan: Plan;
  dtype: Dtype;
  /** The most tokens of a micro-batch: the workspaces are carved for it. */
  tokensMax: number;
  weights: Weights;
  /** What the block keeps for backward, and where; null when it keeps nothing. */
  keep: KeepLevel;
  kept: Range | null;
  /** Everything else. */
  activations: Range;
  scratch: Range;
  rotaryTable(rotary: Rotary): Range;
}

/** y = block(x), both (T, C); leaves the activations that backward reads. With a `cache`, attention is that of generation. */
export function forwardBlock(context: BlockContext, x: Range, y: Range, batch: DeviceBatch, cache?: Cache): void {
  const places = placesOf(context, { x, y, batch, cache });
  for (const { link, op } of opsOf(context.weights.block.chain.links)) op.record(places(link));
}

/**
 * Computes again, from the block's input and what was kept, what backward reads and forward did not leave; never what only
 * the block's output needs. The same ops on the same inputs give the same bits.
 */
export function recomputeBlock(context: BlockContext, x: Range, batch: DeviceBatch): void {
  const places = placesOf(context, { x, batch });
  for (const { link, op } of opsAgain(context.weights.block.chain, context.keep)) op.record(places(link));
}

/**
 * Given dHidden = gradient of the block's output, turns it in place into the gradient of its input x, and adds the
 * parameters' gradients to `gradients` (overwrites them for the first micro-batch). The activations are used
 * up: each is overwritten by its own gradient as soon as nobody reads it any more.
 */
export function backwardBlock(
  context: BlockContext,
  gradients: BlockGradients,
  dHidden: Range,
  x: Range,
  batch: DeviceBatch,
  accumulate: boolean,
): void {
  const places = placesOf(context, { x, batch });
  const spent: Range[] = [];
  for (const link of context.weights.block.chain.links.toReversed()) {
    const { part, key, out } = link;
    const at = places(link);
    part.backward({
      ...at,
      dy: out === "saved" && part.stream !== "out" ? at.value("out") : dHidden,
      dx: key("x") === key("stream") ? dHidden : at.x,
      dStream: dHidden,
      spent: (bytes) => spent.find((range) => range.bytes >= bytes)?.slice(0, bytes) ?? null,
      gradient: (group) => gradients.group(group),
      optionalGradient: (group) => gradients.optional(group),
      gradientDtype: gradients.matrixDtype,
      accumulate: accumulate ? 1 : 0,
    });
    const saved = part.values.filter(({ name }) => name !== "out" || out === "saved");
    spent.push(...saved.map(({ name }) => at.value(name)));
  }
}

/** Where each part finds its values, at this micro-batch's true number of tokens. */
function placesOf(
  { plan, dtype, tokensMax, weights, keep, kept, activations, scratch, rotaryTable }: BlockContext,
  { x, y, batch, cache }: { x: Range; y?: Range; batch: DeviceBatch; cache?: Cache | undefined },
): (link: Link) => At {
  const { chain } = weights.block;
  const { tokens } = batch;
  const keptBytes = keptSizes(chain, tokensMax, dtype, keep);
  const passing = carve(activations, activationSizes(chain, tokensMax, dtype));
  const keeping = kept && carve(kept, keptBytes);
  const working = carve(scratch, scratchSizes(chain, tokensMax, dtype));
  const places = new Map(
    chain.values.map((value) => {
      const place = keeping && value.key in keptBytes ? keeping : passing;
      return [value.key, place(value.key, valueBytes(value, tokens, dtype))];
    }),
  );
  places.set("input", x);
  const outputOf = (part: Part, key: Link["key"]): Range => working(key("out"), outputBytes(part, tokens, dtype));
  for (const { part, key, out } of chain.links)
    if (out === "scratch") places.set(key("out"), outputOf(part, key));
    else if (out === "output" && y) places.set(key("out"), y);
    else if (out === "output" && part.scratch.some(({ name }) => name === "out"))
      places.set(key("out"), outputOf(part, key));
  return ({ part, key }) => ({
    run: plan.on("compute"),
    tokens,
    dtype,
    batch,
    cache,
    x: places.get(key("x"))!,
    stream: places.get(key("stream"))!,
    optional: (name) => places.get(key(name)) ?? null,
    value: (name) => places.get(key(name))!,
    scratch: (name, width) =>
      working(key(name), valueBytes({ ...part.scratch.find((place) => place.name === name)!, width }, tokens, dtype)),
    weight: (group) => weights.group(group),
    optionalWeight: (group) => weights.optional(group),
    rotaryTable,
  });
}

/** Where each rotary table of a model's layers lies in the buffer that holds them all. */
export function rotaryTables(
  blocks: readonly ParameterBlock[],
  positions: number,
): { rotary: Rotary; offset: number; bytes: number }[] {
  const tables: { rotary: Rotary; offset: number; bytes: number }[] = [];
  let offset = 0;
  for (const { part } of blocks.flatMap((block) => block.chain.links)) {
    const { rotary } = part;
    if (!rotary || tables.some((table) => sameRotary(table.rotary, rotary))) continue;
    const bytes = positions * rotary.headDim * 4;
    tables.push({ rotary, offset, bytes });
    offset += alignBytes(bytes);
  }
  return tables;
}

export const sameRotary = (a: Rotary, b: Rotary): boolean => a.rope === b.rope && a.headDim === b.headDim;

const outputBytes = (part: Part, tokens: number, dtype: Dtype): number =>
  valueBytes(
    part.values.find(({ name }) => name === "out")!,
    tokens,
    dtype,
  );
