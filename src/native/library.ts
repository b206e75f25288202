// Finds and opens the native library. This is the one file that imports bun:ffi; everything native goes through the
// `Native` object it returns, typed by the generated bindings. Importing it does nothing; `native()` loads once.

import { dlopen, toArrayBuffer, type Pointer } from "bun:ffi";
import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { NativeError } from "../words/errors.ts";
import { abiHash, symbols } from "./abi.gen.ts";
import { cachedLibrary, installedPackage, isInstalled, root } from "./build.ts";

const fileName = process.platform === "darwin" ? "libsluice.dylib" : "libsluice.so";
/** A package that holds the library, and maybe `kernels`, for those who do not want to build it. */
const platformPackage = `sluice-${process.platform}-${process.arch}`;

type Loaded = ReturnType<typeof dlopen<typeof symbols>>["symbols"];

/** Every exported function, returning its raw status; `runtime.ts` gives them names and errors. */
export type Native = Loaded & { readonly path: string };

let loaded: Native | undefined;

/** The library, opened on first use; an installed copy may build it then (`build.ts`). NativeError says what to do. */
export function native(): Native {
  return (loaded ??= open());
}

const remedy = isInstalled ? "delete it, and it is built anew" : 'run "bun run build"';

/** In this order: what the environment names, the local build, the platform's package, an installed copy's own in the cache. */
function open(): Native {
  const override = process.env["SLUICE_LIBRARY"];
  if (override !== undefined) return openOne(override);
  const local = join(root, "build", fileName);
  if (existsSync(local)) return openOne(local);
  const packaged = openPackaged();
  if (packaged !== undefined) return packaged;
  if (isInstalled) return openOne(cachedLibrary());
  const tried = `local build: ${local}; ${platformPackage}: not installed`;
  throw new NativeError(`the native library was not found; run "bun run build". Tried ${tried}`);
}

/** One that does not fit these sources is named and passed over: a copy can build its own. */
function openPackaged(): Native | undefined {
  const folder = installedPackage(platformPackage);
  if (folder === undefined) return undefined;
  try {
    return openOne(join(folder, fileName));
  } catch (cause) {
    if (!isInstalled || !(cause instanceof NativeError)) throw cause;
    process.stderr.write(`sluice: ${platformPackage} is not used: ${cause.message}\n`);
    return undefined;
  }
}

function openOne(path: string): Native {
  let library: Loaded;
  try {
    library = dlopen(path, symbols).symbols;
  } catch (cause) {
    throw new NativeError(`cannot open ${path}: ${(cause as Error).message}; ${remedy}`);
  }
  const hash = library.sluice_abi_hash();
  if (hash !== abiHash) {
    const found = `${path} was built from other declarations (hash ${hash.toString(16)}, expected ${abiHash.toString(16)})`;
    throw new NativeError(`${found}; ${remedy}`);
  }
  if (library.sluice_cpu_level() === 1)
    throw new NativeError("this x86 CPU has no AVX2; Sluice needs x86_64_v3 or better");
  return Object.assign(library, { path });
}

/**
 * Paths of the compiled kernels for a vendor, in order of name: in the folder that SLUICE_KERNELS names, else in `kernels` beside
 * the library, else those that were compiled in an installed copy's own build folder. AMD's come one per GPU kind,
 * `norm.gfx942.hsaco`, and the engine takes those that its GPU accepts. NativeError in an installed copy that has none.
 */
export function kernelFiles(device: "cuda" | "hip"): string[] {
  const named = process.env["SLUICE_KERNELS"];
  const own = isInstalled ? [join(root, "build/kernels")] : [];
  const folders = named ? [named] : [join(dirname(native().path), "kernels"), ...own];
  const ending = device === "cuda" ? ".fatbin" : ".hsaco";
  for (const folder of folders) {
    const names = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith(ending)) : [];
    if (names.length > 0) return names.sort().map((name) => join(folder, name));
  }
  if (!isInstalled || named) return []; // the engine says what a clone does
  const compiler = device === "cuda" ? "nvcc 13" : "clang 19 and lld 19";
  throw new NativeError(
    `no compiled kernels for device "${device}" were found; with ${compiler}, "bun run --cwd ${root} kernels" compiles them; or name their folder in SLUICE_KERNELS`,
  );
}

/** A window into native memory; it must not outlive the buffer. At most 4 GiB. */
export function viewInto(address: bigint | number, offset: number, bytes: number): ArrayBuffer {
  return toArrayBuffer(Number(address) as Pointer, offset, bytes);
}
