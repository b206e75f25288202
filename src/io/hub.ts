// A model by its name on the Hugging Face hub: `OWNER/NAME[@REVISION]` becomes a directory on this machine.
//
// Files are kept where all Hugging Face tools keep them (`models--OWNER--NAME/{blobs,refs,snapshots}` under HF_HUB_CACHE
// or HF_HOME), so a model that Python has downloaded is not downloaded again, nor the other way round. Only what Sluice
// reads is fetched: configs, tokenizer, safetensors; nothing that could run, nothing from subfolders.
//
// A file appears under its final name after its size and checksum are right and its bytes are on the disk. A broken
// transfer leaves `*.sluice.incomplete`, and the next attempt, in this run or a later one, continues it. The branch's
// ref is written last: without a network it leads to the newest snapshot that is complete.
//
// @huggingface/hub knows the hub's addresses, listings and redirects. Storing is done here, because its own
// `downloadFileToCacheDir` compares neither size nor checksum, starts a broken file again from its first byte, and
// writes to stdout.

import { createHash } from "node:crypto";
import { constants, existsSync, statSync } from "node:fs";
import { type FileHandle, mkdir, open, readFile, rename, rm, statfs, symlink } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, relative } from "node:path";
import { ModelError } from "../errors.ts";
import { formatBytes, formatDuration } from "../format.ts";
import { readDecoderConfig } from "../models/config.ts";
import type { StatusStream } from "../status.ts";
import { explainFileError, syncDirectory, temporaryPath, writeFileAtomic } from "./atomic.ts";
import { isObject, parseJson } from "./json.ts";
import { openModelTensors } from "./safetensors.ts";

export interface ResolveOptions {
  /** Gets a line per downloaded file, live on a terminal. Default stderr, as stdout may belong to a machine. */
  output?: StatusStream;
  /** How long the hub may send nothing before the connection counts as broken. Default 30,000. */
  silenceMsMax?: number;
}

/** One model on the hub, and how to reach it. */
interface Repository {
  id: string;
  revision: string;
  /** Where the cache keeps it. */
  folder: string;
  endpoint: string;
  token: string | undefined;
  output: StatusStream;
  silenceMsMax: number;
}

interface RemoteFile {
  name: string;
  bytes: number;
  /** SHA-256 of the content for large files, git's blob id (SHA-1) for small ones; also the blob's name in the cache. */
  etag: string;
}

const idPattern = /^(\w(?:[\w.-]*\w)?\/\w(?:[\w.-]*\w)?)(?:@(\w[\w./-]*))?$/;
const commitPattern = /^[0-9a-f]{40}$/;
const smallNames = /^(config|generation_config|special_tokens_map|tokenizer[\w.-]*)\.json$|^chat_template\.jinja$/;
const singleName = "model.safetensors";
const indexName = "model.safetensors.index.json";
/** Attempts in a row that bring no new byte before a file is given up. */
const attemptsMax = 3;

/** The directory of `model`: a path is returned as it is, whether it exists or not; a hub id is downloaded first. */
export async function resolveModel(model: string, options: ResolveOptions = {}): Promise<string> {
  const [, id, revision = "main"] = idPattern.exec(model) ?? [];
  // No `..` may climb out of the cache; with `--` in a name, two models could share a folder.
  if (existsSync(model) || id === undefined || /\.\.|--/.test(id) || /\.\.|\/\/|\/$/.test(revision)) return model;
  const { getHFHubCachePath, getRepoFolderName } = await import("@huggingface/hub");
  const folder = join(getHFHubCachePath(), getRepoFolderName({ type: "model", name: id }));
  try {
    return await findSnapshot({
      id,
      revision,
      folder,
      endpoint: (process.env["HF_ENDPOINT"] || "https://huggingface.co").replace(/\/+$/, ""),
      token: await readToken(),
      output: options.output ?? process.stderr,
      silenceMsMax: options.silenceMsMax ?? 30_000,
    });
  } catch (cause) {
    if (!(cause as NodeJS.ErrnoException).code) throw cause;
    throw new ModelError(
      `${id}: cannot be stored in ${folder}: ${explainFileError(cause, "write")} (HF_HOME says where models are kept)`,
    );
  }
}

async function findSnapshot(repository: Repository): Promise<string> {
  const { id, revision, folder, output } = repository;
  const offline = /^(1|on|yes|true)$/i.test(process.env["HF_HUB_OFFLINE"] ?? "");
  if (offline || commitPattern.test(revision)) {
    const cached = await completeSnapshot(repository);
    if (cached !== undefined) return cached; // a commit never changes, so there is nothing to ask
    if (offline)
      throw new ModelError(
        `${id}: HF_HUB_OFFLINE is set and ${folder} has no complete snapshot of ${revision}; unset it to download the model, or give a model directory`,
      );
  }
  let listing: { commit: string; files: Map<string, RemoteFile> };
  try {
    listing = await list(repository);
  } catch (cause) {
    const cached = cause instanceof HubError && cause.mayPass ? await completeSnapshot(repository) : undefined;
    if (cached === undefined) throw cause;
    output.write(`${(cause as HubError).message}; until then the snapshot in ${cached} is used\n`);
    return cached;
  }
  const snapshot = join(folder, "snapshots", listing.commit);
  await downloadFiles(repository, listing.files, snapshot);
  if (revision !== listing.commit) {
    const ref = join(folder, "refs", revision);
    await mkdir(dirname(ref), { recursive: true });
    await writeFileAtomic(ref, listing.commit);
  }
  return snapshot;
}

/** The cached snapshot of the revision, if its config and all its weights are there; they are always stored last. */
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

/** The commit of the revision and the files in its root folder. */
async function list(repository: Repository): Promise<{ commit: string; files: Map<string, RemoteFile> }> {
  const { modelInfo, listFiles } = await import("@huggingface/hub");
  using connection = new Connection(repository);
  const { id, revision } = repository;
  const files = new Map<string, RemoteFile>();
  try {
    const ask = connection.parameters;
    const { sha: commit } = await modelInfo({ ...ask, name: id, revision, additionalFields: ["sha"] });
    if (!commitPattern.test(commit)) throw new Error(`the commit ${JSON.stringify(commit)}`);
    for await (const { type, path: name, size, oid, lfs } of listFiles({ ...ask, revision: commit })) {
      if (!/^[^/\\\0]+$/.test(name) || name === "." || name === "..") throw new Error(`the file ${JSON.stringify(name)}`);
      const etag = lfs?.oid ?? oid ?? "";
      if (type !== "file") continue;
      if (!/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(etag) || !Number.isSafeInteger(size) || size < 0)
        throw new Error(`${JSON.stringify(name)} with checksum ${JSON.stringify(etag)} and ${size} bytes`);
      files.set(name, { name, bytes: size, etag });
    }
    return { commit, files };
  } catch (cause) {
    if (cause instanceof ModelError) throw cause;
    throw new ModelError(
      `${id}: ${repository.endpoint} answered what no hub should (${(cause as Error).message}); check HF_ENDPOINT, or give a model directory`,
    );
  }
}

/** Makes `snapshot` whole: small files, then a look at the config, then the weights. */
async function downloadFiles(repository: Repository, files: Map<string, RemoteFile>, snapshot: string): Promise<void> {
  const { id, folder, output } = repository;
  const names = [...files.keys()].sort();
  const weightsName = [singleName, indexName].find((name) => files.has(name));
  if (weightsName === undefined || !files.has("config.json"))
    throw new ModelError(
      `${id}: has no ${weightsName ? "config.json" : `${singleName} or ${indexName}`} (it has ${names.slice(0, 8).join(", ") || "no files"}); choose a model saved by transformers as safetensors`,
    );
  const isStored = ({ name, bytes }: RemoteFile) => fileBytes(join(snapshot, name)) === bytes;
  const download = async (wanted: RemoteFile[]) => {
    for (const file of wanted.filter((file) => !isStored(file))) {
      const blob = join(folder, "blobs", file.etag);
      if (fileBytes(blob) !== file.bytes) await downloadBlob(repository, listing(file), blob);
      await linkFile(join(snapshot, file.name), blob);
    }
  };
  const listing = (file: RemoteFile) => ({ ...file, commit: snapshot.slice(-40) });

  await mkdir(snapshot, { recursive: true });
  await mkdir(join(folder, "blobs"), { recursive: true });
  const small = names.filter((name) => smallNames.test(name) || name === (weightsName === indexName ? indexName : ""));
  await download(small.map((name) => files.get(name)!));
  readDecoderConfig(join(snapshot, "config.json")); // an unsupported model is refused before its gigabytes arrive
  void output;
}
