// A model by its name on the Hugging Face hub: `OWNER/NAME[@REVISION]` becomes a directory on this machine.
//
// Files are kept where all Hugging Face tools keep them (`models--OWNER--NAME/{blobs,refs,snapshots}` under HF_HUB_CACHE
// or HF_HOME), so what Python has downloaded is not downloaded again, nor the other way round. Only what Sluice reads is
// fetched: configs, tokenizer, license and safetensors of the root folder, and named chat templates; nothing that could run when it is loaded.
//
// The branch's ref is written last: without a network it leads to the newest snapshot that was complete. How a single
// file arrives whole or not at all is in hub-download.ts, what is said when the hub refuses in hub-connection.ts.

import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { ModelError } from "../words/errors.ts";
import { readDecoderConfig } from "./config.ts";
import { formatWord } from "../words/format.ts";
import { explainFileError, writeFileAtomic } from "../io/atomic.ts";
import { Connection, HubError, hubEndpoint, isOffline, readToken } from "../io/hub-connection.ts";
import {
  commitPattern,
  downloadMissing,
  etagPattern,
  isSize,
  type RemoteFile,
  type Repository,
  type ResolveOptions,
} from "../io/hub-download.ts";
import { isObject, parseJson } from "../io/json.ts";
import { openModelTensors } from "../io/safetensors.ts";

const idPattern = /^(\w(?:[\w.-]*\w)?\/\w(?:[\w.-]*\w)?)(?:@(\w[\w./-]*))?$/;
const smallNames =
  /^((config|generation_config|special_tokens_map|added_tokens|vocab|tokenizer[\w.-]*)\.json|chat_template\.jinja|merges\.txt|tokenizer\.model|LICENSE[\w.-]*)$/;
/** Named chat templates, such as tool_use.jinja. */
const templates = "additional_chat_templates";
const templateName = /^additional_chat_templates\/\w[\w-]*\.jinja$/;
const singleName = "model.safetensors";
const indexName = "model.safetensors.index.json";

/** The directory of `model`: a path comes back as it is, existing or not; a hub id is downloaded first. */
export async function resolveModel(model: string, options: ResolveOptions = {}): Promise<string> {
  const [, id, revision = "main"] = idPattern.exec(model) ?? [];
  // With `--` in their names two models could share a folder, and a `..` in the revision could climb out of it.
  if (existsSync(model) || id === undefined || id.includes("--") || /\.\.|\/\/|\/$/.test(revision)) return model;
  const { getHFHubCachePath, getRepoFolderName } = await import("@huggingface/hub");
  const folder = join(getHFHubCachePath(), getRepoFolderName({ type: "model", name: id }));
  const { output = process.stderr, silenceMsMax = 30_000 } = options;
  try {
    const token = await readToken();
    return await findSnapshot({
      kind: "model",
      id,
      revision,
      endpoint: hubEndpoint(),
      token,
      silenceMsMax,
      folder,
      output,
    });
  } catch (cause) {
    if (cause instanceof ModelError || !(cause as NodeJS.ErrnoException).code) throw cause;
    throw new ModelError(
      `${id}: cannot be kept in ${folder}: ${explainFileError(cause, "write")} (HF_HOME says where models are kept)`,
    );
  }
}

async function findSnapshot(repository: Repository): Promise<string> {
  const { id, revision, folder, output } = repository;
  if (isOffline() || commitPattern.test(revision)) {
    const cached = await completeSnapshot(repository);
    if (cached !== undefined) return cached; // a commit never changes, so there is nothing to ask
    if (isOffline())
      throw new ModelError(
        `${id}: HF_HUB_OFFLINE is set and ${folder} has no complete snapshot of ${JSON.stringify(revision)}; unset it to download the model, or give a model directory`,
      );
  }
  let listing: Listing;
  try {
    listing = await list(repository);
  } catch (cause) {
    if (!(cause instanceof HubError && (cause.isOutage || cause.status === 429))) throw cause;
    const cached = await completeSnapshot(repository);
    if (cached === undefined) throw cause;
    output.write(`${cause.message}; until then the copy in ${cached} is used\n`);
    return cached;
  }
  const { commit, files } = listing;
  const snapshot = join(folder, "snapshots", commit);
  await downloadFiles({ ...repository, revision: commit }, files, snapshot);
  if (revision !== commit) {
    const ref = join(folder, "refs", revision);
    await mkdir(dirname(ref), { recursive: true });
    await writeFileAtomic(ref, commit);
  }
  return snapshot;
}

/** The cached snapshot, if config and all weights are there. Weights are fetched last, so then the rest is there too. */
async function completeSnapshot({ folder, revision }: Repository): Promise<string | undefined> {
  const isCommit = commitPattern.test(revision);
  const commit = isCommit ? revision : await readFile(join(folder, "refs", revision), "utf8").catch(() => "");
  const snapshot = join(folder, "snapshots", commit);
  if (!commitPattern.test(commit) || !existsSync(join(snapshot, "config.json"))) return undefined;
  try {
    openModelTensors(snapshot);
    return snapshot;
  } catch (cause) {
    if (cause instanceof ModelError) return undefined;
    throw cause;
  }
}

// ---- what the hub has -----------------------------------------------------------------------------------------------

interface Listing {
  /** The commit that the revision stands for. */
  commit: string;
  /** The files of the root folder, by name, and the chat templates of the folder that is for them. */
  files: Map<string, RemoteFile>;
}

async function list(repository: Repository): Promise<Listing> {
  const { modelInfo, listFiles } = await import("@huggingface/hub");
  using connection = new Connection(repository);
  const { id, revision, endpoint } = repository;
  const ask = connection.parameters;
  const files = new Map<string, RemoteFile>();
  try {
    const { sha: commit } = await modelInfo({ ...ask, name: id, revision, additionalFields: ["sha"] });
    if (!commitPattern.test(commit)) throw new Error(`as commit ${JSON.stringify(commit)}`);
    const folder = { ...ask, repo: { type: "model", name: id } as const, revision: commit };
    for await (const entry of listFiles(folder)) {
      const { type, path: name, size: bytes, oid } = entry;
      const etag = entry.lfs?.oid ?? oid ?? "";
      if (type === "directory" && name === templates)
        for await (const { path, size, oid: tag } of listFiles({ ...folder, path: templates }))
          if (templateName.test(path) && isSize(size) && etagPattern.test(tag ?? ""))
            files.set(path, { name: path, bytes: size, etag: tag! });
      if (type !== "file") continue;
      // The name becomes a path in the cache: in a root folder it has no business to contain another folder's.
      if (!/^[^/\\\0]+$/.test(name) || /^\.\.?$/.test(name) || !etagPattern.test(etag) || !isSize(bytes))
        throw new Error(`in its file list ${JSON.stringify({ name, bytes, etag })}`);
      files.set(name, { name, bytes, etag });
    }
    return { commit, files };
  } catch (cause) {
    if (cause instanceof ModelError) throw cause;
    throw new ModelError(
      `${id}: ${endpoint} answered what no hub should (${(cause as Error).message}); check HF_ENDPOINT, and do not use the model if it stays so`,
    );
  }
}

// ---- from the hub to the snapshot -----------------------------------------------------------------------------------

/** Makes `snapshot` whole: the small files, a look at the config, then the weights. `revision` is a commit. */
async function downloadFiles(repository: Repository, files: Listing["files"], snapshot: string): Promise<void> {
  const { id } = repository;
  const names = [...files.keys()].sort();
  const missing = ["config.json", singleName].find((name) => !files.has(name));
  const isSharded = missing === singleName && files.has(indexName);
  if (missing !== undefined && !isSharded)
    throw new ModelError(
      `${id}: has no ${missing} (it has ${names.slice(0, 8).join(", ") || "no files"}); choose a model that transformers saved as safetensors`,
    );
  await mkdir(snapshot, { recursive: true });
  const filesOf = (wanted: string[]) => wanted.flatMap((name) => files.get(name) ?? []);
  const small = names.filter(
    (name) => smallNames.test(name) || templateName.test(name) || (isSharded && name === indexName),
  );
  if (small.some((name) => templateName.test(name))) await mkdir(join(snapshot, templates), { recursive: true });
  await downloadMissing(repository, filesOf(small), snapshot);
  readDecoderConfig(join(snapshot, "config.json")); // an unsupported model is refused before its gigabytes arrive
  const weights = isSharded ? await shardNames(join(snapshot, indexName)) : [singleName];
  const stray = weights.find((name) => !files.has(name) || !name.endsWith(".safetensors"));
  if (stray !== undefined)
    throw new ModelError(
      `${id}: its ${indexName} names ${JSON.stringify(stray)}, which is none of its safetensors files; choose another revision or model`,
    );
  await downloadMissing(repository, filesOf(weights), snapshot);
}

/** Which files an index names. */
async function shardNames(indexPath: string): Promise<string[]> {
  let index: unknown;
  try {
    index = parseJson(await readFile(indexPath, "utf8"));
  } catch (cause) {
    throw new ModelError(`${indexPath}: ${(cause as Error).message}`);
  }
  if (!isObject(index) || !isObject(index["weight_map"])) throw new ModelError(`${indexPath}: has no weight_map`);
  return [...new Set(Object.values(index["weight_map"]).map(formatWord))].sort();
}
