// What follows from a list of parts: each op makes and reads what its part declares, and a model may be made of layers that
// differ in kind and size.

import { describe, expect, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { forwardBlock, recomputeBlock, type BlockContext } from "../../src/models/block.ts";
import { modelTypes } from "../../src/models/index.ts";
import { parameterBlocks, type ParameterBlock } from "../../src/models/parameters.ts";
import { activationSizes, keepLevels, opsAgain, opsOf, scratchSizes } from "../../src/models/parts/chain.ts";
import { Weights } from "../../src/models/weights.ts";
import { totalBytes } from "../../src/plan/layout.ts";
import { Plan, Range, accesses, type Command } from "../../src/plan/plan.ts";
import { describeModel, rehearse, rehearsedShape } from "../../src/predict/rehearsal.ts";
import { checkPlans } from "../../src/plan/check/check.ts";
import { memoryBill } from "../../src/step/bill.ts";
import { keptBytes, type StepShape } from "../../src/tiers/shape.ts";
import { randomCase, recordAll } from "./cases.ts";

const sizes = { layers: 2, vocabulary: 100, hidden: 32, intermediate: 48, heads: 2, kvHeads: 1, headDim: 16 };
const configOf = (modelType: string) => describeModel({ ...sizes, modelType, tied: false });
const tokens = 7;

describe.each(modelTypes)("%s", (modelType) => {
  const block = parameterBlocks(configOf(modelType))[1]!;
  const { chain } = block;
  let handle = 0;
  const buffer = (name: string, bytes: number) => new Range({ handle: ++handle, name, tier: "device", bytes });
  const ints = buffer("ints", 64);
  const batch = { tokens, documents: 1, starts: ints, positions: ints, validRows: 0, rowIndex: null, targets: null };
  const activations = activationSizes(chain, tokens, "bfloat16");
  const scratch = scratchSizes(chain, tokens, "bfloat16");
  const [x, y] = [buffer("input", tokens * 64), buffer("output", tokens * 64)];
  const context: Omit<BlockContext, "plan"> = {
    dtype: "bfloat16",
    tokensMax: tokens,
    weights: new Weights(block, buffer("weights", block.length * 2), 2),
    keep: "recompute",
    kept: null,
    activations: buffer("activations", totalBytes(activations)),
    scratch: buffer("scratch", totalBytes(scratch)),
    rotaryTable: ({ headDim }) => buffer("table", tokens * headDim * 4),
  };

  /** Keys of the values that a command touches, by where they lie. */
  function touched(command: Command, wanted: "read" | "write"): string[] {
    const keys = [...accesses(command)].flatMap(({ access, range }) => {
      if (access !== wanted) return [];
      if (range.buffer.name === "input") return ["input"];
      if (range.buffer.name === "output") return [`${chain.links.length - 1}.out`];
      const places = { activations, scratch }[range.buffer.name];
      let offset = 0;
      for (const [key, bytes] of Object.entries(places ?? {})) {
        if (range.offset === offset) return [key];
        offset += bytes;
      }
      return [];
    });
    return keys.sort();
  }

  function expectDeclared(plan: Plan, ops: ReturnType<typeof opsAgain>): void {
    expect(plan.commands.length).toBe(ops.length);
    for (const [index, { link, op }] of ops.entries()) {
      const command = plan.commands[index]!;
      expect([command.op, touched(command, "write")]).toEqual([command.op, op.makes.map(link.key).sort()]);
      expect([command.op, touched(command, "read")]).toEqual([command.op, op.reads.map(link.key).sort()]);
    }
  }

  test("every op makes and reads what its part says", () => {
    const plan = new Plan({ step: 1, phase: "forward" });
    forwardBlock({ ...context, plan }, x, y, batch);
    expectDeclared(plan, opsOf(chain.links));
  });

  test.each(keepLevels)("what is computed again beside %p has all it reads", (level) => {
    const kept = new Set(["input", ...keptKeys(level)]);
    for (const { link, op } of opsAgain(chain, level)) {
      for (const name of op.reads) expect(kept).toContain(link.key(name));
      for (const name of op.makes) kept.add(link.key(name));
    }
    for (const { key } of chain.values) expect(kept).toContain(key);
    const plan = new Plan({ step: 1, phase: "backward" });
    if (level === "recompute") {
      recomputeBlock({ ...context, plan }, x, batch);
      expectDeclared(plan, opsAgain(chain, level));
    }
    if (level === "all") expect(opsAgain(chain, level)).toEqual([]);
  });

  const keptKeys = (level: (typeof keepLevels)[number]): string[] => {
    const costs = ["attention", "product", "cheap"].slice(0, keepLevels.indexOf(level));
    return chain.values.filter(({ cost }) => costs.includes(cost)).map(({ key }) => key);
  };
});

describe("layers that differ", () => {
  /** Wide and narrow, with and without norms of heads and biases, in turn. */
  function mixedBlocks(): ParameterBlock[] {
    const kinds = [
      configOf("qwen3"),
      { ...configOf("llama"), intermediate: 112, heads: 4 },
      { ...configOf("qwen2"), kvHeads: 2, slidingWindows: [5, 5] },
    ].map((config) => parameterBlocks(config));
    const layers = Array.from({ length: 6 }, (_, layer): ParameterBlock => {
      const block = kinds[layer % 3]![1]!;
      const tensors = block.tensors.map((tensor) => ({ ...tensor, name: tensor.name.replace(".0.", `.${layer}.`) }));
      return { ...block, tensors, name: `layer ${layer}`, index: layer + 1, layer };
    });
    const [embedding, head] = [kinds[0]![0]!, kinds[0]!.at(-1)!];
    return [embedding, ...layers, { ...head, index: 7 }];
  }

  const blocks = mixedBlocks();
  const model = { ...configOf("qwen3"), layers: 6 };

  test(
    "slots and workspace are the largest's, and every plan keeps the rules",
    () => {
      for (let seed = 1; seed <= 12; seed++) {
        const chosen = randomCase(seed);
        const { slots, boundary, residentBlocks, ring, dtype, clips, passes, microBatches, chunkParameters } = chosen;
        const all = { slots, boundary, dtype, clips, passes, microBatches, chunkParameters, tokensMax: 64 };
        const shape: StepShape = {
          ...rehearsedShape(model, { ...all, residentBlocks: Math.min(residentBlocks, 6), logitsChunk: 16 }),
          keep: ["attention", "all", "products", "recompute", "all"],
          blocks,
        };
        if (clips !== "exact") shape.ring = ring;
        const recorder = rehearse(shape);
        const found = checkPlans(recordAll(chosen, recorder), { shape, recorder }).map(
          ({ rule, message }) => `rule ${rule}: ${message}`,
        );
        expect([seed, found.slice(0, 3)]).toEqual([seed, []]);
      }
      const bill = memoryBill({ ...rehearsedShape(model, { tokensMax: 64 }), blocks });
      const longest = Math.max(...blocks.slice(1, -1).map(({ length }) => length));
      expect(bill.find(({ name }) => name === "slot 0")!.bytes).toBe(longest * 2);
    },
    patiently(60_000),
  );

  test("a layer's kept bytes are its own", () => {
    const shape = { ...rehearsedShape(model, { tokensMax: 64 }), blocks };
    const each = [0, 1, 2].map((layer) => keptBytes(shape, layer, "products"));
    expect(each).toEqual([
      64 * (2 * (64 + 32 + 32 + 96) + 4 * 2), // q|k|v, heads, sum, gate|up; log-sum-exp
      64 * (2 * (96 + 64 + 32 + 224) + 4 * 4),
      64 * (2 * (96 + 32 + 32 + 96) + 4 * 2),
    ]);
  });
});
