// One process at a time in a run directory: two would delete each other's checkpoints. `run.lock` names the process that
// trains there, by its id and the moment it was started, because ids are used again. A lock whose process is gone (kill -9,
// a power cut) is taken over without a word; one of another machine cannot be looked into, so it is only ever reported.
//
// The file appears complete, by a link to what was written under another name: a reader never sees half of it. It goes
// when the run ends, however it ends, unless the process is killed outright.

import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { RunBusyError } from "../words/errors.ts";
import { fileError, temporaryPath } from "../io/atomic.ts";
import { isObject } from "../io/json.ts";

const lockName = "run.lock";
/** Others may take a stale lock over at the same moment; they cannot all fail for ever. */
const attemptsMax = 20;

interface Owner {
  pid: number;
  /** What tells this process from an earlier or later one with its id. */
  started: string;
  host: string;
  /** For people. */
  since: string;
}

/** The lock of a run directory, held until it is disposed of or the process exits. */
export class RunLock implements Disposable {
  readonly #path: string;
  readonly #content: string;

  /** RunBusyError when a living process has it. */
  constructor(directory: string) {
    this.#path = join(directory, lockName);
    const { pid } = process;
    const owner: Owner = { pid, started: startOf(pid) ?? "", host: hostname(), since: new Date().toISOString() };
    this.#content = `${JSON.stringify(owner)}\n`;
    take(this.#path, this.#content);
    process.on("exit", this.#release);
  }

  #release = (): void => {
    // Somebody may have removed it by hand, and another run may be there now.
    if (readLock(this.#path) === this.#content) rmSync(this.#path, { force: true });
  };

  [Symbol.dispose](): void {
    process.off("exit", this.#release);
    this.#release();
  }
}

function take(path: string, content: string): void {
  const own = temporaryPath(path);
  try {
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      writeFileSync(own, content); // again each time: whoever gets the lock clears leftovers away
      if (linked(own, path)) return;
      const found = readLock(path);
      if (found === undefined) continue; // it went meanwhile
      const owner = parseOwner(found);
      if (owner && isAlive(owner)) throw busy(path, owner);
      removeStale(path, found);
    }
    throw new RunBusyError(`${path}: other processes take it again and again; start one run at a time`);
  } catch (cause) {
    throw fileError(cause, "write", path);
  } finally {
    rmSync(own, { force: true });
  }
}

/** Gives a file a second name; false when that name is taken. */
function linked(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw cause;
  }
}

/** Of several that find the same stale lock, one moves it away; what it moved by mistake goes back. */
function removeStale(path: string, stale: string): void {
  const aside = temporaryPath(path);
  try {
    renameSync(path, aside);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return;
    throw cause;
  }
  if (readLock(aside) !== stale) linked(aside, path);
  rmSync(aside, { force: true });
}

function readLock(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw fileError(cause, "read", path);
  }
}

/** Undefined for a file that nobody of ours wrote: it locks nothing. */
function parseOwner(text: string): Owner | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) && Number.isSafeInteger(value["pid"]) ? (value as unknown as Owner) : undefined;
  } catch {
    return undefined;
  }
}

function isAlive({ pid, started, host }: Owner): boolean {
  return host !== hostname() || startOf(pid) === started;
}

/**
 * When a process was started, in the system's own words; undefined if there is none. On Linux that is the boot and the
 * clock ticks since, which no change of the wall clock moves.
 */
function startOf(pid: number): string | undefined {
  if (process.platform !== "linux") {
    const { success, stdout } = Bun.spawnSync(["ps", "-o", "lstart=", "-p", String(pid)]);
    return success ? stdout.toString().trim() : undefined;
  }
  try {
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The second field is the program's name in parentheses, which may hold spaces; a zombie is no process any more.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" ? undefined : `${boot} ${fields[19]}`;
  } catch {
    return undefined;
  }
}

function busy(path: string, { pid, host, since }: Owner): RunBusyError {
  const directory = path.slice(0, -lockName.length - 1);
  if (host !== hostname())
    return new RunBusyError(
      `${directory}: process ${pid} on ${host} has been training there since ${since}; wait for it or choose another output; ` +
        `if it is gone, remove ${path}`,
    );
  const who = pid === process.pid ? "this process" : `process ${pid}`;
  return new RunBusyError(
    `${directory}: ${who} has been training there since ${since}; wait for it to end, or choose another output`,
  );
}
