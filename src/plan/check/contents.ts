// What each byte of each buffer holds while plans are followed in the order of recording: which parameters at which
// version, the gradient of which micro-batches, whose output. Copies and casts carry contents along, so a question asked at
// the end of a chain checks every link of it. The questions are in `provenance.ts`.

import { ByteMap, type Segment } from "./byte-map.ts";
import type { StepShape } from "../../tiers/shape.ts";
import type { ParameterBlock } from "../../models/parameters.ts";
import { bytesEach, partsOf, stateName } from "../../state/format.ts";
import { Updates } from "../../step/updates.ts";
import { linesOf } from "../buffers.ts";
import { describeCommand, type Command, type Plan, type Range } from "../plan.ts";

/** Elements of a block, beginning with element `at`, and how many bytes each takes here. */
interface Elements {
  block: ParameterBlock;
  at: number;
  elementBytes: number;
}

/** Parameters or moments; `half` says which rows of an embedding are at the next version already. */
export interface Weights extends Elements {
  kind: "weights";
  version: number;
  half: "rows" | "other rows" | undefined;
}

/** A gradient of these micro-batches (`partOf`), in increasing order; of the head, one entry per chunk of logits. */
export interface Gradient extends Elements {
  kind: "gradient";
  plan: Plan;
  parts: readonly number[];
}

/** The gradient of the embedding rows that the step's tokens touch. */
export interface RowsGradient {
  kind: "rows gradient";
  plan: Plan;
  parts: readonly number[];
  /** The head's share is in it. */
  tied: boolean;
}

/** What a command computed. */
export interface Data {
  kind: "data";
  from: Command;
  /** Bytes from the first that it wrote. */
  at: number;
  /** The same for the same ops on the same things, whatever lies where; see `Provenance`. */
  term: number;
}

export type Content =
  | Weights
  | Gradient
  | RowsGradient
  | { kind: "norm"; plan: Plan; of: string }
  | { kind: "factor"; plan: Plan | undefined }
  | Data
  | undefined;

/** More micro-batches than a pass ever has: a part is a pass and a micro-batch as one number. */
const partsOfPass = 2 ** 24;
/** The number of a micro-batch within its step. */
export const partOf = ({ label }: Command): number => label.pass! * partsOfPass + label.microBatch!;
export const passOf = (part: number): number => Math.floor(part / partsOfPass);
export const partName = (part: number): string => `pass ${passOf(part)} micro-batch ${part % partsOfPass}`;

export class Contents {
  #maps = new Map<string, ByteMap<Content>>();
  /** Every part of every block's state, by the name of its buffer. */
  #state: { name: string; block: ParameterBlock; elementBytes: number }[];

  /** Before the first step: parameters at version 0, and the factor of updates that are not clipped. */
  constructor(shape: StepShape) {
    const { blocks, state } = shape;
    this.#state = blocks.flatMap((block) =>
      partsOf(state, { training: true }).map((part) => ({
        name: stateName(block, part),
        block,
        elementBytes: bytesEach(part),
      })),
    );
    for (const { name, block, elementBytes } of this.#state) {
      const weights: Weights = { kind: "weights", block, at: 0, elementBytes, version: 0, half: undefined };
      this.#maps.set(name, new ByteMap<Content>(block.length * elementBytes, weights, shifted));
    }
    const { unit, previous } = Updates.bill(shape);
    for (const { name, bytes } of linesOf([unit, previous]))
      this.#maps.set(name, new ByteMap<Content>(bytes, { kind: "factor", plan: undefined }));
  }

  /** Every stretch of parameters and moments, padding left out. */
  *state(): Generator<Segment<Content> & { name: string }> {
    for (const { name, block, elementBytes } of this.#state)
      for (const { offset, count } of block.groups.values()) {
        const [start, end] = [offset * elementBytes, (offset + count) * elementBytes];
        for (const segment of this.#maps.get(name)!.read(start, end)) yield { name, ...segment };
      }
  }

  read(range: Range): Segment<Content>[] {
    return this.#map(range).read(range.offset, range.offset + range.bytes);
  }

  /** What a range begins with. */
  at(range: Range): Content {
    return this.read(range)[0]?.value;
  }

  write(range: Range, content: Content): void {
    this.#map(range).write(range.offset, range.offset + range.bytes, content);
  }

  /** Gives each segment of a range new contents. */
  update(range: Range, change: (content: Content, start: number) => Content): void {
    this.#map(range).update(range.offset, range.offset + range.bytes, change);
  }

  /** Contents go along, `factor` times as many bytes. */
  move(to: Range, from: Range, factor: number): void {
    for (const { start, end, value } of this.read(from)) {
      const begin = to.offset + (start - from.offset) * factor;
      const moved = value && "elementBytes" in value ? { ...value, elementBytes: value.elementBytes * factor } : value;
      this.#map(to).write(begin, begin + (end - start) * factor, moved);
    }
  }

  #map({ buffer }: Range): ByteMap<Content> {
    let map = this.#maps.get(buffer.name);
    if (!map) this.#maps.set(buffer.name, (map = new ByteMap<Content>(buffer.bytes, undefined, shifted)));
    return map;
  }
}

function shifted(value: Content, offset: number): Content {
  if (value?.kind === "data") return { ...value, at: value.at + offset };
  return value && "elementBytes" in value ? { ...value, at: value.at + offset / value.elementBytes } : value;
}

export function describe(content: Content): string {
  switch (content?.kind) {
    case undefined:
      return "nothing";
    case "weights":
      return `${content.block.name} version ${content.version}${content.half ? ` (${content.half} updated)` : ""}`;
    case "gradient":
      return `the gradient of ${content.block.name} (${content.parts.map(partName).join(", ")})`;
    case "rows gradient":
      return `the gradient of touched rows (${content.parts.map(partName).join(", ")})`;
    case "norm":
      return `the norm of ${content.of}`;
    case "factor":
      return content.plan ? `the factor of step ${content.plan.commands[0]!.label.step}` : "factor 1";
    case "data":
      return `from ${describeCommand(content.from)}`;
  }
}
