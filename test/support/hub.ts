// A stand-in for the Hugging Face hub on 127.0.0.1, and for the storage on another origin that it sends large files to.
// It answers what @huggingface/hub asks: a model's info, the list of its files, and ranges of their bytes. A test may
// answer a request itself (`answer`), break or stall the storage's next transfer, and read what was asked for.

import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface ListedFile {
  type: string;
  path: string;
  size: number;
  oid: string;
  lfs?: { oid: string; size: number; pointerSize: number };
}

const lfsBytesMin = 100_000;

/** The hub's listing of a file: large ones have a SHA-256, small ones git's blob id. */
export function listed(path: string, content: Uint8Array): ListedFile {
  const size = content.length;
  const oid = createHash("sha1").update(`blob ${size}\0`).update(content).digest("hex");
  const sha256 = createHash("sha256").update(content).digest("hex");
  return {
    type: "file",
    path,
    size,
    oid,
    ...(size >= lfsBytesMin && { lfs: { oid: sha256, size, pointerSize: 130 } }),
  };
}

export class StandInHub implements Disposable {
  readonly id = "acme/tiny";
  readonly #kind: "models" | "datasets";
  readonly url: string;
  commit = "c".repeat(40);
  files: Map<string, Uint8Array>;
  /** What the listing says; by default the truth about `files`. */
  listing: ListedFile[] | undefined;
  /** Answers a request in the hub's place, unless it returns nothing. */
  answer: (path: string, request: Request) => Response | undefined = () => undefined;
  /** What befalls the storage's next transfers after so many bytes: the end, silence, or the rest in slow pieces. */
  interruptions: { after: number; how: "break" | "stall" | "trickle" }[] = [];
  /** `info`, `list`, or a file's name with the range asked for, and the token in front of it. */
  requests: string[] = [];
  stored: string[] = [];
  readonly #server: Bun.Server<undefined>;
  readonly #storage = createServer((request, response) => this.#serveStored(request, response));

  private constructor(files: Record<string, Uint8Array>, kind: "models" | "datasets") {
    this.#kind = kind;
    this.files = new Map(Object.entries(files));
    this.#server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: (request) => this.#serve(request) });
    this.url = `http://127.0.0.1:${this.#server.port}`;
  }

  static async start(files: Record<string, Uint8Array>, kind: "models" | "datasets" = "models"): Promise<StandInHub> {
    const hub = new StandInHub(files, kind);
    await new Promise<void>((resolve) => hub.#storage.listen(0, "127.0.0.1", resolve));
    return hub;
  }

  /** Names of the files that were asked for since the last call, each once. */
  takeFileNames(): string[] {
    const names = this.requests.map((request) => request.split(" ")[0]!).filter((name) => /\./.test(name));
    this.requests = [];
    return [...new Set(names)].sort();
  }

  [Symbol.dispose](): void {
    void this.#server.stop(true);
    this.#storage.closeAllConnections();
    this.#storage.close();
  }

  #serve(request: Request): Response {
    const path = decodeURIComponent(new URL(request.url).pathname);
    const own = this.answer(path, request);
    if (own !== undefined) return own;
    const token = request.headers.get("authorization")?.replace("Bearer ", " ") ?? "";
    if (path.startsWith(`/api/${this.#kind}/${this.id}/revision/`)) {
      this.requests.push(`info${token}`);
      return Response.json({ _id: "1", id: this.id, sha: this.commit, lastModified: "2026-01-01", gated: false });
    }
    if (path === `/api/${this.#kind}/${this.id}/tree/${this.commit}`) {
      this.requests.push(`list${token}`);
      return this.#list(request);
    }
    const name = path.replace(`${this.#kind === "models" ? "" : "/datasets"}/${this.id}/resolve/${this.commit}/`, "");
    const content = this.files.get(name);
    if (content === undefined) return new Response("Entry not found", { status: 404 });
    this.requests.push(`${name} ${request.headers.get("range") ?? "whole"}${token}`);
    const { oid, lfs } = listed(name, content);
    const headers = { ETag: `"${oid}"`, "X-Repo-Commit": this.commit };
    if (lfs === undefined) return ranged(content, request.headers.get("range"), headers);
    const location = `http://127.0.0.1:${(this.#storage.address() as AddressInfo).port}/${name}`;
    const linked = { "X-Linked-ETag": `"${lfs.oid}"`, "X-Linked-Size": String(lfs.size) };
    return new Response(null, { status: 302, headers: { ...headers, ...linked, Location: location } });
  }

  /** Two pages, as the hub's list has from a thousand files on. */
  #list(request: Request): Response {
    const all = this.listing ?? [...this.files].map(([name, content]) => listed(name, content));
    const url = new URL(request.url);
    if (url.searchParams.has("cursor")) return Response.json(all.slice(2));
    url.searchParams.set("cursor", "2");
    return Response.json(all.slice(0, 2), { headers: { Link: `<${url.href}>; rel="next"` } });
  }

  #serveStored(request: IncomingMessage, response: ServerResponse): void {
    const name = request.url!.slice(1);
    const range = request.headers.range ?? null;
    if (range !== "bytes=0-0")
      this.stored.push(`${name} ${range ?? "whole"} ${request.headers.authorization ?? "no token"}`);
    const content = this.files.get(name)!;
    const [start, end] = bounds(content, range);
    const part = content.subarray(start, end);
    response.writeHead(range === null ? 200 : 206, {
      ETag: '"of the storage"',
      "Content-Length": part.length,
      ...(range !== null && { "Content-Range": `bytes ${start}-${end - 1}/${content.length}` }),
    });
    const interruption = range === "bytes=0-0" ? undefined : this.interruptions.shift();
    if (interruption === undefined) {
      response.end(part);
      return;
    }
    response.write(part.subarray(0, interruption.after));
    // The bytes before the break must reach the reader first, or there would be nothing to continue.
    if (interruption.how === "break") setTimeout(() => response.destroy(), 50);
    if (interruption.how === "trickle") void trickle(response, part.subarray(interruption.after));
  }
}

async function trickle(response: ServerResponse, rest: Uint8Array): Promise<void> {
  for (let piece = 0; piece < 8; piece++) {
    await Bun.sleep(100);
    response.write(rest.subarray((piece * rest.length) / 8, ((piece + 1) * rest.length) / 8));
  }
  response.end();
}

function bounds(content: Uint8Array, range: string | null): [number, number] {
  const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(range ?? "") ?? [];
  return from === undefined ? [0, content.length] : [Number(from), Math.min(Number(to) + 1, content.length)];
}

function ranged(content: Uint8Array, range: string | null, headers: Record<string, string>): Response {
  const [start, end] = bounds(content, range);
  const body = content.slice(start, end);
  if (range === null) return new Response(body, { headers });
  const place = `bytes ${start}-${end - 1}/${content.length}`;
  return new Response(body, { status: 206, headers: { ...headers, "Content-Range": place } });
}
