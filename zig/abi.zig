//! The boundary between TypeScript and native code, declared once.
//!
//! A plan is a list of commands; each command is one op with ranges of bytes and scalars. Every op is an `extern
//! struct` here, and everything else is derived from it by reflection: the decoder of the executor and what it refuses, the
//! digests of the null device, the structs that GPU kernels take, the typed recorder functions and the simulator's costs in
//! `src/native/abi.gen.ts`, and the table in `docs/ops.md` (all written by `generate.zig`).
//!
//! A field's type says what a command does with those bytes: `In` reads, `Out` writes every byte, `InOut` does both, `Sum`
//! does both or, where the scalar that it names is 0, only writes. That is what the rules of order are checked against, so an
//! op must not touch anything else. It also says how many elements the range has, as an expression (`lengths.zig`) of the op's
//! other fields: a scalar stands for its value, a dtype for the bytes of its elements, a range for the number of its elements,
//! and `any` for a number of at least 1 that nobody else knows. A count with `if` is 0 where the condition does not hold;
//! `Maybe*` may be absent at any time. Nothing may be longer, either.
//!
//! What else an op declares: `may_share`, ranges of which two may be the same one (else nothing that is written overlaps); `needs`, conditions on its scalars; `flops`, where `pairs` are the pairs of a query and a key that it
//! sees; `bytes` it moves, where that is not every range once per access; `by_element`, when element i of every range of `count`
//! elements depends on element i of the others alone.
//!
//! Dimension letters: T tokens, C hidden, F intermediate, V vocabulary, H query heads, K key/value heads, D head dim, B documents.
//! All matrices are row-major; a linear weight is (outputs, inputs) as in Hugging Face files. Read next: `lengths.zig`.

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

/// What a field says of its range.
pub const Declared = struct {
    access: Access,
    /// May be absent although it has a length.
    optional: bool,
    count: []const u8,
    /// A field of type Dtype, or one of `element_bytes`.
    element: []const u8,
    /// The scalar that says whether the range is added to (1) or overwritten (0).
    accumulate: ?[]const u8 = null,
};

/// Elements that no dtype chooses.
pub const element_bytes = .{ .byte = 1, .u16 = 2, .i16 = 2, .f32 = 4, .i32 = 4, .f64 = 8, .u64 = 8 };

/// A range of bytes; what it is for is in the type of the field that it is given to.
pub const Bytes = extern struct {
    address: ?[*]u8,
    bytes: u64,

    pub const none: Bytes = .{ .address = null, .bytes = 0 };
};

fn Range(comptime what: Declared) type {
    return extern struct {
        address: ?[*]u8,
        bytes: u64,

        pub const declared = what;
        pub const absent: @This() = .{ .address = null, .bytes = 0 };
        pub const may_be_absent = what.optional or std.mem.indexOf(u8, what.count, " if ") != null;
        const Self = @This();

        pub fn of(range: anytype) Self {
            return .{ .address = range.address, .bytes = range.bytes };
        }
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

const Name = @TypeOf(.name);

fn In(comptime count: []const u8, comptime element: Name) type {
    return Range(.{ .access = .read, .optional = false, .count = count, .element = @tagName(element) });
}
fn MaybeIn(comptime count: []const u8, comptime element: Name) type {
    return Range(.{ .access = .read, .optional = true, .count = count, .element = @tagName(element) });
}
fn Out(comptime count: []const u8, comptime element: Name) type {
    return Range(.{ .access = .write, .optional = false, .count = count, .element = @tagName(element) });
}
fn MaybeOut(comptime count: []const u8, comptime element: Name) type {
    return Range(.{ .access = .write, .optional = true, .count = count, .element = @tagName(element) });
}
fn InOut(comptime count: []const u8, comptime element: Name) type {
    return Range(.{ .access = .readwrite, .optional = false, .count = count, .element = @tagName(element) });
}
fn Sum(comptime count: []const u8, comptime element: Name, comptime accumulate: Name) type {
    return Range(.{ .access = .readwrite, .optional = false, .count = count, .element = @tagName(element), .accumulate = @tagName(accumulate) });
}
fn MaybeSum(comptime count: []const u8, comptime element: Name, comptime accumulate: Name) type {
    return Range(.{ .access = .readwrite, .optional = true, .count = count, .element = @tagName(element), .accumulate = @tagName(accumulate) });
}

/// One struct per op, in the order of their numbers. Backward ops follow their forward.
pub const ops = struct {
    // ---- copies -------------------------------------------------------------------------------------------------

    /// `to` = `from`, byte for byte; both ranges have the same length.
    pub const copy = extern struct {
        to: Out("any", .byte),
        from: In("to", .byte),

        pub const may_share = .{ "to", "from" };
    };

    /// `to` (count float32) = join of a split master: bits `(hi << 16) + lo`.
    pub const join_weights = extern struct {
        to: Out("count", .f32),
        hi: In("count", .u16),
        lo: In("count", .i16),
        count: u64,

        pub const by_element = true;
    };

    /// A split master from a file's values (count of `dtype`): `hi` nearest bf16, ties away from zero, `lo` the rest.
    pub const split_weights = extern struct {
        hi: Out("count", .u16),
        lo: Out("count", .i16),
        from: In("count", .dtype),
        count: u64,
        dtype: Dtype,

        pub const by_element = true;
    };

    /// `to` (count of `to_dtype`) = `from` (count of `from_dtype`), rounded to nearest even.
    pub const cast = extern struct {
        to: Out("count", .to_dtype),
        from: In("count", .from_dtype),
        count: u64,
        to_dtype: Dtype,
        from_dtype: Dtype,

        pub const by_element = true;
    };

    /// `to` = zero bytes.
    pub const zero = extern struct {
        to: Out("any", .byte),
    };

    // ---- embedding (host) ---------------------------------------------------------------------------------------

    /// rows (T, C) of `dtype` = the embedding's rows of `tokens` (T i32), times `scale`. `lo` is read for float32 only.
    pub const embedding_gather = extern struct {
        rows: Out("token_count * width", .dtype),
        hi: In("vocabulary * width", .u16),
        lo: In("vocabulary * width if dtype == 4", .i16),
        tokens: In("token_count", .i32),
        token_count: u32,
        width: u32,
        vocabulary: u32,
        dtype: Dtype,
        scale: f32 = 1,

        pub const bytes = "2 * token_count * width * dtype";
    };

    /// Sums the gradient rows of equal tokens, in order of position: gradient (U, C) float32 gets, for each distinct
    /// token u, the sum over `order[starts[u]..starts[u+1]]` of d_rows (T, C) times `scale`. With `accumulate` it adds to what
    /// is there.
    /// starts is (U+1) i32, order is (T) i32.
    pub const embedding_scatter = extern struct {
        gradient: Sum("distinct * width", .f32, .accumulate),
        d_rows: In("any * width", .dtype),
        order: MaybeIn("any", .i32),
        starts: In("distinct + 1", .i32),
        distinct: u32,
        width: u32,
        dtype: Dtype,
        accumulate: u32,
        scale: f32 = 1,

        pub const bytes = "order * width * dtype + 8 * gradient";
    };

    /// gradient (U, C) float32 += rows `tokens[u]` of `head` (V, C) of `head_dtype`: a tied head's share of the gradient.
    pub const embedding_add_tied = extern struct {
        gradient: InOut("distinct * width", .f32),
        head: In("any * width", .head_dtype),
        tokens: In("distinct", .i32),
        distinct: u32,
        width: u32,
        head_dtype: Dtype,

        pub const bytes = "8 * gradient + distinct * width * head_dtype";
    };

    // ---- rows ---------------------------------------------------------------------------------------------------

    /// y (R, C) = rows `index` (R i32) of x.
    pub const gather_rows = extern struct {
        y: Out("rows * width", .dtype),
        x: In("any * width", .dtype),
        index: In("rows", .i32),
        rows: u32,
        width: u32,
        dtype: Dtype,
    };

    /// y (T, C) = zero, then rows `index` of y = x (R, C). The index is strictly increasing.
    pub const scatter_rows = extern struct {
        y: Out("total_rows * width", .dtype),
        x: In("rows * width if rows", .dtype),
        index: In("rows if rows", .i32),
        rows: u32,
        total_rows: u32,
        width: u32,
        dtype: Dtype,
    };

    // ---- RMSNorm (HF LlamaRMSNorm, Gemma3RMSNorm) ---------------------------------------------------------------

    /// y = x / sqrt(mean(x²) + epsilon) * (weight + offset) (+ residual), by rows of C; inverse (R float32) keeps 1/sqrt(…)
    /// for backward.
    pub const rmsnorm_forward = extern struct {
        y: Out("rows * width", .dtype),
        inverse: Out("rows", .f32),
        x: In("rows * width", .dtype),
        weight: In("width", .dtype),
        residual: MaybeIn("rows * width", .dtype) = .absent,
        rows: u32,
        width: u32,
        epsilon: f32,
        dtype: Dtype,
        offset: f32 = 0,
    };

    /// sum = x + delta, then RMSNorm of the (stored, rounded) sum.
    pub const add_rmsnorm_forward = extern struct {
        sum: Out("rows * width", .dtype),
        y: Out("rows * width", .dtype),
        inverse: Out("rows", .f32),
        x: In("rows * width", .dtype),
        delta: In("rows * width", .dtype),
        weight: In("width", .dtype),
        rows: u32,
        width: u32,
        epsilon: f32,
        dtype: Dtype,
    };

    /// dx = (accumulate_dx ? dx : 0) + gradient of RMSNorm; d_weight (C float32) = (accumulate ? d_weight : 0) + its gradient,
    /// summed in an order that does not depend on the number of workers. dx may take the place of x.
    pub const rmsnorm_backward = extern struct {
        dx: Sum("rows * width", .dtype, .accumulate_dx),
        d_weight: Sum("width", .f32, .accumulate),
        dy: In("rows * width", .dtype),
        x: In("rows * width", .dtype),
        inverse: In("rows", .f32),
        weight: In("width", .dtype),
        rows: u32,
        width: u32,
        accumulate_dx: u32,
        accumulate: u32,
        dtype: Dtype,
        offset: f32 = 0,

        pub const may_share = .{ "dx", "x" };
    };

    // ---- linear -------------------------------------------------------------------------------------------------

    /// y (T, O) = x (T, I) · weightᵀ (O, I) + bias (O) + residual (T, O). y may be the same range as residual.
    pub const linear_forward = extern struct {
        y: Out("tokens * outputs", .dtype),
        x: In("tokens * inputs", .dtype),
        weight: In("outputs * inputs", .dtype),
        bias: MaybeIn("outputs", .dtype),
        residual: MaybeIn("tokens * outputs", .dtype),
        tokens: u32,
        inputs: u32,
        outputs: u32,
        dtype: Dtype,

        pub const may_share = .{ "y", "residual" };
        pub const flops = "2 * tokens * inputs * outputs";
    };

    /// dx (T, I) = dy (T, O) · weight (O, I).
    pub const linear_backward_input = extern struct {
        dx: Out("tokens * inputs", .dtype),
        dy: In("tokens * outputs", .dtype),
        weight: In("outputs * inputs", .dtype),
        tokens: u32,
        inputs: u32,
        outputs: u32,
        dtype: Dtype,

        pub const flops = "2 * tokens * inputs * outputs";
    };

    /// d_weight (O, I) of gradient_dtype = (accumulate ? d_weight : 0) + dyᵀ · x, and d_bias (O) float32 likewise the column sums
    /// of dy. gradient_dtype is float32, or the op's own dtype where a single product makes the whole gradient: then it is
    /// rounded once and needs no cast.
    pub const linear_backward_weight = extern struct {
        d_weight: Sum("outputs * inputs", .gradient_dtype, .accumulate),
        d_bias: MaybeSum("outputs", .f32, .accumulate),
        dy: In("tokens * outputs", .dtype),
        x: In("tokens * inputs", .dtype),
        tokens: u32,
        inputs: u32,
        outputs: u32,
        accumulate: u32,
        dtype: Dtype,
        gradient_dtype: Dtype = .float32,

        pub const flops = "2 * tokens * inputs * outputs";
    };

    // ---- q/k norm + RoPE (HF apply_rotary_pos_emb, Qwen3Attention) -------------------------------------------------

    /// From qkv (T, (H+2K)·D), laid q | k | v in a row: qk (T, (H+K)·D) = rope(norm(q | k)). With q_weight and k_weight
    /// (D each) every head is RMS-normed first, weights counting from `offset`, and inverse (T, H+K float32) kept, else inverse
    /// is left alone.
    /// table (P, D) float32 holds per position D/2 cosines, then D/2 sines; positions (T i32) restart per document.
    pub const qk_rope_forward = extern struct {
        qk: Out("tokens * (heads + kv_heads) * head_dim", .dtype),
        inverse: Out("tokens * (heads + kv_heads) if q_weight", .f32),
        qkv: In("tokens * (heads + 2 * kv_heads) * head_dim", .dtype),
        q_weight: MaybeIn("head_dim", .dtype),
        k_weight: In("head_dim if q_weight", .dtype),
        positions: In("tokens", .i32),
        table: In("any * head_dim", .f32),
        tokens: u32,
        heads: u32,
        kv_heads: u32,
        head_dim: u32,
        epsilon: f32,
        dtype: Dtype,
        offset: f32 = 0,

        pub const needs = .{"head_dim % 2 == 0"};
    };

    /// In place on d_qkv: its q | k part holds the gradient of qk on entry and of qkv on return; the v part stays.
    pub const qk_rope_backward = extern struct {
        d_qkv: InOut("tokens * (heads + 2 * kv_heads) * head_dim", .dtype),
        d_q_weight: Sum("head_dim if q_weight", .f32, .accumulate),
        d_k_weight: Sum("head_dim if q_weight", .f32, .accumulate),
        inverse: In("tokens * (heads + kv_heads) if q_weight", .f32),
        qkv: In("tokens * (heads + 2 * kv_heads) * head_dim", .dtype),
        q_weight: MaybeIn("head_dim", .dtype),
        k_weight: In("head_dim if q_weight", .dtype),
        positions: In("tokens", .i32),
        table: In("any * head_dim", .f32),
        tokens: u32,
        heads: u32,
        kv_heads: u32,
        head_dim: u32,
        accumulate: u32,
        dtype: Dtype,
        offset: f32 = 0,

        pub const needs = .{"head_dim % 2 == 0"};
    };

    // ---- attention ----------------------------------------------------------------------------------------------

    /// Causal grouped-query attention inside each document: out (T, H·D). q and k come from qk (T, (H+K)·D), v from the
    /// last K·D of each row of qkv (T, (H+2K)·D). starts (B+1 i32) are the documents' cumulative lengths. With window > 0
    /// a token sees itself and the window − 1 tokens before. lse (H, T float32) keeps log-sum-exp for backward.
    /// Memory is linear in T.
    pub const attention_forward = extern struct {
        out: Out("tokens * heads * head_dim", .dtype),
        lse: Out("heads * tokens", .f32),
        qk: In("tokens * (heads + kv_heads) * head_dim", .dtype),
        qkv: In("tokens * (heads + 2 * kv_heads) * head_dim", .dtype),
        starts: In("documents + 1", .i32),
        tokens: u32,
        heads: u32,
        kv_heads: u32,
        head_dim: u32,
        documents: u32,
        window: u32,
        scale: f32,
        dtype: Dtype,

        pub const flops = "4 * head_dim * heads * pairs";
        pub const needs = .{ "heads % kv_heads == 0", "documents >= 1" };
    };

    /// d_qkv (T, (H+2K)·D) = gradients of q, k (as attention saw them, after rope) and v.
    /// delta (H, T float32) is scratch: rowsum(d_out ∘ out). So are sums (T·H·D float32), where a GPU may gather dq: that takes five
    /// products instead of seven.
    pub const attention_backward = extern struct {
        d_qkv: Out("tokens * (heads + 2 * kv_heads) * head_dim", .dtype),
        delta: Out("heads * tokens", .f32),
        sums: MaybeOut("tokens * heads * head_dim", .f32),
        d_out: In("tokens * heads * head_dim", .dtype),
        out: In("tokens * heads * head_dim", .dtype),
        lse: In("heads * tokens", .f32),
        qk: In("tokens * (heads + kv_heads) * head_dim", .dtype),
        qkv: In("tokens * (heads + 2 * kv_heads) * head_dim", .dtype),
        starts: In("documents + 1", .i32),
        tokens: u32,
        heads: u32,
        kv_heads: u32,
        head_dim: u32,
        documents: u32,
        window: u32,
        scale: f32,
        dtype: Dtype,

        pub const flops = "10 * head_dim * heads * pairs";
        pub const needs = .{ "heads % kv_heads == 0", "documents >= 1" };
    };

    /// Attention for generation: sequence b brings tokens starts[b]..starts[b+1] of the batch, at positions lengths[b] and on.
    /// Appends their k and v to keys and values (B, P, K·D) and attends over everything cached so far, causally.
    /// lengths (B i32) is the cached length before this call; it is not changed.
    pub const attention_cached = extern struct {
        out: Out("tokens * heads * head_dim", .dtype),
        keys: InOut("sequences * capacity * kv_heads * head_dim", .dtype),
        values: InOut("sequences * capacity * kv_heads * head_dim", .dtype),
        qk: In("tokens * (heads + kv_heads) * head_dim", .dtype),
        qkv: In("tokens * (heads + 2 * kv_heads) * head_dim", .dtype),
        starts: In("sequences + 1", .i32),
        lengths: In("sequences", .i32),
        tokens: u32,
        heads: u32,
        kv_heads: u32,
        head_dim: u32,
        sequences: u32,
        capacity: u32,
        window: u32,
        scale: f32,
        dtype: Dtype,

        pub const needs = .{ "heads % kv_heads == 0", "sequences >= 1" };
    };

    // ---- SwiGLU -------------------------------------------------------------------------------------------------

    /// y (T, F) = silu(gate) * up, from gate_up (T, 2F) laid gate | up in a row.
    pub const swiglu_forward = extern struct {
        y: Out("tokens * width", .dtype),
        gate_up: In("tokens * 2 * width", .dtype),
        tokens: u32,
        width: u32,
        dtype: Dtype,
    };

    /// In place: gate_up becomes its own gradient, given dy (T, F).
    pub const swiglu_backward = extern struct {
        gate_up: InOut("tokens * 2 * width", .dtype),
        dy: In("tokens * width", .dtype),
        tokens: u32,
        width: u32,
        dtype: Dtype,
    };

    // ---- GeGLU --------------------------------------------------------------------------------------------------

    /// y (T, F) = gelu(gate) * up with the tanh approximation, from gate_up (T, 2F) laid gate | up in a row.
    pub const geglu_forward = extern struct {
        y: Out("tokens * width", .dtype),
        gate_up: In("tokens * 2 * width", .dtype),
        tokens: u32,
        width: u32,
        dtype: Dtype,
    };

    /// In place: gate_up becomes its own gradient, given dy (T, F).
    pub const geglu_backward = extern struct {
        gate_up: InOut("tokens * 2 * width", .dtype),
        dy: In("tokens * width", .dtype),
        tokens: u32,
        width: u32,
        dtype: Dtype,
    };

    // ---- loss ---------------------------------------------------------------------------------------------------

    /// loss (R float32) = log-sum-exp(logits) − logits[target], per row of logits (R, V); a target of −100 gives 0.
    /// With gradient = 1 the logits are overwritten by (softmax − onehot) · scale (zero where the target is −100).
    pub const cross_entropy = extern struct {
        logits: InOut("rows * vocabulary", .dtype),
        loss: Out("rows", .f32),
        targets: In("rows", .i32),
        rows: u32,
        vocabulary: u32,
        scale: f32,
        gradient: u32,
        dtype: Dtype,
    };

    /// total (2 float64) = sum of losses (count float32, summed in order) and its count of non-finite values.
    /// Fails the step when `check` is 1 and a value is not finite.
    pub const loss_sum = extern struct {
        total: Out("2", .f64),
        losses: In("count if count", .f32),
        count: u32,
        check: u32,
    };

    // ---- gradients and optimizer ----------------------------------------------------------------------------------

    /// sum (2 float64) = sum of squares of x (count of dtype) and the count of non-finite values. Fixed summation order.
    pub const squared_norm = extern struct {
        sum: Out("2", .f64),
        x: In("count", .dtype),
        count: u64,
        dtype: Dtype,
    };

    /// The same over the rows of head (V, C) of head_dtype that are not in `tokens` (U i32, increasing).
    pub const squared_norm_other_rows = extern struct {
        sum: Out("2", .f64),
        x: In("vocabulary * width", .dtype),
        tokens: In("distinct", .i32),
        distinct: u32,
        vocabulary: u32,
        width: u32,
        dtype: Dtype,

        pub const needs = .{"vocabulary >= distinct"};
        pub const bytes = "(vocabulary - distinct) * width * dtype";
    };

    /// to (count float32) = (accumulate ? to : 0) + from (count of dtype).
    pub const accumulate = extern struct {
        to: Sum("count", .f32, .accumulate),
        from: In("count", .dtype),
        count: u64,
        accumulate: u32,
        dtype: Dtype,

        pub const by_element = true;
    };

    /// factor (2 float64): min(1, max_norm / (norm + 1e-6)) and the norm, from `parts` pairs (sum of squares, non-finite
    /// count), one every 64 bytes, added in order, as torch.nn.utils.clip_grad_norm_ does. max_norm 0 gives factor 1. Fails the step when a
    /// gradient is not finite.
    pub const clip_factor = extern struct {
        factor: Out("2", .f64),
        sums: In("8 * parts", .f64),
        parts: u32,
        max_norm: f64,
    };

    /// AdamW (Loshchilov & Hutter; torch.optim.AdamW) on a split master: count parameters, gradient of gradient_dtype
    /// times factor[0]. All arithmetic float32 in a fixed order; m and v float32.
    pub const adamw = extern struct {
        hi: InOut("count", .u16),
        lo: InOut("count", .i16),
        m: InOut("count", .f32),
        v: InOut("count", .f32),
        gradient: In("count", .gradient_dtype),
        factor: In("2", .f64),
        count: u64,
        gradient_dtype: Dtype,
        step: u32,
        learning_rate: f64,
        beta1: f64,
        beta2: f64,
        epsilon: f64,
        weight_decay: f64,

        pub const by_element = true;
        pub const needs = .{"step >= 1"};
    };

    /// AdamW on rows `tokens` (U i32, increasing) of a (V, C) matrix, gradient (U, C) float32.
    pub const adamw_rows = extern struct {
        hi: InOut("vocabulary * width", .u16),
        lo: InOut("vocabulary * width", .i16),
        m: InOut("vocabulary * width", .f32),
        v: InOut("vocabulary * width", .f32),
        gradient: In("distinct * width", .f32),
        tokens: In("distinct", .i32),
        factor: In("2", .f64),
        distinct: u32,
        width: u32,
        vocabulary: u32,
        step: u32,
        learning_rate: f64,
        beta1: f64,
        beta2: f64,
        epsilon: f64,
        weight_decay: f64,

        pub const needs = .{ "vocabulary >= distinct", "step >= 1" };
        pub const bytes = "distinct * width * (24 + 4)";
    };

    /// AdamW on all other rows; gradient (V, C) of gradient_dtype, or zero where the range is empty.
    pub const adamw_other_rows = extern struct {
        hi: InOut("vocabulary * width", .u16),
        lo: InOut("vocabulary * width", .i16),
        m: InOut("vocabulary * width", .f32),
        v: InOut("vocabulary * width", .f32),
        gradient: MaybeIn("vocabulary * width", .gradient_dtype),
        tokens: In("distinct", .i32),
        factor: In("2", .f64),
        distinct: u32,
        width: u32,
        vocabulary: u32,
        gradient_dtype: Dtype,
        step: u32,
        learning_rate: f64,
        beta1: f64,
        beta2: f64,
        epsilon: f64,
        weight_decay: f64,

        pub const needs = .{ "vocabulary >= distinct", "step >= 1" };
        pub const bytes = "(vocabulary - distinct) * width * (24 + gradient_dtype * (gradient >= 1))";
    };

    // ---- files (disk stream) ------------------------------------------------------------------------------------

    /// Memory from a file buffer's range, same length; checksum (1 u64) gets the bytes' XXH64 with seed 0.
    pub const file_read = extern struct {
        to: Out("any", .byte),
        file: In("to", .byte),
        checksum: Out("1", .u64),
    };

    /// A file buffer's range from memory, same length; checksum (1 u64) gets the bytes' XXH64 with seed 0.
    pub const file_write = extern struct {
        file: Out("any", .byte),
        from: In("file", .byte),
        checksum: Out("1", .u64),
    };

    /// Flushes the file to stable storage.
    pub const file_sync = extern struct {
        file: InOut("any", .byte),
    };
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

/// An op's struct from values whose ranges are of any range type and integers of any size that holds them.
pub fn arguments(comptime op: Op, values: anytype) Arguments(op) {
    var result: Arguments(op) = undefined;
    inline for (@typeInfo(Arguments(op)).@"struct".fields) |field| {
        if (!@hasField(@TypeOf(values), field.name)) {
            @field(result, field.name) = field.defaultValue().?;
        } else if (comptime isRange(field.type)) {
            @field(result, field.name) = .of(@field(values, field.name));
        } else if (@typeInfo(field.type) == .int) {
            @field(result, field.name) = @intCast(@field(values, field.name));
        } else @field(result, field.name) = @field(values, field.name);
    }
    return result;
}

pub fn isRange(comptime T: type) bool {
    return @typeInfo(T) == .@"struct" and @hasDecl(T, "declared");
}
