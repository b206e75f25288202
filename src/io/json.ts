// JSON as the world hands it to us. `JSON.parse` keeps the last of two equal keys and says nothing; in a safetensors
// header or a config.json that would hide damage, so duplicates are looked for. Errors are plain `Error`s whose message
// completes a sentence ("... is not valid JSON: Unexpected end"); callers put the file's name in front.

import { parseExact } from "./exact-json.ts";

/** The value of `text`, of which nothing is lost that exact-json.ts knows about. Throws an `Error` when it is not JSON or an object has the same key twice. */
export function parseJson(text: string): unknown {
  let value: unknown;
  try {
    value = parseExact(text);
  } catch (cause) {
    throw new Error(`is not valid JSON: ${(cause as Error).message}`);
  }
  const duplicate = duplicateKey(text);
  if (duplicate !== undefined) throw new Error(`has the key ${JSON.stringify(duplicate)} twice`);
  return value;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The first key that one object of (valid) JSON text has twice. */
function duplicateKey(text: string): string | undefined {
  const open: (Set<string> | undefined)[] = []; // keys seen so far in each open object; undefined for an array
  for (let at = 0; at < text.length; at++) {
    const character = text[at];
    if (character === "{") open.push(new Set());
    else if (character === "[") open.push(undefined);
    else if (character === "}" || character === "]") open.pop();
    else if (character === '"') {
      const start = at;
      for (at++; text[at] !== '"'; at++) if (text[at] === "\\") at++;
      let next = at + 1;
      while (" \t\r\n".includes(text[next] ?? "x")) next++;
      if (text[next] !== ":") continue; // a value, not a key
      const key = JSON.parse(text.slice(start, at + 1)) as string; // so that "a" and "\u0061" are the same key
      const keys = open.at(-1);
      if (keys?.has(key)) return key;
      keys?.add(key);
    }
  }
  return undefined;
}
