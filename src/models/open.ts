// A model directory, opened: its config, where its tensors lie, and its blocks, all checked against each other. Nothing
// has been loaded yet; native code reads the bytes afterwards, straight to their place.

import { join } from "node:path";
import { type ModelTensors, openModelTensors, requireDirectory } from "../io/safetensors.ts";
import { type DecoderConfig, readDecoderConfig } from "./config.ts";
import { checkTensors, type ParameterBlock, parameterBlocks } from "./parameters.ts";

export interface OpenedModel extends ModelTensors {
  config: DecoderConfig;
  blocks: ParameterBlock[];
  /** Names of tensors in the files that are not read, for a note to the user. */
  ignored: string[];
}

/** Opens a Hugging Face model directory; `configPath` replaces its config.json (the other dialect, for parity). */
export function openModel(directory: string, configPath = join(directory, "config.json")): OpenedModel {
  requireDirectory(directory);
  const config = readDecoderConfig(configPath);
  const model = openModelTensors(directory);
  const ignored = checkTensors(config, model);
  return { ...model, config, blocks: parameterBlocks(config), ignored };
}
