// Event files read back by a decoder that shares nothing with the writer: records checked by a bitwise CRC-32C, protocol
// buffers by a generic parser, the numbers of fields written out again from TensorFlow's .proto files.
import { expect, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { parseConfig } from "../../src/run/config.ts";
import { readRun } from "../../src/keep/run-folder.ts";
import { TensorBoardLog } from "../../src/view/tensorboard.ts";
import { temporaryDirectory } from "../support/models.ts";
import { stepMetrics, tinyRecipe, trainApart } from "../support/runs.ts";

function crc32c(data: Uint8Array): number {
  let crc = 0xffffffffn;
  for (const byte of data) {
    crc ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) crc = (crc >> 1n) ^ (crc & 1n ? 0x82f63b78n : 0n);
  }
  return Number(crc ^ 0xffffffffn);
}

function unmask(stored: number): number {
  const rotated = Number((BigInt(stored) - 0xa282ead8n) & 0xffffffffn);
  return Number(((BigInt(rotated) << 15n) | (BigInt(rotated) >> 17n)) & 0xffffffffn);
}

type Fields = [number: number, value: bigint | Buffer][];

/** Every field of a message: varints as numbers, everything else as bytes. */
function fields(bytes: Buffer): Fields {
  const found: Fields = [];
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++]!;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < bytes.length) {
    const key = Number(varint());
    const take = (length: number): Buffer => {
      at += length;
      expect(at).toBeLessThanOrEqual(bytes.length);
      return bytes.subarray(at - length, at);
    };
    const wire = key & 7;
    expect([0, 1, 2, 5]).toContain(wire);
    const value = wire === 0 ? varint() : take(wire === 1 ? 8 : wire === 5 ? 4 : Number(varint()));
    found.push([key >> 3, value]);
  }
  return found;
}

interface Event {
  wallTime: number;
  step: number;
  version?: string;
  session?: number;
  values: Record<string, number>;
}

function readEvents(path: string): Event[] {
  const bytes = readFileSync(path);
  const events: Event[] = [];
  for (let at = 0; at < bytes.length;) {
    const length = Number(bytes.readBigUInt64LE(at));
    expect(unmask(bytes.readUInt32LE(at + 8))).toBe(crc32c(bytes.subarray(at, at + 8)));
    const data = bytes.subarray(at + 12, at + 12 + length);
    expect(unmask(bytes.readUInt32LE(at + 12 + length))).toBe(crc32c(data));
    at += length + 16;
    events.push(readEvent(data));
  }
  return events;
}

function readEvent(data: Buffer): Event {
  const event: Event = { wallTime: NaN, step: 0, values: {} };
  for (const [number, value] of fields(data)) {
    if (number === 1) event.wallTime = (value as Buffer).readDoubleLE();
    else if (number === 2) event.step = Number(value);
    else if (number === 3) event.version = String(value);
    else if (number === 7) event.session = Number(fields(value as Buffer)[0]![1]);
    else {
      expect(number).toBe(5);
      for (const [inner, summary] of fields(value as Buffer)) {
        expect(inner).toBe(1);
        const parts = Object.fromEntries(fields(summary as Buffer));
        event.values[String(parts[1])] = (parts[2] as Buffer).readFloatLE();
      }
    }
  }
  return event;
}

test("the decoder's CRC-32C is the published one", () => {
  expect(crc32c(Buffer.from("123456789"))).toBe(0xe3069283);
});

test("steps and evaluations read back, every check right", () => {
  using directory = temporaryDirectory();
  const log = new TensorBoardLog(directory.path, 0);
  log.evaluation({ step: 0, loss: 5.5, perplexity: 244.7, validTokens: 9 });
  log.step(stepMetrics(1, { deviceBytes: 3 * 2 ** 33 }));
  log.step(stepMetrics(300, { gradNorm: null, loss: NaN }));
  log[Symbol.dispose]();
  const [first, evaluation, one, other, ...rest] = readEvents(log.path);
  expect(rest).toEqual([]);
  expect([first!.version, first!.session]).toEqual(["brain.Event:2", undefined]);
  expect(Math.abs(first!.wallTime - Date.now() / 1000)).toBeLessThan(60);
  expect(evaluation!.values).toEqual({ "loss/evaluation": 5.5, perplexity: Math.fround(244.7) });
  expect(one!.step).toBe(1);
  expect(one!.values).toEqual({
    "loss/train": 4,
    learning_rate: Math.fround(1e-3),
    gradient_norm: 1,
    tokens_per_second: 512,
    tflops: Math.fround(0.1),
    epoch: 1,
    "memory/device_bytes": 3 * 2 ** 33,
    "memory/host_bytes": 2 ** 21,
    "memory/resident_bytes": 2 ** 22,
  });
  expect(other!.step).toBe(300);
  expect(other!.values["loss/train"]).toBeNaN();
  expect(other!.values).not.toHaveProperty("gradient_norm");
});

test("a resumed run opens another file and says where it starts", () => {
  using directory = temporaryDirectory();
  const paths = [0, 10].map((afterStep) => {
    using log = new TensorBoardLog(directory.path, afterStep);
    return log.path;
  });
  expect(paths[0]).not.toBe(paths[1]);
  const [, start] = readEvents(paths[1]!);
  expect([start!.step, start!.session]).toEqual([11, 1]);
});

test(
  "tensorboard: true makes a run write them; without it there are none",
  async () => {
    expect((await parseConfig({ model: "m", data: "d", output: "o" })).tensorboard).toBe(false);
    using directory = temporaryDirectory();
    const output = join(directory.path, "run");
    const run = trainApart({ ...(await tinyRecipe(directory.path)), output, steps: 2, tensorboard: true });
    expect(await run.exited).toBe(0);
    const [file, ...others] = readdirSync(join(output, "tensorboard"));
    expect(others).toEqual([]);
    const events = readEvents(join(output, "tensorboard", file!));
    const losses = events.flatMap(({ values }) => ("loss/train" in values ? [values["loss/train"]] : []));
    expect(losses).toEqual(readRun(output).steps.map(({ loss }) => Math.fround(loss)));
    expect(events.filter(({ values }) => "perplexity" in values).map(({ step }) => step)).toEqual([0, 2]);
  },
  patiently(30_000),
);
