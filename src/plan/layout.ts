// How bytes are laid out in a buffer: elements of a dtype, starts at multiples of 64 bytes, and named parts one behind
// the other. Everybody who sizes or divides a range uses these; what the parts are is known where they are named.

import type { Dtype } from "../native/abi.gen.ts";
import type { Range } from "./plan.ts";

/** Bytes of one element. */
export const bytesOf = (dtype: Dtype): number => (dtype === "float32" ? 4 : 2);

/** Ranges start at multiples of this, which is what vector loads and the null device's digests want. */
export const alignBytes = (bytes: number): number => Math.ceil(bytes / 64) * 64;

/** Bytes of all parts together. */
export const totalBytes = (sizes: Record<string, number>): number => Object.values(sizes).reduce((a, b) => a + b, 0);

/** Names the parts of one range, in order; parts of no bytes are absent. */
export function carve<Name extends string>(
  range: Range,
  sizes: Record<Name, number>,
): (name: Name, bytes?: number) => Range {
  const offsets = new Map<Name, number>();
  let offset = 0;
  for (const name in sizes) {
    offsets.set(name, offset);
    offset += sizes[name];
  }
  return (name, bytes = sizes[name]) => range.slice(offsets.get(name)!, bytes);
}
