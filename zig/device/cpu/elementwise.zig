//! Ops that treat a range as one long row: copy, zero, cast, accumulate.

const abi = @import("../../abi.zig");
const vector = @import("vector.zig");
const Run = @import("run.zig").Run;

/// Values per task. Large enough that a task outweighs its hand-out, small enough to share a copy of a few hundred KiB.
const grain = 64 << 10;

/// `to` = `from`, byte for byte.
pub fn copy(op: *const abi.ops.copy, run: Run) !void {
    if (op.to.bytes != op.from.bytes) return run.fail("copy: {} bytes into {}", .{ op.from.bytes, op.to.bytes });
    run.forRanges(op.to.bytes, 4 * grain, op, copyRange);
}
fn copyRange(op: *const abi.ops.copy, start: usize, end: usize) void {
    @memcpy(op.to.as(u8)[start..end], op.from.as(u8)[start..end]);
}

/// `to` = zero bytes.
pub fn zero(op: *const abi.ops.zero, run: Run) !void {
    run.forRanges(op.to.bytes, 4 * grain, op, zeroRange);
}
fn zeroRange(op: *const abi.ops.zero, start: usize, end: usize) void {
    @memset(op.to.as(u8)[start..end], 0);
}

/// `to` = `from` in another dtype, rounded to nearest even.
pub fn cast(op: *const abi.ops.cast, run: Run) !void {
    switch (op.to_dtype) {
        inline else => |to| switch (op.from_dtype) {
            inline else => |from| run.forRanges(op.count, grain, op, Cast(vector.Element(to), vector.Element(from)).range),
        },
    }
}
fn Cast(comptime To: type, comptime From: type) type {
    return struct {
        fn range(op: *const abi.ops.cast, start: usize, end: usize) void {
            var i = start;
            while (i < end) : (i += vector.lanes) {
                const count = vector.left(i, end);
                vector.storeSome(To, op.to.as(To) + i, vector.loadSome(From, op.from.as(From) + i, count), count);
            }
        }
    };
}

/// `to` = (accumulate ? to : 0) + from.
pub fn accumulate(comptime E: type, op: *const abi.ops.accumulate, run: Run) !void {
    run.forRanges(op.count, grain, op, struct {
        fn range(o: *const abi.ops.accumulate, start: usize, end: usize) void {
            const to = o.to.as(f32);
            var i = start;
            while (i < end) : (i += vector.lanes) {
                const count = vector.left(i, end);
                var value = vector.loadSome(E, o.from.as(E) + i, count);
                if (o.accumulate != 0) value += vector.loadSome(f32, to + i, count);
                vector.storeSome(f32, to + i, value, count);
            }
        }
    }.range);
}

const std = @import("std");
const testing = std.testing;
const harness = @import("harness.zig");

test "copy, zero, cast and accumulate, at odd counts" {
    var h = try harness.Harness.init(2);
    defer h.deinit();
    const count = 200_003;
    const from = try h.random(f32, count, 1);
    const half = try h.poisoned(u16, count);
    const back = try h.poisoned(f32, count);
    const other = try h.poisoned(f32, count);
    try h.run(.cast, .{ .to = h.range(half), .from = h.range(from), .count = count, .to_dtype = .bfloat16, .from_dtype = .float32 });
    try h.run(.cast, .{ .to = h.range(back), .from = h.range(half), .count = count, .to_dtype = .float32, .from_dtype = .bfloat16 });
    for (from, back) |a, b| try testing.expectEqual(vector.toFloat(u16, vector.fromFloat(u16, a)), b);

    const float16 = try h.poisoned(f16, count);
    try h.run(.cast, .{ .to = h.range(float16), .from = h.range(from), .count = count, .to_dtype = .float16, .from_dtype = .float32 });
    for (from, float16) |a, b| try testing.expectEqual(@as(f16, @floatCast(a)), b);

    try h.run(.copy, .{ .to = h.range(other), .from = h.range(from) });
    try testing.expectEqualSlices(f32, from, other);
    try h.run(.accumulate, .{ .to = h.range(other), .from = h.range(half), .count = count, .accumulate = 1, .dtype = .bfloat16 });
    for (from, back, other) |a, b, c| try testing.expectEqual(a + b, c);
    try h.run(.accumulate, .{ .to = h.range(other), .from = h.range(half), .count = count, .accumulate = 0, .dtype = .bfloat16 });
    try testing.expectEqualSlices(f32, back, other);
    try h.run(.zero, .{ .to = h.range(other) });
    for (other) |value| try testing.expectEqual(0, value);
}
