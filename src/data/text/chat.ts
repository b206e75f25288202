// Conversations to tokens, and which of those tokens the assistant says.
//
// The model's own chat template (Jinja) turns messages into text. Where it marks what the assistant says with
// `{% generation %}`, as training templates do, that is what counts, and one rendering is enough. Other templates do not tell
// where a turn begins, so the turns are found by rendering prefixes of the conversation: an assistant turn starts where the
// rendering of everything before it, generation prompt included, ends, and it ends where the rendering up to and including it
// ends. That is exactly what the model will be given and must produce when it answers.
//
// Some templates render a turn differently once others follow it (Qwen 3 drops earlier thinking). Their conversations become one
// document per assistant turn, each rendered as the last one, because that is how the model will see it. Others write the
// question differently once it is answered (Mistral's puts the system text before the last one); then the answer is learned behind
// the prompt that the template makes. A conversation whose answers cannot be told from what is given is a bad line.

import { join } from "node:path";
import { DataError, ModelError } from "../../words/errors.ts";
import { formatValue } from "../../words/format.ts";
import {
  parseTemplate,
  renderTemplate,
  TemplateError,
  templateFunctions,
  TemplateLimitError,
  toValue,
  type Template,
  type Value,
} from "./jinja.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** One turn of a conversation. */
export interface Message {
  role: string;
  content?: string | null;
  /** `weight: 0` and `train: false` and their like: the turn is context, and not learned. Templates may read more keys. */
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

/** Something that should be said once, although the conversation is learned: its kind, and the words. */
type Remark = (kind: string, line: string) => void;

/** A conversation as the template sees it; `texts` are the contents, for looking where they went. */
interface Prepared {
  template: Template;
  messages: Value[];
  tools: Value;
}

export class ChatTemplate {
  readonly #usual: Template | undefined;
  readonly #withTools: Template | undefined;
  readonly #specialTokens: Record<string, string>;
  readonly directory: string;

  constructor({ directory, specialTokens, chatTemplate, toolTemplate }: Tokenizer) {
    this.directory = directory;
    this.#specialTokens = specialTokens;
    if ((chatTemplate ?? toolTemplate) === undefined) {
      throw new ModelError(
        `${join(this.directory, "chat_template.jinja")} is missing, and tokenizer_config.json has no chat_template, so "messages" cannot be ` +
          `rendered; add the file or use "prompt" and "completion"`,
      );
    }
    this.#usual = chatTemplate === undefined ? undefined : this.#parse(chatTemplate);
    this.#withTools = toolTemplate === undefined ? undefined : this.#parse(toolTemplate);
  }

  #parse(source: string): Template {
    try {
      return parseTemplate(source);
    } catch (error) {
      throw new ModelError(`the chat template of ${this.directory} cannot be read (${(error as Error).message})`);
    }
  }

  /** The text of a conversation; with `generationPrompt`, up to where the assistant begins to speak. */
  render(conversation: Conversation, { generationPrompt }: { generationPrompt: boolean }): string {
    return this.output(this.prepare(conversation), conversation.messages.length, generationPrompt).text;
  }

  /** The template of a conversation: one for tools where there are some. */
  templateFor({ tools }: Conversation): Template {
    const template = (tools === undefined ? undefined : this.#withTools) ?? this.#usual;
    if (template !== undefined) return template;
    throw new DataError(
      `the only chat template of ${this.directory} is "tool_use", for conversations with tools; add one named "default", or tools`,
    );
  }

  prepare(conversation: Conversation): Prepared {
    const { messages, tools } = conversation;
    try {
      return {
        template: this.templateFor(conversation),
        messages: toValue(messages) as Value[],
        tools: toValue(tools ?? null),
      };
    } catch (error) {
      throw this.#explained(error, "");
    }
  }

  /** The first `count` messages as text, and what of it is marked as the assistant's. */
  output({ template, messages, tools }: Prepared, count: number, generationPrompt: boolean) {
    const render = (number: number) =>
      renderTemplate(template, {
        ...templateFunctions,
        ...this.#specialTokens,
        messages: messages.slice(0, number),
        tools,
        documents: null,
        add_generation_prompt: generationPrompt,
      });
    try {
      return render(count);
    } catch (error) {
      if (!(error instanceof TemplateError)) throw this.#explained(error, "");
      throw this.#explained(error, `messages[${firstFailing(render, count, error.message)}]: `);
    }
  }

  #explained(error: unknown, place: string): unknown {
    // Not the line's fault: every other line would wait for it, too.
    if (error instanceof TemplateLimitError)
      return new ModelError(
        `the chat template of ${this.directory} ${error.message}; use the template of a model you trust`,
      );
    if (!(error instanceof TemplateError)) return error;
    return new DataError(`${place}the chat template cannot render these messages: ${error.message}`);
  }
}

/** The message with which the trouble begins. */
function firstFailing(render: (count: number) => unknown, count: number, problem: string): number {
  for (let number = 1; number < count; number++)
    try {
      render(number);
    } catch (error) {
      if ((error as Error).message === problem) return number - 1;
    }
  return Math.max(0, count - 1);
}

/** The ids that ask the model for the next answer. */
export function encodePrompt(template: ChatTemplate, tokenizer: Tokenizer, conversation: Conversation): number[] {
  // The template writes begin-of-text and the like itself.
  return tokenizer.encode(template.render(conversation, { generationPrompt: true }), { special: false });
}

/** A piece of a rendered text that the assistant says. */
interface Span {
  from: number;
  to: number;
}

/** A conversation as training documents: one, or one for each assistant turn if earlier turns render differently. */
export function encodeConversation(
  template: ChatTemplate,
  tokenizer: Tokenizer,
  conversation: Conversation,
  loss: ChatLoss,
  remark: Remark = () => {},
): EncodedDocument[] {
  const { messages } = conversation;
  checkRead(template, conversation, remark);
  const prepared = withoutNull(template, conversation, remark);
  const output = template.output(prepared, messages.length, false);
  const { text } = output;
  const learned = answers(messages, loss).filter((index) => isLearned(messages[index]!));
  const turns = new Turns(template, prepared, text, output.generated, messages);
  if (loss === "all") {
    checkSystem(turns, text);
    const left = answers(messages, loss).filter((index) => !isLearned(messages[index]!));
    return [
      encodeSpans(
        tokenizer,
        text,
        spansAround(
          text,
          left.map((index) => turns.inside(index)),
        ),
      ),
    ];
  }
  const marked = turns.marked(learned);
  if (marked !== undefined) {
    checkSystem(turns, text);
    return [encodeSpans(tokenizer, text, marked)];
  }
  const found = learned.map((index) => turns.find(index));
  if (found.every((turn) => text.startsWith(turn.text))) {
    checkSystem(turns, text);
    return [
      encodeSpans(
        tokenizer,
        text,
        found.map((turn) => ({ from: turn.start, to: turn.text.length })),
      ),
    ];
  }
  const letters = found.reduce((sum, turn) => sum + turn.text.length, 0);
  if (letters > 4 * text.length)
    remark(
      "repeated",
      `the chat template renders turns differently once others follow, so a conversation becomes one document for each of its answers: ` +
        `here ${found.length} with ${Math.round(letters / text.length)} times its text; chat.loss "last" learns the last answer alone`,
    );
  return found.map((turn) => {
    checkSystem(turns, turn.text);
    return encodeSpans(tokenizer, turn.text, [{ from: turn.start, to: turn.text.length }]);
  });
}

/** Which messages are answers that `loss` is about, by their numbers. */
export function answers(messages: Message[], loss: ChatLoss): number[] {
  const after = loss === "completion" ? messages.findLastIndex(({ role }) => role === "user") : -1;
  const turns = messages.flatMap(({ role }, index) => (role === "assistant" && index > after ? [index] : []));
  return loss === "last" ? turns.slice(-1) : turns;
}

/** Whether a message says of itself that it is not to be learned, in one of the ways in which data sets say it. */
function isLearned(message: Message): boolean {
  const { weight = 1, train, training, loss } = message;
  return Number(weight ?? 1) !== 0 && train !== false && training !== false && loss !== false;
}

/** A conversation's values. A call without words has a content of null; to a template that fails on it an empty text is given. */
function withoutNull(template: ChatTemplate, conversation: Conversation, remark: Remark): Prepared {
  const { messages } = conversation;
  const prepared = template.prepare(conversation);
  const empty = messages.findIndex(({ content }) => content === null || content === undefined);
  if (empty === -1) return prepared;
  try {
    template.output(prepared, messages.length, false);
    return prepared;
  } catch (error) {
    if (!(error instanceof DataError)) throw error;
    const filled = messages.map((message) => (message.content == null ? { ...message, content: "" } : message));
    const again = template.prepare({ ...conversation, messages: filled });
    try {
      template.output(again, messages.length, false);
    } catch {
      throw error;
    }
    remark(
      "null",
      `messages[${empty}].content is null, which the chat template cannot render; it is given an empty text`,
    );
    return again;
  }
}

/** What a template never reads cannot be in its text: calls of tools are then no answer, and tools are not described. */
function checkRead(template: ChatTemplate, conversation: Conversation, remark: Remark): void {
  const { directory } = template;
  const { messages, tools } = conversation;
  const { words } = template.templateFor(conversation);
  const calling = messages.findIndex(({ tool_calls: calls }) => Array.isArray(calls) && calls.length > 0);
  if (calling !== -1 && !words.has("tool_calls"))
    throw new DataError(
      `messages[${calling}] has tool_calls, which the chat template of ${directory} does not write, so an empty answer would be learned; ` +
        `use a model whose template knows tools, or write the call into content`,
    );
  if (tools !== undefined && tools.length > 0 && !words.has("tools"))
    remark("tools", `has tools, which the chat template of ${directory} does not write: the model will not see them`);
  const thinking = messages.findIndex(
    ({ reasoning_content: thoughts }) => typeof thoughts === "string" && thoughts !== "",
  );
  if (thinking !== -1 && !words.has("reasoning_content"))
    remark(
      "thoughts",
      `messages[${thinking}] has reasoning_content, which the chat template of ${directory} does not write: it is not learned`,
    );
}

/** A system text that a template leaves out, perhaps only once an answer follows, would be missed by nobody. */
function checkSystem({ template, prepared, messages }: Turns, text: string): void {
  const [first] = messages;
  if (first?.role !== "system" && first?.role !== "developer") return;
  const system = first.content?.trim() ?? "";
  if (system === "" || text.includes(system)) return;
  // Perhaps it is written otherwise.
  const without = { ...prepared, messages: prepared.messages.slice(1) };
  let other: string | undefined;
  try {
    other = template.output(without, without.messages.length, false).text;
  } catch {} // then it cannot be without
  if (other === text)
    throw new DataError(
      `messages[0]: the chat template of ${template.directory} leaves the ${first.role} text out; remove it from the data, or choose another chat.loss or template`,
    );
}

/** Where the answers of one conversation are. */
class Turns {
  readonly template: ChatTemplate;
  readonly prepared: Prepared;
  readonly messages: Message[];
  readonly #text: string;
  readonly #marks: Span[];

  constructor(template: ChatTemplate, prepared: Prepared, text: string, marks: Span[], messages: Message[]) {
    this.template = template;
    this.prepared = prepared;
    this.messages = messages;
    this.#text = text;
    this.#marks = marks;
  }

  /** What the template itself marks of some answers; undefined if it does not, or not one piece for each answer. */
  marked(indices: number[]): Span[] | undefined {
    if (this.#marks.length === 0) return undefined;
    const all = answers(this.messages, "assistant");
    if (all.length === this.#marks.length) return indices.map((index) => this.#marks[all.indexOf(index)]!);
    return indices.length === all.length ? this.#marks : undefined;
  }

  /** The text up to an answer's end, and where in it the answer starts. */
  find(index: number): { text: string; start: number } {
    const { template, prepared, messages } = this;
    const text = index === messages.length - 1 ? this.#text : template.output(prepared, index + 1, false).text;
    let prompt = "";
    try {
      prompt = template.output(prepared, index, true).text;
      if (index > 0 && text.startsWith(prompt)) return { text, start: prompt.length };
    } catch (error) {
      if (index > 0 || !(error instanceof DataError)) throw error; // many templates ask what the first message is
    }
    if (index === 0) {
      const asking = this.#asking() ?? prompt;
      const at = text.indexOf(asking);
      if (asking !== "" && at !== -1) return { text, start: at + asking.length };
    } else {
      // From the last message's words on the prompt is what the text has too, and what is before it the prompt has right.
      const words = String(messages[index - 1]!.content ?? "").trim();
      const asking = words === "" ? "" : prompt.slice(prompt.lastIndexOf(words));
      const at = text.lastIndexOf(asking);
      if (asking.length > words.length && at !== -1)
        return { text: prompt + text.slice(at + asking.length), start: prompt.length };
    }
    throw this.#unclear(index, prompt, text);
  }

  /** An answer as a piece of the whole text. */
  inside(index: number): Span {
    const [marked] = this.marked([index]) ?? [];
    if (marked !== undefined) return marked;
    const { text, start } = this.find(index);
    if (this.#text.startsWith(text)) return { from: start, to: text.length };
    throw new DataError(
      `messages[${index}] is not to be learned, but the chat template renders it differently once others follow, so it cannot be found in the text; ` +
        `set chat.loss to "assistant"`,
    );
  }

  /** What the template writes to ask for an answer, if it does behind this conversation. */
  #asking(): string | undefined {
    try {
      const { text } = this.template.output(this.prepared, this.messages.length, true);
      return text.startsWith(this.#text) && text !== this.#text ? text.slice(this.#text.length) : undefined;
    } catch {
      return undefined;
    }
  }

  #unclear(index: number, prompt: string, text: string): DataError {
    const same = commonPrefix(prompt, text);
    const show = (shown: string) => formatValue(shown.slice(same, same + 24));
    return new DataError(
      `messages[${index}]: the chat template of ${this.template.directory} asks for an answer with ${show(prompt)} but writes ${show(text)} there when the ` +
        `answer is given, so what the assistant says cannot be told from what it is given; set chat.loss to "all" or use a template whose ` +
        `answers begin with its generation prompt`,
    );
  }
}

/** What is left of a text without some pieces, which are in order. */
function spansAround(text: string, pieces: Span[]): Span[] {
  const bounds = [0, ...pieces.flatMap(({ from, to }) => [from, to]), text.length];
  return Array.from({ length: pieces.length + 1 }, (_, i) => ({ from: bounds[2 * i]!, to: bounds[2 * i + 1]! }));
}

/** The ids of a text, of which those count that some pieces of it end in. */
function encodeSpans(tokenizer: Tokenizer, text: string, spans: Span[]): EncodedDocument {
  if (spans.length === 1 && spans[0]!.from === 0 && spans[0]!.to === text.length) {
    const ids = tokenizer.encode(text, { special: false });
    return { ids, counted: ids.map(() => true) };
  }
  const { ids, before: bounds } = tokenizer.encodeWithPlaces(
    text,
    spans.flatMap(({ from, to }) => [from, to]),
  );
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
