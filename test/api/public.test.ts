// The public API: every name that src/index.ts exports, and every public member of an exported class or interface that is
// a method, has a doc comment where it is declared; types infer from a config; nothing internal is exported.

import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as sluice from "../../src/index.ts";
import type { Callbacks, Config, TrainConfig } from "../../src/index.ts";

const source = join(import.meta.dir, "../../src");
const index = readFileSync(join(source, "index.ts"), "utf8");
const exported = [...index.matchAll(/^export (?:type )?\{([^}]*)\} from "\.\/(.*)";$/gm)].flatMap(([, names, file]) =>
  names!
    .split(",")
    .map((name) => name.replace(/\btype\b/, "").trim())
    .filter((name) => name !== "")
    .map((name) => ({ name, file: file! })),
);

test("index.ts names all that it exports", () => {
  expect(index).not.toContain("export *");
  const values = Object.keys(sluice).sort();
  expect(values).not.toContain("assert");
  expect(exported.map(({ name }) => name)).toEqual(expect.arrayContaining(values));
  for (const name of ["train", "load", "Trainer", "Loader", "evaluate", "exportModel", "run"])
    expect(values).toContain(name);
});

for (const { name, file } of exported)
  test(`${name} is documented`, () => {
    const text = readFileSync(join(source, file), "utf8");
    const declaration = new RegExp(
      `^export (?:async )?(?:const|class|interface|type|function\\*?) ${name}\\b`,
      "m",
    ).exec(text);
    expect(declaration).not.toBeNull();
    const before = text.slice(0, declaration!.index);
    expect(before).toMatch(/\*\/\n$/);
    expect(undocumentedMembers(text.slice(declaration!.index))).toEqual([]);
  });

/** Methods and accessors, two spaces deep, without a comment above; constructors and what `using` calls explain themselves. */
function undocumentedMembers(declaration: string): string[] {
  if (!/^export (class|interface)/.test(declaration)) return [];
  const body = declaration.slice(0, declaration.search(/^\}/m)).split("\n");
  return body.filter((line, at) => {
    const isMember = /^ {2}(static |async |get |\*)*[a-z]\w*\??\(/.test(line);
    return isMember && !line.includes("constructor(") && !body[at - 1]!.trimEnd().endsWith("*/");
  });
}

test("types infer from the config", () => {
  const config = {
    model: "a",
    data: ["b"],
    output: "c",
    deviceMemory: "2GiB",
    schedule: { warmup: "5%" },
  } satisfies TrainConfig;
  const slots: number | "all" | "auto" = ({} as Config).window?.slots;
  const callbacks = { onStep: ({ loss }) => (loss < 1 ? "stop" : undefined) } satisfies Callbacks;
  // @ts-expect-error a key that is none
  const wrong: TrainConfig = { ...config, learningRate: 1 };
  expect({ slots, wrong, callbacks }).toBeDefined();
});
