//! The ops of the disk stream: bytes between memory and a file, in large pieces, checksummed on the way so that damage is
//! found when they are read again. TypeScript writes headers and manifests; these are the tensors.

const std = @import("std");
const abi = @import("abi.zig");

const piece_bytes = 16 << 20;
extern "c" fn strerror(code: c_int) [*:0]const u8;

pub const File = struct { descriptor: c_int, offset: u64, name: []const u8 };

/// Reads or writes the whole range and stores the XXH64 of its bytes in `checksum`. On failure `text` says what happened.
pub fn transfer(comptime direction: enum { read, write }, memory: []u8, file: File, checksum: *align(1) u64, text: []u8) ?[]const u8 {
    var hash = std.hash.XxHash64.init(0);
    var done: usize = 0;
    while (done < memory.len) {
        const piece = memory[done..@min(memory.len, done + piece_bytes)];
        const position: i64 = @intCast(file.offset + done);
        if (direction == .write) hash.update(piece);
        var moved: usize = 0;
        while (moved < piece.len) {
            const count = if (direction == .read)
                std.c.pread(file.descriptor, piece.ptr + moved, piece.len - moved, position + @as(i64, @intCast(moved)))
            else
                std.c.pwrite(file.descriptor, piece.ptr + moved, piece.len - moved, position + @as(i64, @intCast(moved)));
            if (count < 0) {
                if (std.c._errno().* == @intFromEnum(std.c.E.INTR)) continue;
                return problem(text, "cannot {s} {s} at byte {d}: {s}", .{ @tagName(direction), file.name, file.offset + done + moved, std.mem.span(strerror(std.c._errno().*)) });
            }
            if (count == 0) return problem(text, "{s} is cut off: {d} bytes were expected from byte {d} on", .{ file.name, memory.len - done - moved, file.offset + done + moved });
            moved += @intCast(count);
        }
        if (direction == .read) hash.update(piece);
        done += piece.len;
    }
    checksum.* = hash.final();
    return null;
}

/// Flushes a file to stable storage.
pub fn sync(file: File, text: []u8) ?[]const u8 {
    if (std.c.fsync(file.descriptor) == 0) return null;
    return problem(text, "cannot flush {s}: {s}", .{ file.name, std.mem.span(strerror(std.c._errno().*)) });
}

fn problem(text: []u8, comptime format: []const u8, arguments: anytype) []const u8 {
    return std.fmt.bufPrint(text, format, arguments) catch text;
}
