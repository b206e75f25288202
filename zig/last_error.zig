//! The text behind the last non-zero status, per thread: an export returns a small number, and TypeScript asks for the
//! sentence. Written before the status is returned, valid until the next failing call on the same thread.

const std = @import("std");

threadlocal var text: [1024]u8 = @splat(0);

/// Remembers a sentence and returns the status to hand back.
pub fn fail(comptime format: []const u8, arguments: anytype) i32 {
    set(format, arguments);
    return 1;
}

pub fn set(comptime format: []const u8, arguments: anytype) void {
    const written = std.fmt.bufPrint(text[0 .. text.len - 1], format, arguments) catch text[0 .. text.len - 1];
    text[written.len] = 0;
}

pub fn get() [*:0]const u8 {
    return @ptrCast(&text);
}

extern "c" fn strerror(code: c_int) [*:0]const u8;

/// The C library's words for the current errno, such as "No space left on device".
pub fn systemText() []const u8 {
    return std.mem.span(strerror(std.c._errno().*));
}
