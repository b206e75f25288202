//! Where each op is launched on a GPU: the table that `cpu/ops.zig` has for the CPU. Copies and fills are the driver's own,
//! on any stream; everything else is launched on the compute stream by the function of its family.

const std = @import("std");
const abi = @import("../../abi.zig");
const adamw_family = @import("adamw.zig");
const attention = @import("attention.zig");
const blas = @import("blas.zig");
const elementwise = @import("elementwise.zig");
const gradient = @import("gradient.zig");
const loss = @import("loss.zig");
const norm = @import("norm.zig");
const rope = @import("rope.zig");
const rows = @import("rows.zig");
const swiglu = @import("swiglu.zig");
const Launcher = @import("launcher.zig").Launcher;
const Error = @import("launcher.zig").Error;

/// Enqueues one op; its arguments are copied before this returns.
pub fn launch(op: abi.Op, arguments: *const anyopaque, launcher: *Launcher) Error!void {
    switch (op) {
        inline else => |tag| {
            if (!@hasDecl(functions, @tagName(tag))) return launcher.fail("op {s} has no GPU kernel yet", .{@tagName(tag)});
            const typed: *const abi.Arguments(tag) = @ptrCast(@alignCast(arguments));
            return @field(functions, @tagName(tag))(launcher, typed);
        },
    }
}

const functions = struct {
    const cast = elementwise.cast;
    const gather_rows = rows.gatherRows;
    const scatter_rows = rows.scatterRows;
    const rmsnorm_forward = norm.rmsnormForward;
    const add_rmsnorm_forward = norm.addRmsnormForward;
    const rmsnorm_backward = norm.rmsnormBackward;
    const linear_forward = blas.linearForward;
    const linear_backward_input = blas.linearBackwardInput;
    const linear_backward_weight = blas.linearBackwardWeight;
    const qk_rope_forward = rope.qkRopeForward;
    const qk_rope_backward = rope.qkRopeBackward;
    const attention_forward = attention.attentionForward;
    const attention_backward = attention.attentionBackward;
    const attention_cached = attention.attentionCached;
    const swiglu_forward = swiglu.swigluForward;
    const swiglu_backward = swiglu.swigluBackward;
    const geglu_forward = swiglu.gegluForward;
    const geglu_backward = swiglu.gegluBackward;
    const cross_entropy = loss.crossEntropy;
    const squared_norm = gradient.squaredNorm;
    const accumulate = elementwise.accumulate;
    const adamw = adamw_family.adamw;
};
