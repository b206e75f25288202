// Evaluate models on a file of conversations: loss, perplexity, and the share of answers that are exactly right.
//
//   bun recipes/evaluate.ts                                    the quick start's untrained model, and runs/chat if it is there
//   bun recipes/evaluate.ts FILE MODEL...                      your own
//
// Hardware and time: two cores, 4 s for 256 questions and a model of 1.2 million parameters.
// Expected: loss 6.0 and nothing right before training, and what the run said after it.
import { existsSync } from "node:fs";
import { makeQuickstart } from "../scripts/quickstart.ts";
import { evaluate, exactMatch, load, run } from "../src/index.ts";

await run(async () => {
  const [file, ...models] = process.argv.slice(2);
  const made = await makeQuickstart("runs/made", { seed: 1 });
  const trained = ["runs/chat/model"].filter((directory) => existsSync(directory));
  const data = file ?? made.heldout;

  console.log("   loss  perplexity   exact  model");
  for (const directory of models.length > 0 ? models : [made.model, ...trained]) {
    using model = await load(directory); // freed at the end of each turn
    const { loss, perplexity } = await evaluate(model, data);
    const { share, answers } = await exactMatch(model, data, { maxTokens: 16 });
    const exact = `${(100 * share).toFixed(1)} %`;
    console.log(
      `${loss.toFixed(4).padStart(7)}  ${perplexity.toFixed(2).padStart(10)}  ${exact.padStart(6)}  ${directory}`,
    );
    const wrong = answers.find(({ expected, answer }) => answer.trim() !== expected);
    if (wrong)
      console.log(`         for instance ${wrong.question} → ${JSON.stringify(wrong.answer)}, not ${wrong.expected}`);
  }
});
