// One record of a data file as a sample. Five shapes are recognised by their keys, without configuration:
//
//   {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}   a conversation
//   {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}       ShareGPT: the same
//   {"instruction": "...", "input": "...", "output": "..."}                                       Alpaca: one question, one answer
//   {"prompt": "...", "completion": "..."}                                                        only the completion is learned
//   {"text": "..."}                                                                               all of it is learned
//
// Other keys are ignored (data sets carry ids and scores). ShareGPT and Alpaca records may carry a "system" text.
// Anything else becomes one of these with a `map` function in the recipe (source.ts). Next: chat.ts and dataset.ts turn
// samples into tokens.

import { DataError } from "../../words/errors.ts";
import { formatValue } from "../../words/format.ts";
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
  observation: "tool",
  ...Object.fromEntries(ROLES.map((role) => [role, role])),
};

const SHAPES = [["messages"], ["conversations"], ["instruction", "output"], ["prompt", "completion"], ["text"]];

/** The shapes in words, for messages. */
export const EXPECTED =
  '"messages", "conversations", "instruction" with "output", "prompt" with "completion", or "text"';

type Json = Record<string, unknown>;

/** The sample that a record holds; throws a `DataError` that says what was expected and what was found. */
export function toSample(value: unknown, where: string): Sample {
  const fail = (problem: string): never => {
    throw new DataError(`${where}: ${problem}`);
  };
  if (!isRecord(value)) return fail(`expected a JSON object with ${EXPECTED} (was ${formatValue(value)})`);
  const has = (key: string) => value[key] !== undefined && value[key] !== null;
  let shapes = SHAPES.filter((keys) => keys.every(has));
  // Alpaca's own files carry the question and answer once more, as the text that Alpaca was trained on.
  if (has("instruction") && has("output")) shapes = shapes.filter(([key]) => key !== "text");
  if (shapes.length > 1)
    fail(`has ${shapes.map((keys) => keys.map(quoted).join(" with ")).join(" and ")}; keep one of them`);
  const shape = shapes[0] ?? fail(noShape(value, has));
  const { tools } = value;
  if (has("tools") && !Array.isArray(tools)) fail("tools must be a list");
  const conversation = (messages: Message[]): Sample => ({
    where,
    kind: "conversation",
    messages: [...systemOf(value, shape[0]!, fail), ...messages],
    tools: (tools as unknown[] | null) ?? undefined,
  });

  switch (shape[0]) {
    case "messages":
      return conversation(
        listOf(value, "messages", fail).map((message, i) => checked(message, `messages[${i}]`, fail)),
      );
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

/** A record without a shape: half of one, or none. */
function noShape(record: Json, has: (key: string) => boolean): string {
  const found = Object.keys(record).map(quoted).join(", ") || "no keys";
  for (const pair of SHAPES.filter((keys) => keys.length === 2)) {
    const [one, other] = has(pair[0]!) ? pair : pair.toReversed();
    if (has(one!))
      return `${quoted(one!)} needs ${/^[aeiou]/.test(other!) ? "an" : "a"} ${quoted(other!)} (found ${found})`;
  }
  return `expected ${EXPECTED} (found ${found})`;
}

function stringOf(record: Json, key: string, fail: Fail): string {
  const text = record[key];
  return typeof text === "string" ? text : fail(`${key} must be a string (was ${formatValue(text)})`);
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

function checked(message: unknown, name: string, fail: Fail): Message {
  if (!isRecord(message)) return fail(`${name} must be an object with role and content (was ${formatValue(message)})`);
  const { role, content, tool_calls: calls } = message as unknown as Message;
  if (!ROLES.includes(role))
    fail(`${name}.role must be one of ${ROLES.map(quoted).join(", ")} (was ${formatValue(role)})`);
  // An assistant that calls a tool says nothing else.
  const silent = (content === null || content === undefined) && Array.isArray(calls);
  if (typeof content !== "string" && !silent) fail(`${name}.content must be a string (was ${formatValue(content)})`);
  return message as unknown as Message;
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
  return { role, content: value };
}
