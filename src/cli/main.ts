// How a program of ours ends: a recipe or the command line runs inside `run`, which turns errors into one clear message and
// an exit code. Errors Sluice raises on purpose print alone; anything else is a bug and keeps its stack.

import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { CallbackError, CancelledError, SluiceError } from "../words/errors.ts";

/** A `bunfig.toml` with a preload that Bun has obeyed before us: somebody's code has run, and may go on to. */
function obeyedFolder(): string | undefined {
  if (process.execArgv.some((flag) => flag.startsWith("--config"))) return undefined;
  try {
    const text = readFileSync("bunfig.toml", "utf8");
    if (!/^\s*preload\s*=/m.test(text)) return undefined;
    const own = join(import.meta.dir, "../../bunfig.toml"); // an installed copy has none
    return existsSync(own) && text === readFileSync(own, "utf8") ? undefined : resolve("bunfig.toml");
  } catch {
    return undefined;
  }
}

/** Runs a program: exit code 0, 1 after an error, 130 after Ctrl-C. */
export async function run(main: () => Promise<unknown>): Promise<void> {
  // A reader that has gone, or a full disk behind stdout, ends nobody's night: what is written goes nowhere.
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});
  const obeyed = obeyedFolder();
  if (obeyed !== undefined) {
    console.error(
      `${obeyed} has a preload, which Bun runs before Sluice can look at it; start as sluice (its first line keeps such files out), ` +
        "as bun --no-env-file --config=/dev/null FILE, or from another directory",
    );
    process.exitCode = 1;
    return;
  }
  try {
    await main();
  } catch (error) {
    const usage = (error as { code?: string }).code?.startsWith("ERR_PARSE_ARGS") === true;
    if (!(error instanceof SluiceError) && !usage) throw error;
    console.error((error as Error).message);
    if (error instanceof CallbackError) console.error(error.cause); // the recipe's own code: its stack is wanted
    process.exitCode = error instanceof CancelledError ? 130 : 1;
  }
}
