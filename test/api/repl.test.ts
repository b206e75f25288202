// Sluice at the prompt: a `bun repl` session from load to dispose, handles that print shapes and places, repeated runs in
// one process without a leak, and `bun --hot`, whose reload keeps a model that stands on globalThis.

import { expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Loader, Trainer, load, parseConfig, train } from "../../src/index.ts";
import { fixtures, temporaryDirectory } from "../support/models.ts";
import { conversations, smallRun } from "../support/small-run.ts";

setDefaultTimeout(patiently(60_000));

const root = join(import.meta.dir, "../..");
const model = join(fixtures, "qwen3-tiny");

/** What `bun repl` prints for each line, as if typed. */
async function repl(lines: string[]): Promise<string[]> {
  const child = Bun.spawn([process.execPath, "repl"], {
    cwd: root,
    stdin: Buffer.from(`${lines.join("\n")}\n.exit\n`),
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, NO_COLOR: "1" },
  });
  const [out, code] = await Promise.all([child.stdout.text(), child.exited]);
  expect(code).toBe(0);
  return Bun.stripANSI(out)
    .split(/^> ?/m)
    .map((answer) => answer.trim());
}

test("a session: load, look, generate, loss, steps, dispose", async () => {
  using directory = temporaryDirectory();
  const data = join(directory.path, "data.jsonl");
  writeFileSync(data, conversations(20));
  const said = (
    await repl([
      `const { load, Trainer, Loader, parseConfig } = await import("./src/index.ts"); 0`,
      `const model = await load(${JSON.stringify(model)}, { workers: 2 })`,
      `model`,
      `(await model.generate(["What follows"], { maxTokens: 4 })).length`,
      `const config = await parseConfig({ model: "-", data: "-", output: "-", sequenceLength: 64, batchSize: 2 }); 0`,
      `const dataset = await model.dataset(${JSON.stringify(data)}, config)`,
      `dataset`,
      `(await model.loss(dataset, config)).loss > 1`,
      `const trainer = await Trainer.open(model, config)`,
      `const loader = new Loader(dataset, config, 1)`,
      `for (let i = 0; i < 3; i++) await trainer.step(loader.next()); trainer`,
      `trainer.plan`,
      `await trainer.drain()`,
      `trainer.close()`,
      `model.engine`,
      `model.close()`,
      `model`,
      `await model.generate(["What follows"]).catch((error) => error.name)`,
    ])
  ).join("\n");
  expect(said).toContain("Model(qwen3, 220k parameters, 4 layers × 48, float32 on cpu)");
  expect(said).toMatch(/Dataset\(20 documents, [\d.k]+ tokens, \d+ count\)/);
  expect(said).toMatch(/Trainer\(qwen3 after step 3, 1 × 2 × 64 tokens a step, /);
  expect(said).toMatch(/Plan\(step 3: \d+ on upload, .*\d+ on compute/);
  expect(said).toMatch(/Engine\(cpu, 2 workers, holds pinned [\d.]+ KiB, host [\d.]+ KiB\)/); // the weights alone
  expect(said).toContain("float32 on cpu, closed)");
  expect(said).toMatch(/"?(CancelledError|NativeError|ModelError|MemoryError)"?/);
  expect(said).not.toMatch(/Float32Array|Uint16Array|Int32Array/);
});

test("handles print shapes and places on one line, never contents", async () => {
  using run = smallRun();
  using loaded = await load(model, { workers: 1 });
  const config = await parseConfig(run.config);
  const dataset = await loaded.dataset(run.config.data as string, config);
  const loader = new Loader(dataset, config, 1);
  using trainer = await Trainer.open(loaded, config);
  await trainer.step(loader.next());
  const shown = [
    loaded,
    await loaded.tokenizer(),
    dataset,
    loader,
    trainer,
    trainer.session,
    trainer.session.buffers,
    trainer.session.buffers.get("slot 0"),
    trainer.session.buffers.range("slot 0", 0, 64),
    trainer.plan,
    loaded.engine,
  ].map((handle) => Bun.inspect(handle));
  expect(shown.map((line) => line.replace(/[\d.]+ (K|M)iB/g, "SIZE").replace(/ \d+ on /g, " N on "))).toEqual([
    "Model(qwen3, 220k parameters, 4 layers × 48, float32 on cpu)",
    "Tokenizer(512 tokens, <|im_end|> <|endoftext|>)",
    expect.stringMatching(/^Dataset\(40 documents, [\d.]+k tokens, \d+ count\)$/),
    expect.stringMatching(/^Loader\(2 rows of at most 64 tokens a step, \d+ rows an epoch, at epoch 0\.\d+\)$/),
    "Trainer(qwen3 after step 1, 1 × 2 × 64 tokens a step, pinned SIZE, host SIZE, device SIZE)",
    "Session(training, 2 × 64 tokens, 2 slots, pinned SIZE, host SIZE, device SIZE)",
    expect.stringMatching(/^Buffers\(\d+: pinned SIZE, host SIZE, device SIZE\)$/),
    "NativeBuffer(slot 0, device, SIZE)",
    "Range(slot 0[0..64], device)",
    expect.stringMatching(/^Plan\(step 1: N on upload, N on /),
    "Engine(cpu, 1 worker, holds device SIZE, pinned SIZE, host SIZE)",
  ]);
  await trainer.drain();
});

test("dispose gives everything back: held bytes at once, and memory does not grow over repeated runs", async () => {
  using run = smallRun();
  const config = await parseConfig(run.config);
  const round = async (): Promise<void> => {
    using loaded = await load(model, { workers: 1 });
    const before = loaded.engine.held();
    const dataset = await loaded.dataset(run.config.data as string, config);
    {
      using trainer = await Trainer.open(loaded, config);
      await trainer.step(new Loader(dataset, config, 1).next());
      await trainer.drain();
      expect(loaded.engine.held().host).toBeGreaterThan(before.host);
    }
    expect(loaded.engine.held()).toEqual(before);
    await loaded.generate(["One"], { maxTokens: 2 });
    await loaded.loss(dataset, config);
    expect(loaded.engine.held()).toEqual(before);
  };
  const resident = (): number => {
    Bun.gc(true);
    return process.memoryUsage.rss();
  };
  for (let warm = 0; warm < 5; warm++) await round();
  const before = resident();
  for (let times = 0; times < 20; times++) await round();
  // A round holds 5 MiB; one in ten that stayed would be 10 MiB.
  expect(resident() - before).toBeLessThan(10 << 20);
});

test("runs one after another in a process do not notice each other", async () => {
  using run = smallRun();
  const first = await train({ ...run.config, steps: 3, output: join(run.path, "a") });
  const second = await train({ ...run.config, steps: 3, output: join(run.path, "b") });
  expect(second.loss).toBe(first.loss);
});

test("--hot keeps a model on globalThis; old handles and new ones work side by side", async () => {
  using directory = temporaryDirectory();
  const file = join(directory.path, "experiment.ts");
  writeFileSync(join(directory.path, "data.jsonl"), conversations(8));
  const write = (version: number): void => {
    const text = `// version ${version}
      import { Loader, Trainer, load, parseConfig, type Model } from ${JSON.stringify(join(root, "src/index.ts"))};
      const kept = globalThis as { model?: Model; loads?: number };
      kept.model ??= (kept.loads = (kept.loads ?? 0) + 1, await load(${JSON.stringify(model)}, { workers: 1 }));
      const config = await parseConfig({ model: "-", data: "-", output: "-", sequenceLength: 64, batchSize: 2 });
      const dataset = await kept.model.dataset("data.jsonl", config);
      using trainer = await Trainer.open(kept.model, config); // new code on the old model
      using another = await load(${JSON.stringify(model)}, { workers: 1 });
      const loader = new Loader(dataset, config, 1);
      const [step, answers] = await Promise.all([trainer.step(loader.next()), another.generate(["A", "B"], { maxTokens: 30 })]);
      await trainer.drain();
      console.log("version ${version}, loads", kept.loads, "step", step.step, "answers", answers.length);`;
    writeFileSync(file, text);
  };
  write(1);
  const child = Bun.spawn([process.execPath, "--hot", "--no-clear-screen", file], {
    env: process.env,
    cwd: directory.path,
    stdout: "pipe",
    stderr: "pipe",
  });
  try {
    let said = "";
    const reader = child.stdout.getReader();
    for (let version = 1; version <= 4; version++) {
      if (version > 1) write(version);
      while (!said.includes(`version ${version},`)) {
        const { value, done } = await reader.read();
        if (done) throw new Error(`it ended: ${said} ${await child.stderr.text()}`);
        said += new TextDecoder().decode(value);
      }
      expect(said).toContain(`version ${version}, loads 1 step 1 answers 2`);
    }
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
});
