// Every command of `sluice`, in the order in which `--help` lists them. A new one is a file beside this one and a line here.

import type { Command } from "./command.ts";

interface Entry {
  /** One line for `sluice --help`. */
  summary: string;
  load(): Promise<{ command: Command }>;
}

export const commands: ReadonlyMap<string, Entry> = new Map<string, Entry>([
  ["train", { summary: "fine-tune a model; every key of the config is a flag", load: () => import("./train.ts") }],
  ["evaluate", { summary: "loss and perplexity on data files", load: () => import("./evaluate.ts") }],
  ["generate", { summary: "answers to prompts", load: () => import("./generate.ts") }],
  ["chat", { summary: "a conversation, its answers streamed as they come", load: () => import("./chat.ts") }],
  ["data", { summary: "what a model will see of some data", load: () => import("./data.ts") }],
  ["plan", { summary: "memory bill and predicted step time, here or elsewhere", load: () => import("./plan.ts") }],
  ["inspect", { summary: "what a model directory or a checkpoint holds", load: () => import("./inspect.ts") }],
  ["export", { summary: "a checkpoint as a Hugging Face directory", load: () => import("./export.ts") }],
  ["report", { summary: "a run's report, or a comparison of several", load: () => import("./report.ts") }],
  ["schema", { summary: "the config as a JSON schema, for editors", load: () => import("./schema.ts") }],
  ["doctor", { summary: "what this machine has, and what is missing", load: () => import("./doctor.ts") }],
]);
