// What is known about each byte of a buffer, as segments: neighbouring bytes that were touched together share a value.
// Written once over a range they become one segment again, so the map stays as small as the ranges in use are few.

export interface Segment<T> {
  start: number;
  end: number;
  value: T;
}

export class ByteMap<T> {
  /** In order, without gaps from the first byte to the last. */
  #segments: Segment<T>[];
  /** The value of the right half when a segment is cut `offset` bytes after its start. */
  readonly #shift: (value: T, offset: number) => T;

  constructor(bytes: number, value: T, shift: (value: T, offset: number) => T = (same) => same) {
    this.#segments = [{ start: 0, end: bytes, value }];
    this.#shift = shift;
  }

  /** The segments of a range, cut to it. To be looked at, not changed. */
  read(start: number, end: number): Segment<T>[] {
    const found: Segment<T>[] = [];
    for (let index = this.#find(start); index < this.#segments.length; index++) {
      const segment = this.#segments[index]!;
      if (segment.start >= end) break;
      if (segment.start >= start && segment.end <= end) found.push(segment);
      else {
        const from = Math.max(segment.start, start);
        found.push({
          start: from,
          end: Math.min(segment.end, end),
          value: this.#shift(segment.value, from - segment.start),
        });
      }
    }
    return found;
  }

  /** Gives each segment of a range a new value. */
  update(start: number, end: number, change: (value: T, start: number, end: number) => T): void {
    this.#cut(start);
    this.#cut(end);
    for (let index = this.#find(start); index < this.#segments.length; index++) {
      const segment = this.#segments[index]!;
      if (segment.start >= end) break;
      segment.value = change(segment.value, segment.start, segment.end);
    }
  }

  /** One value for a whole range. */
  write(start: number, end: number, value: T): void {
    this.#cut(start);
    this.#cut(end);
    const first = this.#find(start);
    let below = first;
    while (below < this.#segments.length && this.#segments[below]!.start < end) below++;
    this.#segments.splice(first, below - first, { start, end, value });
  }

  /** The index of the segment that has this byte. */
  #find(byte: number): number {
    let low = 0;
    let high = this.#segments.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#segments[middle]!.start <= byte) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #cut(byte: number): void {
    const index = this.#find(byte);
    const segment = this.#segments[index]!;
    if (segment.start === byte || byte >= segment.end) return;
    const right = { start: byte, end: segment.end, value: this.#shift(segment.value, byte - segment.start) };
    segment.end = byte;
    this.#segments.splice(index + 1, 0, right);
  }
}
