// How the executor plays plans, on the null device: order by streams, events and deadlines, failures and cancellation,
// plans that are refused, several plans in flight, and a process that waits and ends. Pauses before commands (`disturb`)
// make the timing that a test is about.

import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { join } from "node:path";
import { deviceKinds, tiers } from "../../src/native/abi.gen.ts";
import { native } from "../../src/native/library.ts";
import { CancelledError, NativeError, StepError } from "../../src/words/errors.ts";
import { Engine, type NativeBuffer } from "../../src/native/runtime.ts";
import { Plan, Range, type Event, type RecordOptions } from "../../src/plan/plan.ts";

let engine: Engine;
let buffers: NativeBuffer[];

beforeEach(() => {
  engine = new Engine({ device: "null", workers: 2 });
  buffers = Array.from({ length: 4 }, (_, index) => engine.buffer("host", 64, `buffer ${index}`));
});
afterEach(() => engine.close());

/** The one digest of a buffer. */
const digest = (index: number): BigUint64Array => new BigUint64Array(engine.viewInto(buffers[index]!, 0, 8));
const newPlan = (): Plan => new Plan({ step: 7, phase: "update", block: 3 });

/** Copies one buffer to another on a stream. */
function copy(
  plan: Plan,
  stream: "upload" | "download" | "compute" | "host",
  to: number,
  from: number,
  options?: RecordOptions,
): Event {
  return plan.record(stream, "copy", { to: buffers[to]!.range(), from: buffers[from]!.range() }, options);
}

async function play(plan: Plan): Promise<void> {
  await engine.play(plan);
}

describe("order", () => {
  test("a chain over all streams carries a digest to its end", async () => {
    engine.disturb({ jitterUs: 2000, seed: 1 });
    digest(0)[0] = 42n;
    const plan = newPlan();
    const up = copy(plan, "upload", 1, 0);
    const computed = copy(plan, "compute", 2, 1, { waits: [up] });
    const down = copy(plan, "download", 3, 2, { waits: [computed] });
    copy(plan, "host", 0, 3, { waits: [down] });
    await play(plan);
    expect([0, 1, 2, 3].map((index) => digest(index)[0])).toEqual([42n, 42n, 42n, 42n]);
  });

  test("ready host commands run by deadline, then in the order of recording", async () => {
    engine.disturb({ jitterUs: 300, seed: 2 });
    const plan = newPlan();
    const gate = Array.from({ length: 50 }, () => copy(plan, "upload", 1, 0)).at(-1)!; // all are waiting when it opens
    const deadlines = [5, 3, 9, 3, 1, 7, 1, 0];
    for (const deadline of deadlines) copy(plan, "host", 2, 1, { waits: [gate], deadline });
    await play(plan);
    const started = engine
      .spans(plan)
      .slice(-deadlines.length)
      .map(({ start }, index) => ({ start, index }));
    const order = started.sort((a, b) => a.start - b.start).map(({ index }) => index);
    expect(order).toEqual([7, 4, 6, 1, 3, 0, 5, 2]);
  });

  test("a host command that is ready does not wait for an earlier deadline that is not", async () => {
    engine.disturb({ jitterUs: 300, seed: 3 });
    const plan = newPlan();
    const late = Array.from({ length: 50 }, () => copy(plan, "upload", 1, 0)).at(-1)!;
    const urgent = copy(plan, "host", 2, 1, { waits: [late], deadline: 0 });
    const ready = copy(plan, "host", 3, 3, { deadline: 9 });
    await play(plan);
    const start = (event: Event): number => engine.spans(plan)[event - plan.base]!.start;
    expect(start(ready)).toBeLessThan(start(urgent));
  });

  test("the streams of one plan overlap the host commands of the plan before, except where they wait for them", async () => {
    engine.disturb({ jitterUs: 1000, seed: 4 });
    const one = newPlan();
    const host = Array.from({ length: 40 }, () => copy(one, "host", 1, 0)).at(-1)!;
    const next = newPlan();
    const free = copy(next, "upload", 2, 0);
    const waiting = copy(next, "compute", 3, 1, { waits: [host] });
    for (const event of [free, waiting]) next.notify(event);
    engine.submit(one);
    engine.submit(next);
    await Promise.all([engine.done(free), engine.done(waiting)]);
    const hostEnd = engine.spans(one)[host - one.base]!.end;
    expect(engine.spans(next)[0]!.end).toBeLessThan(hostEnd);
    expect(engine.spans(next)[1]!.start).toBeGreaterThanOrEqual(hostEnd);
  });
});

describe("several plans in flight", () => {
  test("the spans of the last plans are kept when more follow: the oldest gives way", async () => {
    const plans: Plan[] = [];
    for (let round = 0; round < 7; round++) {
      const plan = newPlan();
      copy(plan, "compute", 3, 2);
      await engine.play(plan);
      plans.push(plan);
    }
    for (const plan of plans.slice(-4)) expect(engine.spans(plan)[0]!.end).toBeGreaterThan(0);
    expect(() => engine.spans(plans[2]!)).toThrow("no plan of 1 commands starts at");
  });

  test("a plan may wait for one that ended and was forgotten while an older one still runs", async () => {
    // Events of a plan that was gone used to count as still to come, as long as any older plan was there: a deadlock.
    engine.disturb({ jitterUs: 2000, seed: 5 });
    const old = newPlan();
    const lingering = Array.from({ length: 60 }, () => copy(old, "host", 1, 0)).at(-1)!;
    old.notify(lingering);
    engine.submit(old);
    const gone = newPlan();
    const event = copy(gone, "upload", 2, 0);
    await engine.play(gone);
    for (let round = 0; round < 4; round++) {
      const plan = newPlan();
      copy(plan, "compute", 3, 2, { waits: [event] });
      await engine.play(plan);
    }
    await engine.done(event); // also for JavaScript
    await engine.done(lingering);
  });

  test("no plan is overlooked when plans come while the host is busy", async () => {
    // The host thread took new plans in the order of their places, which are reused, and skipped the older of two.
    for (let round = 0; round < 4; round++) {
      engine.disturb({ jitterUs: 20_000, seed: round });
      const brief = newPlan();
      const uploaded = copy(brief, "upload", 1, 0);
      brief.notify(uploaded);
      engine.submit(brief);
      engine.disturb({ jitterUs: 200_000, seed: round });
      const busy = newPlan();
      copy(busy, "host", 2, 0);
      engine.submit(busy);
      await Bun.sleep(5);
      engine.disturb({});
      const events: Event[] = [];
      for (const before of [uploaded, undefined]) {
        const plan = newPlan();
        events.push(copy(plan, "host", 3, 0));
        plan.notify(events.at(-1)!);
        engine.submit(plan);
        if (before) await engine.done(before); // its place is free for the next plan
      }
      await Promise.all(events.map((event) => engine.done(event)));
      await engine.idle();
    }
  });

  test("a fifth plan is refused, and welcome when one has ended", async () => {
    engine.disturb({ jitterUs: 100_000, seed: 6 });
    const plans = Array.from({ length: 5 }, () => {
      const plan = newPlan();
      for (let index = 0; index < 4; index++) copy(plan, "compute", 1, 0);
      return plan;
    });
    const fifth = plans.pop()!;
    for (const plan of plans) engine.submit(plan);
    expect(() => engine.submit(fifth)).toThrow(new NativeError("4 plans are in flight already; wait for one to end"));
    engine.disturb({});
    await engine.idle();
    await play(fifth);
  });
});

describe("failure", () => {
  test("names the command, its part of the step, its buffers and the cause; nothing after it runs; the next plan works", async () => {
    digest(0)[0] = 1n;
    const plan = newPlan();
    const failing = copy(plan, "upload", 1, 0);
    const after = copy(plan, "compute", 2, 1, { waits: [failing] });
    copy(plan, "host", 3, 2, { waits: [after] });
    engine.disturb({ fail: failing });
    const cause = "injected failure (buffers buffer 1, buffer 0)";
    await expect(play(plan)).rejects.toThrow(new StepError(`step 7 update block 3: copy on upload failed: ${cause}`));
    expect([1, 2, 3].map((index) => digest(index)[0])).toEqual([0n, 0n, 0n]);
    engine.disturb({});
    const next = newPlan();
    copy(next, "upload", 1, 0);
    await play(next);
    expect(digest(1)[0]).toBe(1n);
  });

  test("the first one wins", async () => {
    using cpu = new Engine({ device: "cpu", workers: 1 });
    const losses = cpu.buffer("host", 64, "losses");
    const total = cpu.buffer("host", 64, "total");
    new Float32Array(losses.view())[0] = NaN;
    const plan = new Plan({ step: 2, phase: "loss", block: "head", microBatch: 0 });
    const sum = { total: total.range(0, 16), losses: losses.range(0, 4), count: 1, check: 1 };
    const first = plan.record("host", "lossSum", sum);
    plan.label = { ...plan.label, microBatch: 1 };
    plan.record("host", "lossSum", sum, { waits: [first] });
    const message = /^step 2 loss head micro-batch 0: lossSum on host failed: .+ \(buffers total, losses\)$/;
    await expect(cpu.play(plan)).rejects.toThrow(message);
  });

  test("reaches whoever waits for any plan in flight, and whoever asks later", async () => {
    const plan = newPlan();
    const failing = copy(plan, "compute", 1, 0);
    plan.notify(failing);
    const later = newPlan();
    const skipped = copy(later, "compute", 2, 1);
    later.notify(skipped);
    engine.disturb({ fail: failing, jitterUs: 20_000, seed: 7 });
    engine.submit(plan);
    engine.submit(later);
    const results = await Promise.allSettled([engine.done(failing), engine.done(skipped)]);
    expect(results.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    await expect(engine.done(skipped)).rejects.toBeInstanceOf(StepError);
    engine.disturb({});
  });

  test("cancelling stops between two commands, and the next plan works", async () => {
    engine.disturb({ jitterUs: 20_000, seed: 8 });
    const plan = newPlan();
    for (let index = 0; index < 200; index++) copy(plan, (["upload", "compute", "host"] as const)[index % 3]!, 1, 0);
    const played = play(plan).then(
      () => undefined,
      (error: unknown) => error,
    );
    await Bun.sleep(30);
    engine.cancel();
    expect(await played).toBeInstanceOf(CancelledError);
    engine.disturb({});
    digest(0)[0] = 5n;
    const next = newPlan();
    copy(next, "upload", 1, 0);
    await play(next);
    expect(digest(1)[0]).toBe(5n);
  });

  test("cancelling while nothing is in flight does nothing", async () => {
    engine.cancel();
    const plan = newPlan();
    copy(plan, "upload", 1, 0);
    await play(plan);
  });

  test("closing the engine ends a wait", async () => {
    engine.disturb({ jitterUs: 20_000, seed: 9 });
    const plan = newPlan();
    for (let index = 0; index < 50; index++) copy(plan, "compute", 1, 0);
    const played = play(plan).then(
      () => undefined,
      (error: unknown) => error,
    );
    engine.close();
    expect(await played).toEqual(new CancelledError("the engine was closed"));
  });

  test("a buffer cannot be freed under a plan", async () => {
    engine.disturb({ jitterUs: 20_000, seed: 10 });
    const plan = newPlan();
    for (let index = 0; index < 5; index++) copy(plan, "compute", 1, 0);
    engine.submit(plan);
    expect(() => buffers[1]!.free()).toThrow(new NativeError("a buffer cannot be freed while a plan is in flight"));
    await engine.idle();
    buffers[1]!.free();
  });
});

test("sizes that would wrap are refused, and nothing is counted", () => {
  const library = native();
  const out = new BigUint64Array(4);
  const check = (status: number): string => (status === 0 ? "" : `${library.sluice_last_error()}`);
  const name = new TextEncoder().encode("large\0");
  expect(check(library.sluice_engine_create(deviceKinds.cpu, 1, 2 ** 40, null, null, 0, out))).toBe("");
  const handle = Number(out[0]! & 0xffffffffn);
  try {
    for (const bytes of [2n ** 64n - 1n, 2n ** 64n - 4096n, 2n ** 63n, 2n ** 53n + 1n])
      for (const tier of ["device", "pinned", "host"] as const)
        expect(check(library.sluice_buffer_create(handle, tiers[tier], bytes, name, 5, out))).toBe(
          `buffer large needs ${bytes} bytes of ${tier}, the limit is ${2n ** 53n} for all of them`,
        );
    const path = new TextEncoder().encode("/dev/zero\0");
    expect(check(library.sluice_file_open(handle, path, 0, 2n ** 52n + 1n, out))).toBe("");
    expect(check(library.sluice_file_open(handle, path, 0, 2n ** 52n, out))).toMatch(
      /^buffer \/dev\/zero needs \d+ bytes of file/,
    );
    expect(check(library.sluice_buffer_create(handle, tiers.host, 64, name, 2 ** 32 - 1, out))).toMatch(
      /at most 4096 bytes$/,
    );
    library.sluice_memory_held(handle, out);
    expect([...out]).toEqual([0n, 0n, 0n, 2n ** 52n + 1n]);
  } finally {
    library.sluice_engine_destroy(handle);
  }
});

describe("a plan is refused as a whole", () => {
  const cases: [string, string | RegExp, (plan: Plan) => void][] = [
    [
      "a buffer that was freed",
      /^command \d+: copy\.from names a buffer that is not there \(handle \d+\)$/,
      (plan) => {
        const freed = engine.buffer("host", 64, "freed");
        freed.free();
        plan.record("host", "copy", { to: buffers[1]!.range(), from: freed.range() });
      },
    ],
    [
      "a range beyond its buffer",
      /^command \d+: copy\.to takes bytes 0 to 128 of buffer 1, which has 64$/,
      (plan) => {
        const larger = new Range({
          ...buffers[1]!,
          handle: buffers[1]!.handle,
          name: "buffer 1",
          tier: "host",
          bytes: 128,
        });
        plan.record("host", "copy", { to: larger, from: larger });
      },
    ],
    [
      "a range that is missing",
      /^command \d+: copy\.from is missing$/,
      (plan) => {
        plan.record("host", "copy", { to: buffers[1]!.range(), from: buffers[0]!.range(0, 0) });
      },
    ],
    [
      "copies of two lengths",
      /^command \d+: copy\.from has 32 bytes, it needs 64 \(to of byte\)$/,
      (plan) => {
        plan.record("host", "copy", { to: buffers[1]!.range(), from: buffers[0]!.range(0, 32) });
      },
    ],
    [
      "a wait for the future",
      /^command (\d+) \(copy\) waits for command \d+, which is not before it$/,
      (plan) => {
        copy(plan, "host", 1, 0, { waits: [plan.base + 3] });
      },
    ],
    [
      "a wait for itself",
      /^command (\d+) \(copy\) waits for command \1, which is not before it$/,
      (plan) => {
        copy(plan, "host", 1, 0, { waits: [plan.base + 1] });
      },
    ],
    [
      "words that end too early",
      "plan ends in the middle of a command",
      (plan) => {
        const words = plan.encode();
        plan.encode = () => words.subarray(0, words.length - 1);
      },
    ],
    [
      "words too many",
      /^plan of 1 commands has 2 words too many$/,
      (plan) => {
        const words = plan.encode();
        plan.encode = () => Uint32Array.of(...words, 0, 0);
      },
    ],
    [
      "an op that is not there",
      /^9999 is not a value of /,
      (plan) => {
        const words = plan.encode();
        plan.encode = () => Uint32Array.of(9999, ...words.subarray(1));
      },
    ],
    [
      "more waits than words",
      /^command \d+ \(copy\) has 4294967295 waits$/,
      (plan) => {
        const words = plan.encode();
        words[4] = 0xffffffff;
        plan.encode = () => words;
      },
    ],
  ];
  for (const [what, message, spoil] of cases)
    test(what, async () => {
      digest(0)[0] = 3n;
      const plan = newPlan();
      copy(plan, "upload", 2, 0);
      spoil(plan);
      expect(() => engine.submit(plan)).toThrow(message);
      expect(() => engine.submit(plan)).toThrow(NativeError);
      const next = newPlan();
      copy(next, "upload", 1, 0);
      await play(next);
      expect([digest(1)[0], digest(2)[0]]).toEqual([3n, 0n]); // nothing of the refused plan ran
    });

  test("a plan that was played already", async () => {
    const plan = newPlan();
    copy(plan, "upload", 1, 0);
    await play(plan);
    expect(() => engine.submit(plan)).toThrow(/^plan starts at command \d+, the last one ended at \d+$/);
  });
});

describe("the process", () => {
  /** Runs a script that has an engine and a plan of about 100 ms. */
  async function run(script: string): Promise<{ output: string; code: number }> {
    const prelude = `
      import { Engine } from ${JSON.stringify(join(import.meta.dir, "../../src/native/runtime.ts"))};
      import { Plan } from ${JSON.stringify(join(import.meta.dir, "../../src/plan/plan.ts"))};
      const engine = new Engine({ device: "null", workers: 2 });
      const buffer = engine.buffer("host", 64, "buffer");
      engine.disturb({ jitterUs: 20_000, seed: 1 });
      const plan = new Plan({ step: 1, phase: "load" });
      for (let index = 0; index < 10; index++) plan.record("upload", "copy", { to: buffer.range(), from: buffer.range() });
    `;
    const child = Bun.spawn([process.execPath, "-e", prelude + script], {
      env: process.env,
      stdout: "pipe",
      stderr: "pipe",
      timeout: patiently(10_000),
    });
    const [output, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    expect(errors).toBe("");
    return { output, code };
  }

  test("stays alive exactly as long as somebody waits, and ends without being closed", async () => {
    expect(await run(`engine.play(plan).then(() => console.log("played"));`)).toEqual({ output: "played\n", code: 0 });
  });

  test("ends while a plan is in flight for which nobody waits", async () => {
    expect(await run(`engine.submit(plan); console.log("submitted");`)).toEqual({ output: "submitted\n", code: 0 });
  });

  test("ends after an engine was closed in the middle of a plan", async () => {
    const script = `engine.play(plan).catch((error) => console.log(error.message)); engine.close();`;
    expect(await run(script)).toEqual({ output: "the engine was closed\n", code: 0 });
  });
});
