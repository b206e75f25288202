// Checksums of what lies in the cache. They find damage, not intent, so they are fast: some 20 GB/s, less than reading costs.

/** Bytes that are hashed at once: an array may be larger than the hash takes. */
const bytesAtOnce = 2 ** 26;

/** Of some arrays one after another. */
export function checksumOf(...arrays: ArrayBufferView[]): string {
  let sum = 0n;
  for (const { buffer, byteOffset, byteLength } of arrays) {
    for (let at = 0; at < byteLength; at += bytesAtOnce)
      sum = Bun.hash.xxHash3(new Uint8Array(buffer, byteOffset + at, Math.min(bytesAtOnce, byteLength - at)), sum);
    sum = Bun.hash.xxHash3(new Float64Array([byteLength]), sum);
  }
  return sum.toString(16).padStart(16, "0");
}

/** A value as JSON with its checksum. */
export function sealed(value: unknown): string {
  const json = JSON.stringify(value);
  return `${checksumOf(new TextEncoder().encode(json))} ${json}`;
}

/** What `sealed` was given; undefined if it is not whole. */
export function unsealed(text: string): unknown {
  const json = text.slice(17);
  return text === `${checksumOf(new TextEncoder().encode(json))} ${json}` ? JSON.parse(json) : undefined;
}
