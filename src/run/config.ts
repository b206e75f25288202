// The config of a training run: what a recipe may say, what it means when it says nothing, and what Sluice answers when
// it is wrong. `parseConfig` returns a complete `Config` or throws one `ConfigError` that lists every problem with its
// path, its value and what would be accepted.
//
// Promises: importing this file costs nothing (arktype takes 120 ms to load and is imported inside `parseConfig`).
// A parsed config is plain JSON, but for the functions that sources of a recipe may have, and parsing it again gives the
// same config; `configJson` is what a checkpoint carries. Every key below is honoured by the engine; there is no key that
// is accepted and ignored.
//
// Rules that need the model (`window.residentBlocks` beyond its blocks, say) are checked where the model is known.
// Next: data/loader.ts turns `data` into batches, lr.ts turns `schedule` into rates.

import { clippingOf, evenTokens } from "../tiers/shape.ts";
import { FUNCTION_MARK, sourceProblems, type DataInput } from "../data/read/source.ts";
import { scheduleProblems } from "./lr.ts";
import { ConfigError } from "../words/errors.ts";
import { chooseDevice } from "../native/choose.ts";
import { defaultDtype, dtypeProblem, isGpu, type GpuKind } from "../native/devices.ts";
import { formatValue, parseSize } from "../words/format.ts";
import { formatDefault, stateFormats } from "../state/format.ts";
import { closest } from "../words/suggest.ts";

type Ark = typeof import("arktype");

/** What a recipe writes: `await train({...} satisfies TrainConfig)`. */
export type TrainConfig = ReturnType<typeof schema>["root"]["inferIn"];

/** What the engine reads: every default filled in, every size in bytes. */
export type Config = Omit<ReturnType<typeof schema>["root"]["infer"], "microBatchTokens" | "device" | "dtype"> & {
  microBatchTokens: number;
  device: "cpu" | GpuKind;
  dtype: "float32" | "bfloat16";
};

/** The groups of the config, innermost first; `root` holds them all. Their keys also serve the did-you-mean. */
function schema({ type }: Ark) {
  const text = type("string > 0").describe("a non-empty string");
  // `sourceProblems` checks it: the words of a union of strings, objects and lists would be hard to read.
  const sources = type("unknown").as<DataInput>().describe("a path, or a list of paths and sources");
  const count = type("number.integer >= 1").describe("a whole number >= 1");
  const countOrZero = type("number.integer >= 0").describe("a whole number >= 0");
  const positive = type.number.moreThan(0).lessThan(Infinity).describe("a number > 0");
  const notNegative = type.number.atLeast(0).lessThan(Infinity).describe("a number >= 0");
  const beta = type("0 <= number < 1").describe("a number >= 0 and < 1");
  const ratio = type("0 <= number <= 1").describe("a number from 0 to 1");
  const all = type("'all'");
  const auto = type("'auto'");
  const never = type("null");
  const sizeWords = 'a size such as "24GiB" or "512MiB"';
  const size = type("number > 0 | string")
    .describe(sizeWords)
    .pipe((value, ctx): number => {
      const bytes = typeof value === "string" ? parseSize(value) : Math.round(value);
      return bytes || (ctx.reject({ expected: sizeWords }) as never);
    });
  /** A number of steps, or a share of all steps. */
  const percent = type(/^(100|\d{1,2})(\.\d+)?%$/);
  const span = countOrZero.or(percent).describe('a whole number of steps or a share such as "3%"');

  const weightDecayGroup = type({
    "+": "reject",
    /** Hugging Face tensor names, `*` standing for any characters: "*.bias". */
    match: text,
    /** The decay of every tensor that matches; the first matching group counts. */
    weightDecay: notNegative,
  });

  const optimizer = type({
    "+": "reject",
    /** The peak of the schedule. */
    learningRate: positive.default(2e-5),
    /** AdamW's decay of the first moment. */
    beta1: beta.default(0.9),
    /** AdamW's decay of the second moment. */
    beta2: beta.default(0.95),
    /** Added to the root of the second moment. */
    epsilon: positive.default(1e-8),
    /** Decoupled weight decay of tensors with two or more dimensions; the others get none. */
    weightDecay: notNegative.default(0),
    /** Exceptions to `weightDecay` by tensor name. */
    "weightDecayGroups?": weightDecayGroup.array().describe("a list of { match, weightDecay }"),
    /** Format of master weights and moments. */
    state: type.enumerated(...stateFormats).default(formatDefault),
  });

  const schedule = type({
    "+": "reject",
    /** Shape after the warm-up; `wsd` is warm-up, stable, decay. */
    type: type("'constant' | 'linear' | 'cosine' | 'wsd'").default("cosine"),
    /** Linear rise to the peak: steps or a share of all steps. */
    warmup: span.default("3%"),
    /** Length of the final decay; `wsd` only, there 20 % unless said. */
    "decay?": span,
    /** The final rate over the peak. */
    minRatio: ratio.default(0),
  });

  const window = type({
    "+": "reject",
    /** Device buffers that hold sliding blocks. What is "auto" here, a GPU's memory and rates decide (src/predict/fit.ts). */
    slots: type("number.integer >= 2").describe("a whole number >= 2").or(all).or(auto).default("auto"),
    /** Where block inputs wait for backward. */
    boundary: type("'device' | 'pinned' | 'auto'").default("auto"),
    /** Blocks, counted from the last, that keep inner activations; the others recompute them. */
    keepBlocks: countOrZero.or(all).or(auto).default("auto"),
    /** What those blocks keep: "all", the results of matrix "products" and attention, or that of "attention" alone. */
    "keep?": type("'all' | 'products' | 'attention'"),
    /** Blocks, counted from the first, that stay on the device with their state. */
    residentBlocks: countOrZero.or(all).or(auto).default("auto"),
    /** Host slots for gradients on their way to the optimizer, in blocks. */
    ring: count.or(all).or(auto).default("auto"),
  });

  const clipping = type({ "+": "reject", value: positive, mode: "'exact' | 'previous'" }).describe(
    '{ value, mode: "exact" | "previous" }',
  );

  const checkpoint = type({
    "+": "reject",
    /** Steps between checkpoints; null: only at the end; "never": not even there, only the model is exported. */
    every: count.or(never).or("'never'").describe('a whole number >= 1, null or "never"').default(500),
    /** How many checkpoints to keep; older ones are deleted. */
    keep: count.default(2),
    /** false: weights alone, as Hugging Face directories; they are smaller, and a run cannot go on from them. */
    state: type("boolean").default(true),
    /** true: continue the newest checkpoint of `output`; "auto": the same if there is one; a path: that checkpoint. */
    resume: type("boolean").or(text).describe('true, false, "auto" or the path of a checkpoint').default(false),
  });

  const evaluation = type({
    "+": "reject",
    /** Steps between evaluations of `evaluationData`; null: only before the first and after the last step. */
    every: count.or(never).default(null),
  });

  const logging = type({
    "+": "reject",
    /** Steps between printed lines when the output is not a terminal; metrics.jsonl and loss.csv get every step. */
    every: count.default(10),
  });

  const chat = type({
    "+": "reject",
    /** Which tokens of conversations and `prompt`/`completion` count: see `ChatLoss` in data/chat.ts. */
    loss: type("'assistant' | 'last' | 'completion' | 'all'").default("assistant"),
  });

  const exporting = type({
    "+": "reject",
    /** Number format of the exported model; without it that of `model`: bfloat16 if all its weights are, else float32. */
    "dtype?": type("'float32' | 'bfloat16'"),
  });

  const root = type({
    "+": "reject",
    /** A Hugging Face model directory or hub id. */
    model: text,
    /** Paths, and sources with weight, split, limit, filter and map (data/source.ts), of the shapes in data/shapes.ts. */
    data: sources,
    /** Held-out data, given in the same way, or a share such as "5%" that is kept from `data` for it. */
    "evaluationData?": sources,
    /** How many malformed lines may be left out: a count, or a share of all lines such as "1%". */
    maxBadLines: countOrZero.or(percent).describe('a whole number of lines or a share such as "1%"').default(0),
    /** Training files of so many bytes or more in all are tokenized during the run, others before it (docs/data.md). */
    streamAbove: size.default(64 * 2 ** 20),
    /** The run directory: metrics, checkpoints and the exported model. */
    output: text,
    /** Write into an `output` that holds other files, or start anew where it holds a run, whose files then go. */
    overwrite: type("boolean").default(false),
    /** Where a step is computed; "auto": the GPU that is there and works, else the CPU. */
    device: type("'auto' | 'cpu' | 'cuda' | 'hip'").default("auto"),
    /** The type that the device computes in; GPUs compute in "bfloat16", the cpu device in "float32" unless said. */
    "dtype?": type("'float32' | 'bfloat16'"),
    /** The most bytes the device may hold; without it, as many as it has. On a GPU it counts context and libraries too. */
    "deviceMemory?": size,
    /** Host threads for the optimizer, casts and the cpu device. */
    workers: count.default(navigator.hardwareConcurrency),
    /** Drives the order of the data. */
    seed: type("0 <= number.integer <= 4294967295").describe("a whole number from 0 to 4294967295").default(1),
    /** The longest row, in tokens. */
    sequenceLength: type("number.integer >= 2").describe("a whole number >= 2").default(1024),
    /** Rows in one step. */
    batchSize: count.default(8),
    /** Tokens that pass a block at once; "auto": up to 16,384 on a GPU, `sequenceLength` on the cpu device. */
    "microBatchTokens?": count.or(auto),
    /** Passes over the blocks that share one update; a pass takes `batchSize / gradientAccumulation` rows. */
    gradientAccumulation: count.default(1),
    /** How long to train: this many steps ... */
    "steps?": count,
    /** ... or this many times through the data; once unless `steps` is given. */
    "epochs?": positive,
    optimizer: optimizer.default(() => ({})),
    /**
     * Clip to this exact global norm; null: never. Mode "previous" scales by the norm of the step before, so that updates
     * need not wait for this step's: not the same training, and its first step is not clipped.
     */
    maxGradNorm: positive.or(never).or(clipping).default(1),
    schedule: schedule.default(() => ({})),
    window: window.default(() => ({})),
    checkpoint: checkpoint.default(() => ({})),
    evaluation: evaluation.default(() => ({})),
    logging: logging.default(() => ({})),
    /** Write the curves as TensorBoard event files too, into `tensorboard/` of the run directory. */
    tensorboard: type("boolean").default(false),
    /** Serve the curves live to a browser on this machine: true for any free port, or the port. */
    dashboard: type("boolean")
      .or("1 <= number.integer <= 65535")
      .describe("true, false or a port from 1 to 65535")
      .default(false),
    chat: chat.default(() => ({})),
    export: exporting.default(() => ({})),
  });

  const groups = {
    maxGradNorm: clipping,
    optimizer,
    schedule,
    window,
    checkpoint,
    evaluation,
    logging,
    chat,
    export: exporting,
  };
  return { root, groups: { ...groups, "optimizer.weightDecayGroups": weightDecayGroup } };
}

let compiled: ReturnType<typeof schema> | undefined;

/** Check a config and fill in its defaults; throws a `ConfigError` that lists every problem. */
export async function parseConfig(input: unknown): Promise<Config> {
  const ark = await import("arktype");
  const { root, groups } = (compiled ??= schema(ark));
  const parsed = root(input);
  const { data, evaluationData } = (input ?? {}) as Partial<TrainConfig>;
  const inSources = [
    ...(data === undefined ? [] : sourceProblems(data, "data")),
    ...(evaluationData === undefined ? [] : sourceProblems(evaluationData, "evaluationData")),
  ];
  if (parsed instanceof ark.type.errors) {
    const known: Known = new Map([["", keysOf(root)]]);
    for (const [path, group] of Object.entries(groups)) known.set(path, keysOf(group));
    throw configError([...Array.from(parsed, (error) => problem(error, input, known)), ...inSources]);
  }
  if (inSources.length > 0) throw configError(inSources);
  const device = parsed.device === "auto" ? chooseDevice().device : parsed.device;
  const config: Config = {
    ...parsed,
    device,
    dtype: parsed.dtype ?? defaultDtype(device),
    microBatchTokens: microBatchTokensOf({ ...parsed, device }),
  };
  if (config.steps === undefined) config.epochs ??= 1;
  const broken = contradictions(config, input as TrainConfig);
  if (broken.length > 0) throw configError(broken);
  return config;
}

/** The config as a file holds it: functions of a recipe become a mark that `parseConfig` refuses with the reason. */
export function configJson(config: Config): unknown {
  return JSON.parse(JSON.stringify(config, (_, value) => (typeof value === "function" ? FUNCTION_MARK : value)));
}

/** "auto" as a number: whole rows, a pass in even parts. It changes bits, so it follows from the config alone. */
function microBatchTokensOf({
  device,
  batchSize,
  gradientAccumulation,
  sequenceLength,
  microBatchTokens = "auto",
}: Pick<ReturnType<typeof schema>["root"]["infer"], "batchSize" | "gradientAccumulation" | "sequenceLength"> & {
  device: Config["device"];
  microBatchTokens?: number | "auto" | undefined;
}): number {
  if (microBatchTokens !== "auto") return microBatchTokens;
  return isGpu(device) ? evenTokens(batchSize / gradientAccumulation, sequenceLength) : sequenceLength;
}

/** Rules between keys: each returns what is wrong and what to write instead. */
function contradictions(config: Config, written: TrainConfig): string[] {
  const { batchSize, gradientAccumulation: passes, microBatchTokens, sequenceLength, window } = config;
  const problems: string[] = [];
  if (config.steps !== undefined && config.epochs !== undefined)
    problems.push(`steps (${config.steps}) and epochs (${config.epochs}) both say how long to train; give one of them`);
  const wrongDtype = dtypeProblem(config.device, config.dtype);
  if (wrongDtype !== undefined) problems.push(wrongDtype);
  if (microBatchTokens < sequenceLength)
    problems.push(
      `microBatchTokens (${microBatchTokens}) is smaller than sequenceLength (${sequenceLength}), so a full row would not fit; ` +
        `use at least ${sequenceLength}, or shorten sequenceLength`,
    );
  if (batchSize % passes !== 0) {
    const above = Math.ceil(batchSize / passes) * passes;
    const below = above - passes;
    problems.push(
      `batchSize (${batchSize}) is not a multiple of gradientAccumulation (${passes}); use ${below > 0 ? `${below} or ` : ""}${above}`,
    );
  }
  const { mode, value } = clippingOf(config.maxGradNorm);
  if (typeof window.ring === "number" && mode === "exact")
    problems.push(
      `window.ring (${window.ring}) cannot be smaller than "all" while maxGradNorm is ${value}: exact clipping keeps every ` +
        `gradient until the norm is known; set maxGradNorm to null or window.ring to "all"`,
    );
  if (window.keep !== undefined && window.keepBlocks === "auto")
    problems.push(
      `window.keep ("${window.keep}") is what window.keepBlocks blocks keep, which is "auto"; give keepBlocks a number or "all", or leave keep out`,
    );
  if (config.evaluation.every !== null && config.evaluationData === undefined)
    problems.push(
      `evaluation.every (${config.evaluation.every}) needs evaluationData, which is missing; give it a held-out file`,
    );
  if (config.schedule.decay !== undefined && config.schedule.type !== "wsd")
    problems.push(
      `schedule.decay belongs to schedule.type "wsd" (was "${config.schedule.type}"); remove it or change the type`,
    );
  if (written.schedule?.minRatio !== undefined && config.schedule.type === "constant")
    problems.push(`schedule.minRatio has no effect on schedule.type "constant"; remove it or change the type`);
  if (config.steps !== undefined) problems.push(...scheduleProblems(config.schedule, config.steps));
  return problems;
}

/** Words that belong to the project but not to this build, or that another trainer uses. */
const REMEDIES: Record<string, Record<string, string>> = {
  device: {
    null: 'device "null" computes nothing and keeps no weights, it is there to test plans; use "cpu", "cuda" or "hip"',
  },
  dtype: {
    float16: 'dtype "float16" is not supported (its gradients need loss scaling); use "bfloat16" or "float32"',
  },
  "optimizer.state": {
    "bf16-moments": 'optimizer.state "bf16-moments" is not available in this build yet; use "fp32"',
    "int8-moments": 'optimizer.state "int8-moments" is not available in this build yet; use "fp32"',
  },
};

/** What each key must be, by key, for each group by its path. */
type Known = Map<string, Map<string, string>>;

function keysOf(group: {
  props: readonly { key: PropertyKey; value: { in: { description: string } } }[];
}): Map<string, string> {
  return new Map(group.props.map(({ key, value }) => [String(key), value.in.description]));
}

/** One line for one arktype error. The value is looked up in the input, because some errors carry their parent instead. */
function problem(error: { path: Iterable<PropertyKey>; code: string; expected: string }, input: unknown, known: Known) {
  const path = [...error.path]; // arktype's own path is an array subclass whose `map` of nothing yields one element
  const group = path
    .slice(0, -1)
    .filter((key) => typeof key !== "number")
    .join(".");
  const name =
    path
      .map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`))
      .join("")
      .slice(1) || "the config";
  if (error.expected === "removed" && /^on[A-Z]/.test(name))
    return `${name} is no key of the config; callbacks are the second argument: train(config, { ${name} })`;
  if (error.expected === "removed") return `${name} is not a known key${suggestion(group, String(path.at(-1)), known)}`;
  const described = known.get(group)?.get(String(path.at(-1)));
  const expected = described === undefined || described.startsWith("{") ? error.expected : described;
  if (error.code === "required") return `${name} is missing; it must be ${expected}`;
  const value = path.reduce((inside, key) => (inside as Record<PropertyKey, unknown>)[key], input);
  const remedy = typeof value === "string" ? REMEDIES[name]?.[value] : undefined;
  return remedy ?? `${name} must be ${expected} (was ${formatValue(value)})`;
}

/** A slip of the fingers, a key of another group, or initials such as `lr`; the known keys when nothing comes close. */
function suggestion(group: string, key: string, known: Known): string {
  const here = [...known.get(group)!.keys()];
  const near = closest(key, here);
  if (near) return `; did you mean ${group ? `${group}.` : ""}${near}?`;
  const initials = (name: string) => (name[0]! + name.replace(/[^A-Z]/g, "")).toLowerCase();
  const everywhere = [...known].flatMap(([owner, keys]) => Array.from(keys.keys(), (name) => ({ owner, name })));
  const name = closest(
    key,
    everywhere.map((entry) => entry.name),
  );
  const found = everywhere.find((entry) => entry.name === name || (key.length > 1 && initials(entry.name) === key));
  if (found) return `; did you mean ${found.owner ? `${found.owner}.` : ""}${found.name}?`;
  return `; known here: ${here.sort().join(", ")}`;
}

function configError(problems: string[]): ConfigError {
  if (problems.length === 1) return new ConfigError(problems[0]!);
  return new ConfigError(
    `${problems.length} problems in the config:\n${problems.map((line) => `  - ${line}`).join("\n")}`,
  );
}

/** What a config file may say, as JSON schema without words or defaults; `config-schema.ts` adds those. */
export async function bareSchema(): Promise<unknown> {
  const { root } = (compiled ??= schema(await import("arktype")));
  return root.in.toJsonSchema({ fallback: ({ base }) => base });
}
