// Pinned memory through which bytes pass between a file, the host and the device: two buffers in turn, so that one fills
// while the other one empties.

import type { NativeBuffer, Engine } from "../native/runtime.ts";
import { tracked, type Plan, type Range, type Resource, type Tracked } from "../plan/plan.ts";
import { Pool } from "../plan/pool.ts";

export class Staging implements Disposable {
  readonly #buffers: NativeBuffer[];
  readonly #pool: Pool;

  /** For pieces of so many bytes; without a piece there is no memory. */
  constructor(engine: Engine, pieces: readonly number[]) {
    const bytesMax = Math.max(0, ...pieces);
    this.#buffers = pieces.slice(0, 2).map((_, index) => engine.buffer("pinned", bytesMax, `staging ${index}`));
    this.#pool = new Pool(this.#buffers.map((buffer) => tracked(buffer.range())));
  }

  /** Memory for the next piece; who fills it writes the resource, who empties it reads it. */
  take(bytes: number): Tracked {
    const { range, resource } = this.#pool.next();
    return { range: range.slice(0, bytes), resource };
  }

  /** Bytes of the device as a copy, all others where they are; commands that read them read `reads`. */
  onHost(plan: Plan, from: Range): { range: Range; reads: Resource[] } {
    if (from.buffer.tier !== "device") return { range: from, reads: [] };
    const { range, resource } = this.take(from.bytes);
    plan.record("download", "copy", { to: range, from }, { writes: [resource] });
    return { range, reads: [resource] };
  }

  [Symbol.dispose](): void {
    for (const buffer of this.#buffers) buffer.free();
  }
}
