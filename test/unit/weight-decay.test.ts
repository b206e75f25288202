import { expect, test } from "bun:test";
import { weightDecays } from "../../src/state/weight-decay.ts";

const tensors = [
  { name: "model.embed_tokens.weight", shape: [512, 64] },
  { name: "model.layers.0.self_attn.q_proj.weight", shape: [64, 64] },
  { name: "model.layers.0.self_attn.q_proj.bias", shape: [64] },
  { name: "model.norm.weight", shape: [64] },
];
const optimizer = { learningRate: 1, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, state: "fp32" as const };
const decaysWith = (groups: { match: string; weightDecay: number }[]) => [
  ...weightDecays({ ...optimizer, weightDecayGroups: groups }, tensors).values(),
];

test("matrices decay and vectors do not", () => {
  expect([...weightDecays(optimizer, tensors).values()]).toEqual([0.1, 0.1, 0, 0]);
});

test("the first matching group counts", () => {
  expect(decaysWith([{ match: "*embed*", weightDecay: 0 }])).toEqual([0, 0.1, 0, 0]);
  expect(
    decaysWith([
      { match: "*.bias", weightDecay: 0.3 },
      { match: "model.layers.*", weightDecay: 0.2 },
    ]),
  ).toEqual([0.1, 0.2, 0.3, 0]);
});

test("only * is special", () => {
  expect(decaysWith([{ match: "model.norm.weight", weightDecay: 0.5 }])).toEqual([0.1, 0.1, 0, 0.5]);
  expect(() => decaysWith([{ match: "model?norm.weight", weightDecay: 0 }])).toThrow(
    'optimizer.weightDecayGroups[0].match matches no tensor of the model (was "model?norm.weight"); ' +
      'names look like "model.embed_tokens.weight", and * stands for any characters',
  );
});
