// A training loop of one's own, from the engine's pieces: load, tokenise, a trainer, steps, evaluation, answers, a
// checkpoint, an export. What `train` adds to this is the run directory, resuming, status line and Ctrl-C.
//
//   bun recipes/own-loop.ts [--model DIR|HUB_ID --data FILE --evaluationData FILE] [--KEY VALUE ...]
//
// Hardware and time: two cores, 15 s. Expected: loss 6.0 → 2.0.
import { makeQuickstart } from "../scripts/quickstart.ts";
import {
  Loader,
  Trainer,
  evaluationBatches,
  exportModel,
  load,
  parseConfig,
  run,
  trainConfig,
  saveCheckpoint,
} from "../src/index.ts";

await run(async () => {
  const made = await makeQuickstart("runs/made", { seed: 1 });
  const config = await parseConfig(
    await trainConfig(process.argv.slice(2), {
      model: made.model,
      data: made.train,
      evaluationData: made.heldout,
      output: "runs/own-loop",
      sequenceLength: 128,
      batchSize: 4,
      microBatchTokens: 256, // two rows at a time
      gradientAccumulation: 2, // and two such passes to a step
      steps: 100,
      window: { slots: 3 },
    }),
  );

  using model = await load(config.model, { dtype: config.dtype, workers: config.workers });
  const dataset = await model.dataset(config.data, { sequenceLength: config.sequenceLength });
  const heldout = await model.dataset(config.evaluationData!, { sequenceLength: config.sequenceLength });
  const loader = new Loader(dataset, config, config.seed);
  using trainer = await Trainer.open(model, config);
  const rows = { ...config, batchSize: config.batchSize / config.gradientAccumulation }; // those of one pass
  const evaluate = async () => (await trainer.evaluate(evaluationBatches(heldout, rows))).loss.toFixed(3);

  console.log(`held-out loss ${await evaluate()}`);
  for (let step = 1; step <= config.steps!; step++) {
    const learningRate = 2e-3 * Math.min(1, step / 10) * (1 - step / (config.steps! + 1)); // a schedule of one's own
    const { loss, gradNorm, validTokens } = await trainer.step(loader.next(), { learningRate });
    if (step % 20 === 0)
      console.log(`step ${step}  loss ${loss.toFixed(3)}  norm ${gradNorm.toFixed(2)}  ${validTokens} tokens counted`);
  }
  console.log(`held-out loss ${await evaluate()}`);

  const [answer] = await model.generate([[{ role: "user", content: "Reverse the word abc." }]], { maxTokens: 16 });
  console.log(`Reverse the word abc. → ${answer}`);
  console.log(`saved as ${await saveCheckpoint(trainer, `${config.output}/checkpoints`, { data: loader.state() })}`);
  await exportModel(model, `${config.output}/model`);
});
