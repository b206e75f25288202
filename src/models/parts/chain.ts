// How a list of parts becomes a block: which part reads what another made, what is saved for backward, where the rest lies,
// what each level keeps of it, and what is computed again. All of it follows from what the parts declare; nothing here
// records anything.

import { alignBytes, bytesOf } from "../../plan/layout.ts";
import type { Dtype } from "../../native/abi.gen.ts";
import type { Cost, ForwardOp, Part, Value } from "./part.ts";

/**
 * How much a block keeps from forward to backward; what it does not keep is computed again. In bytes and in time saved the
 * rungs are far apart: attention costs the more the longer the documents are; the results of matrix products are the rest of
 * the arithmetic; norms, rotation and activation functions are cheap beside the bytes they fill.
 */
export const keepLevels = ["recompute", "attention", "products", "all"] as const;
export type KeepLevel = (typeof keepLevels)[number];

const keptCosts: Record<KeepLevel, readonly Cost[]> = {
  recompute: [],
  attention: ["attention"],
  products: ["attention", "product"],
  all: ["attention", "product", "cheap"],
};

/** "24 attention, 12 products": how many blocks keep what. */
export function describeKeep(keep: readonly KeepLevel[], layers: number): string {
  const counts = keepLevels.map((level) => ({ level, count: keep.filter((kept) => kept === level).length }));
  counts[0]!.count += layers - keep.length;
  const named = counts.filter(({ count }) => count > 0);
  return named.map(({ level, count }) => `${count} ${level}`).join(", ");
}

/** A part in its place. Values of a block have keys: the part's index and the value's name, or "input" for the block's. */
export interface Link {
  part: Part;
  /** The key of one of the part's names; also of "x" and "stream". */
  key(name: string): string;
  /** Where `out` lies: the block's output, a saved value, or scratch, which only the next part's forward reads. */
  out: "output" | "saved" | "scratch";
}

export interface Chain {
  links: readonly Link[];
  /** What backward reads, in the order in which it lies. */
  values: readonly (Value & { key: string })[];
  scratch: readonly (Omit<Value, "cost"> & { key: string })[];
}

export function chain(parts: readonly Part[]): Chain {
  let [x, stream] = ["input", "input"];
  const links = parts.map((part, index): Link => {
    const next = parts[index + 1];
    const names: Record<string, string> = { x, stream };
    const key = (name: string): string => names[name] ?? `${index}.${name}`;
    x = key("out");
    if (part.stream !== undefined) stream = key(part.stream);
    return { part, key, out: next ? (next.readsInput ? "saved" : "scratch") : "output" };
  });
  return {
    links,
    values: links.flatMap(({ part, key, out }) =>
      part.values
        .filter(({ name }) => name !== "out" || out === "saved")
        .map((value) => ({ ...value, key: key(value.name) })),
    ),
    scratch: links.flatMap(({ part, key }) => part.scratch.map((place) => ({ ...place, key: key(place.name) }))),
  };
}

/** Bytes of each value that backward reads, for T tokens. */
export const activationSizes = ({ values }: Chain, tokens: number, dtype: Dtype): Record<string, number> =>
  sizesOf(values, tokens, dtype);

/** The part of them that a level keeps. */
export const keptSizes = (chained: Chain, tokens: number, dtype: Dtype, level: KeepLevel): Record<string, number> =>
  sizesOf(chained.values.filter(keptAt(level)), tokens, dtype);

/** What is needed beside them, for one micro-batch at a time. */
export const scratchSizes = ({ scratch }: Chain, tokens: number, dtype: Dtype): Record<string, number> =>
  sizesOf(scratch, tokens, dtype);

const keptAt = (level: KeepLevel) => (value: Value) => keptCosts[level].includes(value.cost);

export const valueBytes = ({ width, dtype: own }: Omit<Value, "cost">, tokens: number, dtype: Dtype): number =>
  tokens * width * bytesOf(own ?? dtype);

function sizesOf(
  values: readonly (Omit<Value, "cost"> & { key: string })[],
  tokens: number,
  dtype: Dtype,
): Record<string, number> {
  return Object.fromEntries(values.map((value) => [value.key, alignBytes(valueBytes(value, tokens, dtype))]));
}

/**
 * The ops that make again, from the block's input and what the level kept, everything else that backward reads. Found from
 * the last op to the first: an op is needed when it makes something that is missing, and then what it reads is needed, too.
 */
export function opsAgain({ links, values }: Chain, level: KeepLevel): { link: Link; op: Omit<ForwardOp, "given"> }[] {
  const kept = new Set(["input", ...values.filter(keptAt(level)).map(({ key }) => key)]);
  const missing = new Set(values.map(({ key }) => key).filter((key) => !kept.has(key)));
  const found: { link: Link; op: Omit<ForwardOp, "given"> }[] = [];
  for (const { link, op: whole } of opsOf(links).reverse()) {
    if (!whole.makes.some((name) => missing.has(link.key(name)))) continue;
    const op = whole.given?.reads.every((name) => kept.has(link.key(name))) ? whole.given : whole;
    found.unshift({ link, op });
    for (const name of op.makes) missing.delete(link.key(name));
    for (const key of op.reads.map(link.key)) if (!kept.has(key)) missing.add(key);
  }
  return found;
}

export const opsOf = (links: readonly Link[]): { link: Link; op: ForwardOp }[] =>
  links.flatMap((link) => link.part.forward.map((op) => ({ link, op })));
