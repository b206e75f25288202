// How an engine works on a GPU: figures, memory and its limit, copies, the order of commands across streams, failures and
// cancellation, timing, matrix products. Runs on each GPU that is there (`bun run test:gpu`), and everywhere on the stand-in
// (stand-in.test.ts), whose streams run late and in any order that events allow.

import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { CancelledError, MemoryError, NativeError, StepError } from "../../src/words/errors.ts";
import { Engine, type NativeBuffer } from "../../src/native/runtime.ts";
import { Plan, type Event, type Range } from "../../src/plan/plan.ts";
import { onGpus } from "../support/ops.ts";
import { Draw } from "../support/tensors.ts";

setDefaultTimeout(patiently(30_000));
const seed = Number(process.env["SLUICE_TEST_SEED"] ?? 5);

onGpus(onGpu);

function onGpu(device: "cuda" | "hip"): void {
  let engine: Engine;
  beforeEach(() => {
    engine = new Engine({ device, workers: 2 });
  });
  afterEach(() => engine.close());

  const newPlan = (): Plan => new Plan({ step: 7, phase: "forward", block: 3 });
  const floats = (buffer: NativeBuffer): Float32Array => new Float32Array(buffer.view());
  const copy = (
    plan: Plan,
    stream: "compute" | "upload" | "download",
    to: Range,
    from: Range,
    waits: Event[] = [],
  ): Event => plan.record(stream, "copy", { to, from }, { waits });

  test("rows of a long document, past two thousand million values: 98,304 tokens where 9 GB are free, else 96", async () => {
    const tokens = engine.deviceInfo().freeBytes > 9e9 ? 98_304 : 96;
    const [inputs, outputs, rows] = [64, 24_576, 64]; // as the gate and up product of an 8B model has them
    const draw = new Draw(seed);
    const device = (name: string, values: number): NativeBuffer => engine.buffer("device", values * 2, name);
    const filled = async (name: string, values: number): Promise<NativeBuffer> => {
      const [to, from] = [device(name, values), engine.buffer("pinned", values * 2, `${name}, staged`)];
      new Uint8Array(from.view()).set(draw.normal("bfloat16", values).bytes);
      const plan = newPlan();
      copy(plan, "upload", to.range(), from.range());
      await engine.play(plan);
      from.free();
      return to;
    };
    const [x, weight] = [await filled("x", tokens * inputs), await filled("weight", outputs * inputs)];
    const [y, part] = [device("y", tokens * outputs), device("part of y", rows * outputs)];
    const [halves, half] = [device("swiglu", (tokens * outputs) / 2), device("part of swiglu", (rows * outputs) / 2)];
    const [dx, dPart] = [device("dx", tokens * inputs), device("part of dx", rows * inputs)];
    const last = (buffer: NativeBuffer, width: number) => buffer.range((tokens - rows) * width * 2, rows * width * 2);
    const plan = newPlan();
    const linear = { inputs, outputs, weight: weight.range(), dtype: "bfloat16" } as const;
    const swiglu = { width: outputs / 2, dtype: "bfloat16" } as const;
    const none = { bias: null, residual: null };
    plan.record("compute", "linearForward", { ...linear, ...none, tokens, y: y.range(), x: x.range() });
    plan.record("compute", "linearForward", { ...linear, ...none, tokens: rows, y: part.range(), x: last(x, inputs) });
    plan.record("compute", "swigluForward", { ...swiglu, tokens, y: halves.range(), gateUp: y.range() });
    plan.record("compute", "swigluForward", { ...swiglu, tokens: rows, y: half.range(), gateUp: last(y, outputs) });
    plan.record("compute", "linearBackwardInput", { ...linear, tokens, dx: dx.range(), dy: y.range() });
    const small = plan.record("compute", "linearBackwardInput", {
      ...linear,
      tokens: rows,
      dx: dPart.range(),
      dy: last(y, outputs),
    });
    const sizes = [outputs, outputs / 2, inputs];
    const found = sizes.map((width, index) =>
      [0, 1].map((which) => engine.buffer("pinned", rows * width * 2, `${index}.${which}`)),
    );
    const [whole, parts] = [
      [y, halves, dx],
      [part, half, dPart],
    ];
    for (const [index, width] of sizes.entries()) {
      copy(plan, "download", found[index]![0]!.range(), last(whole[index]!, width), [small]);
      copy(plan, "download", found[index]![1]!.range(), parts[index]!.range(), [small]);
    }
    await engine.play(plan);
    const values = (buffer: NativeBuffer): Float32Array =>
      new Float32Array(Uint32Array.from(new Uint16Array(buffer.view()), (bits) => bits << 16).buffer);
    for (const [one, other] of found) {
      const [a, b] = [values(one!), values(other!)];
      const scale = Math.sqrt(b.reduce((sum, each) => sum + each * each, 0) / b.length);
      const worst = a.reduce(
        (most, each, at) => Math.max(most, Math.abs(each - b[at]!) / (scale + Math.abs(b[at]!))),
        0,
      );
      expect(scale).toBeGreaterThan(0.1);
      expect(worst).toBeLessThan(2 ** -6); // another algorithm rounds elsewhere
    }
  });

  describe("memory", () => {
    test("the figures of the card, and what buffers take of it", () => {
      const before = engine.deviceInfo();
      expect(before.name).not.toBe("");
      expect(before.totalBytes).toBeGreaterThan(before.freeBytes);
      expect(before.overheadBytes).toBeGreaterThan(96 * 2 ** 20); // the two workspaces alone
      expect(before.bufferBytes).toBe(0);
      expect(before.multiprocessors).toBeGreaterThan(0);
      const buffer = engine.buffer("device", 5 * 2 ** 20 + 1, "five");
      const after = engine.deviceInfo();
      expect(after.bufferBytes).toBe(6 * 2 ** 20);
      expect(before.freeBytes - after.freeBytes).toBeGreaterThanOrEqual(5 * 2 ** 20);
      expect(engine.held().device).toBe(5 * 2 ** 20 + 1);
      buffer.free();
      expect(engine.deviceInfo().bufferBytes).toBe(0);
    });

    test("a new buffer is zero, also where another one was", async () => {
      const bytes = 3 * 2 ** 20 + 12;
      const pinned = engine.buffer("pinned", bytes, "pinned");
      for (let round = 0; round < 3; round++) {
        const buffer = engine.buffer("device", bytes, "device");
        new Uint8Array(pinned.view()).fill(0xab);
        const plan = newPlan();
        copy(plan, "download", pinned.range(), buffer.range());
        await engine.play(plan);
        expect(new Uint8Array(pinned.view()).every((byte) => byte === 0)).toBe(true);
        new Uint8Array(pinned.view()).fill(0xcd);
        const dirty = newPlan();
        copy(dirty, "upload", buffer.range(), pinned.range());
        await engine.play(dirty);
        buffer.free();
      }
    });

    test("the limit covers context and libraries; what is over it is refused and changes nothing", () => {
      const { overheadBytes } = engine.deviceInfo();
      const needed = () => new Engine({ device, workers: 1, deviceBytesMax: overheadBytes / 4 });
      expect(needed).toThrow(NativeError);
      expect(needed).toThrow(/^deviceMemory is \d+ bytes, but the context, kernels and libraries alone take \d+ on /);
      using small = new Engine({ device, workers: 1, deviceBytesMax: 2 * overheadBytes + 64 * 2 ** 20 });
      const room = small.deviceBytesMax;
      expect(room).toBe(2 * overheadBytes + 64 * 2 ** 20 - small.deviceInfo().overheadBytes);
      const most = Math.floor(room / 2 ** 21) * 2 ** 21;
      small.buffer("device", most, "most").free();
      const more = () => small.buffer("device", most + 2 ** 21, "more");
      expect(more).toThrow(MemoryError);
      expect(more).toThrow(/^device memory: buffer more needs \d+ bytes; of \d+, buffers hold 0 and context, kernels/);
      expect(small.held().device).toBe(0);
    });

    test("more than the card has is refused", () => {
      const { totalBytes } = engine.deviceInfo();
      expect(() => engine.buffer("device", totalBytes, "whole")).toThrow(
        /^device memory: buffer whole needs \d+ bytes/,
      );
    });
  });

  describe("copies", () => {
    for (const place of ["pinned", "host"] as const)
      for (const bytes of [1, 7, 4096, 100_003, 8 * 2 ** 20 + 5])
        test(`${bytes} bytes of ${place} memory, up, across and down`, async () => {
          const [source, target] = [engine.buffer(place, bytes, "source"), engine.buffer(place, bytes, "target")];
          const [one, two] = [engine.buffer("device", bytes, "one"), engine.buffer("device", bytes + 16, "two")];
          const values = new Uint8Array(source.view());
          for (let i = 0; i < bytes; i++) values[i] = (i * 2654435761) >>> 13;
          const plan = newPlan();
          const up = copy(plan, "upload", one.range(), source.range());
          const across = copy(plan, "compute", two.range(3, bytes), one.range(), [up]);
          copy(plan, "download", target.range(), two.range(3, bytes), [across]);
          await engine.play(plan);
          expect(Buffer.compare(new Uint8Array(target.view()), values)).toBe(0);
        });

    test("zero clears a part", async () => {
      const pinned = engine.buffer("pinned", 64, "pinned");
      const buffer = engine.buffer("device", 64, "device");
      new Uint8Array(pinned.view()).fill(7);
      const plan = newPlan();
      const up = copy(plan, "upload", buffer.range(), pinned.range());
      const cleared = plan.record("compute", "zero", { to: buffer.range(3, 10) }, { waits: [up] });
      copy(plan, "download", pinned.range(), buffer.range(), [cleared]);
      await engine.play(plan);
      const expected = Array.from({ length: 64 }, (_, i) => (i >= 3 && i < 13 ? 0 : 7));
      expect([...new Uint8Array(pinned.view())]).toEqual(expected);
    });
  });

  describe("order", () => {
    // Adds 1 to every value, once a round, on the device and on the host in turn, through one slot each.
    async function chain(rounds: number, plans: number): Promise<void> {
      const count = 1 << 14;
      const bytes = count * 4;
      const host = engine.buffer("pinned", bytes, "host");
      const ones = engine.buffer("pinned", bytes, "ones");
      const [slot, sum, unit] = ["slot", "sum", "unit"].map((name) => engine.buffer("device", bytes, name)) as [
        NativeBuffer,
        NativeBuffer,
        NativeBuffer,
      ];
      floats(ones).fill(1);
      let last: Event | undefined;
      for (let part = 0; part < plans; part++) {
        const plan = newPlan();
        const after = (): Event[] => (last === undefined ? [] : [last]);
        if (part === 0) copy(plan, "upload", unit.range(), ones.range());
        for (let round = 0; round < rounds; round++) {
          const up = copy(plan, "upload", slot.range(), host.range(), after());
          const dtype = "float32";
          copy(plan, "compute", sum.range(), slot.range(), [up]);
          const add = { to: sum.range(), from: unit.range(), count, accumulate: 1, dtype } as const;
          const added = plan.record("compute", "accumulate", add);
          const down = copy(plan, "download", host.range(), sum.range(), [added]);
          last = plan.record(
            "host",
            "accumulate",
            { to: host.range(), from: ones.range(), count, accumulate: 1, dtype },
            { waits: [down] },
          );
        }
        plan.notify(last!);
        engine.submit(plan);
      }
      await engine.done(last!);
      expect(floats(host).every((value) => value === 2 * rounds * plans)).toBe(true);
    }

    test("a chain over upload, compute, download and host", () => chain(40, 1));
    test("over several plans in flight", () => chain(15, 4));
    test("with pauses before commands", async () => {
      engine.disturb({ jitterUs: 500, seed });
      await chain(20, 2);
      engine.disturb({});
    });

    test("random plans end with what one stream computes", async () => {
      const draw = new Draw(seed);
      const [cells, bytes] = [6, 4096];
      const host = engine.buffer("pinned", cells * bytes, "host");
      const onCard = engine.buffer("device", cells * bytes, "device");
      for (let trial = 0; trial < 10; trial++) {
        const expected = Array.from({ length: cells }, (_, cell) => cell + 10 * trial);
        const onDevice = expected.map(() => -1);
        for (const [cell, value] of expected.entries()) new Float32Array(host.view(cell * bytes, bytes)).fill(value);
        const plan = newPlan();
        const writer: Record<string, Event> = {};
        const readers: Record<string, Event[]> = {};
        for (let index = 0; index < 300; index++) {
          const [a, b] = [draw.random.below(cells), draw.random.below(cells)];
          const kind = onDevice[a] === -1 ? 0 : draw.random.below(3);
          const [from, to] = (
            [
              [`h${a}`, `d${a}`],
              [`d${a}`, `d${b}`],
              [`d${a}`, `h${b}`],
            ] as const
          )[kind]!;
          if (from === to) continue;
          const rangeOf = (name: string): Range =>
            (name[0] === "h" ? host : onCard).range(Number(name.slice(1)) * bytes, bytes);
          const waits = [writer[from], writer[to], ...(readers[to] ?? [])].filter((event) => event !== undefined);
          const event = copy(
            plan,
            (["upload", "compute", "download"] as const)[kind]!,
            rangeOf(to),
            rangeOf(from),
            waits,
          );
          writer[to] = event;
          readers[to] = [];
          (readers[from] ??= []).push(event);
          const value = from[0] === "h" ? expected[a]! : onDevice[a]!;
          if (to[0] === "h") expected[Number(to.slice(1))] = value;
          else onDevice[Number(to.slice(1))] = value;
        }
        await engine.play(plan);
        for (const [cell, value] of expected.entries()) {
          const found = new Float32Array(host.view(cell * bytes, bytes));
          expect(found.findIndex((number) => number !== value)).toBe(-1);
        }
      }
    });
  });

  describe("failure", () => {
    test("names the command, its part of the step, its buffers and the cause; the next plan works", async () => {
      const host = engine.buffer("pinned", 64, "host");
      const buffer = engine.buffer("device", 64, "device");
      const plan = newPlan();
      const failing = copy(plan, "upload", buffer.range(), host.range());
      copy(plan, "download", host.range(), buffer.range(), [failing]);
      engine.disturb({ fail: failing });
      const message = "step 7 forward block 3: copy on upload failed: injected failure (buffers device, host)";
      await expect(engine.play(plan)).rejects.toThrow(new StepError(message));
      engine.disturb({});
      const next = newPlan();
      copy(next, "upload", buffer.range(), host.range());
      await engine.play(next);
    });

    test("an op that has no kernel says so", async () => {
      const buffer = engine.buffer("device", 4096, "device");
      const plan = newPlan();
      plan.record("compute", "lossSum", {
        total: buffer.range(0, 16),
        losses: buffer.range(64, 64),
        count: 16,
        check: 0,
      });
      await expect(engine.play(plan)).rejects.toThrow("op loss_sum has no GPU kernel");
    });

    test("plans whose streams do not reach their buffers are refused", () => {
      const [host, buffer] = [engine.buffer("pinned", 64, "host"), engine.buffer("device", 64, "device")];
      const onHost = newPlan();
      onHost.record("host", "zero", { to: buffer.range() });
      expect(() => engine.submit(onHost)).toThrow(
        /zero\.to is device, in the GPU's memory, which the host stream does not reach$/,
      );
      const onDevice = newPlan();
      onDevice.record("compute", "zero", { to: host.range() });
      expect(() => engine.submit(onDevice)).toThrow(
        /zero\.to is host, in host memory; on the compute stream a GPU only copies that$/,
      );
    });

    test("cancelling ends soon, and the next plan works", async () => {
      const bytes = 1 << 20;
      const host = engine.buffer("pinned", bytes, "host");
      const buffer = engine.buffer("device", bytes, "device");
      const plan = newPlan();
      for (let index = 0; index < 6000; index++)
        copy(
          plan,
          (["upload", "compute"] as const)[index % 2]!,
          buffer.range(),
          index % 2 ? buffer.range() : host.range(),
        );
      const played = engine.play(plan).catch((error: unknown) => error);
      await Bun.sleep(2);
      const start = performance.now();
      engine.cancel();
      expect(await played).toBeInstanceOf(CancelledError);
      expect(performance.now() - start).toBeLessThan(5000);
      const next = newPlan();
      floats(host).fill(3);
      const up = copy(next, "upload", buffer.range(), host.range());
      copy(next, "download", host.range(), buffer.range(), [up]);
      await engine.play(next);
      expect(floats(host).every((value) => value === 3)).toBe(true);
    });

    test("closing an engine with a plan in flight leaves nothing hanging", async () => {
      using other = new Engine({ device, workers: 1 });
      const host = other.buffer("pinned", 1 << 20, "host");
      const buffer = other.buffer("device", 1 << 20, "device");
      const plan = newPlan();
      for (let index = 0; index < 500; index++) copy(plan, "upload", buffer.range(), host.range());
      const played = other.play(plan).catch((error: unknown) => error);
      other.close();
      expect(await played).toEqual(new CancelledError("the engine was closed"));
    });
  });

  describe("timing", () => {
    for (const traced of [true, false])
      test(`spans follow the order of commands, ${traced ? "by the GPU's clock" : "as the host saw them"}`, async () => {
        engine.trace(traced);
        const bytes = 32 * 2 ** 20;
        const host = engine.buffer("pinned", bytes, "host");
        const buffer = engine.buffer("device", bytes, "device");
        const plan = newPlan();
        let event: Event | undefined;
        for (let index = 0; index < 10; index++) {
          const waits = event === undefined ? [] : [event];
          event = copy(
            plan,
            index % 2 ? "download" : "upload",
            ...((index % 2 ? [host.range(), buffer.range()] : [buffer.range(), host.range()]) as [Range, Range]),
            waits,
          );
        }
        const before = engine.busy();
        const start = performance.now();
        await engine.play(plan);
        const seconds = (performance.now() - start) / 1000;
        const spans = engine.spans(plan);
        const slack = 200_000; // two clocks, and the host looks only now and then
        for (const [index, span] of spans.entries()) {
          expect(span.end).toBeGreaterThanOrEqual(span.start);
          if (index > 0) expect(span.start).toBeGreaterThanOrEqual(spans[index - 1]!.end - slack);
        }
        expect((spans.at(-1)!.end - spans[0]!.start) / 1e9).toBeLessThan(seconds + 0.01);
        const busy = engine.busy();
        const spent = busy.upload - before.upload + busy.download - before.download;
        expect(spent).toBeGreaterThan(0);
        expect(spent).toBeLessThan(seconds + 0.01);
      });
  });

  describe("matrix products", () => {
    /** y = x · weightᵀ with ranges that start `shift` bytes after a multiple of 64. */
    async function product(on: Engine, shift: number): Promise<Uint8Array> {
      const [tokens, inputs, outputs] = [40, 64, 96];
      const draw = new Draw(seed);
      const [x, weight] = [draw.normal("bfloat16", tokens * inputs), draw.normal("bfloat16", outputs * inputs, 0.3)];
      const sizes = [tokens * outputs * 2, x.bytes.length, weight.bytes.length];
      const total = sizes.reduce((sum, bytes) => sum + Math.ceil(bytes / 64) * 64 + 64, 0);
      const host = on.buffer("pinned", total, "host");
      const buffer = on.buffer("device", total, "device");
      let end = shift;
      const offsets = sizes.map((bytes) => {
        const offset = end;
        end += Math.ceil(bytes / 64) * 64;
        return offset;
      });
      const window = new Uint8Array(host.view());
      window.set(x.bytes, offsets[1]);
      window.set(weight.bytes, offsets[2]);
      const [y, xRange, weightRange] = sizes.map((bytes, index) => buffer.range(offsets[index], bytes)) as [
        Range,
        Range,
        Range,
      ];
      const plan = newPlan();
      const up = copy(plan, "upload", buffer.range(), host.range());
      const args = { y, x: xRange, weight: weightRange, bias: null, residual: null, tokens, inputs, outputs };
      const made = plan.record("compute", "linearForward", { ...args, dtype: "bfloat16" }, { waits: [up] });
      copy(plan, "download", host.range(), buffer.range(), [made]);
      await on.play(plan);
      const result = window.slice(offsets[0], offsets[0]! + sizes[0]!);
      for (const used of [host, buffer]) used.free();
      return result;
    }

    test("give the same bits in another engine of the process, and again", async () => {
      using other = new Engine({ device, workers: 1 });
      const results = [await product(engine, 0), await product(other, 0), await product(engine, 0)];
      expect(results.map((result) => Buffer.compare(result, results[0]!))).toEqual([0, 0, 0]);
    });

    test("work at any alignment, and without measuring", async () => {
      using plain = new Engine({ device, workers: 1, tune: false });
      const values = (bytes: Uint8Array): number[] =>
        [...new Uint16Array(bytes.buffer)].map((bits) => new Float32Array(Uint32Array.of(bits << 16).buffer)[0]!);
      const expected = values(await product(engine, 0));
      for (const found of [
        await product(engine, 2),
        await product(engine, 8),
        await product(plain, 0),
        await product(plain, 2),
      ])
        for (const [index, value] of values(found).entries())
          expect(Math.abs(value - expected[index]!)).toBeLessThanOrEqual(0.01 * (Math.abs(expected[index]!) + 1));
    });
  });
}
