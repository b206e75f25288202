// The architectures Sluice can train, by config.json's `model_type`. To add one of the same family, write its file
// (`llama.ts` is the shortest to copy) and add it to this list.

import { ModelError } from "../words/errors.ts";
import { closest } from "../words/suggest.ts";
import type { Architecture } from "./architecture.ts";
import { gemma3Text } from "./gemma3.ts";
import { llama } from "./llama.ts";
import { mistral } from "./mistral.ts";
import { qwen2 } from "./qwen2.ts";
import { qwen3 } from "./qwen3.ts";

const architectures: Architecture[] = [llama, qwen2, qwen3, mistral, gemma3Text];

export const modelTypes: string[] = architectures.map((architecture) => architecture.modelType);

/** The architecture of a `model_type`; `path` is the config file that names it. */
export function architectureOf(modelType: string, path: string): Architecture {
  const found = architectures.find((architecture) => architecture.modelType === modelType);
  if (found) return found;
  const near = closest(modelType, modelTypes);
  throw new ModelError(
    `${path}: model_type ${JSON.stringify(modelType)} is not supported${near ? ` (did you mean "${near}"?)` : ""}; supported: ${modelTypes.join(", ")}`,
  );
}
