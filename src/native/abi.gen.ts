// Generated from zig/abi.zig and zig/root.zig by `bun run build`. Do not edit.

/** The library must carry the same hash, else it was built from other declarations. */
export const abiHash = 0x220e743b2c143036n;

export const dtypes = { float32: 0, bfloat16: 1, float16: 2 } as const;
export type Dtype = keyof typeof dtypes;

export const tiers = { device: 0, pinned: 1, host: 2, file: 3 } as const;
export type Tier = keyof typeof tiers;

export const streams = { compute: 0, upload: 1, download: 2, host: 3, disk: 4 } as const;
export type Stream = keyof typeof streams;

export const deviceKinds = { null: 0, cpu: 1, cuda: 2, hip: 3 } as const;
export type DeviceKind = keyof typeof deviceKinds;

/** Bytes of a buffer, as a plan names them. */
export type RangeOf<Buffer> = { readonly buffer: Buffer; readonly offset: number; readonly bytes: number };
type Range = RangeOf<{ readonly handle: number }>;

/** Where encoders put words. */
export interface Writer {
  word(value: number): void;
  double(value: number): void;
  float(value: number): void;
  float64(value: number): void;
  range(value: Range | null): void;
}

export type Copy<R = Range> = { to: R; from: R };

export type JoinWeights<R = Range> = { to: R; hi: R; lo: R; count: number };

export type SplitWeights<R = Range> = { hi: R; lo: R; from: R; count: number; dtype: Dtype };

export type Cast<R = Range> = { to: R; from: R; count: number; toDtype: Dtype; fromDtype: Dtype };

export type Zero<R = Range> = { to: R };

export type EmbeddingGather<R = Range> = {
  rows: R;
  hi: R;
  lo: R | null;
  tokens: R;
  tokenCount: number;
  width: number;
  vocabulary: number;
  dtype: Dtype;
  scale?: number | undefined;
};

export type EmbeddingScatter<R = Range> = {
  gradient: R;
  dRows: R;
  order: R | null;
  starts: R;
  distinct: number;
  width: number;
  dtype: Dtype;
  accumulate: number;
  scale?: number | undefined;
};

export type EmbeddingAddTied<R = Range> = {
  gradient: R;
  head: R;
  tokens: R;
  distinct: number;
  width: number;
  headDtype: Dtype;
};

export type GatherRows<R = Range> = { y: R; x: R; index: R; rows: number; width: number; dtype: Dtype };

export type ScatterRows<R = Range> = {
  y: R;
  x: R | null;
  index: R | null;
  rows: number;
  totalRows: number;
  width: number;
  dtype: Dtype;
};

export type RmsnormForward<R = Range> = {
  y: R;
  inverse: R;
  x: R;
  weight: R;
  residual?: R | null | undefined;
  rows: number;
  width: number;
  epsilon: number;
  dtype: Dtype;
  offset?: number | undefined;
};

export type AddRmsnormForward<R = Range> = {
  sum: R;
  y: R;
  inverse: R;
  x: R;
  delta: R;
  weight: R;
  rows: number;
  width: number;
  epsilon: number;
  dtype: Dtype;
};

export type RmsnormBackward<R = Range> = {
  dx: R;
  dWeight: R;
  dy: R;
  x: R;
  inverse: R;
  weight: R;
  rows: number;
  width: number;
  accumulateDx: number;
  accumulate: number;
  dtype: Dtype;
  offset?: number | undefined;
};

export type LinearForward<R = Range> = {
  y: R;
  x: R;
  weight: R;
  bias: R | null;
  residual: R | null;
  tokens: number;
  inputs: number;
  outputs: number;
  dtype: Dtype;
};

export type LinearBackwardInput<R = Range> = {
  dx: R;
  dy: R;
  weight: R;
  tokens: number;
  inputs: number;
  outputs: number;
  dtype: Dtype;
};

export type LinearBackwardWeight<R = Range> = {
  dWeight: R;
  dBias: R | null;
  dy: R;
  x: R;
  tokens: number;
  inputs: number;
  outputs: number;
  accumulate: number;
  dtype: Dtype;
  gradientDtype: Dtype;
};

export type QkRopeForward<R = Range> = {
  qk: R;
  inverse: R | null;
  qkv: R;
  qWeight: R | null;
  kWeight: R | null;
  positions: R;
  table: R;
  tokens: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  epsilon: number;
  dtype: Dtype;
  offset?: number | undefined;
};

export type QkRopeBackward<R = Range> = {
  dQkv: R;
  dQWeight: R | null;
  dKWeight: R | null;
  inverse: R | null;
  qkv: R;
  qWeight: R | null;
  kWeight: R | null;
  positions: R;
  table: R;
  tokens: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  accumulate: number;
  dtype: Dtype;
  offset?: number | undefined;
};

export type AttentionForward<R = Range> = {
  out: R;
  lse: R;
  qk: R;
  qkv: R;
  starts: R;
  tokens: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  documents: number;
  window: number;
  scale: number;
  dtype: Dtype;
};

export type AttentionBackward<R = Range> = {
  dQkv: R;
  delta: R;
  sums: R | null;
  dOut: R;
  out: R;
  lse: R;
  qk: R;
  qkv: R;
  starts: R;
  tokens: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  documents: number;
  window: number;
  scale: number;
  dtype: Dtype;
};

export type AttentionCached<R = Range> = {
  out: R;
  keys: R;
  values: R;
  qk: R;
  qkv: R;
  starts: R;
  lengths: R;
  tokens: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  sequences: number;
  capacity: number;
  window: number;
  scale: number;
  dtype: Dtype;
};

export type SwigluForward<R = Range> = { y: R; gateUp: R; tokens: number; width: number; dtype: Dtype };

export type SwigluBackward<R = Range> = { gateUp: R; dy: R; tokens: number; width: number; dtype: Dtype };

export type GegluForward<R = Range> = { y: R; gateUp: R; tokens: number; width: number; dtype: Dtype };

export type GegluBackward<R = Range> = { gateUp: R; dy: R; tokens: number; width: number; dtype: Dtype };

export type CrossEntropy<R = Range> = {
  logits: R;
  loss: R;
  targets: R;
  rows: number;
  vocabulary: number;
  scale: number;
  gradient: number;
  dtype: Dtype;
};

export type LossSum<R = Range> = { total: R; losses: R | null; count: number; check: number };

export type SquaredNorm<R = Range> = { sum: R; x: R; count: number; dtype: Dtype };

export type SquaredNormOtherRows<R = Range> = {
  sum: R;
  x: R;
  tokens: R;
  distinct: number;
  vocabulary: number;
  width: number;
  dtype: Dtype;
};

export type Accumulate<R = Range> = { to: R; from: R; count: number; accumulate: number; dtype: Dtype };

export type ClipFactor<R = Range> = { factor: R; sums: R; parts: number; maxNorm: number };

export type Adamw<R = Range> = {
  hi: R;
  lo: R;
  m: R;
  v: R;
  gradient: R;
  factor: R;
  count: number;
  gradientDtype: Dtype;
  step: number;
  learningRate: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  weightDecay: number;
};

export type AdamwRows<R = Range> = {
  hi: R;
  lo: R;
  m: R;
  v: R;
  gradient: R;
  tokens: R;
  factor: R;
  distinct: number;
  width: number;
  vocabulary: number;
  step: number;
  learningRate: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  weightDecay: number;
};

export type AdamwOtherRows<R = Range> = {
  hi: R;
  lo: R;
  m: R;
  v: R;
  gradient: R | null;
  tokens: R;
  factor: R;
  distinct: number;
  width: number;
  vocabulary: number;
  gradientDtype: Dtype;
  step: number;
  learningRate: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  weightDecay: number;
};

export type FileRead<R = Range> = { to: R; file: R; checksum: R };

export type FileWrite<R = Range> = { file: R; from: R; checksum: R };

export type FileSync<R = Range> = { file: R };

/** The arguments of each op. */
export type Ops<R = Range> = {
  copy: Copy<R>;
  joinWeights: JoinWeights<R>;
  splitWeights: SplitWeights<R>;
  cast: Cast<R>;
  zero: Zero<R>;
  embeddingGather: EmbeddingGather<R>;
  embeddingScatter: EmbeddingScatter<R>;
  embeddingAddTied: EmbeddingAddTied<R>;
  gatherRows: GatherRows<R>;
  scatterRows: ScatterRows<R>;
  rmsnormForward: RmsnormForward<R>;
  addRmsnormForward: AddRmsnormForward<R>;
  rmsnormBackward: RmsnormBackward<R>;
  linearForward: LinearForward<R>;
  linearBackwardInput: LinearBackwardInput<R>;
  linearBackwardWeight: LinearBackwardWeight<R>;
  qkRopeForward: QkRopeForward<R>;
  qkRopeBackward: QkRopeBackward<R>;
  attentionForward: AttentionForward<R>;
  attentionBackward: AttentionBackward<R>;
  attentionCached: AttentionCached<R>;
  swigluForward: SwigluForward<R>;
  swigluBackward: SwigluBackward<R>;
  gegluForward: GegluForward<R>;
  gegluBackward: GegluBackward<R>;
  crossEntropy: CrossEntropy<R>;
  lossSum: LossSum<R>;
  squaredNorm: SquaredNorm<R>;
  squaredNormOtherRows: SquaredNormOtherRows<R>;
  accumulate: Accumulate<R>;
  clipFactor: ClipFactor<R>;
  adamw: Adamw<R>;
  adamwRows: AdamwRows<R>;
  adamwOtherRows: AdamwOtherRows<R>;
  fileRead: FileRead<R>;
  fileWrite: FileWrite<R>;
  fileSync: FileSync<R>;
};
export type OpName = keyof Ops;

export type Access = "read" | "write" | "readwrite";

/** Bytes of an element. */
export const dtypeBytes: Record<Dtype, number> = { float32: 4, bfloat16: 2, float16: 2 };

/** How long a range must be; a multiple of it where `any`, absent as well where `optional`. */
export interface Length<Args> {
  bytes(a: Args): number;
  says: string;
  any?: true;
  optional?: true;
}

const elements = (range: { readonly bytes: number } | null, bytes: number): number => (range?.bytes ?? 0) / bytes;

/**
 * Per op its number, how it touches each range, the scalars that say whether an accumulator is added to (1) or
 * overwritten (0), how long each range is, what it costs where that is not plain from its ranges, and how the
 * arguments become words.
 */
export const ops: {
  [Name in OpName]: {
    code: number;
    ranges: Record<string, Access>;
    accumulators: Record<string, string>;
    lengths: Record<string, Length<Ops[Name]>>;
    flops?(a: Ops[Name], pairs: number): number;
    bytes?(a: Ops[Name]): number;
    encode(w: Writer, a: Ops[Name]): void;
  };
} = {
  copy: {
    code: 0,
    ranges: { to: "write", from: "read" },
    accumulators: {},
    lengths: {
      to: { bytes: () => 1, says: "any of byte", any: true },
      from: { bytes: (a) => elements(a.to, 1) * 1, says: "to of byte" },
    },
    encode(w, a) {
      w.range(a.to);
      w.range(a.from);
    },
  },
  joinWeights: {
    code: 1,
    ranges: { to: "write", hi: "read", lo: "read" },
    accumulators: {},
    lengths: {
      to: { bytes: (a) => a.count * 4, says: "count of f32" },
      hi: { bytes: (a) => a.count * 2, says: "count of u16" },
      lo: { bytes: (a) => a.count * 2, says: "count of i16" },
    },
    encode(w, a) {
      w.range(a.to);
      w.range(a.hi);
      w.range(a.lo);
      w.double(a.count);
    },
  },
  splitWeights: {
    code: 2,
    ranges: { hi: "write", lo: "write", from: "read" },
    accumulators: {},
    lengths: {
      hi: { bytes: (a) => a.count * 2, says: "count of u16" },
      lo: { bytes: (a) => a.count * 2, says: "count of i16" },
      from: { bytes: (a) => a.count * dtypeBytes[a.dtype], says: "count of dtype" },
    },
    encode(w, a) {
      w.range(a.hi);
      w.range(a.lo);
      w.range(a.from);
      w.double(a.count);
      w.word(dtypes[a.dtype]);
    },
  },
  cast: {
    code: 3,
    ranges: { to: "write", from: "read" },
    accumulators: {},
    lengths: {
      to: { bytes: (a) => a.count * dtypeBytes[a.toDtype], says: "count of toDtype" },
      from: { bytes: (a) => a.count * dtypeBytes[a.fromDtype], says: "count of fromDtype" },
    },
    encode(w, a) {
      w.range(a.to);
      w.range(a.from);
      w.double(a.count);
      w.word(dtypes[a.toDtype]);
      w.word(dtypes[a.fromDtype]);
    },
  },
  zero: {
    code: 4,
    ranges: { to: "write" },
    accumulators: {},
    lengths: { to: { bytes: () => 1, says: "any of byte", any: true } },
    encode(w, a) {
      w.range(a.to);
    },
  },
  embeddingGather: {
    code: 5,
    ranges: { rows: "write", hi: "read", lo: "read", tokens: "read" },
    accumulators: {},
    lengths: {
      rows: { bytes: (a) => a.tokenCount * a.width * dtypeBytes[a.dtype], says: "tokenCount * width of dtype" },
      hi: { bytes: (a) => a.vocabulary * a.width * 2, says: "vocabulary * width of u16" },
      lo: {
        bytes: (a) => (Number(dtypeBytes[a.dtype] === 4) ? a.vocabulary * a.width * 2 : 0),
        says: "vocabulary * width if dtype == 4 of i16",
      },
      tokens: { bytes: (a) => a.tokenCount * 4, says: "tokenCount of i32" },
    },
    bytes: (a) => 2 * a.tokenCount * a.width * dtypeBytes[a.dtype],
    encode(w, a) {
      w.range(a.rows);
      w.range(a.hi);
      w.range(a.lo);
      w.range(a.tokens);
      w.word(a.tokenCount);
      w.word(a.width);
      w.word(a.vocabulary);
      w.word(dtypes[a.dtype]);
      w.float(a.scale ?? 1);
    },
  },
  embeddingScatter: {
    code: 6,
    ranges: { gradient: "readwrite", dRows: "read", order: "read", starts: "read" },
    accumulators: { gradient: "accumulate" },
    lengths: {
      gradient: { bytes: (a) => a.distinct * a.width * 4, says: "distinct * width of f32" },
      dRows: { bytes: (a) => 1 * a.width * dtypeBytes[a.dtype], says: "any * width of dtype", any: true },
      order: { bytes: () => 4, says: "any of i32", any: true, optional: true },
      starts: { bytes: (a) => (a.distinct + 1) * 4, says: "distinct + 1 of i32" },
    },
    bytes: (a) => elements(a.order, 4) * a.width * dtypeBytes[a.dtype] + 8 * elements(a.gradient, 4),
    encode(w, a) {
      w.range(a.gradient);
      w.range(a.dRows);
      w.range(a.order);
      w.range(a.starts);
      w.word(a.distinct);
      w.word(a.width);
      w.word(dtypes[a.dtype]);
      w.word(a.accumulate);
      w.float(a.scale ?? 1);
    },
  },
  embeddingAddTied: {
    code: 7,
    ranges: { gradient: "readwrite", head: "read", tokens: "read" },
    accumulators: {},
    lengths: {
      gradient: { bytes: (a) => a.distinct * a.width * 4, says: "distinct * width of f32" },
      head: { bytes: (a) => 1 * a.width * dtypeBytes[a.headDtype], says: "any * width of headDtype", any: true },
      tokens: { bytes: (a) => a.distinct * 4, says: "distinct of i32" },
    },
    bytes: (a) => 8 * elements(a.gradient, 4) + a.distinct * a.width * dtypeBytes[a.headDtype],
    encode(w, a) {
      w.range(a.gradient);
      w.range(a.head);
      w.range(a.tokens);
      w.word(a.distinct);
      w.word(a.width);
      w.word(dtypes[a.headDtype]);
    },
  },
  gatherRows: {
    code: 8,
    ranges: { y: "write", x: "read", index: "read" },
    accumulators: {},
    lengths: {
      y: { bytes: (a) => a.rows * a.width * dtypeBytes[a.dtype], says: "rows * width of dtype" },
      x: { bytes: (a) => 1 * a.width * dtypeBytes[a.dtype], says: "any * width of dtype", any: true },
      index: { bytes: (a) => a.rows * 4, says: "rows of i32" },
    },
    encode(w, a) {
      w.range(a.y);
      w.range(a.x);
      w.range(a.index);
      w.word(a.rows);
      w.word(a.width);
      w.word(dtypes[a.dtype]);
    },
  },
  scatterRows: {
    code: 9,
    ranges: { y: "write", x: "read", index: "read" },
    accumulators: {},
    lengths: {
      y: { bytes: (a) => a.totalRows * a.width * dtypeBytes[a.dtype], says: "totalRows * width of dtype" },
      x: { bytes: (a) => (a.rows ? a.rows * a.width * dtypeBytes[a.dtype] : 0), says: "rows * width if rows of dtype" },
      index: { bytes: (a) => (a.rows ? a.rows * 4 : 0), says: "rows if rows of i32" },
    },
    encode(w, a) {
      w.range(a.y);
      w.range(a.x);
      w.range(a.index);
      w.word(a.rows);
      w.word(a.totalRows);
      w.word(a.width);
      w.word(dtypes[a.dtype]);
    },
  },
  rmsnormForward: {
    code: 10,
    ranges: { y: "write", inverse: "write", x: "read", weight: "read", residual: "read" },
    accumulators: {},
    lengths: {
      y: { bytes: (a) => a.rows * a.width * dtypeBytes[a.dtype], says: "rows * width of dtype" },
      inverse: { bytes: (a) => a.rows * 4, says: "rows of f32" },
      x: { bytes: (a) => a.rows * a.width * dtypeBytes[a.dtype], says: "rows * width of dtype" },
      weight: { bytes: (a) => a.width * dtypeBytes[a.dtype], says: "width of dtype" },
      residual: { bytes: (a) => a.rows * a.width * dtypeBytes[a.dtype], says: "rows * width of dtype", optional: true },
    },
    encode(w, a) {
      w.range(a.y);
      w.range(a.inverse);
      w.range(a.x);
      w.range(a.weight);
      w.range(a.residual ?? null);
      w.word(a.rows);
      w.word(a.width);
      w.float(a.epsilon);
      w.word(dtypes[a.dtype]);
      w.float(a.offset ?? 0);
    },
  },
  addRmsnormForward: {
    code: 11,
    ranges: { sum: "write", y: "write", inverse: "write", x: "read", delta: "read", weight: "read" },
    accumulators: {},
    lengths: {
      sum: { bytes: (a) => a.rows * a.width * dtypeBytes[a.dtype], says: "rows * width of dtype" },
      y: { bytes: (a) => a.rows * a.width * dtypeBytes[a.dtype], says: "rows * width of dtype" },
      inverse: { bytes: (a) => a.rows * 4, says: "rows of f32" },
      x: { bytes: (a) => a.rows * a.width * dtypeBytes[a.dtype], says: "rows * width of dtype" },
      delta: { bytes: (a) => a.rows * a.width * dtypeBytes[a.dtype], says: "rows * width of dtype" },
      weight: { bytes: (a) => a.width * dtypeBytes[a.dtype], says: "width of dtype" },
    },
    encode(w, a) {
      w.range(a.sum);
      w.range(a.y);
      w.range(a.inverse);
      w.range(a.x);
      w.range(a.delta);
      w.range(a.weight);
      w.word(a.rows);
      w.word(a.width);
      w.float(a.epsilon);
      w.word(dtypes[a.dtype]);
    },
  },
  rmsnormBackward: {
    code: 12,
    ranges: { dx: "readwrite", dWeight: "readwrite", dy: "read", x: "read", inverse: "read", weight: "read" },
    accumulators: { dx: "accumulateDx", dWeight: "accumulate" },
    lengths: {
      dx: { bytes: (a) => a.rows * a.width * dtypeBytes[a.dtype], says: "rows * width of dtype" },
      dWeight: { bytes: (a) => a.width * 4, says: "width of f32" },
      dy: { bytes: (a) => a.rows * a.width * dtypeBytes[a.dtype], says: "rows * width of dtype" },
      x: { bytes: (a) => a.rows * a.width * dtypeBytes[a.dtype], says: "rows * width of dtype" },
      inverse: { bytes: (a) => a.rows * 4, says: "rows of f32" },
      weight: { bytes: (a) => a.width * dtypeBytes[a.dtype], says: "width of dtype" },
    },
    encode(w, a) {
      w.range(a.dx);
      w.range(a.dWeight);
      w.range(a.dy);
      w.range(a.x);
      w.range(a.inverse);
      w.range(a.weight);
      w.word(a.rows);
      w.word(a.width);
      w.word(a.accumulateDx);
      w.word(a.accumulate);
      w.word(dtypes[a.dtype]);
      w.float(a.offset ?? 0);
    },
  },
  linearForward: {
    code: 13,
    ranges: { y: "write", x: "read", weight: "read", bias: "read", residual: "read" },
    accumulators: {},
    lengths: {
      y: { bytes: (a) => a.tokens * a.outputs * dtypeBytes[a.dtype], says: "tokens * outputs of dtype" },
      x: { bytes: (a) => a.tokens * a.inputs * dtypeBytes[a.dtype], says: "tokens * inputs of dtype" },
      weight: { bytes: (a) => a.outputs * a.inputs * dtypeBytes[a.dtype], says: "outputs * inputs of dtype" },
      bias: { bytes: (a) => a.outputs * dtypeBytes[a.dtype], says: "outputs of dtype", optional: true },
      residual: {
        bytes: (a) => a.tokens * a.outputs * dtypeBytes[a.dtype],
        says: "tokens * outputs of dtype",
        optional: true,
      },
    },
    flops: (a) => 2 * a.tokens * a.inputs * a.outputs,
    encode(w, a) {
      w.range(a.y);
      w.range(a.x);
      w.range(a.weight);
      w.range(a.bias);
      w.range(a.residual);
      w.word(a.tokens);
      w.word(a.inputs);
      w.word(a.outputs);
      w.word(dtypes[a.dtype]);
    },
  },
  linearBackwardInput: {
    code: 14,
    ranges: { dx: "write", dy: "read", weight: "read" },
    accumulators: {},
    lengths: {
      dx: { bytes: (a) => a.tokens * a.inputs * dtypeBytes[a.dtype], says: "tokens * inputs of dtype" },
      dy: { bytes: (a) => a.tokens * a.outputs * dtypeBytes[a.dtype], says: "tokens * outputs of dtype" },
      weight: { bytes: (a) => a.outputs * a.inputs * dtypeBytes[a.dtype], says: "outputs * inputs of dtype" },
    },
    flops: (a) => 2 * a.tokens * a.inputs * a.outputs,
    encode(w, a) {
      w.range(a.dx);
      w.range(a.dy);
      w.range(a.weight);
      w.word(a.tokens);
      w.word(a.inputs);
      w.word(a.outputs);
      w.word(dtypes[a.dtype]);
    },
  },
  linearBackwardWeight: {
    code: 15,
    ranges: { dWeight: "readwrite", dBias: "readwrite", dy: "read", x: "read" },
    accumulators: { dWeight: "accumulate", dBias: "accumulate" },
    lengths: {
      dWeight: {
        bytes: (a) => a.outputs * a.inputs * dtypeBytes[a.gradientDtype],
        says: "outputs * inputs of gradientDtype",
      },
      dBias: { bytes: (a) => a.outputs * 4, says: "outputs of f32", optional: true },
      dy: { bytes: (a) => a.tokens * a.outputs * dtypeBytes[a.dtype], says: "tokens * outputs of dtype" },
      x: { bytes: (a) => a.tokens * a.inputs * dtypeBytes[a.dtype], says: "tokens * inputs of dtype" },
    },
    flops: (a) => 2 * a.tokens * a.inputs * a.outputs,
    encode(w, a) {
      w.range(a.dWeight);
      w.range(a.dBias);
      w.range(a.dy);
      w.range(a.x);
      w.word(a.tokens);
      w.word(a.inputs);
      w.word(a.outputs);
      w.word(a.accumulate);
      w.word(dtypes[a.dtype]);
      w.word(dtypes[a.gradientDtype]);
    },
  },
  qkRopeForward: {
    code: 16,
    ranges: {
      qk: "write",
      inverse: "write",
      qkv: "read",
      qWeight: "read",
      kWeight: "read",
      positions: "read",
      table: "read",
    },
    accumulators: {},
    lengths: {
      qk: {
        bytes: (a) => a.tokens * (a.heads + a.kvHeads) * a.headDim * dtypeBytes[a.dtype],
        says: "tokens * (heads + kvHeads) * headDim of dtype",
      },
      inverse: {
        bytes: (a) => (elements(a.qWeight, dtypeBytes[a.dtype]) ? a.tokens * (a.heads + a.kvHeads) * 4 : 0),
        says: "tokens * (heads + kvHeads) if qWeight of f32",
      },
      qkv: {
        bytes: (a) => a.tokens * (a.heads + 2 * a.kvHeads) * a.headDim * dtypeBytes[a.dtype],
        says: "tokens * (heads + 2 * kvHeads) * headDim of dtype",
      },
      qWeight: { bytes: (a) => a.headDim * dtypeBytes[a.dtype], says: "headDim of dtype", optional: true },
      kWeight: {
        bytes: (a) => (elements(a.qWeight, dtypeBytes[a.dtype]) ? a.headDim * dtypeBytes[a.dtype] : 0),
        says: "headDim if qWeight of dtype",
      },
      positions: { bytes: (a) => a.tokens * 4, says: "tokens of i32" },
      table: { bytes: (a) => 1 * a.headDim * 4, says: "any * headDim of f32", any: true },
    },
    encode(w, a) {
      w.range(a.qk);
      w.range(a.inverse);
      w.range(a.qkv);
      w.range(a.qWeight);
      w.range(a.kWeight);
      w.range(a.positions);
      w.range(a.table);
      w.word(a.tokens);
      w.word(a.heads);
      w.word(a.kvHeads);
      w.word(a.headDim);
      w.float(a.epsilon);
      w.word(dtypes[a.dtype]);
      w.float(a.offset ?? 0);
    },
  },
  qkRopeBackward: {
    code: 17,
    ranges: {
      dQkv: "readwrite",
      dQWeight: "readwrite",
      dKWeight: "readwrite",
      inverse: "read",
      qkv: "read",
      qWeight: "read",
      kWeight: "read",
      positions: "read",
      table: "read",
    },
    accumulators: { dQWeight: "accumulate", dKWeight: "accumulate" },
    lengths: {
      dQkv: {
        bytes: (a) => a.tokens * (a.heads + 2 * a.kvHeads) * a.headDim * dtypeBytes[a.dtype],
        says: "tokens * (heads + 2 * kvHeads) * headDim of dtype",
      },
      dQWeight: {
        bytes: (a) => (elements(a.qWeight, dtypeBytes[a.dtype]) ? a.headDim * 4 : 0),
        says: "headDim if qWeight of f32",
      },
      dKWeight: {
        bytes: (a) => (elements(a.qWeight, dtypeBytes[a.dtype]) ? a.headDim * 4 : 0),
        says: "headDim if qWeight of f32",
      },
      inverse: {
        bytes: (a) => (elements(a.qWeight, dtypeBytes[a.dtype]) ? a.tokens * (a.heads + a.kvHeads) * 4 : 0),
        says: "tokens * (heads + kvHeads) if qWeight of f32",
      },
      qkv: {
        bytes: (a) => a.tokens * (a.heads + 2 * a.kvHeads) * a.headDim * dtypeBytes[a.dtype],
        says: "tokens * (heads + 2 * kvHeads) * headDim of dtype",
      },
      qWeight: { bytes: (a) => a.headDim * dtypeBytes[a.dtype], says: "headDim of dtype", optional: true },
      kWeight: {
        bytes: (a) => (elements(a.qWeight, dtypeBytes[a.dtype]) ? a.headDim * dtypeBytes[a.dtype] : 0),
        says: "headDim if qWeight of dtype",
      },
      positions: { bytes: (a) => a.tokens * 4, says: "tokens of i32" },
      table: { bytes: (a) => 1 * a.headDim * 4, says: "any * headDim of f32", any: true },
    },
    encode(w, a) {
      w.range(a.dQkv);
      w.range(a.dQWeight);
      w.range(a.dKWeight);
      w.range(a.inverse);
      w.range(a.qkv);
      w.range(a.qWeight);
      w.range(a.kWeight);
      w.range(a.positions);
      w.range(a.table);
      w.word(a.tokens);
      w.word(a.heads);
      w.word(a.kvHeads);
      w.word(a.headDim);
      w.word(a.accumulate);
      w.word(dtypes[a.dtype]);
      w.float(a.offset ?? 0);
    },
  },
  attentionForward: {
    code: 18,
    ranges: { out: "write", lse: "write", qk: "read", qkv: "read", starts: "read" },
    accumulators: {},
    lengths: {
      out: {
        bytes: (a) => a.tokens * a.heads * a.headDim * dtypeBytes[a.dtype],
        says: "tokens * heads * headDim of dtype",
      },
      lse: { bytes: (a) => a.heads * a.tokens * 4, says: "heads * tokens of f32" },
      qk: {
        bytes: (a) => a.tokens * (a.heads + a.kvHeads) * a.headDim * dtypeBytes[a.dtype],
        says: "tokens * (heads + kvHeads) * headDim of dtype",
      },
      qkv: {
        bytes: (a) => a.tokens * (a.heads + 2 * a.kvHeads) * a.headDim * dtypeBytes[a.dtype],
        says: "tokens * (heads + 2 * kvHeads) * headDim of dtype",
      },
      starts: { bytes: (a) => (a.documents + 1) * 4, says: "documents + 1 of i32" },
    },
    flops: (a, pairs) => 4 * a.headDim * a.heads * pairs,
    encode(w, a) {
      w.range(a.out);
      w.range(a.lse);
      w.range(a.qk);
      w.range(a.qkv);
      w.range(a.starts);
      w.word(a.tokens);
      w.word(a.heads);
      w.word(a.kvHeads);
      w.word(a.headDim);
      w.word(a.documents);
      w.word(a.window);
      w.float(a.scale);
      w.word(dtypes[a.dtype]);
    },
  },
  attentionBackward: {
    code: 19,
    ranges: {
      dQkv: "write",
      delta: "write",
      sums: "write",
      dOut: "read",
      out: "read",
      lse: "read",
      qk: "read",
      qkv: "read",
      starts: "read",
    },
    accumulators: {},
    lengths: {
      dQkv: {
        bytes: (a) => a.tokens * (a.heads + 2 * a.kvHeads) * a.headDim * dtypeBytes[a.dtype],
        says: "tokens * (heads + 2 * kvHeads) * headDim of dtype",
      },
      delta: { bytes: (a) => a.heads * a.tokens * 4, says: "heads * tokens of f32" },
      sums: {
        bytes: (a) => a.tokens * a.heads * a.headDim * 4,
        says: "tokens * heads * headDim of f32",
        optional: true,
      },
      dOut: {
        bytes: (a) => a.tokens * a.heads * a.headDim * dtypeBytes[a.dtype],
        says: "tokens * heads * headDim of dtype",
      },
      out: {
        bytes: (a) => a.tokens * a.heads * a.headDim * dtypeBytes[a.dtype],
        says: "tokens * heads * headDim of dtype",
      },
      lse: { bytes: (a) => a.heads * a.tokens * 4, says: "heads * tokens of f32" },
      qk: {
        bytes: (a) => a.tokens * (a.heads + a.kvHeads) * a.headDim * dtypeBytes[a.dtype],
        says: "tokens * (heads + kvHeads) * headDim of dtype",
      },
      qkv: {
        bytes: (a) => a.tokens * (a.heads + 2 * a.kvHeads) * a.headDim * dtypeBytes[a.dtype],
        says: "tokens * (heads + 2 * kvHeads) * headDim of dtype",
      },
      starts: { bytes: (a) => (a.documents + 1) * 4, says: "documents + 1 of i32" },
    },
    flops: (a, pairs) => 10 * a.headDim * a.heads * pairs,
    encode(w, a) {
      w.range(a.dQkv);
      w.range(a.delta);
      w.range(a.sums);
      w.range(a.dOut);
      w.range(a.out);
      w.range(a.lse);
      w.range(a.qk);
      w.range(a.qkv);
      w.range(a.starts);
      w.word(a.tokens);
      w.word(a.heads);
      w.word(a.kvHeads);
      w.word(a.headDim);
      w.word(a.documents);
      w.word(a.window);
      w.float(a.scale);
      w.word(dtypes[a.dtype]);
    },
  },
  attentionCached: {
    code: 20,
    ranges: {
      out: "write",
      keys: "readwrite",
      values: "readwrite",
      qk: "read",
      qkv: "read",
      starts: "read",
      lengths: "read",
    },
    accumulators: {},
    lengths: {
      out: {
        bytes: (a) => a.tokens * a.heads * a.headDim * dtypeBytes[a.dtype],
        says: "tokens * heads * headDim of dtype",
      },
      keys: {
        bytes: (a) => a.sequences * a.capacity * a.kvHeads * a.headDim * dtypeBytes[a.dtype],
        says: "sequences * capacity * kvHeads * headDim of dtype",
      },
      values: {
        bytes: (a) => a.sequences * a.capacity * a.kvHeads * a.headDim * dtypeBytes[a.dtype],
        says: "sequences * capacity * kvHeads * headDim of dtype",
      },
      qk: {
        bytes: (a) => a.tokens * (a.heads + a.kvHeads) * a.headDim * dtypeBytes[a.dtype],
        says: "tokens * (heads + kvHeads) * headDim of dtype",
      },
      qkv: {
        bytes: (a) => a.tokens * (a.heads + 2 * a.kvHeads) * a.headDim * dtypeBytes[a.dtype],
        says: "tokens * (heads + 2 * kvHeads) * headDim of dtype",
      },
      starts: { bytes: (a) => (a.sequences + 1) * 4, says: "sequences + 1 of i32" },
      lengths: { bytes: (a) => a.sequences * 4, says: "sequences of i32" },
    },
    encode(w, a) {
      w.range(a.out);
      w.range(a.keys);
      w.range(a.values);
      w.range(a.qk);
      w.range(a.qkv);
      w.range(a.starts);
      w.range(a.lengths);
      w.word(a.tokens);
      w.word(a.heads);
      w.word(a.kvHeads);
      w.word(a.headDim);
      w.word(a.sequences);
      w.word(a.capacity);
      w.word(a.window);
      w.float(a.scale);
      w.word(dtypes[a.dtype]);
    },
  },
  swigluForward: {
    code: 21,
    ranges: { y: "write", gateUp: "read" },
    accumulators: {},
    lengths: {
      y: { bytes: (a) => a.tokens * a.width * dtypeBytes[a.dtype], says: "tokens * width of dtype" },
      gateUp: { bytes: (a) => a.tokens * 2 * a.width * dtypeBytes[a.dtype], says: "tokens * 2 * width of dtype" },
    },
    encode(w, a) {
      w.range(a.y);
      w.range(a.gateUp);
      w.word(a.tokens);
      w.word(a.width);
      w.word(dtypes[a.dtype]);
    },
  },
  swigluBackward: {
    code: 22,
    ranges: { gateUp: "readwrite", dy: "read" },
    accumulators: {},
    lengths: {
      gateUp: { bytes: (a) => a.tokens * 2 * a.width * dtypeBytes[a.dtype], says: "tokens * 2 * width of dtype" },
      dy: { bytes: (a) => a.tokens * a.width * dtypeBytes[a.dtype], says: "tokens * width of dtype" },
    },
    encode(w, a) {
      w.range(a.gateUp);
      w.range(a.dy);
      w.word(a.tokens);
      w.word(a.width);
      w.word(dtypes[a.dtype]);
    },
  },
  gegluForward: {
    code: 23,
    ranges: { y: "write", gateUp: "read" },
    accumulators: {},
    lengths: {
      y: { bytes: (a) => a.tokens * a.width * dtypeBytes[a.dtype], says: "tokens * width of dtype" },
      gateUp: { bytes: (a) => a.tokens * 2 * a.width * dtypeBytes[a.dtype], says: "tokens * 2 * width of dtype" },
    },
    encode(w, a) {
      w.range(a.y);
      w.range(a.gateUp);
      w.word(a.tokens);
      w.word(a.width);
      w.word(dtypes[a.dtype]);
    },
  },
  gegluBackward: {
    code: 24,
    ranges: { gateUp: "readwrite", dy: "read" },
    accumulators: {},
    lengths: {
      gateUp: { bytes: (a) => a.tokens * 2 * a.width * dtypeBytes[a.dtype], says: "tokens * 2 * width of dtype" },
      dy: { bytes: (a) => a.tokens * a.width * dtypeBytes[a.dtype], says: "tokens * width of dtype" },
    },
    encode(w, a) {
      w.range(a.gateUp);
      w.range(a.dy);
      w.word(a.tokens);
      w.word(a.width);
      w.word(dtypes[a.dtype]);
    },
  },
  crossEntropy: {
    code: 25,
    ranges: { logits: "readwrite", loss: "write", targets: "read" },
    accumulators: {},
    lengths: {
      logits: { bytes: (a) => a.rows * a.vocabulary * dtypeBytes[a.dtype], says: "rows * vocabulary of dtype" },
      loss: { bytes: (a) => a.rows * 4, says: "rows of f32" },
      targets: { bytes: (a) => a.rows * 4, says: "rows of i32" },
    },
    encode(w, a) {
      w.range(a.logits);
      w.range(a.loss);
      w.range(a.targets);
      w.word(a.rows);
      w.word(a.vocabulary);
      w.float(a.scale);
      w.word(a.gradient);
      w.word(dtypes[a.dtype]);
    },
  },
  lossSum: {
    code: 26,
    ranges: { total: "write", losses: "read" },
    accumulators: {},
    lengths: {
      total: { bytes: () => 2 * 8, says: "2 of f64" },
      losses: { bytes: (a) => (a.count ? a.count * 4 : 0), says: "count if count of f32" },
    },
    encode(w, a) {
      w.range(a.total);
      w.range(a.losses);
      w.word(a.count);
      w.word(a.check);
    },
  },
  squaredNorm: {
    code: 27,
    ranges: { sum: "write", x: "read" },
    accumulators: {},
    lengths: {
      sum: { bytes: () => 2 * 8, says: "2 of f64" },
      x: { bytes: (a) => a.count * dtypeBytes[a.dtype], says: "count of dtype" },
    },
    encode(w, a) {
      w.range(a.sum);
      w.range(a.x);
      w.double(a.count);
      w.word(dtypes[a.dtype]);
    },
  },
  squaredNormOtherRows: {
    code: 28,
    ranges: { sum: "write", x: "read", tokens: "read" },
    accumulators: {},
    lengths: {
      sum: { bytes: () => 2 * 8, says: "2 of f64" },
      x: { bytes: (a) => a.vocabulary * a.width * dtypeBytes[a.dtype], says: "vocabulary * width of dtype" },
      tokens: { bytes: (a) => a.distinct * 4, says: "distinct of i32" },
    },
    bytes: (a) => (a.vocabulary - a.distinct) * a.width * dtypeBytes[a.dtype],
    encode(w, a) {
      w.range(a.sum);
      w.range(a.x);
      w.range(a.tokens);
      w.word(a.distinct);
      w.word(a.vocabulary);
      w.word(a.width);
      w.word(dtypes[a.dtype]);
    },
  },
  accumulate: {
    code: 29,
    ranges: { to: "readwrite", from: "read" },
    accumulators: { to: "accumulate" },
    lengths: {
      to: { bytes: (a) => a.count * 4, says: "count of f32" },
      from: { bytes: (a) => a.count * dtypeBytes[a.dtype], says: "count of dtype" },
    },
    encode(w, a) {
      w.range(a.to);
      w.range(a.from);
      w.double(a.count);
      w.word(a.accumulate);
      w.word(dtypes[a.dtype]);
    },
  },
  clipFactor: {
    code: 30,
    ranges: { factor: "write", sums: "read" },
    accumulators: {},
    lengths: {
      factor: { bytes: () => 2 * 8, says: "2 of f64" },
      sums: { bytes: (a) => 8 * a.parts * 8, says: "8 * parts of f64" },
    },
    encode(w, a) {
      w.range(a.factor);
      w.range(a.sums);
      w.word(a.parts);
      w.float64(a.maxNorm);
    },
  },
  adamw: {
    code: 31,
    ranges: { hi: "readwrite", lo: "readwrite", m: "readwrite", v: "readwrite", gradient: "read", factor: "read" },
    accumulators: {},
    lengths: {
      hi: { bytes: (a) => a.count * 2, says: "count of u16" },
      lo: { bytes: (a) => a.count * 2, says: "count of i16" },
      m: { bytes: (a) => a.count * 4, says: "count of f32" },
      v: { bytes: (a) => a.count * 4, says: "count of f32" },
      gradient: { bytes: (a) => a.count * dtypeBytes[a.gradientDtype], says: "count of gradientDtype" },
      factor: { bytes: () => 2 * 8, says: "2 of f64" },
    },
    encode(w, a) {
      w.range(a.hi);
      w.range(a.lo);
      w.range(a.m);
      w.range(a.v);
      w.range(a.gradient);
      w.range(a.factor);
      w.double(a.count);
      w.word(dtypes[a.gradientDtype]);
      w.word(a.step);
      w.float64(a.learningRate);
      w.float64(a.beta1);
      w.float64(a.beta2);
      w.float64(a.epsilon);
      w.float64(a.weightDecay);
    },
  },
  adamwRows: {
    code: 32,
    ranges: {
      hi: "readwrite",
      lo: "readwrite",
      m: "readwrite",
      v: "readwrite",
      gradient: "read",
      tokens: "read",
      factor: "read",
    },
    accumulators: {},
    lengths: {
      hi: { bytes: (a) => a.vocabulary * a.width * 2, says: "vocabulary * width of u16" },
      lo: { bytes: (a) => a.vocabulary * a.width * 2, says: "vocabulary * width of i16" },
      m: { bytes: (a) => a.vocabulary * a.width * 4, says: "vocabulary * width of f32" },
      v: { bytes: (a) => a.vocabulary * a.width * 4, says: "vocabulary * width of f32" },
      gradient: { bytes: (a) => a.distinct * a.width * 4, says: "distinct * width of f32" },
      tokens: { bytes: (a) => a.distinct * 4, says: "distinct of i32" },
      factor: { bytes: () => 2 * 8, says: "2 of f64" },
    },
    bytes: (a) => a.distinct * a.width * (24 + 4),
    encode(w, a) {
      w.range(a.hi);
      w.range(a.lo);
      w.range(a.m);
      w.range(a.v);
      w.range(a.gradient);
      w.range(a.tokens);
      w.range(a.factor);
      w.word(a.distinct);
      w.word(a.width);
      w.word(a.vocabulary);
      w.word(a.step);
      w.float64(a.learningRate);
      w.float64(a.beta1);
      w.float64(a.beta2);
      w.float64(a.epsilon);
      w.float64(a.weightDecay);
    },
  },
  adamwOtherRows: {
    code: 33,
    ranges: {
      hi: "readwrite",
      lo: "readwrite",
      m: "readwrite",
      v: "readwrite",
      gradient: "read",
      tokens: "read",
      factor: "read",
    },
    accumulators: {},
    lengths: {
      hi: { bytes: (a) => a.vocabulary * a.width * 2, says: "vocabulary * width of u16" },
      lo: { bytes: (a) => a.vocabulary * a.width * 2, says: "vocabulary * width of i16" },
      m: { bytes: (a) => a.vocabulary * a.width * 4, says: "vocabulary * width of f32" },
      v: { bytes: (a) => a.vocabulary * a.width * 4, says: "vocabulary * width of f32" },
      gradient: {
        bytes: (a) => a.vocabulary * a.width * dtypeBytes[a.gradientDtype],
        says: "vocabulary * width of gradientDtype",
        optional: true,
      },
      tokens: { bytes: (a) => a.distinct * 4, says: "distinct of i32" },
      factor: { bytes: () => 2 * 8, says: "2 of f64" },
    },
    bytes: (a) =>
      (a.vocabulary - a.distinct) *
      a.width *
      (24 + dtypeBytes[a.gradientDtype] * Number(elements(a.gradient, dtypeBytes[a.gradientDtype]) >= 1)),
    encode(w, a) {
      w.range(a.hi);
      w.range(a.lo);
      w.range(a.m);
      w.range(a.v);
      w.range(a.gradient);
      w.range(a.tokens);
      w.range(a.factor);
      w.word(a.distinct);
      w.word(a.width);
      w.word(a.vocabulary);
      w.word(dtypes[a.gradientDtype]);
      w.word(a.step);
      w.float64(a.learningRate);
      w.float64(a.beta1);
      w.float64(a.beta2);
      w.float64(a.epsilon);
      w.float64(a.weightDecay);
    },
  },
  fileRead: {
    code: 34,
    ranges: { to: "write", file: "read", checksum: "write" },
    accumulators: {},
    lengths: {
      to: { bytes: () => 1, says: "any of byte", any: true },
      file: { bytes: (a) => elements(a.to, 1) * 1, says: "to of byte" },
      checksum: { bytes: () => 8, says: "1 of u64" },
    },
    encode(w, a) {
      w.range(a.to);
      w.range(a.file);
      w.range(a.checksum);
    },
  },
  fileWrite: {
    code: 35,
    ranges: { file: "write", from: "read", checksum: "write" },
    accumulators: {},
    lengths: {
      file: { bytes: () => 1, says: "any of byte", any: true },
      from: { bytes: (a) => elements(a.file, 1) * 1, says: "file of byte" },
      checksum: { bytes: () => 8, says: "1 of u64" },
    },
    encode(w, a) {
      w.range(a.file);
      w.range(a.from);
      w.range(a.checksum);
    },
  },
  fileSync: {
    code: 36,
    ranges: { file: "readwrite" },
    accumulators: {},
    lengths: { file: { bytes: () => 1, says: "any of byte", any: true } },
    encode(w, a) {
      w.range(a.file);
    },
  },
};

/** What `dlopen` is told. */
export const symbols = {
  sluice_abi_hash: { args: [], returns: "u64" },
  sluice_last_error: { args: [], returns: "cstring" },
  sluice_cpu_level: { args: [], returns: "u32" },
  sluice_engine_create: { args: ["u32", "u32", "u64", "ptr", "ptr", "u32", "ptr"], returns: "i32" },
  sluice_engine_destroy: { args: ["u32"], returns: "i32" },
  sluice_device_info: { args: ["u32", "ptr", "ptr"], returns: "i32" },
  sluice_trace: { args: ["u32", "u32"], returns: "i32" },
  sluice_descriptor: { args: [], returns: "i32" },
  sluice_wake: { args: [], returns: "void" },
  sluice_buffer_create: { args: ["u32", "u32", "u64", "ptr", "u32", "ptr"], returns: "i32" },
  sluice_file_open: { args: ["u32", "ptr", "u32", "u64", "ptr"], returns: "i32" },
  sluice_buffer_destroy: { args: ["u32", "u32"], returns: "i32" },
  sluice_buffer_address: { args: ["u32", "u32", "ptr"], returns: "i32" },
  sluice_memory_held: { args: ["u32", "ptr"], returns: "i32" },
  sluice_plan_submit: { args: ["u32", "u64", "u32", "ptr", "u32"], returns: "i32" },
  sluice_command_state: { args: ["u32", "u64"], returns: "i32" },
  sluice_command_wait: { args: ["u32", "u64", "u32"], returns: "i32" },
  sluice_failure_take: { args: ["u32", "ptr"], returns: "i32" },
  sluice_cancel: { args: ["u32"], returns: "i32" },
  sluice_plan_spans: { args: ["u32", "u64", "u32", "ptr"], returns: "i32" },
  sluice_busy: { args: ["u32", "ptr"], returns: "i32" },
  sluice_disturb: { args: ["u32", "u64", "u32", "u64"], returns: "i32" },
} as const;
