// bun scripts/config-docs.ts [--check]: the comments above the config's keys as data, src/run/docs.gen.ts, for the JSON
// schema and for help. An editor shows them as comments, so comments are where they are written; `bun run check` compares.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dir, "..");
const sources = ["src/run/config.ts", "src/data/read/source.ts"];
const target = join(root, "src/run/docs.gen.ts");

/** By `group.key`: the comment above each key, by the constant or interface that it stands in, `const optimizer = type({ ... });`. */
export function keyComments(source: string): Map<string, string> {
  const comments = new Map<string, string>();
  // A group is called as the key that holds it: `optimizer: optimizer.default(...)`.
  const uses = source.matchAll(/^ {4}"?(\w+)\??"?: (\w+)\.default\(\(\) => \(\{\}\)\),/gm);
  const keys = new Map(Array.from(uses, ([, key, name]) => [name!, key!]));
  const constants = source.matchAll(/\n {2}const (\w+) = type\(\{\n([^]*?)\n {2}\}\);/g);
  const interfaces = source.matchAll(/\nexport interface (\w+) \{\n([^]*?)\n\}/g);
  for (const [, name, body] of [...constants, ...interfaces])
    for (const [, comment, key] of body!.matchAll(/\/\*\*((?:[^*]|\*(?!\/))*)\*\/\s*"?(\w+)\??"?:/g)) {
      const group = keys.get(name!) ?? name!.replace(/Group$/, "");
      comments.set(`${group}.${key}`, comment!.replace(/\s*\n\s*\*?\s*/g, " ").trim());
    }
  return comments;
}

function generated(): string {
  const comments = keyComments(sources.map((path) => readFileSync(join(root, path), "utf8")).join("\n"));
  const lines = Array.from(comments, ([key, text]) => `  ${JSON.stringify(key)}: ${JSON.stringify(text)},\n`);
  return `// Written by scripts/config-docs.ts from the comments in ${sources.join(" and ")}.\n\n/** What each key of the config means, by \`group.key\`. */\nexport const keyDocs: Record<string, string> = {\n${lines.join("")}};\n`;
}

if (import.meta.main) {
  const text = generated();
  const fresh = (await Bun.file(target).exists()) && readFileSync(target, "utf8") === text;
  if (!process.argv.includes("--check")) writeFileSync(target, text);
  else if (!fresh) {
    console.error("src/run/docs.gen.ts is stale; run bun scripts/config-docs.ts");
    process.exitCode = 1;
  }
}
