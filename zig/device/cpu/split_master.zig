//! Split master: an fp32 weight's bits in two arrays. `hi` is the nearest bf16 (ties away from zero), `lo` the signed 16-bit
//! remainder, so that `(hi << 16) + lo` is the exact bit pattern.
//!
//! A NaN is the one exception: rounding could carry it into another number, so it becomes a quiet NaN with `lo` zero.

const abi = @import("../../abi.zig");
const vector = @import("vector.zig");
const Run = @import("run.zig").Run;
const F = vector.F;
const U = vector.U;
const I = vector.I;

const grain = 64 << 10;

pub inline fn join(hi: @Vector(vector.lanes, u16), lo: @Vector(vector.lanes, i16)) F {
    return @bitCast((@as(U, hi) << @splat(16)) +% @as(U, @bitCast(@as(I, lo))));
}

pub const Split = struct { hi: @Vector(vector.lanes, u16), lo: @Vector(vector.lanes, i16) };

pub inline fn split(values: F) Split {
    const bits: U = @bitCast(values);
    const nearest = (bits +% @as(U, @splat(0x8000))) >> @splat(16);
    const nan = values != values;
    const hi = @select(u32, nan, (bits >> @splat(16)) | @as(U, @splat(0x40)), nearest);
    const rest = @select(u32, nan, @as(U, @splat(0)), bits -% (nearest << @splat(16)));
    return .{ .hi = @truncate(hi), .lo = @truncate(@as(I, @bitCast(rest))) };
}

/// The same for one value: the reference, and the end of an array.
pub fn joinOne(hi: u16, lo: i16) f32 {
    return @bitCast((@as(u32, hi) << 16) +% @as(u32, @bitCast(@as(i32, lo))));
}
pub fn splitOne(value: f32) struct { u16, i16 } {
    const bits: u32 = @bitCast(value);
    if (value != value) return .{ @truncate((bits >> 16) | 0x40), 0 };
    const hi = (bits +% 0x8000) >> 16;
    return .{ @truncate(hi), @truncate(@as(i32, @bitCast(bits -% (hi << 16)))) };
}

/// `to` = join of a split master.
pub fn joinWeights(op: *const abi.ops.join_weights, run: Run) !void {
    run.forRanges(op.count, grain, op, joinRange);
}
fn joinRange(op: *const abi.ops.join_weights, start: usize, end: usize) void {
    joinRow(op.to.as(f32) + start, op.hi.as(u16) + start, op.lo.as(i16) + start, end - start);
}
pub fn joinRow(to: [*]f32, hi: [*]const u16, lo: [*]const i16, count: usize) void {
    var i: usize = 0;
    while (i + vector.lanes <= count) : (i += vector.lanes) {
        vector.store(f32, to + i, join(vector.raw(u16, hi + i), vector.raw(i16, lo + i)));
    }
    while (i < count) : (i += 1) to[i] = joinOne(hi[i], lo[i]);
}

/// A split master from a file's values.
pub fn splitWeights(op: *const abi.ops.split_weights, run: Run) !void {
    switch (op.dtype) {
        inline else => |dtype| run.forRanges(op.count, grain, op, SplitFrom(vector.Element(dtype)).range),
    }
}
fn SplitFrom(comptime E: type) type {
    return struct {
        fn range(op: *const abi.ops.split_weights, start: usize, end: usize) void {
            const hi, const lo, const from = .{ op.hi.as(u16), op.lo.as(i16), op.from.as(E) };
            var i = start;
            while (i + vector.lanes <= end) : (i += vector.lanes) {
                const parts = split(vector.load(E, from + i));
                vector.putRaw(u16, hi + i, parts.hi);
                vector.putRaw(i16, lo + i, parts.lo);
            }
            while (i < end) : (i += 1) hi[i], lo[i] = splitOne(vector.toFloat(E, from[i]));
        }
    };
}

const std = @import("std");
const testing = std.testing;
const harness = @import("harness.zig");

test "join of split is the exact bit pattern, for every exponent and for infinity; NaN stays NaN" {
    var bits: u32 = 0;
    while (true) {
        const value: f32 = @bitCast(bits);
        const hi, const lo = splitOne(value);
        const parts = split(vector.splat(value));
        try testing.expectEqual(hi, parts.hi[0]);
        try testing.expectEqual(lo, parts.lo[0]);
        const joined = joinOne(hi, lo);
        try testing.expectEqual(@as(u32, @bitCast(joined)), @as(u32, @bitCast(join(parts.hi, parts.lo)[0])));
        if (value != value) try testing.expect(joined != joined) else try testing.expectEqual(bits, @as(u32, @bitCast(joined)));
        bits, const wrapped = @addWithOverflow(bits, 4093 * 7);
        if (wrapped == 1) break;
    }
    try testing.expectEqual(.{ 0x3f81, -0x8000 }, splitOne(@bitCast(@as(u32, 0x3f808000)))); // a tie goes away from zero
}

test "split_weights and join_weights, all dtypes, odd counts" {
    var h = try harness.Harness.init(2);
    defer h.deinit();
    const count = 70_003;
    inline for (.{ abi.Dtype.float32, abi.Dtype.bfloat16, abi.Dtype.float16 }) |dtype| {
        const E = vector.Element(dtype);
        const from = try h.random(E, count, 2);
        const hi = try h.poisoned(u16, count);
        const lo = try h.poisoned(u16, count);
        const to = try h.poisoned(f32, count);
        try h.run(.split_weights, .{ .hi = h.range(hi), .lo = h.range(lo), .from = h.range(from), .count = count, .dtype = dtype });
        try h.run(.join_weights, .{ .to = h.range(to), .hi = h.range(hi), .lo = h.range(lo), .count = count });
        for (from, to) |a, b| try testing.expectEqual(vector.toFloat(E, a), b);
    }
}
