//! Launches AdamW, `cuda/adamw.cu`, with the step's numbers rounded on the host as the CPU kernel rounds them.

const abi = @import("../../abi.zig");
const AdamwConstants = @import("../adamw_constants.zig").AdamwConstants;
const shape = @import("shape.zig");
const launcher_module = @import("launcher.zig");
const Launcher = launcher_module.Launcher;
const Error = launcher_module.Error;

const k = @import("shapes.zig").adamw;

pub fn adamw(launcher: *Launcher, a: *const abi.ops.adamw) Error!void {
    if (a.count == 0) return;
    const whole = shape.aligned(8, .{ a.hi, a.lo }) and shape.aligned(16, .{ a.m, a.v, a.gradient });
    const grid: [3]u32 = .{ try shape.blocks(launcher, a.count, k.threads * k.unrolled * 4), 1, 1 };
    return launcher.run("adamw", grid, k.threads, 0, a, .{ AdamwConstants.of(a), @as(u32, @intFromBool(whole)) });
}
