// bun run parity DIR [--device cpu|cuda|hip] [--dtype float32|bfloat16] [--config FILE]
//
// Compares a model folder with the float64 results of Hugging Face's implementation that lie beside it (reference.json,
// reference.safetensors; test/fixtures/models/README.md says what they hold): losses, logits, every gradient tensor,
// gradient norms, weights after three AdamW steps, losses and gradient norms of twelve training steps. Prints each check's worst error and its limit;
// exit code 1 when one is above.

import { judge } from "../src/step/bill.ts";
import { inferenceShape } from "../src/tiers/shape.ts";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { defaultDtype } from "../src/native/devices.ts";
import { SluiceError, ConfigError, ModelError } from "../src/words/errors.ts";
import type { MicroBatch, StepBatch } from "../src/data/batches.ts";
import { readSafetensors } from "../src/io/safetensors.ts";
import { logits, toFloat32 } from "../src/engine/logits.ts";
import { load, type Model } from "../src/engine/model.ts";
import { Session } from "../src/engine/session.ts";
import { Trainer, type TrainerConfig } from "../src/engine/trainer.ts";

export interface Check {
  name: string;
  /** The worst error found, and the tensor or batch it was found in. */
  error: number;
  where: string;
  limit: number;
}

/** What must hold, by dtype. Cosines and norms are written as errors: 1 − cosine, |norm ratio − 1|. */
const limits = {
  float32: {
    loss: 2e-6,
    logits: 2e-5,
    gradient: 2e-5,
    gradNorm: 2e-5,
    after3: 2e-2,
    training: 2e-3,
    trainingNorm: 2e-4,
  },
  // Twelve steps carry rounding along. In float32 their norms end 6e-6 off, in bf16 3e-2, of gemma3-tiny 6.5e-2;
  // PyTorch in bf16 with float32 masters ends at a training loss 1.8e-3 off, Sluice at 2.3e-3.
  bfloat16: { loss: 0.01, cosine: 1 - 0.998, norm: 0.06, training: 0.01, trainingNorm: 0.08 },
} as const;

interface Reference {
  batches: Record<string, { ids: number[]; labels: number[] }[]>;
  loss: Record<string, number>;
  grad_norm: Record<string, number>;
  optimizer: { lr: number; betas: [number, number]; eps: number; weight_decay: number; max_grad_norm: number };
  training: { order: string[]; losses: number[]; grad_norms: number[] };
}

export interface ParityOptions {
  device?: "cpu" | "cuda" | "hip";
  dtype?: keyof typeof limits;
  configPath?: string;
  workers?: number;
}

/** All checks of one folder. */
export async function checkParity(directory: string, options: ParityOptions = {}): Promise<Check[]> {
  const path = join(directory, "reference.json");
  if (!existsSync(path))
    throw new ModelError(`${path} is missing; parity needs a folder with Hugging Face reference results`);
  const reference = (await Bun.file(path).json()) as Reference;
  const tensors = await readReference(join(directory, "reference.safetensors"));
  const dtype = options.dtype ?? defaultDtype(options.device ?? "cpu");
  const { workers = 2 } = options;
  const loadOptions = { ...options, workers, dtype };
  const batches = Object.fromEntries(
    Object.entries(reference.batches).map(([name, documents]) => [name, endToEnd(documents)]),
  );
  const tokensMax = Math.max(...Object.values(batches).map(({ tokens }) => tokens));
  const config = trainerConfig(reference, tokensMax);
  const worst = new WorstErrors();

  {
    using model = await load(directory, loadOptions);
    using session = new Session(model, judge(inferenceShape(model, config), model.engine.limits()));
    for (const [name, batch] of Object.entries(batches)) {
      const { loss } = await session.evaluate([batch]);
      worst.add("loss", name, Math.abs(loss - reference.loss[name]!) / reference.loss[name]!, limits[dtype].loss);
    }
    const found = await logits(session, batches["packed"]!.passes[0]![0]!);
    if (dtype === "float32")
      worst.add("logits", "packed", relative(found, tensors.get("logits.packed")!), limits.float32.logits);
  }

  for (const [name, batch] of Object.entries(batches)) {
    using model = await load(directory, loadOptions);
    const trainer = await Trainer.open(model, config);
    const { gradNorm } = await trainer.step(batch, { learningRate: 0 });
    await trainer.drain();
    if (dtype === "float32")
      worst.add("gradient norm", name, Math.abs(gradNorm / reference.grad_norm[name]! - 1), limits.float32.gradNorm);
    if (name === "packed") compareGradients(worst, model, trainer, batch, tensors, dtype);
    trainer.close();
  }

  {
    using model = await load(directory, loadOptions);
    const trainer = await Trainer.open(model, config);
    const initial = new Map(masterWeights(model));
    for (const [index, expected] of reference.training.losses.entries()) {
      const { loss, gradNorm } = await trainer.step(batches[reference.training.order[index % 3]!]!);
      const scale = dtype === "float32" ? 1 : expected;
      worst.add("training losses", `step ${index + 1}`, Math.abs(loss - expected) / scale, limits[dtype].training);
      const norm = reference.training.grad_norms[index]!;
      worst.add("training norms", `step ${index + 1}`, Math.abs(gradNorm / norm - 1), limits[dtype].trainingNorm);
      if (index === 2 && dtype === "float32") {
        await trainer.drain();
        for (const [name, after] of masterWeights(model)) {
          const expectedAfter = tensors.get(`after3.${name}`)!;
          const error = distance(after, expectedAfter) / distance(expectedAfter, initial.get(name)!);
          worst.add("weights after 3 steps", name, error, limits.float32.after3);
        }
      }
    }
    await trainer.drain();
    trainer.close();
  }
  return worst.checks();
}

// ---- references -----------------------------------------------------------------------------------------------------

/** Documents laid end to end in one row: they must give the loss of separate ones. */
function endToEnd(documents: readonly { ids: number[]; labels: number[] }[]): StepBatch {
  const starts = [0];
  for (const { ids } of documents) starts.push(starts.at(-1)! + ids.length);
  const batch: MicroBatch = {
    tokens: Int32Array.from(documents.flatMap(({ ids }) => ids)),
    targets: Int32Array.from(documents.flatMap(({ labels }) => [...labels.slice(1), -100])),
    positions: Int32Array.from(documents.flatMap(({ ids }) => ids.map((_, position) => position))),
    starts: Int32Array.from(starts),
  };
  const validTokens = batch.targets.filter((target) => target >= 0).length;
  return { passes: [[batch]], validTokens, tokens: batch.tokens.length };
}

function trainerConfig({ optimizer }: Reference, tokensMax: number): TrainerConfig {
  return {
    sequenceLength: tokensMax,
    batchSize: 1,
    microBatchTokens: tokensMax,
    gradientAccumulation: 1,
    maxGradNorm: optimizer.max_grad_norm,
    optimizer: {
      learningRate: optimizer.lr,
      beta1: optimizer.betas[0],
      beta2: optimizer.betas[1],
      epsilon: optimizer.eps,
      weightDecay: optimizer.weight_decay,
      state: "fp32",
    },
    window: { slots: 2, boundary: "pinned", keepBlocks: 0, residentBlocks: 0, ring: "all" },
  };
}

async function readReference(path: string): Promise<Map<string, Float32Array>> {
  const bytes = await Bun.file(path).arrayBuffer();
  const tensors = new Map<string, Float32Array>();
  for (const [name, { offset, bytes: length }] of readSafetensors(path).tensors)
    tensors.set(name, new Float32Array(bytes.slice(offset, offset + length)));
  return tensors;
}

// ---- what the engine holds ------------------------------------------------------------------------------------------

/** Every parameter by name, as the exact float32 master. */
function* masterWeights(model: Model): Generator<[string, Float32Array]> {
  for (const block of model.blocks) {
    const hi = new Uint16Array(model.state.get(`${block.name}.hi`)!.view());
    const lo = new Int16Array(model.state.get(`${block.name}.lo`)!.view());
    for (const { name, offset, count } of block.tensors) {
      const bits = Uint32Array.from({ length: count }, (_, i) => (hi[offset + i]! << 16) + lo[offset + i]!);
      yield [name, new Float32Array(bits.buffer)];
    }
  }
}

/** Every gradient by name: with clipping they all lie in the ring when a step is over. */
function* gradientsOf(model: Model, trainer: Trainer, batch: StepBatch): Generator<[string, Float32Array]> {
  const { buffers, shape } = trainer.session;
  const bfloat16 = shape.dtype === "bfloat16";
  const read = (name: string): Float32Array => toFloat32(buffers.get(name).view(), bfloat16);
  const { layers, tied, hidden } = model.config;
  for (const block of model.blocks.slice(1)) {
    const landed = read(block.kind === "head" ? "head.landing" : `ring ${layers - 1 - block.layer}`);
    for (const { name, offset, count } of block.tensors) yield [name, landed.subarray(offset, offset + count)];
  }
  const embedding = model.blocks[0]!.tensors[0]!;
  const gradient = tied ? read("head.matrixLanding").subarray(0, embedding.count) : new Float32Array(embedding.count);
  const touched = new Float32Array(buffers.get("embedding.gradient").view());
  const distinct = [...new Set(batch.passes[0]![0]!.tokens)].sort((a, b) => a - b);
  for (const [u, token] of distinct.entries())
    gradient.set(touched.subarray(u * hidden, (u + 1) * hidden), token * hidden);
  yield [embedding.name, gradient];
}

function compareGradients(
  worst: WorstErrors,
  model: Model,
  trainer: Trainer,
  batch: StepBatch,
  tensors: ReadonlyMap<string, Float32Array>,
  dtype: keyof typeof limits,
): void {
  for (const [name, found] of gradientsOf(model, trainer, batch)) {
    const expected = tensors.get(`grad.packed.${name}`)!;
    if (dtype === "float32")
      worst.add("gradients", name, distance(found, expected) / norm(expected), limits.float32.gradient);
    else {
      worst.add(
        "gradient cosine (1 − c)",
        name,
        1 - dot(found, expected) / (norm(found) * norm(expected)),
        limits.bfloat16.cosine,
      );
      worst.add("gradient norm ratio − 1", name, Math.abs(norm(found) / norm(expected) - 1), limits.bfloat16.norm);
    }
  }
}

// ---- errors ---------------------------------------------------------------------------------------------------------

class WorstErrors {
  #checks = new Map<string, Check>();

  /** NaN counts as infinitely wrong. */
  add(name: string, where: string, error: number, limit: number): void {
    const value = Number.isNaN(error) ? Infinity : error;
    const before = this.#checks.get(name);
    if (!before || value > before.error) this.#checks.set(name, { name, where, error: value, limit });
  }

  checks(): Check[] {
    return [...this.#checks.values()];
  }
}

function dot(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return NaN;
  return a.reduce((sum, value, index) => sum + value * b[index]!, 0);
}
const norm = (a: Float32Array): number => Math.sqrt(dot(a, a));
function distance(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return NaN;
  return Math.sqrt(a.reduce((sum, value, index) => sum + (value - b[index]!) ** 2, 0));
}
const relative = (a: Float32Array, b: Float32Array): number => distance(a, b) / norm(b);

// ---- command line ---------------------------------------------------------------------------------------------------

const usage = "usage: bun run parity DIR [--device cpu|cuda|hip] [--dtype float32|bfloat16] [--config FILE]";

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      device: { type: "string" },
      dtype: { type: "string" },
      config: { type: "string" },
      help: { type: "boolean" },
    },
  });
  if (values.help) {
    console.log(usage);
    return 0;
  }
  const [directory] = positionals;
  if (directory === undefined || positionals.length > 1) throw new ConfigError(usage);
  const { device = "cpu" } = values;
  if (device !== "cpu" && device !== "cuda" && device !== "hip")
    throw new ConfigError(`--device must be cpu, cuda or hip (was ${device})`);
  const dtype = values.dtype ?? defaultDtype(device);
  if (dtype !== "float32" && dtype !== "bfloat16")
    throw new ConfigError(`--dtype must be float32 or bfloat16 (was ${dtype})`);
  const checks = await checkParity(directory, {
    device,
    dtype,
    ...(values.config ? { configPath: values.config } : {}),
  });
  console.log(`${directory} · ${device} · ${dtype}${values.config ? ` · ${values.config}` : ""}`);
  for (const { name, error, where, limit } of checks)
    console.log(
      `${error <= limit ? "ok  " : "FAIL"} ${name.padEnd(24)} ${error.toExponential(1).padStart(8)} of ${limit.toExponential(1)}  ${where}`,
    );
  return checks.every(({ error, limit }) => error <= limit) ? 0 : 1;
}

if (import.meta.main)
  try {
    process.exitCode = await main();
  } catch (error) {
    if (!(error instanceof SluiceError || (error as { code?: string }).code?.startsWith("ERR_PARSE_ARGS"))) throw error;
    console.error((error as Error).message);
    process.exitCode = 1;
  }
