// What the files beside tokenizer.json say about tokens, read as transformers' AutoTokenizer reads them:
//
// - tokenizer_config.json names the special tokens (`eos_token`, ...: a text or an object), may list further added tokens
//   (`added_tokens_decoder`) and may hold chat templates, one or several by name;
// - without an `added_tokens_decoder`, special_tokens_map.json overrules the names and added_tokens.json adds tokens, as
//   directories of before 2023 have it;
// - chat_template.jinja and additional_chat_templates/NAME.jinja overrule the templates of tokenizer_config.json, all of them.

import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { ModelError } from "../../words/errors.ts";
import { explainFileError } from "../../io/atomic.ts";
import type { AddedToken } from "./added-tokens.ts";
import { UnsupportedError } from "./pattern.ts";

export type Json = Record<string, unknown>;

/** The files of a directory. */
export interface TokenFiles {
  tokenizer: Json;
  config: Json;
  specialTokensMap?: Json;
  addedTokens?: Json;
  /** Chat templates that are files, by name. */
  templates?: Record<string, string>;
}

/** What they say. */
export interface TokenFacts {
  /** Special tokens by the names that chat templates use: `bos_token`, ... */
  special: Record<string, string>;
  /** Tokens of tokenizer.json, and then those that the other files add, in the order in which they get ids. */
  added: AddedToken[];
  others: AddedToken[];
  /** The id that a file says a token has. */
  ids: Map<string, { id: number; file: string }>;
  /** Special tokens in a text are text. */
  splits: boolean;
  /** Chat templates by name; "default" is the usual one. */
  templates: Record<string, string>;
}

/** Reads the files; a ModelError names one that is missing or damaged. */
export async function readTokenFiles(directory: string): Promise<TokenFiles> {
  const optional = async (name: string) =>
    existsSync(join(directory, name)) ? await readJson(directory, name) : undefined;
  const tokenizer = await readJson(directory, "tokenizer.json");
  const [config, specialTokensMap, addedTokens, templates] = await Promise.all([
    readJson(directory, "tokenizer_config.json"),
    optional("special_tokens_map.json"),
    optional("added_tokens.json"),
    readTemplates(directory),
  ]);
  return {
    tokenizer,
    config,
    templates,
    ...(specialTokensMap ? { specialTokensMap } : {}),
    ...(addedTokens ? { addedTokens } : {}),
  };
}

async function readTemplates(directory: string): Promise<Record<string, string>> {
  const templates: Record<string, string> = {};
  const usual = join(directory, "chat_template.jinja");
  if (existsSync(usual)) templates["default"] = await readText(usual);
  const more = join(directory, "additional_chat_templates");
  if (existsSync(more))
    for (const name of readdirSync(more).sort())
      if (name.endsWith(".jinja")) templates[name.slice(0, -".jinja".length)] = await readText(join(more, name));
  return templates;
}

async function readJson(directory: string, name: string): Promise<Json> {
  const path = join(directory, name);
  if (!existsSync(path)) {
    const sentencePiece = name === "tokenizer.json" && existsSync(join(directory, "tokenizer.model"));
    throw new ModelError(
      sentencePiece
        ? `${path} is missing and tokenizer.model alone cannot be read; save the model's fast tokenizer with transformers`
        : `${path} is missing; copy it from the original model`,
    );
  }
  const text = await readText(path);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ModelError(
      `${path}: not valid JSON (${(error as Error).message}); copy it from the original model again`,
    );
  }
  if (value === null || typeof value !== "object" || Array.isArray(value))
    throw new ModelError(`${path}: not a JSON object; copy it from the original model again`);
  return value as Json;
}

async function readText(path: string): Promise<string> {
  try {
    return await Bun.file(path).text();
  } catch (cause) {
    throw new ModelError(`${path}: ${explainFileError(cause, "read")}`);
  }
}

// ---- what the files say ---------------------------------------------------------------------------------------------

/** A special token by name; where it is written as an object, with its flags. */
type Named = Map<string, { content: string; token?: AddedToken }>;

/** What the files say, each overruling the others as with transformers. */
export function tokenFacts({ tokenizer, config, specialTokensMap, addedTokens, templates }: TokenFiles): TokenFacts {
  const listed = (tokenizer["added_tokens"] ?? []) as (Json & { id: number; content: string })[];
  const decoder = config["added_tokens_decoder"] as Record<string, Json> | undefined;
  const isLegacy = !decoder;
  const named: Named = new Map();
  const extra: AddedToken[] = [];
  readNames(config, named, extra);
  if (isLegacy && specialTokensMap) readNames(specialTokensMap, named, extra);

  /** By id; tokenizer.json's own come last, and stay. */
  const byId = new Map<number, AddedToken>();
  const ids: TokenFacts["ids"] = new Map();
  const note = (id: number, token: AddedToken, file: string): void => {
    byId.set(id, token);
    ids.set(token.content, { id, file });
  };
  for (const [id, token] of Object.entries(decoder ?? {})) note(Number(id), tokenOf(token), "tokenizer_config.json");
  if (isLegacy) {
    const isSpecial = new Set([
      ...Array.from(named.values(), ({ content }) => content),
      ...extra.map(({ content }) => content),
    ]);
    for (const [content, id] of Object.entries(addedTokens ?? {}))
      note(id as number, tokenOf({ content, special: isSpecial.has(content) }), "added_tokens.json");
    for (const token of listed) note(token.id, tokenOf(token), "tokenizer.json");
  } else for (const { id, content } of listed) ids.set(content, { id, file: "tokenizer.json" });

  const added = listed.map(tokenOf);
  const listedAs = new Map(added.map((token) => [token.content, token]));
  const others = Array.from(byId)
    .sort(([a], [b]) => a - b)
    .map(([, token]) => token)
    .filter((token) => !Bun.deepEquals(listedAs.get(token.content), token));
  const known = new Set([...listedAs.keys(), ...others.map(({ content }) => content)]);
  for (const { content, token } of named.values()) {
    if (known.has(content)) continue;
    known.add(content);
    others.push({ ...(token ?? tokenOf({ content, special: true })), special: true });
  }
  for (const token of extra) if (!known.has(token.content)) others.push(token);
  const isNamed = new Set(Array.from(named.values(), ({ content }) => content));
  return {
    special: Object.fromEntries(Array.from(named, ([name, { content }]) => [name, content])),
    added,
    others: others.map((token) => (isNamed.has(token.content) ? { ...token, special: true } : token)),
    ids,
    splits: config["split_special_tokens"] === true,
    templates: templates && Object.keys(templates).length > 0 ? templates : templatesOf(config["chat_template"]),
  };
}

/** The `*_token` keys of a file, and its lists of further special tokens. */
function readNames(file: Json, named: Named, extra: AddedToken[]): void {
  const name = (key: string, value: unknown): void => {
    if (typeof value === "string") named.set(key, { content: value });
    else if (value !== null && typeof value === "object" && typeof (value as Json)["content"] === "string") {
      const token = tokenOf({ ...(value as Json), special: true });
      named.set(key, { content: token.content, token });
    }
  };
  for (const [key, value] of Object.entries(file)) if (key.endsWith("_token")) name(key, value);
  const more = file["extra_special_tokens"] ?? file["additional_special_tokens"] ?? [];
  if (!Array.isArray(more)) for (const [key, value] of Object.entries(more as Json)) name(key, value);
  else
    for (const one of more as (string | Json)[]) {
      const token = tokenOf(typeof one === "string" ? { content: one, special: true } : { ...one, special: true });
      if (!extra.some(({ content }) => content === token.content)) extra.push(token);
    }
}

/** A token with the flags that an object leaves out; a special one is not normalised unless it says so. */
function tokenOf(value: Json): AddedToken {
  const flag = (name: string, otherwise = false) => (value[name] as boolean | null | undefined) ?? otherwise;
  const special = flag("special");
  const { content } = value;
  if (typeof content !== "string")
    throw new UnsupportedError("an added token without content, there or in a file beside it");
  return {
    content,
    single_word: flag("single_word"),
    lstrip: flag("lstrip"),
    rstrip: flag("rstrip"),
    normalized: flag("normalized", !special),
    special,
  };
}

/** The templates inside tokenizer_config.json: a text, or several by name, as a list or an object. */
function templatesOf(value: unknown): Record<string, string> {
  if (typeof value === "string") return { default: value };
  if (value === null || typeof value !== "object") return {};
  if (!Array.isArray(value)) return value as Record<string, string>;
  return Object.fromEntries(
    (value as { name: string; template: string }[]).map(({ name, template }) => [name, template]),
  );
}
