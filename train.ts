// Quick start: a small Qwen3 that answers nothing right learns thirteen letter tasks, through a window that holds two of its
// twelve blocks. Nothing is downloaded. On two cores it takes two minutes; expect 95 % or more of the held-out answers
// right. `bun run train --model DIR|HUB_ID --data FILE` fine-tunes that instead; any key of the config may follow.
import { makeQuickstart } from "./scripts/quickstart.ts";
import { trainConfig } from "./src/cli/train.ts";
import { addAnswers, exactMatch, load, run, train, writeReport } from "./src/index.ts";

await run(async () => {
  const args = process.argv.slice(2);
  const dashboard = args.join() === "--dashboard"; // alone, it shows the quick start itself in a browser
  if (args.length > 0 && !dashboard)
    return console.log(
      `model: ${(await train(await trainConfig(args, { output: "runs/train", checkpoint: { resume: "auto" } }))).model}`,
    );

  const { model, train: data, heldout } = await makeQuickstart("runs/quickstart/made", { seed: 1 });
  const before = await score(model);
  const { model: finished, output } = await train({
    model,
    data,
    output: "runs/quickstart",
    overwrite: true, // a second quick start begins anew
    device: "cpu", // a model this small, in memory this small
    deviceMemory: "4MiB", // less than the model's own weights: the blocks have to slide
    sequenceLength: 128,
    batchSize: 2,
    microBatchTokens: 256,
    optimizer: { learningRate: 2e-3 },
    schedule: { type: "cosine", warmup: "5%" },
    logging: { every: 100 },
    dashboard,
  });
  const after = await score(finished); // the exported directory, loaded again
  await addAnswers(output, before.answers, after.answers);
  console.log(`report: ${await writeReport(output)}`);
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
  console.log(`held-out exact match: ${percent(before.share)} before, ${percent(after.share)} after`);
  for (const { question, answer } of after.answers.slice(0, 3)) console.log(`  ${question}\n  → ${answer}`);

  async function score(directory: string) {
    using loaded = await load(directory, { device: "cpu", deviceMemory: "4MiB" });
    return await exactMatch(loaded, heldout, { maxTokens: 16 });
  }
});
