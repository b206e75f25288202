//! RMSNorm (HF LlamaRMSNorm; with an offset of 1 Gemma3RMSNorm), with an addition before it, after it, or none.
//!
//! Row sums run in float32 lanes and are finished in float64. The weight's gradient is a sum over rows: rows are cut into
//! fixed chunks, each chunk has its own partial sum, and the partials are added in order.

const std = @import("std");
const abi = @import("../../abi.zig");
const vector = @import("vector.zig");
const Run = @import("run.zig").Run;
const rowGrain = @import("run.zig").rowGrain;
const F = vector.F;

/// y = x / sqrt(mean(x²) + epsilon) * (weight + offset) (+ residual).
pub fn rmsnormForward(comptime E: type, op: *const abi.ops.rmsnorm_forward, run: Run) !void {
    run.forRanges(op.rows, rowGrain(op.width), op, struct {
        fn range(o: *const abi.ops.rmsnorm_forward, start: usize, end: usize) void {
            const width = o.width;
            for (start..end) |row| {
                const x = o.x.as(E) + row * width;
                const inverse = inverseOfRow(E, x, width, o.epsilon);
                o.inverse.as(f32)[row] = inverse;
                const residual: ?[*]const E = if (o.residual.present()) o.residual.as(E) + row * width else null;
                scaleRow(E, o.y.as(E) + row * width, x, o.weight.as(E), o.offset, inverse, residual, width);
            }
        }
    }.range);
}

/// sum = x + delta, then RMSNorm of the stored sum.
pub fn addRmsnormForward(comptime E: type, op: *const abi.ops.add_rmsnorm_forward, run: Run) !void {
    run.forRanges(op.rows, rowGrain(op.width), op, struct {
        fn range(o: *const abi.ops.add_rmsnorm_forward, start: usize, end: usize) void {
            const width = o.width;
            for (start..end) |row| {
                const sum = o.sum.as(E) + row * width;
                addRow(E, sum, o.x.as(E) + row * width, o.delta.as(E) + row * width, width);
                const inverse = inverseOfRow(E, sum, width, o.epsilon);
                o.inverse.as(f32)[row] = inverse;
                scaleRow(E, o.y.as(E) + row * width, sum, o.weight.as(E), 0, inverse, null, width);
            }
        }
    }.range);
}

fn addRow(comptime E: type, sum: [*]E, x: [*]const E, delta: [*]const E, width: usize) void {
    var i: usize = 0;
    while (i < width) : (i += vector.lanes) {
        const count = vector.left(i, width);
        vector.storeSome(E, sum + i, vector.loadSome(E, x + i, count) + vector.loadSome(E, delta + i, count), count);
    }
}

/// 1 / sqrt(mean(x²) + epsilon).
pub fn inverseOfRow(comptime E: type, x: [*]const E, width: usize, epsilon: f32) f32 {
    var squares = vector.splat(0);
    var i: usize = 0;
    while (i < width) : (i += vector.lanes) {
        const value = vector.loadSome(E, x + i, vector.left(i, width));
        squares = @mulAdd(F, value, value, squares);
    }
    const mean = vector.sum(vector.double(squares)) / @as(f64, @floatFromInt(width));
    return @floatCast(1 / @sqrt(mean + epsilon));
}

fn scaleRow(comptime E: type, y: [*]E, x: [*]const E, weight: [*]const E, offset: f32, inverse: f32, residual: ?[*]const E, width: usize) void {
    var i: usize = 0;
    while (i < width) : (i += vector.lanes) {
        const count = vector.left(i, width);
        const normed = vector.loadSome(E, x + i, count) * vector.splat(inverse);
        var value = normed * (vector.loadSome(E, weight + i, count) + vector.splat(offset));
        if (residual) |before| value += vector.loadSome(E, before + i, count);
        vector.storeSome(E, y + i, value, count);
    }
}

/// dx = (accumulate_dx ? dx : 0) + gradient; d_weight = (accumulate ? d_weight : 0) + Σ rows dy · x · inverse.
pub fn rmsnormBackward(comptime E: type, op: *const abi.ops.rmsnorm_backward, run: Run) !void {
    const partials = try Partials.of(run, op.rows, op.width);
    const Job = struct { op: *const abi.ops.rmsnorm_backward, partials: Partials };
    const job: Job = .{ .op = op, .partials = partials };
    run.forEach(partials.chunks, &job, struct {
        fn chunk(j: *const Job, index: usize, _: u32) void {
            const o = j.op;
            const width = o.width;
            const d_weight = j.partials.start(index);
            const first, const end = j.partials.rowsOf(index);
            for (first..end) |row| {
                const at = row * width;
                const inverse = o.inverse.as(f32)[row];
                backwardRow(E, o.dx.as(E) + at, d_weight, o.dy.as(E) + at, o.x.as(E) + at, o.weight.as(E), o.offset, inverse, width, o.accumulate_dx != 0);
            }
        }
    }.chunk);
    partials.addTo(op.d_weight.as(f32)[0..op.width], op.accumulate != 0);
}

/// One row's gradient, which may take the place of x; adds the row's share to d_weight.
fn backwardRow(comptime E: type, dx: [*]E, d_weight: [*]f32, dy: [*]const E, x: [*]const E, weight: [*]const E, offset: f32, inverse: f32, width: usize, add: bool) void {
    var products = vector.splat(0);
    var i: usize = 0;
    while (i < width) : (i += vector.lanes) {
        const count = vector.left(i, width);
        const normed = vector.loadSome(E, x + i, count) * vector.splat(inverse);
        const d = vector.loadSome(E, dy + i, count);
        products = @mulAdd(F, d * (vector.loadSome(E, weight + i, count) + vector.splat(offset)), normed, products);
        vector.storeSome(f32, d_weight + i, @mulAdd(F, d, normed, vector.loadSome(f32, d_weight + i, count)), count);
    }
    const mean: f32 = @floatCast(vector.sum(vector.double(products)) / @as(f64, @floatFromInt(width)));
    i = 0;
    while (i < width) : (i += vector.lanes) {
        const count = vector.left(i, width);
        const normed = vector.loadSome(E, x + i, count) * vector.splat(inverse);
        const weighted = vector.loadSome(E, dy + i, count) * (vector.loadSome(E, weight + i, count) + vector.splat(offset));
        var gradient = vector.splat(inverse) * (weighted - normed * vector.splat(mean));
        if (add) gradient += vector.loadSome(E, dx + i, count);
        vector.storeSome(E, dx + i, gradient, count);
    }
}

/// Partial sums over chunks of rows, `width` float32 each, in worker 0's scratch. The chunks depend on the shape only.
pub const Partials = struct {
    memory: [*]f32,
    width: usize,
    rows: usize,
    chunks: usize,
    rows_per_chunk: usize,

    const chunks_max = 64;
    const rows_min = 16;

    pub fn of(run: Run, rows: usize, width: usize) !Partials {
        const memory = run.scratch(f32, 0);
        if (width > memory.len) return run.fail("rows of {} values cannot be summed, the limit is {}", .{ width, memory.len });
        const fitting = @min(chunks_max, memory.len / width);
        const rows_per_chunk = @max(rows_min, std.math.divCeil(usize, rows, fitting) catch unreachable);
        const chunks = std.math.divCeil(usize, rows, rows_per_chunk) catch unreachable;
        @memset(memory[0 .. chunks * width], 0);
        return .{ .memory = memory.ptr, .width = width, .rows = rows, .chunks = chunks, .rows_per_chunk = rows_per_chunk };
    }

    pub fn start(partials: Partials, chunk: usize) [*]f32 {
        return partials.memory + chunk * partials.width;
    }

    pub fn rowsOf(partials: Partials, chunk: usize) struct { usize, usize } {
        const first = chunk * partials.rows_per_chunk;
        return .{ first, @min(first + partials.rows_per_chunk, partials.rows) };
    }

    /// to = (accumulate ? to : 0) + the partials from column `to`'s place on, first chunk to last.
    pub fn addTo(partials: Partials, to: []f32, accumulate: bool) void {
        partials.addColumnsTo(to, 0, accumulate);
    }
    pub fn addColumnsTo(partials: Partials, to: []f32, column: usize, accumulate: bool) void {
        for (to, column..) |*value, i| {
            var sum: f32 = 0;
            for (0..partials.chunks) |chunk| sum += partials.start(chunk)[i];
            value.* = if (accumulate) value.* + sum else sum;
        }
    }
};

const testing = std.testing;
const harness = @import("harness.zig");

test "rmsnorm forward and backward against float64, odd widths, any number of workers" {
    for ([_]usize{ 1, 40, 129, 512 }) |width| inline for (.{ abi.Dtype.float32, abi.Dtype.bfloat16 }) |dtype| {
        try checkNorm(dtype, width, 1, true);
        try checkNorm(dtype, width, 300, true);
        try checkNorm(dtype, width, 300, false);
    };
}

fn checkNorm(comptime dtype: abi.Dtype, width: usize, rows: usize, with_sum: bool) !void {
    const E = vector.Element(dtype);
    var first: []const f32 = &.{};
    for ([_]u32{ 1, 2 }) |count| {
        var h = try harness.Harness.init(count);
        defer h.deinit();
        const x = try h.random(E, rows * width, 1);
        const delta = try h.random(E, rows * width, 1);
        const weight = try h.random(E, width, 1);
        const dy = try h.random(E, rows * width, 1);
        const dx = try h.random(E, rows * width, 1);
        const y = try h.poisoned(E, rows * width);
        const total = try h.poisoned(E, rows * width);
        const inverse = try h.poisoned(f32, rows);
        const d_weight = try h.random(f32, width, 1);
        const rows32: u32 = @intCast(rows);
        const width32: u32 = @intCast(width);

        if (with_sum) {
            try h.run(.add_rmsnorm_forward, .{ .sum = h.range(total), .y = h.range(y), .inverse = h.range(inverse), .x = h.range(x), .delta = h.range(delta), .weight = h.range(weight), .rows = rows32, .width = width32, .epsilon = 1e-5, .dtype = dtype });
            for (x, delta, total) |a, b, c| try testing.expectEqual(vector.fromFloat(E, vector.toFloat(E, a) + vector.toFloat(E, b)), c);
        } else {
            @memcpy(total, x);
            try h.run(.rmsnorm_forward, .{ .y = h.range(y), .inverse = h.range(inverse), .x = h.range(x), .weight = h.range(weight), .rows = rows32, .width = width32, .epsilon = 1e-5, .dtype = dtype });
        }
        const expected_y = try h.zeros(rows * width);
        const expected_dx = try h.doubles(E, dx);
        const expected_dw = try h.doubles(f32, d_weight);
        for (0..rows) |row| {
            const xs = try h.doubles(E, total[row * width ..][0..width]);
            const ds = try h.doubles(E, dy[row * width ..][0..width]);
            const ws = try h.doubles(E, weight);
            var squares: f64 = 0;
            for (xs) |value| squares += value * value;
            const scale = 1 / @sqrt(squares / @as(f64, @floatFromInt(width)) + 1e-5);
            var products: f64 = 0;
            for (xs, ds, ws) |a, d, w| products += a * scale * d * w;
            for (xs, ds, ws, 0..) |a, d, w, i| {
                expected_y[row * width + i] = a * scale * w;
                expected_dx[row * width + i] += scale * (d * w - a * scale * products / @as(f64, @floatFromInt(width)));
                expected_dw[i] += d * a * scale;
            }
        }
        try harness.expectClose(E, expected_y, y, harness.tolerance(E));
        try h.run(.rmsnorm_backward, .{ .dx = h.range(dx), .d_weight = h.range(d_weight), .dy = h.range(dy), .x = h.range(total), .inverse = h.range(inverse), .weight = h.range(weight), .rows = rows32, .width = width32, .accumulate_dx = 1, .accumulate = 1, .dtype = dtype });
        try harness.expectClose(E, expected_dx, dx, harness.tolerance(E));
        try harness.expectClose(f32, expected_dw, d_weight, 1e-6);
        if (count == 1) first = try testing.allocator.dupe(f32, d_weight) else {
            defer testing.allocator.free(first);
            try testing.expectEqualSlices(f32, first, d_weight);
        }
    }
}
