//! Launches SwiGLU, `cuda/swiglu.cu`: vectors of eight numbered through all rows, 512 per block.

const abi = @import("../../abi.zig");
const shape = @import("shape.zig");
const launcher_module = @import("launcher.zig");
const Launcher = launcher_module.Launcher;
const Error = launcher_module.Error;

const k = @import("shapes.zig").swiglu;

pub fn swigluForward(launcher: *Launcher, a: *const abi.ops.swiglu_forward) Error!void {
    if (a.tokens == 0) return;
    const grid: [3]u32 = .{ try blocksFor(launcher, a), 1, 1 };
    if (shape.wholeRows(a.width, .{ a.y, a.gate_up })) return launcher.run("swiglu_forward", grid, k.threads, 0, a, .{});
    return launcher.run("swiglu_forward_any", grid, k.threads, 0, a, .{});
}

pub fn swigluBackward(launcher: *Launcher, a: *const abi.ops.swiglu_backward) Error!void {
    if (a.tokens == 0) return;
    const grid: [3]u32 = .{ try blocksFor(launcher, a), 1, 1 };
    if (shape.wholeRows(a.width, .{ a.gate_up, a.dy })) return launcher.run("swiglu_backward", grid, k.threads, 0, a, .{});
    return launcher.run("swiglu_backward_any", grid, k.threads, 0, a, .{});
}

fn blocksFor(launcher: *Launcher, a: anytype) Error!u32 {
    return shape.blocks(launcher, a.tokens * shape.divideUp(a.width, 8), k.threads * k.vectors);
}
