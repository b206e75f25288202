// A headless Chromium over its debugging protocol, for the screenshots of the documents and for tests: open a page, run a
// line of JavaScript in it, wait until one is true, take a picture. No dependency: a process and a WebSocket.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Where Chromium is, if it is anywhere. */
export function findChromium(): string | undefined {
  const names = [process.env["CHROMIUM"], "chromium", "chromium-browser", "google-chrome"];
  return names.map((name) => name && Bun.which(name)).find((path) => typeof path === "string");
}

/** Quiet and offline: the flags keep it from asking for updates, and from needing a sandbox or a GPU. */
const flags = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-dev-shm-usage",
  "--hide-scrollbars",
  "--remote-debugging-port=0",
];

type Message = {
  id?: number;
  method?: string;
  params?: Record<string, unknown>;
  result?: unknown;
  error?: { message: string };
};

export class Browser {
  #process: Bun.Subprocess;
  #profile: string;
  #socket: WebSocket;
  #session = "";
  #serial = 0;
  #waiting = new Map<number, { resolve(result: unknown): void; reject(error: Error): void }>();
  /** Address of every request that the page has made. */
  readonly requests: string[] = [];
  /** What the page has complained about: exceptions, and what its content security policy refused. */
  readonly problems: string[] = [];

  /** Use `Browser.open`. */
  private constructor(child: Bun.Subprocess, profile: string, socket: WebSocket) {
    this.#process = child;
    this.#profile = profile;
    this.#socket = socket;
    socket.addEventListener("message", ({ data }) => this.#receive(JSON.parse(String(data)) as Message));
  }

  /** A page at `url`, loaded. */
  static async open(
    url: string,
    options: { chromium: string; scheme?: "light" | "dark"; width?: number; height?: number },
  ): Promise<Browser> {
    const { chromium, scheme = "light", width = 1280, height = 900 } = options;
    const profile = mkdtempSync(join(tmpdir(), "sluice-chromium-"));
    const command = [chromium, ...flags, `--user-data-dir=${profile}`, "about:blank"];
    const child = Bun.spawn(command, { stdin: "ignore", stdout: "ignore", stderr: "pipe" });
    const socket = new WebSocket(await debuggingAddress(child.stderr));
    await new Promise((resolve, reject) => {
      socket.addEventListener("open", resolve);
      socket.addEventListener("error", () => reject(new Error("Chromium does not answer")));
    });
    const browser = new Browser(child, profile, socket);
    const { targetId } = await browser.#call<{ targetId: string }>("Target.createTarget", { url: "about:blank" });
    const attach = { targetId, flatten: true };
    browser.#session = (await browser.#call<{ sessionId: string }>("Target.attachToTarget", attach)).sessionId;
    for (const domain of ["Page", "Network", "Runtime", "Log"]) await browser.#call(`${domain}.enable`);
    const features = [{ name: "prefers-color-scheme", value: scheme }];
    await browser.#call("Emulation.setEmulatedMedia", { features });
    await browser.resize(width, height);
    await browser.#call("Page.navigate", { url });
    await browser.until("document.readyState === 'complete' && location.href !== 'about:blank'");
    return browser;
  }

  async resize(width: number, height: number): Promise<void> {
    const metrics = { width, height, deviceScaleFactor: 1, mobile: false };
    await this.#call("Emulation.setDeviceMetricsOverride", metrics);
  }

  /** The value of an expression in the page. */
  async evaluate<T>(expression: string): Promise<T> {
    const asked = { expression, returnByValue: true, awaitPromise: true };
    const { result } = await this.#call<{ result: { value: T } }>("Runtime.evaluate", asked);
    return result.value;
  }

  /** Waits until an expression is true in the page. */
  async until(expression: string, timeoutMs = 20_000): Promise<void> {
    const end = performance.now() + timeoutMs;
    while (!(await this.evaluate<boolean>(`Boolean(${expression})`).catch(() => false))) {
      if (performance.now() > end) throw new Error(`waited ${timeoutMs} ms in vain for: ${expression}`);
      await Bun.sleep(50);
    }
  }

  /** A PNG of what is seen. */
  async screenshot(): Promise<Buffer> {
    const { data } = await this.#call<{ data: string }>("Page.captureScreenshot", { format: "png" });
    return Buffer.from(data, "base64");
  }

  async close(): Promise<void> {
    this.#socket.close();
    this.#process.kill();
    await this.#process.exited;
    // Its helpers may still be writing for a moment.
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #call<T>(method: string, params: object = {}): Promise<T> {
    const id = ++this.#serial;
    const session = this.#session === "" ? {} : { sessionId: this.#session };
    this.#socket.send(JSON.stringify({ id, method, params, ...session }));
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as (result: unknown) => void, reject });
    });
  }

  #receive({ id, method, params, result, error }: Message): void {
    if (method === "Network.requestWillBeSent") this.requests.push((params!["request"] as { url: string }).url);
    if (method === "Runtime.exceptionThrown") this.problems.push(JSON.stringify(params!["exceptionDetails"]));
    if (method === "Log.entryAdded") this.problems.push((params!["entry"] as { text: string }).text);
    const waiter = id === undefined ? undefined : this.#waiting.get(id);
    if (!waiter) return;
    this.#waiting.delete(id!);
    if (error) waiter.reject(new Error(error.message));
    else waiter.resolve(result);
  }
}

/** Chromium writes where it listens to its standard error. */
async function debuggingAddress(stderr: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string> {
  let text = "";
  const reader = stderr.getReader();
  const decoder = new TextDecoder();
  for (;;) {
    const { value, done } = await reader.read();
    text += decoder.decode(value);
    const address = /DevTools listening on (ws:\S+)/.exec(text)?.[1];
    if (address) return address;
    if (done) throw new Error(`Chromium ended at once: ${text.slice(-500)}`);
  }
}
