// What a measurement has to say about where and when it was made.

import { cpus, loadavg, type as systemType } from "node:os";
import { readFileSync } from "node:fs";
import { join } from "node:path";

export interface Conditions {
  date: string;
  commit: string;
  cpu: string;
  cores: number;
  workers: number;
  device: string;
  /** Runnable processes of the last minute, before measuring: anything near the number of cores spoils the figures. */
  load: number;
}

export function conditions({ workers, device }: { workers: number; device: string }): Conditions {
  const [first] = cpus();
  const cpu = first?.model.trim() ?? "unknown CPU";
  return {
    date: new Date().toISOString(),
    commit: commit(),
    cpu,
    cores: cpus().length,
    workers,
    device,
    load: loadavg()[0]!,
  };
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
