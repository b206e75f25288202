// Float32 arithmetic in JavaScript, bit for bit what IEEE 754 hardware computes. Sums, products, quotients and roots of
// float32 values need only Math.fround: float64 has more than twice the bits, so rounding twice rounds as once. A fused
// multiply-add does not, and is done here with care.

export const f32 = Math.fround;

const word = new Float64Array(1);
const halves = new Uint32Array(word.buffer);

/**
 * round(a · b + c) with one rounding. The product is exact in float64. The sum is rounded to odd (Boldo and Melquiond 2008):
 * when it was inexact its last bit is made 1, which keeps it off every midpoint of float32, so the second rounding is right.
 */
export function fma32(a: number, b: number, c: number): number {
  const product = a * b;
  const sum = product + c;
  // TwoSum (Knuth): what the addition lost, exactly.
  const other = sum - product;
  const lost = product - (sum - other) + (c - other);
  if (lost === 0 || !Number.isFinite(sum)) return f32(sum);
  word[0] = sum;
  const low = halves[0]!;
  if ((low & 1) === 1) return f32(sum);
  // The odd neighbour lies on the side of what was lost: away from zero, or towards it.
  if (lost > 0 === sum > 0) halves[0] = low + 1;
  else {
    halves[0] = low - 1;
    if (low === 0) halves[1] = halves[1]! - 1;
  }
  return f32(word[0]!);
}
