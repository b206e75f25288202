import { describe, expect, test } from "bun:test";
import { parseConfig, type TrainConfig } from "../../src/run/config.ts";
import { parseSize } from "../../src/words/format.ts";

const minimal = { model: "models/tiny", data: "chat.jsonl", output: "runs/one" } satisfies TrainConfig;

describe("parseConfig", () => {
  test("fills in every default", async () => {
    expect(await parseConfig(minimal)).toEqual({
      ...minimal,
      overwrite: false,
      maxBadLines: 0,
      streamAbove: 64 * 2 ** 20,
      device: "cpu",
      dtype: "float32",
      workers: navigator.hardwareConcurrency,
      seed: 1,
      sequenceLength: 1024,
      batchSize: 8,
      microBatchTokens: 1024,
      gradientAccumulation: 1,
      epochs: 1,
      optimizer: { learningRate: 2e-5, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0, state: "fp32" },
      maxGradNorm: 1,
      schedule: { type: "cosine", warmup: "3%", minRatio: 0 },
      window: { slots: "auto", boundary: "auto", keepBlocks: "auto", residentBlocks: "auto", ring: "auto" },
      checkpoint: { every: 500, keep: 2, state: true, resume: false },
      evaluation: { every: null },
      logging: { every: 10 },
      tensorboard: false,
      dashboard: false,
      chat: { loss: "assistant" },
      export: {},
    });
  });

  test("parsing a parsed config changes nothing, through JSON too", async () => {
    const config = await parseConfig({
      ...minimal,
      deviceMemory: "1.5GiB",
      steps: 20,
      maxGradNorm: null,
      evaluationData: ["a.jsonl"],
      window: { slots: "all", ring: 2, keepBlocks: "all", residentBlocks: 3 },
      schedule: { type: "wsd", warmup: 2, decay: "12.5%" },
      optimizer: { weightDecayGroups: [{ match: "*.bias", weightDecay: 0 }] },
      checkpoint: { resume: "runs/one/checkpoints/step-10" },
    });
    expect(config.deviceMemory).toBe(1.5 * 2 ** 30);
    expect(config.epochs).toBeUndefined();
    expect(await parseConfig(JSON.parse(JSON.stringify(config)))).toEqual(config);
  });

  test("two configs do not share their groups", async () => {
    const [one, two] = [await parseConfig(minimal), await parseConfig(minimal)];
    one.optimizer.learningRate = 5;
    expect(two.optimizer.learningRate).toBe(2e-5);
  });

  test("importing the module does not load arktype", () => {
    const loaded = (code: string) => {
      const script = `import { parseConfig } from "./src/run/config.ts"; ${code}; console.log(Object.keys(require.cache).some((path) => path.includes("arktype")))`;
      return Bun.spawnSync([process.execPath, "-e", script], {
        env: process.env,
        cwd: `${import.meta.dir}/../..`,
      }).stdout.toString();
    };
    expect(loaded("")).toBe("false\n");
    expect(loaded("await parseConfig({}).catch(() => {})")).toBe("true\n");
  });
});

test("sizes", () => {
  const table: [string, number | undefined][] = [
    ["0B", 0],
    ["512MiB", 512 * 2 ** 20],
    ["24 GiB", 24 * 2 ** 30],
    ["1.5GiB", 1.5 * 2 ** 30],
    ["80GB", 80e9],
    ["2TiB", 2 ** 41],
    ["100kB", 100_000],
    ["24", undefined],
    ["24 gigs", undefined],
    ["GiB", undefined],
    ["-1GiB", undefined],
    ["1kiB", undefined],
  ];
  for (const [text, bytes] of table) expect([text, parseSize(text)]).toEqual([text, bytes]);
});
