// The host code of the GPU device, executed without a GPU: device "hip" on a stand-in for AMD's libraries that this test
// builds (stand-in/driver.zig). Every call sequence runs: loading, memory, whole training steps that must meet the same limits as
// on a GPU and give the same bits whatever the window does, and everything that can go wrong. Kernels are those of the CPU device
// here; emulation.test.ts tests the GPU's own.

import { beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { fixtures, temporaryDirectory } from "../support/models.ts";
import { StandIn } from "../support/stand-in.ts";
import { patiently } from "../support/time.ts";

setDefaultTimeout(patiently(120_000)); // building takes about 30 s the first time
const files = temporaryDirectory();
let gpu: StandIn;
beforeAll(async () => {
  gpu = await StandIn.build("hip", files.path);
  gpu.environment["STAND_IN_JITTER_US"] = "50";
});

const run: StandIn["run"] = (command, environment) => gpu.run(command, environment);
const expectPass: StandIn["expectPass"] = (paths, pattern) => gpu.expectPass(paths, pattern);

/** Runs a script that may use Engine, Plan and load; returns what it printed. */
async function script(body: string, environment: Record<string, string> = {}): Promise<string> {
  const imports = [
    "Engine } from './src/native/runtime.ts",
    "Plan } from './src/plan/plan.ts",
    "load } from './src/engine/model.ts",
  ];
  const { code, output, errors } = await run(
    ["-e", `${imports.map((line) => `import { ${line}';`).join("\n")}\n${body}`],
    environment,
  );
  if (code !== 0) throw new Error(errors);
  return output.trim();
}

/** The message with which an engine fails to open. */
const failureToOpen = (environment: Record<string, string>, options = "device: 'hip', workers: 1"): Promise<string> =>
  script(
    `try { new Engine({ ${options} }); console.log("opened"); } catch (error) { console.log(error.name + ": " + error.message); }`,
    environment,
  );

describe("suites that a GPU has to pass", () => {
  test("the device", () => expectPass(["test/gpu/device.test.ts"]));
  test("Ctrl-C at any time", () => expectPass(["test/gpu/interrupt.test.ts"]));
  test("parity with Hugging Face", () => expectPass(["test/models/parity.test.ts"], "qwen[23]-tiny on hip"));
  test("the same bits", () =>
    expectPass(["test/models/same-bits.test.ts"], "qwen3-tiny bfloat16, maxGradNorm 1, gradientAccumulation 2"));
});

describe("sluice doctor", () => {
  const doctor = async (environment: Record<string, string> = {}) => {
    const { output } = await run(["src/cli.ts", "doctor", "--json"], environment);
    const found = JSON.parse(output) as { what: string; value: string; state: string; remedy?: string }[];
    return found.filter(({ what }) => what === 'device "hip"' || what === "measured before");
  };
  test("tells what the GPU is and has, and what was measured on it", async () => {
    const [device, measured] = await doctor({ SLUICE_CACHE: join(files.path, "doctor's cache") });
    expect(device).toMatchObject({ state: "ok" });
    expect(device!.value).toMatch(
      /^works: Stand-in GPU; 600\.0 MiB in all, [\d.]+ MiB free, [\d.]+ MiB taken before the first buffer; driver \d+; \d+ multiprocessors; 2 files of kernels; matrix library found$/,
    );
    expect(measured!.value).toMatch(/^rates for 0 kinds of model, algorithms of 0 matrix products \(/);
  });
  test("says what keeps a GPU from working, in the engine's words", async () => {
    const [device] = await doctor({ STAND_IN_FAIL: "no-kernels" });
    expect(device).toMatchObject({
      state: "note",
      value: expect.stringMatching(/^none of the compiled kernels is for /),
    });
    const [library] = await doctor({ SLUICE_LIBHIPBLASLT: "libm.so.6" });
    expect(library!.value).toStartWith("libm.so.6 has no function hipblasLtCreate");
  });
});

describe('device "auto"', () => {
  const chosen = (environment: Record<string, string>) =>
    script(
      `const { chooseDevice } = await import("./src/native/choose.ts");
      const { parseConfig } = await import("./src/run/config.ts");
      const { device, reason } = chooseDevice();
      const config = await parseConfig({ model: "m", data: "d", output: "o", batchSize: 4 });
      using model = await load("test/fixtures/models/qwen3-tiny", { deviceMemory: "300MiB" });
      console.log([device, config.device, config.dtype, config.microBatchTokens, model.engine.device, model.dtype, reason].join("|"));`,
      environment,
    );
  test("is the GPU that is there and works, in its dtype and with its micro-batches", async () => {
    expect(await chosen({ SLUICE_DEVICE: "" })).toBe(
      "hip|hip|bfloat16|4096|hip|bfloat16|device: hip, because Stand-in GPU is there and works",
    );
  });
  test("is the CPU where none works, and says why", async () => {
    expect(await chosen({ SLUICE_DEVICE: "", STAND_IN_FAIL: "no-kernels" })).toMatch(
      /^cpu\|cpu\|float32\|1024\|cpu\|float32\|device: cpu, because no GPU works here \(cuda: .*; hip: none of the compiled kernels is for /,
    );
  });
});

describe("what a machine may lack is named", () => {
  test("a driver", async () => {
    expect(await failureToOpen({ SLUICE_LIBHIP: join(files.path, "no-such.so") })).toMatch(
      /^NativeError: device "hip" needs AMD's HIP runtime: SLUICE_LIBHIP does not name a library that opens: .*no-such\.so/,
    );
  });
  test("a driver, with no library named", async () => {
    const message = await script(
      `delete process.env.SLUICE_LIBHIP;
      const child = Bun.spawnSync([process.execPath, "-e", "import { Engine } from './src/native/runtime.ts'; try { new Engine({ device: 'cuda', workers: 1 }); console.log('opened'); } catch (error) { console.log(error.message); }"]);
      console.log(child.stdout.toString());`,
    );
    // Where there is a GPU, or a driver without one, the next sentence applies.
    expect(message).toMatch(
      /^(opened|device "cuda" needs NVIDIA's driver: libcuda\.so\.1 was not found; install the driver \(version 580 or newer\), or use device "cpu"$|no GPU for device "cuda"|no compiled kernels)/,
    );
  });
  test("functions of a driver", async () => {
    expect(await failureToOpen({ SLUICE_LIBHIP: "libm.so.6" })).toBe(
      "NativeError: libm.so.6 has no function hipInit: it is too old, or another library; install a newer driver",
    );
  });
  test("a GPU", async () => {
    expect(await failureToOpen({ STAND_IN_FAIL: "no-device" })).toMatch(
      /^NativeError: no GPU for device "hip": .* says hipErrorNoDevice \(says the stand-in\); use device "cpu", or check that the GPU is visible here$/,
    );
  });
  test("the matrix library", async () => {
    expect(await failureToOpen({ SLUICE_LIBHIPBLASLT: "libm.so.6" })).toBe(
      "NativeError: libm.so.6 has no function hipblasLtCreate: it is too old, or another library; install a newer driver",
    );
  });
  test("compiled kernels", async () => {
    expect(await failureToOpen({ SLUICE_KERNELS: join(files.path, "nowhere") })).toBe(
      'NativeError: no compiled kernels for device "hip" were found; run "bun run build", or name their folder in SLUICE_KERNELS',
    );
  });
  test("Hopper's attention, when it is asked for", async () => {
    expect(await failureToOpen({ SLUICE_ATTENTION: "fast" })).toBe(
      'NativeError: SLUICE_ATTENTION is "fast"; it must be automatic, portable or hopper',
    );
    expect(await failureToOpen({ SLUICE_ATTENTION: "hopper" })).toBe(
      "NativeError: SLUICE_ATTENTION is hopper, but this GPU is not one of NVIDIA's with compute capability 9.0; leave it unset",
    );
    expect(await failureToOpen({ SLUICE_ATTENTION: "portable" })).toBe("opened");
  });
  test("kernels for this GPU", async () => {
    expect(await failureToOpen({ STAND_IN_FAIL: "no-kernels" })).toMatch(
      /^NativeError: none of the compiled kernels is for Stand-in GPU \(.*norm\.gfx942\.hsaco: hipErrorNoBinaryForGpu \(says the stand-in\)\); build them for it with "bun run build"$/,
    );
  });
  test("memory for the workspaces", async () => {
    expect(await failureToOpen({ STAND_IN_MEMORY: String(80 << 20) })).toMatch(
      /^NativeError: Stand-in GPU has \d+ of 83886080 bytes free, too little for the kernels' workspaces; close what else uses it$/,
    );
  });
  test("memory that may be pinned", async () => {
    const body = `
      using engine = new Engine({ device: "hip", workers: 1 });
      try { engine.buffer("pinned", 100, "ring"); } catch (error) { console.log(error.name + ": " + error.message); }`;
    expect(await script(body, { STAND_IN_FAIL: "pin" })).toMatch(
      /^MemoryError: out of memory: the driver cannot pin the 100 bytes of buffer ring: hipErrorOutOfMemory/,
    );
  });
  test("memory for a run: the bill says so before anything is allocated", async () => {
    const body = `
      try { using model = await load(${JSON.stringify(join(fixtures, "qwen3-tiny"))}, { device: "hip", deviceMemory: ${112 << 20} });
        const { Session } = await import("./src/engine/session.ts");
        const { judge } = await import("./src/step/bill.ts");
        const { inferenceShape } = await import("./src/tiers/shape.ts");
        new Session(model, judge(inferenceShape(model, { sequenceLength: 4096, batchSize: 8, microBatchTokens: 32768, gradientAccumulation: 1 }), model.engine.limits()));
        console.log("opened");
      } catch (error) { console.log(error.name + ": " + error.message); }`;
    expect(await script(body)).toMatch(/^MemoryError: deviceMemory: the run needs /);
  });
  test("memory to train: the least that a config can be fitted to is checked before the weights are read", async () => {
    const body = (options: string, needed: string) => `
      const { parseConfig } = await import("./src/run/config.ts");
      const { resolveLeast } = await import("./src/predict/fit.ts");
      const { demand } = await import("./src/tiers/limits.ts");
      const { memoryBill } = await import("./src/step/bill.ts");
      const { deviceBytesOf } = await import("./src/tiers/limits.ts");
      const { Trainer } = await import("./src/engine/trainer.ts");
      const config = await parseConfig({ model: "m", data: "d", output: "o", device: "hip", steps: 1, sequenceLength: 512, batchSize: 4 });
      const directory = ${JSON.stringify(join(fixtures, "qwen3-tiny"))};
      const held = [];
      const check = (model, engine) => {
        try { demand(resolveLeast(model, config, engine.limits())); } finally { held.push(Object.values(engine.held()), engine.deviceInfo().bufferBytes); }
      };
      try {
        using model = await load(directory, { device: "hip", check, ${options} });
        const { bufferBytes } = model.engine.deviceInfo();
        using trainer = await Trainer.open(model, config);
        console.log(model.engine.deviceInfo().bufferBytes - bufferBytes - (${needed}));
      } catch (error) { console.log(error.name + ": " + error.message + " " + JSON.stringify(held)); }`;
    const least = await script(body(`deviceMemory: ${112 << 20}`, "0"));
    expect(least).toMatch(
      /^MemoryError: deviceMemory: the run needs [\d.]+ MiB on the device, [\d.]+ MiB of it for context, kernels and libraries; the limit is 112\.0 MiB; the largest parts are .*; reduce microBatchTokens \(2048\), or raise deviceMemory \[\[0,0,0,0\],0\]$/,
    );
    const whole = await script(body("", "0"), { STAND_IN_MEMORY: String(112 << 20) });
    expect(whole).toMatch(
      /^MemoryError: the run needs .*; it has 112\.0 MiB; .*, or free memory that others use, or take a larger GPU /,
    );
    // With room enough the bill is, byte for byte, what the driver's pieces come to.
    expect(await script(body("", "deviceBytesOf(trainer.bill)"))).toBe("0");
  });
});

describe("what may go wrong on the way", () => {
  const training = `
    const { Trainer } = await import("./src/engine/trainer.ts");
    const { plainConfig, randomStep } = await import("./test/support/training.ts");
    const { Draw } = await import("./test/support/tensors.ts");
    const rows = { sequenceLength: 40, passes: 1, microBatches: 2 };
    const open = async () => {
      const model = await load(${JSON.stringify(join(fixtures, "qwen3-tiny"))}, { device: "hip" });
      return { model, trainer: await Trainer.open(model, plainConfig(rows)) };
    };
    const step = ({ model, trainer }) => trainer.step(randomStep(new Draw(1), model.config, rows));
    const told = (promise) => promise.then(() => console.log("done"), (error) => console.log(error.name + ": " + error.message));`;

  test("a launch that is refused names the command; nothing is lost", async () => {
    const output = await script(
      `${training}
      const run = await open();
      await told(step(run));
      const buffer = run.model.engine.buffer("device", 64, "later");
      const plan = new Plan({ step: 0, phase: "load" });
      plan.record("compute", "zero", { to: buffer.range() });
      await told(run.model.engine.play(plan));`,
      { STAND_IN_FAIL: "launch:swiglu_forward" },
    );
    const [first, second] = output.split("\n");
    expect(first).toMatch(
      /^StepError: step 1 forward block 0 micro-batch 0: swigluForward on compute failed: cannot launch swiglu_forward: hipErrorInvalidValue \(says the stand-in\) \(buffers /,
    );
    expect(second).toBe("done");
  });

  test("a command that breaks the GPU's context is found, and a new engine works", async () => {
    const output = await script(
      `${training}
      const run = await open();
      await told(step(run));
      const plan = new Plan({ step: 0, phase: "load" });
      plan.record("host", "zero", { to: run.model.engine.buffer("host", 64, "later").range() });
      try { run.model.engine.submit(plan); } catch (error) { console.log(error.message); }
      run.model.close();
      using engine = new Engine({ device: "hip", workers: 1 });
      const [host, buffer] = [engine.buffer("pinned", 64, "host"), engine.buffer("device", 64, "device")];
      const next = new Plan({ step: 0, phase: "load" });
      next.record("upload", "copy", { to: buffer.range(), from: host.range() });
      await told(engine.play(next));`,
      { STAND_IN_FAIL: "async:rmsnorm_backward" },
    );
    const [first, second, third] = output.split("\n");
    expect(first).toMatch(
      /^StepError: step 1 \w+ .*: \w+ on \w+ failed: hipErrorIllegalAddress \(says the stand-in\); it or a command shortly before it broke the GPU's context: close the engine and open it again \(buffers /,
    );
    expect(second).toBe("the GPU's context broke in an earlier plan; close the engine and open it again");
    expect(third).toBe("done");
  });

  test("a product over its residual is tuned on as many rows as there is room for, and on none where there is too little", async () => {
    for (const [room, chosen] of [
      [5, 1],
      [1, 0],
    ] as const) {
      const cache = join(files.path, `cache of ${room} MiB`);
      const output = await script(
        `const first = new Engine({ device: "hip", workers: 1 });
        const { overheadBytes } = first.deviceInfo();
        first.close();
        const [tokens, inputs, outputs] = [4096, 8, 2048]; // 16 MiB of results
        const bytes = [tokens * inputs, inputs * outputs, tokens * outputs].map((values) => values * 2);
        const deviceBytesMax = overheadBytes + ${room + 17} * 2 ** 20; // the buffers take 16 and a little
        using engine = new Engine({ device: "hip", workers: 1, deviceBytesMax });
        const [x, weight, y] = bytes.map((each, index) => engine.buffer("device", each, String(index)));
        const plan = new Plan({ step: 0, phase: "load" });
        plan.record("compute", "linearForward", { y: y.range(), x: x.range(), weight: weight.range(), bias: null, residual: y.range(), tokens, inputs, outputs, dtype: "bfloat16" });
        await engine.play(plan);
        console.log(Math.round((engine.limits().device - engine.deviceInfo().bufferBytes) / 2 ** 20));`,
        { SLUICE_CACHE: cache },
      );
      expect(output).toBe(String(room + 1));
      expect(readdirSync(cache).filter((name) => name.startsWith("gemm-"))).toHaveLength(chosen);
    }
  });

  test("a shape that the matrix library refuses is computed by the plain kernel", async () => {
    const output = await script(`${training} await told(step(await open()));`, { STAND_IN_FAIL: "product" });
    expect(output).toBe("done");
  });

  test("everything taken is given back", async () => {
    const output = await script(
      `${training}
      const { dlopen } = await import("bun:ffi");
      const { symbols } = dlopen(process.env.SLUICE_LIBHIP, { standInHeld: { args: [], returns: "u64" } });
      for (let round = 0; round < 2; round++) {
        const run = await open();
        run.model.engine.trace(round === 1);
        await told(step(run));
        await run.trainer.drain();
        run.trainer.close();
        run.model.close();
        console.log(symbols.standInHeld());
      }`,
    );
    expect(output.split("\n")).toEqual(["done", "0n", "done", "0n"]);
  });
});
