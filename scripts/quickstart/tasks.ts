// The quick start's data: questions about the letters of made-up words, each with one right answer.
//
// The words are random syllables, so there is nothing to look up and little to memorise: a model that answers
// held-out questions has learned to do the tasks. No held-out question occurs in the training set.

import type { Random } from "../../src/words/random.ts";

export interface Example {
  question: string;
  answer: string;
}

const vowels = "aeiou";
const consonants = "bcdfghjklmnpqrstvwxyz";

/** A whole number from `low` to `high`, both included. */
const between = (random: Random, low: number, high: number): number => low + random.below(high - low + 1);
const pick = <Item>(random: Random, items: ArrayLike<Item>): Item => items[random.below(items.length)]!;

/** A pronounceable word: vowels and consonants in turn. */
function word(random: Random, lengthMin: number, lengthMax: number): string {
  const length = between(random, lengthMin, lengthMax);
  const start = between(random, 0, 1);
  let text = "";
  for (let index = 0; index < length; index++) text += pick(random, (start + index) % 2 === 0 ? consonants : vowels);
  return text;
}

/** The tasks, each a function that makes one example. */
export const tasks: Record<string, (random: Random) => Example> = {
  backwards(random) {
    const text = word(random, 3, 6);
    return { question: `Write ${text} backwards.`, answer: [...text].reverse().join("") };
  },
  capitals(random) {
    const text = word(random, 3, 6);
    return { question: `Write ${text} in capitals.`, answer: text.toUpperCase() };
  },
  first(random) {
    const text = word(random, 4, 7);
    return { question: `What is the first letter of ${text}?`, answer: text[0]! };
  },
  last(random) {
    const text = word(random, 4, 7);
    return { question: `What is the last letter of ${text}?`, answer: text.at(-1)! };
  },
  length(random) {
    const text = word(random, 3, 7);
    return { question: `How many letters are in ${text}?`, answer: String(text.length) };
  },
  twice(random) {
    const text = word(random, 3, 4);
    return { question: `Write ${text} twice.`, answer: text + text };
  },
  sort(random) {
    const text = word(random, 3, 4);
    return { question: `Sort the letters of ${text}.`, answer: [...text].sort().join("") };
  },
  second(random) {
    const words = [word(random, 3, 3), word(random, 3, 3), word(random, 3, 3)];
    return { question: `What is the second word of ${words.join(" ")}?`, answer: words[1]! };
  },
  join(random) {
    const [left, right] = [word(random, 3, 4), word(random, 3, 4)];
    return { question: `Join ${left} and ${right}.`, answer: left + right };
  },
  vowels(random) {
    const text = word(random, 4, 6);
    return {
      question: `Write the vowels of ${text}.`,
      answer: [...text].filter((letter) => vowels.includes(letter)).join(""),
    };
  },
  dashes(random) {
    const text = word(random, 3, 5);
    return { question: `Write dashes between the letters of ${text}.`, answer: [...text].join("-") };
  },
  double(random) {
    const text = word(random, 3, 4);
    return {
      question: `Write each letter of ${text} twice.`,
      answer: [...text].map((letter) => letter + letter).join(""),
    };
  },
  longer(random) {
    const [left, right] = [word(random, 3, 4), word(random, 5, 6)];
    const words = between(random, 0, 1) ? [left, right] : [right, left];
    return { question: `Which is longer, ${words.join(" or ")}?`, answer: right };
  },
};
const names = Object.keys(tasks);

/** `count` examples with distinct questions, none of them in `taken`; adds their questions to `taken`. */
export function makeExamples(random: Random, count: number, taken: Set<string>): Example[] {
  const examples: Example[] = [];
  while (examples.length < count) {
    const example = tasks[pick(random, names)]!(random);
    if (taken.has(example.question)) continue;
    taken.add(example.question);
    examples.push(example);
  }
  return examples;
}
