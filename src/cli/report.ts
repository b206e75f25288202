// `sluice report`: a run's report made again, or several runs laid over each other.

import { parseArgs } from "node:util";
import { ConfigError } from "../words/errors.ts";
import type { Command } from "./command.ts";

const help = `sluice report RUN [RUN...] [--output FILE]

Of one run directory: writes its report.html and loss.svg again, also while the run goes on. Of
several: one page with their curves over each other, their results side by side, and where their
configs differ.

  --output FILE        where the comparison goes (comparison.html)
  --json               one JSON object: { report }`;

async function run(args: string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { output: { type: "string" }, json: { type: "boolean" } },
  });
  const [directory, ...others] = positionals;
  if (directory === undefined) throw new ConfigError("sluice report needs a run directory, the `output` of a run");
  if (others.length === 0 && values.output !== undefined)
    throw new ConfigError(
      `--output says where a comparison goes; the report of one run is always ${directory}/report.html`,
    );
  const { writeComparison, writeReport } = await import("../view/report.ts");
  const report = others.length === 0 ? await writeReport(directory) : (values.output ?? "comparison.html");
  if (others.length > 0) await writeComparison(positionals, report);
  console.log(values.json ? JSON.stringify({ report }) : report);
}

export const command: Command = { help, run };
