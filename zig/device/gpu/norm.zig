//! Launches RMSNorm, `cuda/norm.cu`: a block per row, of as many threads as hold the row in two vectors each.

const abi = @import("../../abi.zig");
const shape = @import("shape.zig");
const launcher_module = @import("launcher.zig");
const Launcher = launcher_module.Launcher;
const Error = launcher_module.Error;

const k = @import("shapes.zig").norm;
const reduce = @import("shapes.zig").reduce;

pub fn rmsnormForward(launcher: *Launcher, a: *const abi.ops.rmsnorm_forward) Error!void {
    if (a.rows == 0) return;
    const block = blockFor(launcher, a.width);
    const whole = shape.wholeRows(a.width, .{ a.y, a.x, a.weight, a.residual });
    if (whole and a.width <= k.threads_max * k.kept * 8) return launcher.run("rmsnorm_forward", .{ a.rows, 1, 1 }, block, 0, a, .{});
    return launcher.run("rmsnorm_forward_any", .{ a.rows, 1, 1 }, block, 0, a, .{@as(u32, @intFromBool(whole))});
}

pub fn addRmsnormForward(launcher: *Launcher, a: *const abi.ops.add_rmsnorm_forward) Error!void {
    if (a.rows == 0) return;
    const block = blockFor(launcher, a.width);
    const whole = shape.wholeRows(a.width, .{ a.sum, a.y, a.x, a.delta, a.weight });
    if (whole and a.width <= k.threads_max * k.kept * 8) return launcher.run("add_rmsnorm_forward", .{ a.rows, 1, 1 }, block, 0, a, .{});
    return launcher.run("add_rmsnorm_forward_any", .{ a.rows, 1, 1 }, block, 0, a, .{@as(u32, @intFromBool(whole))});
}

/// Four blocks of 256 threads per multiprocessor fit; each leaves its share of d_weight in the workspace.
pub fn rmsnormBackward(launcher: *Launcher, a: *const abi.ops.rmsnorm_backward) Error!void {
    const block = blockFor(launcher, a.width);
    const parts: shape.Parts = .of(launcher, a.rows, launcher.properties.multiprocessors * @max(1, 1024 / block), a.width);
    if (parts.count > 0) {
        const whole = shape.wholeRows(a.width, .{ a.dx, a.dy, a.x, a.weight });
        if (whole and a.width <= k.threads_max * k.kept * 8) {
            try launcher.run("rmsnorm_backward", .{ parts.count, 1, 1 }, block, 0, a, .{parts.each});
        } else {
            try launcher.run("rmsnorm_backward_any", .{ parts.count, 1, 1 }, block, 0, a, .{ parts.each, @as(u32, @intFromBool(whole)) });
        }
    }
    try launcher.run("rmsnorm_backward__reduce", .{ try shape.blocks(launcher, a.width, reduce.partial_columns), 1, 1 }, reduce.partial_threads, 0, a, .{parts.count});
}

fn blockFor(launcher: *const Launcher, width: u32) u32 {
    return shape.block(launcher, shape.divideUp(width, k.kept * 8), k.threads_max);
}
