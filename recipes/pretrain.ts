// Continued pretraining on a folder of text: every .txt and .md file below it is a document, and all of its tokens count.
// A text longer than `sequenceLength` goes on in the next row.
//
//   bun recipes/pretrain.ts                                    this project's own documents
//   bun recipes/pretrain.ts FOLDER --model DIR|HUB_ID [--KEY VALUE ...]
//
// Hardware and time: two cores, 40 s. A larger model wants a GPU: `bun src/cli.ts plan --model qwen3-8b --gpu rtx4090`.
// Expected: loss 6 → between 1 and 2 per token, which here is a letter.
import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { makeQuickstart } from "../scripts/quickstart.ts";
import { DataError, run, train, trainConfig } from "../src/index.ts";

await run(async () => {
  const args = process.argv.slice(2);
  const folder = args[0] && !args[0].startsWith("--") ? args.shift()! : join(import.meta.dir, "../docs");
  const { model } = await makeQuickstart("runs/made", { seed: 1 });
  const config = await trainConfig(args, {
    model,
    data: "runs/pretrain.jsonl",
    output: "runs/pretrain",
    sequenceLength: 256,
    batchSize: 4,
    steps: 150,
    optimizer: { learningRate: 2e-3, weightDecay: 0.1 },
  });
  await writeTexts(folder, String(config.data));
  await train(config);
});

/** One line of JSONL per file; the loss at a text's end teaches the model to end it. */
async function writeTexts(folder: string, path: string): Promise<void> {
  const files = [...new Bun.Glob("**/*.{txt,md}").scanSync({ cwd: folder })].sort();
  if (files.length === 0) throw new DataError(`${folder}: has no .txt or .md file`);
  mkdirSync(dirname(path), { recursive: true });
  const texts = await Promise.all(files.map((file) => Bun.file(join(folder, file)).text()));
  await Bun.write(path, texts.map((text) => `${JSON.stringify({ text })}\n`).join(""));
  console.log(`${files.length} files of ${folder} in ${path}`);
}
