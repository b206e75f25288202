// What `bun pm pack` makes, laid into somebody's own project as `bun add` does: it builds its library once, trains the README's
// example, and its types resolve. No registry is asked: dependencies are links to this clone's.

import { expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { basename, join } from "node:path";
import { hostTarget, libraryPath, root, zigPath, zigVersion } from "../../scripts/native.ts";
import { fixtures, readJson, testDirectory } from "../support/models.ts";
import { conversations } from "../support/small-run.ts";
import { patiently } from "../support/time.ts";

setDefaultTimeout(patiently(60_000));

interface Project {
  path: string;
  /** Where the packed copy lies. */
  copy: string;
  /** Runs a command there, its cache inside, Zig played by a script that counts its calls and hands out this clone's library. */
  start(words: readonly string[], env?: Record<string, string>): Promise<{ out: string; error: string; code: number }>;
  zigCalls(): number;
}

async function project(): Promise<Project> {
  const path = testDirectory();
  const copy = join(path, "node_modules/sluice");
  const start: Project["start"] = async (words, env = {}) => {
    const { SLUICE_LIBRARY: _, ...outer } = process.env;
    const own = { NO_COLOR: "1", SLUICE_DEVICE: "cpu", SLUICE_CACHE: join(path, "cache"), SLUICE_ZIG: zig };
    const options = { cwd: path, env: { ...outer, ...own, ...env }, stdout: "pipe", stderr: "pipe" } as const;
    const child = Bun.spawn([...words], options);
    const [out, error, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    return { out, error, code };
  };
  const zig = join(path, "zig");
  const calls = join(path, "zig-calls");
  const name = libraryPath(hostTarget());
  // Its last two words are --prefix and the folder. Slow enough for a second process to find it at work.
  const script = `#!/bin/sh\necho "$*" >>"${calls}"\nfor last; do :; done\nsleep 1\nmkdir -p "$last/lib"\ncp "${name}" "$last/lib/"\n`;
  writeFileSync(zig, script);
  chmodSync(zig, 0o755);

  const pack = await start([process.execPath, "pm", "pack", "--quiet", "--destination", path, "--cwd", root]);
  expect(pack).toMatchObject({ code: 0 });
  const tarball = readdirSync(path).find((file) => file.endsWith(".tgz"))!;
  mkdirSync(copy, { recursive: true });
  expect(await start(["tar", "-xzf", tarball, "--strip-components=1", "-C", copy])).toMatchObject({ code: 0 });
  for (const entry of readdirSync(join(root, "node_modules")))
    if (entry !== "@zigc") symlinkSync(join(root, "node_modules", entry), join(path, "node_modules", entry));
  writeFileSync(join(path, "package.json"), JSON.stringify({ name: "mine", type: "module" }));
  return {
    path,
    copy,
    start,
    zigCalls: () => (existsSync(calls) ? readFileSync(calls, "utf8").trim().split("\n").length : 0),
  };
}

/** The README's first example, its model and data made: what a reader copies. */
function copyExample({ path }: Project): void {
  const [, example] = /```ts\n(.*?)```/s.exec(readFileSync(join(root, "README.md"), "utf8"))!;
  expect(example).toContain('from "sluice"');
  writeFileSync(join(path, "mine.ts"), example!);
  const model = join(path, "path/to/Qwen3-0.6B");
  cpSync(join(fixtures, "qwen3-tiny"), model, { recursive: true });
  const config = { ...readJson(join(model, "config.json")), max_position_embeddings: 1024 }; // what the defaults ask for
  writeFileSync(join(model, "config.json"), JSON.stringify(config));
  writeFileSync(join(path, "chats.jsonl"), conversations(8));
}

test("a packed copy trains in a project of its own, after building its library once", async () => {
  const mine = await project();
  const files = [...new Bun.Glob("**/*").scanSync({ cwd: mine.copy })];
  expect(files.filter((file) => /(^|\/)(test|bench|node_modules|build)(\/|$)|\.test\.ts$/.test(file))).toEqual([]);
  expect(files).toEqual(
    expect.arrayContaining(["README.md", "LICENSE", "src/index.ts", "zig/build.zig", "cuda/norm.cu"]),
  );

  // The other calls of Zig are played; whether its build file does without the tests only Zig can say.
  const caches = [
    "--cache-dir",
    join(mine.path, "zig-cache"),
    "--global-cache-dir",
    join(root, "build/zig-cache/global"),
  ];
  const steps = await mine.start([
    zigPath(),
    "build",
    "--build-file",
    join(mine.copy, "zig/build.zig"),
    ...caches,
    "--list-steps",
  ]);
  expect(steps).toMatchObject({ code: 0, out: expect.stringContaining("install (default)") });

  copyExample(mine);
  const doctor = [process.execPath, join(mine.copy, "src/cli.ts"), "doctor"];
  // Two at the same moment: one builds, the other waits for it.
  const both = await Promise.all([mine.start(doctor), mine.start(doctor)]);
  for (const { out } of both) expect(out).toMatch(/^ok +native library +\S+\/cache\/native\/\w{16}\/libsluice/m);
  const said = `sluice: building the native library with Zig ${zigVersion()}, about half a minute, once\n`;
  expect(both.map(({ error }) => error).sort()).toEqual(["", said]);
  expect(mine.zigCalls()).toBe(1);

  const trained = await mine.start([process.execPath, "mine.ts"]);
  expect(trained).toMatchObject({ code: 0, error: expect.not.stringContaining("building") });
  expect(existsSync(join(mine.path, "runs/mine/model/model.safetensors"))).toBe(true);
  expect(mine.zigCalls()).toBe(1);

  const compilerOptions = {
    lib: ["ESNext"],
    target: "ESNext",
    module: "Preserve",
    types: ["bun-types"],
    moduleResolution: "bundler",
    allowImportingTsExtensions: true,
    verbatimModuleSyntax: true,
    noEmit: true,
    strict: true,
    skipLibCheck: true,
    noFallthroughCasesInSwitch: true,
    noUncheckedIndexedAccess: true,
    noImplicitOverride: true,
  };
  writeFileSync(join(mine.path, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["*.ts"] }));
  writeFileSync(
    join(mine.path, "wrong.ts"),
    'import { train } from "sluice";\nawait train({ model: 1, data: "x" });\n',
  );
  const checked = await mine.start([join(root, "node_modules/.bin/tsc"), "-p", "."]);
  expect(checked.out.trim().split("\n")).toEqual([expect.stringMatching(/^wrong\.ts\(2,15\): error TS2322/)]);
});

test("without a compiler one sentence says what to do, and a platform's package does without one", async () => {
  const mine = await project();
  writeFileSync(join(mine.path, "open.ts"), 'import { run, load } from "sluice";\nawait run(() => load("model"));\n');
  cpSync(join(fixtures, "qwen3-tiny"), join(mine.path, "model"), { recursive: true });
  const open = [process.execPath, "open.ts"];

  const without = await mine.start(["env", "-u", "SLUICE_ZIG", ...open]);
  expect(without).toMatchObject({
    code: 1,
    error: expect.stringMatching(/^no Zig compiler: @zigc\/\S+ is not installed; install @zigc\/cli /),
  });

  const failing = await mine.start(open, { SLUICE_ZIG: "false" });
  expect(failing).toMatchObject({
    code: 1,
    error: expect.stringContaining("the native library could not be built:\n"),
  });

  // A builder that was killed leaves its lock; nobody waits for it.
  const [hash] = readdirSync(join(mine.path, "cache/native"));
  symlinkSync(`4194303@${hostname()}`, join(mine.path, "cache/native", hash!, "building"));
  expect(await mine.start(open, { SLUICE_ZIG: "false" })).toMatchObject({ code: 1 });

  const packaged = join(mine.path, "node_modules", `sluice-${process.platform}-${process.arch}`);
  const library = libraryPath(hostTarget());
  mkdirSync(packaged);
  cpSync(library, join(packaged, basename(library)));
  expect(await mine.start(open, { SLUICE_ZIG: "false" })).toMatchObject({ code: 0, error: "" });

  writeFileSync(join(packaged, basename(library)), "no library");
  const passedOver = await mine.start(open);
  expect(passedOver).toMatchObject({
    code: 0,
    error: expect.stringMatching(/^sluice: sluice-\S+ is not used: cannot open /),
  });
  expect(mine.zigCalls()).toBe(1);
});
