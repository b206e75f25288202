// Processes of Bun that find a stand-in for a GPU (test/gpu/stand-in) in the place of a vendor's libraries. The environment of a process
// says what the stand-in does, so each case is a process of its own.

import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "bun:test";
import { buildStandIn, root } from "../../scripts/native.ts";
import { patiently } from "./time.ts";

export interface Ended {
  code: number;
  output: string;
  errors: string;
}

/** What the emulation's turns follow, and the numbers of tests that take it; printed when one fails. */
export const seed = Number(process.env["SLUICE_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 32));

export class StandIn {
  readonly library: string;
  readonly environment: Record<string, string>;
  readonly #device: "cuda" | "hip";
  readonly #launched: string;

  /** `folder` is for what is written on the way. */
  static async build(device: "cuda" | "hip", folder: string): Promise<StandIn> {
    return new StandIn(await buildStandIn(), device, folder);
  }

  private constructor(library: string, device: "cuda" | "hip", folder: string) {
    this.#device = device;
    this.library = library;
    const kernels = join(folder, "kernels");
    mkdirSync(kernels, { recursive: true });
    for (const name of device === "cuda" ? ["norm.fatbin"] : ["norm.gfx90a.hsaco", "norm.gfx942.hsaco"])
      writeFileSync(join(kernels, name), "a kernel");
    this.#launched = join(folder, `launched on ${device}`);
    const [driver, products] =
      device === "cuda" ? ["SLUICE_LIBCUDA", "SLUICE_LIBCUBLASLT"] : ["SLUICE_LIBHIP", "SLUICE_LIBHIPBLASLT"];
    this.environment = {
      [driver!]: this.library,
      [products!]: this.library,
      SLUICE_KERNELS: kernels,
      SLUICE_CACHE: join(folder, "cache"),
      SLUICE_TEST_DEVICE: device,
      STAND_IN_LAUNCHED: this.#launched,
      STAND_IN_SEED: String(seed),
    };
  }

  /** Runs Bun. */
  async run(command: string[], environment: Record<string, string> = {}): Promise<Ended> {
    const child = Bun.spawn([process.execPath, ...command], {
      cwd: root,
      env: { ...process.env, ...this.environment, ...environment },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const [output, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    return { code, output, errors };
  }

  /** Test files, or the tests of them that `pattern` names, all of which must pass. */
  async expectPass(paths: string[], pattern?: string, environment: Record<string, string> = {}): Promise<void> {
    const named = pattern === undefined ? [] : ["-t", pattern];
    const { code, errors } = await this.run(
      ["test", "--timeout", String(patiently(60_000)), ...paths, ...named],
      environment,
    );
    if (code !== 0) throw new Error(`${errors}\non the stand-in for ${this.#device}, SLUICE_TEST_SEED=${seed}`);
    expect(Number(/(\d+) pass/.exec(errors)?.[1])).toBeGreaterThan(0);
  }

  /** The kernels that ran to their end so far. */
  launched(): Set<string> {
    return new Set(existsSync(this.#launched) ? readFileSync(this.#launched, "utf8").trim().split("\n") : []);
  }
}
