// `bun scripts/fuzz.ts TARGET [--seconds 60] [--seed N] [--round N]`: damaged inputs for one reader, or for `all`. A finding is
// printed with the words that repeat it; exit code 1. The harness and the targets are in test/fuzz.

import { parseArgs } from "node:util";
import { fuzz } from "../test/fuzz/harness.ts";
import { targets } from "../test/fuzz/targets.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: "string", default: "60" }, seed: { type: "string" }, round: { type: "string" } },
});
const names = Object.keys(targets);
const [wanted] = positionals;
if (wanted === undefined || (wanted !== "all" && !names.includes(wanted))) {
  console.error(
    `usage: bun scripts/fuzz.ts TARGET [--seconds 60] [--seed N] [--round N]\nTARGET: all, ${names.join(", ")}`,
  );
  process.exit(2);
}
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 32));
for (const name of wanted === "all" ? names : [wanted]) {
  const round = values.round === undefined ? {} : { round: Number(values.round) };
  const { rounds, accepted, finding } = await fuzz(name, { seed, seconds: Number(values.seconds), ...round });
  console.log(`${name}: seed ${seed}, ${rounds} rounds, ${accepted} accepted${finding ? "" : ", nothing found"}`);
  if (!finding) continue;
  console.log(`  ${finding.kind} in round ${finding.round}: ${finding.message}`);
  console.log(`  again: bun scripts/fuzz.ts ${name} --seed ${seed} --round ${finding.round}`);
  process.exitCode = 1;
}
