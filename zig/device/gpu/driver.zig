//! The vendor's driver as a table of functions, filled by dlopen. Nothing GPU-specific is needed at link time.

const std = @import("std");
const launcher_module = @import("launcher.zig");

pub const Stream = ?*anyopaque;
pub const Function = *anyopaque;

pub const Table = struct {
    launch: *const fn (function: Function, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32, shared_bytes: u32, stream: Stream, parameters: [*]const ?*const anyopaque, extra: ?*anyopaque) callconv(.c) i32,

    /// The driver's name for a status.
    pub fn describe(_: *const Table, status: i32) []const u8 {
        _ = status;
        return "driver error";
    }
};

/// Kernels by name, looked up when they are first launched.
pub const Functions = struct {
    table: *const Table,

    pub fn get(functions: *Functions, kernel: [:0]const u8, shared_bytes: u32, launcher: *launcher_module.Launcher) launcher_module.Error!Function {
        _ = functions;
        _ = shared_bytes;
        return launcher.fail("no kernel {s}", .{kernel});
    }
};
