// `bun run pack`: one folder that runs on a host without a network, a package manager or a compiler: Bun itself, the native
// library, kernels, sources, tests and what they need of node_modules. At most 60 MB, because hosts with GPUs are often
// reached through narrow doors. There, `./run bench ...`, `./run train ...`, `./run test ...`.
//   --output DIR    where it goes                       [build/pack]
//   --level 0..9    how hard xz presses Bun             [6]
//
// Bun is stored compressed and unpacked by the first `./run`, with xz or python3, whichever is there. Pressing it takes a
// minute or two of one core, so the result is kept in build/ for the next pack.

import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, relative } from "node:path";
import { parseArgs } from "node:util";
import { BuildError, hostTarget, libraryPath, root } from "./native.ts";
import { main, setup } from "./setup.ts";

const bytesMost = 60e6;

/** Sources by their names in the repository. Fixtures come along, so that parity can be checked on the spot. */
const sources = ["src", "scripts", "test", "recipes", "train.ts", "package.json", "bunfig.toml", "tsconfig.json"];
/** Only used with a network. */
const online = new Set(["@huggingface/hub"]);
/** What a package carries beside what runs. */
const notRun =
  /\.(map|md|d\.[cm]?ts|flow|tsbuildinfo)$|(^|\/)(LICENSE|CHANGELOG|test|tests|__tests__|docs|examples)(\/|$)/;

async function pack(): Promise<void> {
  const { values } = parseArgs({ options: { output: { type: "string" }, level: { type: "string", default: "6" } } });
  if (!/^[0-9]$/.test(values.level)) throw new BuildError(`--level must be 0 to 9 (was "${values.level}")`);
  await setup();
  const target = values.output ?? join(root, "build/pack");
  rmSync(target, { recursive: true, force: true });
  mkdirSync(target, { recursive: true });
  for (const name of sources) cpSync(join(root, name), join(target, name), { recursive: true });
  for (const name of packages()) copyPackage(name, target);
  const library = libraryPath(hostTarget());
  copyInto(target, library);
  const kernels = join(dirname(library), "kernels");
  if (existsSync(kernels)) copyInto(target, kernels, /\.(fatbin|hsaco)$/);
  else console.log("pack: no compiled kernels are there (bun run build makes them): the pack has the cpu device only");
  await compressBun(join(target, "bun.xz"), values.level);
  writeFileSync(join(target, "run"), runScript(commit()), { mode: 0o755 });

  const bytes = sizeOf(target);
  const megabytes = (count: number): string => `${(count / 1e6).toFixed(1)} MB`;
  const parts = readdirSync(target).map((name) => ({ name, bytes: sizeOf(join(target, name)) }));
  parts.sort((a, b) => b.bytes - a.bytes);
  const largest = parts.slice(0, 5).map((part) => `${part.name} ${megabytes(part.bytes)}`);
  console.log(`packed ${relative(process.cwd(), target) || "."}: ${megabytes(bytes)} (${largest.join(", ")})`);
  if (bytes > bytesMost)
    throw new BuildError(`the pack has ${megabytes(bytes)}, the limit is ${megabytes(bytesMost)}; leave something out`);
}

/** A file or folder under the root, at the same place in the pack; of a folder, files of these names. */
function copyInto(target: string, path: string, wanted = /./): void {
  const to = join(target, relative(root, path));
  mkdirSync(dirname(to), { recursive: true });
  cpSync(path, to, { recursive: true, filter: (from) => from === path || wanted.test(from) });
}

/** Everything that the run-time dependencies need, themselves included; node_modules is flat. */
function packages(): string[] {
  const found = new Set<string>();
  const visit = (manifest: string): void => {
    const { dependencies = {} } = JSON.parse(readFileSync(manifest, "utf8")) as { dependencies?: object };
    for (const name of Object.keys(dependencies)) {
      if (online.has(name) || found.has(name)) continue;
      found.add(name);
      visit(join(root, "node_modules", name, "package.json"));
    }
  };
  visit(join(root, "package.json"));
  return [...found].sort();
}

function copyPackage(name: string, target: string): void {
  const from = join(root, "node_modules", name);
  for (const path of new Bun.Glob("**/*").scanSync({ cwd: from, dot: true })) {
    if (notRun.test(path)) continue;
    const to = join(target, "node_modules", name, path);
    mkdirSync(dirname(to), { recursive: true });
    cpSync(join(from, path), to);
  }
}

async function compressBun(to: string, level: string): Promise<void> {
  const kept = join(root, `build/bun-${Bun.version}-${process.arch}-${level}.xz`);
  if (!existsSync(kept)) await compress(process.execPath, kept, level);
  cpSync(kept, to);
}

async function compress(from: string, to: string, level: string): Promise<void> {
  const xz = Bun.which("xz");
  if (xz === null) throw new BuildError("pack needs xz to compress Bun; install xz-utils");
  const filters = [...(process.arch === "x64" ? ["--x86"] : []), `--lzma2=preset=${level}`]; // jumps as absolute addresses
  const part = `${to}.${process.pid}`;
  const child = Bun.spawn([xz, "--threads=1", ...filters, "--stdout", from], { stdout: Bun.file(part) });
  if ((await child.exited) !== 0) throw new BuildError("xz could not compress Bun");
  renameSync(part, to);
}

function commit(): string {
  const git = Bun.spawnSync(["git", "describe", "--always", "--dirty"], { cwd: root, stderr: "ignore" });
  return git.success ? git.stdout.toString().trim() : "unknown";
}

function sizeOf(path: string): number {
  if (!statSync(path).isDirectory()) return statSync(path).size;
  return readdirSync(path).reduce((sum, name) => sum + sizeOf(join(path, name)), 0);
}

const runScript = (version: string): string => `#!/bin/sh
# Sluice, packed at ${version}. Runs where it lies, without a network:
#   ./run bench --help | ./run parity ... | ./run loss-curve ... | ./run test [FILE...] | ./run FILE.ts ...
#   ./run train ... and every other command of sluice
set -eu
here=$(cd "$(dirname "$0")" && pwd)
bun="$here/bun"
if [ ! -x "$bun" ]; then
  if command -v xz >/dev/null 2>&1; then xz --decompress --stdout "$here/bun.xz" >"$bun.$$"
  else python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], "wb"))' "$here/bun.xz" "$bun.$$"
  fi
  chmod +x "$bun.$$"
  mv "$bun.$$" "$bun"
fi
export SLUICE_COMMIT="${version}"
command=\${1:-help}
[ $# -eq 0 ] || shift
case "$command" in
  bench | parity | loss-curve) exec "$bun" --no-env-file --config=/dev/null "$here/scripts/$command.ts" "$@" ;;
  test) cd "$here" && exec "$bun" test "$@" ;;
  *.ts) exec "$bun" "$command" "$@" ;;
  *) exec "$bun" --no-env-file --config=/dev/null "$here/src/cli.ts" "$command" "$@" ;;
esac
`;

await main(pack);
