// How Sluice talks to a Hugging Face hub: the `fetch` that @huggingface/hub is given. It bounds every wait and turns each
// refusal into a sentence with a remedy, which the library's own errors ("Api error with status 401. URL: ...") lack.

import { huggingFaceHome } from "../words/cache.ts";
import { join } from "node:path";
import { ModelError } from "../words/errors.ts";
import { formatDuration } from "../words/format.ts";

/** Which model or dataset is asked for, and of whom. */
export interface HubModel {
  kind: "model" | "dataset";
  /** `OWNER/NAME` */
  id: string;
  /** A branch, a tag or a commit. */
  revision: string;
  /** Without a slash at its end. */
  endpoint: string;
  token: string | undefined;
  /** How long the hub may send nothing before the connection counts as broken. */
  silenceMsMax: number;
}

/** The hub refused a request, or did not answer it. */
export class HubError extends ModelError {
  /** Undefined when there was no answer, or only a part of one. */
  readonly status: number | undefined;

  constructor(message: string, status?: number) {
    super(message);
    this.status = status;
  }

  /** Nobody answered properly: what is cached may be used instead, and the same request may work a moment later. */
  get isOutage(): boolean {
    return this.status === undefined || this.status >= 500;
  }
}

export function hubEndpoint(): string {
  return (process.env["HF_ENDPOINT"] || "https://huggingface.co").replace(/\/+$/, "");
}

export function isOffline(): boolean {
  return /^(1|on|yes|true)$/i.test(process.env["HF_HUB_OFFLINE"] ?? "");
}

/** The user's access token from where Hugging Face tools look for it. */
export async function readToken(): Promise<string | undefined> {
  const { HF_TOKEN, HF_TOKEN_PATH } = process.env;
  const file = Bun.file(HF_TOKEN_PATH || join(huggingFaceHome(), "token"));
  const token = (HF_TOKEN || ((await file.exists()) ? await file.text() : "")).trim();
  if (token && !/^hf_\w+$/.test(token))
    throw new ModelError(
      `${HF_TOKEN ? "HF_TOKEN" : file.name}: holds no access token, one begins with "hf_"; correct it or remove it`,
    );
  return token || undefined;
}

/** Pages of one list of files, and bytes of one answer, at most: far beyond what any repository has. */
const pagesMost = 1000;
const answerBytesMost = 64 << 20;

/** Requests that belong together; disposing ends those that still run. */
export class Connection implements Disposable {
  /** What every call of the library gets. */
  readonly parameters: { hubUrl: string; fetch: typeof fetch; accessToken?: string };
  /** The last refusal. `WebBlob.stream` passes on no more of an error than its text, so it is kept here. */
  failure: HubError | undefined;
  readonly #model: HubModel;
  readonly #controller = new AbortController();
  readonly #silence: Timer;

  constructor(model: HubModel) {
    this.#model = model;
    this.#silence = setTimeout(() => this.#controller.abort(), model.silenceMsMax);
    const request = (input: Parameters<typeof fetch>[0], init?: RequestInit) => this.#request(input, init);
    this.parameters = {
      hubUrl: model.endpoint,
      fetch: request as typeof fetch, // Bun's `preconnect` is never called
      ...(model.token === undefined ? {} : { accessToken: model.token }),
    };
  }

  /** Call it for every piece that arrives. */
  heard(): void {
    this.#silence.refresh();
  }

  /** No answer, or the answer broke off. */
  lost(cause: unknown): HubError {
    const { kind, id, endpoint, silenceMsMax } = this.#model;
    const { code, message } = cause as NodeJS.ErrnoException;
    const reason = this.#controller.signal.aborted
      ? `nothing came for ${formatDuration(silenceMsMax / 1000)}`
      : (code ?? message);
    return new HubError(
      `${id}: ${endpoint} cannot be reached (${reason}); connect to the network and run again, or ${INSTEAD[kind]}`,
    );
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#silence);
    this.#controller.abort();
  }

  async #request(input: Parameters<typeof fetch>[0], init?: RequestInit): Promise<Response> {
    this.heard();
    const url = new URL(input instanceof Request ? input.url : String(input));
    const isOwn = url.origin === new URL(this.#model.endpoint).origin;
    const headers = new Headers(init?.headers);
    if (!isOwn) headers.delete("Authorization"); // the next page that an answer names may be on somebody else's machine
    if (isOwn && url.searchParams.has("cursor")) this.#turnPage(url.href);
    let response: Response;
    try {
      response = await fetch(input, { ...init, headers, signal: this.#controller.signal });
    } catch (cause) {
      throw (this.failure = this.lost(cause));
    }
    this.heard();
    if (!response.ok) throw (this.failure = refusal(this.#model, response));
    const unpacks = response.headers.has("content-encoding");
    return unpacks || url.pathname.startsWith("/api/") ? this.#limited(response) : response;
  }

  /** Lists of files come in pages; they end, and none comes twice. */
  #turnPage(page: string): void {
    const { id, endpoint } = this.#model;
    if (this.#pages.has(page) || this.#pages.size === pagesMost)
      throw (this.failure = new HubError(
        `${id}: the list of files that ${endpoint} gives has no end; do not use it if it stays so`,
      ));
    this.#pages.add(page);
  }
  #pages = new Set<string>();

  /** An answer that is read whole, or unpacked on the way, may not become larger than any honest one. */
  #limited(response: Response): Response {
    let bytes = 0;
    const { id, endpoint } = this.#model;
    const counted = response.body?.pipeThrough(
      new TransformStream<Uint8Array, Uint8Array>({
        transform: (chunk, controller) => {
          bytes += chunk.length;
          if (bytes <= answerBytesMost) return controller.enqueue(chunk);
          this.failure = new HubError(
            `${id}: an answer of ${endpoint} is larger than ${answerBytesMost >> 20} MiB; do not use it if it stays so`,
          );
          controller.error(this.failure);
        },
      }),
    );
    const limited = new Response(counted, response);
    return Object.defineProperty(limited, "url", { value: response.url });
  }
}

const INSTEAD = { model: "give a model directory", dataset: "give files on this machine" };

function refusal(
  { kind, id, revision, endpoint, token }: HubModel,
  { status, statusText, headers }: Response,
): HubError {
  const because = (sentence: string) => new HubError(`${id}: ${sentence}`, status);
  switch (status) {
    case 401: // also the answer for a model that does not exist, when no token was sent
    case 403:
      return because(
        `${endpoint} refuses access (${status}${token ? ", with your token" : ""}); check the name, accept the licence at ${endpoint}/${kind === "dataset" ? "datasets/" : ""}${id} if the ${kind} is gated, and set HF_TOKEN to a token that may read it`,
      );
    case 404:
      return headers.get("X-Error-Code") === "RevisionNotFound"
        ? because(
            `has no revision ${JSON.stringify(revision)} on ${endpoint} (404); name a branch, a tag or a full commit`,
          )
        : because(
            `no such ${kind} on ${endpoint} (404); check the name${kind === "model" ? ", or did you mean a directory? There is none of that name here" : ""}`,
          );
    case 429: {
      const seconds = Number(headers.get("Retry-After"));
      const pause = seconds > 0 ? formatDuration(seconds) : "a few minutes";
      return because(
        `${endpoint} asks for fewer requests (429); wait ${pause} and run again, what has arrived is kept${token ? "" : ", or set HF_TOKEN for a higher limit"}`,
      );
    }
    default:
      return because(`${endpoint} answered ${status} ${statusText}; run again later, or ${INSTEAD[kind]}`);
  }
}
