// Does a whole step compute what Hugging Face computes? Every fixture is compared with its float64 references: losses,
// logits, every gradient tensor, norms, weights after three steps, twelve training losses. `scripts/parity.ts` does the
// comparing and has the limits; the share of a limit that was used is printed with SLUICE_TEST_VERBOSE=1. Each GPU that is
// there computes it in bfloat16, too.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { patiently } from "../support/time.ts";
import { cpSync } from "node:fs";
import { join } from "node:path";
import { checkParity, type Check } from "../../scripts/parity.ts";
import { fixtures, temporaryDirectory } from "../support/models.ts";
import { whyMissing } from "../support/ops.ts";

setDefaultTimeout(patiently(30_000)); // other processes may want the cores too
const models = ["llama-tiny", "mistral-tiny", "qwen2-tiny", "qwen3-tiny", "gemma3-tiny"];
const verbose = process.env["SLUICE_TEST_VERBOSE"] === "1";

/** Every check is within its limit, and none is missing. */
function expectWithin(what: string, checks: readonly Check[], names: readonly string[]): void {
  for (const { name, error, limit, where } of verbose ? checks : [])
    console.log(`${what}: ${name} ${((100 * error) / limit).toFixed(1)} % of the limit, ${where}`);
  expect(checks.map(({ name }) => name).sort()).toEqual([...names].sort());
  expect(checks.filter(({ error, limit }) => !(error <= limit))).toEqual([]);
}

const inFloat32 = [
  "loss",
  "logits",
  "gradient norm",
  "gradients",
  "weights after 3 steps",
  "training losses",
  "training norms",
];
const inBfloat16 = ["loss", "gradient cosine (1 − c)", "gradient norm ratio − 1", "training losses", "training norms"];

describe.each(models)("%s", (model) => {
  const directory = join(fixtures, model);

  test.each(["config.json", "config.legacy.json"])("float32, %s", async (config) => {
    const checks = await checkParity(directory, { dtype: "float32", configPath: join(directory, config) });
    expectWithin(`${model} float32 ${config}`, checks, inFloat32);
  });

  test("bfloat16", async () => {
    expectWithin(`${model} bfloat16`, await checkParity(directory, { dtype: "bfloat16" }), inBfloat16);
  });
});

for (const device of ["cuda", "hip"] as const) {
  const reason = whyMissing(device);
  test.skipIf(reason !== undefined).each(models)(
    `%s on ${device}${reason ? ` (skipped: ${reason})` : ""}`,
    async (model) => {
      expectWithin(`${model} on ${device}`, await checkParity(join(fixtures, model), { device }), inBfloat16);
    },
  );
}

describe("command line", () => {
  async function parity(...args: string[]): Promise<{ code: number; output: string; errors: string }> {
    const command = [process.execPath, join(import.meta.dir, "../../scripts/parity.ts"), ...args];
    const child = Bun.spawn(command, { env: process.env, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
    const [output, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    return { code, output, errors };
  }

  test("prints a line per check and ends with 0", async () => {
    const { code, output, errors } = await parity(join(fixtures, "qwen3-tiny"));
    expect(errors).toBe("");
    expect(output.match(/^ok /gm)).toHaveLength(inFloat32.length);
    expect(code).toBe(0);
  });

  test("a gradient that is off by a thousandth fails, by name", async () => {
    using copy = temporaryDirectory();
    cpSync(join(fixtures, "llama-tiny"), copy.path, { recursive: true });
    await scaleTensor(join(copy.path, "reference.safetensors"), "grad.packed.model.layers.2.mlp.up_proj.weight", 1.001);
    const { code, output } = await parity(copy.path);
    expect(output.match(/^FAIL.*/gm)).toEqual([
      expect.stringMatching(/^FAIL gradients +1\.0e-3 of 2\.0e-5  model\.layers\.2\.mlp\.up_proj\.weight$/),
    ]);
    expect(code).toBe(1);
  });

  test("a key bias and a norm of a training step that are off fail, in bfloat16 too", async () => {
    using copy = temporaryDirectory();
    cpSync(join(fixtures, "qwen2-tiny"), copy.path, { recursive: true });
    const bias = "model.layers.2.self_attn.k_proj.bias";
    await scaleTensor(join(copy.path, "reference.safetensors"), `grad.packed.${bias}`, 1.1);
    const path = join(copy.path, "reference.json");
    const reference = await Bun.file(path).json();
    reference.training.grad_norms[6] *= 1.15;
    await Bun.write(path, JSON.stringify(reference));
    const { output } = await parity(copy.path, "--dtype", "bfloat16");
    expect(output.match(/^FAIL.*/gm)).toEqual([
      expect.stringMatching(new RegExp(`^FAIL gradient norm ratio − 1 .* ${bias}$`)),
      expect.stringMatching(/^FAIL training norms .* step 7$/),
    ]);
  });

  test("a folder without references, and a wrong flag", async () => {
    using empty = temporaryDirectory();
    const path = join(empty.path, "reference.json");
    const missing = await parity(empty.path);
    expect(missing).toEqual({
      code: 1,
      output: "",
      errors: `${path} is missing; parity needs a folder with Hugging Face reference results\n`,
    });
    const wrong = await parity(empty.path, "--dtype", "float16");
    expect(wrong).toEqual({ code: 1, output: "", errors: "--dtype must be float32 or bfloat16 (was float16)\n" });
  });
});

/** Scales one float32 tensor of a safetensors file in place. */
async function scaleTensor(path: string, name: string, factor: number): Promise<void> {
  const bytes = new Uint8Array(await Bun.file(path).arrayBuffer());
  const headerBytes = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + headerBytes)));
  const [from, to] = header[name].data_offsets as [number, number];
  const values = new Float32Array(bytes.slice(8 + headerBytes + from, 8 + headerBytes + to).buffer);
  bytes.set(new Uint8Array(values.map((value) => value * factor).buffer), 8 + headerBytes + from);
  await Bun.write(path, bytes);
}
