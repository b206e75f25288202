// `sluice data`: what a model will see of some data, before a run is spent on it.

import { parseArgs } from "node:util";
import type { DataDescription } from "../data/data-report.ts";
import { ConfigError, DataError } from "../words/errors.ts";
import { number, oneOf, type Command } from "./command.ts";
import { trainConfig } from "./train.ts";

const help = `sluice data FILE... --model MODEL [options]

What the model will see: the first samples as its tokens, green where they count in the loss, then
how long documents are, how full rows will be, and every line that is truncated, dropped or
malformed. A FILE may also be a folder, a glob or hf://datasets/OWNER/NAME, and FILE:train or
'FILE[:90%]' a part of it; all of it is read. Exits with 1 if nothing in it can be learned.

  --model MODEL        whose tokenizer and chat template
  --config FILE        a run's config; flags replace its model, sequenceLength and chat.loss
  --sequenceLength N   the longest row, in tokens (1024)
  --loss WHICH         assistant (default), last, completion or all: which tokens count
  --shown N            how many samples are shown as tokens (2)
  --json               the numbers alone, as one JSON object`;

async function run(args: string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      model: { type: "string" },
      config: { type: "string" },
      sequenceLength: { type: "string" },
      loss: { type: "string" },
      shown: { type: "string" },
      json: { type: "boolean" },
    },
  });
  const given = await trainConfig(values.config === undefined ? [] : ["--config", values.config]);
  const data = positionals.length > 0 ? positionals : given.data;
  const model = values.model ?? given.model;
  if (data === undefined) throw new ConfigError("sluice data needs a data file, or a --config that names one");
  if (model === undefined)
    throw new ConfigError("--model is missing: whose tokenizer? Give a Hugging Face directory or hub id");
  const { parseConfig } = await import("../run/config.ts");
  const sequenceLength = number("--sequenceLength", values.sequenceLength) ?? given.sequenceLength;
  const loss = values.loss && oneOf("--loss", values.loss, ["assistant", "last", "completion", "all"]);
  const config = await parseConfig({
    data,
    model,
    output: "-",
    ...(sequenceLength !== undefined && { sequenceLength }),
    ...((loss ?? given.chat) && { chat: loss ? { loss } : given.chat }),
  });
  const shown = number("--shown", values.shown) ?? 2;
  const [{ describeData, measureData }, { loadTokenizer }, { resolveModel }] = await Promise.all([
    import("../data/data-report.ts"),
    import("../data/text/tokenizer.ts"),
    import("../models/hub.ts"),
  ]);
  const tokenizer = await loadTokenizer(await resolveModel(config.model));
  const options = { sequenceLength: config.sequenceLength, loss: config.chat.loss };
  let facts: DataDescription | undefined;
  const onFacts = (found: DataDescription) => void (facts = found);
  if (values.json) console.log(JSON.stringify((facts = await measureData(config.data, tokenizer, options))));
  else console.log(await describeData(config.data, tokenizer, { ...options, shown, onFacts }));
  if (facts!.documents > 0) return;
  // So that a script which asks before it trains hears of it.
  const { samples, bad } = facts!;
  throw new DataError(
    `nothing here can be learned: ${samples} samples without a token that counts, ${bad.count} malformed`,
  );
}

export const command: Command = { help, run };
