// Which tensor decays how much: the groups of the recipe first, then the rule that matrices decay and vectors (norm
// scales, biases) do not.

import type { Config } from "../run/config.ts";
import { ConfigError } from "../words/errors.ts";

/** The weight decay of each tensor by its Hugging Face name; a group that matches no tensor is refused. */
export function weightDecays(
  { weightDecay, weightDecayGroups = [] }: Config["optimizer"],
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

/** `*` stands for any characters, everything else for itself. */
function globPattern(glob: string): RegExp {
  const literal = glob.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${literal.join(".*")}$`);
}
