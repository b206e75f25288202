// `sluice schema`: the config as a JSON schema, for editors that complete and check JSON files.

import { parseArgs } from "node:util";
import type { Command } from "./command.ts";

const help = `sluice schema

Prints the JSON schema (draft 2020-12) of a config file, with descriptions and defaults:

  bun src/cli.ts schema > sluice.schema.json

A config file that begins with "$schema": "./sluice.schema.json" is then completed and checked while
it is written, and sluice train --config takes it as it is.`;

async function run(args: string[]): Promise<void> {
  parseArgs({ args, options: {} });
  const { configSchema } = await import("../run/config-schema.ts");
  console.log(JSON.stringify(await configSchema(), null, 2));
}

export const command: Command = { help, run };
