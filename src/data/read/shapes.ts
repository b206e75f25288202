// One record of a data file as a sample. Five shapes are recognised by their keys, without configuration:
//
//   {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}   a conversation
//   {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}       ShareGPT: the same
//   {"instruction": "...", "input": "...", "output": "..."}                                       Alpaca: one question, one answer
//   {"prompt": "...", "completion": "..."}                                                        only the completion is learned;
//                                                                                      either both texts or both lists of messages
//   {"text": "..."}                                                                               all of it is learned
//
// Other keys are ignored (data sets carry ids and scores), but for those that say "do not learn this". ShareGPT and Alpaca records may carry a "system" text.
// Anything else becomes one of these with a `map` function in the recipe (source.ts). Next: chat.ts and dataset.ts turn
// samples into tokens.

import { DataError } from "../../words/errors.ts";
import { formatValue } from "../../words/format.ts";
import { parseExact } from "../../io/exact-json.ts";
import type { Conversation, Message } from "../text/chat.ts";

/** What a model learns from; `where` is its `file:line`. */
export type Sample = { where: string } & (
  | ({ kind: "conversation" } & Conversation)
  | { kind: "prompt"; prompt: string; completion: string }
  | { kind: "text"; text: string }
);

const ROLES = ["system", "developer", "user", "assistant", "tool"];

/** The names that ShareGPT files give to the speakers. */
const SPEAKERS: Record<string, string> = {
  human: "user",
  gpt: "assistant",
  chatgpt: "assistant",
  bing: "assistant",
  bard: "assistant",
  model: "assistant",
  bot: "assistant",
  function_call: "assistant",
  observation: "tool",
  ...Object.fromEntries(ROLES.map((role) => [role, role])),
};

const SHAPES = [["messages"], ["conversations"], ["instruction", "output"], ["prompt", "completion"], ["text"]];

/** Every key that a shape may have. */
export const SHAPE_KEYS = [...SHAPES.flat(), "input", "system", "tools"];

/** The shapes in words, for messages. */
export const EXPECTED =
  '"messages", "conversations", "instruction" with "output", "prompt" with "completion", or "text"';

type Json = Record<string, unknown>;

/** The sample that a record holds; throws a `DataError` that says what was expected and what was found. */
export function toSample(value: unknown, where: string): Sample {
  const fail = (problem: string): never => {
    throw new DataError(`${where}: ${problem}`);
  };
  if (Array.isArray(value) && value.length > 0 && value.every(isMessage))
    return fail('a list of messages is no record; write {"messages": [...]}');
  if (!isRecord(value)) return fail(`expected a JSON object with ${EXPECTED} (was ${formatValue(value)})`);
  const has = (key: string) => value[key] !== undefined && value[key] !== null;
  let shapes = SHAPES.filter((keys) => keys.every(has));
  // Alpaca's own files carry the question and answer once more, as the text that Alpaca was trained on.
  if (has("instruction") && has("output")) shapes = shapes.filter(([key]) => key !== "text");
  if (shapes.length > 1)
    fail(`has ${shapes.map((keys) => keys.map(quoted).join(" with ")).join(" and ")}; keep one of them`);
  const media = MEDIA.find((key) => has(key) && !Bun.deepEquals(value[key], []));
  if (media !== undefined) fail(`has ${quoted(media)}, and ${TEXT_ALONE}`);
  const shape = shapes[0] ?? fail(noShape(value, has));
  const declined = Object.keys(value).find((key) => isDeclined(key, value[key], shape[0]!));
  if (declined !== undefined)
    fail(
      `${quoted(declined)} is ${formatValue(value[declined])}, so it is not to be learned; leave such records out: ` +
        `filter: (row) => row.${declined} !== ${formatValue(value[declined])} in a recipe`,
    );
  const tools = toolsOf(value, fail);
  if (hasHalf(tools))
    fail("tools have half of a surrogate pair, which is no character; write the whole one, or leave it out");
  const conversation = (messages: Message[]): Sample => ({
    where,
    kind: "conversation",
    messages: [...systemOf(value, shape[0]!, fail), ...messages],
    tools,
  });

  switch (shape[0]) {
    case "messages":
      return conversation(messagesOf(value, "messages", fail));
    case "conversations":
      return conversation(
        listOf(value, "conversations", fail).map((turn, i) => spoken(turn, `conversations[${i}]`, fail)),
      );
    case "instruction": {
      const instruction = textOf(value, "instruction", fail);
      const input = has("input") ? stringOf(value, "input", fail) : "";
      return conversation([
        { role: "user", content: input === "" ? instruction : `${instruction}\n\n${input}` },
        { role: "assistant", content: textOf(value, "output", fail) },
      ]);
    }
    case "prompt":
      if (Array.isArray(value["prompt"]) || Array.isArray(value["completion"]))
        return conversation([
          ...messagesOf(value, "prompt", fail).map((message) => ({ ...message, train: false })),
          ...messagesOf(value, "completion", fail),
        ]);
      return {
        where,
        kind: "prompt",
        prompt: stringOf(value, "prompt", fail),
        completion: textOf(value, "completion", fail),
      };
    default:
      return { where, kind: "text", text: textOf(value, "text", fail) };
  }
}

type Fail = (problem: string) => never;

function isRecord(value: unknown): value is Json {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

function quoted(key: string): string {
  return `"${key}"`;
}

function isMessage(value: unknown): boolean {
  return isRecord(value) && typeof value["role"] === "string";
}

/** Whether a key of a record means that what it holds is not to be learned: a bad answer, in sets of good and bad ones. */
function isDeclined(key: string, flag: unknown, shape: string): boolean {
  if (key === "weight") return isZero(flag);
  if (key === "label") return flag === false && shape !== "text"; // a text's label is what it is about
  return ["train", "training", "kto_tag"].includes(key) && flag === false;
}

function isZero(value: unknown): boolean {
  return (typeof value === "number" || typeof value === "bigint") && Number(value) === 0;
}

/** Descriptions of tools: a list, or a list as JSON text, as many data sets have it. */
function toolsOf({ tools }: Json, fail: Fail): unknown[] | undefined {
  if (tools === undefined || tools === null || tools === "") return undefined;
  const list = typeof tools === "string" ? parsed(tools, "tools", fail) : tools;
  return Array.isArray(list) ? list : fail(`tools must be a list (was ${formatValue(list)})`);
}

function parsed(text: string, name: string, fail: Fail): unknown {
  try {
    return parseExact(text);
  } catch (error) {
    return fail(`${name} must be JSON (${(error as Error).message}; was ${formatValue(text)})`);
  }
}

const MEDIA = ["image", "images", "video", "videos", "audio", "audios"];
const TEXT_ALONE =
  "Sluice trains on text alone; leave such records out (filter in a recipe), or take the text out of them";

/** A record without a shape: half of one, or none. */
function noShape(record: Json, has: (key: string) => boolean): string {
  const found = Object.keys(record).map(quoted).join(", ") || "no keys";
  const map = (to: string) => `map it to one of those in a recipe: map: (row) => (${to})`;
  if (has("chosen") && has("rejected"))
    return (
      'is preference data ("chosen" beside "rejected"), and Sluice trains on one answer: ' +
      map(
        isMessageList(record["chosen"]) ? "{ messages: row.chosen }" : "{ prompt: row.prompt, completion: row.chosen }",
      )
    );
  const empty = SHAPES.flat().find((key) => record[key] === null);
  if (
    empty !== undefined &&
    SHAPES.find((keys) => keys.includes(empty))!.every((key) => has(key) || record[key] === null)
  )
    return `${quoted(empty)} is null; leave the record out, or give it a value (found ${found})`;
  const nested = Object.entries(record).find(
    ([, value]) => Array.isArray(value) && value.length > 0 && value.every(isRecord),
  );
  if (nested !== undefined && !SHAPES.flat().some(has))
    return (
      `expected ${EXPECTED} (found ${found}); if the records are those in ${quoted(nested[0])}, ` +
      `take them out: jq -c '.${nested[0]}[]' OLD > NEW.jsonl`
    );
  if (["input_ids", "labels"].every(has)) return "is tokenized already; Sluice tokenizes texts, so give it those";
  const [ask, answer] = PAIRS.find((pair) => pair.every(has)) ?? [];
  if (ask !== undefined)
    return (
      `expected ${EXPECTED} (found ${found}); say what is what with columns: { prompt: "${ask}", completion: "${answer}" }, ` +
      `as in --data '{"path": FILE, "columns": {"prompt": "${ask}", "completion": "${answer}"}}'`
    );
  for (const pair of SHAPES.filter((keys) => keys.length === 2)) {
    const [one, other] = has(pair[0]!) ? pair : pair.toReversed();
    if (has(one!))
      return `${quoted(one!)} needs ${/^[aeiou]/.test(other!) ? "an" : "a"} ${quoted(other!)} (found ${found})`;
  }
  return `expected ${EXPECTED} (found ${found})`;
}

function isMessageList(value: unknown): boolean {
  return Array.isArray(value) && value.every(isMessage);
}

/** What other data sets call a question and its answer. */
const PAIRS = [
  ["question", "answer"],
  ["input", "output"],
  ["prompt", "response"],
  ["query", "response"],
  ["instruction", "response"],
];

function stringOf(record: Json, key: string, fail: Fail): string {
  const text = record[key];
  if (typeof text !== "string") return fail(`${key} must be a string (was ${formatValue(text)})`);
  return wellFormed(text, key, fail);
}

/** Whether a text, or one inside a value, has half of a surrogate pair. */
function hasHalf(value: unknown): boolean {
  if (typeof value === "string") return !value.isWellFormed();
  if (value === null || typeof value !== "object") return false;
  return Object.entries(value).some(([key, inside]) => hasHalf(key) || hasHalf(inside));
}

/** Half of a surrogate pair is no character: no tokenizer has it, and Python refuses it too. */
function wellFormed(text: string, name: string, fail: Fail): string {
  if (text.isWellFormed()) return text;
  const at = [...text].findIndex((character) => !character.isWellFormed());
  const code = [...text][at]!.charCodeAt(0).toString(16);
  return fail(
    `${name} has half of a surrogate pair, \\u${code}, at character ${at + 1}; write the whole character, or leave it out`,
  );
}

function textOf(record: Json, key: string, fail: Fail): string {
  return stringOf(record, key, fail) || fail(`${key} must not be empty`);
}

function listOf(record: Json, key: string, fail: Fail): unknown[] {
  const list = record[key];
  if (Array.isArray(list) && list.length > 0) return list;
  return fail(`${key} must be a list with at least one message (was ${formatValue(list)})`);
}

/** The "system" key of a ShareGPT or Alpaca record as a first message. */
function systemOf(record: Json, shape: string, fail: Fail): Message[] {
  if (shape === "messages" || record["system"] === undefined || record["system"] === null) return [];
  const content = stringOf(record, "system", fail);
  return content === "" ? [] : [{ role: "system", content }];
}

function messagesOf(record: Json, key: string, fail: Fail): Message[] {
  return listOf(record, key, fail).map((message, i) => checked(message, `${key}[${i}]`, fail));
}

/** Parts of a content that are all text, as the one text that templates make of them. */
function joinedParts(parts: unknown[], name: string, fail: Fail): string {
  const texts = parts.map((part, i) => {
    const { type, text } = (isRecord(part) ? part : {}) as { type?: unknown; text?: unknown };
    if (type === "text" && typeof text === "string") return text;
    if (typeof type === "string" && type !== "text")
      fail(`${name}[${i}] is of type ${quoted(type)}, and ${TEXT_ALONE}`);
    return fail(`${name}[${i}] must be a part such as {"type": "text", "text": "..."} (was ${formatValue(part)})`);
  });
  return texts.join("");
}

function checked(message: unknown, name: string, fail: Fail): Message {
  if (!isRecord(message)) return fail(`${name} must be an object with role and content (was ${formatValue(message)})`);
  const { role, content, tool_calls: calls } = message as unknown as Message;
  if (!ROLES.includes(role))
    fail(`${name}.role must be one of ${ROLES.map(quoted).join(", ")} (was ${formatValue(role)})`);
  checkFlags(message, name, fail);
  // An assistant that calls a tool says nothing else.
  const silent = (content === null || content === undefined) && Array.isArray(calls);
  if (Array.isArray(content) && content.length > 0) {
    const text = joinedParts(content, `${name}.content`, fail);
    return { ...(message as unknown as Message), content: wellFormed(text, `${name}.content`, fail) };
  }
  if (typeof content !== "string" && !silent) fail(`${name}.content must be a string (was ${formatValue(content)})`);
  if (typeof content === "string") wellFormed(content, `${name}.content`, fail);
  if (hasHalf(message))
    fail(`${name} has half of a surrogate pair, which is no character; write the whole one, or leave it out`);
  return message as unknown as Message;
}

/** Keys that say of a turn whether it is learned (chat.ts), and such as say of a part of it, which nobody does here. */
const FLAGS = ["train", "training", "loss"];
const PART_FLAGS = ["train_detail", "training_detail"];

function checkFlags(message: Json, name: string, fail: Fail): void {
  const { weight = 1 } = message;
  if (weight !== null && !isZero(weight) && Number(weight) !== 1)
    fail(`${name}.weight must be 0 or 1 (was ${formatValue(weight)}); a turn is learned, or it is not`);
  for (const key of FLAGS)
    if (message[key] !== undefined && message[key] !== null && typeof message[key] !== "boolean")
      fail(`${name}.${key} must be true or false (was ${formatValue(message[key])})`);
  const part = PART_FLAGS.find((key) => message[key] !== undefined && message[key] !== null);
  if (part !== undefined) fail(`${name}.${part}: parts of a turn cannot be left out; use train: false for all of it`);
}

/** A turn with `from` and `value`; some files with "conversations" write `role` and `content` instead. */
function spoken(turn: unknown, name: string, fail: Fail): Message {
  if (!isRecord(turn)) return fail(`${name} must be an object with from and value (was ${formatValue(turn)})`);
  if (turn["from"] === undefined && turn["role"] !== undefined) return checked(turn, name, fail);
  const { from, value } = turn;
  const role = typeof from === "string" && Object.hasOwn(SPEAKERS, from) ? SPEAKERS[from]! : undefined;
  if (role === undefined)
    return fail(
      `${name}.from must be one of ${Object.keys(SPEAKERS).map(quoted).join(", ")} (was ${formatValue(from)})`,
    );
  if (typeof value !== "string") return fail(`${name}.value must be a string (was ${formatValue(value)})`);
  checkFlags(turn, name, fail);
  const flags = Object.fromEntries(["weight", ...FLAGS].flatMap((key) => (key in turn ? [[key, turn[key]]] : [])));
  const text = wellFormed(value, `${name}.value`, fail);
  if (from !== "function_call") return { role, content: text, ...flags };
  const calls = [parsed(text, `${name}.value`, fail)].flat();
  const wrong = calls.find((call) => !isRecord(call) || typeof call["name"] !== "string");
  if (wrong !== undefined) fail(`${name}.value must be a call with name and arguments (was ${formatValue(wrong)})`);
  return { role, content: null, tool_calls: calls.map((call) => ({ type: "function", function: call })), ...flags };
}
