// Draws the plots of curves.ts with uPlot, in the page's colours; one cursor runs through all of them. `drawPlots` returns
// how to change what is shown. Runs in the browser, inlined by page.ts; uPlot is there as `uPlot`, and what this file
// offers to the page's own script as `sluice`.

const darkScheme = matchMedia("(prefers-color-scheme: dark)");

function colourOf(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** A number in few characters: 0.0123, 1.5e-5, 12.3k. */
function shortNumber(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(4))}k`;
  if (size > 0 && size < 1e-3) return Number(value.toPrecision(3)).toExponential();
  return String(Number(value.toPrecision(4)));
}

/** The numbers along an axis, all written the same way. */
function axisNumbers(splits) {
  const largest = Math.max(...splits.map(Math.abs));
  if (largest > 0 && largest < 0.01)
    return splits.map((value) => (value === 0 ? "0" : Number(value.toPrecision(3)).toExponential()));
  return splits.map(shortNumber);
}

/** Room for the widest number beside the axis. */
function axisSize(plot, values) {
  const longest = Math.max(0, ...(values ?? []).map((text) => text.length));
  return 22 + longest * 7.5;
}

function median(values) {
  const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

function seriesOf(curve) {
  const stroke = colourOf(`colour-${curve.colour}`);
  const shared = { label: curve.label, stroke, spanGaps: true, value: (plot, value) => shortNumber(value) };
  if (curve.style === "faint") return { ...shared, stroke: `${stroke}66`, width: 1, points: { show: false } };
  if (curve.style === "marked") return { ...shared, width: 1.5, points: { show: true, size: 7, fill: stroke } };
  if (curve.style === "dashed") return { ...shared, width: 1.5, dash: [6, 4], points: { show: false } };
  return { ...shared, width: 2, points: { show: false } };
}

function optionsOf(plot, width) {
  const axis = {
    stroke: colourOf("quiet"),
    font: "12px system-ui, sans-serif",
    labelFont: "12px system-ui, sans-serif",
    labelSize: 20,
    grid: { stroke: colourOf("line"), width: 1 },
    ticks: { stroke: colourOf("line"), width: 1 },
    values: (self, splits) => axisNumbers(splits),
  };
  const fromZero = (self, least, most) => {
    const top = plot.cutsSpikes ? Math.min(most, 3 * median(self.data[1])) : most;
    return [0, top > 0 ? top * 1.06 : 1];
  };
  return {
    width,
    height: plot.wide ? 340 : 260,
    cursor: { sync: { key: "step" }, points: { size: 6 } },
    scales: { x: { time: false }, y: plot.fromZero ? { range: fromZero } : {} },
    axes: [
      {
        ...axis,
        label: "step",
        size: 34,
        values: (self, splits) => splits.map((at) => (Number.isInteger(at) ? shortNumber(at) : "")),
      },
      { ...axis, label: plot.axis, size: axisSize },
    ],
    series: [{ label: "step", value: (self, step) => step ?? "–" }, ...plot.curves.map(seriesOf)],
  };
}

/** One panel per plot in `container`. `table` is columns by name; missing ones are empty. */
function drawPlots(container, plots, table) {
  let drawn = [];
  const columnsOf = (plot) => [
    table.step,
    ...plot.curves.map((curve) => table[curve.column] ?? table.step.map(() => null)),
  ];
  const build = () => {
    for (const { chart } of drawn) chart.destroy();
    container.replaceChildren();
    drawn = plots.map((plot) => {
      const panel = document.createElement("div");
      panel.className = plot.wide ? "plot wide" : "plot";
      const heading = document.createElement("h3");
      heading.textContent = plot.title;
      panel.append(heading);
      container.append(panel);
      const width = () => Math.max(200, panel.clientWidth - 26);
      const chart = new uPlot(optionsOf(plot, width()), columnsOf(plot), panel);
      new ResizeObserver(() => {
        if (chart.width !== width()) chart.setSize({ width: width(), height: chart.height });
      }).observe(panel);
      return { plot, chart };
    });
  };
  const redraw = () => {
    for (const { plot, chart } of drawn) chart.setData(columnsOf(plot));
  };
  build();
  darkScheme.addEventListener("change", build);
  return {
    replace(next) {
      table = next;
      redraw();
    },
    /** A row of a later step, or more about the last one. */
    append(row) {
      const same = table.step.at(-1) === row.step;
      for (const name of new Set([...Object.keys(table), ...Object.keys(row)])) {
        table[name] ??= table.step.map(() => null);
        if (!same) table[name].push(null);
        if (row[name] !== undefined) table[name][table[name].length - 1] = row[name];
      }
      redraw();
    },
  };
}

globalThis.sluice = {
  /** What the page was made with. */
  data: JSON.parse(document.getElementById("data").textContent),
  colourOf,
  darkScheme,
  drawPlots,
};
