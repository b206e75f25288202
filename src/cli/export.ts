// `sluice export`: a run's checkpoint as a Hugging Face directory.

import { parseArgs } from "node:util";
import { ConfigError } from "../words/errors.ts";
import { oneOf, type Command } from "./command.ts";

const help = `sluice export CHECKPOINT DIR [options]

Writes a checkpoint's model into DIR as safetensors with config and tokenizer. CHECKPOINT is a
directory such as runs/mine/checkpoints/step-000500, or a run directory, whose newest checkpoint is
taken.

  --dtype D            bfloat16, or float32 for the exact masters (what the run's model came in)
  --model MODEL        where the run's model is now, if not where its config says
  --overwrite          move what is in DIR to DIR.before; else DIR must be new, empty or an export
  --json               one JSON object: { checkpoint, step, directory, dtype }`;

async function run(args: string[]): Promise<void> {
  const options = {
    dtype: { type: "string" },
    model: { type: "string" },
    overwrite: { type: "boolean" },
    json: { type: "boolean" },
  } as const;
  const { values, positionals } = parseArgs({ args, allowPositionals: true, options });
  const [from, directory, ...more] = positionals;
  if (from === undefined || directory === undefined || more.length > 0)
    throw new ConfigError("sluice export needs a checkpoint and the directory to write; see sluice export --help");
  const wanted = values.dtype && { dtype: oneOf("--dtype", values.dtype, ["bfloat16", "float32"]) };
  const { checkpointAt, exportCheckpoint } = await import("../keep/export-checkpoint.ts");
  const checkpoint = checkpointAt(from);
  const model = values.model === undefined ? {} : { model: values.model };
  const { step, dtype } = await exportCheckpoint(checkpoint, directory, {
    ...wanted,
    ...model,
    overwrite: values.overwrite === true,
  });
  if (values.json) console.log(JSON.stringify({ checkpoint, step, directory, dtype }));
  else console.log(`${checkpoint}, after step ${step}, is in ${directory} as ${dtype}`);
}

export const command: Command = { help, run };
