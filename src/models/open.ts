// A model directory, opened: its config, where its tensors lie, and its blocks, all checked against each other. Nothing
// has been loaded yet; native code reads the bytes afterwards, straight to their place.

import { join } from "node:path";
import { hasSameBytes, type ModelTensors, openModelTensors, requireDirectory } from "../io/safetensors.ts";
import { type DecoderConfig, readDecoderConfig } from "./config.ts";
import { checkTensors, type ParameterBlock, parameterBlocks } from "./parameters.ts";
import { embedTokens } from "./parts/embedding.ts";
import { lmHead } from "./parts/head.ts";

export interface OpenedModel extends ModelTensors {
  config: DecoderConfig;
  blocks: ParameterBlock[];
  /** Names of tensors in the files that are not read. */
  ignored: string[];
  /** What the user should know about it: sentences. */
  notes: string[];
}

/** Opens a Hugging Face model directory; `configPath` replaces its config.json (the other dialect, for parity). */
export function openModel(directory: string, configPath = join(directory, "config.json")): OpenedModel {
  requireDirectory(directory);
  const model = openModelTensors(directory);
  const { config, notes } = withOwnHead(readDecoderConfig(configPath), model);
  const ignored = checkTensors(config, model);
  return { ...model, config, blocks: parameterBlocks(config), ignored, notes };
}

/**
 * The config of these files: a model that is to be tied but whose files hold another LM head than the embedding has a head of
 * its own, as with transformers 5. Reads both matrices where there are two.
 */
export function withOwnHead(config: DecoderConfig, model: ModelTensors): { config: DecoderConfig; notes: string[] } {
  const [own, shared] = [lmHead, embedTokens].map((name) => model.tensors.get(name));
  if (!config.tied || !own || !shared || hasSameBytes(own, shared)) return { config, notes: [] };
  const note =
    `${model.directory}: config.json says tie_word_embeddings, but ${lmHead} is another matrix than ${embedTokens}; ` +
    `both are kept, as transformers 5 does, and an export says tie_word_embeddings: false`;
  const untied = { ...config, tied: false, source: { ...config.source, tie_word_embeddings: false } };
  return { config: untied, notes: [note] };
}
