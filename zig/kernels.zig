//! The root of the object that has the CPU's kernels for one CPU level. Read `device/cpu/ops.zig`.

pub const abi = @import("abi.zig");
pub const workers = @import("workers.zig");
pub const run = @import("device/cpu/ops.zig").run;

test {
    _ = @import("device/cpu/ops.zig");
}

comptime {
    @export(&run, .{ .name = "sluice_kernels_" ++ @import("level").name });
}
