// What each byte holds while a plan is followed in the order of recording: which parameters at which version, the gradient
// of which micro-batches, whose output. With it rules 2 and 4 to 8 of DESIGN section 5 become questions about what a command
// finds where it reads. (That nothing happens in another order than recorded is rule 1, in `plan-order.ts`.)
//
// Copies and casts carry contents along, so a question asked at the end of a chain checks every link of it.

import { ByteMap, type Segment } from "./byte-map.ts";
import type { Violation } from "./plan-order.ts";
import type { StepShape } from "./memory.ts";
import { bytesOf } from "./models/decoder.ts";
import type { ParameterBlock } from "./models/parameters.ts";
import type { Ops } from "./native/abi.gen.ts";
import { accesses, describeCommand, type Command, type Plan, type Range } from "./plan.ts";

/** Elements of a block, beginning with element `at`, and how many bytes each takes here. */
interface Elements {
  block: ParameterBlock;
  at: number;
  elementBytes: number;
}

/** Parameters or moments; `half` says which rows of an embedding are at the next version already. */
interface Weights extends Elements {
  kind: "weights";
  version: number;
  half: "rows" | "other rows" | undefined;
}

/** A gradient of these micro-batches (`partOf`), in increasing order; of the head, one entry per chunk of logits. */
interface Gradient extends Elements {
  kind: "gradient";
  plan: Plan;
  parts: readonly number[];
}

/** The gradient of the embedding rows that the step's tokens touch. */
interface RowsGradient {
  kind: "rows gradient";
  plan: Plan;
  parts: readonly number[];
  /** The head's share is in it. */
  tied: boolean;
}

type Content =
  | Weights
  | Gradient
  | RowsGradient
  | { kind: "norm"; plan: Plan; of: string }
  | { kind: "factor"; plan: Plan | undefined }
  /** What this command computed. */
  | { kind: "data"; from: Command }
  | undefined;

const partOf = ({ label }: Command): number => label.pass! * 1000 + label.microBatch!;
const partName = (part: number): string => `pass ${Math.floor(part / 1000)} micro-batch ${part % 1000}`;
const weightFields = new Set(["weight", "bias", "qWeight", "kWeight"]);
const gradientFields = new Set(["dWeight", "dBias", "dQWeight", "dKWeight"]);
const hiddenBuffers = new Set(["hidden", "boundaries"]);
const activationBuffers = new Set(["workspace", "kept"]);

/** What a plan must have gone through by its end. */
interface Expected {
  /** Every micro-batch, and how many bytes of hidden states it has. */
  parts: Map<number, number>;
  /** The micro-batch of each chunk of logits with a gradient. */
  logits: number[];
}

export class Contents {
  readonly violations: Violation[] = [];
  readonly shape: StepShape;
  #maps = new Map<string, ByteMap<Content>>();
  /** Updates so far. */
  #version = 0;
  #plan!: Plan;
  #expected!: Expected;
  /** Whose output forward read as the input of a layer, by "pass layer microBatch". */
  #inputs = new Map<string, Command>();

  constructor(shape: StepShape) {
    this.shape = shape;
    for (const block of shape.blocks)
      for (const part of ["hi", "lo", "m", "v"]) {
        const elementBytes = part === "hi" || part === "lo" ? 2 : 4;
        const weights: Weights = { kind: "weights", block, at: 0, elementBytes, version: 0, half: undefined };
        this.#maps.set(`${block.name}.${part}`, new ByteMap<Content>(block.length * elementBytes, weights, shifted));
      }
    this.#maps.set("unit factor", new ByteMap<Content>(64, { kind: "factor", plan: undefined }));
  }

  /** Follows the next plan. */
  play(plan: Plan): void {
    this.#plan = plan;
    this.#inputs.clear();
    this.#expected = expectedOf(plan);
    for (const command of plan.commands) this.#play(command);
    if (!plan.commands.some(({ label }) => label.phase === "backward")) return;
    this.#version++;
    for (const block of this.shape.blocks) for (const part of ["hi", "lo", "m", "v"]) this.#checkUpdated(block, part);
  }

  #play(command: Command): void {
    switch (command.op) {
      case "copy":
      case "cast": {
        const { to, from } = command.arguments as Ops<Range>["copy"];
        return this.#move(to, from, to.bytes / from.bytes);
      }
      case "joinWeights": {
        const { to, hi, lo } = command.arguments as Ops<Range>["joinWeights"];
        this.#checkPair(command, hi, lo);
        return this.#move(to, hi, 2);
      }
      case "accumulate":
        return this.#accumulate(command, command.arguments as Ops<Range>["accumulate"]);
      case "embeddingGather":
        return this.#gather(command, command.arguments as Ops<Range>["embeddingGather"]);
      case "embeddingScatter":
        return this.#scatter(command, command.arguments as Ops<Range>["embeddingScatter"]);
      case "embeddingAddTied":
        return this.#addTied(command, command.arguments as Ops<Range>["embeddingAddTied"]);
      case "squaredNorm":
      case "squaredNormOtherRows":
        return this.#measure(command, command.arguments as Ops<Range>["squaredNorm"]);
      case "clipFactor":
        return this.#clip(command, command.arguments as Ops<Range>["clipFactor"]);
      case "adamw":
      case "adamwRows":
      case "adamwOtherRows":
        return this.#update(command, command.arguments as Ops<Range>["adamw"]);
      default:
        return this.#compute(command);
    }
  }

  // ---- compute --------------------------------------------------------------------------------------------------------

  /** Any other op: looks at weights, hidden states and activations it reads, and at the gradients it adds to. */
  #compute(command: Command): void {
    const values = command.arguments as unknown as Record<string, number>;
    for (const { field, access, range } of accesses(command)) {
      if (weightFields.has(field)) this.#checkWeights(command, range, this.#version);
      else if (gradientFields.has(field)) this.#addGradient(command, range, values["accumulate"] === 1);
      else if (access === "write")
        this.#map(range).write(range.offset, range.offset + range.bytes, { kind: "data", from: command });
      else if (hiddenBuffers.has(range.buffer.name)) this.#checkInput(command, range);
      else if (range.buffer.name === "dHidden") this.#checkHiddenGradient(command, range);
      else if (activationBuffers.has(range.buffer.name)) this.#checkActivations(command, range);
      if (access === "readwrite" && !gradientFields.has(field))
        this.#map(range).write(range.offset, range.offset + range.bytes, { kind: "data", from: command });
    }
  }

  /** Rule 2 and rule 4: the weights of this block are here, all of them of this version. */
  #checkWeights(command: Command, range: Range, version: number): void {
    const { block: wanted } = command.label;
    const first = this.#at(range);
    for (const { start, value } of this.#read(range)) {
      if (value?.kind !== "weights")
        return this.#report(2, command, `reads ${range}, where no weights were put (${describe(value)})`);
      const { block } = value;
      const fits = block.kind === "decoder" ? block.layer === wanted : wanted === "head" || wanted === block.kind;
      if (!fits) return this.#report(2, command, `reads ${range}, which holds ${describe(value)}`);
      if (
        first?.kind !== "weights" ||
        first.block !== block ||
        value.at - first.at !== (start - range.offset) / value.elementBytes
      )
        return this.#report(2, command, `reads ${range}, which is not one stretch of ${block.name}`);
      if (value.version !== version || value.half !== undefined)
        return this.#report(4, command, `reads ${range}, which holds ${describe(value)} instead of version ${version}`);
    }
  }

  /** Rule 8: what is read as a layer's input is what the layer before computed, in backward the same as in forward. */
  #checkInput(command: Command, range: Range): void {
    const { block, phase, pass, microBatch } = command.label;
    const layer = block === "head" ? this.shape.config.layers : block;
    if (typeof layer !== "number") return;
    const key = `${pass} ${layer} ${microBatch}`;
    for (const { value } of this.#read(range)) {
      const from = value?.kind === "data" && this.#plan.has(value.from.id) ? value.from : undefined;
      const made = from && from.label.pass === pass && from.label.microBatch === microBatch;
      const fits =
        layer === 0
          ? from?.op === "embeddingGather"
          : from?.label.phase === "forward" && from.label.block === layer - 1;
      if (!made || !fits)
        return this.#report(8, command, `reads ${range} as the input of layer ${layer}, which is ${describe(value)}`);
      if (phase === "backward" && this.#inputs.get(key) !== from)
        return this.#report(8, command, `reads ${range}, which is not what forward read`);
      if (phase !== "backward") this.#inputs.set(key, from);
    }
  }

  /** Rule 8: inner activations are those of this layer and micro-batch, kept or computed again. */
  #checkActivations(command: Command, range: Range): void {
    const { block, pass, microBatch } = command.label;
    for (const { value } of this.#read(range)) {
      const label = value?.kind === "data" && this.#plan.has(value.from.id) ? value.from.label : undefined;
      if (label?.block !== block || label?.pass !== pass || label?.microBatch !== microBatch)
        return this.#report(8, command, `reads activations in ${range}, which are ${describe(value)}`);
    }
  }

  /** Rule 5: the gradient of the hidden states comes down through every layer. */
  #checkHiddenGradient(command: Command, range: Range): void {
    const { block, pass, microBatch } = command.label;
    const above = block === this.shape.config.layers - 1 ? "head" : Number(block) + 1;
    for (const { value } of this.#read(range)) {
      const label = value?.kind === "data" && this.#plan.has(value.from.id) ? value.from.label : undefined;
      const fits =
        label &&
        label.pass === pass &&
        label.microBatch === microBatch &&
        (label.block === block || label.block === above);
      if (!fits)
        return this.#report(5, command, `reads the hidden states' gradient in ${range}, which is ${describe(value)}`);
    }
  }

  // ---- gradients ------------------------------------------------------------------------------------------------------

  /** Rule 5: a micro-batch is added to a gradient that was begun in this step, and only once. */
  #addGradient(command: Command, range: Range, accumulate: boolean): void {
    const plan = this.#plan;
    const part = partOf(command);
    const { blocks } = this.shape;
    const layer = command.label.block;
    const block =
      typeof layer === "number"
        ? blocks[layer + 1]!
        : range.buffer.name === "head.matrixGradient"
          ? blocks[0]!
          : blocks.at(-1)!;
    this.#map(range).update(range.offset, range.offset + range.bytes, (value, start) => {
      const started: Gradient = { kind: "gradient", plan, block, at: start / 4, elementBytes: 4, parts: [part] };
      if (!accumulate) return started;
      if (value?.kind !== "gradient" || value.plan !== plan || value.block !== block || value.at !== started.at) {
        this.#report(5, command, `adds to ${range}, which holds ${describe(value)}`);
        return started;
      }
      if (block.kind === "decoder" && value.parts.includes(part))
        this.#report(5, command, `adds ${partName(part)} to ${range} twice`);
      return { ...value, parts: merged(value.parts, [part]) };
    });
  }

  /** Host or device adds a pass to the sum. */
  #accumulate(command: Command, { to, from, accumulate }: Ops<Range>["accumulate"]): void {
    const before = this.#read(to);
    const factor = to.bytes / from.bytes;
    this.#move(to, from, factor);
    if (accumulate === 0) return;
    for (const { start, end, value: old } of before)
      this.#map(to).update(start, end, (added, begin) => {
        if (added === undefined && old === undefined) return undefined; // the padding between groups
        const fits =
          old?.kind === "gradient" &&
          added?.kind === "gradient" &&
          old.plan === added.plan &&
          old.block === added.block &&
          old.at + (begin - start) / old.elementBytes === added.at &&
          !old.parts.some((part) => added.parts.includes(part));
        if (fits) return { ...added, parts: merged(old.parts, added.parts) };
        this.#report(5, command, `adds ${describe(added)} to ${describe(old)} in ${to}`);
        return added;
      });
  }

  /** What is missing from a gradient for an update or a norm; undefined when it is complete. Padding has none. */
  #missing(range: Range, block: ParameterBlock, at: number): string | undefined {
    const wanted = block.kind === "decoder" ? [...this.#expected.parts.keys()] : this.#expected.logits;
    const elementBytes = range.bytes / this.#count(range, block, at);
    for (const { start, end, value } of this.#read(range)) {
      const element = at + (start - range.offset) / elementBytes;
      if (value?.kind === "gradient" && value.plan === this.#plan && value.block === block && value.at === element) {
        if (value.parts.join() === wanted.join()) continue;
        return `has ${value.parts.map(partName).join(", ")} where it needs ${wanted.map(partName).join(", ")}`;
      }
      const last = element + (end - start) / elementBytes;
      for (const [name, group] of block.groups)
        if (group.offset < last && group.offset + group.count > element)
          return `holds ${describe(value)} where it needs the gradient of ${name}`;
    }
    return undefined;
  }

  /** Elements that a gradient range stands for: gradients are float32 or of the compute dtype. */
  #count(range: Range, block: ParameterBlock, at: number): number {
    const found = this.#read(range).find(({ value }) => value?.kind === "gradient")?.value;
    const elementBytes = found?.kind === "gradient" ? found.elementBytes : bytesOf(this.shape.dtype);
    return Math.min(range.bytes / elementBytes, block.length - at);
  }

  // ---- embedding ------------------------------------------------------------------------------------------------------

  #gather(command: Command, { rows, hi, lo }: Ops<Range>["embeddingGather"]): void {
    this.#checkWeights(command, hi, this.#version);
    if (lo) this.#checkPair(command, hi, lo);
    this.#map(rows).write(rows.offset, rows.offset + rows.bytes, { kind: "data", from: command });
  }

  /** Rule 5: the rows' gradients of every micro-batch of this pass have come down. */
  #scatter(command: Command, { gradient, dRows, accumulate }: Ops<Range>["embeddingScatter"]): void {
    const { pass } = command.label;
    const bytes = new Map<number, number>();
    for (const { start, end, value } of this.#read(dRows)) {
      if (value?.kind !== "data" || !this.#plan.has(value.from.id)) continue; // beyond this micro-batch's tokens
      const { from } = value;
      const fits = from.label.phase === "backward" && from.label.block === 0 && from.label.pass === pass;
      if (fits) bytes.set(partOf(from), (bytes.get(partOf(from)) ?? 0) + end - start);
    }
    const wanted = new Map([...this.#expected.parts].filter(([part]) => Math.floor(part / 1000) === pass));
    for (const [part, length] of wanted)
      if (bytes.get(part) !== length)
        this.#report(5, command, `finds ${bytes.get(part) ?? 0} of ${length} bytes of ${partName(part)} in ${dRows}`);
    const [before] = this.#read(gradient);
    let parts: readonly number[] = [...wanted.keys()];
    if (accumulate === 1) {
      const value = before?.value;
      const fits =
        value?.kind === "rows gradient" &&
        value.plan === this.#plan &&
        !value.tied &&
        !parts.some((part) => value.parts.includes(part));
      if (!fits) this.#report(5, command, `adds to ${gradient}, which holds ${describe(value)}`);
      else parts = merged(value.parts, parts);
    }
    this.#map(gradient).write(gradient.offset, gradient.offset + gradient.bytes, {
      kind: "rows gradient",
      plan: this.#plan,
      parts,
      tied: false,
    });
  }

  /** Rule 7: the head's gradient is complete and joins the rows' gradient once. */
  #addTied(command: Command, { gradient, head }: Ops<Range>["embeddingAddTied"]): void {
    const missing = this.#missing(head, this.shape.blocks[0]!, 0);
    if (missing) this.#report(7, command, `the head's gradient in ${head} ${missing}`);
    for (const { value } of this.#read(gradient)) {
      if (value?.kind === "rows gradient" && value.plan === this.#plan && !value.tied) continue;
      return this.#report(7, command, `adds the head's gradient to ${gradient}, which holds ${describe(value)}`);
    }
    this.#map(gradient).update(gradient.offset, gradient.offset + gradient.bytes, (value) => ({
      ...(value as RowsGradient),
      tied: true,
    }));
  }

  /** What is missing from the touched rows' gradient. */
  #missingRows(range: Range): { rule: number; what: string } | undefined {
    for (const { value } of this.#read(range)) {
      if (value?.kind !== "rows gradient" || value.plan !== this.#plan)
        return { rule: 5, what: `holds ${describe(value)}` };
      const wanted = [...this.#expected.parts.keys()];
      if (value.parts.join() !== wanted.join())
        return { rule: 5, what: `has ${value.parts.map(partName)} where it needs ${wanted.map(partName)}` };
      if (value.tied !== this.shape.config.tied) return { rule: 7, what: "lacks the tied head's share" };
    }
    return undefined;
  }

  // ---- norm and update ------------------------------------------------------------------------------------------------

  /** Rule 6: a part of the norm is that of a finished gradient. */
  #measure(command: Command, { sum, x }: Ops<Range>["squaredNorm"]): void {
    const first = this.#at(x);
    let of = "nothing";
    if (first?.kind === "rows gradient") {
      of = "touched rows";
      const missing = this.#missingRows(x);
      if (missing) this.#report(6, command, `measures ${x}, which ${missing.what}`);
    } else if (first?.kind === "gradient") {
      of = first.block.name;
      const missing = this.#missing(x, first.block, first.at);
      const count = this.#count(x, first.block, first.at);
      const wanted = command.op === "squaredNorm" ? first.block.length : first.block.count;
      if (missing) this.#report(6, command, `measures ${x}, which ${missing}`);
      else if (first.at !== 0 || count < wanted)
        this.#report(6, command, `measures ${count} of ${wanted} elements of ${of}`);
    } else this.#report(6, command, `measures ${x}, which holds ${describe(first)}`);
    this.#map(sum).write(sum.offset, sum.offset + sum.bytes, { kind: "norm", plan: this.#plan, of });
  }

  /** Rule 6: all parts of the norm are measured in this step. */
  #clip(command: Command, { factor, sums, parts }: Ops<Range>["clipFactor"]): void {
    const { blocks, config } = this.shape;
    const measured: string[] = [];
    for (let part = 0; part < parts; part++) {
      const value = this.#at(sums.slice(part * 64, 16));
      measured.push(value?.kind === "norm" && value.plan === this.#plan ? value.of : "nothing");
    }
    const wanted = ["touched rows", ...blocks.slice(config.tied ? 0 : 1).map(({ name }) => name)];
    if (measured.toSorted().join() !== wanted.toSorted().join())
      this.#report(6, command, `adds the norms of ${measured.join(", ")} where it needs ${wanted.join(", ")}`);
    this.#map(factor).write(factor.offset, factor.offset + factor.bytes, { kind: "factor", plan: this.#plan });
  }

  /** Rules 5, 6 and 7: a complete gradient, this step's factor, and each parameter once. */
  #update(command: Command, args: Ops<Range>["adamw"]): void {
    const { gradient, factor } = args;
    const { clips, config } = this.shape;
    const scale = this.#at(factor);
    if (scale?.kind !== "factor" || scale.plan !== (clips ? this.#plan : undefined))
      this.#report(6, command, `scales by ${factor}, which holds ${describe(scale)}`);
    const first = this.#at(args.hi);
    if (first?.kind !== "weights")
      return this.#report(5, command, `updates ${args.hi}, which holds ${describe(first)}`);
    const { block, at } = first;
    const tied = config.tied && block.kind === "embedding";
    if (command.op === "adamwRows") {
      const missing = this.#missingRows(gradient);
      if (missing) this.#report(missing.rule, command, `the gradient in ${gradient} ${missing.what}`);
    } else if (gradient) {
      const missing = this.#missing(gradient, block, at);
      if (missing) this.#report(tied ? 7 : 5, command, `the gradient in ${gradient} ${missing}`);
    } else if (tied) this.#report(7, command, "updates a tied embedding without the head's gradient");
    const half = command.op === "adamw" ? undefined : command.op === "adamwRows" ? "rows" : "other rows";
    for (const range of [args.hi, args.lo, args.m, args.v]) this.#updateRange(command, range, block, at, half);
  }

  #updateRange(command: Command, range: Range, block: ParameterBlock, at: number, half: Weights["half"]): void {
    this.#map(range).update(range.offset, range.offset + range.bytes, (value, start) => {
      if (
        value?.kind !== "weights" ||
        value.block !== block ||
        value.at !== at + (start - range.offset) / value.elementBytes
      ) {
        this.#report(5, command, `updates ${range}, which holds ${describe(value)}`);
        return value;
      }
      if (value.version !== this.#version || (half !== undefined && value.half === half))
        this.#report(
          this.shape.config.tied && block.kind === "embedding" ? 7 : 5,
          command,
          `updates ${range} a second time`,
        );
      const other = half !== undefined && value.half === undefined;
      return { ...value, version: value.version + (other ? 0 : 1), half: other ? half : undefined };
    });
  }

  /** Rule 5, at the end of a step: no element is left at the old version. Padding is updated or not. */
  #checkUpdated(block: ParameterBlock, part: string): void {
    const name = `${block.name}.${part}`;
    const elementBytes = part === "hi" || part === "lo" ? 2 : 4;
    for (const { offset, count } of block.groups.values())
      for (const { start, end, value } of this.#maps
        .get(name)!
        .read(offset * elementBytes, (offset + count) * elementBytes))
        if (value?.kind !== "weights" || value.version !== this.#version || value.half !== undefined)
          this.violations.push({
            rule: 5,
            message: `the step ends and ${name}[${start}..${end}] holds ${describe(value)}`,
            commands: [],
          });
  }

  // ---- bytes ----------------------------------------------------------------------------------------------------------

  /** Contents go along, `factor` times as many bytes. */
  #move(to: Range, from: Range, factor: number): void {
    for (const { start, end, value } of this.#read(from)) {
      const begin = to.offset + (start - from.offset) * factor;
      const moved = value && "elementBytes" in value ? { ...value, elementBytes: value.elementBytes * factor } : value;
      this.#map(to).write(begin, begin + (end - start) * factor, moved);
    }
  }

  /** `hi` and `lo` are the two halves of the same elements. */
  #checkPair(command: Command, hi: Range, lo: Range): void {
    const [a, b] = [this.#at(hi), this.#at(lo)];
    if (
      a?.kind !== "weights" ||
      b?.kind !== "weights" ||
      a.block !== b.block ||
      a.at !== b.at ||
      a.version !== b.version
    )
      this.#report(4, command, `joins ${describe(a)} and ${describe(b)}`);
  }

  #map({ buffer }: Range): ByteMap<Content> {
    let map = this.#maps.get(buffer.name);
    if (!map) this.#maps.set(buffer.name, (map = new ByteMap<Content>(buffer.bytes, undefined, shifted)));
    return map;
  }

  #read(range: Range): Segment<Content>[] {
    return this.#map(range).read(range.offset, range.offset + range.bytes);
  }

  /** What a range begins with. */
  #at(range: Range): Content {
    return this.#read(range)[0]?.value;
  }

  #report(rule: number, command: Command, what: string): void {
    const commands = [command];
    this.violations.push({ rule, message: `${what}:\n  ${describeCommand(command)}`, commands });
  }
}

function shifted(value: Content, offset: number): Content {
  return value && "elementBytes" in value ? { ...value, at: value.at + offset / value.elementBytes } : value;
}

const merged = (a: readonly number[], b: readonly number[]): number[] => [...a, ...b].sort((x, y) => x - y);

function expectedOf(plan: Plan): Expected {
  const parts = new Map<number, number>();
  const logits: number[] = [];
  for (const command of plan.commands) {
    if (command.op === "embeddingGather")
      parts.set(partOf(command), (command.arguments as Ops<Range>["embeddingGather"]).rows.bytes);
    if (command.op === "crossEntropy") logits.push(partOf(command));
  }
  return { parts, logits: logits.sort((a, b) => a - b) };
}

function describe(content: Content): string {
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
