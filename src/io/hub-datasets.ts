// Files of a dataset on the Hugging Face hub: `hf://datasets/OWNER/NAME[@REVISION][/PATH]` becomes files on this machine.
//
// They are kept where all Hugging Face tools keep them (`datasets--OWNER--NAME`), and only what a source asks for is
// fetched: nothing of a dataset is ever run. What a commit holds is noted beside the snapshots, so that without a network
// a part that was downloaded earlier is never taken for the whole. How a file arrives is in hub-download.ts.

import { existsSync, statSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { DataError, ModelError } from "../words/errors.ts";
import { explainFileError, writeFileAtomic } from "./atomic.ts";
import { Connection, HubError, hubEndpoint, isOffline, readToken } from "./hub-connection.ts";
import {
  commitPattern,
  etagPattern,
  isSize,
  type ResolveOptions,
  downloadMissing,
  type RemoteFile,
  type Repository,
} from "./hub-download.ts";

const uriPattern = /^hf:\/\/datasets\/(\w(?:[\w.-]*\w)?\/\w(?:[\w.-]*\w)?)(?:@(\w[\w.-]*))?(?:\/(.*))?$/;

/** Picks the files that are wanted from all that there are. */
type Choose = (names: string[], path: string) => string[];

/** Whether a path of `data` means the hub. */
export function isHubPath(path: string): boolean {
  return path.startsWith("hf://");
}

/** Downloads the files of a dataset that `choose` wants; it gets the names of all, and the path that the address ends with. */
export async function resolveDataset(uri: string, choose: Choose, options: ResolveOptions = {}): Promise<string[]> {
  const [, id, revision = "main", path = ""] = uriPattern.exec(uri) ?? [];
  if (id === undefined || id.includes("--"))
    throw new DataError(
      `${uri}: is no dataset of the hub; write hf://datasets/OWNER/NAME or hf://datasets/OWNER/NAME/FILE`,
    );
  const { getHFHubCachePath, getRepoFolderName } = await import("@huggingface/hub");
  const folder = join(getHFHubCachePath(), getRepoFolderName({ type: "dataset", name: id }));
  const { output = process.stderr, silenceMsMax = 30_000 } = options;
  try {
    const [endpoint, token] = [hubEndpoint(), await readToken()];
    const repository = { kind: "dataset" as const, id, revision, endpoint, token, silenceMsMax, folder, output };
    const { commit, files } = await findListing(repository);
    const byName = new Map(files.map((file) => [file.name, file]));
    const wanted = choose([...byName.keys()].sort(), path);
    const snapshot = join(folder, "snapshots", commit);
    const paths = wanted.map((name) => join(snapshot, name));
    const isThere = (path: string, i: number) =>
      statSync(path, { throwIfNoEntry: false })?.size === byName.get(wanted[i]!)!.bytes;
    if (paths.every(isThere)) return paths;
    if (isOffline())
      throw new ModelError(
        `${id}: HF_HUB_OFFLINE is set and ${folder} has not all files of ${uri}; unset it to download them`,
      );
    await mkdir(snapshot, { recursive: true });
    await downloadMissing(
      { ...repository, revision: commit },
      wanted.map((name) => byName.get(name)!),
      snapshot,
    );
    return paths;
  } catch (cause) {
    // The hub's own words say what to do; here they are about data.
    if (cause instanceof ModelError) throw new DataError(cause.message);
    if (cause instanceof DataError || !(cause as NodeJS.ErrnoException).code) throw cause;
    throw new DataError(
      `${id}: cannot be kept in ${folder}: ${explainFileError(cause, "write")} (HF_HOME says where datasets are kept)`,
    );
  }
}

interface Listing {
  /** The commit that the revision stands for. */
  commit: string;
  files: RemoteFile[];
}

/** What the hub says, or what it said earlier: a commit never changes, and an outage need not stop a run. */
async function findListing(repository: Repository): Promise<Listing> {
  const { id, revision, folder, output } = repository;
  const ref = join(folder, "refs", revision);
  const cached = async (): Promise<Listing | undefined> => {
    const commit = commitPattern.test(revision) ? revision : await readFile(ref, "utf8").catch(() => "");
    if (!commitPattern.test(commit) || !existsSync(notePath(folder, commit))) return undefined;
    try {
      const files = JSON.parse(await readFile(notePath(folder, commit), "utf8")) as RemoteFile[];
      return { commit, files: files.map(checked) };
    } catch {
      return undefined; // damaged, so it says nothing
    }
  };
  if (isOffline() || commitPattern.test(revision)) {
    const known = await cached();
    if (known !== undefined) return known;
    if (isOffline())
      throw new ModelError(
        `${id}: HF_HUB_OFFLINE is set and ${folder} has nothing of ${JSON.stringify(revision)}; unset it to download the dataset`,
      );
  }
  try {
    const listing = await list(repository);
    const note = notePath(folder, listing.commit);
    await mkdir(dirname(note), { recursive: true });
    await writeFileAtomic(note, JSON.stringify(listing.files));
    if (revision !== listing.commit) {
      await mkdir(dirname(ref), { recursive: true });
      await writeFileAtomic(ref, listing.commit);
    }
    return listing;
  } catch (cause) {
    const known = cause instanceof HubError && (cause.isOutage || cause.status === 429) ? await cached() : undefined;
    if (known === undefined) throw cause;
    output.write(`${(cause as Error).message}; until then the copy in ${folder} is used\n`);
    return known;
  }
}

function notePath(folder: string, commit: string): string {
  return join(folder, ".sluice", `${commit}.json`);
}

async function list(repository: Repository): Promise<Listing> {
  const { datasetInfo, listFiles } = await import("@huggingface/hub");
  using connection = new Connection(repository);
  const { id, revision, endpoint } = repository;
  const ask = connection.parameters;
  const files: RemoteFile[] = [];
  try {
    const { sha: commit } = await datasetInfo({ ...ask, name: id, revision, additionalFields: ["sha"] });
    if (!commitPattern.test(commit)) throw new Error(`as commit ${JSON.stringify(commit)}`);
    const repo = { type: "dataset" as const, name: id };
    for await (const entry of listFiles({ ...ask, repo, revision: commit, recursive: true })) {
      const { type, path: name, size: bytes, oid, lfs } = entry;
      if (type === "file") files.push(checked({ name, bytes, etag: lfs?.oid ?? oid ?? "" }));
    }
    return { commit, files };
  } catch (cause) {
    if (cause instanceof ModelError) throw cause;
    throw new ModelError(
      `${id}: ${endpoint} answered what no hub should (${(cause as Error).message}); check HF_ENDPOINT, and do not use the dataset if it stays so`,
    );
  }
}

/** The name becomes a path in the cache, so it must stay below the snapshot; the etag becomes a file's name. */
function checked(file: RemoteFile): RemoteFile {
  const { name, bytes, etag } = file;
  const isPath =
    /^[^\\\0]+$/.test(name) && name.split("/").every((part) => part !== "" && part !== "." && part !== "..");
  if (!isPath || !etagPattern.test(etag) || !isSize(bytes))
    throw new Error(`in its file list ${JSON.stringify({ name, bytes, etag })}`);
  return file;
}
