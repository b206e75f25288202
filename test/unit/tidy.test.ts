// Each rule of scripts/tidy.ts on a tree that breaks it, and on one that does not. The words the rules look for are put
// together here, or this file would break them.
import { expect, test } from "bun:test";
import { problems } from "../../scripts/tidy.ts";

const clean = {
  "src/index.ts": `// The API.\nexport { step } from "./step.ts";\n`,
  "src/step.ts": "// One step.\nexport function step() {}\n",
  "docs/training-step.md":
    "See [a step](../src/step.ts#L2), `src/step.ts:step`, [the sources](../src) and [x](https://example.org).\n",
};
const found = (changes: Record<string, string>) => problems(new Map(Object.entries({ ...clean, ...changes })));
const cases: [string, Record<string, string>, string][] = [
  [
    "no opening comment",
    { "src/step.ts": "export function step() {}\n" },
    "src/step.ts:1: opens without a comment that says what the file is for",
  ],
  [
    "debris",
    { "src/step.ts": `// One step.\n// ${"TO"}DO: faster\nexport function step() {}\n` },
    `src/step.ts:2: left behind: // ${"TO"}DO: faster`,
  ],
  [
    "a path of one machine",
    { "README.md": `Clone it to ${"/ro"}ot/sluice.\n` },
    `README.md:1: a path of one machine: Clone it to ${"/ro"}ot/sluice.`,
  ],
  [
    "a registry",
    { "bun.lock": `["x@1.0.0", "${"https:"}//registry.example.org/x.tgz"]\n` },
    "bun.lock:1: names a registry; packages come from whichever one is configured",
  ],
  [
    "a file nobody imports, though a worker is known by its address",
    {
      "src/lost.ts": "// Lost.\n",
      "src/worker.ts": "// A worker.\n",
      "src/index.ts": `// The API.\nexport { step } from "./step.ts";\nnew Worker(new URL("./worker.ts", import.meta.url));\n`,
      "test/lost.test.ts": `import "../src/lost.ts";\n`,
    },
    "src/lost.ts: nothing but a test imports it",
  ],
  [
    "a link to nothing",
    { "README.md": "[gone](docs/gone.md)\n" },
    "README.md: links to docs/gone.md, which is not there",
  ],
  [
    "a symbol that moved",
    { "docs/training-step.md": "`src/step.ts:stride`\n" },
    "docs/training-step.md: `src/step.ts:stride` names nothing in that file",
  ],
  [
    "a symbol in a file that moved",
    { "docs/training-step.md": "`src/stop.ts:step`\n" },
    "docs/training-step.md: `src/stop.ts:step` names a file that is not there",
  ],
];

test("a clean tree", () => expect(found({})).toEqual([]));
for (const [name, changes, message] of cases) test(name, () => expect(found(changes)).toEqual([message]));
