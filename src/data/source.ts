// Training data as people keep it: JSON Lines, one sample per line, in one of three shapes.
//
//   {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}   a conversation
//   {"prompt": "...", "completion": "..."}                                                        only the completion is learned
//   {"text": "..."}                                                                               all of it is learned
//
// Other keys of a line are ignored (data sets carry ids and scores). Files are read as a stream; a line that is not a
// sample stops the run with `file:line:`, what was expected and what was found, because a dropped line is never missed.
// Next: chat.ts and dataset.ts turn samples into tokens.

import { stat } from "node:fs/promises";
import { DataError } from "../errors.ts";
import { formatValue } from "../format.ts";
import type { Conversation, Message } from "./chat.ts";

/** One line of a data file; `where` is its `file:line`. */
export type Sample = { where: string } & (
  | ({ kind: "conversation" } & Conversation)
  | { kind: "prompt"; prompt: string; completion: string }
  | { kind: "text"; text: string }
);

const ROLES = ["system", "developer", "user", "assistant", "tool"];
const SHAPES = [["messages"], ["prompt", "completion"], ["text"]];
const EXPECTED = '"messages", "prompt" with "completion", or "text"';

/** The samples of some files, in order; throws a `DataError` at the first line that is not one. */
export async function* readSamples(paths: string | readonly string[]): AsyncGenerator<Sample> {
  for (const path of [paths].flat()) {
    let samples = 0;
    let line = 0;
    for await (const bytes of readLines(path)) {
      const where = `${path}:${++line}`;
      const text = decodeUtf8(bytes, where);
      if (text.trim() === "") continue;
      yield parseSample(text, where);
      samples++;
    }
    if (samples === 0) throw new DataError(`${path}: no samples; expected one JSON object per line with ${EXPECTED}`);
  }
}

/** The lines of a file as bytes, without their newlines. */
async function* readLines(path: string): AsyncGenerator<Uint8Array> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    throw new DataError(
      `${path}: ${error.code === "ENOENT" ? "no such file" : error.message}; data takes paths of JSONL files`,
    );
  });
  if (found.isDirectory()) throw new DataError(`${path}: is a directory; data takes paths of JSONL files`);
  let rest: Uint8Array = new Uint8Array();
  for await (const chunk of Bun.file(path).stream()) {
    const bytes = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk;
    let from = 0;
    for (let end = bytes.indexOf(10); end !== -1; end = bytes.indexOf(10, from)) {
      yield bytes.subarray(from, end);
      from = end + 1;
    }
    rest = bytes.subarray(from);
  }
  if (rest.length > 0) yield rest;
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

function decodeUtf8(bytes: Uint8Array, where: string): string {
  try {
    return utf8.decode(bytes);
  } catch {
    throw new DataError(`${where}: not valid UTF-8; save the file as UTF-8`);
  }
}

/** One line as a sample. */
export function parseSample(line: string, where: string): Sample {
  const fail = (problem: string): never => {
    throw new DataError(`${where}: ${problem}`);
  };
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    fail(`not valid JSON (${(error as Error).message}); expected one JSON object per line`);
  }
  if (value === null || typeof value !== "object" || Array.isArray(value))
    return fail(`expected a JSON object with ${EXPECTED} (was ${formatValue(value)})`);
  const record = value as Record<string, unknown>;
  const has = (key: string) => record[key] !== undefined && record[key] !== null;
  const shapes = SHAPES.filter((keys) => keys.every(has));
  if (shapes.length > 1)
    fail(`has ${shapes.map((keys) => keys.map((key) => `"${key}"`).join(" with ")).join(" and ")}; keep one of them`);
  if (shapes.length === 0) {
    for (const [one, other] of [
      ["prompt", "completion"],
      ["completion", "prompt"],
    ] as const)
      if (has(one))
        fail(
          `"${one}" needs a "${other}" (found ${Object.keys(record)
            .map((key) => `"${key}"`)
            .join(", ")})`,
        );
    fail(
      `expected ${EXPECTED} (found ${
        Object.keys(record)
          .map((key) => `"${key}"`)
          .join(", ") || "no keys"
      })`,
    );
  }
  const { messages, tools, prompt, completion, text } = record;
  if (has("messages")) {
    const problem =
      messagesProblem(messages) ?? (has("tools") && !Array.isArray(tools) ? "tools must be a list" : undefined);
    if (problem) fail(problem);
    return {
      where,
      kind: "conversation",
      messages: messages as Message[],
      tools: (tools as unknown[] | null) ?? undefined,
    };
  }
  for (const key of shapes[0]!) {
    const text = record[key];
    if (typeof text !== "string") fail(`${key} must be a string (was ${formatValue(text)})`);
    if (text === "" && key !== "prompt") fail(`${key} must not be empty`);
  }
  return has("text")
    ? { where, kind: "text", text: text as string }
    : { where, kind: "prompt", prompt: prompt as string, completion: completion as string };
}

function messagesProblem(messages: unknown): string | undefined {
  if (!Array.isArray(messages) || messages.length === 0)
    return `messages must be a list with at least one message (was ${formatValue(messages)})`;
  for (const [index, message] of messages.entries()) {
    const name = `messages[${index}]`;
    if (message === null || typeof message !== "object" || Array.isArray(message))
      return `${name} must be an object with role and content (was ${formatValue(message)})`;
    const { role, content, tool_calls: calls } = message as Message;
    if (!ROLES.includes(role))
      return `${name}.role must be one of ${ROLES.map((known) => `"${known}"`).join(", ")} (was ${formatValue(role)})`;
    // An assistant that calls a tool says nothing else.
    const silent = (content === null || content === undefined) && Array.isArray(calls);
    if (typeof content !== "string" && !silent) return `${name}.content must be a string (was ${formatValue(content)})`;
  }
  return undefined;
}
