// Models by their hub name, against a stand-in hub on this machine: what is fetched and what is not, how a broken transfer
// continues, and the sentence for every way in which it can fail. Nothing here reaches the outside.

import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join, relative } from "node:path";
import { loadTokenizer } from "../../src/data/text/tokenizer.ts";
import { ModelError } from "../../src/words/errors.ts";
import type { ResolveOptions } from "../../src/io/hub-download.ts";
import { resolveModel } from "../../src/models/hub.ts";
import { openModel } from "../../src/models/open.ts";
import { listed, StandInHub } from "../support/hub.ts";
import { fixtures, temporaryDirectory } from "../support/models.ts";

const fixture = (name: string) => new Uint8Array(readFileSync(join(fixtures, "qwen3-tiny", name)));
const needed = [
  "chat_template.jinja",
  "config.json",
  "generation_config.json",
  "model.safetensors",
  "tokenizer.json",
  "tokenizer_config.json",
];
const text = (content: string) => new TextEncoder().encode(content);
const weights = fixture("model.safetensors");
const weightsTag = listed("model.safetensors", weights).lfs!.oid;

const variables = ["HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"];
const before = Object.fromEntries([...variables, "HF_TOKEN_PATH", "NO_PROXY"].map((name) => [name, process.env[name]]));
let hub: StandInHub;
let home: ReturnType<typeof temporaryDirectory>;
let lines: string[];

beforeEach(async () => {
  hub = await StandInHub.start(Object.fromEntries(needed.map((name) => [name, fixture(name)])));
  home = temporaryDirectory();
  lines = [];
  for (const name of Object.keys(before)) delete process.env[name];
  Object.assign(process.env, { HF_ENDPOINT: hub.url, HF_HOME: home.path, NO_PROXY: "127.0.0.1" });
});

afterEach(() => {
  hub[Symbol.dispose]();
  home[Symbol.dispose]();
  for (const [name, value] of Object.entries(before)) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
});

const resolve = (model = "acme/tiny", options: ResolveOptions = {}) =>
  resolveModel(model, { output: { write: (line: string) => lines.push(line) }, ...options });
const cache = () => join(home.path, "hub/models--acme--tiny");
const snapshot = (commit = "c") => join(cache(), "snapshots", commit.repeat(40));
const partial = () => join(cache(), "blobs", `${weightsTag}.sluice.incomplete`);

/** The message, with HUB for the stand-in and HOME for the cache. */
async function message(model = "acme/tiny", options: ResolveOptions = {}): Promise<string> {
  const outcome = await resolve(model, options).catch((error: unknown) => error);
  if (!(outcome instanceof ModelError)) throw outcome instanceof Error ? outcome : new Error(`accepted: ${outcome}`);
  return outcome.message.replaceAll(hub.url, "HUB").replaceAll(home.path, "HOME");
}

/** Every regular file below the cache; nothing may lie outside of it. */
const stored = () =>
  [...new Bun.Glob("**/*").scanSync({ cwd: home.path, dot: true, onlyFiles: true, followSymlinks: false })].sort();

test("a path comes back as it is, and the hub is not asked", async () => {
  const existing = join(home.path, "acme/tiny");
  mkdirSync(existing, { recursive: true });
  const paths = [
    existing,
    "./acme/tiny",
    "/acme/tiny",
    "~/acme",
    "tiny",
    "a/b/c",
    "../acme",
    "acme/..",
    "a--b/c",
    "acme/",
  ];
  const notRevisions = ["acme/tiny@../../x", "acme/tiny@a/../../../x", "acme/tiny@a//b", "acme/tiny@a/", "acme/tiny@"];
  for (const path of [...paths, ...notRevisions, "acme/ti ny", "https://hub/acme"])
    expect(await resolve(path)).toBe(path);
  const directory = process.cwd();
  process.chdir(home.path);
  try {
    expect(await resolve("acme/tiny")).toBe("acme/tiny");
  } finally {
    process.chdir(directory);
  }
  expect(hub.requests).toEqual([]);
});

describe("download", () => {
  test("what a model needs and no more, in the layout of Hugging Face's tools", async () => {
    const unwanted = ["pytorch_model.bin", "model.gguf", "consolidated.safetensors", "README.md", "modeling_tiny.py"];
    for (const name of unwanted) hub.files.set(name, text(name));
    hub.listing = [...hub.files].map(([name, content]) => listed(name, content));
    hub.listing.push({ type: "directory", path: "tokenizer.d.json", size: 0, oid: "d".repeat(40) });

    const directory = await resolve();

    expect(directory).toBe(snapshot());
    expect(readdirSync(directory).sort()).toEqual(needed);
    for (const name of needed) expect(new Uint8Array(readFileSync(join(directory, name)))).toEqual(fixture(name));
    expect(readFileSync(join(cache(), "refs/main"), "utf8")).toBe(hub.commit);
    expect(lstatSync(join(directory, "config.json")).isSymbolicLink()).toBe(true);
    expect(readdirSync(join(cache(), "blobs"))).toContain(weightsTag);
    expect(openModel(directory).config.modelType).toBe("qwen3");
    expect((await loadTokenizer(directory)).chatTemplate).toBeString();
    expect(lines.at(-1)).toMatch(/^downloading acme\/tiny model\.safetensors, [\d.]+ KiB\n$/);
    expect(lines).toHaveLength(needed.length);
  });

  test("named chat templates and the other files of a tokenizer come along, from the one folder that is for them", async () => {
    const files = {
      "additional_chat_templates/tool_use.jinja": text("tools"),
      "additional_chat_templates/deep/x.jinja": text("no"),
      "added_tokens.json": text("{}"),
      "merges.txt": text("m"),
      "modeling.py": text("no"),
    };
    for (const [name, content] of Object.entries(files)) hub.files.set(name, content);
    const folder = "additional_chat_templates";
    const entries = [...hub.files].map(([name, content]) => listed(name, content));
    hub.listing = [
      { type: "directory", path: folder, size: 0, oid: "0".repeat(40) },
      ...entries.filter(({ path }) => !path.includes("/")),
    ];
    hub.answer = (path) =>
      path.endsWith(`/tree/${hub.commit}/${folder}`)
        ? Response.json(entries.filter((entry) => entry.path.startsWith(folder)))
        : undefined;
    const directory = await resolve();
    expect(readdirSync(directory).sort()).toEqual([...needed, "added_tokens.json", folder, "merges.txt"].sort());
    expect(readdirSync(join(directory, folder))).toEqual(["tool_use.jinja"]);
    expect((await loadTokenizer(directory)).toolTemplate).toBe("tools");
  });

  test("the second call fetches no file, and a new commit only what changed", async () => {
    await resolve();
    expect(hub.takeFileNames()).toEqual(needed);
    expect(await resolve()).toBe(snapshot());
    expect(hub.takeFileNames()).toEqual([]);

    hub.commit = "d".repeat(40);
    hub.files.set("generation_config.json", text('{"eos_token_id": 1}'));
    expect(await resolve()).toBe(snapshot("d"));
    expect(hub.takeFileNames()).toEqual(["generation_config.json"]);
    expect(openModel(snapshot("d")).files).toHaveLength(1);
    expect(openModel(snapshot()).files).toHaveLength(1);
  });

  test("a snapshot of files instead of links, from a disk that has none, is as good", async () => {
    for (const name of needed) await Bun.write(join(snapshot(), name), fixture(name));
    await resolve();
    expect(hub.takeFileNames()).toEqual([]);
    expect(lstatSync(join(snapshot(), "config.json")).isFile()).toBe(true);
  });

  test("a revision has its own ref, a commit none", async () => {
    expect(await resolve("acme/tiny@refs/pr/1")).toBe(snapshot());
    expect(readFileSync(join(cache(), "refs/refs/pr/1"), "utf8")).toBe(hub.commit);
    rmSync(cache(), { recursive: true });
    expect(await resolve(`acme/tiny@${hub.commit}`)).toBe(snapshot());
    expect(existsSync(join(cache(), "refs"))).toBe(false);
  });

  test("shards are those that the index names", async () => {
    hub.files.delete("model.safetensors");
    hub.files.set("b.safetensors", weights);
    hub.files.set("other.safetensors", weights);
    hub.files.set("model.safetensors.index.json", text('{"weight_map": {"x": "b.safetensors", "y": "b.safetensors"}}'));
    await resolve();
    expect(
      readdirSync(snapshot())
        .filter((name) => name.includes("safetensors"))
        .sort(),
    ).toEqual(["b.safetensors", "model.safetensors.index.json"]);
  });

  test("the token goes to the hub and not to the storage it redirects to", async () => {
    process.env["HF_TOKEN"] = "hf_secret";
    await resolve();
    expect(hub.requests[0]).toBe("info hf_secret");
    expect(hub.requests.at(-1)).toBe("model.safetensors whole hf_secret");
    expect(hub.stored).toEqual(["model.safetensors whole no token"]);
  });

  test("a next page on another machine gets no token", async () => {
    process.env["HF_TOKEN"] = "hf_secret";
    const heard: (string | null)[] = [];
    using other = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: (request) => (heard.push(request.headers.get("authorization")), Response.json([])),
    });
    hub.answer = (path) =>
      path.includes("/tree/")
        ? Response.json([], { headers: { Link: `<http://127.0.0.1:${other.port}/next?cursor=1>; rel="next"` } })
        : undefined;
    await message();
    expect(heard).toEqual([null]);
  });
  test("a list of files without end, and an answer that unpacks without end", async () => {
    hub.answer = (path) =>
      path.includes("/tree/")
        ? Response.json([], { headers: { Link: `<${hub.url}${path}?cursor=1>; rel="next"` } })
        : undefined;
    expect(await message()).toBe(
      "acme/tiny: the list of files that HUB gives has no end; do not use it if it stays so",
    );
    const bomb = Bun.gzipSync(new Uint8Array(200 << 20));
    hub.answer = (path) =>
      path.includes("/tree/") || path.includes("/revision/")
        ? new Response(bomb, { headers: { "Content-Encoding": "gzip", "Content-Type": "application/json" } })
        : undefined;
    expect(await message()).toBe("acme/tiny: an answer of HUB is larger than 64 MiB; do not use it if it stays so");
  });
  test("a token in the usual file is used; one that is none is refused", async () => {
    writeFileSync(join(home.path, "token"), "hf_fromfile\n");
    await resolve();
    expect(hub.requests[0]).toBe("info hf_fromfile");
    process.env["HF_TOKEN"] = "secret";
    expect(await message()).toBe('HF_TOKEN: holds no access token, one begins with "hf_"; correct it or remove it');
  });

  test("on a terminal the line is a live one and fits", async () => {
    await resolve("acme/tiny", { output: { isTTY: true, columns: 60, write: (line: string) => lines.push(line) } });
    const shown = lines.join("").split("\n").at(-2)!.split("\x1b[2K").at(-1)!;
    expect(shown).toMatch(/^downloading acme\/tiny model\.safetensors, [\d.]+ KiB: 100 %/);
    expect(shown.length).toBe(59);
  });
});

describe("a broken transfer", () => {
  test("continues where it broke", async () => {
    hub.interruptions = [{ after: 5000, how: "break" }];
    expect(openModel(await resolve()).files).toHaveLength(1);
    expect(hub.stored).toEqual([
      "model.safetensors whole no token",
      `model.safetensors bytes=5000-${weights.length - 1} no token`,
    ]);
  });

  test("also when the hub falls silent instead", async () => {
    hub.interruptions = [{ after: 7000, how: "stall" }];
    expect(openModel(await resolve("acme/tiny", { silenceMsMax: 300 })).files).toHaveLength(1);
    expect(hub.stored.at(-1)).toStartWith("model.safetensors bytes=7000-");
  });

  test("a slow transfer is not a broken one", async () => {
    hub.interruptions = [{ after: 5000, how: "trickle" }];
    await resolve("acme/tiny", { silenceMsMax: 500 });
    expect(hub.stored).toEqual(["model.safetensors whole no token"]);
  });

  test("continues in the next run when this one gives up", async () => {
    hub.interruptions = [{ after: 6000, how: "break" }];
    hub.answer = (path) =>
      path.endsWith("/model.safetensors") && hub.stored.length > 0 ? new Response("", { status: 401 }) : undefined;
    expect(await message()).toStartWith("acme/tiny: HUB refuses access (401)");
    expect(existsSync(join(snapshot(), "model.safetensors"))).toBe(false);
    expect(lstatSync(partial()).size).toBe(6000);

    hub.answer = () => undefined;
    lines = [];
    await resolve();
    expect(hub.stored.at(-1)).toStartWith("model.safetensors bytes=6000-");
    expect(lines).toEqual([expect.stringMatching(/from 5\.9 KiB on\n$/)]);
    expect(existsSync(partial())).toBe(false);
  });

  for (const [what, left] of [
    ["of another file", new Uint8Array(5000)],
    ["longer than the file", new Uint8Array(weights.length + 5000)],
  ] as const)
    test(`a left-over part ${what} is replaced`, async () => {
      mkdirSync(join(cache(), "blobs"), { recursive: true });
      writeFileSync(partial(), left);
      expect(new Uint8Array(readFileSync(join(await resolve(), "model.safetensors")))).toEqual(weights);
    });

  test("a file that another tool cut off is fetched again", async () => {
    await resolve();
    truncateSync(join(snapshot(), "model.safetensors"), 100);
    hub.takeFileNames();
    await resolve();
    expect(hub.takeFileNames()).toEqual(["model.safetensors"]);
    expect(openModel(snapshot()).files).toHaveLength(1);
  });

  test("two runs at once do not disturb each other", async () => {
    const [one, two] = await Promise.all([resolve(), resolve()]);
    expect(one).toBe(two);
    expect(new Uint8Array(readFileSync(join(one, "model.safetensors")))).toEqual(weights);
    expect(stored().filter((path) => /incomplete|tmp/.test(path))).toEqual([]);
  });
});

describe("a wrong checksum", () => {
  for (const name of ["model.safetensors", "tokenizer.json"])
    test(`of ${name}`, async () => {
      const right = hub.files.get(name)!;
      const { lfs, oid } = listed(name, right);
      hub.listing = [...hub.files].map(([name, content]) => listed(name, content));
      const wrong = right.slice();
      wrong[1000]! ^= 1;
      hub.files.set(name, wrong);
      const arrived = listed(name, wrong);
      expect(await message()).toBe(
        `acme/tiny: ${name} arrived with checksum ${arrived.lfs?.oid ?? arrived.oid} instead of ${lfs?.oid ?? oid}; run again, and if it stays so, something on the way to HUB changes files`,
      );
      expect(existsSync(join(snapshot(), name))).toBe(false);
      expect(readdirSync(join(cache(), "blobs")).join()).not.toContain(lfs?.oid ?? oid);

      hub.files.set(name, right);
      expect(openModel(await resolve()).files).toHaveLength(1);
    });
});

describe("a refusal names its cause and the way out", () => {
  const answers: [string, number, Record<string, string>, string][] = [
    [
      "401",
      401,
      {},
      "HUB refuses access (401); check the name, accept the licence at HUB/acme/tiny if the model is gated, and set HF_TOKEN to a token that may read it",
    ],
    [
      "404",
      404,
      {},
      "no such model on HUB (404); check the name, or did you mean a directory? There is none of that name here",
    ],
    [
      "404 of a revision",
      404,
      { "X-Error-Code": "RevisionNotFound" },
      'has no revision "main" on HUB (404); name a branch, a tag or a full commit',
    ],
    [
      "429",
      429,
      { "Retry-After": "90" },
      "HUB asks for fewer requests (429); wait 1m 30s and run again, what has arrived is kept, or set HF_TOKEN for a higher limit",
    ],
    ["503", 503, {}, "HUB answered 503 Service Unavailable; run again later, or give a model directory"],
  ];
  for (const [name, status, headers, expected] of answers)
    test(name, async () => {
      hub.answer = () => new Response("<b>no</b>", { status, headers });
      expect(await message()).toBe(`acme/tiny: ${expected}`);
    });

  test("a gated model, which anybody may list", async () => {
    process.env["HF_TOKEN"] = "hf_x";
    const headers = { "X-Error-Code": "GatedRepo" };
    hub.answer = (path) => (path.includes("/resolve/") ? new Response("", { status: 403, headers }) : undefined);
    expect(await message()).toBe(
      "acme/tiny: HUB refuses access (403, with your token); check the name, accept the licence at HUB/acme/tiny if the model is gated, and set HF_TOKEN to a token that may read it",
    );
  });

  test("a refusal in the middle of a file is not mistaken for a broken line", async () => {
    let refused = 0;
    hub.answer = (path, request) => {
      if (!path.endsWith("/model.safetensors") || request.headers.has("range")) return undefined;
      refused += 1;
      return new Response("", { status: 429 });
    };
    expect(await message()).toStartWith("acme/tiny: HUB asks for fewer requests (429); wait a few minutes");
    expect(refused).toBe(1);
  });

  test("a page that is no hub's", async () => {
    hub.answer = () => new Response("<html>log in to the hotel's network</html>");
    expect(await message()).toStartWith("acme/tiny: HUB answered what no hub should (");
  });

  test("silence", async () => {
    using silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    process.env["HF_ENDPOINT"] = `http://127.0.0.1:${silent.port}/`;
    expect(await message("acme/tiny", { silenceMsMax: 200 })).toBe(
      `acme/tiny: http://127.0.0.1:${silent.port} cannot be reached (nothing came for 200ms); connect to the network and run again, or give a model directory`,
    );
  });

  test("weights in another format", async () => {
    hub.files.delete("model.safetensors");
    hub.files.set("pytorch_model.bin", text("pickle"));
    expect(await message()).toBe(
      "acme/tiny: has no model.safetensors (it has chat_template.jinja, config.json, generation_config.json, pytorch_model.bin, tokenizer.json, tokenizer_config.json); choose a model that transformers saved as safetensors",
    );
  });

  test("an unsupported model, before its weights are fetched", async () => {
    hub.files.set("config.json", text('{"model_type": "mamba"}'));
    expect(await message()).toContain("mamba");
    expect(hub.takeFileNames()).not.toContain("model.safetensors");
  });

  test("a disk too small", async () => {
    const huge = { type: "file", path: "model.safetensors", size: 2 ** 52, oid: "a".repeat(40) };
    hub.files.delete("model.safetensors");
    hub.listing = [...[...hub.files].map(([name, content]) => listed(name, content)), huge];
    expect(await message()).toMatch(
      /^acme\/tiny: needs 4096\.0 TiB more in HOME\/hub\/models--acme--tiny, whose disk has .* left; free space, or set HF_HOME/,
    );
  });

  test("a cache that cannot be written", async () => {
    writeFileSync(join(home.path, "hub"), "in the way");
    expect(await message()).toBe(
      "acme/tiny: cannot be kept in HOME/hub/models--acme--tiny: cannot be written, part of its path is a file and not a directory (HF_HOME says where models are kept)",
    );
  });
});

describe("without a network", () => {
  const unplug = () => hub[Symbol.dispose]();

  test("a complete snapshot is used, and says so", async () => {
    await resolve();
    lines = [];
    unplug();
    expect(await resolve()).toBe(snapshot());
    expect(lines.join("").replaceAll(hub.url, "HUB").replaceAll(home.path, "HOME")).toBe(
      `acme/tiny: HUB cannot be reached (ECONNREFUSED); connect to the network and run again, or give a model directory; until then the copy in HOME/hub/models--acme--tiny/snapshots/${hub.commit} is used\n`,
    );
  });

  test("a complete snapshot is used when the hub is busy", async () => {
    await resolve();
    hub.answer = () => new Response("", { status: 429 });
    expect(await resolve()).toBe(snapshot());
  });

  test("a complete snapshot is not used when the model is withdrawn", async () => {
    await resolve();
    hub.answer = () => new Response("", { status: 404 });
    expect(await message()).toStartWith("acme/tiny: no such model on HUB (404)");
  });

  test("an incomplete one is not", async () => {
    await resolve();
    rmSync(join(snapshot(), "model.safetensors"));
    unplug();
    expect(await message()).toBe(
      "acme/tiny: HUB cannot be reached (ECONNREFUSED); connect to the network and run again, or give a model directory",
    );
  });

  test("after a new commit came only in part, the old one is used", async () => {
    await resolve();
    hub.commit = "d".repeat(40);
    hub.files.set("model.safetensors", weights.slice(0, -1));
    hub.answer = (path) => (path.endsWith("/model.safetensors") ? new Response("", { status: 403 }) : undefined);
    expect(await message()).toContain("(403)");
    unplug();
    expect(await resolve()).toBe(snapshot());
  });

  test("a commit needs no hub at all", async () => {
    await resolve();
    hub.requests = [];
    expect(await resolve(`acme/tiny@${hub.commit}`)).toBe(snapshot());
    expect(hub.requests).toEqual([]);
  });

  test("HF_HUB_OFFLINE=1 asks nobody", async () => {
    process.env["HF_HUB_OFFLINE"] = "1";
    const missing =
      'acme/tiny: HF_HUB_OFFLINE is set and HOME/hub/models--acme--tiny has no complete snapshot of "main"; unset it to download the model, or give a model directory';
    expect(await message()).toBe(missing);
    process.env["HF_HUB_OFFLINE"] = "0";
    await resolve();
    process.env["HF_HUB_OFFLINE"] = "1";
    hub.requests = [];
    expect(await resolve()).toBe(snapshot());
    rmSync(join(snapshot(), "config.json"));
    expect(await message()).toBe(missing);
    expect(hub.requests).toEqual([]);
  });
});

describe("nothing leaves the cache", () => {
  const good = () => [...hub.files].map(([name, content]) => listed(name, content));
  const entry = (change: object) => ({ ...listed("tokenizer_x.json", text("{}")), ...change });

  for (const change of [
    { path: "../../../../evil.json" },
    { path: "/evil.json" },
    { path: "a/../../evil.json" },
    { path: "..\\evil.json" },
    { path: ".." },
    { oid: "../../evil" },
    { oid: "" },
    { size: -1 },
  ])
    test(`a listing with ${JSON.stringify(change)}`, async () => {
      hub.listing = [...good(), entry(change)];
      expect(await message()).toMatch(/^acme\/tiny: HUB answered what no hub should \(in its file list \{.*\}\)/);
      expect(stored()).toEqual([]);
    });

  test("a commit that is a path", async () => {
    hub.commit = "../../evil";
    expect(await message()).toStartWith('acme/tiny: HUB answered what no hub should (as commit "../../evil")');
    expect(stored()).toEqual([]);
  });

  test("a ref that is a path", async () => {
    process.env["HF_HUB_OFFLINE"] = "1";
    mkdirSync(join(cache(), "refs"), { recursive: true });
    writeFileSync(join(cache(), "refs/main"), relative(join(cache(), "snapshots"), join(fixtures, "qwen3-tiny")));
    expect(await message()).toContain("has no complete snapshot");
  });

  for (const shard of ["../evil.safetensors", "pytorch_model.bin"])
    test(`an index that names ${shard}`, async () => {
      hub.files.delete("model.safetensors");
      hub.files.set("pytorch_model.bin", text("pickle"));
      hub.files.set("model.safetensors.index.json", text(JSON.stringify({ weight_map: { x: shard } })));
      expect(await message()).toBe(
        `acme/tiny: its model.safetensors.index.json names "${shard}", which is none of its safetensors files; choose another revision or model`,
      );
      expect(hub.takeFileNames()).not.toContain(shard);
    });
});
