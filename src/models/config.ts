// config.json, in both of Hugging Face's dialects, as one `DecoderConfig`.
//
// transformers 5 writes `rope_parameters`, `dtype` and `layer_types`; models published before carry `rope_theta`,
// `rope_scaling` and `torch_dtype`. Both give the same `DecoderConfig`. Missing keys get the defaults of Hugging Face's
// configuration class for that model_type.
//
// Promise: no key is silently ignored. A key is honoured (something below or in the model's file reads it), or it is on
// the list of keys that do not change what training computes, or it may only hold the value that switches it off, or
// the model is refused with a message that names the file, the key and what is supported. Read `parameters.ts` next.

import { readFileSync } from "node:fs";
import { ModelError } from "../words/errors.ts";
import { explainFileError } from "../io/atomic.ts";
import { isObject, parseJson } from "../io/json.ts";
import { closest } from "../words/suggest.ts";
import type { Architecture, DecoderConfig, DecoderSizes } from "./architecture.ts";
import { ConfigFields } from "./fields.ts";
import { architectureOf } from "./index.ts";
import { readRope } from "./rope.ts";

export type { DecoderConfig } from "./architecture.ts";

/** Reads a config file (`DIR/config.json`, or another file in either dialect). */
export function readDecoderConfig(path: string): DecoderConfig {
  let value: unknown;
  try {
    value = parseJson(readFileSync(path, "utf8"));
  } catch (cause) {
    const problem = (cause as NodeJS.ErrnoException).code ? explainFileError(cause, "read") : (cause as Error).message;
    throw new ModelError(`${path}: ${problem}`);
  }
  return parseDecoderConfig(value, path);
}

/** The same from the parsed JSON; `path` is what errors name. */
export function parseDecoderConfig(source: unknown, path: string): DecoderConfig {
  if (!isObject(source)) throw new ModelError(`${path}: must be a JSON object`);
  const fields = new ConfigFields(source, path);
  const architecture = architectureOf(fields.string("model_type"), path);
  refuseSwitches(fields, architecture);

  const layers = fields.integer("num_hidden_layers");
  if (layers > 10_000) fields.fail("num_hidden_layers", `must be at most 10,000 (was ${layers})`);
  const maxPositions = fields.integer("max_position_embeddings", architecture.defaults.maxPositions);
  const sizes = readSizes(fields, architecture);
  const more = architecture.read?.(fields, { ...sizes, maxPositions });
  const config: DecoderConfig = {
    modelType: architecture.modelType,
    ...sizes,
    layers,
    normEpsilon: fields.positive("rms_norm_eps", 1e-6),
    rope: more?.rope ?? readRope(fields, maxPositions),
    maxPositions,
    slidingWindows: architecture.slidingWindows(fields, layers),
    tied: fields.boolean("tie_word_embeddings", architecture.defaults.tied ?? false),
    bosId: fields.integerOrNull("bos_token_id", architecture.defaults.bosId, 0),
    eosIds: readEosIds(fields, architecture),
    padId: readPadId(fields, sizes.vocabulary, architecture.defaults.padId ?? null),
    source,
    ...more,
  };
  refuseUnreadKeys(fields);
  return config;
}

function readSizes(fields: ConfigFields, architecture: Architecture): DecoderSizes {
  const heads = fields.integer("num_attention_heads", architecture.defaults.heads);
  const hidden = fields.integer("hidden_size");
  // A missing key takes the class's default, an explicit null means one key/value head per head: Hugging Face's rule.
  const kvHeads = fields.integerOrNull("num_key_value_heads", architecture.defaults.kvHeads ?? heads) ?? heads;
  if (heads % kvHeads !== 0)
    fields.fail("num_key_value_heads", `must divide num_attention_heads, ${heads} (was ${kvHeads})`);
  const named = fields.integerOrNull("head_dim", null) ?? architecture.defaults.headDim;
  if (named === undefined && hidden % heads !== 0)
    fields.fail(
      "hidden_size",
      `must be a multiple of num_attention_heads, ${heads}, when head_dim is not given (was ${hidden})`,
    );
  const headDim = named ?? hidden / heads;
  if (headDim % 2 !== 0) fields.fail("head_dim", `must be even, because rotary positions turn pairs (was ${headDim})`);
  return {
    vocabulary: fields.integer("vocab_size", architecture.defaults.vocabulary),
    hidden,
    intermediate: fields.integer("intermediate_size"),
    heads,
    kvHeads,
    headDim,
  };
}

function readEosIds(fields: ConfigFields, architecture: Architecture): number[] {
  const value = fields.value("eos_token_id");
  if (value === undefined) return [...architecture.defaults.eosIds];
  if (value === null) return [];
  const ids = Array.isArray(value) ? value : [value];
  if (!ids.every((id) => Number.isInteger(id) && id >= 0))
    fields.fail("eos_token_id", `must be a token id or a list of them (was ${JSON.stringify(value)})`);
  return ids;
}

/** The row that pads, counted from the end if negative: nn.Embedding's padding_idx, which transformers sets to it. */
function readPadId(fields: ConfigFields, vocabulary: number, whenMissing: number | null): number | null {
  const id = fields.integerOrNull("pad_token_id", whenMissing, -vocabulary);
  if (id !== null && id >= vocabulary)
    fields.fail("pad_token_id", `must be below vocab_size, ${vocabulary} (was ${id}); null means that nothing pads`);
  return id !== null && id < 0 ? vocabulary + id : id;
}

/** Options that change the arithmetic and that Sluice has in one position only. */
function refuseSwitches(fields: ConfigFields, architecture: Architecture): void {
  for (const [key, allowed] of Object.entries({
    ...architecture.only,
    attention_dropout: 0,
    partial_rotary_factor: 1,
  })) {
    const value = fields.value(key) ?? allowed;
    if (value !== allowed)
      fields.fail(
        key,
        `is ${JSON.stringify(value)}; for model_type ${architecture.modelType} Sluice supports only ${allowed}`,
      );
  }
  const { key, names: activations } = architecture.activation ?? { key: "hidden_act", names: ["silu", "swish"] };
  const activation = fields.string(key, activations[0]);
  if (!activations.includes(activation))
    fields.fail(key, `${JSON.stringify(activation)} is not supported; supported: ${activations[0]}`);
  const names = fields.list("architectures");
  const wanted = architecture.causalModel;
  if (
    names &&
    names.length > 0 &&
    !names.some((name) => typeof name === "string" && name.toLowerCase() === wanted.toLowerCase())
  )
    fields.fail(
      "architectures",
      `is ${JSON.stringify(names)}; for model_type ${architecture.modelType} Sluice trains ${wanted}`,
    );
  if (fields.value("quantization_config") != null)
    fields.fail(
      "quantization_config",
      "means quantized weights, and Sluice trains full ones; use the model's bf16, fp16 or fp32 weights",
    );
  if (fields.value("auto_map") != null)
    fields.fail(
      "auto_map",
      `asks for the repository's own code, which Sluice never runs; remove it if this is a plain ${wanted}`,
    );
}

/** Keys of other architectures and modes, which are fine as long as they are off. */
const offValues: Record<string, unknown[]> = {
  add_cross_attention: [false],
  is_encoder_decoder: [false],
  tie_encoder_decoder: [false],
  pruned_heads: [{}],
  per_layer_config: [{}],
  pretraining_tp: [1],
  rope_interleaved: [false],
  use_mrope: [false],
  use_qk_norm: [false],
  use_sliding_window: [false],
};

/** Keys that do not change what training computes: provenance, the run time of other programs, generation, labels. */
const harmless = new Set(
  `transformers_version dtype torch_dtype cache_implementation name_or_path initializer_range use_cache output_attentions
   output_hidden_states output_scores return_dict return_dict_in_generate torchscript use_bfloat16 tf_legacy_loss
   tokenizer_class prefix task_specific_params finetuning_task problem_type id2label label2id num_labels
   chunk_size_feed_forward is_decoder cross_attention_hidden_size decoder_start_token_id sep_token_id unk_token_id
   attn_implementation gradient_checkpointing is_llama_config max_sequence_length model_max_length
   transformers.js_config
   bad_words_ids begin_suppress_tokens diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size
   exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id length_penalty max_length max_new_tokens
   min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences remove_invalid_values
   repetition_penalty suppress_tokens temperature top_k top_p typical_p
   unsloth_version unsloth_fixed`.split(/\s+/),
);

function refuseUnreadKeys(fields: ConfigFields): void {
  for (const key of fields.unread()) {
    if (harmless.has(key) || key.startsWith("_")) continue; // transformers' private notes, such as _name_or_path
    const value = fields.source[key];
    const off = Object.hasOwn(offValues, key) ? offValues[key] : undefined;
    if (off?.some((allowed) => JSON.stringify(allowed) === JSON.stringify(value))) continue;
    if (off) fields.fail(key, `is ${JSON.stringify(value)}, which Sluice does not support`);
    const near = closest(key, [...fields.readKeys(), ...harmless, ...Object.keys(offValues)]);
    fields.fail(
      key,
      near
        ? `is an unknown key (did you mean ${near}?)`
        : "is a key Sluice does not know; remove it if it changes nothing",
    );
  }
}
