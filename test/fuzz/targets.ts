// What is fuzzed, by name. A target's own bug (`planted`) is what it would be without one of its checks.

import type { Target } from "./harness.ts";
import { csv, json, jsonl, parquet, tsv } from "./data-targets.ts";
import { chatTemplate, index, modelConfig, safetensors, tokenizer } from "./model-targets.ts";
import { config, flags, manifest, op, plan } from "./run-targets.ts";

export const targets: Readonly<Record<string, Target>> = {
  safetensors,
  index,
  "model-config": modelConfig,
  tokenizer,
  "chat-template": chatTemplate,
  jsonl,
  json,
  csv,
  tsv,
  parquet,
  config,
  flags,
  plan,
  op,
  manifest,
};
