// How much memory the host has, has free, and lets this process use: a container may be allowed less than there is.
// `root` is the file system to look at, for tests.

import { readFileSync } from "node:fs";
import { totalmem } from "node:os";
import { join } from "node:path";

export interface HostMemory {
  total: number;
  /** Free, or freed when asked for; undefined where the system does not say. */
  available: number | undefined;
  /** What this container may use; undefined where nothing limits it. */
  limit: number | undefined;
}

export function hostMemory(root = "/"): HostMemory {
  const free = /MemAvailable:\s*(\d+) kB/.exec(text(join(root, "proc/meminfo")))?.[1];
  const limit = Number(text(join(root, "sys/fs/cgroup/memory.max")));
  return {
    total: totalmem(),
    available: free === undefined ? undefined : Number(free) * 1024,
    limit: limit > 0 ? limit : undefined,
  };
}

/** Left to the system, and to what this process has beside its buffers: page tables, the driver's own memory, Bun. */
const reserveOf = (total: number): number => 2 ** 30 + total / 64;

/** Bytes that this process may hold in all, those that it holds included. */
export function usableHostBytes(): number {
  const { total, available = total, limit = total } = hostMemory();
  return Math.max(0, Math.min(total, limit, available + process.memoryUsage.rss()) - reserveOf(total));
}

/** A file's text, or nothing. */
function text(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
