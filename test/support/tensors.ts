// Typed arrays for tests of ops: what a range of a command holds, in the dtype in which the device sees it, with float64
// on JavaScript's side. And the seeded numbers that fill them.

import type { Dtype } from "../../src/native/abi.gen.ts";
import { Random } from "../../src/words/random.ts";

export type Element = Dtype | "float64" | "int32" | "uint16" | "int16";

const elementBytes = { float32: 4, bfloat16: 2, float16: 2, float64: 8, int32: 4, uint16: 2, int16: 2 } as const;

/** The bytes of one range of a command. */
export class Tensor {
  readonly element: Element;
  readonly bytes: Uint8Array<ArrayBuffer>;

  constructor(element: Element, bytes: Uint8Array<ArrayBuffer>) {
    this.element = element;
    this.bytes = bytes;
  }

  get count(): number {
    return this.bytes.length / elementBytes[this.element];
  }
  get elementBytes(): number {
    return elementBytes[this.element];
  }

  /** Every value, exactly. */
  values(): Float64Array {
    const { buffer } = this.bytes.slice();
    switch (this.element) {
      case "float32":
        return Float64Array.from(new Float32Array(buffer));
      case "float64":
        return new Float64Array(buffer);
      case "float16":
        return Float64Array.from(new Float16Array(buffer));
      case "bfloat16":
        return Float64Array.from(fromBfloat16(new Uint16Array(buffer)));
      case "int32":
        return Float64Array.from(new Int32Array(buffer));
      case "uint16":
        return Float64Array.from(new Uint16Array(buffer));
      case "int16":
        return Float64Array.from(new Int16Array(buffer));
    }
  }
}

/** Values rounded once, to nearest even, by way of float32 as the kernels do it. */
export function tensor(element: Element, values: ArrayLike<number>): Tensor {
  return new Tensor(element, new Uint8Array(encode(element, values).buffer));
}

function encode(element: Element, values: ArrayLike<number>): { buffer: ArrayBuffer } {
  switch (element) {
    case "float32":
      return new Float32Array(values);
    case "float64":
      return new Float64Array(values);
    case "float16":
      return new Float16Array(new Float32Array(values));
    case "bfloat16":
      return toBfloat16(new Float32Array(values));
    case "int32":
      return new Int32Array(values);
    case "uint16":
      return new Uint16Array(values);
    case "int16":
      return new Int16Array(values);
  }
}

/** A range that a command must write: every byte 0xff, which is a NaN in each float dtype. */
export function output(element: Element, count: number): Tensor {
  return new Tensor(element, new Uint8Array(count * elementBytes[element]).fill(0xff));
}

export function toBfloat16(values: Float32Array<ArrayBuffer>): Uint16Array<ArrayBuffer> {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return Uint16Array.from(values, (value, i) =>
    Number.isNaN(value) ? (bits[i]! >>> 16) | 0x40 : (bits[i]! + 0x7fff + ((bits[i]! >>> 16) & 1)) >>> 16,
  );
}

export function fromBfloat16(halves: Uint16Array): Float32Array {
  return new Float32Array(Uint32Array.from(halves, (half) => half << 16).buffer);
}

/** Seeded numbers in the shapes that ops want. */
export class Draw {
  readonly random: Random;

  constructor(seed: number) {
    this.random = new Random(seed);
  }

  /** From `least` to `most`, both included. */
  from(least: number, most: number): number {
    return least + this.random.below(most - least + 1);
  }

  /** One normal number (Box and Muller). */
  gauss(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.random.uniform()));
    return radius * Math.cos(2 * Math.PI * this.random.uniform());
  }

  normal(element: Element, count: number, deviation = 1): Tensor {
    const values = new Float64Array(count);
    for (let i = 0; i < count; i++) values[i] = this.gauss() * deviation;
    return tensor(element, values);
  }

  /** Float64 normals, for finite differences. */
  doubles(count: number): Float64Array {
    return Float64Array.from({ length: count }, () => this.gauss());
  }

  /** Whole numbers below `limit`. */
  below(count: number, limit: number): number[] {
    return Array.from({ length: count }, () => this.random.below(limit));
  }

  /** `count` different whole numbers below `limit`, increasing. */
  distinct(count: number, limit: number): number[] {
    const all = this.random.shuffle(Array.from({ length: limit }, (_, i) => i));
    return all.slice(0, count).sort((a, b) => a - b);
  }
}

/** 0, then the running sums of lengths: what `starts` holds. */
export function cumulative(lengths: readonly number[]): number[] {
  const starts = [0];
  for (const length of lengths) starts.push(starts.at(-1)! + length);
  return starts;
}
