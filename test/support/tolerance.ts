// How far a result may be from float64: the one table for tests of ops.
//
// The arithmetic of an op is float32 and its result is rounded once, when it is stored. So a result is off by half a unit
// in the last place of its dtype, and by what a float32 sum over `length` terms collects: each addition rounds a partial
// sum of its own size, errors are as good as random, so together they grow with the square root. One after the other they
// deviate by 0.4 √length units, and the worst of 30,000 elements by four times that. Inputs are exact, because the
// reference reads them after they were rounded.
//
// An element's error is measured against its own size plus the root mean square of the whole result: an element that is
// small because large terms cancelled is as wrong as its large neighbours. SLUICE_TEST_VERBOSE=1 prints the share used.

import type { Tensor } from "./tensors.ts";

/** Half a unit in the last place, relative. */
const roundoff = { float32: 2 ** -24, bfloat16: 2 ** -8, float16: 2 ** -11, float64: 2 ** -53 } as const;

/** Roundings besides the sum's, each of half a unit: an exponential, a root, a division, a few products. */
const stepsAround = 8;

export function limitFor(element: keyof typeof roundoff, length: number, roundings = 1): number {
  return roundings * roundoff[element] + roundoff.float32 * (stepsAround + 2 * Math.sqrt(length));
}

const verbose = process.env["SLUICE_TEST_VERBOSE"] === "1";

/**
 * Throws when the worst element of `found` is further from `expected` than a sum over `length` terms explains. `terms` is the
 * size of these terms, to be given where all of a result may cancel; `roundings` how often a value is rounded to its dtype on
 * the way, where that is not once.
 */
export function expectClose(
  what: string,
  found: Tensor,
  expected: Float64Array,
  length: number,
  terms = 0,
  roundings = 1,
): void {
  if (found.count !== expected.length) throw new Error(`${what}: ${found.count} values, expected ${expected.length}`);
  const values = found.values();
  const scale = Math.max(terms, rootMeanSquare(expected));
  let worst = 0;
  let at = 0;
  for (const [i, value] of expected.entries()) {
    if (values[i] === value) continue;
    const error = Math.abs(values[i]! - value) / (Math.abs(value) + scale);
    if (error <= worst) continue;
    [worst, at] = [error, i];
    if (Number.isNaN(error)) break;
  }
  const limit = limitFor(found.element as keyof typeof roundoff, length, roundings);
  const line = `${what}: ${(worst / limit).toFixed(2)} of the limit ${limit.toExponential(1)}`;
  if (verbose) console.log(line);
  if (!(worst <= limit)) throw new Error(`${line}, at ${at}: ${values[at]}, expected ${expected[at]}`);
}

/** Throws unless every bit is the same; NaN is NaN, whatever its payload. */
export function expectEqualBits(what: string, found: Tensor, expected: Tensor): void {
  if (Buffer.compare(found.bytes, expected.bytes) === 0) return;
  const [values, wanted] = [found.values(), expected.values()];
  const at = wanted.findIndex((value, i) => !Object.is(value, values[i]));
  if (at >= 0 || values.length !== wanted.length)
    throw new Error(`${what}: ${values[at]} at ${at}, expected exactly ${wanted[at]} (${values.length} values)`);
}

/**
 * Compares a gradient with central differences of the float64 function it belongs to, element by element. The two
 * references of an op check each other this way, so a wrong derivation cannot hide behind a kernel that shares it.
 */
export function expectGradient(
  what: string,
  loss: (x: Float64Array) => number,
  x: Float64Array,
  gradient: Float64Array,
): void {
  const step = 1e-5;
  const scale = rootMeanSquare(gradient);
  for (const [i, expected] of gradient.entries()) {
    const moved = x.slice();
    moved[i] = x[i]! + step;
    const above = loss(moved);
    moved[i] = x[i]! - step;
    const slope = (above - loss(moved)) / (2 * step);
    if (!(Math.abs(slope - expected) <= 1e-7 * (Math.abs(expected) + scale)))
      throw new Error(`${what}: the gradient at ${i} is ${expected}, finite differences say ${slope}`);
  }
}

export function rootMeanSquare(values: Float64Array): number {
  return Math.sqrt(dot(values, values) / values.length);
}

/** Σ a·b, the loss whose gradient with respect to a is b. */
export function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}
