// Generated from zig/abi.zig and zig/root.zig by `bun run build`. Do not edit.

/** The library must carry the same hash, else it was built from other declarations. */
export const abiHash = 0x4329a21e21145a2an;

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
};

export type EmbeddingScatter<R = Range> = {
  gradient: R;
  dRows: R;
  order: R;
  starts: R;
  distinct: number;
  width: number;
  dtype: Dtype;
  accumulate: number;
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
  rows: number;
  width: number;
  epsilon: number;
  dtype: Dtype;
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

/**
 * Per op its number, how it touches each range, the scalars that say whether an accumulator is added to (1) or
 * overwritten (0), and how the arguments become words.
 */
export const ops: {
  [Name in OpName]: {
    code: number;
    ranges: Record<string, Access>;
    accumulators: Record<string, string>;
    encode(w: Writer, a: Ops[Name]): void;
  };
} = {
  copy: {
    code: 0,
    ranges: { to: "write", from: "read" },
    accumulators: {},
    encode(w, a) {
      w.range(a.to);
      w.range(a.from);
    },
  },
  joinWeights: {
    code: 1,
    ranges: { to: "write", hi: "read", lo: "read" },
    accumulators: {},
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
    encode(w, a) {
      w.range(a.to);
    },
  },
  embeddingGather: {
    code: 5,
    ranges: { rows: "write", hi: "read", lo: "read", tokens: "read" },
    accumulators: {},
    encode(w, a) {
      w.range(a.rows);
      w.range(a.hi);
      w.range(a.lo);
      w.range(a.tokens);
      w.word(a.tokenCount);
      w.word(a.width);
      w.word(a.vocabulary);
      w.word(dtypes[a.dtype]);
    },
  },
  embeddingScatter: {
    code: 6,
    ranges: { gradient: "readwrite", dRows: "read", order: "read", starts: "read" },
    accumulators: { gradient: "accumulate" },
    encode(w, a) {
      w.range(a.gradient);
      w.range(a.dRows);
      w.range(a.order);
      w.range(a.starts);
      w.word(a.distinct);
      w.word(a.width);
      w.word(dtypes[a.dtype]);
      w.word(a.accumulate);
    },
  },
  embeddingAddTied: {
    code: 7,
    ranges: { gradient: "readwrite", head: "read", tokens: "read" },
    accumulators: {},
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
    ranges: { y: "write", inverse: "write", x: "read", weight: "read" },
    accumulators: {},
    encode(w, a) {
      w.range(a.y);
      w.range(a.inverse);
      w.range(a.x);
      w.range(a.weight);
      w.word(a.rows);
      w.word(a.width);
      w.float(a.epsilon);
      w.word(dtypes[a.dtype]);
    },
  },
  addRmsnormForward: {
    code: 11,
    ranges: { sum: "write", y: "write", inverse: "write", x: "read", delta: "read", weight: "read" },
    accumulators: {},
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
    },
  },
  linearForward: {
    code: 13,
    ranges: { y: "write", x: "read", weight: "read", bias: "read", residual: "read" },
    accumulators: {},
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
    },
  },
  attentionForward: {
    code: 18,
    ranges: { out: "write", lse: "write", qk: "read", qkv: "read", starts: "read" },
    accumulators: {},
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
      dOut: "read",
      out: "read",
      lse: "read",
      qk: "read",
      qkv: "read",
      starts: "read",
    },
    accumulators: {},
    encode(w, a) {
      w.range(a.dQkv);
      w.range(a.delta);
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
    encode(w, a) {
      w.range(a.gateUp);
      w.range(a.dy);
      w.word(a.tokens);
      w.word(a.width);
      w.word(dtypes[a.dtype]);
    },
  },
  crossEntropy: {
    code: 23,
    ranges: { logits: "readwrite", loss: "write", targets: "read" },
    accumulators: {},
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
    code: 24,
    ranges: { total: "write", losses: "read" },
    accumulators: {},
    encode(w, a) {
      w.range(a.total);
      w.range(a.losses);
      w.word(a.count);
      w.word(a.check);
    },
  },
  squaredNorm: {
    code: 25,
    ranges: { sum: "write", x: "read" },
    accumulators: {},
    encode(w, a) {
      w.range(a.sum);
      w.range(a.x);
      w.double(a.count);
      w.word(dtypes[a.dtype]);
    },
  },
  squaredNormOtherRows: {
    code: 26,
    ranges: { sum: "write", x: "read", tokens: "read" },
    accumulators: {},
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
    code: 27,
    ranges: { to: "readwrite", from: "read" },
    accumulators: { to: "accumulate" },
    encode(w, a) {
      w.range(a.to);
      w.range(a.from);
      w.double(a.count);
      w.word(a.accumulate);
      w.word(dtypes[a.dtype]);
    },
  },
  clipFactor: {
    code: 28,
    ranges: { factor: "write", sums: "read" },
    accumulators: {},
    encode(w, a) {
      w.range(a.factor);
      w.range(a.sums);
      w.word(a.parts);
      w.float64(a.maxNorm);
    },
  },
  adamw: {
    code: 29,
    ranges: { hi: "readwrite", lo: "readwrite", m: "readwrite", v: "readwrite", gradient: "read", factor: "read" },
    accumulators: {},
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
    code: 30,
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
    code: 31,
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
    code: 32,
    ranges: { to: "write", file: "read", checksum: "write" },
    accumulators: {},
    encode(w, a) {
      w.range(a.to);
      w.range(a.file);
      w.range(a.checksum);
    },
  },
  fileWrite: {
    code: 33,
    ranges: { file: "write", from: "read", checksum: "write" },
    accumulators: {},
    encode(w, a) {
      w.range(a.file);
      w.range(a.from);
      w.range(a.checksum);
    },
  },
  fileSync: {
    code: 34,
    ranges: { file: "readwrite" },
    accumulators: {},
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
