// One sample to documents: token ids with a label for each, at most `sequenceLength` long.
//
// A document is what attention sees at once. Conversations and completions that are longer lose their end, which is
// counted; longer texts become several documents, and since labels are shifted here, before the cut, the last token of a
// piece still predicts the first of the next. A document in which nothing counts is dropped, and counted too.

import { DataError } from "../../words/errors.ts";
import { answers, ChatTemplate, encodeConversation, type ChatLoss, type EncodedDocument } from "./chat.ts";
import type { Sample } from "../read/shapes.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** The label of a position that does not count. */
export const IGNORED = -100;

export interface EncodeOptions {
  /** The most tokens of a document. */
  sequenceLength: number;
  /** Which tokens of conversations and completions count. */
  loss: ChatLoss;
}

/** What became of one sample. */
export interface Encoded {
  documents: {
    ids: number[];
    /** Already shifted: the next token of the same sample, or `IGNORED`. */
    labels: number[];
    /** Labels that count; at least one. */
    valid: number;
  }[];
  /** Documents that lost their end, and how many tokens that took. */
  truncated: number;
  lostTokens: number;
  /** Documents in which no token counts. */
  dropped: number;
}

export class Encoder {
  readonly #tokenizer: Tokenizer;
  readonly #options: EncodeOptions;
  #template: ChatTemplate | undefined;
  #remarks = new Map<string, string>();

  constructor(tokenizer: Tokenizer, options: EncodeOptions) {
    this.#tokenizer = tokenizer;
    this.#options = options;
  }

  /** The documents of a sample; a `DataError` begins with the sample's place. */
  encode(sample: Sample): Encoded {
    const { sequenceLength } = this.#options;
    const encoded: Encoded = { documents: [], truncated: 0, lostTokens: 0, dropped: 0 };
    for (const { ids, counted } of this.#tokenize(sample)) {
      const end = sample.kind === "text" ? ids.length : Math.min(ids.length, sequenceLength);
      // The token right after the end is still learned, as a label.
      if (ids.length > end + 1) {
        encoded.truncated++;
        encoded.lostTokens += ids.length - end - 1;
      }
      for (let from = 0; from < end; from += sequenceLength) {
        const to = Math.min(from + sequenceLength, end);
        const labels: number[] = [];
        let valid = 0;
        for (let next = from + 1; next <= to; next++) {
          const counts = counted[next] === true; // past the last token nothing does
          labels.push(counts ? ids[next]! : IGNORED);
          if (counts) valid++;
        }
        if (valid > 0) encoded.documents.push({ ids: ids.slice(from, to), labels, valid });
        // The last token of a text has nothing to predict; alone in a piece it is no loss and no document.
        else if (from === 0) encoded.dropped++;
      }
    }
    return encoded;
  }

  /** What should be said of the samples since the last time, the first of each kind. */
  takeRemarks(): Map<string, string> {
    const remarks = this.#remarks;
    if (remarks.size > 0) this.#remarks = new Map();
    return remarks;
  }

  #tokenize(sample: Sample): EncodedDocument[] {
    try {
      return this.#documents(sample);
    } catch (error) {
      throw error instanceof DataError ? new DataError(`${sample.where}: ${error.message}`) : error;
    }
  }

  #documents(sample: Sample): EncodedDocument[] {
    const { loss } = this.#options;
    if (sample.kind === "text") return [encodeText(this.#tokenizer, sample.text)];
    if (sample.kind === "prompt") return [encodeCompletion(this.#tokenizer, sample, loss)];
    if (loss !== "all" && answers(sample.messages, loss).length === 0) {
      const where = loss === "completion" ? ' after the last "user" turn' : "";
      throw new DataError(
        `messages has no "assistant" turn${where}, so nothing can be learned; add one or set chat.loss to "all"`,
      );
    }
    this.#template ??= new ChatTemplate(this.#tokenizer);
    return encodeConversation(this.#template, this.#tokenizer, sample, loss, (kind, line) => {
      // A place that nobody has counted yet is left out.
      if (!this.#remarks.has(kind)) this.#remarks.set(kind, `${sample.where.replace(/:\ufffe.*$/, "")}: ${line}`);
    });
  }
}

/** A text with the special tokens that the model expects around it, and its end marked. */
function encodeText(tokenizer: Tokenizer, text: string): EncodedDocument {
  const ids = withEnd(tokenizer, text, tokenizer.encode(text, { special: true }));
  return { ids, counted: ids.map(() => true) };
}

/** Prompt and completion as one text; a token that holds something of the completion is completion. */
function encodeCompletion(
  tokenizer: Tokenizer,
  { prompt, completion }: { prompt: string; completion: string },
  loss: ChatLoss,
): EncodedDocument {
  const text = prompt + completion;
  const { ids: encoded, before } = tokenizer.encodeWithPlaces(text, [prompt.length], { special: true });
  const ids = withEnd(tokenizer, text, encoded);
  const start = loss === "all" ? 0 : before[0]!;
  return { ids, counted: ids.map((_, i) => i >= start) };
}

/** The model learns to stop only if it sees the end; some tokenizers write it themselves, and some texts, with a line's end. */
function withEnd({ eosId, specialTokens }: Tokenizer, text: string, ids: number[]): number[] {
  if (eosId === undefined || ids.at(-1) === eosId) return ids;
  const hasEnd = text.trimEnd().endsWith(specialTokens["eos_token"]!) && ids.includes(eosId);
  return hasEnd ? ids : [...ids, eosId];
}
