// A few seconds of fuzzing for every target (harness.ts), and the proof that it would find something: each target with a
// bug planted in it. The seed is always the same, so that a finding belongs to the change that made it; `FUZZ_SEED=n` draws other
// damage, and `bun scripts/fuzz.ts TARGET --seconds 60` more of it.

import { expect, setDefaultTimeout, test } from "bun:test";
import { patience, patiently } from "../support/time.ts";
import { fuzz, type Finding, type FuzzResult } from "./harness.ts";
import { targets } from "./targets.ts";

setDefaultTimeout(patiently(120_000)); // processes are slow to start on a busy machine

const seed = Number(process.env["FUZZ_SEED"] ?? 1);
const seconds = 2;
/** Two at a time: the tests of a laptop run on two cores at least. */
const width = 2;

/** Starts the targets a few at a time; their tests wait for them. */
function startAll(run: (name: string) => Promise<FuzzResult>): Map<string, Promise<FuzzResult>> {
  const results = new Map(Object.keys(targets).map((name) => [name, Promise.withResolvers<FuzzResult>()]));
  const waiting = [...results];
  const worker = async (): Promise<void> => {
    for (let next = waiting.shift(); next; next = waiting.shift())
      await run(next[0]).then(next[1].resolve, next[1].reject);
  };
  for (let i = 0; i < width; i++) void worker();
  return new Map([...results].map(([name, { promise }]) => [name, promise]));
}

let running: Map<string, Promise<FuzzResult>> | undefined;
for (const name of Object.keys(targets))
  test(`${name}, seed ${seed}`, async () => {
    running ??= startAll((target) => fuzz(target, { seed, seconds: seconds * patience }));
    const { rounds, accepted, finding } = await running.get(name)!;
    console.log(`${name}: seed ${seed}, ${rounds} damaged inputs, ${accepted} still good`);
    if (finding)
      throw new Error(
        `${finding.kind}: ${finding.message}\nagain: bun scripts/fuzz.ts ${name} --seed ${seed} --round ${finding.round}`,
      );
    expect(rounds).toBeGreaterThan(10);
    expect(accepted).toBeLessThan(rounds); // else the damage does no harm
  });

let planted: Map<string, Promise<FuzzResult>> | undefined;
for (const name of Object.keys(targets))
  test(`a bug planted in ${name} is found`, async () => {
    // A hang is one sooner here; a bug is found in the first seconds, whatever the seed.
    planted ??= startAll((target) => fuzz(target, { seed, seconds: 20, planted: true, roundSecondsMax: 5 }));
    const { finding } = await planted.get(name)!;
    const kinds: Record<string, Finding["kind"][]> = { plan: ["crash"], op: ["crash"] };
    expect(kinds[name] ?? ["error"]).toContain(finding!.kind);
    // What was found is found again.
    const { round } = finding!;
    const again = await fuzz(name, { seed, seconds: 20, round, planted: true, roundSecondsMax: 5 });
    expect(again.finding).toMatchObject({ round });
  });
