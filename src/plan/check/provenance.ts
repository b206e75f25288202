// Rules 2, 4 to 8 and 13, as questions about what a command finds where it reads: the right weights at the right version,
// the boundary that forward read, a gradient of every micro-batch, this step's factor. Plans are followed in
// the order of recording; that nothing happens in another order is rule 1, in `order.ts`.

import {
  Contents,
  describe,
  partName,
  partOf,
  passOf,
  type Data,
  type Gradient,
  type RowsGradient,
  type Weights,
} from "./contents.ts";
import type { Violation } from "./order.ts";
import { memoryBill } from "../../step/bill.ts";
import type { RecordedStep } from "../../step/step.ts";
import type { BillLine } from "../buffers.ts";
import type { StepShape } from "../../tiers/shape.ts";
import { bytesOf } from "../layout.ts";
import { vectorsOffset, type ParameterBlock } from "../../models/parameters.ts";
import type { OpName, Ops } from "../../native/abi.gen.ts";
import { partsOf } from "../../state/format.ts";
import { accesses, describeCommand, describeLabel, type Command, type Label, type Plan, type Range } from "../plan.ts";

const weightFields = new Set(["weight", "bias", "qWeight", "kWeight"]);
const gradientFields = new Set(["dWeight", "dBias", "dQWeight", "dKWeight"]);

/** What a plan must have gone through by its end. */
interface Expected {
  /** Every micro-batch, and how many bytes of hidden states it has. */
  parts: Map<number, number>;
  /** The micro-batch of each chunk of logits with a gradient. */
  logits: number[];
}

export function checkContents(steps: readonly RecordedStep[], { shape }: { shape: StepShape }): Violation[] {
  const provenance = new Provenance(shape);
  for (const { plan } of steps) provenance.play(plan);
  return provenance.violations;
}

/** Follows plans and remembers what breaks a rule. */
class Provenance {
  readonly violations: Violation[] = [];
  readonly shape: StepShape;
  readonly #lines: ReadonlyMap<string, BillLine>;
  #contents: Contents;
  /** Updates so far. */
  #version = 0;
  #plan!: Plan;
  /** The training step before. */
  #before: Plan | undefined;
  #expected!: Expected;
  /** Whose output forward read as the input of a layer, by "pass layer microBatch". */
  #inputs = new Map<string, Command>();
  /** Numbers of terms, and per kind of layer what was made there first. */
  #interned = new Map<string, number>();
  #terms = new Map<string, { term: number; command: Command }>();

  constructor(shape: StepShape) {
    this.shape = shape;
    this.#lines = new Map(memoryBill(shape).map((line) => [line.name, line]));
    this.#contents = new Contents(shape);
  }

  /** Follows the next plan. */
  play(plan: Plan): void {
    this.#plan = plan;
    this.#inputs.clear();
    this.#expected = expectedOf(plan);
    for (const command of plan.commands) this.#play(command);
    if (!plan.commands.some(({ label }) => label.phase === "backward")) return;
    this.#before = plan;
    this.#version++;
    this.#checkUpdated();
  }

  #play(command: Command): void {
    switch (command.op) {
      case "copy":
      case "cast": {
        const { to, from } = command.arguments as Ops<Range>["copy"];
        return this.#contents.move(to, from, to.bytes / from.bytes);
      }
      case "zero":
        for (const { range } of accesses(command)) this.#contents.write(range, undefined);
        return;
      case "joinWeights": {
        const { to, hi, lo } = command.arguments as Ops<Range>["joinWeights"];
        this.#checkPair(command, hi, lo);
        return this.#contents.move(to, hi, 2);
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
    const terms = this.#termsOf(command);
    for (const { field, access, range } of accesses(command)) {
      if (weightFields.has(field)) this.#checkWeights(command, range, this.#version);
      else if (gradientFields.has(field)) this.#addGradient(command, range, values["accumulate"] === 1);
      else if (access === "write") this.#write(command, range, terms.get(field));
      else this.#checkRead(command, range);
    }
    for (const { field, access, range } of accesses(command)) {
      if (gradientFields.has(field)) this.#checkGradientTerm(command, range, terms.get(field)!);
      else if (access === "readwrite") this.#write(command, range, terms.get(field));
    }
  }

  #write(command: Command, range: Range, term = 0): void {
    this.#contents.write(range, { kind: "data", from: command, at: 0, term });
  }

  // ---- terms ----------------------------------------------------------------------------------------------------------

  /**
   * What a command writes, as a term: its op, and for each range that it reads the group of weights, or the term of what
   * is there. What comes into a block is a variable. So layers of one kind have the same terms, at any level of keeping.
   */
  #termsOf(command: Command): Map<string, number> {
    const read = new Map<string, number>();
    for (const { field, access, range } of accesses(command))
      if (access !== "write" && !gradientFields.has(field)) read.set(field, this.#termIn(command, range));
    let op: OpName = command.op;
    const terms = new Map<string, number>();
    // Backward may norm again what forward added and normed at once.
    if (op === "addRmsnormForward") {
      const sum = this.#intern(`sum ${read.get("x")} ${read.get("delta")}`);
      terms.set("sum", sum);
      read.set("x", sum).delete("delta");
      op = "rmsnormForward";
    }
    const from = [...read]
      .map((one) => one.join(" "))
      .sort()
      .join(", ");
    for (const { field, access } of accesses(command))
      if (access !== "read" && !terms.has(field)) terms.set(field, this.#intern(`${op}.${field}(${from})`));
    return terms;
  }

  /** The term of what a command finds; in a layer it must be all that one command made, or one group of weights. */
  #termIn(command: Command, range: Range): number {
    const { block } = command.label;
    const segments = this.#contents.read(range);
    const value = segments[0]?.value;
    if (value?.kind === "weights") {
      const count = range.bytes / value.elementBytes;
      const group = [...value.block.groups].find(([, at]) => at.offset === value.at && at.count === count);
      if (!group) this.#report(2, command, `reads ${range}, which is not one group of ${value.block.name}`);
      return this.#intern(`weights ${group?.[0]}`);
    }
    if (value?.kind !== "data") return this.#intern("what is given");
    if (typeof block !== "number") return value.term;
    const whole = segments.every(
      ({ start, value: part }) => part?.kind === "data" && part.from === value.from && part.at === start - range.offset,
    );
    if (!whole) this.#report(8, command, `reads ${range}, which does not begin with ${describe(value)}, or not only`);
    if (value.from.label.block === block) return value.term;
    return this.#intern(value.from.label.phase === "forward" || value.from.label.phase === "embed" ? "x" : "dy");
  }

  #intern(text: string): number {
    const known = this.#interned.get(text);
    if (known !== undefined) return known;
    this.#interned.set(text, this.#interned.size + 1);
    return this.#interned.size;
  }

  /** Rule 13: this is made as it was made in the layers of this kind before, and for the micro-batches and steps before. */
  #checkTerm(command: Command, layer: Label["block"], what: string, term: number): void {
    if (typeof layer !== "number") return;
    const key = `${[...this.shape.blocks[layer + 1]!.groups.keys()].join(" ")}: ${what}`;
    const known = this.#terms.get(key);
    if (known === undefined) this.#terms.set(key, { term, command });
    else if (known.term !== term)
      this.#report(
        13,
        command,
        `finds the ${what} of layer ${layer} made otherwise than that of ${describeLabel(known.command.label)}`,
      );
  }

  #checkGradientTerm(command: Command, range: Range, term: number): void {
    const value = this.#contents.at(range);
    if (value?.kind !== "gradient") return;
    const count = range.bytes / value.elementBytes;
    const group = [...value.block.groups].find(([, { offset, count: all }]) => offset === value.at && all === count);
    if (group) this.#checkTerm(command, command.label.block, `gradient of ${group[0]}`, term);
    else this.#report(5, command, `writes ${range}, which is not one group of ${value.block.name}`);
  }

  #checkRead(command: Command, range: Range): void {
    switch (this.#line(range)?.role) {
      case "hidden":
        return this.#checkInput(command, range);
      case "hidden gradient":
        return this.#checkHiddenGradient(command, range);
      case "saved":
      case "scratch":
        return this.#checkActivations(command, range);
    }
  }

  #line({ buffer }: Range): BillLine | undefined {
    return this.#lines.get(buffer.name);
  }

  /** Rule 2 and rule 4: the weights of this block are here, all of them of this version. */
  #checkWeights(command: Command, range: Range, version: number): void {
    const { block: wanted } = command.label;
    const first = this.#contents.at(range);
    for (const { start, value } of this.#contents.read(range)) {
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
    const layer = block === "head" ? this.shape.model.layers : block;
    if (typeof layer !== "number") return;
    const key = `${pass} ${layer} ${microBatch}`;
    for (const { value } of this.#contents.read(range)) {
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
      this.#checkTerm(command, from.label.block, "output", (value as Data).term);
    }
  }

  /** Rule 8: inner activations are those of this layer and micro-batch, kept or computed again. */
  #checkActivations(command: Command, range: Range): void {
    const { block, pass, microBatch } = command.label;
    for (const { value } of this.#contents.read(range)) {
      const label = value?.kind === "data" && this.#plan.has(value.from.id) ? value.from.label : undefined;
      if (label?.block !== block || label?.pass !== pass || label?.microBatch !== microBatch)
        return this.#report(8, command, `reads activations in ${range}, which are ${describe(value)}`);
    }
  }

  /** Rule 5: the gradient of the hidden states comes down through every layer. */
  #checkHiddenGradient(command: Command, range: Range): void {
    const { block, pass, microBatch } = command.label;
    const above = block === this.shape.model.layers - 1 ? "head" : Number(block) + 1;
    for (const { value } of this.#contents.read(range)) {
      const label = value?.kind === "data" && this.#plan.has(value.from.id) ? value.from.label : undefined;
      const fits =
        label &&
        label.pass === pass &&
        label.microBatch === microBatch &&
        (label.block === block || label.block === above);
      if (!fits)
        return this.#report(5, command, `reads the hidden states' gradient in ${range}, which is ${describe(value)}`);
      if (label.block !== block) this.#checkTerm(command, label.block, "input's gradient", (value as Data).term);
    }
  }

  // ---- gradients ------------------------------------------------------------------------------------------------------

  /** Rule 5: a micro-batch is added to a gradient that was begun in this step, and only once. */
  #addGradient(command: Command, range: Range, accumulate: boolean): void {
    const plan = this.#plan;
    const part = partOf(command);
    const { blocks } = this.shape;
    const layer = command.label.block;
    const holds = this.#line(range)?.holds;
    if (!holds) return this.#report(5, command, `adds to ${range}, which is no place for a gradient`);
    const { dtype, of } = holds;
    const block = typeof layer === "number" ? blocks[layer + 1]! : of === "embedding" ? blocks[0]! : blocks.at(-1)!;
    const elementBytes = bytesOf(dtype);
    const begins = of === "vectors" ? vectorsOffset(block) : 0;
    this.#contents.update(range, (value, start) => {
      const at = begins + start / elementBytes;
      const started: Gradient = { kind: "gradient", plan, block, at, elementBytes, parts: [part] };
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
    const before = this.#contents.read(to).map((segment) => ({ ...segment })); // `move` cuts those of the map
    const factor = to.bytes / from.bytes;
    this.#contents.move(to, from, factor);
    if (accumulate === 0) return;
    for (const { start, end, value: old } of before)
      this.#contents.update(to.slice(start - to.offset, end - start), (added, begin) => {
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
    for (const { start, end, value } of this.#contents.read(range)) {
      const element = at + (start - range.offset) / elementBytes;
      if (value?.kind === "gradient" && value.plan === this.#plan && value.block === block && value.at === element) {
        if (value.parts.join() === wanted.join()) continue;
        return `has ${value.parts.map(partName).join(", ")} where it needs ${wanted.map(partName).join(", ")}`;
      }
      const last = element + (end - start) / elementBytes;
      for (const [name, group] of block.groups)
        if (group.offset < last && group.offset + group.count > element)
          return `holds ${describe(value)} where it needs the gradient of ${name}`;
      if (value !== undefined) return `holds ${describe(value)} in its padding`;
    }
    return undefined;
  }

  /** Elements that a gradient range stands for: gradients are float32 or of the compute dtype. */
  #count(range: Range, block: ParameterBlock, at: number): number {
    const found = this.#contents.read(range).find(({ value }) => value?.kind === "gradient")?.value;
    const elementBytes = found?.kind === "gradient" ? found.elementBytes : bytesOf(this.shape.dtype);
    return Math.min(range.bytes / elementBytes, block.length - at);
  }

  // ---- embedding ------------------------------------------------------------------------------------------------------

  #gather(command: Command, { rows, hi, lo }: Ops<Range>["embeddingGather"]): void {
    this.#checkWeights(command, hi, this.#version);
    if (lo) this.#checkPair(command, hi, lo);
    this.#write(command, rows);
  }

  /** Rule 5: the rows' gradients of every micro-batch of this pass have come down. */
  #scatter(command: Command, { gradient, dRows, accumulate }: Ops<Range>["embeddingScatter"]): void {
    const { pass } = command.label;
    const bytes = new Map<number, number>();
    for (const { start, end, value } of this.#contents.read(dRows)) {
      if (value?.kind !== "data" || !this.#plan.has(value.from.id)) continue; // beyond this micro-batch's tokens
      const { from } = value;
      const fits = from.label.phase === "backward" && from.label.block === 0 && from.label.pass === pass;
      if (!fits) continue;
      bytes.set(partOf(from), (bytes.get(partOf(from)) ?? 0) + end - start);
      this.#checkTerm(command, 0, "input's gradient", value.term);
    }
    const wanted = new Map([...this.#expected.parts].filter(([part]) => passOf(part) === pass));
    for (const [part, length] of wanted)
      if (bytes.get(part) !== length)
        this.#report(5, command, `finds ${bytes.get(part) ?? 0} of ${length} bytes of ${partName(part)} in ${dRows}`);
    const [before] = this.#contents.read(gradient);
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
    this.#contents.write(gradient, {
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
    for (const { value } of this.#contents.read(gradient)) {
      if (value?.kind === "rows gradient" && value.plan === this.#plan && !value.tied) continue;
      return this.#report(7, command, `adds the head's gradient to ${gradient}, which holds ${describe(value)}`);
    }
    this.#contents.update(gradient, (value) => ({
      ...(value as RowsGradient),
      tied: true,
    }));
  }

  /** What is missing from the touched rows' gradient. */
  #missingRows(range: Range): { rule: number; what: string } | undefined {
    for (const { value } of this.#contents.read(range)) {
      if (value?.kind !== "rows gradient" || value.plan !== this.#plan)
        return { rule: 5, what: `holds ${describe(value)}` };
      const wanted = [...this.#expected.parts.keys()];
      if (value.parts.join() !== wanted.join())
        return { rule: 5, what: `has ${value.parts.map(partName)} where it needs ${wanted.map(partName)}` };
      if (value.tied !== this.shape.model.tied) return { rule: 7, what: "lacks the tied head's share" };
    }
    return undefined;
  }

  // ---- norm and update ------------------------------------------------------------------------------------------------

  /** Rule 6: a part of the norm is that of a finished gradient. */
  #measure(command: Command, { sum, x }: Ops<Range>["squaredNorm"]): void {
    const first = this.#contents.at(x);
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
    this.#contents.write(sum, { kind: "norm", plan: this.#plan, of });
  }

  /** Rule 6: all parts of the norm are measured in this step. */
  #clip(command: Command, { factor, sums, parts }: Ops<Range>["clipFactor"]): void {
    const { blocks, model } = this.shape;
    const measured: string[] = [];
    for (let part = 0; part < parts; part++) {
      const value = this.#contents.at(sums.slice(part * 64, 16));
      measured.push(value?.kind === "norm" && value.plan === this.#plan ? value.of : "nothing");
    }
    const wanted = ["touched rows", ...blocks.slice(model.tied ? 0 : 1).map(({ name }) => name)];
    if (measured.toSorted().join() !== wanted.toSorted().join())
      this.#report(6, command, `adds the norms of ${measured.join(", ")} where it needs ${wanted.join(", ")}`);
    this.#contents.write(factor, { kind: "factor", plan: this.#plan });
  }

  /** Rules 5, 6 and 7: a complete gradient, this step's factor, and each parameter once. */
  #update(command: Command, args: Ops<Range>["adamw"]): void {
    const { gradient, factor } = args;
    const { clips, model } = this.shape;
    const scale = this.#contents.at(factor);
    const plain = !clips || (command.op === "adamwOtherRows" && !model.tied);
    const wanted = plain ? undefined : clips === "exact" ? this.#plan : this.#before;
    if (scale?.kind !== "factor" || scale.plan !== wanted)
      this.#report(6, command, `scales by ${factor}, which holds ${describe(scale)}`);
    const first = this.#contents.at(args.hi);
    if (first?.kind !== "weights")
      return this.#report(5, command, `updates ${args.hi}, which holds ${describe(first)}`);
    const { block, at } = first;
    const tied = model.tied && block.kind === "embedding";
    if (command.op === "adamwRows") {
      const missing = this.#missingRows(gradient);
      if (missing) this.#report(missing.rule, command, `the gradient in ${gradient} ${missing.what}`);
    } else if (gradient) {
      const missing = this.#missing(gradient, block, at);
      if (missing) this.#report(tied ? 7 : 5, command, `the gradient in ${gradient} ${missing}`);
    } else if (tied) this.#report(7, command, "updates a tied embedding without the head's gradient");
    const half = command.op === "adamw" ? undefined : command.op === "adamwRows" ? "rows" : "other rows";
    for (const { name } of partsOf(this.shape.state, { training: true }))
      this.#updateRange(command, args[name], block, at, half);
  }

  #updateRange(command: Command, range: Range, block: ParameterBlock, at: number, half: Weights["half"]): void {
    this.#contents.update(range, (value, start) => {
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
          this.shape.model.tied && block.kind === "embedding" ? 7 : 5,
          command,
          `updates ${range} a second time`,
        );
      const other = half !== undefined && value.half === undefined;
      return { ...value, version: value.version + (other ? 0 : 1), half: other ? half : undefined };
    });
  }

  /** Rule 5, at the end of a step: no element is left at the old version. Padding is updated or not. */
  #checkUpdated(): void {
    for (const { name, start, end, value } of this.#contents.state())
      if (value?.kind !== "weights" || value.version !== this.#version || value.half !== undefined) {
        const message = `the step ends and ${name}[${start}..${end}] holds ${describe(value)}`;
        this.violations.push({ rule: 5, message, commands: [] });
      }
  }

  /** `hi` and `lo` are the two halves of the same elements. */
  #checkPair(command: Command, hi: Range, lo: Range): void {
    const [a, b] = [this.#contents.at(hi), this.#contents.at(lo)];
    if (
      a?.kind !== "weights" ||
      b?.kind !== "weights" ||
      a.block !== b.block ||
      a.at !== b.at ||
      a.version !== b.version
    )
      this.#report(4, command, `joins ${describe(a)} and ${describe(b)}`);
  }

  #report(rule: number, command: Command, what: string): void {
    const commands = [command];
    this.violations.push({ rule, message: `${what}:\n  ${describeCommand(command)}`, commands });
  }
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
