// The memory bill as people read it: every buffer a run will hold (`step/bill.ts`), summed up by purpose and tier. The same
// list is printed at start, allocated, and compared with what plans touch. A step allocates nothing.

import type { Tier } from "../native/abi.gen.ts";
import type { BillLine } from "../plan/buffers.ts";
import { formatBytes } from "../words/format.ts";

export function bytesIn(bill: readonly BillLine[], tier: Tier): number {
  return bill.reduce((sum, { tier: of, bytes }) => sum + (of === tier ? bytes : 0), 0);
}

/** The bill as a table: a line per purpose, with totals. */
export function printBill(bill: readonly BillLine[], parameters: number): string {
  const rows = summarizeBill(bill);
  const order = ["device", "pinned", "host"];
  rows.sort((a, b) => order.indexOf(a.tier) - order.indexOf(b.tier) || b.bytes - a.bytes);
  const width = Math.max(...rows.map((row) => row.purpose.length));
  const text: string[] = [];
  for (const tier of order) {
    const own = rows.filter((row) => row.tier === tier);
    if (own.length === 0) continue;
    const total = own.reduce((sum, row) => sum + row.bytes, 0);
    text.push(
      `${tier.padEnd(width + 2)} ${formatBytes(total).padStart(10)}  ${(total / parameters).toFixed(2)} B/parameter`,
    );
    for (const row of own) text.push(`  ${row.purpose.padEnd(width)} ${formatBytes(row.bytes).padStart(10)}`);
  }
  return text.join("\n");
}

/** One line per purpose and tier, in the order of the bill. */
export function summarizeBill(bill: readonly BillLine[]): { purpose: string; tier: Tier; bytes: number }[] {
  const sums = new Map<string, { purpose: string; tier: Tier; bytes: number }>();
  for (const { purpose, tier, bytes } of bill) {
    const key = `${tier} ${purpose}`;
    const sum = sums.get(key) ?? { purpose, tier, bytes: 0 };
    sums.set(key, { ...sum, bytes: sum.bytes + bytes });
  }
  return [...sums.values()];
}
