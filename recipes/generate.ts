// Generate in a loop: sample several answers to each question, keep the one most often given, and write all of them down.
// The model is loaded once; each turn answers a batch, for a batch costs hardly more than a single question.
//
//   bun recipes/generate.ts                                    the quick start's questions, with runs/chat if it is there
//   bun recipes/generate.ts MODEL QUESTIONS.jsonl OUT.jsonl    lines with "messages" that end with the answer to be given
//
// Hardware and time: two cores, 2 s for 16 questions with 4 answers each, from a model of 1.2 million parameters.
// Expected: after recipes/chat.ts most answers agree with each other; before it none is right. No loss: nothing is learned.
import { appendFileSync, existsSync, readFileSync, rmSync } from "node:fs";
import { makeQuickstart } from "../scripts/quickstart.ts";
import { load, run } from "../src/index.ts";

const samples = 4;
const batch = 8;

await run(async () => {
  const [directory, file, out = "runs/answers.jsonl"] = process.argv.slice(2);
  const made = await makeQuickstart("runs/made", { seed: 1 });
  const trained = existsSync("runs/chat/model") ? "runs/chat/model" : made.model;
  const lines = readFileSync(file ?? made.heldout, "utf8")
    .trim()
    .split("\n")
    .slice(0, 16);
  const questions = lines.map(
    (line) => (JSON.parse(line) as { messages: { role: string; content: string }[] }).messages,
  );
  rmSync(out, { force: true });

  using model = await load(directory ?? trained);
  for (let first = 0; first < questions.length; first += batch) {
    const prompts = questions.slice(first, first + batch).map((messages) => messages.slice(0, -1));
    const asked = prompts.flatMap((prompt) => Array<typeof prompt>(samples).fill(prompt));
    const answers = await model.generate(asked, { maxTokens: 16, temperature: 0.7, topP: 0.95, seed: first + 1 });
    for (const [index, prompt] of prompts.entries()) {
      const own = answers.slice(index * samples, (index + 1) * samples);
      const counts = Map.groupBy(own, (answer) => answer);
      const [answer, same] = [...counts].sort(([, a], [, b]) => b.length - a.length)[0]!;
      const question = prompt.at(-1)!.content;
      appendFileSync(out, `${JSON.stringify({ question, answer, agree: same.length / samples, answers: own })}\n`);
      console.log(`${same.length}/${samples}  ${question} → ${answer}`);
    }
  }
});
