// Model directories for tests: copies of the fixtures to break, and safetensors files written by hand, so that a file
// can be wrong in ways our own writer refuses.

import { onTestFinished } from "bun:test";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const fixtures = join(import.meta.dir, "../fixtures/models");

/** A new empty directory, removed when the scope ends. */
export function temporaryDirectory(): { path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), "sluice-test-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

/** A directory that is removed when the test that is running ends. */
export function testDirectory(): string {
  const { path, [Symbol.dispose]: remove } = temporaryDirectory();
  onTestFinished(remove);
  return path;
}

/** A copy of a fixture's config and weights. */
export function copyModel(name: string, directory: string): void {
  for (const file of ["config.json", "config.legacy.json", "model.safetensors"])
    cpSync(join(fixtures, name, file), join(directory, file));
}

export function readJson(path: string): Record<string, unknown> {
  return JSON.parse(readFileSync(path, "utf8"));
}

/** A safetensors file: length, header text as given, data. */
export function writeRaw(
  path: string,
  header: string,
  dataBytes: number,
  headerBytes = Buffer.byteLength(header),
): void {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(headerBytes));
  writeFileSync(path, Buffer.concat([length, Buffer.from(header), Buffer.alloc(dataBytes)]));
}

export interface Described {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** A file's header as parsed JSON, and its data. */
export function readRaw(path: string): { header: Record<string, Described>; data: Buffer } {
  const bytes = readFileSync(path);
  const length = Number(bytes.readBigUInt64LE());
  return { header: JSON.parse(bytes.toString("utf8", 8, 8 + length)), data: bytes.subarray(8 + length) };
}
