// Numbers for people: every size, duration, count and rate that Sluice prints goes through here.

/** Bytes in binary units with three significant digits or so: "512 B", "24.0 GiB". */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  // 1,023.95 would print as "1024.0", so the next unit begins a little early.
  while (Math.abs(bytes) >= 1023.95 && unit < units.length - 1) {
    bytes /= 1024;
    unit++;
  }
  return `${unit === 0 ? Math.round(bytes) : bytes.toFixed(1)} ${units[unit]}`;
}

/** Bytes per tier, for the handles that print themselves: "device 2.6 MiB, pinned 3.1 MiB". */
export function formatTiers(held: Iterable<{ tier: string; bytes: number }>): string {
  const sums = new Map<string, number>();
  for (const { tier, bytes } of held) sums.set(tier, (sums.get(tier) ?? 0) + bytes);
  const parts = [...sums].filter(([, bytes]) => bytes > 0).map(([tier, bytes]) => `${tier} ${formatBytes(bytes)}`);
  return parts.join(", ") || "nothing";
}

/** A count with a decimal suffix: 950, "12.3k", "1.70B". */
export function formatCount(count: number): string {
  const units = ["", "k", "M", "B", "T"];
  let unit = 0;
  while (Math.abs(count) >= 999.5 && unit < units.length - 1) {
    count /= 1000;
    unit++;
  }
  if (unit === 0) return Number.isInteger(count) ? String(count) : count.toFixed(1);
  return `${count.toFixed(count < 9.995 ? 2 : count < 99.95 ? 1 : 0)}${units[unit]}`;
}

/** A duration in its two largest units: "340ms", "4.2s", "3m 05s", "1h 02m", "2d 03h". */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "unknown";
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)}ms`;
  if (seconds < 59.95) return `${seconds.toFixed(1)}s`;
  const two = (n: number) => String(n).padStart(2, "0");
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${two(whole % 60)}s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)}h ${two(minutes % 60)}m`;
  const hours = Math.round(seconds / 3600);
  return `${Math.floor(hours / 24)}d ${two(hours % 24)}h`;
}

/** A value of a config or data line as an error message quotes it: JSON, cut when long. */
export function formatValue(value: unknown): string {
  // JSON has no word for these.
  if (typeof value === "number" || typeof value === "bigint" || value === undefined) return String(value);
  const json = jsonOf(value) ?? typeof value;
  return json.length > 60 ? `${json.slice(0, 57)}...` : json;
}

function jsonOf(value: unknown): string | undefined {
  try {
    return JSON.stringify(value);
  } catch (error) {
    if (error instanceof RangeError) return `${Array.isArray(value) ? "a list" : "an object"} that is nested too deep`;
    return JSON.stringify(value, (_, inside: unknown) => (typeof inside === "bigint" ? Number(inside) : inside));
  }
}

/** What should be a word and may be anything, when somebody wrote the file by hand. */
export function formatWord(value: unknown): string {
  return typeof value === "string" ? value : formatValue(value);
}

const UNIT_BYTES: Record<string, number> = {
  B: 1,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
  kB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
};

/** "24GiB" to bytes; undefined when the text is no size. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*([kKMGT]?i?B)$/.exec(text.trim());
  const unit = UNIT_BYTES[match?.[2] ?? ""];
  return match && unit ? Math.round(Number(match[1]) * unit) : undefined;
}
