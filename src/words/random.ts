// Sluice's own random numbers: the same on every machine and version, because a resumed run must draw what the
// interrupted one would have drawn. xoshiro128** with a state of four words, filled from the seed by splitmix32.
//
// `stream` separates uses of one seed: the order of epoch 3 does not depend on how much anybody else has drawn.

export class Random {
  readonly #words = new Uint32Array(4);

  constructor(seed: number, stream = 0) {
    // The golden ratio's odd multiples keep neighbouring seeds and streams apart.
    let mixed = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(stream + 1, 0x85ebca77)) >>> 0;
    for (let i = 0; i < 4; i++) {
      mixed = (mixed + 0x9e3779b9) >>> 0;
      let z = mixed;
      z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
      z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
      this.#words[i] = z ^ (z >>> 15);
    }
  }

  /** The next 32 bits as a whole number. */
  next(): number {
    const s = this.#words as Uint32Array & [number, number, number, number];
    const product = Math.imul(s[1], 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0;
    const carried = s[1] << 9;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= carried;
    s[3] = (s[3] << 11) | (s[3] >>> 21);
    return result;
  }

  /** A number from 0 up to but not including 1. */
  uniform(): number {
    return this.next() / 2 ** 32;
  }

  /** A whole number from 0 up to but not including `count`. */
  below(count: number): number {
    return Math.floor(this.uniform() * count);
  }

  /** Put the items into a random order, in place. */
  shuffle<T extends { length: number; [index: number]: unknown }>(items: T): T {
    for (let last = items.length - 1; last > 0; last--) {
      const other = this.below(last + 1);
      [items[last], items[other]] = [items[other], items[last]] as [T[number], T[number]];
    }
    return items;
  }
}
