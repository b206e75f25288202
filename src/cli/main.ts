// How a program of ours ends: a recipe or the command line runs inside `run`, which turns errors into one clear message and
// an exit code. Errors Sluice raises on purpose print alone; anything else is a bug and keeps its stack.

import { CallbackError, CancelledError, SluiceError } from "../words/errors.ts";

/** Runs a program: exit code 0, 1 after an error, 130 after Ctrl-C. */
export async function run(main: () => Promise<unknown>): Promise<void> {
  // A reader that has gone, or a full disk behind stdout, ends nobody's night: what is written goes nowhere.
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});
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
