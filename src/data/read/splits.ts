// Which part of a source is meant: the files of a split ("train"), some of the records ("[:90%]"), or both.
//
// Data sets come in splits, told by a word in the names of their files and folders. Whoever names a data set to train on means
// `train`, and whoever names it to evaluate on means `validation`: that is taken, and said. Training on a test set unawares is a
// mistake that no loss curve shows.

import { existsSync } from "node:fs";
import { dirname } from "node:path";
import { DataError } from "../../words/errors.ts";
import { remark } from "../../words/remark.ts";
import { endingOf, TEXTS } from "./format.ts";

/** What data is read for. */
export type Purpose = "training" | "evaluation";

export interface Split {
  name: string | undefined;
  /** From 0 to 1. */
  from: number;
  to: number;
}

/** A name, a cut, or both. */
export const splitPattern = /^([\w-]+)?(?:\[(?:(\d+(?:\.\d+)?)%)?:(?:(\d+(?:\.\d+)?)%)?\])?$/;

export function parseSplit(text: string | undefined): Split {
  const [, name, from = "0", to = "100"] = splitPattern.exec(text ?? "") ?? [];
  return { name, from: Number(from) / 100, to: Number(to) / 100 };
}

/** Whether a text is a split that has something in it. */
export function isSplit(text: unknown): boolean {
  const { from, to } = parseSplit(String(text));
  return typeof text === "string" && text !== "" && splitPattern.test(text) && from < to && to <= 1;
}

/** A path and the split behind it, as in `PATH:train`, `PATH[:90%]` and `PATH:train[:90%]`; a file of that name comes first. */
export function splitOff(text: string): { path: string; split?: string } {
  const [, path, name = "", cut = ""] = /^(.+?)(?::([A-Za-z][\w-]*))?(\[[\d.%]*:[\d.%]*\])?$/.exec(text) ?? [];
  if (path === undefined || path === text || existsSync(text)) return { path: text };
  const split = name + cut;
  if (!isSplit(split))
    throw new DataError(`${text}: "${split}" is no part of a file; write PATH:train, PATH[:90%] or PATH:train[:90%]`);
  return { path, split };
}

/** Multiples of the golden ratio fall evenly everywhere: any run of records is cut in nearly the same proportion. */
export function isInSplit(index: number, { from, to }: Split): boolean {
  const place = (index * 0.6180339887498949) % 1;
  return place >= from && place < to;
}

/** A share such as "5%", which is kept from the data for evaluation; undefined for anything else. */
export function shareOf(text: unknown): number | undefined {
  const [, percent] = /^(\d+(?:\.\d+)?)%$/.exec(typeof text === "string" ? text : "") ?? [];
  return percent === undefined ? undefined : Number(percent) / 100;
}

/** A split in two: what is left of it, and a share of its end. */
export function keepShare(split: string | undefined, share: number): { rest: string; kept: string } {
  const { name = "", from, to } = parseSplit(split);
  const percent = (part: number) => `${Number((100 * part).toFixed(6))}%`;
  const cut = percent(to - (to - from) * share);
  return { rest: `${name}[${percent(from)}:${cut}]`, kept: `${name}[${cut}:${percent(to)}]` };
}

// ---- files of a split -----------------------------------------------------------------------------------------------

const WORDS = {
  train: "train(?:ing)?",
  validation: "valid(?:ation)?|val|dev|held[-_]?out|holdout",
  test: "test(?:ing)?|eval(?:uation)?",
};
type Known = keyof typeof WORDS;

const wordPattern = (word: string) => new RegExp(`(?:^|[^a-z0-9])(?:${word})(?=[^a-z0-9]|$)`, "gi");

/** The files of a source that are meant; `isWhole`: nobody chose among the files of a folder or a data set. */
export function filesOfSplit(
  files: string[],
  { path, name, purpose, isWhole }: { path: string; name: string | undefined; purpose: Purpose; isWhole: boolean },
): string[] {
  const base = path.replace(/[^/\\]*[*?[{].*$/, ""); // a folder above the source may have any name
  const below = (file: string) => (file.startsWith(base) && file !== path ? file.slice(base.length) : file);
  if (name === undefined) return isWhole ? splitFor(purpose, files, path, below) : files;
  const chosen = files.filter((file) => wordPattern(name).test(below(file)));
  if (chosen.length > 0) return chosen;
  throw new DataError(
    `${path}: no file has "${name}" in its name (found ${files.slice(0, 5).join(", ")}); use another split, or a cut such as "[:90%]"`,
  );
}

/** Of files in splits, those for a purpose. Files without a word are `train` where no file has that one. */
function splitFor(purpose: Purpose, files: string[], path: string, below: (file: string) => string): string[] {
  // A text's own name is a title.
  const named = (file: string) => (TEXTS.includes(endingOf(file)) ? dirname(below(file)) : below(file));
  const splits = Map.groupBy(files, (file) => knownSplit(named(file)));
  const unnamed = splits.get(undefined);
  if (unnamed !== undefined && splits.size > 1 && !splits.has("train")) splits.set("train", unnamed);
  splits.delete(undefined);
  if (splits.size < 2) return files;
  const wanted: Known[] = purpose === "training" ? ["train"] : ["validation", "test"];
  const taken = wanted.find((split) => splits.has(split));
  const others = [...splits.keys()].filter((split) => split !== taken);
  if (taken === undefined)
    throw new DataError(
      `${path}: has the splits ${others.join(" and ")} and none to train on; name one, as in ${path}:${others[0]}`,
    );
  const count = splits.get(taken)!.length;
  const use = purpose === "training" ? `--evaluationData ${path}:${others[0]}` : `${path}:${others[0]}`;
  remark(
    `${path}: has the splits ${[taken, ...others].join(", ")}; ${taken} is taken (${count} of ${files.length} files), ` +
      `another is named as in ${use}`,
  );
  return splits.get(taken)!;
}

/** The split that the last word of a name says. */
function knownSplit(name: string): Known | undefined {
  const last = (split: Known) => [...name.matchAll(wordPattern(WORDS[split]))].at(-1)?.index ?? -1;
  const found = (Object.keys(WORDS) as Known[]).toSorted((a, b) => last(b) - last(a))[0]!;
  return last(found) === -1 ? undefined : found;
}
