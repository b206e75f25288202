// `--help` everywhere, answered at once, and a package whose import costs little. On an idle core `--help` takes 30 ms of its
// 100 and the import 40 of its 60. A test may share its cores with others, so the fastest of several tries counts, may take
// twice the limit, and for the import it is processor time that counts: the clock on the wall measures the neighbours. What
// makes an import slow is a library, and those are looked for by name.

import { expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { join } from "node:path";
import { commands } from "../../src/cli/table.ts";
import { sluice } from "../support/cli.ts";

setDefaultTimeout(patiently(30_000)); // whole runs and processes, on a machine that may be busy

const root = join(import.meta.dir, "../..");

test("--help, help and nothing list every command", async () => {
  const { out, code } = await sluice(["--help"]);
  expect(code).toBe(0);
  for (const [name, { summary }] of commands)
    expect(out).toMatch(new RegExp(`sluice ${name} +${RegExp.escape(summary)}`));
  expect(await sluice([])).toEqual({ out, code, error: "" });
  expect(await sluice(["help"])).toEqual({ out, code, error: "" });
});

for (const [name, { load }] of commands)
  test(`${name} --help says how it is called and what its flags are`, async () => {
    const { help } = (await load()).command;
    expect(help).toStartWith(`sluice ${name}`);
    for (const line of help.split("\n")) expect(line.length).toBeLessThanOrEqual(100);
    expect(await sluice([name, "--help"])).toEqual({ out: `${help}\n`, error: "", code: 0 });
  });

test("a wrong command and a wrong flag are answered with what was meant", async () => {
  expect(await sluice(["trian"])).toEqual({
    out: "",
    error: 'sluice has no command "trian" (did you mean train?); see sluice --help\n',
    code: 1,
  });
  const { error, code } = await sluice(["inspect", "--jsn"]);
  expect(error).toStartWith("Unknown option '--jsn'");
  expect(code).toBe(1);
});

const fastest = async (times: number, work: () => number | Promise<number>): Promise<number> => {
  let best = Infinity;
  for (let time = 0; time < times; time++) best = Math.min(best, await work());
  return best;
};

test("sluice --help answers at once", async () => {
  const milliseconds = await fastest(8, async () => {
    const start = performance.now();
    await sluice(["--help"]);
    return performance.now() - start;
  });
  expect(milliseconds).toBeLessThan(patiently(2 * 100));
});

test("importing the package takes little time and loads neither parsers nor tokenizers", async () => {
  const index = JSON.stringify(join(root, "src/index.ts"));
  const heavy = /node_modules[/](arktype|@huggingface|@ark|hyparquet)/;
  const script = `const before = process.cpuUsage(); await import(${index}); const { user, system } = process.cpuUsage(before);
    console.log((user + system) / 1000);
    console.log(Object.keys(require.cache).filter((path) => ${heavy}.test(path)).join(" "));`;
  const milliseconds = await fastest(8, () => {
    const { stdout, stderr } = Bun.spawnSync([process.execPath, "-e", script], { env: process.env, cwd: root });
    const [time, loaded] = stdout.toString().split("\n");
    expect(stderr.toString()).toBe("");
    expect(loaded).toBe("");
    return Number(time);
  });
  expect(milliseconds).toBeLessThan(patiently(2 * 60));
});
