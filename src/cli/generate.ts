// `sluice generate`: answers to prompts from the command line, or to the lines of the standard input, all in one batch.

import { parseArgs } from "node:util";
import {
  generateFlags,
  generateHelp,
  generateOptions,
  modelFlags,
  modelHelp,
  openModel,
  type Command,
} from "./command.ts";

const help = `sluice generate MODEL [PROMPT...] [options]

Continues each prompt; without prompts, each line of the standard input.

  --chat               a prompt is a user's message, rendered by the chat template
${generateHelp}
${modelHelp}
  --json               a JSON list of { prompt, answer }`;

async function run(args: string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { ...modelFlags, ...generateFlags, json: { type: "boolean" }, chat: { type: "boolean" } },
  });
  const [name, ...prompts] = positionals;
  const options = generateOptions(values);
  using model = await openModel(name, values);
  const texts = prompts.length > 0 ? prompts : (await Bun.stdin.text()).split("\n").filter((line) => line !== "");
  const asked = texts.map((text) => (values.chat ? [{ role: "user", content: text }] : text));
  const answers = await model.generate(asked, options);
  if (values.json) console.log(JSON.stringify(texts.map((prompt, index) => ({ prompt, answer: answers[index] }))));
  else for (const answer of answers) console.log(answer);
}

export const command: Command = { help, run };
