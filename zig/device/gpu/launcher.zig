//! How the launch functions of a family of ops (`norm.zig`, `attention.zig`, …) reach the GPU.
//!
//! Every kernel takes the op's own argument struct by value, then the address of the compute stream's workspace, then
//! whatever `extra` values the launch function adds. A kernel that does an op's work is called after the op
//! (`rmsnorm_forward`, or `rmsnorm_forward_wide` for a variant); one that only prepares or finishes it has two underscores
//! after the op's name (`rmsnorm_backward__reduce`). The stand-in driver of the tests relies on both.

const std = @import("std");
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
    functions: *Functions,
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
        const function = try launcher.functions.get(kernel, shared_bytes, launcher);
        const status = launcher.functions.table.launch(function, grid[0], grid[1], grid[2], block, 1, 1, shared_bytes, launcher.stream, @ptrCast(&parameters), null);
        if (status != 0) return launcher.fail("cannot launch {s}: {s}", .{ kernel, launcher.functions.table.describe(status) });
    }

    pub fn fail(launcher: *Launcher, comptime format: []const u8, arguments: anytype) Error {
        const text = std.fmt.bufPrint(launcher.message, format, arguments) catch launcher.message;
        launcher.message_length = text.len;
        return error.Failed;
    }
};

pub const Functions = driver.Functions;
