// How config.json says rotary positions, in both dialects: `rope_parameters`, or `rope_theta` with `rope_scaling`.

import type { ConfigFields } from "./fields.ts";
import type { RopeConfig } from "./parts/rope.ts";

/** `rope_parameters`, or `rope_theta` with `rope_scaling`, or all of them if they agree. */
export function readRope(fields: ConfigFields, maxPositions: number, thetaDefault = 10_000): RopeConfig {
  const theta = fields.positive("rope_theta", thetaDefault);
  const topLevelGiven = fields.value("rope_theta") !== undefined && fields.value("rope_theta") !== null;
  // Phi-like configs put this outside the rope object; transformers then prefers it.
  const original = fields.integerOrNull("original_max_position_embeddings", null);
  const found: { key: string; rope: RopeConfig }[] = [];
  for (const key of ["rope_parameters", "rope_scaling"]) {
    const rope = fields.object(key);
    if (rope) found.push({ key, rope: readRopeObject(rope, theta, original ?? maxPositions) });
  }
  const first = found[0];
  if (!first) {
    if (original !== null)
      fields.fail("original_max_position_embeddings", "has no effect without a llama3 rope_type; remove it");
    return { type: "default", theta };
  }
  const second = found[1];
  if (second && JSON.stringify(first.rope) !== JSON.stringify(second.rope))
    fields.fail("rope_scaling", "disagrees with rope_parameters; keep one of them");
  if (topLevelGiven && first.rope.theta !== theta)
    fields.fail(
      "rope_theta",
      `(${theta}) disagrees with ${first.key}.rope_theta (${first.rope.theta}); keep one of them`,
    );
  if (original !== null && original !== first.rope.originalMaxPositions)
    fields.fail("original_max_position_embeddings", `(${original}) disagrees with ${first.key}; keep one of them`);
  return first.rope;
}

/** One rope object; what it does not say takes the other arguments. */
export function readRopeObject(rope: ConfigFields, theta: number, originalMaxPositions: number): RopeConfig {
  const type = rope.string("rope_type", rope.string("type", "default"));
  const older = rope.string("type", type);
  if (older !== type) rope.fail("type", `("${older}") disagrees with rope_type ("${type}"); keep one of them`);
  if (type !== "default" && type !== "linear" && type !== "llama3")
    rope.fail("rope_type", `${JSON.stringify(type)} is not supported; supported: default, linear, llama3`);
  const config: RopeConfig = { type, theta: rope.positive("rope_theta", theta) };
  const partial = rope.positive("partial_rotary_factor", 1);
  if (partial !== 1) rope.fail("partial_rotary_factor", `must be 1 (was ${partial}): Sluice rotates whole heads`);
  if (type !== "default") config.factor = rope.positive("factor");
  if (config.factor !== undefined && config.factor < 1)
    rope.fail("factor", `must be at least 1 (was ${config.factor})`);
  if (type === "llama3") {
    config.lowFrequencyFactor = rope.positive("low_freq_factor");
    config.highFrequencyFactor = rope.positive("high_freq_factor");
    config.originalMaxPositions = rope.integer("original_max_position_embeddings", originalMaxPositions);
    if (config.highFrequencyFactor <= config.lowFrequencyFactor)
      rope.fail(
        "high_freq_factor",
        `must be above low_freq_factor, ${config.lowFrequencyFactor} (was ${config.highFrequencyFactor})`,
      );
  }
  const [unknown] = rope.unread();
  if (unknown !== undefined) rope.fail(unknown, `is not supported for rope_type "${type}"`);
  return config;
}
