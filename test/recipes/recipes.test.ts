// Every recipe runs as people start it, on a tiny model and for a few steps; is one short file; and opens by saying what
// it does, on which hardware, how long it takes and which loss to expect.

import { expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { inspect } from "../../src/keep/inspect.ts";
import { fixtures, temporaryDirectory } from "../support/models.ts";
import { conversations } from "../support/small-run.ts";

setDefaultTimeout(patiently(60_000));

const recipes = join(import.meta.dir, "../../recipes");
const model = join(fixtures, "qwen3-tiny");
const small = ["--model", model, "--workers", "1", "--sequenceLength", "64", "--batchSize", "2"];

interface Case {
  /** Given a directory with data.jsonl and held-out.jsonl, which is also where it runs. */
  args(directory: string): string[];
  /** What it prints. */
  prints: RegExp;
  /** The model directory it leaves. */
  leaves?: string;
}

const data = (directory: string) => [
  "--data",
  join(directory, "data.jsonl"),
  "--evaluationData",
  join(directory, "held-out.jsonl"),
];

const cases: Record<string, Case> = {
  "chat.ts": {
    args: (directory) => [...small, ...data(directory), "--steps", "4", "--evaluation.every", "2"],
    prints: /held-out loss [\d.]+ → [\d.]+ in 4 steps\n[\d.]+ % of the held-out answers are right/,
    leaves: "runs/chat/model",
  },
  "csv.ts": {
    args(directory) {
      const rows = [
        'id,"the question",answer',
        '1,"What, exactly?","He said ""yes""."',
        '2,"Two\nlines",No.',
        "3,Why?,",
      ];
      writeFileSync(join(directory, "table.csv"), rows.join("\r\n"));
      return ["table.csv", "the question", "answer", ...small, "--epochs", "1"];
    },
    prints: /What, exactly\? → /,
    leaves: "runs/csv/model",
  },
  "evaluate.ts": {
    args: (directory) => [join(directory, "held-out.jsonl"), model],
    prints: /perplexity +exact +model\n +[\d.]+ +[\d.]+ +0.0 % .*qwen3-tiny/,
  },
  "generate.ts": {
    args: (directory) => [model, join(directory, "held-out.jsonl"), "answers.jsonl"],
    prints: /[1-4]\/4 {2}What follows 0\? → /,
  },
  "own-loop.ts": {
    args: (directory) => [...small, ...data(directory), "--microBatchTokens", "64", "--steps", "20"],
    prints: /step 20 {2}loss [\d.]+ [^]*saved as runs\/own-loop\/checkpoints\/step-000020/,
    leaves: "runs/own-loop/model",
  },
  "pretrain.ts": {
    args(directory) {
      mkdirSync(join(directory, "texts/deep"), { recursive: true });
      writeFileSync(join(directory, "texts/a.txt"), "The quick brown fox. ".repeat(20));
      writeFileSync(join(directory, "texts/deep/b.md"), "# Two\n\nAnother text.\n");
      writeFileSync(join(directory, "texts/c.png"), "not a text");
      return ["texts", ...small, "--steps", "2"];
    },
    prints: /2 files of texts/,
    leaves: "runs/pretrain/model",
  },
  "sweep.ts": {
    args: (directory) => [...small, ...data(directory), "--steps", "2"],
    prints: /held-out loss {2}learning rate {2}model\n( +[\d.]+ +\de-\d|.*\n)+/,
    leaves: "runs/sweep/0.001/model",
  },
};

test("each recipe has a case here", () => {
  expect(
    readdirSync(recipes)
      .filter((name) => name.endsWith(".ts"))
      .sort(),
  ).toEqual(Object.keys(cases).sort());
});

for (const [name, { args, prints, leaves }] of Object.entries(cases)) {
  test(`${name} is one short file that says hardware, time and expected loss`, () => {
    const text = readFileSync(join(recipes, name), "utf8");
    expect(text.trimEnd().split("\n").length).toBeLessThanOrEqual(60);
    const opening = text.slice(0, text.indexOf("\nimport "));
    expect(opening).toMatch(/Hardware and time: two cores, \d/);
    expect(opening).toMatch(/Expected: .*|No loss:/);
    expect(opening).toMatch(/\bloss\b/);
  });

  test(`${name} runs`, async () => {
    using directory = temporaryDirectory();
    writeFileSync(join(directory.path, "data.jsonl"), conversations(24));
    writeFileSync(join(directory.path, "held-out.jsonl"), conversations(4));
    const child = Bun.spawn([process.execPath, join(recipes, name), ...args(directory.path)], {
      env: process.env,
      cwd: directory.path,
      stdout: "pipe",
      stderr: "pipe",
    });
    const [out, error, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    expect({ error, code }).toEqual({ error: "", code: 0 });
    expect(out).toMatch(prints);
    if (leaves === undefined) return;
    expect(existsSync(join(directory.path, leaves))).toBe(true);
    expect(await inspect(join(directory.path, leaves))).toMatchObject({ kind: "model", problems: [] });
  });
}
