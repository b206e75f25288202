// Equal buffers that take turns: the window's slots, buffers of hidden states, the ring in which gradients land, staging.
//
// `take` hands out the one that has been idle longest and `give` puts it back, at once: both speak of the order of
// recording. That its former readers are through before it is filled again is a matter of its resource, which whoever
// fills it writes and whoever empties it reads.

import type { Tracked } from "./plan.ts";

export class Pool<T extends Tracked = Tracked> {
  readonly all: readonly T[];
  #idle: T[];

  constructor(all: readonly T[]) {
    this.all = all;
    this.#idle = [...all];
  }

  /** The one that has been idle longest, or this one; undefined when it is in use. */
  take(wanted = this.#idle[0]): T | undefined {
    const index = wanted === undefined ? -1 : this.#idle.indexOf(wanted);
    return index < 0 ? undefined : this.#idle.splice(index, 1)[0];
  }

  /** Nobody will fill or read it any more, beyond what is recorded. */
  give(held: T): void {
    this.#idle.push(held);
  }

  /** One that is filled and emptied before the next is asked for. */
  next(): T {
    const next = this.take()!;
    this.give(next);
    return next;
  }

  /** Those in use. */
  get taken(): T[] {
    return this.all.filter((held) => !this.#idle.includes(held));
  }
}
