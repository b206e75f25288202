// The check of the house itself: what it computes of a made-up tree, and that each rule bites.

import { expect, test } from "bun:test";
import { problems, wingsOf } from "../../scripts/structure.ts";

const wings = ["run", "plan", "words"];
const tree = (files: Record<string, string>) => new Map(Object.entries(files));
const found = (files: Record<string, string>): string[] => problems(tree(files), wings);

const good = {
  "src/index.ts": 'export { train } from "./run/train.ts";\n',
  "src/run/train.ts": 'import { plan } from "../plan/plan.ts";\nconst later = () => import("../words/errors.ts");\n',
  "src/plan/plan.ts": 'import type { Op } from "../run/abi.gen.ts";\n',
  "src/words/errors.ts": "export {};\n",
};

test("a clean house", () => expect(found(good)).toEqual([]));

test("a third file at the top", () =>
  expect(found({ ...good, "src/more.ts": "" })).toEqual([
    "src/more.ts: only src/cli.ts and src/index.ts lie there",
    "src/more.ts: more.ts is not in the list of wings in docs/design.md",
  ]));

test("an import that points up, also of a type", () =>
  expect(found({ ...good, "src/words/errors.ts": 'import type { Plan } from "../plan/plan.ts";\n' })).toEqual([
    "src/words/errors.ts imports src/plan/plan.ts, which is above it",
  ]));

test("a circle inside a wing", () =>
  expect(
    found({
      ...good,
      "src/plan/a.ts": 'import "x";\nimport { b } from "./b.ts";\n',
      "src/plan/b.ts": 'export { a } from "./a.ts";\n',
    }),
  ).toEqual(["in a circle: src/plan/a.ts → src/plan/b.ts → src/plan/a.ts"]));

test("a folder with too many files", () => {
  const many = Object.fromEntries(Array.from({ length: 17 }, (_, index) => [`src/words/w${index}.ts`, ""]));
  expect(found(many)).toEqual(["src/words: 17 files are too many for one folder (16)"]);
});

test("the list of wings is read from the document", () =>
  expect(wingsOf("# D\n\n## Wings\n\nText.\n\n- **cli** a\n- **run** b\n\n## Rules\n\n- **no** c\n")).toEqual([
    "cli",
    "run",
  ]));
