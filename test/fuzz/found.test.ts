// What fuzzing has found, so that it stays found: each was a crash, a hang, a wrong result or an error with a stack.

import { describe, expect, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { cpSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { trainConfig } from "../../src/cli/train.ts";
import { checkState } from "../../src/data/batches.ts";
import { readRecords } from "../../src/data/read/files.ts";
import { loadTokenizer } from "../../src/data/text/tokenizer.ts";
import { ConfigError, DataError, ModelError, NativeError, SluiceError } from "../../src/words/errors.ts";
import { readDecoderConfig } from "../../src/models/config.ts";
import { Engine } from "../../src/native/runtime.ts";
import { Plan, type Command } from "../../src/plan/plan.ts";
import { fixtures, readJson, temporaryDirectory } from "../support/models.ts";

const tiny = join(fixtures, "qwen3-tiny");

describe("names that all objects have", () => {
  test("as a flag they changed every object of the process", async () => {
    for (const flag of ["--a.__proto__.b", "--optimizer.__proto__.lr"])
      await expect(trainConfig([flag, "1"])).rejects.toThrow(new ConfigError(`${flag} is no key of the config`));
    expect(Object.keys(Object.prototype)).toEqual([]);
    expect(await trainConfig(["--constructor.prototype.b", "1"])).toEqual({
      constructor: { prototype: { b: 1 } },
    } as never);
  });

  test("and in a config file, too", async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, "config.json");
    writeFileSync(path, '{"model": "m", "optimizer": {"__proto__": {"b": 1}}}');
    await expect(trainConfig(["--optimizer.epsilon", "1", "--config", path])).rejects.toThrow(ConfigError);
    expect(Object.keys(Object.prototype)).toEqual([]);
  });

  test("in config.json they were taken for keys with a list of values", () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, "config.json");
    writeFileSync(path, JSON.stringify({ ...readJson(join(tiny, "config.json")), constructor: 1 }));
    expect(() => readDecoderConfig(path)).toThrow(
      new ModelError(`${path}: constructor is a key Sluice does not know; remove it if it changes nothing`),
    );
  });
});

describe("tokenizer.json", () => {
  interface Json {
    model: { vocab: Record<string, unknown> };
    added_tokens: unknown[];
  }
  const changed = (change: (tokenizer: Json) => void, model = tiny) => {
    const directory = temporaryDirectory();
    cpSync(model, directory.path, { recursive: true });
    const path = join(directory.path, "tokenizer.json");
    const value = readJson(path) as unknown as Json;
    change(value);
    writeFileSync(path, JSON.stringify(value));
    return { directory, path };
  };

  test("an id of two billion made the library fill a table for minutes", async () => {
    const { directory, path } = changed(({ model }) => (model.vocab["a"] = 2 ** 31));
    using _ = directory;
    await expect(loadTokenizer(directory.path)).rejects.toThrow(
      new ModelError(
        `${path}: the id of "a" is 2147483648, not a whole number below 16777216; copy the file from the original model again`,
      ),
    );
  });

  test("a begin-of-text token that the vocabulary lacks became token 0", async () => {
    const llama = join(fixtures, "../tokenizer-llama3");
    const { directory, path } = changed((tokenizer) => {
      tokenizer.added_tokens = (tokenizer.added_tokens as { content: string }[]).filter(
        ({ content }) => content !== "<|begin_of_text|>",
      );
    }, llama);
    using _ = directory;
    writeFileSync(join(directory.path, "tokenizer_config.json"), "{}");
    await expect(loadTokenizer(directory.path)).rejects.toThrow(
      new ModelError(
        `${path}: says that "<|end_of_text|>" has the id 1531, but behind the other tokens it gets 1530; ` +
          "copy the tokenizer's files from the original model again",
      ),
    );
  });

  test("added tokens that are none", async () => {
    const { directory, path } = changed(({ added_tokens: added }) => void added.push({ id: 3, content: null }));
    using _ = directory;
    await expect(loadTokenizer(directory.path)).rejects.toThrow(
      `${path}: added_tokens holds {"id":3,"content":null}, which is no token`,
    );
  });
});

test("a position behind the end of the data was gone on from", () => {
  const now = { seed: 1, sequenceLength: 8, data: "x", epoch: 0, row: 0 };
  for (const wrong of [{ row: -1 }, { row: 0.5 }, { epoch: 2 ** 40 }, { epoch: null }, { part: "1" }])
    expect(() => checkState({ ...now, ...(wrong as object) }, now)).toThrow(DataError);
});

test("messages quoted megabytes of what was wrong, and bytes that steer a terminal", () => {
  const { message } = new SluiceError(`x ${"y".repeat(1e6)} \x1b[2J\x07 end\nnext`);
  expect(message.length).toBeLessThan(5000);
  expect(message).toStartWith("x yyy");
  expect(message).toEndWith(" \\x1b[2J\\x07 end\nnext");
});

describe("plans that the decoder let through", () => {
  const refused = (record: (plan: Plan, engine: Engine) => void, change?: (commands: Command[]) => void): string => {
    using engine = new Engine({ device: "null", workers: 1 });
    const plan = new Plan({ step: 0, phase: "load" });
    record(plan, engine);
    change?.(plan.commands);
    try {
      engine.submit(plan);
    } catch (error) {
      expect(error).toBeInstanceOf(NativeError);
      return (error as Error).message.replace(/command \d+/, "command N");
    }
    throw new Error("was accepted");
  };
  const host = (engine: Engine) => engine.buffer("host", 4096, "bytes");

  test("a file where memory is meant, and the other way round", () => {
    const file = (engine: Engine) => engine.file("/dev/zero", "read", 4096);
    expect(refused((plan, engine) => plan.record("disk", "zero", { to: file(engine).range() }))).toBe(
      "command N: zero.to is /dev/zero, which is a file",
    );
    expect(refused((plan, engine) => plan.record("disk", "fileSync", { file: host(engine).range() }))).toBe(
      "command N: file_sync.file is bytes, which is no file",
    );
    const noPlace = (plan: Plan, engine: Engine) => {
      const checksum = engine.buffer("host", 64, "checksum").range(0, 4);
      plan.record("disk", "fileRead", { to: host(engine).range(), file: file(engine).range(), checksum });
    };
    expect(refused(noPlace)).toBe("command N: file_read.checksum has 4 bytes, which are no whole elements of 8");
  });

  test("a copy to bytes that it reads", () => {
    const overlapping = (plan: Plan, engine: Engine) => {
      const bytes = host(engine);
      plan.record("host", "copy", { to: bytes.range(64, 1024), from: bytes.range(0, 1024) });
    };
    expect(refused(overlapping)).toBe("command N: copy.to and from overlap");
  });

  test("a count of elements beyond all bytes ran for ever on the null device", async () => {
    using engine = new Engine({ device: "null", workers: 1 });
    const [to, hi, lo] = ["to", "hi", "lo"].map((name) => engine.buffer("host", 4096, name).range());
    const plan = new Plan({ step: 0, phase: "load" });
    plan.record("host", "joinWeights", { to: to!, hi: hi!, lo: lo!, count: 2 ** 52 });
    await expect(engine.play(plan)).rejects.toThrow("join_weights.to has 4096 bytes, it needs 18014398509481984");
  });
});

const endlessParquet =
  "UEFSMRUEFZYBFX5MFQIVAAAAS5hHAAAAW3sicm9sZSI6InVzZXIiLCJjb250ZW50IjoiSMOpPyJ9LHsRISRhc3Npc3RhbnQiMiYA" +
  "EGkuIn1dFQYVCBUMXKAEFQAVBBUQFQQVAAAAAwMCBAADFQQZLEgEcm9vdBUCABUMJQIYCG1lc3NhZ2VzJSYAFgQZHBkcJggcFQwZ" +
  "JQAQGRgIbWVzc2FnZXMVAhYEFuQBFtABJqIBJggcNgAoR1t7InJvbGUiOiJ1c2VyIiwiY29udGVudCI6IkjDqT8ifSx7InJvbGUi" +
  "OiJhc3Npc3RhbjUiLCJjb250ZW50IjoiSGkuIn1dGEdbeyJyb2xlIjoidXNlciIsImNvbnRlbnQiOiJIw6k/In0seyJyb2xlIjoi" +
  "YXNzaXN0YW50IiwiY29udGVudCI6IkhpLiJ9XQAZLBUEFQAVAgAVBhUQFQIAAAAW5AEWBDbQAQAoCWh5cGFycXVldBkcHAAAAAkB" +
  "AABQQVIx";

test(
  "a Parquet file whose reader never ends is given up",
  async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, "data.parquet");
    // Found by the target parquet, seed 1908564313: a bit-packed run of a negative number of values.
    writeFileSync(path, Buffer.from(endlessParquet, "base64"));
    const reading = Array.fromAsync(readRecords(path));
    await expect(reading).rejects.toThrow(
      new DataError(`${path}: cannot be read as Parquet (takes longer than 5 s); write the file again`),
    );
  },
  patiently(60_000),
);
