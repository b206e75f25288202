//! The innermost matrix product: a block of up to `rows_max` × `columns` of C stays in registers while k runs.
//!
//! Every element of C is one chain of fused multiply-adds in the order of k, whatever the block's shape, so a result does not
//! depend on how a matrix is cut into blocks. With 32 registers of 512 bits the block is 14 × 32: 28 sums, two vectors of B and a
//! broadcast of A per step, and the two FMA units of a server core stay busy.

const std = @import("std");
const vector = @import("vector.zig");
const F = vector.F;

pub const rows_max = switch (vector.lanes) {
    16 => 14, // 28 of 32 registers
    8 => 6, // 12 of 16
    else => 12, // 24 of 32 (NEON)
};
pub const columns = 2 * vector.lanes;

/// How A is laid out: the distance between its rows and between its k.
pub const Strides = struct { row: usize, k: usize };

pub const Mode = enum { set, add };

/// Where B lies: row after row at a stride, or in panels of `columns`, each (k × columns) without gaps. Panels stay in the
/// first-level cache where a power-of-two stride would crowd a few of its sets.
pub const Right = struct { values: [*]const f32, stride: usize, panel: usize };

/// C (m × n) = or += A (m × k) · B (k × n). B and C have whole vectors per row: n is rounded up to the vector width, and the
/// values beyond are computed from whatever B holds there.
pub fn multiply(comptime a_strides: Strides, m: usize, n: usize, k: usize, a: [*]const f32, b: Right, c: [*]f32, c_stride: usize, mode: Mode) void {
    var row: usize = 0;
    while (row < m) : (row += rows_max) {
        var column: usize = 0;
        var panel = b.values;
        while (column < n) : (column += columns) {
            block(a_strides, @min(rows_max, m - row), n - column, k, a + row * a_strides.row, panel, b.stride, c + row * c_stride + column, c_stride, mode);
            panel += b.panel;
        }
    }
}

/// One block of at most rows_max × columns.
pub inline fn block(comptime a_strides: Strides, rows: usize, n: usize, k: usize, a: [*]const f32, b: [*]const f32, b_stride: usize, c: [*]f32, c_stride: usize, mode: Mode) void {
    switch (rows) {
        inline 1...rows_max => |count| {
            if (n > vector.lanes) {
                registers(a_strides, count, 2, k, a, b, b_stride, c, c_stride, mode);
            } else {
                registers(a_strides, count, 1, k, a, b, b_stride, c, c_stride, mode);
            }
        },
        else => unreachable,
    }
}

noinline fn registers(comptime a_strides: Strides, comptime rows: usize, comptime vectors: usize, k: usize, a_start: [*]const f32, b_start: [*]const f32, b_stride: usize, c: [*]f32, c_stride: usize, mode: Mode) void {
    var sums: [rows][vectors]F = @splat(@splat(vector.splat(0)));
    var a = a_start;
    var b = b_start;
    for (0..k) |_| {
        var b_values: [vectors]F = undefined;
        inline for (&b_values, 0..) |*value, j| value.* = vector.load(f32, b + j * vector.lanes);
        inline for (0..rows) |row| {
            const a_value = vector.splat(a[row * a_strides.row]);
            inline for (0..vectors) |j| sums[row][j] = @mulAdd(F, a_value, b_values[j], sums[row][j]);
        }
        a += a_strides.k;
        b += b_stride;
    }
    inline for (0..rows) |row| {
        inline for (0..vectors) |j| {
            const to = c + row * c_stride + j * vector.lanes;
            vector.store(f32, to, if (mode == .add) vector.load(f32, to) + sums[row][j] else sums[row][j]);
        }
    }
}
