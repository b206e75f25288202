// Where caches are. One rule for the whole project: what is in a cache can be made again, so a user may name a folder for it,
// and may delete it at any time.

import { mkdirSync } from "node:fs";
import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";

/** The user's folder for caches; as its specification has it, one that is empty or relative counts as not given. */
function userCache(): string {
  const given = process.env["XDG_CACHE_HOME"] ?? "";
  return isAbsolute(given) ? given : join(homedir(), ".cache");
}

/** Where Sluice keeps tokens and measurements: SLUICE_CACHE, else `sluice` in XDG_CACHE_HOME or ~/.cache. */
export function cacheDirectory(): string {
  return process.env["SLUICE_CACHE"] || join(userCache(), "sluice");
}

/** The same, made if it is not there; "" where nothing can be written. */
export function writableCacheDirectory(): string {
  const path = cacheDirectory();
  try {
    mkdirSync(path, { recursive: true });
    return path;
  } catch {
    return "";
  }
}

/** Where all Hugging Face tools keep what they download, and the user's token. */
export function huggingFaceHome(): string {
  return process.env["HF_HOME"] || join(userCache(), "huggingface");
}
