import { describe, expect, test } from "bun:test";
import { appendFileSync, existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { addAnswers, readRun } from "../../src/keep/run-folder.ts";
import { writeComparison, writeReport } from "../../src/view/report.ts";
import { RunningMean, runTable, table, thin, type Table } from "../../src/view/curves.ts";
import { html, json } from "../../src/view/html.ts";
import { lossSvg, ticks } from "../../src/view/loss-svg.ts";
import { temporaryDirectory } from "../support/models.ts";
import { pageData, stepMetrics, writeRun } from "../support/runs.ts";

/** Everything in a page that would make a browser ask somebody. */
function requests(page: string): string[] {
  const scripts = /<script[^>]*>[^]*?<\/script>/g;
  const markup = page.replace(scripts, "");
  return [...markup.matchAll(/\b(?:src|href|action)="([^"]*)"|url\(|@import/g)]
    .map((match) => match[1] ?? match[0])
    .filter((target) => !target.startsWith("data:"));
}

describe("report.html", () => {
  test("has the run's curves, evaluation, config, bill and machine in one file", async () => {
    using directory = temporaryDirectory();
    const run = join(directory.path, "first");
    writeRun(run, 20);
    const page = readFileSync(await writeReport(run), "utf8");
    for (const text of ["<h1>first</h1>", "20 of 20", "models/tiny", "optimizer.learningRate", "weights: hi (bf16)"])
      expect(page).toContain(text);
    for (const text of ["2.0 KiB", "2 × Some CPU", "2.0000", "7.39", "2026-01-02 03:04 UTC"])
      expect(page).toContain(text);
    const { plots, table: columns } = pageData(page);
    expect(plots.map((plot) => plot.title)).toEqual(["Loss", "Learning rate", "Gradient norm", "Speed", "Memory"]);
    expect(columns["step"]).toEqual(Array.from({ length: 21 }, (_, index) => index));
    expect(columns["loss"]!.slice(0, 5)).toEqual([null, 4, 4 / Math.sqrt(2), 4 / Math.sqrt(3), 2]);
    expect(columns["evaluation"]!.filter((value) => value !== null)).toEqual([5, 2]);
    expect(columns["device"]!.at(-1)).toBe(1); // MiB
    expect(requests(page)).toEqual([]);
    expect(page).toContain("default-src &#39;none&#39;");
    expect(page).not.toContain("connect-src");
  });

  test("escapes everything it shows", async () => {
    using directory = temporaryDirectory();
    const evil = `</script><script>alert("1")</script><img src=x onerror='alert(2)'>&amp;`;
    const run = join(directory.path, "run");
    writeRun(run, 2, { config: { model: evil, [evil]: evil }, facts: { environment: { [evil]: evil } } });
    const answer = (text: string) => ({ question: evil, expected: evil, answer: text });
    await addAnswers(run, [answer("wrong")], [answer(evil)]);
    const page = readFileSync(await writeReport(run), "utf8");
    expect(page).not.toContain("<script>alert");
    expect(page).not.toContain("<img");
    expect(page.match(/&lt;img src=x onerror=&#39;alert/g)!.length).toBeGreaterThan(5);
    // Our own elements: the data, uPlot, charts.js, report.js.
    expect(page.match(/<script/g)).toHaveLength(4);
    expect(page.match(/<\/script/g)).toHaveLength(4);
  });

  test("answers before and after, by question", async () => {
    using directory = temporaryDirectory();
    writeRun(directory.path, 2);
    const asked = (question: string, answer: string) => ({ question, expected: "four", answer });
    await addAnswers(directory.path, [asked("2 + 2?", "five")], [asked("2 + 2?", "four"), asked("new", "six")]);
    expect(readRun(directory.path).facts!.answers).toEqual([
      { question: "2 + 2?", expected: "four", before: "five", after: "four" },
      { question: "new", expected: "four", before: null, after: "six" },
    ]);
    const page = readFileSync(await writeReport(directory.path), "utf8");
    expect(page).toContain(`<span class="right">four ✓</span>`);
    expect(page).not.toContain("five ✓");
  });

  test("of a run that has no run.json, no evaluation, half a line", async () => {
    using directory = temporaryDirectory();
    writeRun(directory.path, 3);
    rmSync(join(directory.path, "run.json"));
    appendFileSync(join(directory.path, "metrics.jsonl"), '{"kind":"step","step":4,"lo');
    const page = readFileSync(await writeReport(directory.path), "utf8");
    expect(pageData(page).table["step"]).toEqual([0, 1, 2, 3]);
    expect(existsSync(join(directory.path, "loss.svg"))).toBe(true);
  });

  test("of what is no run says what is missing", async () => {
    using directory = temporaryDirectory();
    const message = await writeReport(directory.path).catch((error: Error) => error.message);
    expect(message).toContain("is not a run directory: it has no config.json");
    writeRun(directory.path, 1);
    appendFileSync(join(directory.path, "metrics.jsonl"), "oops\n");
    const damaged = await writeReport(directory.path).catch((error: Error) => error.message);
    expect(damaged).toMatch(/metrics\.jsonl:4: not JSON/);
  });
});

test("a comparison has a curve per run, and says where the configs differ", async () => {
  using directory = temporaryDirectory();
  const [one, two] = [join(directory.path, "one"), join(directory.path, "two")];
  writeRun(one, 4);
  writeRun(two, 6, { config: { optimizer: { learningRate: 2e-3 } } });
  const output = join(directory.path, "compare.html");
  await writeComparison([one, two], output);
  const page = readFileSync(output, "utf8");
  const { plots, table: columns } = pageData(page);
  expect(plots[0]!.curves.map((curve) => curve.column)).toEqual([
    "0.lossMean",
    "0.evaluation",
    "1.lossMean",
    "1.evaluation",
  ]);
  expect(plots[4]!.title).toBe("Memory: device");
  expect(columns["step"]).toEqual([0, 1, 2, 3, 4, 5, 6]);
  expect(columns["0.learningRate"]!.at(-1)).toBeNull();
  expect(columns["1.learningRate"]!.at(-1)).toBe(1e-3);
  const differences = page.slice(page.indexOf("Where the configs differ"));
  expect(differences).toContain("optimizer.learningRate");
  expect(differences.slice(0, differences.indexOf("<script"))).not.toContain("models/tiny");
  expect(requests(page)).toEqual([]);
});

test("compared runs of the same name go by their paths", async () => {
  using directory = temporaryDirectory();
  const runs = ["a", "b"].map((name) => join(directory.path, name, "run"));
  for (const run of runs) writeRun(run, 2);
  const output = join(directory.path, "compare.html");
  await writeComparison(runs, output);
  const page = readFileSync(output, "utf8");
  for (const run of runs) expect(page).toContain(`<th class="">${run}</th>`);
});

describe("curves", () => {
  test("a running mean follows the last values", () => {
    const mean = new RunningMean(2);
    expect([1, 3, NaN, 5, 0].map((value) => mean.push(value))).toEqual([1, 2, 2, 4, 2.5]);
  });

  test("long runs become means over equal stretches", () => {
    const rows = [1, 2, 3, 4, 5].map((step) => ({ step, loss: step * 10, gradNorm: step === 1 ? null : 1 }));
    expect(thin(rows, 3)).toEqual([
      { step: 2, loss: 15, gradNorm: 1 },
      { step: 4, loss: 35, gradNorm: 1 },
      { step: 5, loss: 50, gradNorm: 1 },
    ]);
    const steps = Array.from({ length: 100_000 }, (_, index) => stepMetrics(index + 1));
    expect(runTable({ steps, evaluations: [] }).step.length).toBeLessThanOrEqual(2000);
  });

  test("rows of one step become one row, in order", () => {
    expect(
      table([
        { step: 2, loss: 1 },
        { step: 1, loss: 2 },
        { step: 2, evaluation: 3 },
      ]),
    ).toEqual({
      step: [1, 2],
      loss: [2, 1],
      evaluation: [null, 3],
    });
  });
});

describe("loss.svg", () => {
  test("is well-formed, with axes, units and a legend", () => {
    const columns = { step: [0, 10, 20], loss: [null, 2, 1], lossMean: [null, 2, 1.5], evaluation: [3, null, 1] };
    const svg = lossSvg(columns, "Loss of <a>");
    for (const text of ["loss (nats per token)", ">step<", "train, running mean", "evaluation", "Loss of &lt;a&gt;"])
      expect(svg).toContain(text);
    expect(svg).not.toMatch(/NaN|Infinity|undefined/);
    expect(svg.match(/<circle/g)).toHaveLength(2);
  });

  test("without a single value, and with one", () => {
    const tables: Table[] = [{ step: [] }, { step: [1], loss: [2], lossMean: [2] }, { step: [1], loss: [0] }];
    for (const columns of tables) expect(lossSvg(columns, "x")).not.toMatch(/NaN|Infinity|undefined/);
  });

  test("ticks are round", () => {
    expect(ticks(0.21, 0.79, 6)).toEqual([0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]);
    expect(ticks(0, 1232, 6)).toEqual([0, 500, 1000, 1500]);
    expect(ticks(3, 3, 6)).toEqual([3, 3.5]);
  });
});

test("html escapes, json cannot close its element", () => {
  expect(html`<p title="${`"'`}">${["<", html`<b>${"&"}</b>`]}${null}${false}${0}</p>`.text).toBe(
    `<p title="&quot;&#39;">&lt;<b>&amp;</b>0</p>`,
  );
  expect(json({ a: "</script>" }).text).toBe(`{"a":"\\u003c/script>"}`);
});
