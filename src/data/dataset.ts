// All samples as tokens, in memory, end to end: 8 bytes per token, so a hundred million tokens take 800 MB.
// encode.ts turns one sample into documents; here they are laid end to end and counted. Next: loader.ts makes batches.

import { DataError } from "../errors.ts";
import { BadLines, type BadLinesMax } from "./bad-lines.ts";
import { Encoder, type EncodeOptions } from "./encode.ts";
import { listSources, readSamples, type DataInput } from "./source.ts";
import type { Tokenizer } from "./tokenizer.ts";

export interface Dataset {
  /** All documents end to end. */
  tokens: Int32Array;
  /** The label of each position, already shifted: the next token of the same sample, or `IGNORED`. */
  targets: Int32Array;
  /** Where documents begin, and the total: document d is [starts[d], starts[d + 1]). */
  starts: Int32Array;
  /** If sources have weights: how many of the documents come from each, in their order. */
  sources?: { documents: number; weight: number }[];
  /** SHA-256 of the three arrays and of the weights. */
  digest: string;
  report: DatasetReport;
}

export interface DatasetReport {
  samples: number;
  documents: number;
  tokens: number;
  validTokens: number;
  /** Conversations and completions that were longer than a row and lost their end. */
  truncated: number;
  /** Documents in which no token counts. */
  dropped: number;
  /** If `maxBadLines` let malformed lines be left out: how many, and what is wrong with the first of them. */
  badLines?: { count: number; first: string[] };
}

export interface DatasetOptions extends EncodeOptions {
  /** How many malformed lines may be left out; default 0. */
  maxBadLines?: BadLinesMax;
}

/** Read and tokenise data; `input` is what the config calls `data`. */
export async function loadDataset(
  input: DataInput,
  tokenizer: Tokenizer,
  { maxBadLines = 0, ...options }: DatasetOptions,
): Promise<Dataset> {
  const { sequenceLength } = options;
  const tokens = new IntList();
  const targets = new IntList();
  const starts = new IntList();
  starts.push([0]);
  const counts = { samples: 0, documents: 0, validTokens: 0, truncated: 0, dropped: 0 };
  const encoder = new Encoder(tokenizer, options);
  const bad = new BadLines(maxBadLines);
  const sources = listSources(input);
  const weighted: { documents: number; weight: number }[] = [];
  for (const source of sources) {
    const before = counts.documents;
    for await (const sample of readSamples(source, bad)) {
      const encoded = bad.try(() => encoder.encode(sample));
      if (!encoded) continue;
      counts.samples++;
      counts.truncated += encoded.truncated;
      counts.dropped += encoded.dropped;
      for (const { ids, labels, valid } of encoded.documents) {
        tokens.push(ids);
        targets.push(labels);
        starts.push([tokens.length]);
        counts.documents++;
        counts.validTokens += valid;
      }
    }
    if (source.weight === undefined) continue;
    const documents = counts.documents - before;
    if (documents === 0)
      throw new DataError(
        `${source.path}: has no token that counts within ${sequenceLength} tokens, so it cannot have weight ${source.weight}; ` +
          `raise sequenceLength or remove the source`,
      );
    weighted.push({ documents, weight: source.weight });
  }
  bad.finish(counts.samples);
  if (counts.documents === 0)
    throw new DataError(
      `${sources.map(({ path }) => path).join(", ")}: none of the ${counts.samples} samples has a token that counts within ` +
        `${sequenceLength} tokens; raise sequenceLength or look at the data`,
    );
  const arrays = { tokens: tokens.view(), targets: targets.view(), starts: starts.view() };
  const digest = new Bun.CryptoHasher("sha256");
  for (const array of Object.values(arrays)) digest.update(array);
  if (weighted.length > 0) digest.update(JSON.stringify(weighted));
  const badLines = bad.count > 0 && { badLines: { count: bad.count, first: bad.first } };
  const report = { ...counts, tokens: tokens.length, ...badLines };
  return { ...arrays, ...(weighted.length > 0 && { sources: weighted }), digest: digest.digest("hex"), report };
}

/** An Int32Array that grows. */
class IntList {
  length = 0;
  #values = new Int32Array(1 << 16);

  push(values: ArrayLike<number>): void {
    const length = this.length + values.length;
    if (length > this.#values.length) {
      const grown = new Int32Array(Math.max(length, this.#values.length * 2));
      grown.set(this.view());
      this.#values = grown;
    }
    this.#values.set(values, this.length);
    this.length = length;
  }

  view(): Int32Array {
    return this.#values.subarray(0, this.length);
  }
}
