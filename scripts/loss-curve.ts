// bun run loss-curve [--device cuda] [--shape qwen3-0.6b] [--steps 50] [options]
//
// Trains a model of random weights on real text (this repository's own sources, byte by byte), lets PyTorch train the same
// weights on the same tokens in the same order (scripts/reference/loss_curve.py: bf16 model, float32 master AdamW), and
// compares the losses step by step. Exit code 1 when they are further apart than one percent at any step from the tenth on.
//
//   --batchSize, --sequenceLength, --optimizer.learningRate (after ten steps of warm-up), --dtype (ours; PyTorch's is always
//   bf16) and every other key of the config    [4 rows of 1024 tokens, 1e-4, the device's own]
//   --output DIR                  weights, tokens and both curves  [build/loss-curve]
//   --python PATH                 one that has torch and transformers; "none" leaves its half out  [python3]

import { clippingOf } from "../src/tiers/shape.ts";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { takeOwn, whole } from "../src/cli/command.ts";
import { trainConfig } from "../src/cli/train.ts";
import { parseConfig, type Config } from "../src/run/config.ts";
import type { StepBatch } from "../src/data/batches.ts";
import { SluiceError } from "../src/words/errors.ts";
import { exportModel } from "../src/keep/export.ts";
import { run } from "../src/cli/main.ts";
import { Model } from "../src/engine/model.ts";
import { readDecoderConfig, type DecoderConfig } from "../src/models/config.ts";
import { parameterBlocks } from "../src/models/parameters.ts";
import { Engine } from "../src/native/runtime.ts";
import { rehearsedBatch } from "../src/predict/rehearsal.ts";
import { Trainer } from "../src/engine/trainer.ts";
import { fillWeights, shapeNamed } from "./bench/step.ts";

const options = {
  shape: { type: "string" },
  steps: { type: "string" },
  output: { type: "string" },
  python: { type: "string" },
} as const;

const root = join(import.meta.dir, "..");
const warmUpSteps = 10;
/** Until here the curves may differ: the first steps leave the random weights behind. */
const comparedFrom = 10;
const limit = 0.01;

async function main(): Promise<void> {
  const { own, rest } = takeOwn(process.argv.slice(2), options);
  const steps = whole("--steps", own.steps ?? "50", 1);
  const training = await configOf(rest);
  const { device, dtype, workers, batchSize: rows, sequenceLength: sequence, optimizer } = training;
  const output = own.output ?? join(root, "build/loss-curve");
  mkdirSync(output, { recursive: true });

  const shape = join(output, "shape");
  mkdirSync(shape, { recursive: true });
  const config = writeConfig(own.shape ?? "qwen3-0.6b", shape);
  const tokens = textTokens(steps * rows * sequence, config.vocabulary);
  await Bun.write(join(output, "tokens.bin"), tokens);
  const rates = Array.from(
    { length: steps },
    (_, step) => optimizer.learningRate * Math.min(1, (step + 1) / warmUpSteps),
  );
  const { weightDecay, beta1, beta2, epsilon } = optimizer;
  const { value: maxGradNorm } = clippingOf(training.maxGradNorm);
  const shared = { rows, sequence, rates, weightDecay, beta1, beta2, epsilon, maxGradNorm };
  await Bun.write(join(output, "run.json"), JSON.stringify(shared));

  const ours: number[] = [];
  {
    using engine = new Engine({ device, workers });
    using model = new Model(shape, config, parameterBlocks(config), engine, dtype);
    await fillWeights(model);
    await exportModel(model, join(output, "model"), { dtype: "bfloat16" });
    using trainer = await Trainer.open(model, training);
    for (let step = 0; step < steps; step++) {
      const batch = stepBatch(tokens.subarray(step * rows * sequence, (step + 1) * rows * sequence), sequence);
      const { loss } = await trainer.step(batch, { learningRate: rates[step]! });
      ours.push(loss);
    }
    await trainer.drain();
  }
  await Bun.write(join(output, "sluice.json"), JSON.stringify(ours));
  const { python = "python3" } = own;
  if (python === "none") return console.log(`${ours.map((loss) => loss.toFixed(4)).join(" ")}`);
  compare(ours, await reference(python, output));
}

/** config.json as Hugging Face reads it; parsed again, so that both sides start from the same file. */
function writeConfig(shape: string, output: string): DecoderConfig {
  const { modelType, hidden, intermediate, layers, heads, kvHeads, headDim, vocabulary, tied } = shapeNamed(shape);
  const config = {
    architectures: [modelType === "llama" ? "LlamaForCausalLM" : "Qwen3ForCausalLM"],
    model_type: modelType,
    hidden_size: hidden,
    intermediate_size: intermediate,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim: headDim,
    vocab_size: vocabulary,
    tie_word_embeddings: tied,
    max_position_embeddings: 32768,
    rms_norm_eps: 1e-6,
    rope_theta: 1e6,
  };
  const path = join(output, "config.json");
  writeFileSync(path, `${JSON.stringify(config, null, 2)}\n`);
  return readDecoderConfig(path);
}

/** Bytes of this repository's sources as token ids, in the order of their names, from the start again when they run out. */
function textTokens(count: number, vocabulary: number): Int32Array<ArrayBuffer> {
  const paths = [...new Bun.Glob("{src,scripts}/**/*.ts").scanSync({ cwd: root })].sort();
  const text = Buffer.concat(paths.map((path) => readFileSync(join(root, path))));
  return Int32Array.from({ length: count }, (_, index) => text[index % text.length]! % vocabulary);
}

/** The config's own keys over the defaults of this comparison. */
async function configOf(args: readonly string[]): Promise<Config> {
  const given = await trainConfig(args, {
    model: "-",
    data: "-",
    output: "-",
    batchSize: 4,
    sequenceLength: 1024,
    optimizer: { learningRate: 1e-4, weightDecay: 0.1 },
  });
  const { batchSize = 4, sequenceLength = 1024 } = given;
  return parseConfig({ microBatchTokens: batchSize * sequenceLength, ...given });
}

/** Full rows of one document each; a row's last token predicts nothing. */
function stepBatch(tokens: Int32Array, sequence: number): StepBatch {
  const rows = tokens.length / sequence;
  const targets = tokens.map((_, index) => ((index + 1) % sequence === 0 ? -100 : tokens[index + 1]!));
  const starts = Int32Array.from({ length: rows + 1 }, (_, row) => row * sequence);
  const positions = tokens.map((_, index) => index % sequence);
  return rehearsedBatch([[{ tokens: tokens.slice(), targets, starts, positions }]]);
}

async function reference(python: string, output: string): Promise<number[]> {
  const script = join(import.meta.dir, "reference/loss_curve.py");
  const child = Bun.spawn([python, script, output], { stdout: "inherit", stderr: "inherit" });
  if ((await child.exited) !== 0) throw new SluiceError(`${python} ${script} failed; see above`);
  return Bun.file(join(output, "pytorch.json")).json();
}

function compare(ours: readonly number[], theirs: readonly number[]): void {
  let worst = { step: 0, difference: 0 };
  console.log("step      sluice     pytorch  difference");
  for (const [index, loss] of ours.entries()) {
    const [step, other] = [index + 1, theirs[index]!];
    const difference = Math.abs(loss / other - 1);
    console.log(
      `${String(step).padStart(4)} ${loss.toFixed(5).padStart(11)} ${other.toFixed(5).padStart(11)} ${(100 * difference).toFixed(3).padStart(9)} %`,
    );
    if (step >= comparedFrom && difference > worst.difference) worst = { step, difference };
  }
  const fits = worst.difference <= limit;
  console.log(
    `from step ${comparedFrom} on at most ${(100 * worst.difference).toFixed(3)} % (step ${worst.step}), the limit is ${100 * limit} %: ${fits ? "ok" : "FAILED"}`,
  );
  if (!fits) process.exitCode = 1;
}

if (import.meta.main) await run(main);
