// The dashboard page: plots that grow with each event, four numbers, and the streams of the last step drawn as bars over
// time. The connection comes back by itself after a pause; every connection begins with the whole history.

const { colourOf, darkScheme } = sluice;
const plots = sluice.drawPlots(document.getElementById("plots"), sluice.data.plots, { step: [] });
const state = document.getElementById("state");
const phases = {
  load: ["colour-6", "load"],
  embed: ["colour-6", "embedding"],
  forward: ["colour-1", "forward"],
  loss: ["colour-4", "loss"],
  backward: ["colour-2", "backward"],
  update: ["colour-3", "update"],
  save: ["colour-6", "save"],
  generate: ["colour-5", "generate"],
};
let steps = 0;
let secondsPerStep;
let timeline;

// ---- numbers --------------------------------------------------------------------------------------------------------

function show(label, text) {
  document.querySelector(`[data-tile="${label}"]`).textContent = text;
}

function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(0)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

function showStep(row) {
  show("step", `${row.step} / ${steps}`);
  show("loss", row.loss === null ? "not a number" : row.loss.toFixed(4));
  show("tokens/s", Math.round(row.tokensPerSecond).toLocaleString("en"));
}

// ---- events ---------------------------------------------------------------------------------------------------------

const events = new EventSource("/events");
const on = (name, act) => events.addEventListener(name, (event) => act(JSON.parse(event.data)));

events.addEventListener("open", () => (state.textContent = "running"));
events.addEventListener("error", () => (state.textContent = "no connection; trying again"));
on("history", (history) => {
  steps = history.steps;
  plots.replace(history.table);
  const { loss = [] } = history.table;
  const last = loss.findLastIndex((value) => value !== null);
  const rowAt = (at) => Object.fromEntries(Object.entries(history.table).map(([name, column]) => [name, column[at]]));
  if (last >= 0) showStep(rowAt(last));
});
on("step", ({ row, seconds }) => {
  plots.append(row);
  showStep(row);
  secondsPerStep = (secondsPerStep ?? seconds) * 0.9 + seconds * 0.1;
  show("time left", duration((steps - row.step) * secondsPerStep));
});
on("evaluation", ({ row }) => plots.append(row));
on("timeline", (next) => {
  timeline = next;
  drawTimeline();
});
on("end", () => {
  events.close(); // or it would ask for a new connection for ever
  state.textContent = "the run has ended";
  show("time left", "done");
});

// ---- timeline -------------------------------------------------------------------------------------------------------

const panel = document.getElementById("timeline");
const canvas = panel.querySelector("canvas");
const note = document.getElementById("timeline-note");
const left = 120;
const laneHeight = 30;

function blockName(block) {
  return typeof block === "number" ? `block ${block}` : (block ?? "");
}

/** Round steps of time, about eight over the width. */
function tickStep(milliseconds) {
  const rough = milliseconds / 8;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
}

function drawTimeline() {
  if (!timeline) return;
  const { milliseconds, streams } = timeline;
  const width = panel.clientWidth - 26;
  const height = streams.length * laneHeight + 44;
  const scale = devicePixelRatio;
  Object.assign(canvas, { width: width * scale, height: height * scale });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px`, display: "block" });
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.font = "12px system-ui, sans-serif";
  const x = (time) => left + (time / milliseconds) * (width - left - 12);
  const bottom = streams.length * laneHeight;

  const step = tickStep(milliseconds);
  context.textAlign = "center";
  for (let index = 0; index * step <= milliseconds; index++) {
    context.fillStyle = colourOf("line");
    context.fillRect(Math.round(x(index * step)), 0, 1, bottom + 4);
    context.fillStyle = colourOf("quiet");
    context.fillText(String(Number((index * step).toPrecision(6))), x(index * step), bottom + 18);
  }
  context.fillText("time since the step began (ms)", (left + width) / 2, bottom + 38);

  context.textAlign = "left";
  for (const [lane, { name, busy, spans }] of streams.entries()) {
    const top = lane * laneHeight;
    context.fillStyle = colourOf("text");
    context.fillText(name, 0, top + 19);
    context.fillStyle = colourOf("quiet");
    context.textAlign = "right";
    context.fillText(`${Math.round(100 * busy)} %`, left - 14, top + 19);
    context.textAlign = "left";
    for (const span of spans) {
      context.fillStyle = colourOf(phases[span.phase][0]);
      context.fillRect(x(span.start), top + 5, Math.max(0.6, x(span.end) - x(span.start) - 0.4), laneHeight - 10);
    }
  }
  note.textContent = `Step ${timeline.step}, ${milliseconds.toFixed(1)} ms; the share beside a stream's name is how long it was busy.`;
  drawKey(new Set(streams.flatMap(({ spans }) => spans.map(({ phase }) => phase))));
}

function drawKey(used) {
  const entries = [...used].map((phase) => {
    const [colour, name] = phases[phase];
    const entry = document.createElement("span");
    const swatch = document.createElement("i");
    swatch.style.background = `var(--${colour})`;
    entry.append(swatch, name);
    return entry;
  });
  panel.querySelector(".key").replaceChildren(...entries);
}

/** What is under the pointer, in the canvas's title. */
canvas.addEventListener("mousemove", ({ offsetX, offsetY }) => {
  const stream = timeline?.streams[Math.floor(offsetY / laneHeight)];
  const time = ((offsetX - left) / (canvas.clientWidth - left - 12)) * (timeline?.milliseconds ?? 0);
  const span = stream?.spans.find(({ start, end }) => start <= time && time <= end);
  canvas.title = span
    ? `${stream.name}: ${phases[span.phase][1]} ${blockName(span.block)}, ${(span.end - span.start).toFixed(2)} ms`
    : "";
});

new ResizeObserver(drawTimeline).observe(panel);
darkScheme.addEventListener("change", drawTimeline);
