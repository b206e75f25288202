//! Vectors as wide as the CPU level has them, and the dtypes they are loaded from: float32, bfloat16 (stored as u16) and
//! float16. Arithmetic is always float32; a store rounds to nearest even.
//!
//! Loops over a row take `count = left(i, n)` values at a time; `loadSome` and `storeSome` handle the last, partial vector,
//! so that a loop body is written once.

const std = @import("std");
const builtin = @import("builtin");
const abi = @import("../../abi.zig");

pub const lanes = blk: {
    if (builtin.cpu.arch == .x86_64 and builtin.cpu.has(.x86, .avx512f)) break :blk 16;
    if (builtin.cpu.arch == .x86_64 and builtin.cpu.has(.x86, .avx)) break :blk 8;
    break :blk 4;
};
pub const F = @Vector(lanes, f32);
pub const I = @Vector(lanes, i32);
pub const U = @Vector(lanes, u32);
/// The same lanes in double precision, for sums that run over millions of values.
pub const Double = @Vector(lanes, f64);

/// How a dtype is stored.
pub fn Element(comptime dtype: abi.Dtype) type {
    return switch (dtype) {
        .float32 => f32,
        .bfloat16 => u16,
        .float16 => f16,
    };
}

pub inline fn splat(value: f32) F {
    return @splat(value);
}

pub inline fn left(index: usize, end: usize) usize {
    return @min(lanes, end - index);
}

/// `count` neighbours of any type, without an alignment beyond the element's.
pub inline fn raw(comptime T: type, from: [*]const T) @Vector(lanes, T) {
    return @as(*align(@alignOf(T)) const @Vector(lanes, T), @ptrCast(from)).*;
}
pub inline fn putRaw(comptime T: type, to: [*]T, values: @Vector(lanes, T)) void {
    @as(*align(@alignOf(T)) @Vector(lanes, T), @ptrCast(to)).* = values;
}

pub inline fn load(comptime E: type, from: [*]const E) F {
    return widen(E, raw(E, from));
}

pub inline fn store(comptime E: type, to: [*]E, values: F) void {
    putRaw(E, to, narrow(E, values));
}

/// The first `count` lanes from memory, the others `fill`.
pub inline fn loadSomeOr(comptime E: type, from: [*]const E, count: usize, comptime fill: f32) F {
    if (count == lanes) return load(E, from);
    var values: [lanes]f32 = @splat(fill);
    for (0..count) |lane| values[lane] = toFloat(E, from[lane]);
    return values;
}
pub inline fn loadSome(comptime E: type, from: [*]const E, count: usize) F {
    return loadSomeOr(E, from, count, 0);
}

pub inline fn storeSome(comptime E: type, to: [*]E, values: F, count: usize) void {
    if (count == lanes) return store(E, to, values);
    const some: [lanes]E = narrow(E, values);
    for (0..count) |lane| to[lane] = some[lane];
}

pub inline fn widen(comptime E: type, values: @Vector(lanes, E)) F {
    return switch (E) {
        f32 => values,
        u16 => @bitCast(@as(U, values) << @splat(16)),
        f16 => @floatCast(values),
        else => comptime unreachable,
    };
}

pub inline fn narrow(comptime E: type, values: F) @Vector(lanes, E) {
    switch (E) {
        f32 => return values,
        f16 => return @floatCast(values),
        u16 => {
            const bits: U = @bitCast(values);
            const even = (bits >> @splat(16)) & @as(U, @splat(1));
            const rounded = (bits +% @as(U, @splat(0x7fff)) +% even) >> @splat(16);
            const quiet = (bits >> @splat(16)) | @as(U, @splat(0x40));
            return @truncate(@select(u32, values != values, quiet, rounded));
        },
        else => comptime unreachable,
    }
}

pub inline fn toFloat(comptime E: type, value: E) f32 {
    return switch (E) {
        f32 => value,
        u16 => @bitCast(@as(u32, value) << 16),
        f16 => value,
        else => comptime unreachable,
    };
}

pub inline fn fromFloat(comptime E: type, value: f32) E {
    switch (E) {
        f32 => return value,
        f16 => return @floatCast(value),
        u16 => {
            const bits: u32 = @bitCast(value);
            if (value != value) return @truncate((bits >> 16) | 0x40);
            return @truncate((bits +% 0x7fff +% ((bits >> 16) & 1)) >> 16);
        },
        else => comptime unreachable,
    }
}

/// A tree sum, the same for every caller.
pub fn sum(values: anytype) @typeInfo(@TypeOf(values)).vector.child {
    const width = @typeInfo(@TypeOf(values)).vector.len;
    if (width == 1) return values[0];
    const low, const high = halves(values);
    return sum(low + high);
}

pub fn max(values: anytype) @typeInfo(@TypeOf(values)).vector.child {
    const width = @typeInfo(@TypeOf(values)).vector.len;
    if (width == 1) return values[0];
    const low, const high = halves(values);
    return max(@max(low, high));
}

inline fn halves(values: anytype) [2]@Vector(@typeInfo(@TypeOf(values)).vector.len / 2, @typeInfo(@TypeOf(values)).vector.child) {
    const info = @typeInfo(@TypeOf(values)).vector;
    const half = info.len / 2;
    const iota = std.simd.iota(i32, half);
    return .{
        @shuffle(info.child, values, undefined, iota),
        @shuffle(info.child, values, undefined, iota + @as(@Vector(half, i32), @splat(half))),
    };
}

pub inline fn double(values: F) Double {
    return @floatCast(values);
}

/// e to the x, relative error about 1e-7 (Cephes expf). Below −87 the result is zero, NaN stays NaN.
pub inline fn exp(x: F) F {
    const magic = splat(12582912.0); // 1.5 · 2²³: adding it rounds to an integer, kept in the low bits
    const clamped = @min(@max(x, splat(-87)), splat(88));
    const shifted = @mulAdd(F, clamped, splat(1.44269504088896341), magic);
    const n = shifted - magic;
    var r = @mulAdd(F, n, splat(-0.693359375), x);
    r = @mulAdd(F, n, splat(2.12194440e-4), r);
    var p = @mulAdd(F, splat(1.9875691500e-4), r, splat(1.3981999507e-3));
    p = @mulAdd(F, p, r, splat(8.3334519073e-3));
    p = @mulAdd(F, p, r, splat(4.1665795894e-2));
    p = @mulAdd(F, p, r, splat(1.6666665459e-1));
    p = @mulAdd(F, p, r, splat(5.0000001201e-1));
    p = @mulAdd(F, p, r * r, r + splat(1));
    const exponent = (@as(U, @bitCast(shifted)) +% @as(U, @splat(127))) << @splat(23);
    return @select(f32, x < splat(-87), splat(0), p * @as(F, @bitCast(exponent)));
}

/// Turns `lanes` rows of `lanes` values into columns: log2(lanes) rounds of interleaving row i with row i + lanes/2.
pub inline fn transpose(rows: *[lanes]F) void {
    const low = comptime interleaved(0);
    const high = comptime interleaved(lanes / 2);
    inline for (0..std.math.log2(lanes)) |_| {
        const before = rows.*;
        inline for (0..lanes / 2) |i| {
            rows[2 * i] = @shuffle(f32, before[i], before[i + lanes / 2], low);
            rows[2 * i + 1] = @shuffle(f32, before[i], before[i + lanes / 2], high);
        }
    }
}

fn interleaved(comptime first: i32) @Vector(lanes, i32) {
    var mask: [lanes]i32 = undefined;
    for (0..lanes / 2) |i| {
        mask[2 * i] = first + @as(i32, @intCast(i));
        mask[2 * i + 1] = ~(first + @as(i32, @intCast(i)));
    }
    return mask;
}

const testing = std.testing;

test "exp is within 2 ulp of float64 over its range, zero below, NaN for NaN" {
    var worst: f64 = 0;
    var x: f32 = -86.9;
    while (x < 88) : (x += 0.0371) {
        const exact = @exp(@as(f64, x));
        worst = @max(worst, @abs(exp(splat(x))[0] - exact) / exact);
    }
    try testing.expect(worst < 2e-7);
    try testing.expectEqual(0, exp(splat(-std.math.inf(f32)))[0]);
    try testing.expectEqual(1, exp(splat(0))[0]);
    try testing.expect(std.math.isNan(exp(splat(std.math.nan(f32)))[0]));
    try testing.expect(exp(splat(1000))[0] > 1e38);
}

test "bfloat16 rounds to nearest even and keeps NaN and infinity" {
    for ([_]struct { u32, u16 }{
        .{ 0x3f808000, 0x3f80 }, .{ 0x3f818000, 0x3f82 }, .{ 0x3f808001, 0x3f81 }, .{ 0x7f7fffff, 0x7f80 },
        .{ 0x7f800000, 0x7f80 }, .{ 0xff800000, 0xff80 }, .{ 0x7fffffff, 0x7fff }, .{ 0x7f800001, 0x7fc0 },
    }) |case| {
        const value: f32 = @bitCast(case[0]);
        try testing.expectEqual(case[1], fromFloat(u16, value));
        try testing.expectEqual(case[1], narrow(u16, splat(value))[0]);
    }
}

test "transpose" {
    var rows: [lanes]F = undefined;
    for (&rows, 0..) |*row, i| {
        var values: [lanes]f32 = undefined;
        for (&values, 0..) |*value, j| value.* = @floatFromInt(i * lanes + j);
        row.* = values;
    }
    transpose(&rows);
    for (rows, 0..) |row, i| {
        const values: [lanes]f32 = row;
        for (values, 0..) |value, j| try testing.expectEqual(@as(f32, @floatFromInt(j * lanes + i)), value);
    }
}
