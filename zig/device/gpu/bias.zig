//! Launches the bias gradient, `cuda/bias.cu`: the part of `linear_backward_weight` that is no matrix product.

const abi = @import("../../abi.zig");
const shape = @import("shape.zig");
const launcher_module = @import("launcher.zig");
const Launcher = launcher_module.Launcher;
const Error = launcher_module.Error;

const k = @import("shapes.zig").bias;
const reduce = @import("shapes.zig").reduce;

/// d_bias (O) float32 = (accumulate ? d_bias : 0) + column sums of dy (T, O); reads nothing else of the op.
pub fn biasGradient(launcher: *Launcher, a: *const abi.ops.linear_backward_weight) Error!void {
    if (a.outputs == 0) return;
    const across = try shape.blocks(launcher, a.outputs, k.across * 8);
    const wanted = @max(1, 4 * launcher.properties.multiprocessors / across);
    const parts: shape.Parts = .of(launcher, a.tokens, @min(wanted, 1 << 15), a.outputs); // a grid's second side ends at 65,535
    if (parts.count > 0) {
        const grid: [3]u32 = .{ across, parts.count, 1 };
        if (shape.wholeRows(a.outputs, .{a.dy})) {
            try launcher.run("linear_backward_weight__bias", grid, k.threads, 0, a, .{parts.each});
        } else {
            try launcher.run("linear_backward_weight__bias_any", grid, k.threads, 0, a, .{parts.each});
        }
    }
    try launcher.run("linear_backward_weight__bias_reduce", .{ try shape.blocks(launcher, a.outputs, reduce.partial_columns), 1, 1 }, reduce.partial_threads, 0, a, .{parts.count});
}
