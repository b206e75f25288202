// `--dashboard`: a run's curves and the stream timeline of its last step, live in a browser on the same machine. The server
// answers two paths, the page and its events, and nothing else: it reads no file by name, takes no input, and stops with
// the run. It listens on loopback only. Host and Origin are checked, because any web page that the user has open could
// otherwise ask 127.0.0.1 too, under its own name (Origin) or one that it points there (Host, DNS rebinding).
//
// Without `dashboard` none of this is imported. With it, a step costs one JSON line per open page; the timeline is only
// computed while somebody looks, once a second at most.

import { NativeError, SluiceError } from "../words/errors.ts";
import type { EvaluationMetrics, StepMetrics } from "../keep/metrics.ts";
import type { Engine } from "../native/runtime.ts";
import type { Plan } from "../plan/plan.ts";
import { RunningMean, evaluationRow, meanWindow, runPlots, stepRow, table, thin, type Row } from "./curves.ts";
import { html } from "./html.ts";
import { contentSecurityPolicy, renderPage } from "./page.ts";
import { timelineOf } from "./timeline.ts";

export interface DashboardOptions {
  /** In the heading. */
  name: string;
  model: string;
  /** Length of the whole run, in steps. */
  steps: number;
  /** true: any free one. */
  port: number | true;
  /** What an earlier part of the run left, when it is resumed. */
  history: { steps: readonly StepMetrics[]; evaluations: readonly EvaluationMetrics[] };
}

type Listener = ReadableStreamDefaultController<string>;

const loopback = "127.0.0.1";
const hostNames = new Set([loopback, "localhost", "[::1]"]);
/** Pages open at once; each keeps a connection. */
const listenersMax = 16;
/** Events that a page may leave unread, asleep in the background, before its connection is closed. */
const unreadMax = 256;
const timelineEveryMs = 1000;

export class Dashboard {
  readonly url: string;
  #options: DashboardOptions;
  #server: Bun.Server<undefined>;
  #page: string;
  #listeners = new Set<Listener>();
  #mean: RunningMean;
  #steps: Row[];
  #evaluations: Row[];
  #timeline: unknown;
  #timelineAt = -Infinity;

  constructor(options: DashboardOptions) {
    const { name, model, steps, port, history } = options;
    this.#options = options;
    this.#mean = new RunningMean(meanWindow(steps));
    this.#steps = history.steps.map((metrics) => stepRow(metrics, this.#mean.push(metrics.loss)));
    this.#evaluations = history.evaluations.map(evaluationRow);
    this.#page = dashboardPage(name, model);
    this.#server = serve(port === true ? 0 : port, (request, server) => this.#answer(request, server));
    this.url = `http://${loopback}:${this.#server.port}/`;
  }

  /** Shows a finished step. `previous` is the plan of the step before, of which every command is done by now. */
  step(metrics: StepMetrics, engine: Engine, previous: Plan | undefined): void {
    const row = stepRow(metrics, this.#mean.push(metrics.loss));
    this.#steps.push(row);
    if (this.#listeners.size === 0) return;
    this.#send("step", { row, seconds: metrics.seconds });
    const now = performance.now();
    if (previous === undefined || now - this.#timelineAt < timelineEveryMs) return;
    this.#timelineAt = now;
    this.#timeline = spansOf(engine, previous);
    if (this.#timeline !== undefined) this.#send("timeline", this.#timeline);
  }

  evaluation(metrics: EvaluationMetrics): void {
    const row = evaluationRow(metrics);
    this.#evaluations.push(row);
    this.#send("evaluation", { row });
  }

  /** Tells open pages that the run is over, closes their connections and frees the port. */
  async close(): Promise<void> {
    this.#send("end", {});
    for (const listener of this.#listeners) this.#drop(listener);
    // What was just sent gets a moment to leave; a page that does not read it is not waited for.
    await Promise.race([this.#server.stop(), Bun.sleep(200)]);
    await this.#server.stop(true);
  }

  #answer(request: Request, server: Bun.Server<undefined>): Response {
    const refusal = refuse(request);
    if (refusal) return refusal;
    const { pathname } = new URL(request.url);
    if (pathname === "/") return respond(this.#page, "text/html; charset=utf-8");
    if (pathname !== "/events") return respond("not found", "text/plain", 404);
    if (this.#listeners.size >= listenersMax) return respond("too many pages are open", "text/plain", 503);
    server.timeout(request, 0); // it stays open as long as the run
    return respond(this.#listen(), "text/event-stream");
  }

  /** A stream of events that begins with everything so far. */
  #listen(): ReadableStream<string> {
    let own: Listener;
    return new ReadableStream<string>({
      start: (controller) => {
        own = controller;
        this.#listeners.add(own);
        const rows = [...thin(this.#steps), ...this.#evaluations];
        own.enqueue(eventText("history", { table: table(rows), steps: this.#options.steps }));
        if (this.#timeline !== undefined) own.enqueue(eventText("timeline", this.#timeline));
      },
      cancel: () => void this.#listeners.delete(own),
    });
  }

  #drop(listener: Listener): void {
    this.#listeners.delete(listener);
    listener.close();
  }

  #send(event: string, data: unknown): void {
    const text = eventText(event, data);
    for (const listener of this.#listeners) {
      if (listener.desiredSize! > -unreadMax) listener.enqueue(text);
      else this.#drop(listener); // it comes back, and begins with the history
    }
  }
}

/** Numbers that are none (a loss that diverged) become null, which JSON has a word for. */
function eventText(event: string, data: unknown): string {
  return `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}

/** The executor forgets old plans when new ones need their place; then there is no timeline this time. */
function spansOf(engine: Engine, plan: Plan): unknown {
  try {
    return timelineOf(plan.commands, engine.spans(plan));
  } catch (error) {
    if (error instanceof NativeError) return undefined;
    throw error;
  }
}

function serve(port: number, fetch: (request: Request, server: Bun.Server<undefined>) => Response) {
  try {
    // Outside of development Bun shares a port with whoever else wants it, unless told not to.
    return Bun.serve({ hostname: loopback, port, fetch, development: false, reusePort: false });
  } catch (cause) {
    throw new SluiceError(
      `dashboard: cannot listen on port ${port} (${(cause as Error).message}); choose another, or \`dashboard: true\` for any free one`,
    );
  }
}

/** Only a browser on this machine, looking at our own page, gets an answer. */
function refuse(request: Request): Response | undefined {
  const host = request.headers.get("host") ?? "";
  const origin = request.headers.get("origin");
  const name = host.replace(/:\d+$/, "");
  // Any port: through an ssh tunnel the browser's is not ours.
  if (!hostNames.has(name)) return respond("refused: not asked for by a loopback name", "text/plain", 403);
  if (origin !== null && origin !== `http://${host}`)
    return respond("refused: asked for by another page", "text/plain", 403);
  if (request.headers.get("sec-fetch-site") === "cross-site")
    return respond("refused: asked for by another page", "text/plain", 403);
  return request.method === "GET" ? undefined : respond("only GET", "text/plain", 405);
}

function respond(body: string | ReadableStream, type: string, status = 200): Response {
  const headers = {
    "content-type": type,
    "cache-control": "no-store",
    "content-security-policy": `${contentSecurityPolicy(true)}; frame-ancestors 'none'`,
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
  };
  return new Response(body, { status, headers });
}

function dashboardPage(name: string, model: string): string {
  const tiles = ["step", "loss", "tokens/s", "time left"];
  const body = html`
    <h1>${name}</h1>
    <p class="quiet">${model} · <span id="state">connecting</span></p>
    <div class="tiles">
      ${tiles.map((label) => html`<div class="tile"><b data-tile="${label}">–</b><span>${label}</span></div>`)}
    </div>
    <div class="plots" id="plots"></div>
    <div class="panel" id="timeline">
      <h3>Streams in one step</h3>
      <p class="quiet" id="timeline-note">The timeline of a step appears here while the run goes on.</p>
      <canvas></canvas>
      <div class="key"></div>
    </div>
  `;
  return renderPage({
    title: `${name}: Sluice`,
    body,
    data: { plots: runPlots },
    script: "dashboard.js",
    connects: true,
  });
}
