// `sluice chat`: a conversation with a model. On a terminal it asks for one line after another and Ctrl-C stops an answer;
// from a pipe every line of the input is a turn. Answers are written as their tokens come.

import { createInterface, type Interface } from "node:readline";
import { parseArgs } from "node:util";
import { CancelledError, SluiceError } from "../words/errors.ts";
import type { Message } from "../data/text/chat.ts";
import type { GenerateOptions } from "../engine/generate.ts";
import type { Model } from "../engine/model.ts";
import {
  generateFlags,
  generateHelp,
  generateOptions,
  modelFlags,
  modelHelp,
  openModel,
  type Command,
} from "./command.ts";

const help = `sluice chat MODEL [options]

Answers line after line, remembering what was said. On a terminal: /reset forgets it, /exit or
Ctrl-D leaves, Ctrl-C stops an answer. From a pipe each line is a turn.

  --system TEXT        the system message
${generateHelp}
${modelHelp}
  --json               one line of JSON per turn: { prompt, answer }`;

async function run(args: string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { ...modelFlags, ...generateFlags, json: { type: "boolean" }, system: { type: "string" } },
  });
  const options = generateOptions(values);
  using model = await openModel(positionals[0], values);
  const chat = new Chat(model, options, values.system);
  const { stdin: input, stdout: output } = process;
  const live = input.isTTY === true;
  const lines = createInterface(live ? { input, output, prompt: "> " } : { input, terminal: false });
  lines.on("SIGINT", () => (chat.answering ? chat.stop() : lines.close()));
  if (live) lines.prompt();
  for await (const line of lines) {
    const text = line.trim();
    if (live && text === "/exit") break;
    if (live && text === "/reset") chat.reset();
    else if (text !== "") await turn(chat, text, { live, json: values.json === true });
    if (live) lines.prompt();
  }
  close(lines, live);
}

/** One line of the input, answered. On a terminal an error ends the turn, elsewhere the program. */
async function turn(chat: Chat, text: string, { live, json }: { live: boolean; json: boolean }): Promise<void> {
  try {
    const answer = await chat.answer(text, (piece) => {
      if (!json) process.stdout.write(piece);
    });
    console.log(json ? JSON.stringify({ prompt: text, answer }) : "");
  } catch (error) {
    if (!live || !(error instanceof SluiceError)) throw error;
    console.log(error instanceof CancelledError ? " (stopped)" : `\n${error.message}; /reset starts over`);
  }
}

function close(lines: Interface, live: boolean): void {
  lines.close();
  if (live) process.stdout.write("\n");
}

/** What was said so far, and the next answer to it. */
export class Chat {
  readonly #model: Model;
  readonly #options: GenerateOptions;
  readonly #system: Message[];
  #messages: Message[] = [];
  /** An answer is on its way. */
  answering = false;
  #stopped = false;

  constructor(model: Model, options: GenerateOptions = {}, system?: string) {
    this.#model = model;
    this.#options = options;
    this.#system = system === undefined ? [] : [{ role: "system", content: system }];
  }

  /** Forgets everything but the system message. */
  reset(): void {
    this.#messages = [];
  }

  /** Stops the answer that is on its way, which then rejects with a CancelledError. */
  stop(): void {
    this.#stopped = true; // between two tokens nothing is in flight that could be cancelled
    this.#model.engine.cancel();
  }

  /** The answer; `write` is given each piece as it comes. A turn that fails is forgotten. */
  async answer(content: string, write: (piece: string) => void): Promise<string> {
    const messages = [...this.#messages, { role: "user", content }];
    this.answering = true;
    this.#stopped = false;
    const onText = (_: number, piece: string): void => {
      if (this.#stopped) throw new CancelledError("the answer was stopped");
      write(piece);
    };
    try {
      const prompt = [...this.#system, ...messages];
      const options = { ...this.#options, onText };
      const [answer] = await this.#model.generate([prompt], options);
      this.#messages = [...messages, { role: "assistant", content: answer! }];
      return answer!;
    } finally {
      this.answering = false;
    }
  }
}

export const command: Command = { help, run };
