// Finds and opens the native library. This is the one file that imports bun:ffi; everything native goes through the
// `Native` object it returns, typed by the generated bindings. Importing it does nothing; `native()` loads once.

import { dlopen, toArrayBuffer, type Pointer } from "bun:ffi";
import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { NativeError } from "../words/errors.ts";
import { abiHash, symbols } from "./abi.gen.ts";

const root = join(import.meta.dir, "../..");
const fileName = process.platform === "darwin" ? "libsluice.dylib" : "libsluice.so";

type Loaded = ReturnType<typeof dlopen<typeof symbols>>["symbols"];

/** Every exported function, returning its raw status; `runtime.ts` gives them names and errors. */
export type Native = Loaded & { readonly path: string };

let loaded: Native | undefined;

/** The library, opened on first use. NativeError names every path that was tried. */
export function native(): Native {
  return (loaded ??= open());
}

function open(): Native {
  const tried: string[] = [];
  for (const [origin, path] of candidates()) {
    if (path === undefined || !existsSync(path)) {
      tried.push(`${origin}: ${path ?? "not installed"}`);
      continue;
    }
    const library = openOne(path);
    const hash = library.sluice_abi_hash();
    if (hash !== abiHash) {
      const found = `${path} was built from other declarations (hash ${hash.toString(16)}, expected ${abiHash.toString(16)})`;
      throw new NativeError(`${found}; run "bun run build"`);
    }
    if (library.sluice_cpu_level() === 1)
      throw new NativeError("this x86 CPU has no AVX2; Sluice needs x86_64_v3 or better");
    return Object.assign(library, { path });
  }
  throw new NativeError(`the native library was not found; run "bun run build". Tried ${tried.join("; ")}`);
}

/** Load order: what the environment names, the local build, the platform's package. */
function* candidates(): Generator<[string, string | undefined]> {
  const override = process.env["SLUICE_LIBRARY"];
  if (override !== undefined) {
    yield ["SLUICE_LIBRARY", override];
    return;
  }
  yield ["local build", join(root, "build", fileName)];
  const name = `@sluice/native-${process.platform}-${process.arch}`;
  try {
    yield [name, join(import.meta.resolve(`${name}/package.json`).replace("file://", ""), "..", fileName)];
  } catch {
    yield [name, undefined];
  }
}

function openOne(path: string): Loaded {
  try {
    return dlopen(path, symbols).symbols;
  } catch (cause) {
    throw new NativeError(`cannot open ${path}: ${(cause as Error).message}; run "bun run build"`);
  }
}

/**
 * Paths of the compiled kernels for a vendor, in order of name: in the folder that SLUICE_KERNELS names, else in `kernels` beside
 * the library. AMD's come one per GPU kind, `norm.gfx942.hsaco`, and the engine takes those that its GPU accepts.
 */
export function kernelFiles(device: "cuda" | "hip"): string[] {
  const directory = process.env["SLUICE_KERNELS"] ?? join(dirname(native().path), "kernels");
  if (!existsSync(directory)) return [];
  const ending = device === "cuda" ? ".fatbin" : ".hsaco";
  const names = readdirSync(directory).filter((name) => name.endsWith(ending));
  return names.sort().map((name) => join(directory, name));
}

/** A window into native memory; it must not outlive the buffer. At most 4 GiB. */
export function viewInto(address: bigint | number, offset: number, bytes: number): ArrayBuffer {
  return toArrayBuffer(Number(address) as Pointer, offset, bytes);
}
