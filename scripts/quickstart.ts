// Makes what the quick start trains on, without a download: a small model with random weights, its tokenizer, and
// questions with answers, split into a training and a held-out file. The same seed makes the same bytes. It takes a
// fraction of a second, so it simply makes everything anew each time. Next: quickstart/tasks.ts, the questions.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { Random } from "../src/words/random.ts";
import { makeModel } from "./quickstart/model.ts";
import { type Example, makeExamples } from "./quickstart/tasks.ts";
import { makeTokenizer } from "./quickstart/tokenizer.ts";

export interface Quickstart {
  /** A Hugging Face model directory. */
  model: string;
  /** JSONL files, one `{"messages": [...]}` a line. */
  train: string;
  heldout: string;
}

const trainCount = 16_000;
const heldoutCount = 256;

/** Writes `model/`, `train.jsonl` and `heldout.jsonl` into `directory`. */
export async function makeQuickstart(directory: string, { seed }: { seed: number }): Promise<Quickstart> {
  const random = new Random(seed);
  const questions = new Set<string>();
  const heldout = makeExamples(random, heldoutCount, questions);
  const train = makeExamples(random, trainCount, questions);
  const tokenizer = makeTokenizer(train.map((example) => example.question));

  const paths = {
    model: join(directory, "model"),
    train: join(directory, "train.jsonl"),
    heldout: join(directory, "heldout.jsonl"),
  };
  mkdirSync(paths.model, { recursive: true });
  for (const [name, contents] of Object.entries(makeModel(random, tokenizer)))
    await Bun.write(join(paths.model, name), contents);
  await Bun.write(paths.train, jsonl(train));
  await Bun.write(paths.heldout, jsonl(heldout));
  return paths;
}

function jsonl(examples: Example[]): string {
  const lines = examples.map(({ question, answer }) => {
    const messages = [
      { role: "user", content: question },
      { role: "assistant", content: answer },
    ];
    return JSON.stringify({ messages }) + "\n";
  });
  return lines.join("");
}
