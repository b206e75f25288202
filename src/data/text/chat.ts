// Conversations to tokens, and which of those tokens the assistant says.
//
// The model's own chat template (Jinja) turns messages into text. It does not tell where a turn begins, and the engine
// drops `{% generation %}` marks, so the turns are found by rendering prefixes of the conversation: an assistant turn
// starts where the rendering of everything before it, generation prompt included, ends, and it ends where the
// rendering up to and including it ends. That is exactly what the model will be given and must produce when it answers.
//
// Some templates render a turn differently once others follow it (Qwen 3 drops earlier thinking). Their conversations
// become one document per assistant turn, each rendered as the last one, because that is how the model will see it. A
// template whose turns do not begin with its own generation prompt is refused.

import { join } from "node:path";
import { DataError, ModelError } from "../../words/errors.ts";
import {
  parseTemplate,
  renderTemplate,
  TemplateError,
  templateFunctions,
  TemplateLimitError,
  toValue,
  type Template,
} from "./jinja.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** One turn of a conversation. */
export interface Message {
  role: string;
  content?: string | null;
  /** Templates may read more, `tool_calls` for instance. */
  [key: string]: unknown;
}

export interface Conversation {
  messages: Message[];
  /** Descriptions of tools, handed to the template as they are. */
  tools?: unknown[] | undefined;
}

/**
 * What is learned of a conversation: every assistant turn, the last one, the completion (what the assistant says after
 * the last user turn, calls of tools included), or all of the text. Of `prompt` and `completion` the first three all
 * mean the completion.
 */
export type ChatLoss = "assistant" | "last" | "completion" | "all";

/** Tokens of one document; `counted[i]` says whether predicting token i counts in the loss. */
export interface EncodedDocument {
  ids: number[];
  counted: boolean[];
}

export class ChatTemplate {
  readonly #program: Template;
  readonly #specialTokens: Record<string, string>;
  readonly directory: string;

  constructor(tokenizer: Tokenizer) {
    this.directory = tokenizer.directory;
    this.#specialTokens = tokenizer.specialTokens;
    if (tokenizer.chatTemplate === undefined) {
      throw new ModelError(
        `${join(this.directory, "chat_template.jinja")} is missing, and tokenizer_config.json has no chat_template, so "messages" cannot be ` +
          `rendered; add the file or use "prompt" and "completion"`,
      );
    }
    try {
      this.#program = parseTemplate(tokenizer.chatTemplate);
    } catch (error) {
      throw new ModelError(`the chat template of ${this.directory} cannot be read (${(error as Error).message})`);
    }
  }

  /** The text of a conversation; with `generationPrompt`, up to where the assistant begins to speak. */
  render({ messages, tools }: Conversation, { generationPrompt }: { generationPrompt: boolean }): string {
    try {
      return renderTemplate(this.#program, {
        ...templateFunctions,
        ...this.#specialTokens,
        messages: toValue(messages),
        tools: toValue(tools ?? null),
        documents: null,
        add_generation_prompt: generationPrompt,
      }).text;
    } catch (error) {
      const { message } = error as Error;
      // Not the line's fault: every other line would wait for it, too.
      if (error instanceof TemplateLimitError)
        throw new ModelError(
          `the chat template of ${this.directory} ${message}; use the template of a model you trust`,
        );
      if (!(error instanceof TemplateError)) throw error;
      throw new DataError(`the chat template cannot render these messages: ${message}`);
    }
  }
}

/** The ids that ask the model for the next answer. */
export function encodePrompt(template: ChatTemplate, tokenizer: Tokenizer, conversation: Conversation): number[] {
  // The template writes begin-of-text and the like itself.
  return tokenizer.encode(template.render(conversation, { generationPrompt: true }), { special: false });
}

/** A conversation as training documents: one, or one for each assistant turn if earlier turns render differently. */
export function encodeConversation(
  template: ChatTemplate,
  tokenizer: Tokenizer,
  conversation: Conversation,
  loss: ChatLoss,
): EncodedDocument[] {
  const text = template.render(conversation, { generationPrompt: false });
  if (loss === "all") {
    const ids = tokenizer.encode(text, { special: false });
    return [{ ids, counted: ids.map(() => true) }];
  }
  const turns: { text: string; start: number }[] = [];
  for (const index of learnedTurns(conversation.messages, loss)) {
    const upTo = (count: number) => ({ ...conversation, messages: conversation.messages.slice(0, count) });
    const prompt = template.render(upTo(index), { generationPrompt: true });
    const isLast = index === conversation.messages.length - 1;
    const turn = isLast ? text : template.render(upTo(index + 1), { generationPrompt: false });
    if (!turn.startsWith(prompt)) throw generationPromptError(template, prompt, turn);
    turns.push({ text: turn, start: prompt.length });
  }
  if (!turns.every((turn) => text.startsWith(turn.text)))
    return turns.map((turn) => encodeTurns(tokenizer, turn.text, [turn.start, turn.text.length]));
  return [
    encodeTurns(
      tokenizer,
      text,
      turns.flatMap((turn) => [turn.start, turn.text.length]),
    ),
  ];
}

/** Which messages are learned, by their numbers. */
export function learnedTurns(messages: Message[], loss: Exclude<ChatLoss, "all">): number[] {
  const after = loss === "completion" ? messages.findLastIndex(({ role }) => role === "user") : -1;
  const turns = messages.flatMap(({ role }, index) => (role === "assistant" && index > after ? [index] : []));
  return loss === "last" ? turns.slice(-1) : turns;
}

/** The ids of a text and, from the places where turns start and end by turns, which tokens count. */
function encodeTurns(tokenizer: Tokenizer, text: string, cuts: number[]): EncodedDocument {
  const { ids, before: bounds } = tokenizer.encodeWithPlaces(text, cuts);
  const counted = ids.map(() => false);
  for (let i = 0; i < bounds.length; i += 2) counted.fill(true, bounds[i], bounds[i + 1]);
  return { ids, counted };
}

/** How many elements two lists share at their beginnings. */
export function commonPrefix(a: ArrayLike<number | string>, b: ArrayLike<number | string>): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}

function generationPromptError(template: ChatTemplate, prompt: string, turn: string): ModelError {
  const same = commonPrefix(prompt, turn);
  const show = (text: string) => JSON.stringify(text.slice(same, same + 24));
  return new ModelError(
    `the chat template of ${template.directory} asks for an answer with ${show(prompt)} but writes ${show(turn)} there when the answer is ` +
      `given, so what the assistant says cannot be told from what it is given; set chat.loss to "all" or use a template ` +
      `whose answers begin with its generation prompt`,
  );
}
