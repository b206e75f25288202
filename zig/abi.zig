//! The boundary between TypeScript and native code, declared once.
//!
//! A plan is a list of commands; each command is one op with ranges of bytes and scalars. Every op is an `extern
//! struct` here, and everything else is derived from it by reflection: the decoder of the executor, the digests of
//! the null device, and the typed recorder functions in `src/native/abi.gen.ts` (written by `generate.zig`).
//!
//! A field's type says what a command does with those bytes: `In` reads, `Out` writes every byte, `InOut` does both.
//! That is what the rules of order (`src/plan/check/check.ts`) are checked against, so an op must not touch anything else.
//! `Maybe*` may be the empty range. Dimension letters: T tokens, C hidden, F intermediate, V vocabulary, H query heads,
//! K key/value heads, D head dim, B documents. All matrices are row-major; a linear weight is (outputs, inputs) as in
//! Hugging Face files. Read next: `executor.zig` plays plans, `kernels.zig` computes ops.

const std = @import("std");

/// How an op stores its activations and weights; arithmetic is always float32 inside.
pub const Dtype = enum(u32) {
    float32,
    bfloat16,
    float16,

    pub fn bytes(dtype: Dtype) u32 {
        return if (dtype == .float32) 4 else 2;
    }
};

/// Where a buffer lives. `pinned` is host memory that a GPU copies from and to without staging.
pub const Tier = enum(u32) { device, pinned, host, file };

/// An in-order queue of commands, except `host`: there the ready command with the earliest deadline runs first,
/// split over all workers.
pub const Stream = enum(u32) { compute, upload, download, host, disk };

/// What computes: `null` moves digests instead of bytes, `cpu` is the reference for every other device.
pub const DeviceKind = enum(u32) { null, cpu, cuda, hip };

pub const Access = enum { read, write, readwrite };

fn Range(comptime mode: Access, comptime may_be_empty: bool) type {
    return extern struct {
        address: ?[*]u8,
        bytes: u64,

        pub const access = mode;
        pub const optional = may_be_empty;
        const Self = @This();

        /// The range as `count` values of T, aligned as the allocator promises (64 bytes at a buffer's start,
        /// natural alignment inside).
        pub inline fn as(range: Self, comptime T: type) [*]T {
            return @ptrCast(@alignCast(range.address.?));
        }
        pub inline fn present(range: Self) bool {
            return range.bytes != 0;
        }
    };
}
pub const In = Range(.read, false);
pub const Out = Range(.write, false);
pub const InOut = Range(.readwrite, false);
pub const MaybeIn = Range(.read, true);
pub const MaybeOut = Range(.write, true);
pub const MaybeInOut = Range(.readwrite, true);

/// One struct per op, in the order of their numbers. Backward ops follow their forward.
pub const ops = struct {
    // ---- copies -------------------------------------------------------------------------------------------------

    /// `to` = `from`, byte for byte; both ranges have the same length.
    pub const copy = extern struct { to: Out, from: In };
    /// `to` (count float32) = join of a split master: bits `(hi << 16) + lo`.
    pub const join_weights = extern struct { to: Out, hi: In, lo: In, count: u64 };
    /// A split master from a file's values (count of `dtype`): `hi` nearest bf16, ties away from zero, `lo` the rest.
    pub const split_weights = extern struct { hi: Out, lo: Out, from: In, count: u64, dtype: Dtype };
    /// `to` (count of `to_dtype`) = `from` (count of `from_dtype`), rounded to nearest even.
    pub const cast = extern struct { to: Out, from: In, count: u64, to_dtype: Dtype, from_dtype: Dtype };
    /// `to` = zero bytes.
    pub const zero = extern struct { to: Out };

    // ---- embedding (host) ---------------------------------------------------------------------------------------

    /// rows (T, C) of `dtype` = the embedding's rows of `tokens` (T i32). `lo` is read for float32 only.
    pub const embedding_gather = extern struct { rows: Out, hi: In, lo: MaybeIn, tokens: In, token_count: u32, width: u32, vocabulary: u32, dtype: Dtype };
    /// Sums the gradient rows of equal tokens, in order of position: gradient (U, C) float32 gets, for each distinct
    /// token u, the sum over `order[starts[u]..starts[u+1]]` of d_rows (T, C). With `accumulate` it adds to what is there.
    /// starts is (U+1) i32, order is (T) i32.
    pub const embedding_scatter = extern struct { gradient: InOut, d_rows: In, order: In, starts: In, distinct: u32, width: u32, dtype: Dtype, accumulate: u32 };
    /// gradient (U, C) float32 += rows `tokens[u]` of `head` (V, C) of `head_dtype`: a tied head's share of the gradient.
    pub const embedding_add_tied = extern struct { gradient: InOut, head: In, tokens: In, distinct: u32, width: u32, head_dtype: Dtype };

    // ---- rows ---------------------------------------------------------------------------------------------------

    /// y (R, C) = rows `index` (R i32) of x.
    pub const gather_rows = extern struct { y: Out, x: In, index: In, rows: u32, width: u32, dtype: Dtype };
    /// y (T, C) = zero, then rows `index` of y = x (R, C). The index is strictly increasing.
    pub const scatter_rows = extern struct { y: Out, x: MaybeIn, index: MaybeIn, rows: u32, total_rows: u32, width: u32, dtype: Dtype };

    // ---- RMSNorm (HF LlamaRMSNorm) ------------------------------------------------------------------------------

    /// y = x / sqrt(mean(x²) + epsilon) * weight, by rows of C; inverse (R float32) keeps 1/sqrt(…) for backward.
    pub const rmsnorm_forward = extern struct { y: Out, inverse: Out, x: In, weight: In, rows: u32, width: u32, epsilon: f32, dtype: Dtype };
    /// sum = x + delta, then RMSNorm of the (stored, rounded) sum.
    pub const add_rmsnorm_forward = extern struct { sum: Out, y: Out, inverse: Out, x: In, delta: In, weight: In, rows: u32, width: u32, epsilon: f32, dtype: Dtype };
    /// dx = (accumulate_dx ? dx : 0) + gradient of RMSNorm; d_weight (C float32) = (accumulate ? d_weight : 0) + its gradient,
    /// summed in an order that does not depend on the number of workers.
    pub const rmsnorm_backward = extern struct { dx: InOut, d_weight: InOut, dy: In, x: In, inverse: In, weight: In, rows: u32, width: u32, accumulate_dx: u32, accumulate: u32, dtype: Dtype };

    // ---- linear -------------------------------------------------------------------------------------------------

    /// y (T, O) = x (T, I) · weightᵀ (O, I) + bias (O) + residual (T, O). y may be the same range as residual.
    pub const linear_forward = extern struct { y: Out, x: In, weight: In, bias: MaybeIn, residual: MaybeIn, tokens: u32, inputs: u32, outputs: u32, dtype: Dtype };
    /// dx (T, I) = dy (T, O) · weight (O, I).
    pub const linear_backward_input = extern struct { dx: Out, dy: In, weight: In, tokens: u32, inputs: u32, outputs: u32, dtype: Dtype };
    /// d_weight (O, I) of gradient_dtype = (accumulate ? d_weight : 0) + dyᵀ · x, and d_bias (O) float32 likewise the column sums
    /// of dy. gradient_dtype is float32, or the op's own dtype where a single product makes the whole gradient: then it is
    /// rounded once and needs no cast.
    pub const linear_backward_weight = extern struct { d_weight: InOut, d_bias: MaybeInOut, dy: In, x: In, tokens: u32, inputs: u32, outputs: u32, accumulate: u32, dtype: Dtype, gradient_dtype: Dtype = .float32 };

    // ---- q/k norm + RoPE (HF apply_rotary_pos_emb, Qwen3Attention) -------------------------------------------------

    /// From qkv (T, (H+2K)·D), laid q | k | v in a row: qk (T, (H+K)·D) = rope(norm(q | k)). With q_weight and k_weight
    /// (D each) every head is RMS-normed first and inverse (T, H+K float32) kept, else inverse is left alone.
    /// table (P, D) float32 holds per position D/2 cosines, then D/2 sines; positions (T i32) restart per document.
    pub const qk_rope_forward = extern struct { qk: Out, inverse: MaybeOut, qkv: In, q_weight: MaybeIn, k_weight: MaybeIn, positions: In, table: In, tokens: u32, heads: u32, kv_heads: u32, head_dim: u32, epsilon: f32, dtype: Dtype };
    /// In place on d_qkv: its q | k part holds the gradient of qk on entry and of qkv on return; the v part stays.
    pub const qk_rope_backward = extern struct { d_qkv: InOut, d_q_weight: MaybeInOut, d_k_weight: MaybeInOut, inverse: MaybeIn, qkv: In, q_weight: MaybeIn, k_weight: MaybeIn, positions: In, table: In, tokens: u32, heads: u32, kv_heads: u32, head_dim: u32, accumulate: u32, dtype: Dtype };

    // ---- attention ----------------------------------------------------------------------------------------------

    /// Causal grouped-query attention inside each document: out (T, H·D). q and k come from qk (T, (H+K)·D), v from the
    /// last K·D of each row of qkv (T, (H+2K)·D). starts (B+1 i32) are the documents' cumulative lengths. With window > 0
    /// a token sees itself and the window − 1 tokens before. lse (H, T float32) keeps log-sum-exp for backward.
    /// Memory is linear in T.
    pub const attention_forward = extern struct { out: Out, lse: Out, qk: In, qkv: In, starts: In, tokens: u32, heads: u32, kv_heads: u32, head_dim: u32, documents: u32, window: u32, scale: f32, dtype: Dtype };
    /// d_qkv (T, (H+2K)·D) = gradients of q, k (as attention saw them, after rope) and v.
    /// delta (H, T float32) is scratch: rowsum(d_out ∘ out).
    pub const attention_backward = extern struct { d_qkv: Out, delta: Out, d_out: In, out: In, lse: In, qk: In, qkv: In, starts: In, tokens: u32, heads: u32, kv_heads: u32, head_dim: u32, documents: u32, window: u32, scale: f32, dtype: Dtype };
    /// Attention for generation: sequence b brings tokens starts[b]..starts[b+1] of the batch, at positions lengths[b] and on.
    /// Appends their k and v to keys and values (B, P, K·D) and attends over everything cached so far, causally.
    /// lengths (B i32) is the cached length before this call; it is not changed.
    pub const attention_cached = extern struct { out: Out, keys: InOut, values: InOut, qk: In, qkv: In, starts: In, lengths: In, tokens: u32, heads: u32, kv_heads: u32, head_dim: u32, sequences: u32, capacity: u32, window: u32, scale: f32, dtype: Dtype };

    // ---- SwiGLU -------------------------------------------------------------------------------------------------

    /// y (T, F) = silu(gate) * up, from gate_up (T, 2F) laid gate | up in a row.
    pub const swiglu_forward = extern struct { y: Out, gate_up: In, tokens: u32, width: u32, dtype: Dtype };
    /// In place: gate_up becomes its own gradient, given dy (T, F).
    pub const swiglu_backward = extern struct { gate_up: InOut, dy: In, tokens: u32, width: u32, dtype: Dtype };

    // ---- loss ---------------------------------------------------------------------------------------------------

    /// loss (R float32) = log-sum-exp(logits) − logits[target], per row of logits (R, V); a target of −100 gives 0.
    /// With gradient = 1 the logits are overwritten by (softmax − onehot) · scale (zero where the target is −100).
    pub const cross_entropy = extern struct { logits: InOut, loss: Out, targets: In, rows: u32, vocabulary: u32, scale: f32, gradient: u32, dtype: Dtype };
    /// total (2 float64) = sum of losses (count float32, summed in order) and its count of non-finite values.
    /// Fails the step when `check` is 1 and a value is not finite.
    pub const loss_sum = extern struct { total: Out, losses: MaybeIn, count: u32, check: u32 };

    // ---- gradients and optimizer ----------------------------------------------------------------------------------

    /// sum (2 float64) = sum of squares of x (count of dtype) and the count of non-finite values. Fixed summation order.
    pub const squared_norm = extern struct { sum: Out, x: In, count: u64, dtype: Dtype };
    /// The same over the rows of head (V, C) of head_dtype that are not in `tokens` (U i32, increasing).
    pub const squared_norm_other_rows = extern struct { sum: Out, x: In, tokens: In, distinct: u32, vocabulary: u32, width: u32, dtype: Dtype };
    /// to (count float32) = (accumulate ? to : 0) + from (count of dtype).
    pub const accumulate = extern struct { to: InOut, from: In, count: u64, accumulate: u32, dtype: Dtype };
    /// factor (2 float64): min(1, max_norm / (norm + 1e-6)) and the norm, from `parts` pairs (sum of squares, non-finite
    /// count), one every 64 bytes, added in order, as torch.nn.utils.clip_grad_norm_ does. max_norm 0 gives factor 1. Fails the step when a
    /// gradient is not finite.
    pub const clip_factor = extern struct { factor: Out, sums: In, parts: u32, max_norm: f64 };
    /// AdamW (Loshchilov & Hutter; torch.optim.AdamW) on a split master: count parameters, gradient of gradient_dtype
    /// times factor[0]. All arithmetic float32 in a fixed order; m and v float32.
    pub const adamw = extern struct { hi: InOut, lo: InOut, m: InOut, v: InOut, gradient: In, factor: In, count: u64, gradient_dtype: Dtype, step: u32, learning_rate: f64, beta1: f64, beta2: f64, epsilon: f64, weight_decay: f64 };
    /// AdamW on rows `tokens` (U i32, increasing) of a (V, C) matrix, gradient (U, C) float32.
    pub const adamw_rows = extern struct { hi: InOut, lo: InOut, m: InOut, v: InOut, gradient: In, tokens: In, factor: In, distinct: u32, width: u32, vocabulary: u32, step: u32, learning_rate: f64, beta1: f64, beta2: f64, epsilon: f64, weight_decay: f64 };
    /// AdamW on all other rows; gradient (V, C) of gradient_dtype, or zero where the range is empty.
    pub const adamw_other_rows = extern struct { hi: InOut, lo: InOut, m: InOut, v: InOut, gradient: MaybeIn, tokens: In, factor: In, distinct: u32, width: u32, vocabulary: u32, gradient_dtype: Dtype, step: u32, learning_rate: f64, beta1: f64, beta2: f64, epsilon: f64, weight_decay: f64 };

    // ---- files (disk stream) ------------------------------------------------------------------------------------

    /// Memory from a file buffer's range, same length; checksum (1 u64) gets the bytes' XXH64 with seed 0.
    pub const file_read = extern struct { to: Out, file: In, checksum: Out };
    /// A file buffer's range from memory, same length; checksum (1 u64) gets the bytes' XXH64 with seed 0.
    pub const file_write = extern struct { file: Out, from: In, checksum: Out };
    /// Flushes the file to stable storage.
    pub const file_sync = extern struct { file: InOut };
};

pub const Op = blk: {
    const declarations = @typeInfo(ops).@"struct".decls;
    var names: [declarations.len][]const u8 = undefined;
    var values: [declarations.len]u32 = undefined;
    for (declarations, 0..) |declaration, index| {
        names[index] = declaration.name;
        values[index] = index;
    }
    break :blk @Enum(u32, .exhaustive, &names, &values);
};

/// The argument struct of an op.
pub fn Arguments(comptime op: Op) type {
    return @field(ops, @tagName(op));
}

/// The scalar that says whether an `InOut` field is added to (1) or overwritten (0); null where there is no such choice.
pub fn accumulateOf(op: Op, field: []const u8) ?[]const u8 {
    const dx = std.mem.eql(u8, field, "dx");
    const is_weight = std.mem.startsWith(u8, field, "d_") and !std.mem.eql(u8, field, "d_qkv");
    return switch (op) {
        .rmsnorm_backward => if (dx) "accumulate_dx" else if (is_weight) "accumulate" else null,
        .linear_backward_weight, .qk_rope_backward => if (is_weight) "accumulate" else null,
        .embedding_scatter => if (std.mem.eql(u8, field, "gradient")) "accumulate" else null,
        .accumulate => if (std.mem.eql(u8, field, "to")) "accumulate" else null,
        else => null,
    };
}

pub fn isRange(comptime T: type) bool {
    return @typeInfo(T) == .@"struct" and @hasDecl(T, "access");
}
