import { expect, test } from "bun:test";
import { formatBytes, formatCount, formatDuration, formatValue } from "../../src/words/format.ts";

test("bytes", () => {
  const table: [number, string][] = [
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1.0 KiB"],
    [1536, "1.5 KiB"],
    [1024 ** 2 - 1, "1.0 MiB"],
    [24 * 1024 ** 3, "24.0 GiB"],
    [5000 * 1024 ** 4, "5000.0 TiB"],
  ];
  for (const [bytes, text] of table) expect(formatBytes(bytes)).toBe(text);
});

test("counts", () => {
  const table: [number, string][] = [
    [0, "0"],
    [950, "950"],
    [12.34, "12.3"],
    [999, "999"],
    [1000, "1.00k"],
    [12_345, "12.3k"],
    [999_600, "1.00M"],
    [1.7e9, "1.70B"],
  ];
  for (const [count, text] of table) expect(formatCount(count)).toBe(text);
});

test("durations", () => {
  const table: [number, string][] = [
    [0.34, "340ms"],
    [0.9999, "1.0s"],
    [4.21, "4.2s"],
    [59.96, "1m 00s"],
    [185, "3m 05s"],
    [3599.6, "1h 00m"],
    [3720, "1h 02m"],
    [51 * 3600, "2d 03h"],
    [Infinity, "unknown"],
  ];
  for (const [seconds, text] of table) expect(formatDuration(seconds)).toBe(text);
});

test("values in messages", () => {
  expect(formatValue("a")).toBe('"a"');
  expect(formatValue(undefined)).toBe("undefined");
  expect(formatValue(Number.NaN)).toBe("NaN");
  expect(formatValue(() => 1)).toBe("function");
  expect(formatValue("x".repeat(100))).toHaveLength(60);
});

test("values that JSON cannot write", () => {
  let deep: unknown = "x";
  for (let i = 0; i < 100_000; i++) deep = [deep];
  expect(formatValue({ a: deep })).toBe("an object that is nested too deep");
  expect(formatValue(deep)).toBe("a list that is nested too deep");
  expect(formatValue(12345678901234567890n)).toBe("12345678901234567890");
  expect(formatValue({ days: 2n })).toBe('{"days":2}');
});
