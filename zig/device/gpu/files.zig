//! Small files, read and replaced whole: kernels and the cache of algorithms.

const std = @import("std");

/// All bytes of a file, and a zero behind them; the caller frees what it gets.
pub fn read(allocator: std.mem.Allocator, path: [:0]const u8) error{ OutOfMemory, Unreadable }![:0]u8 {
    const file = std.c.open(path, .{ .ACCMODE = .RDONLY, .CLOEXEC = true });
    if (file < 0) return error.Unreadable;
    defer _ = std.c.close(file);
    const end = std.c.lseek(file, 0, std.c.SEEK.END);
    if (end < 0 or std.c.lseek(file, 0, std.c.SEEK.SET) != 0) return error.Unreadable;
    const bytes = try allocator.allocSentinel(u8, @intCast(end), 0);
    errdefer allocator.free(bytes);
    var done: usize = 0;
    while (done < bytes.len) {
        const count = std.c.read(file, bytes.ptr + done, bytes.len - done);
        if (count <= 0) return error.Unreadable;
        done += @intCast(count);
    }
    return bytes;
}

/// Writes a file beside `path` and renames it into place; leaves everything as it was when that does not work.
pub fn replace(path: [:0]const u8, text: []const u8) void {
    var name: [1024]u8 = undefined;
    const beside = std.fmt.bufPrintZ(&name, "{s}.{d}.tmp", .{ path, std.c.getpid() }) catch return;
    const file = std.c.open(beside, .{ .ACCMODE = .WRONLY, .CREAT = true, .TRUNC = true, .CLOEXEC = true }, @as(c_uint, 0o644));
    if (file < 0) return;
    var done: usize = 0;
    while (done < text.len) {
        const count = std.c.write(file, text.ptr + done, text.len - done);
        if (count <= 0) break;
        done += @intCast(count);
    }
    _ = std.c.close(file);
    if (done < text.len or std.c.rename(beside, path) != 0) _ = std.c.unlink(beside);
}
