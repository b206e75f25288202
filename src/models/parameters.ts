// The parameter layout: which tensor lies where in which block.
//
// A block is the unit that slides. Here each block is one flat array of elements: the embedding,
// the decoder layers 0..L-1, and the head (final norm, and the LM head matrix unless it is tied to the embedding).
// Weights, moments and gradients of a block all use these offsets, whatever their number format.
//
// - Tensors of a group (q|k|v, gate|up, the three biases) follow each other without gaps: one GEMM serves the group.
// - A group starts at a multiple of 64 elements, and a block's length is one, so every group and every block is aligned
//   for vector loads in any format. The padding between is zero and stays zero: its gradient is zero, and AdamW maps
//   zero weights with zero moments and gradient to zero.
// - Matrices come first, then vectors (norms, biases), so weight decay is two runs per block.
//
// Everything here is pure. Read `open.ts` next for how a directory is checked against this layout.

import { assert, ModelError } from "../words/errors.ts";
import { elementCount, type ModelTensors } from "../io/safetensors.ts";
import type { DecoderConfig } from "./architecture.ts";
import { architectureOf } from "./index.ts";
import { chain, type Chain } from "./parts/chain.ts";
import { embedding } from "./parts/embedding.ts";
import { head, lmHead } from "./parts/head.ts";
import type { Declared, Product, Tensor } from "./parts/part.ts";

export interface ParameterTensor {
  /** Hugging Face's name. */
  name: string;
  shape: number[];
  /** In elements, within the block. */
  offset: number;
  count: number;
  group: string;
}

export interface ParameterGroup {
  offset: number;
  count: number;
}

export interface ParameterBlock {
  kind: "embedding" | "decoder" | "head";
  /** "embedding", "layer 7", "head". */
  name: string;
  /** Position in the list of blocks: embedding 0, layer i at i + 1, head last. */
  index: number;
  /** The decoder layer, or -1. */
  layer: number;
  /** How a layer's parts hang together; that of embedding and head has none. */
  chain: Chain;
  products: Product[];
  tensors: ParameterTensor[];
  groups: Map<string, ParameterGroup>;
  /** Elements, padding included. */
  length: number;
  /** Elements without padding. */
  count: number;
}

const alignment = 64;
const align = (elements: number) => Math.ceil(elements / alignment) * alignment;

/** All blocks of a model: embedding, layers, head. */
export function parameterBlocks(config: DecoderConfig): ParameterBlock[] {
  const architecture = architectureOf(config.modelType, "config");
  const blocks = [layOut("embedding", "embedding", -1, [embedding(config)])];
  for (let layer = 0; layer < config.layers; layer++) {
    const parts = architecture.layer(config, layer);
    blocks.push({ ...layOut("decoder", `layer ${layer}`, layer, parts), chain: chain(parts) });
  }
  blocks.push(layOut("head", "head", -1, [head(config)]));
  for (const [index, block] of blocks.entries()) block.index = index;
  return blocks;
}

const isMatrix = ({ shape }: { shape: readonly number[] }): boolean => shape.length > 1;

function layOut(kind: ParameterBlock["kind"], name: string, layer: number, parts: readonly Declared[]): ParameterBlock {
  const prefix = layer < 0 ? "" : `model.layers.${layer}.`;
  const tensorsOf = (some: readonly Declared[]): Tensor[] => some.flatMap(({ tensors }) => tensors);
  // Norms between the parts, then what the parts have beside their matrices: biases, norms of heads.
  const between = parts.filter(({ tensors }) => !tensors.some(isMatrix));
  const within = parts.filter((part) => !between.includes(part));
  const ordered = [
    ...tensorsOf(parts).filter(isMatrix),
    ...tensorsOf([...between, ...within]).filter((tensor) => !isMatrix(tensor)),
  ];
  const block: ParameterBlock = {
    kind,
    name,
    index: 0,
    layer,
    chain: chain([]),
    products: parts.flatMap(({ products }) => products),
    tensors: [],
    groups: new Map(),
    length: 0,
    count: 0,
  };
  let end = 0;
  for (const { name: tensorName, group: groupName, shape } of ordered) {
    const count = elementCount(shape);
    let group = block.groups.get(groupName);
    if (!group) block.groups.set(groupName, (group = { offset: align(end), count: 0 }));
    assert(group.count === 0 || group.offset + group.count === end, `group ${groupName} of ${name} is not contiguous`);
    const offset = group.offset + group.count;
    block.tensors.push({ name: prefix + tensorName, shape, offset, count, group: groupName });
    group.count += count;
    block.count += count;
    end = offset + count;
  }
  block.length = align(end);
  return block;
}

/** Parameters of the model; a tied matrix counts once. */
export function parameterCount(blocks: readonly ParameterBlock[]): number {
  return blocks.reduce((sum, block) => sum + block.count, 0);
}

/** The group's range; our own mistake if the block has none. */
export function groupOf(block: ParameterBlock, name: string): ParameterGroup {
  const group = block.groups.get(name);
  assert(group, `${block.name} has no group ${name}`);
  return group;
}

/** Where the block holds no tensor: the padding behind its groups. */
export function paddingOf(block: ParameterBlock): ParameterGroup[] {
  const groups = [...block.groups.values()];
  const ends = groups.map(({ offset, count }) => offset + count);
  const starts = [...groups.slice(1).map(({ offset }) => offset), block.length];
  return ends.map((offset, index) => ({ offset, count: starts[index]! - offset })).filter(({ count }) => count > 0);
}

/** The element behind the block's matrices, where its vectors begin; the block's length when it has none. */
export function vectorsOffset(block: ParameterBlock): number {
  const first = block.tensors.find(({ shape }) => shape.length === 1);
  return first ? groupOf(block, first.group).offset : block.length;
}

// ---- the check before loading ---------------------------------------------------------------------------------------

/** Tensors that published models carry and that are not parameters: rotary tables of old Llama exports. */
const notParameters = /\.rotary_emb\.inv_freq$/;

/**
 * Every parameter is in the files with its shape, and the files hold nothing else. Returns the names of tensors that
 * are there and will not be read: `lm_head.weight` of a tied model (a copy of the embedding, see open.ts) and rotary tables.
 */
export function checkTensors(config: DecoderConfig, model: ModelTensors): string[] {
  const expected = parameterBlocks(config).flatMap((block) => block.tensors);
  const missing = expected.filter((tensor) => !model.tensors.has(tensor.name));
  if (missing[0]) throw new ModelError(explainMissing(config, model, missing));
  for (const { name, shape } of expected) {
    const found = model.tensors.get(name);
    if (found && found.shape.join() !== shape.join())
      throw new ModelError(
        `${found.file}: tensor ${name} has the shape [${found.shape.join(", ")}], config.json asks for [${shape.join(", ")}]`,
      );
  }
  const known = new Set(expected.map((tensor) => tensor.name));
  const ignored: string[] = [];
  for (const [name, { file }] of model.tensors) {
    if (known.has(name)) continue;
    if (!notParameters.test(name) && !(config.tied && name === lmHead))
      throw new ModelError(
        `${file}: tensor ${name} belongs to no part of a ${config.modelType} model with ${config.layers} layers as config.json describes it`,
      );
    ignored.push(name);
  }
  return ignored;
}

function explainMissing(config: DecoderConfig, model: ModelTensors, missing: ParameterTensor[]): string {
  const first = missing[0]?.name ?? "";
  const rest = missing.length > 1 ? ` and ${missing.length - 1} more` : "";
  const message = `${model.directory}: the weights lack tensor ${first}${rest}, which ${config.modelType} with ${config.layers} layers needs`;
  if (first === lmHead && missing.length === 1)
    return `${message}; if the LM head is the embedding, config.json must say "tie_word_embeddings": true`;
  if (model.tensors.has(first.replace(/^model\./, "")))
    return `${message}; the files hold the bare model without its LM head (names lack "model."), save the ForCausalLM model`;
  return message;
}
