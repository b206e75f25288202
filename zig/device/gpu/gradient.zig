//! Launches the sum of squares, `cuda/gradient.cu`. The grid depends on the count alone, so that the sum's bits do too.

const abi = @import("../../abi.zig");
const shape = @import("shape.zig");
const launcher_module = @import("launcher.zig");
const Launcher = launcher_module.Launcher;
const Error = launcher_module.Error;

const k = @import("shapes.zig").gradient;
const blocks_max = 1024;

pub fn squaredNorm(launcher: *Launcher, a: *const abi.ops.squared_norm) Error!void {
    const blocks: u32 = @intCast(@max(1, @min(blocks_max, shape.divideUp(a.count, k.threads * k.unrolled * 4))));
    try launcher.run("squared_norm", .{ blocks, 1, 1 }, k.threads, 0, a, .{});
    try launcher.run("squared_norm__finish", .{ 1, 1, 1 }, k.threads, 0, a, .{blocks});
}
