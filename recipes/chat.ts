// Chat fine-tune with a held-out file, early stop and a look at the answers. Loss counts on what the assistant says.
//
//   bun recipes/chat.ts                                        the quick start's model and questions, nothing downloaded
//   bun recipes/chat.ts --model DIR|HUB_ID --data FILE --evaluationData FILE [--KEY VALUE ...]      your own
//
// Hardware and time: two cores, 40 s. A larger model wants a GPU: `bun src/cli.ts plan --model qwen3-8b --gpu rtx4090`.
// Expected: held-out loss 6.0 → 1.7, and one answer in ten right; train.ts trains longer and gets 95 %.
import { makeQuickstart } from "../scripts/quickstart.ts";
import { exactMatch, load, run, train, trainConfig } from "../src/index.ts";

const patience = 3; // evaluations in a row that may be no better than the best

await run(async () => {
  const { model, train: data, heldout: evaluationData } = await makeQuickstart("runs/made", { seed: 1 });
  const config = await trainConfig(process.argv.slice(2), {
    model,
    data,
    evaluationData,
    output: "runs/chat",
    sequenceLength: 128,
    batchSize: 2,
    steps: 300,
    optimizer: { learningRate: 2e-3 },
    evaluation: { every: 50 },
    checkpoint: { every: 50, resume: "auto" },
  });

  let best = Infinity;
  let worse = 0;
  const finished = await train(config, {
    onEvaluate({ loss }) {
      worse = loss < best ? 0 : worse + 1;
      best = Math.min(best, loss);
      if (worse === patience) return "stop";
    },
  });
  const { evaluationBefore: before, evaluationAfter: after, stopped, steps } = finished;
  console.log(
    `held-out loss ${before?.toFixed(3)} → ${after?.toFixed(3)} in ${steps} steps${stopped ? ", stopped early" : ""}`,
  );

  using answering = await load(finished.model);
  const { share, answers } = await exactMatch(answering, String(config.evaluationData), { maxTokens: 16 });
  console.log(`${(100 * share).toFixed(1)} % of the held-out answers are right, for instance:`);
  for (const { question, answer } of answers.slice(0, 3)) console.log(`  ${question}\n  → ${answer}`);
});
