// Where an answer ends: the ids that a model's files name as ends, and the one that its chat template writes behind an answer,
// which a model learns from chats and may name nowhere. (A base model ends texts with <|endoftext|>, say; taught with a template
// that ends turns with <|im_end|> it would answer, end, and go on as the next speaker.)

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ChatTemplate } from "../data/text/chat.ts";
import type { Tokenizer } from "../data/text/tokenizer.ts";
import { parseJson } from "../io/json.ts";
import type { DecoderConfig } from "../models/config.ts";
import { DataError, ModelError } from "../words/errors.ts";

/** A model as far as its ends go. */
interface Ending {
  directory: string;
  config: Pick<DecoderConfig, "eosIds">;
}

/** What is known of how answers end. */
export interface Stops {
  /** Ids that config.json, generation_config.json and the tokenizer name. */
  named: Set<number>;
  /** The id that the chat template writes behind an answer, if it is none of those. */
  learned: number | undefined;
  /** The sentence for somebody who trains on chats, when that is so or when the template writes no end at all. */
  note: string | undefined;
}

/** The ends of a model with its tokenizer. */
export function stopsOf({ directory, config }: Ending, tokenizer: Tokenizer): Stops {
  const named = new Set(config.eosIds);
  if (tokenizer.eosId !== undefined) named.add(tokenizer.eosId);
  for (const id of generationEnds(directory) ?? []) named.add(id);
  const behind = behindAnswer(tokenizer);
  if (behind === undefined || behind.ids.some((id) => named.has(id)))
    return { named, learned: undefined, note: undefined };
  const learned = behind.ids.find((id) => tokenizer.isAdded(id));
  const note =
    learned === undefined
      ? `${directory}: the chat template writes ${behind.text === "" ? "nothing" : JSON.stringify(behind.text)} behind an answer and no special token, ` +
        `so from chats the model does not learn to stop; let the template end answers with ${JSON.stringify(tokenizer.specialTokens["eos_token"] ?? "eos_token")}`
      : `${directory}: the chat template ends answers with ${JSON.stringify(tokenizer.tokenOf(learned))} (${learned}), which neither config.json nor ` +
        `generation_config.json nor the tokenizer names as an end; answers stop there, and an exported generation_config.json names it`;
  return { named, learned, note };
}

/** `eos_token_id` of generation_config.json, as a list. */
export function generationEnds(directory: string): number[] | undefined {
  const path = join(directory, "generation_config.json");
  if (!existsSync(path)) return undefined;
  const { eos_token_id: ids } = parseJson(readFileSync(path, "utf8")) as { eos_token_id?: number | number[] | null };
  return ids === undefined || ids === null ? undefined : [ids].flat();
}

/** What the template writes behind an answer; undefined without a template, or if it cannot be told. */
function behindAnswer(tokenizer: Tokenizer): { text: string; ids: number[] } | undefined {
  const answer = "An answer";
  const messages = [
    { role: "user", content: "A question" },
    { role: "assistant", content: answer },
  ];
  try {
    const text = new ChatTemplate(tokenizer).render({ messages }, { generationPrompt: false });
    const at = text.lastIndexOf(answer);
    if (at === -1) return undefined;
    const end = at + answer.length;
    const { ids, before } = tokenizer.encodeWithPlaces(text, [end]);
    return { text: text.slice(end), ids: ids.slice(before[0]) };
  } catch (error) {
    if (error instanceof DataError || error instanceof ModelError) return undefined; // who needs the template is told
    throw error;
  }
}
