// Which tensor decays how much: the groups of the recipe first, then the rule that matrices decay and vectors (norm
// scales, biases) do not.

import type { ParameterBlock } from "../models/parameters.ts";
import type { StateFormat } from "./format.ts";
import { assert, ConfigError } from "../words/errors.ts";

/** What a recipe says of it. */
export interface WeightDecay {
  weightDecay: number;
  /** Exceptions: the first whose pattern matches a tensor's name decides. */
  weightDecayGroups?: readonly { match: string; weightDecay: number }[];
}

/** What a config says of the optimizer. */
export interface OptimizerConfig extends WeightDecay {
  learningRate: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  state: StateFormat;
}

/** The weight decay of each tensor by its Hugging Face name; a group that matches no tensor is refused. */
export function weightDecays(
  { weightDecay, weightDecayGroups = [] }: WeightDecay,
  tensors: Iterable<{ name: string; shape: readonly number[] }>,
): Map<string, number> {
  const groups = weightDecayGroups.map((group) => ({ ...group, pattern: globPattern(group.match), used: false }));
  const decays = new Map<string, number>();
  for (const { name, shape } of tensors) {
    const matching = groups.filter(({ pattern }) => pattern.test(name));
    for (const group of matching) group.used = true;
    decays.set(name, matching[0]?.weightDecay ?? (shape.length >= 2 ? weightDecay : 0));
  }
  const idle = groups.findIndex(({ used }) => !used);
  if (idle !== -1)
    throw new ConfigError(
      `optimizer.weightDecayGroups[${idle}].match matches no tensor of the model (was ${JSON.stringify(groups[idle]!.match)}); ` +
        `names look like ${JSON.stringify([...decays.keys()][0])}, and * stands for any characters`,
    );
  return decays;
}

/** Elements of a block that decay alike. */
export interface DecayRun {
  offset: number;
  count: number;
  weightDecay: number;
}

/**
 * The block as consecutive ranges of equal weight decay, padding included; together they cover it exactly. `decays`
 * has every tensor's weight decay by name.
 */
export function decayRuns(block: ParameterBlock, decays: ReadonlyMap<string, number>): DecayRun[] {
  const runs: DecayRun[] = [];
  for (const [index, tensor] of block.tensors.entries()) {
    const weightDecay = decays.get(tensor.name);
    assert(weightDecay !== undefined, `${tensor.name} has no weight decay`);
    const next = block.tensors[index + 1]?.offset ?? block.length;
    const last = runs.at(-1);
    if (last?.weightDecay === weightDecay) last.count += next - tensor.offset;
    else runs.push({ offset: tensor.offset, count: next - tensor.offset, weightDecay });
  }
  return runs;
}

/** `*` stands for any characters, everything else for itself. */
function globPattern(glob: string): RegExp {
  const literal = glob.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${literal.join(".*")}$`);
}
