// The errors Sluice raises on purpose. Each message is one sentence a person can act on: what happened, the value, the
// limit, and what to do. The world's mistakes (config, files, memory, driver) become one of these; our own mistakes are
// plain `Error`s from `assert`, because nobody can remedy them but us. The command line prints the message alone and
// exits with 1; anything else prints with its stack.

/** Base of every error that tells the user what to change. */
export class SluiceError extends Error {
  override name = "SluiceError";

  constructor(message: string, options?: ErrorOptions) {
    super(fitForTerminal(message), options);
  }
}

const messageMax = 4000;

/** Messages quote what they were given: without bytes that steer a terminal, and never a megabyte of it. */
function fitForTerminal(message: string): string {
  const short =
    message.length > messageMax ? `${message.slice(0, messageMax - 1000)} ... ${message.slice(-1000)}` : message;
  const control = /[^\P{Cc}\t\n]/gu; // all but tabs and new lines
  return short.replace(control, (byte) => `\\x${byte.charCodeAt(0).toString(16).padStart(2, "0")}`);
}

/** A config value, flag or key is wrong; the message starts with its path, such as `optimizer.lr must be > 0 (was -0.1)`. */
export class ConfigError extends SluiceError {
  override name = "ConfigError";
}

/** A model directory is missing something, malformed, or of an architecture Sluice does not have; the message names the path. */
export class ModelError extends SluiceError {
  override name = "ModelError";
}

/** A data file or line is wrong; the message starts with `file:line:`. */
export class DataError extends SluiceError {
  override name = "DataError";
}

/** A checkpoint is damaged, incomplete or of another model; the message names the path. */
export class CheckpointError extends SluiceError {
  override name = "CheckpointError";
}

/** A place is too small; the message carries the bill's line, the limit and what to reduce. */
export class MemoryError extends SluiceError {
  override name = "MemoryError";
}

/** The native library could not be loaded, or refused a call. */
export class NativeError extends SluiceError {
  override name = "NativeError";
}

/** A command of a plan failed; the message names the command, its buffers and the cause. */
export class StepError extends SluiceError {
  override name = "StepError";
}

/** The run was cancelled between two commands. */
export class CancelledError extends SluiceError {
  override name = "CancelledError";
}

/** A callback of `train` threw; the message names it and the checkpoint that was saved, `cause` is what it threw. */
export class CallbackError extends SluiceError {
  override name = "CallbackError";
}

/** Another process trains in the same run directory; the message names it. */
export class RunBusyError extends SluiceError {
  override name = "RunBusyError";
}

/** Our own mistakes: a condition that no input may break. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`internal error: ${message}`);
}
