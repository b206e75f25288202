// Which documents an epoch goes through.
//
// Without weights: all of them once. With weights, sources are shares of an epoch's tokens. The source that is scarcest
// for its weight is gone through once; of each other source an epoch takes the part that makes the shares right, and the
// next epoch goes on behind it, in an order that is shuffled anew each time through. So nothing is left out for ever,
// nothing is repeated before its time, and the choice depends on the seed and the epoch's number alone.

import { Random } from "../words/random.ts";
import type { Dataset } from "./dataset.ts";

/** The documents of an epoch, by number; some may come twice where a source is begun again. */
export function epochDocuments({ starts, sources }: Pick<Dataset, "starts" | "sources">, seed: number, epoch: number) {
  if (sources === undefined) return Uint32Array.from({ length: starts.length - 1 }, (_, d) => d);
  let first = 0;
  const parts = sources.map(({ documents, weight }) => {
    const tokens = starts[first + documents]! - starts[first]!;
    first += documents;
    return { first: first - documents, documents, weight, tokens };
  });
  const scarcest = Math.min(...parts.map(({ tokens, weight }) => tokens / weight));
  return Uint32Array.from(
    parts.flatMap(({ first, documents, weight, tokens }, source) => {
      const perEpoch = (documents * scarcest * weight) / tokens;
      // Rounded where it should be whole: the scarcest source is gone through exactly once.
      const position = (epochs: number) => Math.floor(epochs * perEpoch + 1e-6);
      const chosen: number[] = [];
      let order: Uint32Array | undefined;
      for (let at = position(epoch); at < position(epoch + 1); at++) {
        if (order === undefined || at % documents === 0)
          order = shuffled(documents, seed, source, Math.floor(at / documents));
        chosen.push(first + order[at % documents]!);
      }
      return chosen;
    }),
  );
}

/** The order of a source's documents the `pass`-th time through. */
function shuffled(documents: number, seed: number, source: number, pass: number): Uint32Array {
  // Epochs are streams of the same seed in loader.ts; an odd multiplier keeps a source's passes apart from them.
  const random = new Random((seed ^ Math.imul(source + 1, 0x9e3779b1)) >>> 0, pass);
  return random.shuffle(Uint32Array.from({ length: documents }, (_, d) => d));
}
