//! Launches casts and accumulation, `cuda/elementwise.cu`.

const abi = @import("../../abi.zig");
const shape = @import("shape.zig");
const launcher_module = @import("launcher.zig");
const Launcher = launcher_module.Launcher;
const Error = launcher_module.Error;

const k = @import("shapes.zig").elementwise;

pub fn cast(launcher: *Launcher, a: *const abi.ops.cast) Error!void {
    return walk(launcher, "cast", a);
}

pub fn accumulate(launcher: *Launcher, a: *const abi.ops.accumulate) Error!void {
    return walk(launcher, "accumulate", a);
}

fn walk(launcher: *Launcher, comptime kernel: [:0]const u8, a: anytype) Error!void {
    if (a.count == 0) return;
    const whole = shape.aligned(16, .{ a.to, a.from });
    const grid: [3]u32 = .{ try shape.blocks(launcher, a.count, k.threads * k.unrolled * 4), 1, 1 };
    return launcher.run(kernel, grid, k.threads, 0, a, .{@as(u32, @intFromBool(whole))});
}
