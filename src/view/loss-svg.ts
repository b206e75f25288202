// The loss curve as one SVG for a paper: vectors and text only, black on white whatever the reader's theme, fonts named so
// that LaTeX and browsers both have one. Each step is faint, the running mean strong, evaluations are marked.

import { escapeHtml } from "./html.ts";
import type { Table } from "./curves.ts";

const width = 640;
const height = 400;
const margin = { left: 62, right: 16, top: 16, bottom: 50 };
const trainColour = "#1f6fb4";
const evaluationColour = "#d1580b";

type Point = readonly [x: number, y: number];

export function lossSvg(table: Table, title: string): string {
  const points = (column: string): Point[] =>
    table.step.flatMap((step, index) => {
      const value = table[column]?.[index];
      return typeof value === "number" && Number.isFinite(value) ? [[step, value] as const] : [];
    });
  const [each, mean, evaluation] = [points("loss"), points("lossMean"), points("evaluation")];
  const values = [...each, ...evaluation].map(([, y]) => y);
  if (values.length === 0) values.push(0, 1);
  const [steps, losses] = [ticks(0, Math.max(1, ...table.step), 6), ticks(Math.min(...values), Math.max(...values), 6)];
  const [xMax, yMin, yMax] = [Math.max(1, ...table.step), losses.at(0)!, losses.at(-1)!];
  const right = width - margin.right;
  const bottom = height - margin.bottom;
  const x = (step: number): number => margin.left + (step / xMax) * (right - margin.left);
  const y = (loss: number): number => bottom - ((loss - yMin) / (yMax - yMin)) * (bottom - margin.top);
  const path = (line: readonly Point[]): string =>
    line.map(([step, loss], index) => `${index === 0 ? "M" : "L"}${fixed(x(step))} ${fixed(y(loss))}`).join("");

  const parts: string[] = [];
  for (const loss of losses) {
    parts.push(`<path d="M${margin.left} ${fixed(y(loss))}H${right}" stroke="#e4e4e4"/>`);
    parts.push(
      `<text x="${margin.left - 8}" y="${fixed(y(loss) + 4)}" text-anchor="end">${tickText(loss, losses)}</text>`,
    );
  }
  for (const step of steps.filter((at) => at <= xMax)) {
    parts.push(`<path d="M${fixed(x(step))} ${bottom}v5" stroke="#333"/>`);
    parts.push(`<text x="${fixed(x(step))}" y="${bottom + 19}" text-anchor="middle">${tickText(step, steps)}</text>`);
  }
  parts.push(`<path d="M${margin.left} ${margin.top}V${bottom}H${right}" stroke="#333"/>`);
  parts.push(`<text x="${(margin.left + right) / 2}" y="${height - 10}" text-anchor="middle">step</text>`);
  parts.push(
    `<text transform="translate(16 ${(margin.top + bottom) / 2}) rotate(-90)" text-anchor="middle">loss (nats per token)</text>`,
  );
  parts.push(`<path d="${path(each)}" stroke="${trainColour}" stroke-opacity="0.3" stroke-width="0.8"/>`);
  parts.push(`<path d="${path(mean)}" stroke="${trainColour}" stroke-width="1.8"/>`);
  if (evaluation.length > 0)
    parts.push(`<path d="${path(evaluation)}" stroke="${evaluationColour}" stroke-width="1.4"/>`);
  for (const [step, loss] of evaluation)
    parts.push(`<circle cx="${fixed(x(step))}" cy="${fixed(y(loss))}" r="3.2" fill="${evaluationColour}"/>`);
  const legend = [
    [trainColour, "0.3", "train, each step"],
    [trainColour, "1", "train, running mean"],
    ...(evaluation.length > 0 ? [[evaluationColour, "1", "evaluation"] as const] : []),
  ] as const;
  for (const [index, [colour, opacity, text]] of legend.entries()) {
    const at = margin.top + 14 + index * 18;
    parts.push(
      `<path d="M${right - 150} ${at - 4}h22" stroke="${colour}" stroke-opacity="${opacity}" stroke-width="2"/>`,
    );
    parts.push(`<text x="${right - 122}" y="${at}">${text}</text>`);
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">
<title>${escapeHtml(title)}</title>
<rect width="${width}" height="${height}" fill="#fff"/>
<g fill="none" stroke-linejoin="round" font-family="Helvetica, Arial, sans-serif" font-size="12">
${parts.join("\n").replaceAll("<text", '<text fill="#222"')}
</g>
</svg>
`;
}

/** Round numbers from at or below `least` to at or above `most`, about `count` of them. */
export function ticks(least: number, most: number, count: number): number[] {
  const rough = (most - least || Math.abs(most) || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  const [first, last] = [Math.floor(least / step + 1e-9), Math.ceil(most / step - 1e-9)];
  // An integer times the step, in so many digits that 3 times 0.1 is 0.3.
  const length = Math.max(2, last - first + 1);
  return Array.from({ length }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}

/** Every tick of an axis with the same number of decimals. */
function tickText(value: number, all: readonly number[]): string {
  const decimals = Math.max(...all.map((tick) => (String(tick).split(".")[1] ?? "").length));
  return value.toFixed(Math.min(decimals, 8));
}

function fixed(value: number): string {
  return String(Number(value.toFixed(2)));
}
