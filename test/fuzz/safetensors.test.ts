// Damaged safetensors headers, seeded: the reader gives a result or a ModelError, never anything else, and what it
// accepts lies inside the file. `FUZZ_SEED=n` repeats a run, `FUZZ_ROUNDS=n` makes a longer one.

import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { ModelError } from "../../src/errors.ts";
import { readSafetensors } from "../../src/io/safetensors.ts";
import { readRaw, fixtures, temporaryDirectory } from "../support/models.ts";

const seed = Number(process.env.FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 32));
const rounds = Number(process.env.FUZZ_ROUNDS ?? 3000);

/** mulberry32 */
function generator(state: number): () => number {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

test(`damaged headers, seed ${seed}`, () => {
  using directory = temporaryDirectory();
  const path = join(directory.path, "model.safetensors");
  const random = generator(seed);
  const below = (limit: number) => Math.floor(random() * limit);
  const { header } = readRaw(join(fixtures, "qwen2-tiny/model.safetensors"));
  const few = Object.entries(header).slice(0, 6);
  const dataBytes = few.at(-1)?.[1].data_offsets[1] ?? 0;
  const text = Buffer.from(JSON.stringify(Object.fromEntries(few)));
  const good = Buffer.concat([Buffer.alloc(8), text, Buffer.alloc(dataBytes)]);
  good.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(path, good);
  expect(readSafetensors(path).tensors.size).toBe(5); // and __metadata__

  const headerEnd = 8 + text.length;
  const pieces = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"',
    "-1",
    "1e400",
    "9007199254740993",
    "null",
    '"BF16"',
    "\\u0000",
    "__proto__",
    "[".repeat(50_000),
  ];
  const damage: ((bytes: Buffer) => Buffer)[] = [
    (bytes) => (bytes.writeUInt8(bytes.readUInt8(below(headerEnd)) ^ (1 << below(8)), below(headerEnd)), bytes), // a flipped bit
    (bytes) => (bytes.writeUInt8(below(256), below(headerEnd)), bytes),
    (bytes) => (bytes.writeUInt8(0x30 + below(10), 8 + below(text.length)), bytes), // often still JSON
    (bytes) => bytes.subarray(0, below(bytes.length)),
    (bytes) => Buffer.concat([bytes, Buffer.alloc(1 + below(9))]),
    (bytes) => (bytes.writeBigUInt64LE(BigInt(below(2 ** 31)) << BigInt(below(33))), bytes),
    (bytes) => {
      const at = 8 + below(text.length);
      const piece = Buffer.from(pieces[below(pieces.length)] ?? "");
      const changed = Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at + below(4))]);
      const headerBytes = changed.length - dataBytes - 8;
      if (headerBytes >= 0) changed.writeBigUInt64LE(BigInt(headerBytes));
      return changed;
    },
  ];
  let accepted = 0;
  for (let round = 0; round < rounds; round++) {
    let bytes: Buffer = Buffer.from(good);
    for (let changes = 1 + below(3); changes > 0 && bytes.length > headerEnd; changes--)
      bytes = damage[below(damage.length)]?.(bytes) ?? bytes;
    writeFileSync(path, bytes);
    try {
      const { tensors } = readSafetensors(path);
      for (const { offset, bytes: length } of tensors.values())
        expect(offset + length).toBeLessThanOrEqual(bytes.length);
      accepted++;
    } catch (error) {
      if (!(error instanceof ModelError)) throw new Error(`seed ${seed}, round ${round}: ${error}`, { cause: error });
      expect(error.message).toStartWith(path);
    }
  }
  console.log(`seed ${seed}: ${rounds} damaged files, ${accepted} still readable`);
  expect(accepted).toBeLessThan(rounds / 2); // else the damage does not reach the header
});
