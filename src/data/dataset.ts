// All samples as tokens, in memory, end to end: 8 bytes per token, so a hundred million tokens take 800 MB.
//
// A document is what attention sees at once, at most `sequenceLength` tokens. Conversations and completions that are
// longer lose their end, and the report says how many; longer texts become several documents, and since labels are
// shifted here, before the cut, the last token of a piece still predicts the first of the next. A document in which
// nothing counts is dropped, and counted in the report too.
// Next: loader.ts makes batches of it.

import { DataError } from "../errors.ts";
import { ChatTemplate, commonPrefix, encodeConversation, type EncodedDocument } from "./chat.ts";
import type { Sample } from "./shapes.ts";
import { listSources, readSamples, type DataInput } from "./source.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** The label of a position that does not count. */
export const IGNORED = -100;

export interface Dataset {
  /** All documents end to end. */
  tokens: Int32Array;
  /** The label of each position, already shifted: the next token of the same sample, or `IGNORED`. */
  targets: Int32Array;
  /** Where documents begin, and the total: document d is [starts[d], starts[d + 1]). */
  starts: Int32Array;
  /** How many of the documents come from each source, in their order, and its weight if it has one. */
  sources: { documents: number; weight: number | undefined }[];
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
}

export interface DatasetOptions {
  sequenceLength: number;
  /** Which tokens of conversations and completions count. */
  loss: "assistant" | "all";
}

/** Read and tokenise data; `input` is what the config calls `data`. */
export async function loadDataset(
  input: DataInput,
  tokenizer: Tokenizer,
  { sequenceLength, loss }: DatasetOptions,
): Promise<Dataset> {
  const tokens = new IntList();
  const targets = new IntList();
  const starts = new IntList();
  starts.push([0]);
  const report: DatasetReport = { samples: 0, documents: 0, tokens: 0, validTokens: 0, truncated: 0, dropped: 0 };
  let template: ChatTemplate | undefined;
  const encode = (sample: Sample): EncodedDocument[] => {
    if (sample.kind === "text") return [encodeText(tokenizer, sample.text)];
    if (sample.kind === "prompt") return [encodeCompletion(tokenizer, sample, loss)];
    if (loss === "assistant" && !sample.messages.some(({ role }) => role === "assistant"))
      throw new DataError(
        'messages has no "assistant" turn, so nothing can be learned; add one or set chat.loss to "all"',
      );
    template ??= new ChatTemplate(tokenizer);
    return encodeConversation(template, tokenizer, sample, loss);
  };

  const add = (sample: Sample): void => {
    report.samples++;
    for (const { ids, counted } of withPlace(sample.where, () => encode(sample))) {
      const labels = ids.map((_, i) => (counted[i + 1] ? ids[i + 1]! : IGNORED));
      const end = sample.kind === "text" ? ids.length : Math.min(ids.length, sequenceLength);
      if (ids.length > end + 1) report.truncated++; // the token right after the end is still learned, as a label
      for (let from = 0; from < end; from += sequenceLength) {
        const to = Math.min(from + sequenceLength, end);
        const valid = labels.slice(from, to).filter((label) => label !== IGNORED).length;
        if (valid === 0) {
          // The last token of a text has nothing to predict; alone in a piece it is no loss and no document.
          if (from === 0) report.dropped++;
          continue;
        }
        tokens.push(ids.slice(from, to));
        targets.push(labels.slice(from, to));
        starts.push([tokens.length]);
        report.documents++;
        report.validTokens += valid;
      }
    }
  };

  const sources = listSources(input);
  const used: Dataset["sources"] = [];
  for (const source of sources) {
    const before = report.documents;
    for await (const sample of readSamples(source)) add(sample);
    const documents = report.documents - before;
    if (documents === 0 && source.weight !== undefined)
      throw new DataError(
        `${source.path}: has no token that counts within ${sequenceLength} tokens, so it cannot have weight ${source.weight}; ` +
          `raise sequenceLength or remove the source`,
      );
    used.push({ documents, weight: source.weight });
  }
  report.tokens = tokens.length;
  if (report.documents === 0)
    throw new DataError(
      `${sources.map(({ path }) => path).join(", ")}: none of the ${report.samples} samples has a token that counts within ` +
        `${sequenceLength} tokens; raise sequenceLength or look at the data`,
    );
  const arrays = { tokens: tokens.view(), targets: targets.view(), starts: starts.view() };
  const digest = new Bun.CryptoHasher("sha256");
  for (const array of Object.values(arrays)) digest.update(array);
  if (used.some(({ weight }) => weight !== undefined)) digest.update(JSON.stringify(used));
  return { ...arrays, sources: used, digest: digest.digest("hex"), report };
}

/** A text with the special tokens that the model expects around it, and its end marked. */
function encodeText(tokenizer: Tokenizer, text: string): EncodedDocument {
  const ids = withEnd(tokenizer, tokenizer.encode(text, { special: true }));
  return { ids, counted: ids.map(() => true) };
}

/** Prompt and completion as one text; what is not already there in the tokens of the prompt alone is completion. */
function encodeCompletion(
  tokenizer: Tokenizer,
  { prompt, completion }: { prompt: string; completion: string },
  loss: "assistant" | "all",
): EncodedDocument {
  const ids = withEnd(tokenizer, tokenizer.encode(prompt + completion, { special: true }));
  const start = loss === "all" ? 0 : commonPrefix(ids, tokenizer.encode(prompt, { special: true }));
  return { ids, counted: ids.map((_, i) => i >= start) };
}

/** The model learns to stop only if it sees the end; some tokenizers write it themselves. */
function withEnd({ eosId }: Tokenizer, ids: number[]): number[] {
  return eosId === undefined || ids.at(-1) === eosId ? ids : [...ids, eosId];
}

/** A `DataError` of the work gets the sample's place in front. */
function withPlace<T>(where: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw error instanceof DataError ? new DataError(`${where}: ${error.message}`) : error;
  }
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
