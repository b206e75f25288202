// The finished model as a Hugging Face directory: safetensors shards with index, config, tokenizer files, generation config.
// Written beside its final name and renamed when complete, so that a reader sees the old directory, the new one or none.

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { copyCompanions } from "../models/companions.ts";
import { CancelledError, ModelError, SluiceError } from "../words/errors.ts";
import { fileError, replaceDirectory, temporaryPath } from "../io/atomic.ts";
import { checkClaim, markDirectory } from "../io/claim.ts";
import { changedExact, parseExact, stringifyExact } from "../io/exact-json.ts";
import { layoutSafetensors } from "../io/safetensors.ts";
import { Staging } from "../io/staging.ts";
import { writeTensors } from "../io/tensors.ts";
import type { ModelWeights } from "../engine/weights.ts";
import { stopsOf, type Stops } from "../engine/stops.ts";
import { Plan } from "../plan/plan.ts";

/** How `exportModel` writes. */
export interface ExportOptions {
  /**
   * "bfloat16" writes the rounded weights the GPU computes with, "float32" the exact masters. Default: what the model came in;
   * of a float16 model that is float32, which holds all of its numbers.
   */
  dtype?: "bfloat16" | "float32";
  /** Write where something else is: it is moved to `DIRECTORY.before`. Default: only new, empty and our own directories. */
  overwrite?: boolean;
  /** Tensor bytes per file at most; default 5 GB, as Hugging Face. */
  shardBytesMax?: number;
}

/**
 * Writes the model's current weights, waiting for a trainer's updates. An earlier export of that name is replaced; a directory
 * that holds anything else is refused.
 */
export async function exportModel(model: ModelWeights, directory: string, options: ExportOptions = {}): Promise<void> {
  const { dtype = model.exportDtype, shardBytesMax = 5e9, overwrite = false } = options;
  const inputs = [model.directory];
  const foreign = checkClaim(directory, { kind: "model", inputs, overwrite, name: "the directory to export to" });
  const temporary = temporaryPath(directory);
  const tensors = model.blocks.flatMap((block) => block.tensors.map((tensor) => ({ ...tensor, block })));
  const layout = layoutSafetensors(
    tensors.map(({ name, shape }) => ({
      name,
      shape,
      dtype: dtype === "bfloat16" ? ("BF16" as const) : ("F32" as const),
    })),
    { format: "pt" },
    { shardBytesMax },
  );
  await model.engine.idle();
  try {
    mkdirSync(dirname(directory), { recursive: true });
    mkdirSync(temporary);
    await writeWeights(model, temporary, layout, dtype);
    if (layout.index) writeJson(join(temporary, "model.safetensors.index.json"), layout.index);
    writeJson(join(temporary, "config.json"), configOf(model, dtype));
    copyCompanions(model.companions, model.directory, temporary);
    const generation = join(temporary, "generation_config.json");
    if (!existsSync(generation)) writeJson(generation, generationConfig(model));
    const { named, learned } = await endsOf(model);
    // Answers would go on for ever: whoever was taught by the chat template ends them with a token that nothing names.
    if (learned !== undefined)
      writeJson(generation, changedExact(readObject(generation), { eos_token_id: [...named, learned] }));
    markDirectory(temporary, "model", readdirSync(temporary).sort());
    if (foreign) moveAside(directory);
    await replaceDirectory(temporary, directory);
  } catch (cause) {
    await rm(temporary, { recursive: true, force: true }).catch(() => {}); // the first failure is the one to tell
    throw explained(cause, directory);
  }
}

/** Somebody's own files give way to an export, and are not deleted. */
function moveAside(directory: string): void {
  const aside = `${directory}.before`;
  if (existsSync(aside)) throw new SluiceError(`${aside} exists already; move it away first`);
  renameSync(directory, aside);
}

function explained(cause: unknown, directory: string): unknown {
  if (cause instanceof ModelError)
    return new SluiceError(`cannot export ${directory}: ${cause.message}, then export again`);
  if (cause instanceof SluiceError && !(cause instanceof CancelledError))
    return new SluiceError(
      `cannot export ${directory}: ${cause.message}; check the disk's free space or choose another directory, then export again`,
    );
  return fileError(cause, "write", directory);
}

async function writeWeights(
  model: ModelWeights,
  directory: string,
  layout: ReturnType<typeof layoutSafetensors>,
  dtype: "bfloat16" | "float32",
): Promise<void> {
  const label = { step: 0, phase: "save" } as const;
  const place = new Map(
    model.blocks.flatMap((block) => block.tensors.map((tensor) => [tensor.name, { block, tensor }])),
  );
  const masters = (name: string) => {
    const { block, tensor } = place.get(name)!;
    return model.masters(block, tensor);
  };
  if (dtype === "bfloat16") {
    await writeTensors(model.engine, directory, layout.files, (name) => masters(name).hi, label);
    return;
  }
  // Float32 masters are joined file by file, so that the joined copy is no larger than a shard.
  for (const file of layout.files) {
    using joined = new Joined(model, Math.max(...file.tensors.map(({ offset, bytes }) => offset + bytes)));
    const resident = file.tensors.filter(({ name }) => masters(name).hi.buffer.tier === "device");
    using staging = new Staging(
      model.engine,
      resident.flatMap(({ bytes }) => [bytes / 2, bytes / 2]),
    );
    const plan = new Plan(label);
    for (const { name, offset, bytes } of file.tensors) {
      const split = masters(name);
      const [hi, lo] = [staging.onHost(plan, split.hi), staging.onHost(plan, split.lo)];
      const args = { to: joined.range(offset, bytes), hi: hi.range, lo: lo.range, count: bytes / 4 };
      plan.record("host", "joinWeights", args, { reads: [...hi.reads, ...lo.reads] });
    }
    await model.engine.play(plan);
    const byName = new Map(file.tensors.map((tensor) => [tensor.name, tensor]));
    await writeTensors(
      model.engine,
      directory,
      [file],
      (name) => joined.range(byName.get(name)!.offset, byName.get(name)!.bytes),
      label,
    );
  }
}

/** Host memory for one file's float32 weights. */
class Joined implements Disposable {
  #buffer;

  constructor(model: ModelWeights, bytes: number) {
    this.#buffer = model.engine.buffer("host", bytes, "export");
  }
  range(offset: number, bytes: number) {
    return this.#buffer.range(offset, bytes);
  }
  [Symbol.dispose](): void {
    this.#buffer.free();
  }
}

/** config.json as it was read, with the dtype of the files. */
function configOf({ config }: ModelWeights, dtype: string): Record<string, unknown> {
  const isOld = config.source["torch_dtype"] !== undefined;
  return changedExact(config.source, { dtype: isOld ? undefined : dtype, torch_dtype: isOld ? dtype : undefined });
}

function generationConfig({ config }: ModelWeights): Record<string, unknown> {
  const { bosId, eosIds } = config;
  const { pad_token_id: padId = null } = config.source as { pad_token_id?: number | null };
  const eos = eosIds.length === 1 ? eosIds[0] : eosIds;
  return {
    _from_model_config: true,
    ...(bosId === null ? {} : { bos_token_id: bosId }),
    ...(eosIds.length === 0 ? {} : { eos_token_id: eos }),
    ...(padId === null || padId < 0 ? {} : { pad_token_id: padId }),
  };
}

/** How answers end; of a model without a tokenizer that can be read nothing is known. */
async function endsOf(model: ModelWeights): Promise<Pick<Stops, "named" | "learned">> {
  const none = { named: new Set<number>(), learned: undefined };
  if (!model.companions.has("tokenizer.json")) return none;
  const tokenizer = await model.tokenizer().catch((error: unknown) => {
    if (error instanceof ModelError) return undefined;
    throw error;
  });
  return tokenizer ? stopsOf(model, tokenizer) : none;
}

const readObject = (path: string): object => parseExact(readFileSync(path, "utf8")) as object;

function writeJson(path: string, value: unknown): void {
  writeFileSync(path, `${stringifyExact(value, "  ")}\n`);
}
