//! The CPU as a device, and as what computes the host's ops beside a GPU: which kernels its CPU level allows, and how one op
//! runs on the calling thread and a pool.

const std = @import("std");
const builtin = @import("builtin");
const abi = @import("../../abi.zig");
const cpuid = @import("cpuid.zig");
const files = @import("../../files.zig");
const workers = @import("../../workers.zig");

/// What kernels of one CPU level look like from here (`ops.zig`).
pub const Kernels = *const fn (op: abi.Op, arguments: *const anyopaque, pool: *const workers.Pool, message: *workers.Message) callconv(.c) i32;

const levels = struct {
    extern fn sluice_kernels_v3(op: abi.Op, arguments: *const anyopaque, pool: *const workers.Pool, message: *workers.Message) callconv(.c) i32;
    extern fn sluice_kernels_v4(op: abi.Op, arguments: *const anyopaque, pool: *const workers.Pool, message: *workers.Message) callconv(.c) i32;
    extern fn sluice_kernels_baseline(op: abi.Op, arguments: *const anyopaque, pool: *const workers.Pool, message: *workers.Message) callconv(.c) i32;
};

extern "c" fn getenv(name: [*:0]const u8) ?[*:0]const u8;

/// 0 baseline, 3 or 4 for x86_64_v3 or v4; 1 when this x86 CPU has not even v3. SLUICE_CPU=v3 asks for less.
pub fn level() u32 {
    if (builtin.cpu.arch != .x86_64) return 0;
    if (!cpuid.hasV3()) return 1;
    if (getenv("SLUICE_CPU")) |wanted| if (std.mem.eql(u8, std.mem.span(wanted), "v3")) return 3;
    return if (cpuid.hasV4()) 4 else 3;
}

pub fn kernels() Kernels {
    if (builtin.cpu.arch != .x86_64) return &levels.sluice_kernels_baseline;
    return if (level() == 4) &levels.sluice_kernels_v4 else &levels.sluice_kernels_v3;
}

/// Runs one op, or moves bytes between memory and `file`; null, or what went wrong, in `text`.
pub fn run(chosen: Kernels, op: abi.Op, arguments: *const anyopaque, file: files.File, pool: *const workers.Pool, text: []u8) ?[]const u8 {
    switch (op) {
        .file_read => {
            const typed: *const abi.ops.file_read = @ptrCast(@alignCast(arguments));
            return files.transfer(.read, typed.to.as(u8)[0..typed.to.bytes], file, @ptrCast(typed.checksum.address.?), text);
        },
        .file_write => {
            const typed: *const abi.ops.file_write = @ptrCast(@alignCast(arguments));
            return files.transfer(.write, typed.from.as(u8)[0..typed.from.bytes], file, @ptrCast(typed.checksum.address.?), text);
        },
        .file_sync => return files.sync(file, text),
        else => {},
    }
    var message: workers.Message = .{ .length = 0, .text = undefined };
    if (chosen(op, arguments, pool, &message) == 0) return null;
    @memcpy(text[0..message.length], message.text[0..message.length]);
    return text[0..message.length];
}
