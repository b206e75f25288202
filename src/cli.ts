#!/usr/bin/env -S bun --no-env-file --config=/dev/null
// The command line. Which commands there are is a table, `cli/table.ts`; each is a small file in `cli/` that is imported
// when it is asked for, so that `--help` answers at once.

import "./words/real-environment.ts";
import { commands } from "./cli/table.ts";
import { ConfigError } from "./words/errors.ts";
import { run } from "./cli/main.ts";

async function main([name, ...rest]: string[]): Promise<void> {
  if (name === undefined || name === "help" || name === "--help" || name === "-h") return console.log(help());
  const entry = commands.get(name);
  if (entry === undefined) {
    const { closest } = await import("./words/suggest.ts");
    const near = closest(name, commands.keys());
    const hint = near ? ` (did you mean ${near}?)` : "";
    throw new ConfigError(`sluice has no command "${name}"${hint}; see sluice --help`);
  }
  const { command } = await entry.load();
  if (rest.includes("--help") || rest.includes("-h")) return console.log(command.help);
  await command.run(rest);
}

function help(): string {
  const width = Math.max(...commands.keys().map((name) => name.length));
  const lines = [...commands].map(([name, { summary }]) => `  sluice ${name.padEnd(width)}   ${summary}`);
  return [
    "sluice: fine-tune every parameter of a language model on one GPU it does not fit in",
    "",
    ...lines,
    "",
    "sluice COMMAND --help says more. A MODEL is a Hugging Face directory or hub id.",
  ].join("\n");
}

if (import.meta.main) await run(() => main(process.argv.slice(2)));
