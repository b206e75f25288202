//! Computes ops on the CPU. This file and what it imports is compiled once per CPU level (x86_64_v3, x86_64_v4, or the target's
//! baseline) into one object each, whose root is `kernels.zig`; `cpu.zig` picks the object by what the CPU has. Only extern
//! structs cross that border. Read next: `gemm.zig`.
//!
//! What every op promises: all arithmetic in float32 or float64 in an order that depends on the arguments only, so the same
//! command gives the same bits on any number of workers; bfloat16 is rounded once, when it is stored.

const std = @import("std");
const abi = @import("../../abi.zig");
const workers = @import("../../workers.zig");
const vector = @import("vector.zig");
const Run = @import("run.zig").Run;
const elementwise = @import("elementwise.zig");
const split_master = @import("split_master.zig");
const embedding = @import("embedding.zig");
const norm = @import("norm.zig");
const linear = @import("linear.zig");
const rope = @import("rope.zig");
const attention = @import("attention.zig");
const attention_gradient = @import("attention_backward.zig");
const swiglu = @import("swiglu.zig");
const loss = @import("loss.zig");
const gradient = @import("gradient.zig");
const optimizer = @import("adamw.zig");

/// Runs one op over `pool`'s threads and returns when it is done. 0, or 1 with a text in `message`.
pub fn run(op: abi.Op, arguments: *const anyopaque, pool: *const workers.Pool, message: *workers.Message) callconv(.c) i32 {
    const context: Run = .{ .pool = pool, .message = message };
    switch (op) {
        inline else => |tag| {
            const typed: *const abi.Arguments(tag) = @ptrCast(@alignCast(arguments));
            compute(tag, typed, context) catch return 1;
            return 0;
        },
    }
}

/// An op's function takes its element type first when the op has one dtype that may be float32 or bfloat16.
fn compute(comptime op: abi.Op, arguments: *const abi.Arguments(op), context: Run) !void {
    if (!@hasDecl(functions, @tagName(op))) return context.fail("{s} is not computed by a kernel", .{@tagName(op)});
    const function = @field(functions, @tagName(op));
    const field = comptime dtypeField(op);
    if (field == null) return function(arguments, context);
    switch (@field(arguments, field.?)) {
        inline .float32, .bfloat16 => |dtype| return function(vector.Element(dtype), arguments, context),
        .float16 => return context.fail("{s}: float16 is a file's dtype; compute takes float32 or bfloat16", .{@tagName(op)}),
    }
}

fn dtypeField(comptime op: abi.Op) ?[]const u8 {
    if (op == .split_weights or op == .cast) return null; // these take float16 too, and choose themselves
    for ([_][]const u8{ "dtype", "gradient_dtype", "head_dtype" }) |name| {
        if (@hasField(abi.Arguments(op), name)) return name;
    }
    return null;
}

/// Where each op is computed.
const functions = struct {
    const copy = elementwise.copy;
    const join_weights = split_master.joinWeights;
    const split_weights = split_master.splitWeights;
    const cast = elementwise.cast;
    const zero = elementwise.zero;
    const embedding_gather = embedding.embeddingGather;
    const embedding_scatter = embedding.embeddingScatter;
    const embedding_add_tied = embedding.embeddingAddTied;
    const gather_rows = embedding.gatherRows;
    const scatter_rows = embedding.scatterRows;
    const rmsnorm_forward = norm.rmsnormForward;
    const add_rmsnorm_forward = norm.addRmsnormForward;
    const rmsnorm_backward = norm.rmsnormBackward;
    const linear_forward = linear.linearForward;
    const linear_backward_input = linear.linearBackwardInput;
    const linear_backward_weight = linear.linearBackwardWeight;
    const qk_rope_forward = rope.qkRopeForward;
    const qk_rope_backward = rope.qkRopeBackward;
    const attention_forward = attention.attentionForward;
    const attention_backward = attention_gradient.attentionBackward;
    const attention_cached = attention.attentionCached;
    const swiglu_forward = swiglu.swigluForward;
    const swiglu_backward = swiglu.swigluBackward;
    const geglu_forward = swiglu.gegluForward;
    const geglu_backward = swiglu.gegluBackward;
    const cross_entropy = loss.crossEntropy;
    const loss_sum = loss.lossSum;
    const squared_norm = gradient.squaredNorm;
    const squared_norm_other_rows = gradient.squaredNormOtherRows;
    const accumulate = elementwise.accumulate;
    const clip_factor = gradient.clipFactor;
    const adamw = optimizer.adamw;
    const adamw_rows = optimizer.adamwRows;
    const adamw_other_rows = optimizer.adamwOtherRows;
};

test {
    _ = .{ vector, workers, elementwise, split_master, embedding, norm, linear, rope, attention, attention_gradient, swiglu, loss, gradient, optimizer };
}
