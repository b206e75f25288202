//! Launches the rows by index, `cuda/rows.cu`: a warp per row.

const abi = @import("../../abi.zig");
const shape = @import("shape.zig");
const launcher_module = @import("launcher.zig");
const Launcher = launcher_module.Launcher;
const Error = launcher_module.Error;

const k = @import("shapes.zig").rows;

pub fn gatherRows(launcher: *Launcher, a: *const abi.ops.gather_rows) Error!void {
    return move(launcher, "gather_rows", a, a.rows);
}

pub fn scatterRows(launcher: *Launcher, a: *const abi.ops.scatter_rows) Error!void {
    return move(launcher, "scatter_rows", a, a.total_rows);
}

fn move(launcher: *Launcher, comptime kernel: [:0]const u8, a: anytype, rows: u32) Error!void {
    if (rows == 0) return;
    const whole = a.width * a.dtype.bytes() % 16 == 0 and shape.aligned(16, .{ a.y, a.x });
    const grid: [3]u32 = .{ try shape.blocks(launcher, rows, k.threads / launcher.properties.warp), 1, 1 };
    return launcher.run(kernel, grid, k.threads, 0, a, .{@as(u32, @intFromBool(whole))});
}
