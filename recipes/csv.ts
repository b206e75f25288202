// Fine-tune on a spreadsheet: a CSV with a column of questions and a column of answers, of which the answers are learned.
//
//   bun recipes/csv.ts                                         recipes/plurals.csv, 131 nouns and their plurals
//   bun recipes/csv.ts FILE QUESTION_COLUMN ANSWER_COLUMN --model DIR|HUB_ID [--KEY VALUE ...]
//
// Hardware and time: two cores, 20 s. A larger model wants a GPU: `bun src/cli.ts plan --model qwen3-8b --gpu rtx4090`.
// Expected: loss 6 → below 0.01; it learns the 131 answers by heart.
import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { makeQuickstart } from "../scripts/quickstart.ts";
import { DataError, load, run, train, trainConfig } from "../src/index.ts";

await run(async () => {
  const args = process.argv.slice(2);
  const given = args[0] && !args[0].startsWith("--") ? args.splice(0, 3) : [];
  const [file = join(import.meta.dir, "plurals.csv"), question = "word", answer = "plural"] = given;
  const { model } = await makeQuickstart("runs/made", { seed: 1 });
  const config = await trainConfig(args, {
    model,
    data: "runs/csv/data.jsonl",
    output: "runs/csv",
    sequenceLength: 128,
    batchSize: 2,
    epochs: 30,
    optimizer: { learningRate: 2e-3 },
  });

  const [header, ...rows] = parseCsv(await Bun.file(file).text());
  const [from, to] = [question, answer].map((name) => {
    const column = header!.indexOf(name);
    if (column < 0) throw new DataError(`${file}: has no column "${name}"; it has ${header!.join(", ")}`);
    return column;
  });
  mkdirSync(dirname(String(config.data)), { recursive: true });
  const asked = rows.map((row) => ({ role: "user", content: row[from!] }));
  const lines = rows.map((row, index) => ({ messages: [asked[index], { role: "assistant", content: row[to!] }] }));
  await Bun.write(String(config.data), lines.map((line) => `${JSON.stringify(line)}\n`).join(""));

  const { model: finished } = await train(config);
  using answering = await load(finished);
  const answers = await answering.generate(
    asked.slice(0, 3).map((message) => [message]),
    { maxTokens: 32 },
  );
  for (const [index, text] of answers.entries()) console.log(`${asked[index]!.content} → ${text}`);
});

/** Rows of fields, as spreadsheets write them: quotes around commas and line ends, doubled inside. */
function parseCsv(text: string): string[][] {
  const fields = text.matchAll(/(?:"((?:[^"]|"")*)"|([^,\r\n]*))(,|\r?\n|$)/g);
  const rows: string[][] = [[]];
  for (const [all, quoted, plain, end] of fields) {
    if (all === "" && rows.at(-1)!.length === 0) break;
    rows.at(-1)!.push(quoted?.replaceAll('""', '"') ?? plain!);
    if (end !== ",") rows.push([]);
  }
  return rows.filter((row) => row.length > 1);
}
