// The command line as a person meets it, in processes of its own: exit codes, messages, what is printed into a pipe, what
// lies in the run directory afterwards, and Ctrl-C.

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { listCheckpoints } from "../../src/keep/checkpoint.ts";
import { trainConfig } from "../../src/cli/train.ts";
import { load } from "../../src/engine/model.ts";
import {
  ended,
  filesIn,
  lines,
  makeRecipe,
  outcome,
  root,
  startTraining,
  tinyModel,
  type Ended,
} from "../support/crash.ts";
import { fixtures, temporaryDirectory } from "../support/models.ts";

setDefaultTimeout(patiently(30_000)); // other processes may want the cores too
const scope = new DisposableStack();
afterAll(() => scope.dispose());
const directory = scope.use(temporaryDirectory()).path;
const recipe = makeRecipe(directory);
const heldOut = String(recipe.evaluationData);

/** Runs a program of the repository. */
async function script(file: string, args: readonly string[], input = ""): Promise<Ended> {
  const child = Bun.spawn([process.execPath, join(root, file), ...args], {
    env: process.env,
    cwd: directory,
    stdin: new Blob([input]),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [output, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code, signal: child.signalCode, output, errors };
}
const sluice = (...args: string[]): Promise<Ended> => script("src/cli.ts", args);

const failed = (message: string): Ended => ({ code: 1, signal: null, output: "", errors: `${message}\n` });

describe("sluice", () => {
  test.each([[["--help"]], [["help"]], [[]]])("%j prints the help", async (args) => {
    const { code, output, errors } = await sluice(...args);
    expect([code, errors]).toEqual([0, ""]);
    for (const command of ["train", "evaluate", "generate"]) expect(output).toContain(`  sluice ${command} `);
  });

  const wrong: [args: string[], message: string][] = [
    [["trian"], 'sluice has no command "trian" (did you mean train?); see sluice --help'],
    [["dance"], 'sluice has no command "dance"; see sluice --help'],
    [["train", "model"], '"model" is no flag; write --KEY VALUE, see sluice train --help'],
    [["train", "--steps"], "--steps needs a value"],
    [["train", "--steps", "--model", "x"], "--steps needs a value"],
    [["train", "--model", "x", "--output", "y"], "data is missing; it must be a path, or a list of paths and sources"],
    [
      ["train", "--model=x", "--data=y", "--output=z", "--optimizer.lr=1"],
      "optimizer.lr is not a known key; did you mean optimizer.learningRate?",
    ],
    [["evaluate", "x"], "sluice evaluate needs a model and at least one data file"],
    [["evaluate", "x", "y", "--loss", "some"], "--loss must be assistant or last or completion or all (was some)"],
    [["evaluate", tinyModel, heldOut, "--sequenceLength", "many"], '--sequenceLength must be a number (was "many")'],
    [["evaluate", tinyModel, heldOut, "--sequenceLength", "1"], "sequenceLength must be a whole number >= 2 (was 1)"],
    [["generate"], "MODEL is missing; give a Hugging Face directory or hub id"],
    [["generate", "x", "--dtype", "float16"], "--dtype must be float32 or bfloat16 (was float16)"],
    [
      ["generate", "x", "--deviceMemory", "big"],
      '--deviceMemory must be a size such as "24GiB" or "512MiB" (was "big")',
    ],
    [["generate", tinyModel, "A", "--maxTokens", "0"], "maxTokens must be a whole number >= 1 (was 0)"],
    [
      ["generate", tinyModel, "A", "--topP", "0.5"],
      "topP (0.5) has no effect at temperature 0, which is greedy; set a temperature",
    ],
  ];
  test.each(wrong)("%j", async (args, message) => {
    expect(await sluice(...args)).toEqual(failed(message));
  });

  test("an unknown flag", async () => {
    const { code, errors } = await sluice("generate", tinyModel, "--topK", "3");
    expect(code).toBe(1);
    expect(errors).toStartWith("Unknown option '--topK'");
  });
});

describe("flags of train", () => {
  test("numbers, words, groups, lists; a flag goes before the file, null included", async () => {
    const file = join(directory, "flags.json");
    writeFileSync(
      file,
      JSON.stringify({ model: "of the file", maxGradNorm: 1, window: { slots: 2, ring: 1 }, data: "a" }),
    );
    const text =
      "--maxGradNorm null --config FILE --window.slots=all --data b --data c --optimizer.learningRate 1e-4 --model m";
    const config = await trainConfig(text.replace("FILE", file).split(" "), { output: "o", checkpoint: { keep: 3 } });
    expect(config).toEqual({
      model: "m",
      data: ["b", "c"],
      output: "o",
      maxGradNorm: null,
      window: { slots: "all", ring: 1 },
      optimizer: { learningRate: 1e-4 },
      checkpoint: { keep: 3 },
    });
  });

  test("a config in TypeScript, and files that are none", async () => {
    const write = (name: string, text: string): string => {
      writeFileSync(join(directory, name), text);
      return join(directory, name);
    };
    const typed = write("typed.ts", "export default { steps: 3 as number };");
    expect(await trainConfig(["--config", typed])).toEqual({ steps: 3 } as never);
    const empty = write("empty.ts", "export const config = {};");
    await expect(trainConfig(["--config", empty])).rejects.toThrow(
      `--config ${empty} has no config; JSON, or a TypeScript file with a default export, was expected`,
    );
    await expect(trainConfig(["--config", "nowhere.json"])).rejects.toThrow(/^--config nowhere\.json: /);
  });
});

describe("sluice train", () => {
  const output = join(directory, "run");
  const file = join(directory, "recipe.json");
  writeFileSync(file, JSON.stringify({ ...recipe, output, checkpoint: { every: 2 } }));
  const args = ["train", "--config", file, "--evaluation.every", "3", "--logging.every", "2"];

  test("leaves metrics, checkpoints and a model that loads", async () => {
    const run = await sluice(...args, "--steps", "6");
    expect([run.code, run.errors]).toEqual([0, ""]);
    expect(run.output).not.toContain("\x1b");
    expect(run.output).not.toContain("\r");
    expect<string[] | null>(run.output.match(/^step \d\/6/gm)).toEqual([
      "step 1/6",
      "step 2/6",
      "step 4/6",
      "step 6/6",
    ]);
    expect<string[] | null>(run.output.match(/^evaluation after step \d/gm)).toEqual(
      [0, 3, 6].map((step) => `evaluation after step ${step}`),
    );
    expect(run.output).toContain("\nmemory bill: ");
    expect(run.output).toEndWith(`\nmodel: ${join(output, "model")}\n`);

    expect(lines(join(output, "loss.csv"))[0]).toBe("step,loss,learningRate,gradNorm,tokensPerSecond");
    expect(lines(join(output, "loss.csv")).map((line) => line.split(",")[0])).toEqual(["step", ..."123456"]);
    const metrics = lines(join(output, "metrics.jsonl")).map((line) => JSON.parse(line));
    expect(metrics.map(({ kind, step }) => kind[0] + step).join(" ")).toBe("e0 s1 s2 s3 e3 s4 s5 s6 e6");
    expect(metrics.at(-1).loss).toBeLessThan(metrics[0].loss);
    for (const { kind, loss, tokens, validTokens } of metrics) {
      expect(loss).toBeGreaterThan(0);
      if (kind === "step") expect(validTokens).toBeLessThan(tokens); // prompts do not count
    }
    expect(listCheckpoints(join(output, "checkpoints")).map((path) => path.slice(-2))).toEqual(["06", "04"]);
    expect(filesIn(join(output, "model"))).toEqual([
      ".sluice",
      ..."chat_template.jinja config.json config.legacy.json generation_config.json model.safetensors".split(" "),
      ..."reference.json tokenizer.json tokenizer_config.json".split(" "),
    ]);
    using trained = await load(join(output, "model"));
    using untrained = await load(tinyModel);
    const asked = ["red green", "one"];
    expect(await trained.generate(asked, { maxTokens: 4 })).not.toEqual(
      await untrained.generate(asked, { maxTokens: 4 }),
    );
  });

  test("continues with resume true, and says so", async () => {
    const more = await sluice(...args, "--steps", "8", "--checkpoint.resume", "true");
    expect([more.code, more.errors]).toEqual([0, ""]);
    expect(more.output).toContain("\nresumed after step 6\n");
    expect(lines(join(output, "loss.csv")).map((line) => line.split(",")[0])).toEqual(["step", ..."12345678"]);
  });

  test("resume true needs a checkpoint, auto does not", async () => {
    const elsewhere = ["--output", join(directory, "fresh"), "--steps", "2", "--checkpoint.resume"];
    const needs = await sluice(...args, ...elsewhere, "true");
    expect(needs.code).toBe(1);
    expect(needs.errors).toBe(`${join(directory, "fresh/checkpoints")} has no checkpoint to resume from\n`);
    const auto = await sluice(...args, ...elsewhere, "auto");
    expect([auto.code, auto.errors]).toEqual([0, ""]);
    expect(auto.output).not.toContain("resumed");
  });
});

describe("Ctrl-C", () => {
  test("saves after the step in hand and ends with 130; the resumed run ends like one that nobody stopped", async () => {
    const long = { ...recipe, steps: 80, evaluation: {}, logging: { every: 1 }, checkpoint: { every: null, keep: 1 } };
    const config = { ...long, output: join(directory, "stopped"), checkpoint: { ...long.checkpoint, resume: "auto" } };
    const undisturbed = ended(startTraining({ ...long, output: join(directory, "whole") }));

    const run = startTraining(config);
    let output = "";
    let asked = false;
    for await (const piece of run.stdout.pipeThrough(new TextDecoderStream())) {
      output += piece;
      if (asked || !output.includes("\nstep  3/80")) continue;
      run.kill("SIGINT");
      asked = true;
    }
    const errors = await run.stderr.text();
    expect(await run.exited).toBe(130);
    expect(output).toContain("finishing the step in hand and saving; Ctrl-C again within two seconds stops at once\n");
    const [checkpoint] = listCheckpoints(join(config.output, "checkpoints"));
    const step = Number(checkpoint!.slice(-6));
    expect(step).toBeWithin(3, 80);
    const where = join(config.output, "checkpoints");
    expect(errors).toBe(
      `interrupted after step ${step} of 80, which is saved in ${where}; go on with checkpoint.resume: true (--resume)\n`,
    );
    expect(filesIn(config.output)).not.toContain("model/config.json");

    const rest = await ended(startTraining(config));
    expect([rest.code, rest.errors]).toEqual([0, ""]);
    expect(rest.output).toContain(`\nresumed after step ${step}\n`);
    expect((await undisturbed).code).toBe(0);
    expect(outcome(config.output)).toEqual(outcome(join(directory, "whole")));
  });
});

describe("sluice evaluate", () => {
  test("prints loss and perplexity, for people and as JSON", async () => {
    const [plain, json] = await Promise.all([
      sluice("evaluate", tinyModel, heldOut),
      sluice("evaluate", tinyModel, heldOut, "--json", "--sequenceLength", "64", "--deviceMemory", "4MiB"),
    ]);
    expect([plain.code, plain.errors, json.code, json.errors]).toEqual([0, "", 0, ""]);
    const { loss, perplexity, validTokens } = JSON.parse(json.output);
    expect(perplexity).toBeCloseTo(Math.exp(loss), 9);
    expect(loss).toBeWithin(6, 7); // of 512 tokens nothing is known: log 512 is 6.24
    expect(plain.output).toBe(`loss ${loss.toFixed(4)}  perplexity ${perplexity.toFixed(3)}  ${validTokens} tokens\n`);
  });
});

describe("sluice generate", () => {
  const { prompts, models } = JSON.parse(readFileSync(join(fixtures, "../generation.json"), "utf8"));
  const asked = prompts.slice(1, 3) as string[];
  const answers = models["qwen3-tiny"].slice(1, 3).map(({ answer }: { answer: string }) => answer) as string[];

  test("answers arguments, or lines of the standard input", async () => {
    const [given, read] = await Promise.all([
      sluice("generate", tinyModel, ...asked, "--maxTokens", "40"),
      script("src/cli.ts", ["generate", tinyModel, "--maxTokens=40"], `${asked[0]}\n\n${asked[1]}`),
    ]);
    expect(given).toEqual({
      code: 0,
      signal: null,
      output: answers.map((answer) => `${answer}\n`).join(""),
      errors: "",
    });
    expect(read).toEqual(given);
  });

  test("--json, --chat, and a seed that draws the same again", async () => {
    const json = await sluice("generate", tinyModel, ...asked, "--maxTokens", "40", "--json");
    expect(JSON.parse(json.output)).toEqual(asked.map((prompt, index) => ({ prompt, answer: answers[index] })));
    const sampled = (...more: string[]): Promise<Ended> =>
      sluice("generate", tinyModel, "Hello", "--maxTokens", "8", "--temperature", "1", ...more);
    const [chat, again, other] = await Promise.all([
      sampled("--chat", "--seed", "5"),
      sampled("--chat", "--seed", "5"),
      sampled(),
    ]);
    expect([chat.code, chat.errors]).toEqual([0, ""]);
    expect(again).toEqual(chat);
    expect(other.output).not.toBe(chat.output);
  });
});

describe("train.ts", () => {
  const train = (...args: string[]): Promise<Ended> => script("train.ts", args);

  test("--model and --data fine-tune that, with any key of the config; a second call finds it done", async () => {
    const args = ["--model", tinyModel, "--data", String(recipe.data), "--steps", "2", "--sequenceLength", "32"];
    const run = await train(...args);
    expect([run.code, run.errors]).toEqual([0, ""]);
    using model = await load(join(directory, "runs/train/model"));
    expect(model.config.layers).toBe(4);
    expect((await train(...args)).output).toContain("\nresumed after step 2\n");
  });

  test("one without the other", async () => {
    expect(await train("--model", tinyModel)).toEqual(
      failed("data is missing; it must be a path, or a list of paths and sources"),
    );
    expect(await train("--data", "x.jsonl")).toEqual(failed("model is missing; it must be a non-empty string"));
  });
});
