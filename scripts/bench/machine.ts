// What a measurement has to say about where and when it was made.

import { cpus, type as systemType } from "node:os";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { DeviceInfo } from "../../src/native/runtime.ts";

export interface Conditions {
  date: string;
  commit: string;
  cpu: string;
  cores: number;
  workers: number;
  device: string;
  gpu?: DeviceInfo;
}

export function conditions(of: Pick<Conditions, "workers" | "device" | "gpu">): Conditions {
  const [first] = cpus();
  const cpu = first?.model.trim() ?? "unknown CPU";
  return {
    date: new Date().toISOString(),
    commit: commit(),
    cpu,
    cores: cpus().length,
    ...of,
  };
}

/**
 * Starts watching; the function it returns says which share of all cores' time went to other processes, or to other guests
 * of the host, since then. undefined where the system does not tell.
 */
export function watchOthers(): () => number | undefined {
  if (systemType() !== "Linux") return () => undefined;
  const before = coreTime();
  return () => {
    const after = coreTime();
    return Math.max(0, (after.busy - before.busy - (after.own - before.own)) / (after.all - before.all));
  };
}

/** Seconds since the machine started that all cores were busy (stolen time included), seconds in all, and our own. */
function coreTime(): { busy: number; all: number; own: number } {
  const line = readFileSync("/proc/stat", "utf8").split("\n")[0]!;
  const ticks = line.split(/\s+/).slice(1, 9).map(Number); // user nice system idle iowait irq softirq steal
  const all = ticks.reduce((sum, count) => sum + count, 0);
  const { user, system } = process.cpuUsage();
  return { busy: (all - ticks[3]! - ticks[4]!) / 100, all: all / 100, own: (user + system) / 1e6 };
}

/** AVX512-BF16 or AMX: without them bfloat16 is converted and multiplied as float32. */
export function cpuHasBfloat16(): boolean {
  if (systemType() !== "Linux") return false;
  return /\b(avx512_bf16|amx_bf16)\b/.test(readFileSync("/proc/cpuinfo", "utf8"));
}

/** The commit, marked where the tree differs from it; "unknown" outside git. */
function commit(): string {
  const git = Bun.spawnSync(["git", "describe", "--always", "--dirty"], {
    cwd: join(import.meta.dir, "../.."),
    stderr: "ignore",
  });
  return git.success ? git.stdout.toString().trim() : "unknown";
}
