// safetensors, headers only: where each tensor's bytes lie. The bytes themselves go through native code.
//
// A file is 8 bytes (little-endian u64: header length N), N bytes of JSON (`name -> {dtype, shape, data_offsets}` and
// an optional `__metadata__` of strings), then the data, which the tensors cover exactly: no overlap, no hole, nothing
// after the end. Those are the format's own rules, and every one is checked here, because whatever this file returns is
// read into memory without another look. A damaged or malicious file gives a `ModelError` that names it, and at most
// 100 MB of header are ever read. Reading comes first, then model directories (one file, or shards with an index), then
// the layout for writing, which is pure. The names are Hugging Face's.

import {
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  realpathSync,
  statSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { assert, ModelError } from "../words/errors.ts";
import { explainFileError } from "./atomic.ts";
import { FileStamps } from "./file-stamps.ts";
import { isObject, parseJson } from "./json.ts";

/** Bits per element of every dtype that the format's own library reads and that fills whole bytes. */
const dtypeBits = {
  BOOL: 8,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  F64: 64,
  I64: 64,
  U64: 64,
  C64: 64,
} as const;

export type SafetensorsDtype = keyof typeof dtypeBits;

/** The dtypes that weights may have. */
export type WeightDtype = "BF16" | "F16" | "F32";

export interface TensorEntry {
  dtype: SafetensorsDtype;
  shape: number[];
  /** From the start of the file. */
  offset: number;
  bytes: number;
}

export interface SafetensorsFile {
  /** In the order of their offsets. */
  tensors: Map<string, TensorEntry>;
  metadata: Record<string, string>;
}

/** As in the format's own library. */
const headerBytesMax = 100_000_000;

export function elementBytes(dtype: SafetensorsDtype): number {
  return dtypeBits[dtype] / 8;
}

export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, length) => product * length, 1);
}

// ---- reading a file -------------------------------------------------------------------------------------------------

/** Reads and checks one file's header. */
export function readSafetensors(path: string): SafetensorsFile {
  const { text, dataStart, fileBytes } = readHeaderText(path);
  let header: unknown;
  try {
    header = parseJson(text);
  } catch (cause) {
    throw new ModelError(`${path}: the header ${(cause as Error).message}; the file is damaged`);
  }
  if (!isObject(header)) throw new ModelError(`${path}: the header is not a JSON object; the file is damaged`);

  const entries: [string, TensorEntry][] = [];
  let metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(header)) {
    if (name === "__metadata__") metadata = readMetadata(path, value);
    else entries.push([name, readEntry(path, name, value, dataStart)]);
  }
  checkCoverage(path, entries, dataStart, fileBytes);
  return { tensors: new Map(entries), metadata };
}

function readHeaderText(path: string): { text: string; dataStart: number; fileBytes: number } {
  let descriptor: number | undefined;
  try {
    if (!statSync(path).isFile()) throw new ModelError(`${path}: is not a regular file`); // opening a pipe would wait
    descriptor = openSync(path, "r");
    const fileBytes = fstatSync(descriptor).size;
    if (fileBytes < 8)
      throw new ModelError(`${path}: is ${fileBytes} bytes long, too short for a safetensors file; download it again`);
    const length = readBytes(path, descriptor, 0, 8).readBigUInt64LE();
    if (length > BigInt(headerBytesMax))
      throw new ModelError(
        `${path}: says its header is ${length} bytes long, the limit is ${headerBytesMax}; this is no safetensors file`,
      );
    const dataStart = 8 + Number(length);
    if (dataStart > fileBytes)
      throw new ModelError(
        `${path}: the header needs ${dataStart} bytes but the file ends after ${fileBytes}; it is cut off, download it again`,
      );
    const bytes = readBytes(path, descriptor, 8, Number(length));
    return { text: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes), dataStart, fileBytes };
  } catch (cause) {
    if (cause instanceof ModelError) throw cause;
    if (cause instanceof TypeError) throw new ModelError(`${path}: the header is not UTF-8 text; the file is damaged`);
    throw new ModelError(`${path}: ${explainFileError(cause, "read")}`);
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

/** `readSync` may return less than asked for. */
function readBytes(path: string, descriptor: number, from: number, count: number): Buffer {
  const bytes = Buffer.alloc(count);
  for (let done = 0; done < count;) {
    const got = readSync(descriptor, bytes, done, count - done, from + done);
    if (got === 0) throw new ModelError(`${path}: ended while its header was read; is something still writing it?`);
    done += got;
  }
  return bytes;
}

function readMetadata(path: string, value: unknown): Record<string, string> {
  if (!isObject(value) || !Object.values(value).every((text) => typeof text === "string"))
    throw new ModelError(`${path}: __metadata__ must be an object of strings; the file is damaged`);
  return value as Record<string, string>;
}

function readEntry(path: string, name: string, value: unknown, dataStart: number): TensorEntry {
  const bad = (problem: string) => new ModelError(`${path}: tensor ${JSON.stringify(name)} ${problem}`);
  if (!isObject(value)) throw bad("is not described by an object");
  const { dtype, shape, data_offsets: offsets } = value;
  if (typeof dtype !== "string" || !Object.hasOwn(dtypeBits, dtype))
    throw bad(`has the unknown dtype ${JSON.stringify(dtype)}; known: ${Object.keys(dtypeBits).join(", ")}`);
  if (!isSizes(shape)) throw bad(`has a bad shape: ${JSON.stringify(shape)}`);
  if (!isSizes(offsets) || offsets.length !== 2) throw bad(`has bad data_offsets: ${JSON.stringify(offsets)}`);
  const [begin = 0, end = 0] = offsets;
  const bytes = elementCount(shape) * elementBytes(dtype as SafetensorsDtype);
  if (end - begin !== bytes)
    throw bad(
      `of ${dtype} [${shape.join(", ")}] needs ${bytes} bytes but its data_offsets [${begin}, ${end}] span ${end - begin}`,
    );
  return { dtype: dtype as SafetensorsDtype, shape, offset: dataStart + begin, bytes };
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

/** Sorts the entries by offset and checks that they cover the data section exactly. */
function checkCoverage(path: string, entries: [string, TensorEntry][], dataStart: number, fileBytes: number): void {
  entries.sort(([, a], [, b]) => a.offset - b.offset || a.bytes - b.bytes);
  let end = dataStart;
  let previous = "the header";
  for (const [name, entry] of entries) {
    const problem = entry.offset < end ? "overlaps" : "leaves a hole after";
    if (entry.offset !== end)
      throw new ModelError(`${path}: tensor ${JSON.stringify(name)} ${problem} ${previous}; the file is damaged`);
    end = entry.offset + entry.bytes;
    previous = `tensor ${JSON.stringify(name)}`;
    if (end > fileBytes)
      throw new ModelError(
        `${path}: tensor ${JSON.stringify(name)} ends at byte ${end} but the file after ${fileBytes}; it is cut off, download it again`,
      );
  }
  if (end !== fileBytes)
    throw new ModelError(
      `${path}: has ${fileBytes - end} bytes that belong to no tensor after byte ${end}; the file is damaged`,
    );
}

// ---- reading a model directory --------------------------------------------------------------------------------------

export interface ModelTensor extends TensorEntry {
  dtype: WeightDtype;
  /** Path of the file that holds it. */
  file: string;
}

export interface ModelTensors {
  directory: string;
  tensors: Map<string, ModelTensor>;
  /** Paths of the safetensors files, in order. */
  files: string[];
  /** The files as they were before their headers were read. */
  stamps: FileStamps;
}

/** Whether two tensors are the same bytes of the same dtype and shape. Reads them up to the first difference. */
export function hasSameBytes(a: ModelTensor, b: ModelTensor): boolean {
  if (a.dtype !== b.dtype || a.shape.join() !== b.shape.join()) return false;
  const piece = 2 ** 22;
  const descriptors: number[] = [];
  try {
    for (const { file } of [a, b]) descriptors.push(openSync(file, "r"));
    for (let done = 0; done < a.bytes; done += piece) {
      const length = Math.min(piece, a.bytes - done);
      const [left, right] = [a, b].map(({ file, offset }, i) =>
        readBytes(file, descriptors[i]!, offset + done, length),
      );
      if (!left!.equals(right!)) return false;
    }
    return true;
  } catch (cause) {
    if (cause instanceof ModelError) throw cause;
    throw new ModelError(`${a.file}: ${explainFileError(cause, "read")}`);
  } finally {
    for (const descriptor of descriptors) closeSync(descriptor);
  }
}

const singleName = "model.safetensors";
const indexName = "model.safetensors.index.json";

/** The tensors of a Hugging Face model directory: `model.safetensors`, or else the shards of its index. */
export function openModelTensors(directory: string): ModelTensors {
  requireDirectory(directory);
  const tensors = new Map<string, ModelTensor>();
  const stamps = new FileStamps();
  const read = (file: string) => {
    stamps.add(file);
    return readSafetensors(file).tensors;
  };
  const single = join(directory, singleName);
  if (existsSync(single)) {
    for (const [name, entry] of read(single)) tensors.set(name, weightTensor(single, name, entry));
    return { directory, tensors, files: [single], stamps };
  }
  const indexPath = join(directory, indexName);
  if (!existsSync(indexPath)) throw new ModelError(`${directory}: has no weights; ${whatElse(directory)}`);
  const placed = readIndex(indexPath);
  const shards = [...new Set(placed.values())].sort();
  for (const shard of shards) {
    const file = join(directory, shard);
    if (!existsSync(file)) throw new ModelError(`${file}: is missing, ${indexName} names it; download the model again`);
    checkInside(directory, file);
    for (const [name, entry] of read(file)) {
      const home = placed.get(name);
      if (home !== shard)
        throw new ModelError(
          `${file}: holds tensor ${JSON.stringify(name)}, which ${indexName} ${home === undefined ? "does not list" : `places in ${home}`}; shards and index are of different models`,
        );
      tensors.set(name, weightTensor(file, name, entry));
    }
  }
  for (const [name, shard] of placed)
    if (!tensors.has(name))
      throw new ModelError(
        `${join(directory, shard)}: has no tensor ${JSON.stringify(name)}, which ${indexName} places there; shards and index are of different models`,
      );
  return { directory, tensors, files: shards.map((shard) => join(directory, shard)), stamps };
}

/** A shard may be a link inside its directory, or into the blobs of the hub's cache, where snapshots are links. */
function checkInside(directory: string, file: string): void {
  const [folder, real] = [realpathSync(directory), realpathSync(file)];
  if (real.startsWith(join(folder, "/"))) return;
  const isSnapshot = dirname(folder).endsWith("/snapshots");
  if (isSnapshot && dirname(real) === join(folder, "../../blobs")) return;
  throw new ModelError(
    `${file}: is a link to ${real}, outside of the model's directory; an index may not lead there, so put the file itself in its place`,
  );
}

export function requireDirectory(directory: string): void {
  try {
    if (!statSync(directory).isDirectory())
      throw new ModelError(`${directory}: is a file, a model directory was expected`);
    readdirSync(directory);
  } catch (cause) {
    if (cause instanceof ModelError) throw cause;
    throw new ModelError(`${directory}: ${explainFileError(cause, "read")}`);
  }
}

function whatElse(directory: string): string {
  const other = readdirSync(directory).find((name) => /\.(bin|pt|pth|gguf|h5|msgpack)$/.test(name));
  const wanted = `${singleName} or ${indexName}`;
  return other
    ? `it has ${other}, but Sluice reads ${wanted} only; save the model as safetensors`
    : `it needs ${wanted}`;
}

function weightTensor(file: string, name: string, entry: TensorEntry): ModelTensor {
  const { dtype } = entry;
  if (dtype !== "BF16" && dtype !== "F16" && dtype !== "F32")
    throw new ModelError(`${file}: tensor ${JSON.stringify(name)} is ${dtype}; supported: BF16, F16, F32`);
  return { ...entry, dtype, file };
}

/** Tensor name to shard name. A shard is a plain file name: an index must not reach out of its directory. */
function readIndex(path: string): Map<string, string> {
  let index: unknown;
  try {
    index = parseJson(readFileSync(path, "utf8"));
  } catch (cause) {
    const problem = (cause as NodeJS.ErrnoException).code ? explainFileError(cause, "read") : (cause as Error).message;
    throw new ModelError(`${path}: ${problem}`);
  }
  const map = isObject(index) ? index.weight_map : undefined;
  if (!isObject(map) || Object.keys(map).length === 0)
    throw new ModelError(`${path}: weight_map must be an object of tensor names and files`);
  for (const [name, shard] of Object.entries(map))
    if (typeof shard !== "string" || !/^[^/\\\0]+\.safetensors$/.test(shard))
      throw new ModelError(
        `${path}: weight_map places ${JSON.stringify(name)} in ${JSON.stringify(shard)}; a file name ending in .safetensors, in the same directory, was expected`,
      );
  return new Map(Object.entries(map) as [string, string][]);
}

// ---- layout for writing ---------------------------------------------------------------------------------------------

export interface TensorToWrite {
  name: string;
  dtype: SafetensorsDtype;
  shape: readonly number[];
}

export interface PlacedTensor extends TensorToWrite {
  /** From the start of the file. */
  offset: number;
  bytes: number;
}

export interface FileLayout {
  name: string;
  /** The first bytes of the file: length, JSON, padding. The tensors follow without gaps. */
  header: Uint8Array<ArrayBuffer>;
  fileBytes: number;
  tensors: PlacedTensor[];
}

export interface ModelLayout {
  files: FileLayout[];
  /** Contents of `model.safetensors.index.json`; undefined for a single file. */
  index: { metadata: { total_size: number; total_parameters: number }; weight_map: Record<string, string> } | undefined;
}

/** Data begins at a page boundary, which direct I/O wants; the format allows spaces after the JSON. */
const dataAlignment = 4096;

/**
 * Distributes tensors, in the given order, over as few files as `shardBytesMax` (of tensor bytes) allows; a tensor
 * larger than that gets a file of its own.
 */
export function layoutSafetensors(
  tensors: readonly TensorToWrite[],
  metadata: Record<string, string> = { format: "pt" },
  options: { shardBytesMax?: number } = {},
): ModelLayout {
  const { shardBytesMax = 5e9 } = options;
  assert(shardBytesMax > 0, `shardBytesMax must be above 0 (was ${shardBytesMax})`);
  assert(new Set(tensors.map((tensor) => tensor.name)).size === tensors.length, "two tensors have the same name");
  const shards: { tensors: TensorToWrite[]; bytes: number }[] = [{ tensors: [], bytes: 0 }];
  let totalBytes = 0;
  let totalParameters = 0;
  for (const tensor of tensors) {
    assert(tensor.name !== "__metadata__", "a tensor may not be called __metadata__");
    const count = elementCount(tensor.shape);
    const bytes = count * elementBytes(tensor.dtype);
    let shard = shards.at(-1);
    if (!shard || (shard.bytes > 0 && shard.bytes + bytes > shardBytesMax))
      shards.push((shard = { tensors: [], bytes: 0 }));
    shard.tensors.push(tensor);
    shard.bytes += bytes;
    totalBytes += bytes;
    totalParameters += count;
  }
  const files = shards.map((shard, index) => layoutFile(fileName(index, shards.length), shard.tensors, metadata));
  if (files.length === 1) return { files, index: undefined };
  const places = files.flatMap((file) => file.tensors.map((tensor) => [tensor.name, file.name] as const));
  const weight_map = Object.fromEntries(places.sort(([a], [b]) => (a < b ? -1 : 1)));
  return { files, index: { metadata: { total_size: totalBytes, total_parameters: totalParameters }, weight_map } };
}

function fileName(index: number, count: number): string {
  const digits = (n: number) => String(n).padStart(5, "0");
  return count === 1 ? singleName : `model-${digits(index + 1)}-of-${digits(count)}.safetensors`;
}

function layoutFile(name: string, tensors: readonly TensorToWrite[], metadata: Record<string, string>): FileLayout {
  let end = 0;
  const described: [string, unknown][] = Object.keys(metadata).length > 0 ? [["__metadata__", metadata]] : [];
  const placed = tensors.map((tensor) => {
    const offset = end;
    const bytes = elementCount(tensor.shape) * elementBytes(tensor.dtype);
    end += bytes;
    described.push([tensor.name, { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [offset, end] }]);
    return { ...tensor, offset, bytes };
  });
  // Written out by hand because an object would sort names that look like integers to the front.
  const text = `{${described.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`).join(",")}}`;
  const json = new TextEncoder().encode(text);
  const header = new Uint8Array(Math.ceil((8 + json.length) / dataAlignment) * dataAlignment).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true);
  header.set(json, 8);
  for (const tensor of placed) tensor.offset += header.length;
  return { name, header, fileBytes: header.length + end, tensors: placed };
}
