//! One blocked matrix product for the three linear ops: Y (m × n) = A (m × k) · B (k × n) [+ bias] [+ residual].
//!
//! Y is cut into tiles, one task each. A task walks k in steps of `depth`; per step it packs B's part into panels of `columns`
//! (it stays in the second-level cache) and A's part panel by panel (it stays in the first), converting bfloat16 to float32
//! on the way, and lets `tile.zig` multiply panels. k is never divided between threads and the steps do not depend on m, n or
//! the tile, so an element's bits depend on its row of A, its column of B and nothing else: not on workers, not on the other rows.
//!
//! With several steps the float32 sums wait in the worker's scratch; the last step adds bias and residual and rounds once.

const std = @import("std");
const vector = @import("vector.zig");
const tile = @import("tile.zig");
const Run = @import("run.zig").Run;
const F = vector.F;

/// Which of an operand's two dimensions is contiguous in memory. In the `along_k` layout a packed panel is a transpose.
pub const Layout = enum { along_k, across_k };

/// k per step: a packed panel of A is 16 KiB, half of the first-level cache.
pub const depth = 256;
const tile_rows_max = tile.rows_max * 48;
const tile_columns_max = 512;

const panel_rows = std.mem.alignForward(usize, tile.rows_max, vector.lanes);
const block_values = tile.rows_max * tile.columns;

/// A worker's scratch, in float32 values. B has a panel's slack.
const Scratch = extern struct {
    a: [depth * panel_rows]f32 align(64),
    b: [depth * tile_columns_max]f32 align(64),
    sums: [tile_rows_max * tile_columns_max]f32 align(64),
};
comptime {
    std.debug.assert(@sizeOf(Scratch) <= @import("../../workers.zig").scratch_bytes_needed);
}

pub fn Product(comptime E: type, comptime Y: type) type {
    return struct {
        m: usize,
        n: usize,
        k: usize,
        /// A's row i (along_k) or k-th row (across_k) starts at i · a_stride; B likewise by column.
        a: [*]const E,
        a_stride: usize,
        b: [*]const E,
        b_stride: usize,
        y: [*]Y,
        bias: ?[*]const E = null,
        /// May be y itself.
        residual: ?[*]const Y = null,
    };
}

pub fn multiply(comptime E: type, comptime Y: type, comptime a_layout: Layout, comptime b_layout: Layout, product: Product(E, Y), run: Run) void {
    const Job = struct {
        product: Product(E, Y),
        grid: Grid,
        run: Run,

        fn task(job: *const @This(), index: usize, worker: u32) void {
            const grid = job.grid;
            const rows = grid.rowRange(index, job.product.m);
            const columns = grid.columnRange(index, job.product.n);
            const scratch: *Scratch = @ptrCast(job.run.scratch(u8, worker).ptr);
            tileOf(E, Y, a_layout, b_layout, &job.product, rows, columns, scratch);
        }
    };
    if (product.m == 0 or product.n == 0) return;
    const job: Job = .{ .product = product, .grid = .of(product.m, product.n, product.k, run.pool.count), .run = run };
    run.forEach(job.grid.tasks(), &job, Job.task);
}

/// How Y is cut. Any cut gives the same bits, so this may look at the number of workers.
const Grid = struct {
    tile_rows: usize,
    tile_columns: usize,
    columns_of_tiles: usize,
    rows_of_tiles: usize,

    const Range = struct { start: usize, end: usize };
    /// Below this many multiply-adds a task is not worth its packing and hand-out (about 15 µs).
    const task_min = 1 << 20;

    fn of(m: usize, n: usize, k: usize, workers: usize) Grid {
        var down = std.math.divCeil(usize, m, tile_rows_max) catch unreachable;
        var across = std.math.divCeil(usize, n, tile_columns_max) catch unreachable;
        const affordable = @max(1, m * n * k / task_min);
        // Few tasks must divide evenly among the workers; with many, the last ones even out by themselves.
        while (down * across < @min(affordable, 4 * workers) and (down * across) % workers != 0) {
            if (n / across >= m / down) across += 1 else down += 1;
        }
        const tile_rows = roundUp(std.math.divCeil(usize, m, down) catch unreachable, tile.rows_max);
        const tile_columns = roundUp(std.math.divCeil(usize, n, across) catch unreachable, tile.columns);
        return .{
            .tile_rows = tile_rows,
            .tile_columns = tile_columns,
            .rows_of_tiles = std.math.divCeil(usize, m, tile_rows) catch unreachable,
            .columns_of_tiles = std.math.divCeil(usize, n, tile_columns) catch unreachable,
        };
    }
    fn tasks(grid: Grid) usize {
        return grid.rows_of_tiles * grid.columns_of_tiles;
    }
    fn rowRange(grid: Grid, index: usize, m: usize) Range {
        const start = index % grid.rows_of_tiles * grid.tile_rows;
        return .{ .start = start, .end = @min(start + grid.tile_rows, m) };
    }
    fn columnRange(grid: Grid, index: usize, n: usize) Range {
        const start = index / grid.rows_of_tiles * grid.tile_columns;
        return .{ .start = start, .end = @min(start + grid.tile_columns, n) };
    }
};

fn roundUp(value: usize, step: usize) usize {
    return (std.math.divCeil(usize, value, step) catch unreachable) * step;
}

fn tileOf(comptime E: type, comptime Y: type, comptime a_layout: Layout, comptime b_layout: Layout, product: *const Product(E, Y), rows: Grid.Range, columns: Grid.Range, scratch: *Scratch) void {
    const one_step = product.k <= depth;
    const a: Operand(E, a_layout) = .{ .values = product.a, .stride = product.a_stride, .lines = product.m };
    const b: Operand(E, b_layout) = .{ .values = product.b, .stride = product.b_stride, .lines = product.n };
    var k_start: usize = 0;
    while (true) {
        const k_count = @min(depth, product.k - k_start);
        const last = k_start + k_count == product.k;
        b.packPanels(tile.columns, &scratch.b, columns.start, columns.end, k_start, k_count);

        var sums: [*]f32 = &scratch.sums;
        var row = rows.start;
        while (row < rows.end) : (row += tile.rows_max) {
            const row_count = @min(tile.rows_max, rows.end - row);
            a.packPanel(panel_rows, &scratch.a, row, row_count, k_start, k_count);
            var b_panel: [*]const f32 = &scratch.b;
            var column = columns.start;
            while (column < columns.end) : (column += tile.columns) {
                const column_count = @min(tile.columns, columns.end - column);
                tile.block(.{ .row = 1, .k = panel_rows }, row_count, column_count, k_count, &scratch.a, b_panel, tile.columns, sums, tile.columns, if (k_start == 0) .set else .add);
                if (last) finish(E, Y, product, sums, row, row_count, column, column_count);
                if (!one_step) sums += block_values;
                b_panel += depth * tile.columns;
            }
        }
        k_start += k_count;
        if (last) return;
    }
}

/// Y = rounded (sums + bias + residual), for one block.
fn finish(comptime E: type, comptime Y: type, product: *const Product(E, Y), sums: [*]const f32, row: usize, row_count: usize, column: usize, column_count: usize) void {
    for (0..row_count) |i| {
        const at = (row + i) * product.n + column;
        var j: usize = 0;
        while (j < column_count) : (j += vector.lanes) {
            const count = vector.left(j, column_count);
            var value = vector.load(f32, sums + i * tile.columns + j);
            if (product.bias) |bias| value += vector.loadSome(E, bias + column + j, count);
            if (product.residual) |residual| value += vector.loadSome(Y, residual + at + j, count);
            vector.storeSome(Y, product.y + at + j, value, count);
        }
    }
}

/// One operand while it is packed: `lines` rows of A or columns of B.
fn Operand(comptime E: type, comptime layout: Layout) type {
    return struct {
        values: [*]const E,
        stride: usize,
        lines: usize,

        const Self = @This();

        /// Packs lines start..end into panels of `width` lines, `depth` · width values apart.
        fn packPanels(from: Self, comptime width: usize, to: [*]f32, start: usize, end: usize, k_start: usize, k_count: usize) void {
            var line = start;
            var panel = to;
            while (line < end) : (line += width) {
                from.packPanel(width, panel, line, @min(width, end - line), k_start, k_count);
                panel += depth * width;
            }
        }

        /// One panel: `count` lines side by side, k by k, `width` values per k. What lies beyond `count` does not matter.
        fn packPanel(from: Self, comptime width: usize, to: [*]f32, line: usize, count: usize, k_start: usize, k_count: usize) void {
            var i: usize = 0;
            while (i < count) : (i += vector.lanes) {
                switch (layout) {
                    .across_k => from.packRows(width, to + i, line + i, k_start, k_count),
                    .along_k => from.packTransposed(width, to + i, line + i, k_start, k_count),
                }
            }
        }

        fn packRows(from: Self, comptime width: usize, to: [*]f32, line: usize, k_start: usize, k_count: usize) void {
            const readable = vector.left(line, from.lines);
            var source = from.values + k_start * from.stride + line;
            for (0..k_count) |k| {
                vector.store(f32, to + k * width, vector.loadSome(E, source, readable));
                source += from.stride;
            }
        }

        fn packTransposed(from: Self, comptime width: usize, to: [*]f32, line: usize, k_start: usize, k_count: usize) void {
            const readable = vector.left(line, from.lines);
            var rows: [vector.lanes]F = undefined;
            var k: usize = 0;
            while (k < k_count) : (k += vector.lanes) {
                const k_left = vector.left(k, k_count);
                for (&rows, 0..) |*row, i| {
                    // Past the last line, the last one again: any value will do.
                    row.* = vector.loadSome(E, from.values + (line + @min(i, readable - 1)) * from.stride + k_start + k, k_left);
                }
                vector.transpose(&rows);
                if (k_left == vector.lanes) {
                    inline for (0..vector.lanes) |i| vector.store(f32, to + (k + i) * width, rows[i]);
                } else for (0..k_left) |i| vector.store(f32, to + (k + i) * width, rows[i]);
            }
        }
    };
}
