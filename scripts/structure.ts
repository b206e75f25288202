// The shape of the house, computed from its imports: `src` has two files at its top, imports point down the list of wings
// in docs/design.md, nothing imports in a circle, and no wing has more files than one can overlook. Types count like values:
// who needs another's vocabulary depends on it; what is generated (`.gen.ts`) imports nothing and lies below all. Part of `bun run check`; alone it prints what leads where.

import { readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { readTree, type Tree } from "./tidy.ts";

/** Files of one folder, at most. */
const filesMost = 16;
const atTheTop = ["src/cli.ts", "src/index.ts"];

/** The wings from the top down: the list under "## Wings" of docs/design.md, a line `- **name** ...` each. */
export function wingsOf(design: string): string[] {
  const section = /^## Wings$(.*?)^## /ms.exec(`${design}\n## `)?.[1] ?? "";
  return Array.from(section.matchAll(/^- \*\*(\w+)\*\*/gm), ([, name]) => name!);
}

/** What each file of `src` imports of `src`. */
export function importsOf(tree: Tree): Map<string, string[]> {
  const sources = [...tree].filter(([path]) => /^src\/.*\.ts$/.test(path) && !path.endsWith(".gen.ts"));
  const statement = /^(?:import|export)\b[^;]*?from "(\.[^"]+\.ts)";|import\("(\.[^"]+\.ts)"\)/gm;
  return new Map(
    sources.map(([path, text]) => {
      const found = Array.from(text.matchAll(statement), ([, still, later]) => (still ?? later)!);
      const targets = found.map((target) => normalize(join(dirname(path), target)));
      return [path, [...new Set(targets.filter((target) => !target.endsWith(".gen.ts")))]];
    }),
  );
}

/** The folder under `src`; the checker of plans is a wing of its own, because it looks at steps. */
export const wingOf = (path: string): string => (path.startsWith("src/plan/check/") ? "check" : path.split("/")[1]!);

/** One line per broken rule. */
export function problems(tree: Tree, wings: readonly string[]): string[] {
  const imports = importsOf(tree);
  const top = [...imports.keys()].filter((path) => path.split("/").length === 2).sort();
  const floor = (path: string): number => wings.indexOf(wingOf(path));
  const found: string[] = [];
  for (const path of top) if (!atTheTop.includes(path)) found.push(`${path}: only ${atTheTop.join(" and ")} lie there`);
  const folders = Map.groupBy(imports.keys(), (path) => dirname(path));
  for (const [folder, files] of folders)
    if (files.length > filesMost)
      found.push(`${folder}: ${files.length} files are too many for one folder (${filesMost})`);
  for (const [path, targets] of imports) {
    if (atTheTop.includes(path)) continue;
    if (floor(path) < 0) found.push(`${path}: ${wingOf(path)} is not in the list of wings in docs/design.md`);
    for (const target of targets)
      if (atTheTop.includes(target) || (floor(target) >= 0 && floor(target) < floor(path)))
        found.push(`${path} imports ${target}, which is above it`);
  }
  for (const circle of circles(imports)) found.push(`in a circle: ${circle.join(" → ")}`);
  return found;
}

/** Groups of files that import each other, by Tarjan's algorithm; each as one way round. */
function circles(imports: ReadonlyMap<string, readonly string[]>): string[][] {
  const [index, low, stack, groups] = [
    new Map<string, number>(),
    new Map<string, number>(),
    [] as string[],
    [] as string[][],
  ];
  const visit = (path: string): void => {
    index.set(path, index.size);
    low.set(path, index.get(path)!);
    stack.push(path);
    for (const target of imports.get(path) ?? []) {
      if (!index.has(target)) visit(target);
      if (stack.includes(target)) low.set(path, Math.min(low.get(path)!, low.get(target)!));
    }
    if (low.get(path) !== index.get(path)) return;
    const group = stack.splice(stack.indexOf(path));
    if (group.length > 1) groups.push(wayRound(group, imports));
  };
  for (const path of imports.keys()) if (!index.has(path)) visit(path);
  return groups;
}

function wayRound(group: readonly string[], imports: ReadonlyMap<string, readonly string[]>): string[] {
  const way = [group[0]!];
  for (;;) {
    const next = imports.get(way.at(-1)!)!.find((target) => group.includes(target))!;
    if (way.includes(next)) return [...way.slice(way.indexOf(next)), next];
    way.push(next);
  }
}

if (import.meta.main) {
  const root = join(import.meta.dir, "..");
  const found = problems(readTree(root), wingsOf(readFileSync(join(root, "docs/design.md"), "utf8")));
  for (const problem of found) console.error(problem);
  if (found.length > 0) process.exitCode = 1;
}
