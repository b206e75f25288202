import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { join } from "node:path";
import { Browser, findChromium } from "../../scripts/browser.ts";
import { trainConfig } from "../../src/cli/train.ts";
import { parseConfig } from "../../src/run/config.ts";
import { Dashboard } from "../../src/view/dashboard.ts";
import type { Engine } from "../../src/native/runtime.ts";
import type { Command, Plan } from "../../src/plan/plan.ts";
import { readRun } from "../../src/keep/run-folder.ts";
import { timelineOf, type Timeline } from "../../src/view/timeline.ts";
import { temporaryDirectory } from "../support/models.ts";
import { stepMetrics, tinyRecipe, trainApart } from "../support/runs.ts";

type Seen = { event: string; data: Record<string, unknown> };

/** Server-sent events as they come; ends when the server closes the connection. */
async function* eventsOf(url: string): AsyncGenerator<Seen> {
  const response = await fetch(`${url}events`);
  expect(response.headers.get("content-type")).toBe("text/event-stream");
  const decoder = new TextDecoder();
  let text = "";
  for await (const bytes of response.body!) {
    text += decoder.decode(bytes, { stream: true });
    const whole = text.split("\n\n");
    text = whole.pop()!;
    for (const one of whole) {
      const [, event, data] = /^event: (\w+)\ndata: (.*)$/.exec(one)!;
      yield { event: event!, data: JSON.parse(data!) };
    }
  }
}

/** The dashboard of a run of which two steps are over. */
function open(): Dashboard {
  const evaluations = [{ step: 0, loss: 5, perplexity: 148, validTokens: 9 }];
  const history = { steps: [stepMetrics(1), stepMetrics(2)], evaluations };
  return new Dashboard({ name: "<b>run</b>", model: "models/tiny", steps: 10, port: true, history });
}

/** The commands of step 7, with what a timeline needs. */
function commandsOf(list: [stream: string, phase: string, block: number][]): Command[] {
  return list.map(([stream, phase, block]) => ({ stream, label: { step: 7, phase, block } })) as unknown as Command[];
}

/** Start and end in milliseconds as the executor's nanoseconds. */
function timesOf(...times: [start: number, end: number][]) {
  return times.map(([start, end]) => ({ start: 1e9 + start * 1e6, end: 1e9 + end * 1e6 }));
}

const noEngine = {} as Engine;

describe("events", () => {
  test("begin with the history, go on with each step and evaluation, end with the run", async () => {
    const dashboard = open();
    const events = eventsOf(dashboard.url);
    const next = async () => (await events.next()).value as Seen;
    const history = await next();
    expect(history.event).toBe("history");
    expect(history.data["steps"]).toBe(10);
    expect(history.data["table"]).toMatchObject({ step: [0, 1, 2], loss: [null, 4, 4 / Math.sqrt(2)] });
    dashboard.step(stepMetrics(3), noEngine, undefined);
    dashboard.evaluation({ step: 3, loss: 1.5, perplexity: 4.5, validTokens: 9 });
    dashboard.step(stepMetrics(4, { loss: NaN }), noEngine, undefined);
    expect(await next()).toMatchObject({ event: "step", data: { row: { step: 3, loss: 4 / Math.sqrt(3) } } });
    expect(await next()).toEqual({ event: "evaluation", data: { row: { step: 3, evaluation: 1.5 } } });
    expect(await next()).toMatchObject({ event: "step", data: { row: { step: 4, loss: null } } });
    await dashboard.close();
    expect(await next()).toEqual({ event: "end", data: {} });
    expect((await events.next()).done).toBe(true);
    expect(fetch(dashboard.url)).rejects.toThrow();
  });

  test("a page that comes later gets what it missed; one that leaves is forgotten", async () => {
    const dashboard = open();
    const early = eventsOf(dashboard.url);
    await early.next();
    await early.return(undefined);
    dashboard.step(stepMetrics(3), noEngine, undefined);
    const late = eventsOf(dashboard.url);
    const { data } = (await late.next()).value as Seen;
    expect((data["table"] as { step: number[] }).step).toEqual([0, 1, 2, 3]);
    await dashboard.close();
  });
});

describe("only a browser here, on our own page, gets an answer", () => {
  let dashboard: Dashboard;
  beforeAll(() => void (dashboard = open()));
  afterAll(() => dashboard.close());
  const ask = async (path: string, headers: Record<string, string> = {}, method = "GET") => {
    const response = await fetch(dashboard.url.slice(0, -1) + path, { headers, method });
    // The stream of events would not end.
    if (response.status === 200 && path === "/events") await response.body!.cancel();
    else await response.text();
    return response.status;
  };

  test("Host", async () => {
    const port = new URL(dashboard.url).port;
    for (const host of [`127.0.0.1:${port}`, `localhost:${port}`, "localhost:9999", "[::1]:1"])
      expect([host, await ask("/", { host })]).toEqual([host, 200]);
    for (const host of [
      "evil.example",
      `evil.example:${port}`,
      "127.0.0.1.evil.example",
      "localhost.evil:1",
      "10.0.0.1",
    ])
      for (const path of ["/", "/events"]) expect([host, await ask(path, { host })]).toEqual([host, 403]);
  });

  test("Origin", async () => {
    const own = dashboard.url.slice(0, -1);
    expect(await ask("/events", { origin: own })).toBe(200);
    for (const origin of ["null", "https://evil.example", own.replace("http:", "https:"), "http://127.0.0.1:1"])
      for (const path of ["/", "/events"]) expect([origin, await ask(path, { origin })]).toEqual([origin, 403]);
    expect(await ask("/events", { "sec-fetch-site": "cross-site" })).toBe(403);
  });

  test("two paths, GET, no files", async () => {
    for (const path of ["/index.html", "/events/", "/metrics.jsonl", "/config.json", "/..%2f..%2fpackage.json", "/%2e"])
      expect([path, await ask(path)]).toEqual([path, path === "/%2e" ? 200 : 404]);
    for (const method of ["POST", "PUT", "DELETE", "OPTIONS"])
      expect([method, await ask("/", {}, method)]).toEqual([method, 405]);
  });

  test("the page escapes, and its headers let it talk to nobody else", async () => {
    const response = await fetch(dashboard.url);
    expect(response.headers.get("content-security-policy")).toContain("default-src 'none'");
    expect(response.headers.get("content-security-policy")).toContain("connect-src 'self'");
    expect(response.headers.get("access-control-allow-origin")).toBeNull();
    const page = await response.text();
    expect(page).toContain("<h1>&lt;b&gt;run&lt;/b&gt;</h1>");
    expect(page).not.toMatch(/(src|href)="(?!data:)/);
  });

  test("loopback only", () => {
    expect(new URL(dashboard.url).hostname).toBe("127.0.0.1");
    const { port } = new URL(dashboard.url);
    const taken = () =>
      new Dashboard({ name: "", model: "", steps: 1, port: Number(port), history: { steps: [], evaluations: [] } });
    expect(taken).toThrow(`dashboard: cannot listen on port ${port}`);
  });
});

test("the timeline joins neighbours of one phase and block, and counts busy time", () => {
  const commands = commandsOf([
    ["compute", "forward", 0],
    ["compute", "forward", 0],
    ["compute", "forward", 1],
    ["upload", "load", 1],
    ["host", "update", 0], // did not run
  ]);
  const times = timesOf([0, 4], [4, 5], [5, 10], [1, 3], [NaN, NaN]);
  expect(timelineOf(commands, times)).toEqual({
    step: 7,
    milliseconds: 10,
    streams: [
      {
        name: "compute",
        busy: 1,
        spans: [
          { start: 0, end: 5, phase: "forward", block: 0 },
          { start: 5, end: 10, phase: "forward", block: 1 },
        ],
      },
      { name: "upload", busy: 0.2, spans: [{ start: 1, end: 3, phase: "load", block: 1 }] },
    ],
  });
  expect(timelineOf(commands.slice(4), times.slice(4))).toBeUndefined();
});

test(
  "a real run: every step arrives, with the streams of a step that is over; the run ends by itself",
  async () => {
    using directory = temporaryDirectory();
    const output = join(directory.path, "run");
    const steps = 60;
    const run = trainApart({ ...(await tinyRecipe(directory.path)), output, steps, dashboard: true });
    const printed = new Printed(run.stdout);
    const [, url] = await printed.until(/dashboard: (http:\S+)/);
    const seen: Seen[] = [];
    for await (const event of eventsOf(url!)) seen.push(event);
    await printed.rest();
    expect(await run.exited).toBe(0);
    expect(seen.at(-1)!.event).toBe("end");
    const first = (seen[0]!.data["table"] as { step: number[] }).step.filter((step) => step > 0);
    const later = seen
      .filter(({ event }) => event === "step")
      .map(({ data }) => (data["row"] as { step: number }).step);
    expect([...first, ...later]).toEqual(Array.from({ length: steps }, (_, index) => index + 1));
    expect(readRun(output).steps).toHaveLength(steps);
    const timelines = seen.filter(({ event }) => event === "timeline").map(({ data }) => data as unknown as Timeline);
    expect(timelines.length).toBeGreaterThan(0);
    for (const { streams, milliseconds } of timelines) {
      expect(streams.map(({ name }) => name)).toEqual(["compute", "upload", "download", "host"]);
      const phases = new Set(streams.flatMap(({ spans }) => spans.map(({ phase }) => phase)));
      expect([...phases]).toEqual(expect.arrayContaining(["backward", "forward", "loss", "update"]));
      for (const { start, end } of streams.flatMap(({ spans }) => spans)) {
        expect(start).toBeGreaterThanOrEqual(0);
        expect(end).toBeLessThanOrEqual(milliseconds + 1e-6);
      }
    }
  },
  patiently(60_000),
);

/** What a process prints, read to its end so that it can always go on. */
class Printed {
  #chunks: AsyncIterator<Uint8Array>;
  #text = "";

  constructor(stream: ReadableStream<Uint8Array>) {
    this.#chunks = stream[Symbol.asyncIterator]();
  }

  async until(pattern: RegExp): Promise<string[]> {
    for (;;) {
      const found = pattern.exec(this.#text);
      if (found) return [...found];
      const { value, done } = await this.#chunks.next();
      if (done) throw new Error(`${pattern} was not printed: ${this.#text}`);
      this.#text += new TextDecoder().decode(value);
    }
  }

  async rest(): Promise<void> {
    while (!(await this.#chunks.next()).done);
  }
}

const chromium = findChromium();
if (!chromium)
  console.log("skipped: dashboard in a browser (no chromium on PATH; apt-get install chromium, or set CHROMIUM)");
test.skipIf(!chromium)(
  "in headless Chromium: plots, numbers and streams are drawn, nobody else is asked",
  async () => {
    const dashboard = open();
    await using browser = await Browser.open(dashboard.url, { chromium: chromium!, scheme: "dark" });
    const text = (selector: string) => browser.evaluate<string>(`document.querySelector("${selector}").textContent`);
    await browser.until("document.querySelectorAll('.plot canvas').length === 5");
    await browser.until("document.querySelector('[data-tile=step]').textContent === '2 / 10'");
    expect(await browser.evaluate("getComputedStyle(document.body).backgroundColor")).toBe("rgb(20, 23, 27)");
    const legends = await browser.evaluate<string>("document.getElementById('plots').innerText");
    for (const label of ["train, running mean", "evaluation", "learning rate", "gradient norm", "tokens/s", "device"])
      expect(legends).toContain(label);

    const plan = commandsOf([
      ["compute", "forward", 0],
      ["compute", "backward", 0],
      ["host", "update", 0],
    ]);
    const engine = { spans: () => timesOf([0, 4], [5, 9], [6, 10]) } as unknown as Engine;
    dashboard.step(stepMetrics(3), engine, { commands: plan } as Plan);
    await browser.until("document.querySelector('#timeline .key i')");
    expect(await text("#timeline .key")).toBe("forwardbackwardupdate");
    expect(await text("#timeline-note")).toStartWith("Step 7, 10.0 ms");
    expect(await text("[data-tile=step]")).toBe("3 / 10");
    const painted = await browser.evaluate<string[]>(`(() => {
    const canvas = document.querySelector('#timeline canvas');
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    const colours = Array.from({ length: data.length / 4 }, (_, at) => data.slice(at * 4, at * 4 + 3).join(' '));
    return [...new Set(colours)];
  })()`);
    // Forward, backward and update in the colours of the dark page.
    expect(painted).toEqual(expect.arrayContaining(["108 178 240", "255 154 85", "95 207 141"]));
    await dashboard.close();
    await browser.until("document.getElementById('state').textContent === 'the run has ended'");
    const own = (address: string) => address.startsWith(dashboard.url) || address.startsWith("data:");
    expect(browser.requests.filter((address) => !own(address))).toEqual([]);
    expect(browser.problems).toEqual([]);
  },
  patiently(60_000),
);

test("--dashboard needs no value; the config takes true, false or a port", async () => {
  const flags = (...args: string[]): Promise<object> => trainConfig(args);
  expect(await flags("--dashboard", "--steps", "3", "--tensorboard")).toEqual({
    dashboard: true,
    steps: 3,
    tensorboard: true,
  });
  expect(await flags("--dashboard", "7777", "--tensorboard=false")).toEqual({
    dashboard: 7777,
    tensorboard: false,
  });
  const parse = (dashboard: unknown) => parseConfig({ model: "m", data: "d", output: "o", dashboard });
  expect((await parse(7777)).dashboard).toBe(7777);
  expect(parse(70_000)).rejects.toThrow("dashboard must be true, false or a port from 1 to 65535 (was 70000)");
});
