// What neither the compiler nor the linter sees: files without an opening comment, debris, names of one person's machine,
// files nobody imports, and documents that point at what is not there. Pure: `problems` takes the texts by path and
// returns one line per problem, so that its test can hand it a broken tree. `bun run check` hands it this one.

import { readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

/** Text by path relative to the root, with forward slashes. */
export type Tree = ReadonlyMap<string, string>;

/** What is run or imported from outside; every other source file must be imported by one that is not a test. */
const entryPoints =
  /^(src\/(index|cli)\.ts|train\.ts|(scripts|recipes)\/[^/]+\.ts|test\/.*|zig\/(build|root|kernels|generate)\.zig)$/;
const debris = /\b(TO[D]O|FIX[M]E|XX[X]|HAC[K])\b|\bdebugger;/; // bracketed, or this line would be one
const machinePath = /(?<![\w.@-])\/(work|root|tmp|home|Users)\/\w/;
const registryHost = /https?:\/\/[\w.-]*(registry|npmjs|npmmirror|artifactory|verdaccio|nexus)[\w.-]*/;
/** `src/step/step.ts:trainStep` in a document: a file and a word in it. */
const symbolReference = /`((?:src|zig|scripts|test|cuda|hip)\/[\w./-]+\.\w+):(\w+)`/g;
const markdownLink = /\]\(([^)\s]+)\)/g;

export function problems(tree: Tree): string[] {
  return [...tree]
    .flatMap(([path, text]) => [...fileProblems(path, text), ...documentProblems(path, text, tree)])
    .concat(unimported(tree));
}

function* fileProblems(path: string, text: string): Generator<string> {
  const isSource = /\.(ts|zig|cu|cuh)$/.test(path);
  const isTest = path.startsWith("test/");
  if (isSource && !isTest && !/^(#!.*\n)?\/[/*]/.test(text))
    yield `${path}:1: opens without a comment that says what the file is for`;
  for (const [index, line] of text.split("\n").entries()) {
    const where = `${path}:${index + 1}`;
    if (isSource && debris.test(line)) yield `${where}: left behind: ${line.trim()}`;
    // Absolute paths in tests are made-up ones in messages; real ones come from the temporary directory.
    if (!isTest && machinePath.test(line)) yield `${where}: a path of one machine: ${line.trim()}`;
    if (registryHost.test(line)) yield `${where}: names a registry; packages come from whichever one is configured`;
  }
}

function* documentProblems(path: string, text: string, tree: Tree): Generator<string> {
  if (!path.endsWith(".md")) return;
  const directories = new Set([...tree.keys()].flatMap((file) => ancestors(file)));
  for (const [, link] of text.matchAll(markdownLink)) {
    const target = link!.replace(/#.*/, "");
    if (target === "" || /^[a-z]+:/.test(target)) continue;
    const file = normalize(join(dirname(path), target)).replace(/\/$/, "");
    if (!tree.has(file) && !directories.has(file)) yield `${path}: links to ${link}, which is not there`;
  }
  for (const [reference, file, symbol] of text.matchAll(symbolReference)) {
    const found = tree.get(file!);
    if (found === undefined) yield `${path}: ${reference} names a file that is not there`;
    else if (!new RegExp(`\\b${symbol}\\b`).test(found)) yield `${path}: ${reference} names nothing in that file`;
  }
}

function unimported(tree: Tree): string[] {
  const imported = new Set<string>();
  for (const [path, text] of tree) {
    if (path.startsWith("test/") || !/\.(ts|zig)$/.test(path)) continue;
    for (const [, name] of text.matchAll(/(?:from |import\(|import |new URL\()"([\w./-]+\.(?:ts|zig))"/g))
      imported.add(normalize(join(dirname(path), name!)));
  }
  const sources = [...tree.keys()].filter((path) => /^(src|zig|scripts)\/.*\.(ts|zig)$/.test(path));
  const unused = sources.filter((path) => !imported.has(path) && !entryPoints.test(path));
  return unused.map((path) => `${path}: nothing but a test imports it`);
}

function ancestors(path: string): string[] {
  const directory = dirname(path);
  return directory === "." ? [] : [directory, ...ancestors(directory)];
}

/** The texts under `root`, without fixtures and what .gitignore names. Works without git: an archive has none. */
export function readTree(root: string): Tree {
  const ignored = readFileSync(join(root, ".gitignore"), "utf8")
    .split("\n")
    .filter((line) => line.endsWith("/"));
  const names = new Set([".git", ...ignored.map((line) => line.replaceAll("/", ""))]);
  const isText = /(\.(ts|zig|cu|cuh|h|md|json|jsonc|toml|lock|yml|yaml|sh)|\/run)$/;
  const files = [...new Bun.Glob("**/*").scanSync({ cwd: root, dot: true })].map((path) => path.replaceAll("\\", "/"));
  const isPicture = /\.(png|svg)$/; // documents link to them; there is nothing to read
  const wanted = files.filter(
    (path) =>
      (isText.test(path) || isPicture.test(path)) &&
      !path.startsWith("test/fixtures/") &&
      !path.split("/").some((part) => names.has(part)),
  );
  return new Map(
    wanted.sort().map((path) => [path, isPicture.test(path) ? "" : readFileSync(join(root, path), "utf8")]),
  );
}

if (import.meta.main) {
  const tree = readTree(join(import.meta.dir, ".."));
  const found = problems(tree);
  for (const problem of found) console.error(problem);
  if (found.length > 0) process.exitCode = 1;
}
