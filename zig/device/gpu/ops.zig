//! Where each op is launched on a GPU: the table that `kernels.zig` has for the CPU. Copies and fills are the driver's own,
//! on any stream; everything else is launched on the compute stream by the function of its family.

const std = @import("std");
const abi = @import("../../abi.zig");
const blas = @import("blas.zig");
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
    const linear_forward = blas.linearForward;
    const linear_backward_input = blas.linearBackwardInput;
    const linear_backward_weight = blas.linearBackwardWeight;
};
