// The embedding matrix. It computes nothing on the device: a step's rows are gathered on the host, and only they are touched.
// Where rows are scaled as they enter the first layer, so is their gradient.

import type { DecoderConfig } from "../architecture.ts";
import type { Dtype } from "../../native/abi.gen.ts";
import type { Declared } from "./part.ts";

export const embedTokens = "model.embed_tokens.weight";

export const embedding = ({ vocabulary, hidden }: DecoderConfig): Declared => ({
  tensors: [{ group: "embedding", name: embedTokens, shape: [vocabulary, hidden] }],
  products: [],
});

/** What rows are multiplied by, as the compute dtype has it; undefined where they are taken as they are. */
export function embeddingScale({ embeddingScale: scale }: DecoderConfig, dtype: Dtype): number | undefined {
  if (scale === undefined || dtype === "float32") return scale && Math.fround(scale);
  const [bits] = new Uint32Array(Float32Array.of(scale).buffer);
  const rounded = bits! + 0x7fff + ((bits! >>> 16) & 1); // to the nearest bf16, ties to even
  return new Float32Array(Uint32Array.of(rounded & 0xffff_0000).buffer)[0];
}
