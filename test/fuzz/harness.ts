// Fuzzing of what Sluice reads: good inputs are damaged (mutate.ts) and read, round after round. A round may end with a
// result or with a `SluiceError` that says something; anything else thrown, a promise broken, a round that takes too long,
// too much memory, or a process that dies is a finding. The rounds run in a process of their own, because the last three
// cannot be seen from inside; it keeps the number of its round in a file, so that a finding can be repeated.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { patiently } from "../support/time.ts";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SluiceError } from "../../src/words/errors.ts";
import { Random } from "../../src/words/random.ts";
import { bytesOf, mutateBytes, mutateJson, one, textOf, type Bytes } from "./mutate.ts";

/** Reads one input; returns when it was accepted. */
export type Reader = (input: Bytes) => unknown;

/** A reader of Sluice, with what it needs to be fuzzed. */
export interface Target {
  /** Good inputs. They may be made in `directory`, which is the target's own. */
  seeds(directory: string): Bytes[] | Promise<Bytes[]>;
  /** Pieces of the format. */
  words?: readonly string[];
  /** The inputs are JSON, so their structure is changed as well. */
  isJson?: boolean;
  /** Another kind of damage. */
  mutate?(random: Random, good: Bytes): Bytes;
  /** What becomes of a damaged input before it is read, such as a checksum made right again. */
  finish?(random: Random, input: Bytes): Bytes;
  open(directory: string): Reader | Promise<Reader>;
  /** The same with a bug, as somebody may make one: the fuzzer must find it. */
  planted(directory: string): Reader | Promise<Reader>;
}

export interface FuzzOptions {
  seed: number;
  seconds: number;
  /** Only this one. */
  round?: number;
  planted?: boolean;
  /** How long a round may take. */
  roundSecondsMax?: number;
}

export interface Finding {
  kind: "error" | "hang" | "memory" | "crash";
  round: number;
  message: string;
}

export interface FuzzResult {
  rounds: number;
  /** Inputs that were good in spite of the damage. */
  accepted: number;
  finding?: Finding;
}

/** The slowest good input takes a tenth of a second; the machine may be busy. */
const roundSecondsDefault = 15;
const memoryMax = 2 ** 31;

/** The damaged input of one round. */
export function inputOf(target: Target, seeds: readonly Bytes[], seed: number, round: number): Bytes {
  const { words = [], isJson = false } = target;
  const random = new Random(seed, round);
  let input = one(random, seeds);
  const way = random.below(100); // one in a hundred stays as it is
  if (target.mutate && way < 99) input = target.mutate(random, input);
  else if (isJson && way < 66)
    input = bytesOf(JSON.stringify(mutateJson(random, JSON.parse(textOf(input)), words)) ?? "");
  if (!target.mutate && (!isJson || way > 50) && way < 99) input = mutateBytes(random, input, words, seeds);
  return target.finish?.(random, input) ?? input;
}

/** Lets the rounds run in a process of their own. `name` is a name of targets.ts. */
export async function fuzz(name: string, options: FuzzOptions): Promise<FuzzResult> {
  const { seed, seconds, round, planted = false, roundSecondsMax = roundSecondsDefault } = options;
  const directory = mkdtempSync(join(tmpdir(), "sluice-fuzz-"));
  const words = [process.execPath, join(import.meta.dir, "rounds.ts"), name, directory, String(seed), String(seconds)];
  if (round !== undefined) words.push(`--round=${round}`);
  if (planted) words.push("--planted");
  // The user's caches are left alone.
  const env = { ...process.env, XDG_CACHE_HOME: join(directory, "cache"), HF_HUB_OFFLINE: "1" };
  try {
    const child = Bun.spawn(words, { stdin: "ignore", stdout: "pipe", stderr: "pipe", env });
    const output = Promise.all([child.stdout.text(), child.stderr.text()]);
    const stopped = await watch(child, directory, roundSecondsMax);
    const [out, errors] = await output;
    const result = /^\{"rounds":.*\}$/m.exec(out)?.[0];
    if (!stopped && child.exitCode === 0 && result !== undefined) return JSON.parse(result) as FuzzResult;
    const how = child.signalCode ?? `exit code ${child.exitCode}`;
    const last = roundIn(directory);
    const finding: Finding = { round: last, ...(stopped ?? { kind: "crash", message: `${how}: ${errors.trim()}` }) };
    return { rounds: last + 1, accepted: 0, finding };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Waits for the end of the process; ends it itself when a round takes too long or too much. */
async function watch(
  child: Bun.Subprocess,
  directory: string,
  roundSecondsMax: number,
): Promise<Pick<Finding, "kind" | "message"> | undefined> {
  let round = -1;
  let since = performance.now();
  while ((await Promise.race([child.exited, Bun.sleep(50).then(() => "running")])) === "running") {
    const now = roundIn(directory);
    if (now !== round) since = performance.now();
    round = now;
    const secondsMax = round < 0 ? 60 : roundSecondsMax; // before the first round, seeds are made
    const bytes = residentBytes(child.pid);
    const isHanging = performance.now() - since > patiently(secondsMax * 1000);
    if (!isHanging && bytes <= memoryMax) continue;
    child.kill("SIGKILL");
    await child.exited;
    if (isHanging) return { kind: "hang", message: `has not ended after ${secondsMax} s` };
    return { kind: "memory", message: `takes ${bytes} bytes, the limit is ${memoryMax}` };
  }
  return undefined;
}

/** −1 before the first. */
function roundIn(directory: string): number {
  try {
    return Number(readFileSync(join(directory, "round"), "utf8") || -1);
  } catch {
    return -1;
  }
}

/** 0 where the system does not say. */
function residentBytes(pid: number): number {
  try {
    return 4096 * Number(readFileSync(`/proc/${pid}/statm`, "utf8").split(" ")[1]);
  } catch {
    return 0;
  }
}

/** The rounds themselves, inside that process. */
export async function playRounds(target: Target, directory: string, options: FuzzOptions): Promise<FuzzResult> {
  const { seed, seconds, round: only, planted = false } = options;
  const seeds = await target.seeds(directory);
  const read = await (planted ? target.planted(directory) : target.open(directory));
  const result: FuzzResult = { rounds: 0, accepted: 0 };
  const end = performance.now() + seconds * 1000;
  for (let round = only ?? 0; only === undefined ? performance.now() < end : round === only; round++) {
    writeFileSync(join(directory, "round"), String(round));
    const input = inputOf(target, seeds, seed, round);
    result.rounds++;
    try {
      await read(input);
      result.accepted++;
    } catch (error) {
      const { message, stack } = error as Error;
      if (error instanceof SluiceError && message !== "" && message.length < 10_000) continue;
      const words = error instanceof SluiceError ? `a message of ${message.length} letters: ` : "";
      return { ...result, finding: { kind: "error", round, message: words + (stack ?? String(error)).slice(0, 4000) } };
    }
    if (round % 64 === 0) await Bun.sleep(0); // what closes files later gets its turn
  }
  return result;
}

/** What a reader promises of what it accepts. A plain error, so that it is a finding. */
export function must(condition: boolean, promise: string): void {
  if (!condition) throw new Error(`a promise is broken: ${promise}`);
}
