// The environment that the user gave this process, without what Bun has read from a `.env` in the current directory: that may
// be a downloaded model's folder, and a folder may not say which library is loaded, where a token is sent, or whose
// certificates are believed. Imported first by whatever starts Sluice.
//
// What Bun obeys before any code of ours runs, a `bunfig.toml` there, is kept out by the flags of those who start us (`bunFlags`).

import { readFileSync } from "node:fs";

/** Flags for every Bun that we start: nothing is taken from the directory it starts in. */
export const bunFlags = ["--no-env-file", "--config=/dev/null"];

/** Names that decide what is loaded, from where, and who is trusted. */
const ours = /^(SLUICE|HF|HUGGING_?FACE|XDG|NODE|BUN|SSL)_|_PROXY$/i;

/** The names of the real environment; undefined where the system does not tell. */
function realNames(): Set<string> | undefined {
  try {
    const entries = readFileSync("/proc/self/environ", "utf8").split("\0");
    return new Set(entries.map((entry) => entry.slice(0, Math.max(0, entry.indexOf("=")))));
  } catch {
    return undefined;
  }
}

/** Names of `.env` files, where that is all there is to go by. */
function writtenNames(): Set<string> {
  const names = [
    "",
    ".local",
    ".development",
    ".production",
    ".test",
    ".development.local",
    ".production.local",
    ".test.local",
  ];
  const text = names.map((end) => {
    try {
      return readFileSync(`.env${end}`, "utf8");
    } catch {
      return "";
    }
  });
  return new Set(Array.from(text.join("\n").matchAll(/^\s*(?:export\s+)?([\w.]+)\s*=/gm), ([, name]) => name!));
}

const real = realNames();
const written = real === undefined ? writtenNames() : undefined;
for (const name of Object.keys(process.env))
  if (ours.test(name) && (real ? !real.has(name) : written!.has(name))) delete process.env[name];
