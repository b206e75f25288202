//! How the launch functions of a family of ops (`norm.zig`, `attention.zig`, …) reach the GPU.
//!
//! Every kernel takes the op's own argument struct by value, then the address of the compute stream's workspace, then
//! whatever `extra` values the launch function adds. A kernel that does an op's work is called after the op
//! (`rmsnorm_forward`, or `rmsnorm_forward_wide` for a variant); one that only prepares or finishes it has two underscores
//! after the op's name (`rmsnorm_backward__reduce`). The stand-in driver of the tests relies on both.

const std = @import("std");
const blas_module = @import("blas.zig");
const driver = @import("driver.zig");

pub const Error = error{Failed};

/// What launch functions choose their grids by.
pub const Properties = struct {
    multiprocessors: u32,
    /// Threads of a warp (AMD: of a wave).
    warp: u32,
    /// Compute capability times ten (90 is Hopper); 0 on AMD.
    capability: u32,
    /// Shared memory (AMD: LDS) that one block may ask for, bytes.
    shared_bytes_max: u32,
};

pub const Launcher = struct {
    properties: Properties,
    stream: driver.Stream,
    /// Device memory for partial sums, `workspace_bytes` of it, 256-byte aligned; only commands of this stream use it.
    workspace: u64,
    workspace_bytes: u64,
    functions: *driver.Functions,
    /// Matrix products; see `blas.zig`.
    blas: *blas_module.Blas,
    /// The first failure's text.
    message: []u8,
    message_length: usize = 0,

    /// Launches `kernel` with a one-dimensional block. `arguments` is a pointer to the op's struct, `extra` a tuple of values
    /// of the kernel's further parameters (u32, u64, f32 …).
    pub fn run(launcher: *Launcher, comptime kernel: [:0]const u8, grid: [3]u32, block: u32, shared_bytes: u32, arguments: anytype, extra: anytype) Error!void {
        var parameters: [2 + extra.len]?*const anyopaque = undefined;
        parameters[0] = arguments;
        parameters[1] = &launcher.workspace;
        var values = extra;
        inline for (0..extra.len) |index| parameters[2 + index] = &values[index];
        var status: driver.Status = 0;
        const table = launcher.functions.table;
        const function = launcher.functions.get(kernel, shared_bytes, &status) orelse {
            if (status == driver.status.not_found) return launcher.fail("the kernels that were loaded do not have {s}; run \"bun run build\"", .{kernel});
            return launcher.fail("cannot load kernel {s}: {s}", .{ kernel, table.describe(status).slice() });
        };
        status = table.calls.launch(function, grid[0], grid[1], grid[2], block, 1, 1, shared_bytes, launcher.stream, &parameters, null);
        if (status != 0) return launcher.fail("cannot launch {s}: {s}", .{ kernel, table.describe(status).slice() });
    }

    /// Zeroes device memory, in the stream's order.
    pub fn zero(launcher: *Launcher, address: driver.Address, bytes: u64) Error!void {
        const table = launcher.functions.table;
        const status = table.calls.fill(address, 0, bytes, launcher.stream);
        if (status != 0) return launcher.fail("cannot fill {d} bytes: {s}", .{ bytes, table.describe(status).slice() });
    }

    pub fn fail(launcher: *Launcher, comptime format: []const u8, arguments: anytype) Error {
        const text = std.fmt.bufPrint(launcher.message, format, arguments) catch launcher.message;
        launcher.message_length = text.len;
        return error.Failed;
    }
};
