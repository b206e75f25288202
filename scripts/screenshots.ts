// `bun scripts/screenshots.ts`: the pictures of docs/images. Trains the quick start's model for a minute, takes the dashboard
// while that runs and the report when it is over, each in light and dark, in headless Chromium. Look at them afterwards.

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { addAnswers, exactMatch, load, writeReport } from "../src/index.ts";
import { Browser, findChromium } from "./browser.ts";
import { makeQuickstart } from "./quickstart.ts";

const cli = join(import.meta.dir, "../src/cli.ts");
const images = join(import.meta.dir, "../docs/images");
const steps = 400;
const schemes = ["light", "dark"] as const;

const chromium = findChromium();
if (chromium === undefined) throw new Error("no chromium on PATH; apt-get install chromium, or set CHROMIUM to one");
mkdirSync(images, { recursive: true });
const directory = mkdtempSync(join(tmpdir(), "sluice-screenshots-"));
process.chdir(directory); // so that the pages show relative paths
try {
  await pictures(chromium);
} finally {
  process.chdir("/");
  rmSync(directory, { recursive: true, force: true });
}

async function pictures(chromium: string): Promise<void> {
  const { model, train: data, heldout } = await makeQuickstart("letters", { seed: 1 });
  const questions = join("letters", "questions.jsonl");
  writeFileSync(questions, `${readFileSync(heldout, "utf8").split("\n").slice(0, 40).join("\n")}\n`);
  const before = await answers(model);
  const config = {
    model,
    data,
    evaluationData: questions,
    output: "runs/letters",
    deviceMemory: "4MiB",
    sequenceLength: 128,
    batchSize: 2,
    microBatchTokens: 256,
    steps,
    optimizer: { learningRate: 2e-3 },
    evaluation: { every: 50 },
    logging: { every: 50 },
  };
  writeFileSync("letters.json", JSON.stringify(config));
  // In a process of its own, so that its times are not ours.
  const command = [process.execPath, cli, "train", "--config", "letters.json", "--dashboard"];
  const run = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "inherit" });
  let printed = "";
  let pictures: Promise<void> | undefined;
  for await (const text of run.stdout.pipeThrough(new TextDecoderStream())) {
    process.stdout.write(text);
    printed += text;
    const url = /^dashboard: (\S+)$/m.exec(printed)?.[1];
    if (url) pictures ??= dashboards(chromium, url);
  }
  await pictures;
  if ((await run.exited) !== 0) throw new Error("the run failed");
  await addAnswers("runs/letters", before, await answers("runs/letters/model"));
  const report = pathToFileURL(await writeReport("runs/letters")).href;
  for (const scheme of schemes) {
    await using browser = await Browser.open(report, { chromium, scheme, width: 1200, height: 1720 });
    await browser.until("document.querySelectorAll('.plot canvas').length === 5");
    await save(browser, `report-${scheme}.png`);
  }

  async function answers(directory: string) {
    using loaded = await load(directory, { deviceMemory: 4 << 20 });
    return (await exactMatch(loaded, questions, { maxTokens: 16 })).answers;
  }
}

/** Late in the run, when the curves have something to say. */
async function dashboards(chromium: string, url: string): Promise<void> {
  for (const scheme of schemes) {
    await using browser = await Browser.open(url, { chromium, scheme, width: 1200, height: 1640 });
    await browser.until("document.querySelector('#timeline .key i')");
    const share = scheme === "light" ? 0.6 : 0.8;
    const step = "Number(document.querySelector('[data-tile=step]').textContent.split(' ')[0])";
    await browser.until(`${step} >= ${share * steps}`, 600_000);
    await save(browser, `dashboard-${scheme}.png`);
  }
}

async function save(browser: Browser, name: string): Promise<void> {
  const picture = await browser.screenshot();
  writeFileSync(join(images, name), picture);
  console.log(`${name}: ${Math.round(picture.length / 1024)} KiB`);
}
