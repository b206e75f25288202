// report.html: a run as one file to send to a colleague. Plots, results, answers, config, memory bill and machine, made
// from the files of the run directory alone (`run/folder.ts`) and needing nothing else to be read: no network, no server.
// Beside it goes loss.svg, the loss curve for a paper. `writeComparison` lays several runs over each other.

import { join } from "node:path";
import { formatBytes, formatCount, formatDuration } from "../words/format.ts";
import { writeFileAtomic } from "../io/atomic.ts";
import { readRun, type RunRecord } from "../keep/run-folder.ts";
import { runPlots, runTable, table, type Plot, type Row, type Table } from "./curves.ts";
import { html, type Content, type Html } from "./html.ts";
import { lossSvg } from "./loss-svg.ts";
import { renderPage } from "./page.ts";

/** Writes report.html and loss.svg into a run directory; the path of the report. DataError when it is no run's. */
export async function writeReport(directory: string): Promise<string> {
  const run = readRun(directory);
  const path = join(directory, "report.html");
  await writeFileAtomic(path, reportPage(run));
  await writeFileAtomic(join(directory, "loss.svg"), lossSvg(runTable(run), `Loss of ${String(run.config["model"])}`));
  return path;
}

/** Writes one page that compares the runs of two or more directories to the file `output`. */
export async function writeComparison(directories: readonly string[], output: string): Promise<void> {
  const runs = directories.map(readRun);
  const distinct = new Set(runs.map((run) => run.name)).size === runs.length;
  const named = runs.map((run) => (distinct ? run : { ...run, name: run.directory }));
  await writeFileAtomic(output, comparisonPage(named));
}

export function reportPage(run: RunRecord): string {
  const { facts, config } = run;
  const columns = runTable(run);
  const body = html`
    <h1>${run.name}</h1>
    <p class="quiet">${subtitle(run)}</p>
    <div class="tiles">${results(run).map(([label, value]) => tile(label, value))}</div>
    <div class="plots" id="plots"></div>
    ${run.evaluations.length > 0 && section("Evaluation", evaluationTable(run))}
    ${facts !== undefined && facts.answers.length > 0 && section("Answers", answerTable(facts.answers))}
    <div class="columns">
      <div>${section("Config", pairs(flatten(config)))}</div>
      <div>
        ${facts && section("Memory bill", billTable(facts.bill, facts.model.parameters))}
        ${facts && section("Data", pairs(dataOf(facts.data)))}
        ${facts && section("Environment", pairs(Object.entries(facts.environment)))}
      </div>
    </div>
  `;
  const data = { plots: visible(runPlots, columns), table: columns };
  return renderPage({ title: `${run.name}: Sluice report`, body, data, script: "report.js", connects: false });
}

export function comparisonPage(runs: readonly RunRecord[]): string {
  const { plots, columns } = comparison(runs);
  const names = runs.map((run) => run.name);
  const shown = runs.map((run) => new Map(results(run)));
  const configs = runs.map((run) => new Map(flatten(run.config)));
  const differing = [...new Set(configs.flatMap((config) => [...config.keys()]))].filter(
    (key) => new Set(configs.map((config) => config.get(key))).size > 1,
  );
  const labels = [...new Set(shown.flatMap((result) => [...result.keys()]))];
  const side = (keys: readonly string[], maps: readonly Map<string, string>[]): Html =>
    grid(
      ["", ...names],
      keys.map((key) => [key, ...maps.map((values) => values.get(key) ?? "–")]),
    );
  const body = html`
    <h1>${names.join(" · ")}</h1>
    <p class="quiet">${runs.length} runs compared</p>
    <div class="plots" id="plots"></div>
    ${section("Results", side(labels, shown))}
    ${section("Where the configs differ", differing.length > 0 ? side(differing, configs) : html`<p>Nowhere.</p>`)}
  `;
  const data = { plots, table: columns };
  return renderPage({ title: `Comparison of ${names.join(", ")}`, body, data, script: "report.js", connects: false });
}

/** Each plot with one curve per run: where a run's own plot has several, the first that is not faint, and evaluations. */
function comparison(runs: readonly RunRecord[]): { plots: Plot[]; columns: Table } {
  const rows = runs.flatMap((run, index) => {
    const own = runTable(run);
    return own.step.map((step, at): Row => {
      const columns = Object.keys(own).filter((name) => name !== "step" && own[name]![at] !== null);
      return { step, ...Object.fromEntries(columns.map((name) => [`${index}.${name}`, own[name]![at]!])) };
    });
  });
  const columns = table(rows);
  const plots = runPlots.map((plot) => {
    const main = plot.curves.find((curve) => curve.style !== "faint")!;
    const second = plot.curves.find((curve) => curve.style === "marked");
    const curves = runs.flatMap(({ name }, index) => {
      const colour = (index % 6) + 1;
      const line = { ...main, column: `${index}.${main.column}`, label: name, colour };
      return second
        ? [line, { ...second, column: `${index}.${second.column}`, label: `${name}, evaluation`, colour }]
        : [line];
    });
    const several = plot.curves.filter((curve) => curve.style === main.style).length > 1;
    return { ...plot, title: several ? `${plot.title}: ${main.label}` : plot.title, curves };
  });
  return { plots: visible(plots, columns), columns };
}

/** Without the curves that have no value, and the plots that have no curve. */
function visible(plots: readonly Plot[], columns: Table): Plot[] {
  const has = (column: string): boolean => columns[column]?.some((value) => value !== null) ?? false;
  return plots
    .map((plot) => ({ ...plot, curves: plot.curves.filter((curve) => has(curve.column)) }))
    .filter((plot) => plot.curves.length > 0);
}

function subtitle({ facts, config }: RunRecord): string {
  const words = [String(config["model"])];
  if (facts) {
    words.push(`${facts.model.type}, ${formatCount(facts.model.parameters)} parameters`);
    words.push(`started ${facts.started.replace("T", " ").slice(0, 16)} UTC`);
  }
  return words.join(" · ");
}

/** What a reader wants to know first. */
function results({ facts, steps, evaluations }: RunRecord): [string, string][] {
  const last = steps.at(-1);
  const shown: [string, string][] = [["steps", facts ? `${last?.step ?? 0} of ${facts.steps}` : `${last?.step ?? 0}`]];
  if (last) {
    const seconds = steps.reduce((sum, step) => sum + step.seconds, 0);
    const tokens = steps.reduce((sum, step) => sum + step.tokens, 0);
    shown.push(["loss of the last step", last.loss.toFixed(4)]);
    shown.push(["tokens/s, mean", formatCount(tokens / seconds)]);
    if (facts?.predictedTokensPerSecond)
      shown.push(["tokens/s, predicted", formatCount(facts.predictedTokensPerSecond)]);
    shown.push(["time in steps", formatDuration(seconds)]);
    shown.push(["device memory", formatBytes(last.deviceBytes)]);
  }
  const evaluated = evaluations.at(-1);
  if (evaluated)
    shown.push(["evaluation loss", evaluated.loss.toFixed(4)], ["perplexity", evaluated.perplexity.toFixed(2)]);
  return shown;
}

function tile(label: string, value: string): Html {
  return html`<div class="tile"><b>${value}</b><span>${label}</span></div>`;
}

function section(title: string, content: Content): Html {
  return html`<section>
    <h2>${title}</h2>
    ${content}
  </section>`;
}

/** A table with a heading; the first cell of each row names it. */
function grid(heading: readonly string[], rows: readonly (readonly Content[])[], numbers = false): Html {
  const align = numbers ? "number" : "";
  return html`<div class="table">
    <table class="facts">
      <thead>
        <tr>
          ${heading.map((text, index) => html`<th class="${index > 0 && align}">${text}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${rows.map(
          ([name, ...cells]) =>
            html`<tr>
              <th>${name}</th>
              ${cells.map((cell) => html`<td class="${align}">${cell}</td>`)}
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

function pairs(entries: readonly (readonly [string, string])[]): Html {
  return html`<div class="table">
    <table class="facts">
      <tbody>
        ${entries.map(
          ([key, value]) =>
            html`<tr>
              <th>${key}</th>
              <td>${value}</td>
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

function evaluationTable({ evaluations }: RunRecord): Html {
  const rows = evaluations.map(({ step, loss, perplexity, validTokens }) => {
    return [`${step}`, loss.toFixed(4), perplexity.toFixed(2), formatCount(validTokens)];
  });
  return grid(["after step", "loss (nats per token)", "perplexity", "tokens that count"], rows, true);
}

function answerTable(answers: NonNullable<RunRecord["facts"]>["answers"]): Html {
  const cell = (answer: string | null, expected: string): Content =>
    answer === null ? "–" : answer.trim() === expected.trim() ? html`<span class="right">${answer} ✓</span>` : answer;
  const rows = answers.map(({ question, expected, before, after }) => {
    return [question, expected, cell(before, expected), cell(after, expected)];
  });
  return grid(["question", "expected", "before", "after"], rows);
}

function billTable(bill: NonNullable<RunRecord["facts"]>["bill"], parameters: number): Html {
  const tiers = ["device", "pinned", "host"].filter((tier) => bill.some((line) => line.tier === tier));
  const size = (bytes: number): string[] => [formatBytes(bytes), (bytes / parameters).toFixed(2)];
  const rows = tiers.map((tier) => {
    const lines = bill.filter((line) => line.tier === tier).sort((a, b) => b.bytes - a.bytes);
    const total = size(lines.reduce((sum, line) => sum + line.bytes, 0));
    const cells = (name: string, values: readonly string[]): Html =>
      html`<th>${name}</th>
        ${values.map((value) => html`<td class="number">${value}</td>`)}`;
    return html`<tr class="total">
        ${cells(tier, total)}
      </tr>
      ${lines.map(
        ({ purpose, bytes }) =>
          html`<tr>
            ${cells(`  ${purpose}`, size(bytes))}
          </tr>`,
      )}`;
  });
  return html`<div class="table">
    <table class="facts">
      <thead>
        <tr>
          <th>tier, purpose</th>
          <th class="number">size</th>
          <th class="number">bytes per parameter</th>
        </tr>
      </thead>
      <tbody>
        ${rows}
      </tbody>
    </table>
  </div>`;
}

function dataOf(data: NonNullable<RunRecord["facts"]>["data"]): [string, string][] {
  const { samples, tokens, validTokens, truncated, dropped } = data;
  return [
    ["samples", formatCount(samples)],
    ["tokens", formatCount(tokens)],
    ["tokens that count", formatCount(validTokens)],
    ["truncated", String(truncated)],
    ["dropped", String(dropped)],
  ];
}

/** The leaves of a config by path: `optimizer.learningRate` and its value. */
function flatten(config: Record<string, unknown>, prefix = ""): [string, string][] {
  return Object.entries(config).flatMap(([key, value]): [string, string][] => {
    const path = `${prefix}${key}`;
    if (typeof value === "object" && value !== null && !Array.isArray(value))
      return flatten(value as Record<string, unknown>, `${path}.`);
    return [[path, typeof value === "string" ? value : JSON.stringify(value)]];
  });
}
