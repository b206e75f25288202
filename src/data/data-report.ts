// What the model will see of some data, as text: what `sluice data FILE` prints.
//
// Samples first, as tokens: those that count in the loss are green, the others dim, and a token border is a thin bar; without
// colour the counting tokens stand in [brackets]. Then the numbers: documents, tokens, how long documents are, how full
// rows will be, and every line that is truncated, dropped or malformed. It reads the whole data, in one thread, and
// tokenizes it as training does (encode.ts), so what it says is what training does.

import { stripVTControlCharacters, styleText } from "node:util";
import { DataError } from "../words/errors.ts";
import { formatCount } from "../words/format.ts";
import { remark } from "../words/remark.ts";
import { noCounts } from "./batch.ts";
import { Encoder, IGNORED, type Encoded, type EncodeOptions } from "./text/encode.ts";
import { pack, packingWaste } from "./pack.ts";
import { listSources, readItems, sourceFiles, type DataInput } from "./read/source.ts";
import type { Tokenizer } from "./text/tokenizer.ts";

/** How `describeData` tokenizes and shows. */
export interface DescribeOptions extends EncodeOptions {
  /** How many samples are shown as tokens; default 2. */
  shown?: number;
  /** Write colours; default: what the terminal and NO_COLOR say. */
  color?: boolean;
  /** Gets the facts as well. */
  onFacts?: (facts: DataDescription) => void;
}

/** The same facts for a machine (`--json`). */
export interface DataDescription {
  samples: number;
  documents: number;
  tokens: number;
  validTokens: number;
  /** Tokens of the shortest, the middle and the longest document. */
  lengths: { min: number; median: number; max: number };
  /** Documents by length: those of at most `to` tokens that are no part of the row above. */
  histogram: { to: number; documents: number }[];
  /** Rows of an epoch, and the share of their room that no document fills. */
  rows: number;
  rowsUnused: number;
  truncated: Lines;
  /** Tokens that truncation takes away. */
  lostTokens: number;
  dropped: Lines;
  bad: Lines;
}

/** How often something happens, and the first places where it does. */
export interface Lines {
  count: number;
  first: string[];
}

/** Places that are listed of each kind. */
const PLACES_MAX = 10;
/** Tokens that are shown of one sample. */
const TOKENS_MAX = 400;

/** What the model will see, as text for a person. Throws a `DataError` if a source cannot be read at all. */
export async function describeData(input: DataInput, tokenizer: Tokenizer, options: DescribeOptions): Promise<string> {
  const { shown = 2, color = Bun.enableANSIColors } = options;
  const samples: string[] = [];
  const show = (where: string, { documents }: Encoded) => {
    if (samples.length >= shown || documents.length === 0) return;
    samples.push(`${where}\n${tokensAsText(tokenizer, documents[0]!, color)}`);
  };
  const facts = await measureData(input, tokenizer, { ...options, onSample: show });
  options.onFacts?.(facts);
  return [...samples, numbersAsText(facts, options.sequenceLength)].join("\n\n");
}

/** The facts of `describeData`; `onSample` gets each sample's place and documents. */
export async function measureData(
  input: DataInput,
  tokenizer: Tokenizer,
  { sequenceLength, loss, onSample }: EncodeOptions & { onSample?: (where: string, encoded: Encoded) => void },
): Promise<DataDescription> {
  const encoder = new Encoder(tokenizer, { sequenceLength, loss });
  const counts = noCounts();
  const lengths: number[] = [];
  const lines = { truncated: noLines(), dropped: noLines(), bad: noLines() };
  let lostTokens = 0;
  for (const source of listSources(input)) {
    for await (const item of readItems(source, await sourceFiles(source))) {
      if ("problem" in item) {
        addLine(lines.bad, item.problem);
        continue;
      }
      let encoded: Encoded;
      try {
        encoded = encoder.encode(item);
      } catch (error) {
        if (!(error instanceof DataError)) throw error;
        addLine(lines.bad, error.message);
        continue;
      }
      for (const [kind, line] of encoder.takeRemarks()) remark(line, kind);
      counts.samples++;
      lostTokens += encoded.lostTokens;
      for (const { ids, valid } of encoded.documents) {
        lengths.push(ids.length);
        counts.validTokens += valid;
      }
      if (encoded.truncated > 0)
        addLine(lines.truncated, `${item.where}: loses ${encoded.lostTokens} tokens at its end`);
      if (encoded.dropped > 0)
        addLine(lines.dropped, `${item.where}: no token that counts is among the first ${sequenceLength}`);
      onSample?.(item.where, encoded);
    }
  }
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  const rows = pack(
    lengths,
    Uint32Array.from(lengths, (_, document) => document),
    sequenceLength,
  ).length;
  const { samples, validTokens } = counts;
  const documents = lengths.length;
  return {
    samples,
    documents,
    tokens,
    validTokens,
    ...lengthFacts(lengths, sequenceLength),
    rows,
    rowsUnused: packingWaste(tokens, rows, sequenceLength),
    ...lines,
    lostTokens,
  };
}

function noLines(): Lines {
  return { count: 0, first: [] };
}

function addLine(lines: Lines, line: string): void {
  lines.count++;
  if (lines.first.length < PLACES_MAX) lines.first.push(line);
}

/** Lengths in eight classes up to a full row. */
function lengthFacts(lengths: number[], sequenceLength: number): Pick<DataDescription, "lengths" | "histogram"> {
  const sorted = lengths.toSorted((a, b) => a - b);
  const classes = Math.min(8, sequenceLength);
  const histogram = Array.from({ length: classes }, (_, i) => ({
    to: Math.round((sequenceLength * (i + 1)) / classes),
    documents: 0,
  }));
  for (const length of lengths) histogram.find(({ to }) => length <= to)!.documents++;
  const [min = 0, median = 0, max = 0] = [sorted[0], sorted[sorted.length >> 1], sorted.at(-1)];
  return { lengths: { min, median, max }, histogram };
}

// ---- as text --------------------------------------------------------------------------------------------------------

/** A document's tokens. The loss looks at labels, so a token counts when the one before it has it as its label. */
function tokensAsText(tokenizer: Tokenizer, { ids, labels }: Encoded["documents"][number], color: boolean): string {
  const parts = ids.slice(0, TOKENS_MAX).map((id, i) => {
    const counts = i > 0 && labels[i - 1] !== IGNORED;
    // A token may be a part of a letter; what a terminal would obey is shown and not sent.
    const text = stripVTControlCharacters(tokenizer.decode([id], { skipSpecial: false }))
      .replaceAll("\n", "⏎\n")
      // oxlint-disable-next-line no-control-regex -- these are what must not reach the terminal
      .replace(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/g, "·");
    if (color) return styleText(counts ? "green" : "dim", text, { validateStream: false });
    return counts ? `[${text}]` : text;
  });
  const more = ids.length - TOKENS_MAX;
  return (
    parts.join(color ? styleText("dim", "│", { validateStream: false }) : "") +
    (more > 0 ? `\n... and ${more} tokens more` : "")
  );
}

function numbersAsText(facts: DataDescription, sequenceLength: number): string {
  const { samples, documents, tokens, validTokens, lengths, histogram, rows, rowsUnused, lostTokens } = facts;
  const share = (part: number, whole: number) => `${((100 * part) / Math.max(1, whole)).toFixed(1)} %`;
  const most = Math.max(1, ...histogram.map((bin) => bin.documents));
  const width = String(sequenceLength).length;
  const bars = histogram.map(({ to, documents: count }) => {
    const bar = "█".repeat(Math.ceil((30 * count) / most)).padEnd(30);
    return `  up to ${String(to).padStart(width)}  ${bar} ${count}`;
  });
  return [
    `${formatCount(samples)} samples, ${formatCount(documents)} documents, ${formatCount(tokens)} tokens; ` +
      `${formatCount(validTokens)} count (${share(validTokens, tokens)})`,
    ...(documents === 0
      ? []
      : [
          `tokens per document: ${lengths.min} to ${lengths.max}, half have at most ${lengths.median}`,
          ...bars,
          `packed into ${formatCount(rows)} rows of ${sequenceLength}, ${(100 * rowsUnused).toFixed(1)} % of their room unused`,
        ]),
    ...linesAsText(
      "truncated",
      facts.truncated,
      `, ${formatCount(lostTokens)} tokens lost; a longer sequenceLength keeps them`,
    ),
    ...linesAsText("dropped", facts.dropped, ", nothing in them would be learned"),
    ...linesAsText("malformed", facts.bad, "; training stops at them unless maxBadLines allows for so many"),
  ].join("\n");
}

function linesAsText(what: string, { count, first }: Lines, meaning: string): string[] {
  if (count === 0) return [];
  const more = count - first.length;
  return [
    `${formatCount(count)} ${what}${meaning}`,
    ...first.map((line) => `  ${line}`),
    ...(more > 0 ? [`  ... and ${more} more`] : []),
  ];
}
