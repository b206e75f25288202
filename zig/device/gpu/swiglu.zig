//! Launches SwiGLU and GeGLU, `cuda/swiglu.cu`: vectors of eight numbered through all rows, 512 per block.

const abi = @import("../../abi.zig");
const shape = @import("shape.zig");
const launcher_module = @import("launcher.zig");
const Launcher = launcher_module.Launcher;
const Error = launcher_module.Error;

const k = @import("shapes.zig").swiglu;

pub fn swigluForward(launcher: *Launcher, a: *const abi.ops.swiglu_forward) Error!void {
    return forward(launcher, "swiglu_forward", a);
}
pub fn swigluBackward(launcher: *Launcher, a: *const abi.ops.swiglu_backward) Error!void {
    return backward(launcher, "swiglu_backward", a);
}
pub fn gegluForward(launcher: *Launcher, a: *const abi.ops.geglu_forward) Error!void {
    return forward(launcher, "geglu_forward", a);
}
pub fn gegluBackward(launcher: *Launcher, a: *const abi.ops.geglu_backward) Error!void {
    return backward(launcher, "geglu_backward", a);
}

fn forward(launcher: *Launcher, comptime name: [:0]const u8, a: anytype) Error!void {
    return run(launcher, name, a, shape.wholeRows(a.width, .{ a.y, a.gate_up }));
}
fn backward(launcher: *Launcher, comptime name: [:0]const u8, a: anytype) Error!void {
    return run(launcher, name, a, shape.wholeRows(a.width, .{ a.gate_up, a.dy }));
}

fn run(launcher: *Launcher, comptime name: [:0]const u8, a: anytype, whole: bool) Error!void {
    if (a.tokens == 0) return;
    const grid: [3]u32 = .{ try shape.blocks(launcher, a.tokens * shape.divideUp(a.width, 8), k.threads * k.vectors), 1, 1 };
    if (whole) return launcher.run(name, grid, k.threads, 0, a, .{});
    return launcher.run(name ++ "_any", grid, k.threads, 0, a, .{});
}
