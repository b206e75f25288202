// Whole training runs for tests: a fixture model, a few lines of data, a config that takes a second, and no printing.

import { spyOn } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TrainConfig } from "../../src/index.ts";
import { fixtures, temporaryDirectory } from "./models.ts";

export interface SmallRun extends Disposable {
  /** A new directory, removed when the scope ends. */
  path: string;
  /** Six steps on the fixture; a test adds to it. */
  config: TrainConfig;
  /** What was printed so far. */
  printed(): string;
}

/** A small run in a directory of its own; what it prints is kept instead of shown. */
export function smallRun(name = "qwen3-tiny"): SmallRun {
  const directory = temporaryDirectory();
  const data = join(directory.path, "data.jsonl");
  writeFileSync(data, conversations(40));
  const lines: string[] = [];
  const log = spyOn(console, "log").mockImplementation((...values: unknown[]) => void lines.push(values.join(" ")));
  const write = spyOn(process.stdout, "write").mockImplementation((text) => lines.push(String(text)) > 0);
  return {
    path: directory.path,
    config: {
      model: join(fixtures, name),
      data,
      output: join(directory.path, "run"),
      steps: 6,
      sequenceLength: 64,
      batchSize: 2,
      workers: 1,
    },
    printed: () => lines.join("\n"),
    [Symbol.dispose]() {
      log.mockRestore();
      write.mockRestore();
      directory[Symbol.dispose]();
    },
  };
}

/** JSONL with `count` short conversations. */
export function conversations(count: number): string {
  const lines = Array.from({ length: count }, (_, index) => ({
    messages: [
      { role: "user", content: `What follows ${index}?` },
      { role: "assistant", content: `${index + 1} follows.` },
    ],
  }));
  return lines.map((line) => `${JSON.stringify(line)}\n`).join("");
}
