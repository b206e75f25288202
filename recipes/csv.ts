// Fine-tune on a spreadsheet: a CSV with a column of questions and a column of answers, of which the answers are learned.
//
//   bun recipes/csv.ts                                         recipes/plurals.csv, 131 nouns and their plurals
//   bun recipes/csv.ts FILE QUESTION_COLUMN ANSWER_COLUMN --model DIR|HUB_ID [--KEY VALUE ...]
//
// Hardware and time: two cores, 20 s. A larger model wants a GPU: `bun src/cli.ts plan --model qwen3-8b --gpu rtx4090`.
// Expected: loss 6 → below 0.01; it learns the 131 answers by heart.
import { join } from "node:path";
import { makeQuickstart } from "../scripts/quickstart.ts";
import { DataError, exactMatch, load, run, train, trainConfig, type DataRecord } from "../src/index.ts";

await run(async () => {
  const args = process.argv.slice(2);
  const given = args[0] && !args[0].startsWith("--") ? args.splice(0, 3) : [];
  const [path = join(import.meta.dir, "plurals.csv"), question = "word", answer = "plural"] = given;
  const map = (row: DataRecord) => ({
    messages: [
      { role: "user", content: cell(row, question) },
      { role: "assistant", content: cell(row, answer) },
    ],
  });
  const { model } = await makeQuickstart("runs/made", { seed: 1 });
  const config = await trainConfig(args, {
    model,
    data: [{ path, map }],
    output: "runs/csv",
    sequenceLength: 128,
    batchSize: 2,
    epochs: 30,
    optimizer: { learningRate: 2e-3 },
  });
  const { model: finished } = await train(config);
  using answering = await load(finished);
  const { answers } = await exactMatch(answering, [{ path, map, limit: 3 }], { maxTokens: 32 });
  for (const { question, answer } of answers) console.log(`${question} → ${answer}`);
});

/** What a row has in a column; the first row that lacks it ends the run with its line. */
function cell(row: DataRecord, column: string): string {
  if (column in row) return row[column];
  throw new DataError(`has no column "${column}"; it has ${Object.keys(row).join(", ")}`);
}
