// `tensorboard: true`: the run's curves as TensorBoard event files, in `tensorboard/` of the run directory. A file is a
// series of records, each a length, a masked CRC-32C of the length, a protocol buffer `Event`, and a masked CRC-32C of
// that. The few fields we need are written by hand, from tensorflow/core/util/event.proto and framework/summary.proto.
//
// A resumed run opens a new file that begins by telling TensorBoard to forget what an interrupted run wrote past its step.

import { closeSync, fsyncSync, mkdirSync, openSync, readdirSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { fileError } from "../io/atomic.ts";
import type { EvaluationMetrics, StepMetrics } from "../keep/metrics.ts";

let serial = 0;

export class TensorBoardLog {
  path: string;
  readonly #file: number;

  /** A new event file; the run continues after `afterStep`, 0 for one that begins. */
  constructor(directory: string, afterStep: number) {
    const folder = join(directory, "tensorboard");
    this.path = folder; // until the file has a name: where a failure is
    this.#guarded(() => mkdirSync(folder, { recursive: true }));
    // TensorBoard reads files whose name holds "tfevents", in the order of their names: seconds first.
    // The wall clock may have been set back since the run was interrupted: the new file must still be the last.
    const earlier = readdirSync(folder).map((name) =>
      Number(/^events\.out\.tfevents\.(\d{10})\./.exec(name)?.[1] ?? 0),
    );
    const seconds = String(Math.max(Math.floor(Date.now() / 1000), ...earlier.map((last) => last + 1))).padStart(
      10,
      "0",
    );
    const host = hostname().replace(/[^\w-]/g, "-");
    this.path = join(folder, `events.out.tfevents.${seconds}.${host}.${process.pid}.${serial++}`);
    this.#file = this.#guarded(() => openSync(this.path, "wx"));
    this.#event(0, text(3, "brain.Event:2"));
    if (afterStep > 0) this.#event(afterStep + 1, message(7, varintField(1, 1))); // SessionLog, status START
  }

  step(metrics: StepMetrics): void {
    this.#scalars(metrics.step, {
      "loss/train": metrics.loss,
      learning_rate: metrics.learningRate,
      gradient_norm: metrics.gradNorm,
      tokens_per_second: metrics.tokensPerSecond,
      tflops: metrics.tflops,
      epoch: metrics.epoch,
      "memory/device_bytes": metrics.deviceBytes,
      "memory/host_bytes": metrics.hostBytes,
      "memory/resident_bytes": metrics.residentBytes,
    });
  }

  evaluation(metrics: EvaluationMetrics): void {
    this.#scalars(metrics.step, { "loss/evaluation": metrics.loss, perplexity: metrics.perplexity });
  }

  /** What was written is on the disk when this returns. */
  flush(): void {
    this.#guarded(() => fsyncSync(this.#file));
  }

  [Symbol.dispose](): void {
    closeSync(this.#file);
  }

  /** One event with a `Summary` of a `Value` per tag; quantities that were not computed are left out. */
  #scalars(step: number, values: Record<string, number | null>): void {
    const given = Object.entries(values).filter((entry): entry is [string, number] => entry[1] !== null);
    const summary = given.map(([tag, value]) => message(1, Buffer.concat([text(1, tag), floatField(2, value)])));
    this.#event(step, message(5, Buffer.concat(summary)));
  }

  /** An `Event`: wall time, step and one more field. One write per record, so a reader sees whole records. */
  #event(step: number, what: Buffer): void {
    const data = record(Buffer.concat([doubleField(1, Date.now() / 1000), varintField(2, step), what]));
    this.#guarded(() => writeFileSync(this.#file, data));
  }

  #guarded<T>(act: () => T): T {
    try {
      return act();
    } catch (cause) {
      throw fileError(cause, "write", this.path);
    }
  }
}

/** Length (u64), its check, the data, its check; all little-endian. */
function record(data: Buffer): Buffer {
  const framed = Buffer.alloc(data.length + 16);
  framed.writeBigUInt64LE(BigInt(data.length), 0);
  framed.writeUInt32LE(maskedCrc(framed.subarray(0, 8)), 8);
  data.copy(framed, 12);
  framed.writeUInt32LE(maskedCrc(data), 12 + data.length);
  return framed;
}

// ---- protocol buffers: a field is its number and wire type as one varint, then the value --------------------------------

function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (; value >= 0x80; value = Math.floor(value / 0x80)) bytes.push((value % 0x80) | 0x80);
  return Buffer.from([...bytes, value]);
}

function field(number: number, wireType: 0 | 1 | 2 | 5, value: Buffer): Buffer {
  return Buffer.concat([varint(number * 8 + wireType), value]);
}

const varintField = (number: number, value: number): Buffer => field(number, 0, varint(value));
const message = (number: number, body: Buffer): Buffer => field(number, 2, Buffer.concat([varint(body.length), body]));
const text = (number: number, value: string): Buffer => message(number, Buffer.from(value));

function doubleField(number: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return field(number, 1, bytes);
}

function floatField(number: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return field(number, 5, bytes);
}

// ---- CRC-32C (Castagnoli), a table per byte; Bun's crc32 is the other polynomial -----------------------------------------

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let rest = byte;
  for (let bit = 0; bit < 8; bit++) rest = rest & 1 ? (rest >>> 1) ^ 0x82f63b78 : rest >>> 1;
  return rest;
});

/** Masked, as TensorFlow stores checks: a check of data that holds checks would be weak. */
function maskedCrc(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) crc = crcTable[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  crc = ~crc >>> 0;
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}
