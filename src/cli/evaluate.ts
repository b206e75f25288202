// `sluice evaluate`: loss and perplexity of a model on data files.

import { parseArgs } from "node:util";
import { ConfigError } from "../words/errors.ts";
import { modelFlags, modelHelp, number, oneOf, openModel, type Command } from "./command.ts";

const help = `sluice evaluate MODEL FILE... [options]

Mean loss per token that counts, and perplexity. A FILE may also be a folder, a glob or
hf://datasets/OWNER/NAME.

  --sequenceLength N   the longest row, in tokens (1024, or the model's positions)
  --loss WHICH         assistant (default), last, completion or all: which tokens count
${modelHelp}
  --json               one JSON object`;

async function run(args: string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { ...modelFlags, json: { type: "boolean" }, sequenceLength: { type: "string" }, loss: { type: "string" } },
  });
  const [name, ...files] = positionals;
  if (files.length === 0) throw new ConfigError("sluice evaluate needs a model and at least one data file");
  const loss = oneOf("--loss", values.loss ?? "assistant", ["assistant", "last", "completion", "all"]);
  const sequenceLength = number("--sequenceLength", values.sequenceLength);
  const { evaluate } = await import("../engine/evaluate.ts");
  using model = await openModel(name, values);
  const result = await evaluate(model, files, { loss, ...(sequenceLength === undefined ? {} : { sequenceLength }) });
  if (values.json) return console.log(JSON.stringify(result));
  const { loss: mean, perplexity, validTokens } = result;
  console.log(`loss ${mean.toFixed(4)}  perplexity ${perplexity.toFixed(3)}  ${validTokens} tokens`);
}

export const command: Command = { help, run };
