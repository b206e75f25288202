// A split master in plain TypeScript: `hi` is the nearest bfloat16 with ties away from zero, `lo` the
// signed 16-bit remainder, and `(hi << 16) + lo` the exact float32 bits.

import type { Tensor } from "./tensors.ts";

export interface SplitMaster {
  hi: Uint16Array<ArrayBuffer>;
  lo: Int16Array<ArrayBuffer>;
}

const bitsOf = (values: Float32Array<ArrayBuffer>): Uint32Array =>
  new Uint32Array(values.buffer, values.byteOffset, values.length);

/** A NaN becomes a quiet NaN with `lo` zero: rounding could carry it into a number. */
export function splitValues(values: Float32Array<ArrayBuffer>): SplitMaster {
  const bits = bitsOf(values);
  const hi = Uint16Array.from(bits, (word, i) =>
    Number.isNaN(values[i]) ? (word >>> 16) | 0x40 : (word + 0x8000) >>> 16,
  );
  const lo = Int16Array.from(bits, (word, i) =>
    Number.isNaN(values[i]) ? 0 : word - (((word + 0x8000) >>> 16) << 16),
  );
  return { hi, lo };
}

export function joinValues({ hi, lo }: SplitMaster): Float32Array<ArrayBuffer> {
  return new Float32Array(Uint32Array.from(hi, (half, i) => (half << 16) + lo[i]!).buffer);
}

export const split = (weights: Tensor): SplitMaster => splitValues(new Float32Array(weights.values()));
