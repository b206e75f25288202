// Every portable kernel of cuda/ on the CPU (emulation/gpu.cuh), launched by the real launcher through the stand-in driver, against
// float64: as a GPU of NVIDIA's with warps of 32, and as one of AMD's with waves of 64. The op tests run each op three times in
// other orders of its threads and want equal bits; outputs begin as NaN, and so do the guards around every range, which
// must not change. Numbers are drawn anew each time; a failure prints the seed that repeats it.
//
// Not emulated: attention_hopper.cu and attention_hopper_backward.cu, which are made of instructions that only sm_90a has
// (`bun run test:gpu` runs them on a Hopper).

import { CString, dlopen, ptr, type Pointer } from "bun:ffi";
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "../../scripts/native.ts";
import { temporaryDirectory } from "../support/models.ts";
import { seed, StandIn } from "../support/stand-in.ts";
import { patiently } from "../support/time.ts";

setDefaultTimeout(patiently(120_000)); // building takes about 30 s the first time
const files = temporaryDirectory();

/** Made of instructions that only sm_90a has. */
const excepted = ["attention_hopper.cu", "attention_hopper_backward.cu"];
/** The kernels that a vendor's GPU has; AMD's matrix units have no use for those between `#if SLUICE_WIDE` and `#endif`. */
function kernelsOf(device: "cuda" | "hip"): string[] {
  const names = readdirSync(join(root, "cuda")).filter((name) => name.endsWith(".cu"));
  expect(names).toEqual(expect.arrayContaining(excepted));
  const sources = names
    .filter((name) => !excepted.includes(name))
    .map((name) => readFileSync(join(root, "cuda", name), "utf8"));
  const source = sources.join("\n").replace(device === "hip" ? /^#if SLUICE_WIDE$[^]*?^#endif$/gm : /^$/, "");
  return [...source.matchAll(/^KERNEL\(.*?\) (\w+)\(const /gm)].map((match) => match[1]!).sort();
}

const ops = (...names: string[]): string[] => names.map((name) => `test/ops/${name}.test.ts`);
/** What fills a real GPU takes seconds here, and shows no more than smaller shapes. */
const large =
  "300 others|150,011|200003|300007|1025 x|701 tokens|200 steps|9000 rows|1000 rows|300 x|211 tokens|222 tokens|of 263|33 x 701|257 x|129 x 512";

for (const device of ["cuda", "hip"] as const) {
  describe(device, () => {
    let gpu: StandIn;
    beforeAll(async () => {
      gpu = await StandIn.build(device, files.path);
      gpu.environment["STAND_IN_KERNELS"] = "emulated";
    });
    const expectPass = (paths: string[], pattern = "", environment: Record<string, string> = {}): Promise<void> =>
      gpu.expectPass(paths, `^(?!.*(${large}))${device} .*${pattern}`, {
        SLUICE_TEST_SEED: String(seed),
        ...environment,
      });

    test("rows and vectors", () =>
      expectPass(ops("adamw", "copies", "gradient-norm", "loss", "norm", "rope", "rows", "swiglu")));
    test("attention", () => expectPass(ops("attention", "attention-cached")));
    test("products and their bias", () => expectPass(ops("linear"), "(15|17|33|257) "));
    test("products that the library refuses", () =>
      expectPass(ops("linear"), "(15|17|33|257) ", {
        STAND_IN_FAIL: "product",
        SLUICE_CACHE: join(files.path, "no choices"),
      }));
    if (device === "cuda") {
      test("attention with the shared memory of a small card", () =>
        expectPass(ops("attention", "attention-cached"), "128", { STAND_IN_SHARED: String(99 << 10) }));
      test("rows of logits with little shared memory", () =>
        expectPass(ops("loss"), "24008", { STAND_IN_SHARED: String(4 << 10) }));
    }

    test("no kernel was left out", () => {
      expect([...gpu.launched()].sort()).toEqual(kernelsOf(device));
    });

    describe("what a kernel may do wrong is seen", () => {
      const threads = 128;
      const open = () =>
        dlopen(gpu.library, {
          emulated_kernel: { args: ["ptr", "u32"], returns: "ptr" },
          emulated_launch: { args: ["ptr", "ptr", "u32", "u32", "ptr", "u32", "u64"], returns: "ptr" },
        });
      let library: ReturnType<typeof open>;
      beforeAll(() => {
        library = open();
      });
      afterAll(() => library.close());

      /** What two blocks of the kernel made, or the sentence that it failed with; `number` chooses the order of its threads. */
      function launch(name: string, number: number, block = threads, sharedBytes = 4 * threads): Float32Array | string {
        const from = Float32Array.from({ length: 2 * threads }, (_, i) => i);
        const to = new Float32Array(2 * threads).fill(NaN);
        const copy = new BigUint64Array([to, from].flatMap((range) => [BigInt(ptr(range)), BigInt(range.byteLength)]));
        const words = new Uint32Array(2);
        const workspace = BigUint64Array.of(BigInt(ptr(words)));
        const parameters = new BigUint64Array([copy, workspace].map((value) => BigInt(ptr(value))));
        const label = Buffer.from(`broken__${name}\0`);
        const kernel = library.symbols.emulated_kernel(ptr(label), device === "cuda" ? 32 : 64);
        const blocks = new Uint32Array([2, 1, 1]);
        const said = library.symbols.emulated_launch(
          kernel,
          ptr(blocks),
          block,
          sharedBytes,
          ptr(parameters),
          number,
          BigInt(seed),
        );
        return said === null ? to : String(new CString(said as Pointer));
      }
      const launches = (name: string): (Float32Array | string)[] => [0, 1, 2].map((number) => launch(name, number));

      test("a sound kernel passes in every order", () => {
        const opposite = Float32Array.from({ length: 2 * threads }, (_, i) => (i < threads ? 1 : 3) * threads - 1 - i);
        for (const found of launches("nothing")) expect(found).toEqual(opposite);
      });
      for (const name of ["no_barrier", "one_barrier_for_two", "no_warp_barrier", "copy_not_awaited"])
        test(`${name}: other orders give other bits`, () => {
          const [forwards, backwards] = launches(name);
          expect(forwards).toBeInstanceOf(Float32Array);
          expect(forwards).not.toEqual(backwards);
        });
      test("unwritten: NaN", () => {
        for (const found of launches("unwritten")) expect((found as Float32Array)[threads - 1]).toBeNaN();
      });
      for (const [name, sentence] of [
        ["divergent_barrier", /^the barrier in broken\.cu:\d+ is not reached by all threads: some have ended/],
        ["two_barriers", /^threads of a block wait at different barriers, in broken\.cu:\d+ and in broken\.cu:\d+/],
        ["missing_lane", /waits for the shuffle in broken\.cu:\d+, to which lane 3 does not come: it has ended/],
        [
          "barrier_among_lanes",
          /waits for the shuffle in broken\.cu:\d+, to which lane 3 does not come: it waits for the block/,
        ],
        ["unlike_lanes", /^lane \d+ comes to the (ballot|shuffle) in broken\.cu:\d+, others of its warp wait for the/],
        ["absent_lane", /^a shuffle asks for lane (32 of 32|64 of 64)/],
        ["turn_not_shown", /^a word in broken\.cu:\d+ is looked at for ever: no block that writes it came before/],
        ["beyond_shared", /^byte 0 behind the launch's 512 bytes of shared memory was written/],
        ["beyond_array", /^an index lies outside its array/],
        ["misaligned_load", /^an address is not aligned for what is read or written there/],
        ["misaligned_store", /^an address is not aligned for what is read or written there/],
      ] as const)
        test(`${name}: it says so`, () => {
          for (const found of launches(name)) expect(found).toMatch(sentence);
        });
      test("a block that the kernel was not made for", () => {
        expect(launch("nothing", 0, 100)).toMatch(
          /^a block of 100 threads; the kernel takes whole warps of \d+ and at most 128/,
        );
        expect(launch("nothing", 0, 256)).toMatch(/^a block of 256 threads; /);
        expect(launch("nothing", 0, threads, 1 << 20)).toMatch(/^1048576 bytes of shared memory; there are 233472/);
      });
    });
  });
}
