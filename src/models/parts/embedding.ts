// The embedding matrix. It computes nothing on the device: a step's rows are gathered on the host, and only they are touched.

import type { DecoderConfig } from "../architecture.ts";
import type { Declared } from "./part.ts";

export const embedTokens = "model.embed_tokens.weight";

export const embedding = ({ vocabulary, hidden }: DecoderConfig): Declared => ({
  tensors: [{ group: "embedding", name: embedTokens, shape: [vocabulary, hidden] }],
  products: [],
});
