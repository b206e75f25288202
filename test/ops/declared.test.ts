// What every op declares of its ranges and scalars, held against it: the call that keeps to it plays, and each call that
// does not is refused by name before it plays, or ends with a sentence. Nothing here may end the process.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { dtypes, ops, type OpName } from "../../src/native/abi.gen.ts";
import { Engine, type NativeBuffer } from "../../src/native/runtime.ts";
import { Plan, Range } from "../../src/plan/plan.ts";
import { SluiceError } from "../../src/words/errors.ts";
import { declaredCall, fieldsOf, indexesOf, opNames, type Arguments } from "../support/declared.ts";
import { temporaryDirectory } from "../support/models.ts";

const arenaBytes = 1 << 16;
const directory = temporaryDirectory();
afterAll(() => directory[Symbol.dispose]());

const snake = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** An engine with an arena that is zero but for the indexes of a call. */
class Bench {
  readonly engine: Engine;
  readonly arena: NativeBuffer;
  readonly file: NativeBuffer;

  constructor(device: "cpu" | "null") {
    this.engine = new Engine({ device, workers: 2 });
    this.arena = this.engine.buffer("host", arenaBytes, "arena");
    const path = join(directory.path, device);
    writeFileSync(path, new Uint8Array(64));
    this.file = this.engine.file(path, "read", 64);
  }

  /** A call that plays. */
  call(op: OpName): Arguments {
    return declaredCall(op, this.arena, this.file);
  }

  /** The refusal or failure, or undefined. */
  async play(op: OpName, args: Arguments, indexes = indexesOf): Promise<string | undefined> {
    if (this.engine.device === "cpu") {
      const bytes = this.arena.view();
      new Uint8Array(bytes).fill(0);
      for (const name in args) {
        const values = indexes(op, name, args);
        if (values) new Int32Array(bytes, (args[name] as Range).offset, values.length).set(values);
      }
    }
    const plan = new Plan({ step: 1, phase: "forward" });
    plan.record(op.startsWith("file") ? "disk" : "compute", op, args as never);
    try {
      await this.engine.play(plan);
      return undefined;
    } catch (error) {
      if (error instanceof SluiceError && error.message !== "") return error.message;
      throw error;
    }
  }
}

for (const device of ["cpu", "null"] as const)
  describe(device, () => {
    let bench: Bench;
    beforeAll(() => void (bench = new Bench(device)));
    afterAll(() => bench.engine.close());

    for (const op of opNames.filter((name) => name !== "fileWrite" && name !== "fileSync"))
      describe(op, () => {
        test("plays as declared", async () => {
          expect(await bench.play(op, bench.call(op))).toBeUndefined();
        });

        const lengths = Object.entries(ops[op].lengths);
        test.each(lengths)("%s of another length", async (field, { any, optional, says }) => {
          const args = bench.call(op);
          const range = args[field] as Range;
          // What has its length from this range is then the one that does not fit.
          const others = lengths.filter(([, { says }]) => says.split(" ")[0] === field).map(([name]) => name);
          const named = [field, ...others].map((name) => `${snake(op)}\\.${snake(name)}`).join("|");
          const refused = new RegExp(
            `^command \\d+: (${named}) (has \\d+ bytes, (it needs \\d+|which are no whole)|is missing)`,
          );
          const free = any && others.length === 0;
          const changes = [says === "any of byte" && free ? [] : -1, free ? [] : [-8, 8], optional ? [] : -range.bytes];
          for (const change of changes.flat()) {
            const bytes = range.bytes + change;
            if (bytes < 0 || range.offset + bytes > range.buffer.bytes) continue;
            const other = { ...args, [field]: new Range(range.buffer, range.offset, bytes) };
            expect(await bench.play(op, other)).toMatch(refused);
          }
        });

        const scalars = fieldsOf(op).filter(({ kind }) => kind !== "range");
        test.each(scalars)("hostile values of $name", async ({ name, kind }) => {
          const values = {
            dtype: Object.keys(dtypes),
            u32: [0, 1, 2, 5, 7, 2 ** 16, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1],
            u64: [0, 1, 36, 2 ** 32, 2 ** 53, 2 ** 61, 2 ** 62, 2 ** 63, 2 ** 64 - 2 ** 12],
            float: [0, -1, 1e38, -1e38, Infinity, NaN],
            range: [],
          }[kind];
          for (const value of values) {
            const ending = await bench.play(op, { ...bench.call(op), [name]: value });
            if (kind === "u64") expect(ending).toMatch(/it needs|would need/);
            if (kind === "u32" && Number(value) >= 2 ** 31) expect(ending).toMatch(/the limit is 2147483647/);
          }
        });

        if (device === "cpu")
          test("indexes of nothing", async () => {
            for (const value of [-1, -(2 ** 31), 5, 64, 2 ** 31 - 1])
              for (const at of [0, 1, "last"] as const)
                await bench.play(op, bench.call(op), (...of) => {
                  const indexes = indexesOf(...of);
                  indexes?.fill(value, at === "last" ? -1 : at, at === "last" ? undefined : at + 1);
                  return indexes;
                });
          });
      });

    test("what is written lies beside what else an op is given", async () => {
      const args = bench.call("swigluForward");
      const { buffer, offset } = args["gateUp"] as Range;
      const y = new Range(buffer, offset + 64, (args["y"] as Range).bytes);
      expect(await bench.play("swigluForward", { ...args, y })).toMatch(/swiglu_forward\.y and gate_up overlap$/);
    });

    test("a need is told with its values", async () => {
      const args = { ...bench.call("attentionForward"), heads: 3, kvHeads: 2 };
      const [tokens, headDim] = [6, 8];
      const bytes = { out: tokens * 3 * headDim, lse: 3 * tokens, qk: tokens * 5 * headDim, qkv: tokens * 7 * headDim };
      let offset = 1024;
      for (const [name, count] of Object.entries(bytes)) {
        Object.assign(args, { [name]: bench.arena.range(offset, count * 4) });
        offset += Math.ceil((count * 4) / 64) * 64;
      }
      expect(await bench.play("attentionForward", args)).toMatch(
        /attention_forward needs heads % kv_heads == 0: heads is 3 kv_heads is 2$/,
      );
    });
  });
