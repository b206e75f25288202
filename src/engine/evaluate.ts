// Looking at a model from outside: loss and perplexity on a file, and how many answers it gets exactly right.

import { findSources, listSources, readSamples, type DataInput } from "../data/read/source.ts";
import type { ChatLoss, Message } from "../data/text/chat.ts";
import { ConfigError, DataError } from "../words/errors.ts";
import type { GenerateOptions } from "./generate.ts";
import type { Model } from "./model.ts";

/** What `evaluate` may be told. */
export interface EvaluateOptions {
  /** The longest row, in tokens; default 1024, or the model's positions when it has fewer. */
  sequenceLength?: number;
  /** Which tokens of conversations count; default "assistant". */
  loss?: ChatLoss;
}

/** Mean loss and perplexity over the tokens of some data that count. */
export async function evaluate(
  model: Model,
  data: DataInput,
  options: EvaluateOptions = {},
): Promise<{ loss: number; perplexity: number; validTokens: number }> {
  const { sequenceLength = Math.min(1024, model.config.maxPositions), loss: counted = "assistant" } = options;
  if (!Number.isInteger(sequenceLength) || sequenceLength < 2)
    throw new ConfigError(`sequenceLength must be a whole number >= 2 (was ${sequenceLength})`);
  const dataset = await model.dataset(await findSources(data, "evaluation"), { sequenceLength, loss: counted });
  const batch = { sequenceLength, batchSize: 1, microBatchTokens: sequenceLength, gradientAccumulation: 1 };
  const { loss, validTokens } = await model.loss(dataset, batch);
  return { loss, perplexity: Math.exp(loss), validTokens };
}

/** A question of a file with the answer written there and the one that the model gave. */
export interface Answer {
  question: string;
  expected: string;
  answer: string;
}

/** Answers the last question of every conversation in some data; `share` of the answers are exactly as written there. */
export async function exactMatch(
  model: Model,
  data: DataInput,
  options: GenerateOptions = {},
): Promise<{ share: number; answers: Answer[] }> {
  const asked: { prompt: Message[]; expected: string }[] = [];
  for (const source of listSources(data)) {
    for await (const sample of readSamples(source, "evaluation")) {
      const last = sample.kind === "conversation" ? sample.messages.at(-1) : undefined;
      if (sample.kind !== "conversation" || last?.role !== "assistant")
        throw new DataError(`${sample.where}: exact match needs conversations that end with the assistant's answer`);
      asked.push({ prompt: sample.messages.slice(0, -1), expected: String(last.content) });
    }
  }
  const texts = await model.generate(
    asked.map(({ prompt }) => prompt),
    options,
  );
  const answers = asked.map(({ prompt, expected }, index) => ({
    question: String(prompt.at(-1)!.content),
    expected,
    answer: texts[index]!,
  }));
  const right = answers.filter(({ expected, answer }) => answer.trim() === expected.trim()).length;
  return { share: right / answers.length, answers };
}
