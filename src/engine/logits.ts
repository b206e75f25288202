// Logits of whole micro-batches, for parity checks and for looking at a model; training never holds them.

import type { MicroBatch } from "../data/batches.ts";
import { headLogits } from "../models/parts/head.ts";
import { bytesOf } from "../plan/layout.ts";
import { Plan, type Event } from "../plan/plan.ts";
import type { Session } from "./session.ts";
import { forward } from "../step/step.ts";

/** Logits (T, V) of every token of a micro-batch, as float32. Allocates T·V values on the device and in pinned memory. */
export async function logits(session: Session, batch: MicroBatch): Promise<Float32Array> {
  await session.prepare();
  const { recorder, model, shape } = session;
  const { engine } = model;
  // Every row counts here, whatever the labels are.
  const everyRow = { ...batch, targets: new Int32Array(batch.tokens.length) };
  const bytes = batch.tokens.length * shape.model.vocabulary * bytesOf(shape.dtype);
  const device = engine.buffer("device", bytes, "logits");
  const pinned = engine.buffer("pinned", bytes, "logits");
  try {
    const plan = new Plan({ step: 0, phase: "embed" });
    const inputs = recorder.inputs.stage(recorder.side, [[everyRow]]);
    recorder.inputs.upload(plan, recorder.side);
    let event: Event;
    forward(recorder, plan, { step: 0, pass: 0 }, inputs, {
      store: false,
      head: (context, x, tokens) => (event = headLogits(context, x, device.range(), tokens)),
    });
    plan.settle(recorder.inputs.resource, "read");
    plan.record("download", "copy", { to: pinned.range(), from: device.range() }, { waits: [event!] });
    await engine.play(plan);
    return toFloat32(pinned.view(), shape.dtype === "bfloat16");
  } finally {
    device.free();
    pinned.free();
  }
}

/** A copy of float32 or bf16 values as float32. */
export function toFloat32(bytes: ArrayBuffer, bfloat16: boolean): Float32Array {
  if (!bfloat16) return new Float32Array(bytes).slice();
  const halves = new Uint16Array(bytes);
  return new Float32Array(Uint32Array.from(halves, (half) => half << 16).buffer);
}
