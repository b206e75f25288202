// The process in which harness.ts lets the rounds of one target run: TARGET DIRECTORY SEED SECONDS [--round=N] [--planted].

import { parseArgs } from "node:util";
import { playRounds } from "./harness.ts";
import { targets } from "./targets.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { round: { type: "string" }, planted: { type: "boolean", default: false } },
});
const [name, directory, seed, seconds] = positionals as [string, string, string, string];
const result = await playRounds(targets[name]!, directory, {
  seed: Number(seed),
  seconds: Number(seconds),
  planted: values.planted,
  ...(values.round === undefined ? {} : { round: Number(values.round) }),
});
console.log(JSON.stringify(result));
process.exit();
