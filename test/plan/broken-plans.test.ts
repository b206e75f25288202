// Each rule catches what breaks it: a clean pair of steps is recorded, one thing in it is changed, and the rule that
// should see it must be among the violations. What a plan checker misses here it would miss in a real mistake.

import { describe, expect, test } from "bun:test";
import { checkPlans } from "../../src/plan/check/check.ts";
import { accesses, describeCommand, Plan, Range, type Command } from "../../src/plan/plan.ts";
import type { OpName } from "../../src/native/abi.gen.ts";
import { rehearse } from "../../src/predict/rehearsal.ts";
import type { RecordedStep, StepRecorder } from "../../src/step/step.ts";
import { recordAll, shapeOf, type PlanCase } from "./cases.ts";

const base: PlanCase = {
  seed: 4,
  modelType: "qwen3",
  tied: false,
  layers: 3,
  dtype: "bfloat16",
  slots: 2,
  boundary: "pinned",
  keepBlocks: 1,
  keepLevels: ["all"],
  residentBlocks: 0,
  ring: 2,
  clips: false,
  passes: 1,
  microBatches: 2,
  chunkParameters: 4096,
  logitsChunk: 32,
  steps: 2,
  evaluations: 0,
};
const clipping: PlanCase = { ...base, clips: "exact", ring: 3 };
const tied: PlanCase = { ...base, tied: true };

interface Recorded {
  steps: RecordedStep[];
  recorder: StepRecorder;
  /** The commands of the first and the second step. */
  first: Command[];
  second: Command[];
}

function record(chosen: PlanCase): Recorded {
  const recorder = rehearse(shapeOf(chosen));
  const steps = recordAll(chosen, recorder);
  return { steps, recorder, first: steps[0]!.plan.commands, second: steps[1]!.plan.commands };
}

const rulesOf = ({ steps, recorder }: Recorded): number[] => [
  ...new Set(checkPlans(steps, { shape: recorder.shape, recorder }).map(({ rule }) => rule)),
];

/** Records, breaks, checks. */
function broken(rule: number, what: string, chosen: PlanCase, mutate: (recorded: Recorded) => void): void {
  test(`rule ${rule}: ${what}`, () => {
    const recorded = record(chosen);
    expect(rulesOf(recorded)).toEqual([]);
    mutate(recorded);
    expect(rulesOf(recorded)).toContain(rule);
  });
}

/** The first command of this op for which `which` holds, by default any. */
function find(commands: readonly Command[], op: OpName, which: (command: Command) => boolean = () => true): Command {
  const found = commands.find((command) => command.op === op && which(command));
  if (!found) throw new Error(`the plan has no such ${op}`);
  return found;
}

const touches = (buffer: string) => (command: Command) =>
  [...accesses(command)].some(({ range }) => range.buffer.name.startsWith(buffer));
const inLayer = (block: number) => (command: Command) => command.label.block === block;
const change = (command: Command, fields: Record<string, unknown>): void =>
  void Object.assign(command.arguments, fields);
const set = (command: Command, fields: Partial<Command>): void => void Object.assign(command, fields);
/** What is left of a command that was forgotten: its place in the plan. */
const forget = (command: Command): void => set(command, { op: "zero", arguments: { to: null } as never });
const rangeOf = (command: Command, field: string): Range =>
  (command.arguments as unknown as Record<string, Range>)[field]!;

describe("order of streams", () => {
  broken(1, "compute does not wait for a slot's upload", base, ({ first }) =>
    set(find(first, "rmsnormForward"), { waits: [] }),
  );
  broken(1, "a slot is filled while compute still reads it", base, ({ first }) =>
    set(
      find(first, "copy", (command) => touches("slot 0")(command) && inLayer(2)(command)),
      { waits: [] },
    ),
  );
  broken(1, "a gradient is updated before it has landed", base, ({ first }) => {
    const update = find(first, "adamw", inLayer(2));
    const landed = update.waits.filter((event) => first[event - first[0]!.id]?.stream === "download");
    set(update, { waits: update.waits.filter((event) => !landed.includes(event)) });
  });
  broken(1, "a slot of the ring is filled before its last gradient is updated", base, ({ first }) => {
    const [, , third] = ["ring 0", "ring 1", "ring 0"].map((name, index) =>
      find(first, "copy", (command) => touches(name)(command) && inLayer(2 - index)(command)),
    );
    set(third!, { waits: third!.waits.filter((event) => first[event - first[0]!.id]?.stream !== "host") });
  });
  broken(1, "the next step's upload does not wait for the update", base, ({ second }) =>
    set(find(second, "copy", touches("layer 0.hi")), { waits: [] }),
  );
  broken(
    1,
    "a boundary's buffer is used again before it is stored",
    { ...base, layers: 3, microBatches: 1 },
    ({ first }) => {
      const stores = new Set(
        first
          .filter((command) => command.op === "copy" && touches("boundaries")(command) && command.stream === "download")
          .map(({ id }) => id),
      );
      for (const command of first)
        if (command.stream !== "host") set(command, { waits: command.waits.filter((event) => !stores.has(event)) });
    },
  );
  broken(1, "two commands of a stream change places", base, ({ first }) => {
    const index = first.findIndex(({ op }) => op === "swigluForward");
    const [one, other] = [first[index]!, first[index + 1]!];
    const { op, arguments: values } = one;
    set(one, { op: other.op, arguments: other.arguments, waits: [] });
    set(other, { op, arguments: values, stream: "upload" });
  });
  broken(1, "results are read before they are there", base, ({ steps }) =>
    Object.assign(steps[0]!, { measured: steps[0]!.plan.commands[0]!.id }),
  );
  broken(1, "inputs are staged while the step still reads them", { ...base, steps: 3 }, ({ steps }) =>
    Object.assign(steps[0]!, {
      measured: find(steps[0]!.plan.commands, "embeddingGather").id,
      inputsFree: steps[0]!.plan.commands[0]!.id,
    }),
  );
  broken(3, "a command waits for a later one", base, ({ first }) => {
    const command = find(first, "linearForward");
    set(command, { waits: [command.id + 5] });
  });
  broken(3, "a command waits for itself", base, ({ first }) => set(first[3]!, { waits: [first[3]!.id] }));
  broken(3, "a step is measured by an event of another plan", base, ({ steps }) =>
    Object.assign(steps[0]!, { measured: steps[1]!.measured }),
  );
});

describe("weights", () => {
  broken(2, "the wrong layer is uploaded", base, ({ first, recorder }) => {
    const upload = find(first, "copy", touches("layer 1.hi"));
    const from = rangeOf(upload, "from");
    change(upload, { from: recorder.buffers.range("layer 2.hi", from.offset, from.bytes) });
  });
  broken(2, "a chunk of an upload is forgotten", base, ({ first }) =>
    forget(find(first, "copy", touches("layer 0.hi"))),
  );
  broken(2, "a chunk is put at the wrong place", base, ({ first }) => {
    const [one, other] = first.filter((command) => command.op === "copy" && touches("layer 0.hi")(command));
    const bytes = Math.min(rangeOf(one!, "to").bytes, rangeOf(other!, "to").bytes);
    change(one!, { to: rangeOf(other!, "to").slice(0, bytes), from: rangeOf(one!, "from").slice(0, bytes) });
  });
  broken(4, "a slot keeps the weights of the step before", { ...base, layers: 1, keepBlocks: 0 }, ({ second }) => {
    for (const command of second) if (command.op === "copy" && touches("layer 0.hi")(command)) forget(command);
  });
  broken(4, "rows are gathered from an embedding that is half updated", base, ({ first }) =>
    forget(find(first, "adamwRows")),
  );
  broken(4, "a layer is updated before its backward", { ...base, residentBlocks: 3 }, ({ first }) => {
    const gather = find(first, "rmsnormForward", ({ label }) => label.phase === "forward" && label.block === 1);
    const update = find(first, "adamw", inLayer(1));
    const { op, arguments: values } = update;
    set(update, { op: gather.op, arguments: gather.arguments });
    set(gather, { op, arguments: values });
  });
});

describe("gradients and updates", () => {
  const micro = (microBatch: number) => (command: Command) =>
    command.label.microBatch === microBatch && command.label.phase === "backward";
  const backward = "linearBackwardWeight";
  broken(5, "the second micro-batch overwrites the gradient of the first", base, ({ first }) =>
    change(find(first, backward, micro(1)), { accumulate: 0 }),
  );
  broken(5, "the first micro-batch adds to the gradient of the layer before", base, ({ first }) =>
    change(
      find(first, backward, (command) => micro(0)(command) && inLayer(1)(command)),
      { accumulate: 1 },
    ),
  );
  broken(5, "a micro-batch is left out", base, ({ first }) => forget(find(first, backward, micro(1))));
  broken(5, "a micro-batch is added twice", base, ({ first }) => {
    const one = find(first, backward, micro(1));
    const after = first[first.indexOf(one) + 1]!;
    set(after, { op: one.op, arguments: one.arguments });
  });
  broken(5, "a chunk is updated twice", base, ({ first }) => {
    const [one, other] = first.filter(({ op }) => op === "adamw");
    set(other!, { arguments: one!.arguments });
  });
  broken(5, "a chunk is never updated", base, ({ first }) => forget(find(first, "adamw")));
  broken(5, "an update takes another block's gradient", base, ({ first }) => {
    const [one, other] = [find(first, "adamw", inLayer(2)), find(first, "adamw", inLayer(1))];
    change(other, { gradient: rangeOf(one, "gradient").slice(0, rangeOf(other, "gradient").bytes) });
  });
  broken(5, "moments are those of another chunk", base, ({ first }) => {
    const [one, other] = first.filter((command) => command.op === "adamw" && inLayer(1)(command));
    const bytes = rangeOf(one!, "m").bytes;
    change(one!, {
      m: new Range(
        rangeOf(other!, "m").buffer,
        rangeOf(other!, "m").offset,
        Math.min(bytes, rangeOf(other!, "m").bytes),
      ),
    });
  });
  broken(5, "the rows of a micro-batch do not come down", base, ({ first }) =>
    forget(find(first, "copy", touches("embedding.dRows"))),
  );
  broken(5, "a pass is left out of the sum", { ...base, passes: 2 }, ({ first }) =>
    forget(find(first, "accumulate", ({ label }) => label.pass === 1)),
  );
  broken(5, "a pass overwrites the sum", { ...base, passes: 2 }, ({ first }) =>
    change(
      find(first, "accumulate", ({ label }) => label.pass === 1),
      { accumulate: 0 },
    ),
  );
  broken(6, "an update scales by the other step's factor", clipping, ({ second, recorder }) =>
    change(find(second, "adamw"), {
      factor: new Range(recorder.buffers.get("results.0"), rangeOf(find(second, "clipFactor"), "factor").offset, 16),
    }),
  );
  broken(
    6,
    "an update takes this step's factor where the last one's is meant",
    { ...base, clips: "previous" },
    ({ second, recorder }) =>
      change(find(second, "adamw"), {
        factor: new Range(recorder.buffers.get("results.1"), rangeOf(find(second, "clipFactor"), "factor").offset, 16),
      }),
  );
  broken(6, "the factor is not kept for the next step", { ...base, clips: "previous" }, ({ first }) =>
    forget(find(first, "copy", touches("previous factors"))),
  );
  broken(6, "a part of the norm stays that of the step before last", { ...clipping, steps: 3 }, ({ steps }) =>
    forget(find(steps[2]!.plan.commands, "copy", touches("norms"))),
  );
  broken(6, "a part of the norm is measured before the gradient is complete", clipping, ({ first }) => {
    const norm = find(first, "squaredNorm");
    const cast = first[first.indexOf(norm) - 1]!;
    const { op, arguments: values } = norm;
    set(norm, { op: cast.op, arguments: cast.arguments });
    set(cast, { op, arguments: values });
  });
  broken(6, "the norm leaves out a part", clipping, ({ first }) => {
    const clip = find(first, "clipFactor");
    change(clip, { parts: (clip.arguments as unknown as { parts: number }).parts - 1 });
  });
  broken(7, "the head's gradient does not reach the touched rows", tied, ({ first }) =>
    forget(find(first, "embeddingAddTied")),
  );
  broken(7, "the head's gradient does not reach the other rows", tied, ({ first }) =>
    change(find(first, "adamwOtherRows"), { gradient: null }),
  );
  broken(7, "the other rows are updated twice", tied, ({ first }) => {
    const [others, touched] = [find(first, "adamwOtherRows"), find(first, "adamwRows")];
    set(touched, { op: others.op, arguments: others.arguments });
  });
});

describe("boundaries and places", () => {
  const upload = (command: Command): boolean => command.stream === "upload" && command.label.phase === "backward";
  broken(8, "another micro-batch's boundary comes back", base, ({ first }) => {
    const fetched = first.filter(
      (command) => upload(command) && touches("hidden")(command) && touches("boundaries")(command),
    );
    const one = fetched[0]!;
    const other = fetched.find(
      ({ label }) => label.block === one.label.block && label.microBatch !== one.label.microBatch,
    )!;
    const bytes = Math.min(rangeOf(one, "from").bytes, rangeOf(other, "from").bytes);
    change(one, { from: rangeOf(other, "from").slice(0, bytes), to: rangeOf(one, "to").slice(0, bytes) });
  });
  broken(8, "a boundary is not stored", base, ({ first }) =>
    forget(find(first, "copy", (command) => command.stream === "download" && touches("boundaries")(command))),
  );
  broken(8, "a boundary is not brought back", base, ({ first }) =>
    forget(first.findLast((command) => upload(command) && touches("boundaries")(command))!),
  );
  broken(
    8,
    "a layer's input on the device is overwritten by the next micro-batch",
    { ...base, boundary: "device" },
    ({ first }) => {
      const [one, other] = [0, 1].map((microBatch) =>
        find(
          first,
          "linearForward",
          (command) => command.label.microBatch === microBatch && touches("boundaries")(command) && inLayer(0)(command),
        ),
      );
      const bytes = Math.min(rangeOf(one!, "y").bytes, rangeOf(other!, "y").bytes);
      change(other!, { y: rangeOf(one!, "y").slice(0, bytes) });
    },
  );
  broken(8, "kept activations are another micro-batch's", base, ({ first }) => {
    const swiglu = find(
      first,
      "swigluForward",
      (command) => touches("kept")(command) && command.label.microBatch === 1,
    );
    change(swiglu, { y: rangeOf(find(first, "swigluForward", touches("kept")), "y") });
  });
  broken(9, "a buffer is not on the bill", base, ({ first }) =>
    change(find(first, "swigluForward"), {
      y: new Range({ handle: 999, name: "surprise", tier: "device", bytes: 1 << 20 }),
    }),
  );
  broken(9, "a buffer is larger than the bill says", base, ({ first, recorder }) => {
    const { handle, name, tier, bytes } = recorder.buffers.get("rope table");
    change(find(first, "qkRopeForward"), { table: new Range({ handle, name, tier, bytes: bytes * 2 }) });
  });
  broken(9, "a buffer of the bill is never used", base, ({ steps }) => {
    for (const { plan } of steps) for (const command of plan.commands) if (touches("kept")(command)) forget(command);
  });
  broken(9, "a slot is still held at the end", base, ({ recorder }) =>
    recorder.window.fetch(new Plan({ step: 3, phase: "forward" }), [0]),
  );
  broken(9, "hidden states are still held at the end", base, ({ recorder }) => {
    recorder.boundaries.begin({ tokens: [16], store: true });
    recorder.boundaries.embed(new Plan({ step: 3, phase: "embed" }), 0);
  });
});

describe("inside a block, every one of them", () => {
  const [layer, microBatch] = [1, 1];
  const ofBlock = (commands: readonly Command[]): Command[] =>
    commands.filter(
      ({ stream, label }) => stream === "compute" && label.block === layer && label.microBatch === microBatch,
    );
  type Mutate = (command: Command, block: Command[], index: number, plan: readonly Command[]) => boolean;
  /** Plays `mutate` on each command of a block, forward and backward, and lists those of which no rule says anything. */
  function missed(chosen: PlanCase, mutate: Mutate): string[] {
    const recorder = rehearse(shapeOf(chosen));
    const steps = recordAll({ ...chosen, steps: 1 }, recorder);
    expect(checkPlans(steps, { shape: recorder.shape })).toEqual([]);
    const { commands } = steps[0]!.plan;
    const block = ofBlock(commands);
    return block.flatMap((command, index) => {
      const before = block.map(({ op, arguments: values }) => ({ op, arguments: { ...values } as never }));
      const is = mutate(command, block, index, commands) && checkPlans(steps, { shape: recorder.shape }).length === 0;
      for (const [at, old] of before.entries()) set(block[at]!, old);
      return is ? [describeCommand(command)] : [];
    });
  }
  /** What one writes and the other touches. */
  const meets = (one: Command, other: Command): boolean =>
    [...accesses(one)].some((a) =>
      [...accesses(other)].some(
        (b) =>
          (a.access !== "read" || b.access !== "read") &&
          a.range.buffer === b.range.buffer &&
          a.range.offset < b.range.offset + b.range.bytes &&
          b.range.offset < a.range.offset + a.range.bytes,
      ),
    );

  /** Whether somebody reads what a command writes there. */
  const isRead = (commands: readonly Command[], { id }: Command, { buffer, offset, bytes }: Range): boolean => {
    for (const later of commands.filter((command) => command.id > id))
      for (const { access, range } of accesses(later))
        if (range.buffer === buffer && range.offset < offset + bytes && offset < range.offset + range.bytes)
          return access !== "write";
    return false;
  };

  for (const [what, chosen] of [
    ["kept", { ...base, keepBlocks: 3 }],
    ["computed again", { ...base, keepBlocks: 0 }],
    ["products kept, as llama", { ...base, keepBlocks: 3, keepLevels: ["products"], modelType: "llama" }],
  ] as [string, PlanCase][]) {
    test(`a command is forgotten, ${what}`, () => {
      expect(missed(chosen, (command) => (forget(command), true))).toEqual([]);
    });
    test(`two commands that meet change places, ${what}`, () => {
      const swap = (command: Command, block: Command[], index: number): boolean => {
        const next = block[index + 1];
        if (!next || !meets(command, next)) return false;
        const { op, arguments: values } = command;
        set(command, { op: next.op, arguments: next.arguments });
        set(next, { op, arguments: values });
        return true;
      };
      expect(missed(chosen, swap)).toEqual([]);
    });
    test(`a range lies 64 bytes further or is shorter, ${what}`, () => {
      const given = new Set(["starts", "positions", "table"]); // what no op of a plan makes
      for (const shift of [64, -2])
        for (let field = 0; field < 10; field++) {
          const change = (command: Command, _: Command[], __: number, plan: readonly Command[]): boolean => {
            const all = [...accesses(command)].filter((one) => !given.has(one.field));
            const one = all[field];
            if (!one) return false;
            const { buffer, offset, bytes } = one.range;
            if (shift > 0 && one.access === "write" && !isRead(plan, command, one.range)) return false;
            if (shift > 0 && offset + shift + bytes > buffer.bytes) return false;
            const range =
              shift > 0 ? new Range(buffer, offset + shift, bytes) : new Range(buffer, offset, bytes + shift);
            Object.assign(command.arguments, { [one.field]: range });
            return true;
          };
          expect(missed(chosen, change)).toEqual([]);
        }
    });
  }

  test("an upload takes weights 64 bytes further inside its block", () => {
    const recorded = record(base);
    const upload = find(recorded.first, "copy", (command) => touches("layer 1.hi")(command) && inLayer(1)(command));
    const from = rangeOf(upload, "from");
    change(upload, {
      from: new Range(from.buffer, from.offset + 64, from.bytes - 64),
      to: rangeOf(upload, "to").slice(0, from.bytes - 64),
    });
    expect(rulesOf(recorded)).toContain(2);
  });
  broken(12, "the gradient of an update is cut short", base, ({ first }) => {
    const update = find(first, "adamw");
    change(update, { gradient: rangeOf(update, "gradient").slice(0, rangeOf(update, "gradient").bytes - 64) });
  });
  broken(13, "a product reads what another product of the block reads", base, ({ first }) => {
    const products = ofBlock(first).filter(({ op }) => op === "linearBackwardWeight");
    const [gateUp, output] = [products[1]!, products[2]!];
    change(gateUp, { x: rangeOf(output, "x") });
  });
});

test("rule 5: with clipping, a ring smaller than the model loses gradients before their update", () => {
  expect(rulesOf(record({ ...clipping, ring: 2 }))).toContain(5); // config.ts refuses this; the recorder does not
});

test("a violation names the commands and the bytes", () => {
  const recorded = record(base);
  set(find(recorded.first, "rmsnormForward"), { waits: [] });
  const [violation] = checkPlans(recorded.steps, { shape: recorded.recorder.shape });
  expect(violation!.message).toMatch(
    /^nothing orders these two on \S+\[\d+\.\.\d+\]:\n {2}\d+ upload copy .*\n {2}\d+ compute rmsnormForward \(step 1 forward block 0 micro-batch 0\)/,
  );
  expect(violation!.commands.map(({ op }) => op)).toEqual(["copy", "rmsnormForward"]);
});
