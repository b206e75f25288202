//! The global gradient norm: sums of squares with a count of non-finite values, and the clipping factor made of them
//! (torch.nn.utils.clip_grad_norm_). All sums are float64: partial sums over fixed chunks, added in order.

const std = @import("std");
const abi = @import("../../abi.zig");
const vector = @import("vector.zig");
const lowerBound = @import("embedding.zig").lowerBound;
const Run = @import("run.zig").Run;

/// A sum of squares and how many values were not finite.
const Sum = extern struct {
    squares: f64 = 0,
    broken: f64 = 0,

    fn add(sum: *Sum, other: Sum) void {
        sum.squares += other.squares;
        sum.broken += other.broken;
    }
};

const chunks_max = 32 << 10; // their sums are 512 KiB of worker 0's scratch

/// sum (2 float64) = Σ x², count of non-finite values.
pub fn squaredNorm(comptime E: type, op: *const abi.ops.squared_norm, run: Run) !void {
    const Job = struct {
        op: *const abi.ops.squared_norm,
        partials: []Sum,
        grain: usize,

        fn chunk(j: *const @This(), index: usize, _: u32) void {
            const start = index * j.grain;
            const end = @min(start + j.grain, j.op.count);
            j.partials[index] = sumOf(E, j.op.x.as(E)[start..end]);
        }
    };
    const grain = chunkSize(op.count, 64 << 10);
    const job: Job = .{ .op = op, .partials = partialsOf(run, op.count, grain), .grain = grain };
    run.forEach(job.partials.len, &job, Job.chunk);
    finish(op.sum.as(Sum), job.partials);
}

/// The same over the rows of x (V, C) that are not in `tokens`.
pub fn squaredNormOtherRows(comptime E: type, op: *const abi.ops.squared_norm_other_rows, run: Run) !void {
    try run.checkRows("squared_norm_other_rows.tokens", op.tokens.as(i32)[0..op.distinct], op.vocabulary, .increasing);
    const Job = struct {
        op: *const abi.ops.squared_norm_other_rows,
        partials: []Sum,
        grain: usize,

        fn chunk(j: *const @This(), index: usize, _: u32) void {
            const o = j.op;
            const width: usize = o.width;
            var gaps: Gaps = .of(o.tokens.as(i32)[0..o.distinct], index * j.grain, @min((index + 1) * j.grain, o.vocabulary));
            var sum: Sum = .{};
            while (gaps.next()) |gap| sum.add(sumOf(E, o.x.as(E)[gap.start * width .. gap.end * width]));
            j.partials[index] = sum;
        }
    };
    const grain = chunkSize(op.vocabulary, @max(1, (64 << 10) / @max(1, op.width)));
    const job: Job = .{ .op = op, .partials = partialsOf(run, op.vocabulary, grain), .grain = grain };
    run.forEach(job.partials.len, &job, Job.chunk);
    finish(op.sum.as(Sum), job.partials);
}

fn chunkSize(count: usize, wanted: usize) usize {
    return @max(wanted, std.math.divCeil(usize, count, chunks_max) catch unreachable);
}

fn partialsOf(run: Run, count: usize, grain: usize) []Sum {
    return run.scratch(Sum, 0)[0 .. std.math.divCeil(usize, count, grain) catch unreachable];
}

fn finish(to: [*]Sum, partials: []const Sum) void {
    var sum: Sum = .{};
    for (partials) |partial| sum.add(partial);
    to[0] = sum;
}

fn sumOf(comptime E: type, x: []const E) Sum {
    const infinity: vector.U = @splat(0x7f800000);
    var squares: vector.Double = @splat(0);
    var broken: vector.U = @splat(0);
    var i: usize = 0;
    while (i < x.len) : (i += vector.lanes) {
        const value = vector.loadSome(E, x.ptr + i, vector.left(i, x.len));
        const magnitude = @as(vector.U, @bitCast(value)) & @as(vector.U, @splat(0x7fffffff));
        broken += @select(u32, magnitude >= infinity, @as(vector.U, @splat(1)), @as(vector.U, @splat(0)));
        const wide = vector.double(value);
        squares = @mulAdd(vector.Double, wide, wide, squares);
    }
    return .{ .squares = vector.sum(squares), .broken = @floatFromInt(vector.sum(broken)) };
}

/// The runs of rows in start..end that an increasing list of tokens leaves out.
pub const Gaps = struct {
    tokens: []const i32,
    at: usize,
    row: usize,
    end: usize,

    pub const Gap = struct { start: usize, end: usize };

    pub fn of(tokens: []const i32, start: usize, end: usize) Gaps {
        return .{ .tokens = tokens, .at = lowerBound(tokens, start), .row = start, .end = end };
    }

    pub fn next(gaps: *Gaps) ?Gap {
        while (gaps.row < gaps.end) {
            const start = gaps.row;
            const stop = if (gaps.at < gaps.tokens.len) @min(gaps.end, @as(usize, @intCast(gaps.tokens[gaps.at]))) else gaps.end;
            gaps.row = stop + 1;
            gaps.at += 1;
            if (stop > start) return .{ .start = start, .end = stop };
        }
        return null;
    }
};

/// factor = min(1, max_norm / (norm + 1e-6)) and the norm, from `parts` sums added in order. Where gradients accumulate, a block
/// that slides is measured by the host and a resident one by the GPU, which add in another order: the last bits of a part
/// say which, so they are rounded away.
pub fn clipFactor(op: *const abi.ops.clip_factor, run: Run) !void {
    var sum: Sum = .{};
    for (0..op.parts) |part| {
        const measured = @as(*const Sum, @ptrCast(@alignCast(op.sums.as(u8) + part * 64))).*;
        sum.add(.{ .squares = rounded(measured.squares), .broken = measured.broken });
    }
    const norm = @sqrt(sum.squares);
    const factor = op.factor.as(f64);
    factor[0] = if (op.max_norm == 0) 1 else @min(1, op.max_norm / (norm + 1e-6));
    factor[1] = norm;
    if (sum.broken == 0 and std.math.isFinite(norm)) return;
    return run.fail("the gradient norm is {}: {} gradient values are not finite", .{ norm, sum.broken });
}

/// To 24 significant bits, as a float32 has, with the range of a float64: two sums of the same terms agree but for one in 10^8.
fn rounded(value: f64) f64 {
    if (!std.math.isFinite(value)) return value;
    const bits: u64 = @bitCast(value);
    return @bitCast((bits + (1 << 28)) & ~@as(u64, (1 << 29) - 1));
}

const testing = std.testing;
const harness = @import("harness.zig");

test "squared norms over all rows and over the others, non-finite counts, workers do not matter" {
    inline for (.{ abi.Dtype.float32, abi.Dtype.bfloat16 }) |dtype| {
        const E = vector.Element(dtype);
        var results: [2][4]f64 = undefined;
        for ([_]u32{ 1, 2 }, &results) |workers, *result| {
            var h = try harness.Harness.init(workers);
            defer h.deinit();
            const vocabulary, const width = .{ 1701, 131 };
            const x = try h.random(E, vocabulary * width, 1);
            const tokens = [_]i32{ 0, 1, 5, 700, 1700 };
            var sum: [2]f64 = undefined;
            var others: [2]f64 = undefined;
            try h.run(.squared_norm, .{ .sum = h.range(&sum), .x = h.range(x), .count = x.len, .dtype = dtype });
            try h.run(.squared_norm_other_rows, .{ .sum = h.range(&others), .x = h.range(x), .tokens = h.range(&tokens), .distinct = tokens.len, .vocabulary = vocabulary, .width = width, .dtype = dtype });
            result.* = sum ++ others;
            var all: f64 = 0;
            var left: f64 = 0;
            for (x, 0..) |value, i| {
                const square = @as(f64, vector.toFloat(E, value)) * vector.toFloat(E, value);
                all += square;
                if (std.mem.indexOfScalar(i32, &tokens, @intCast(i / width)) == null) left += square;
            }
            try testing.expectApproxEqRel(all, sum[0], 1e-12);
            try testing.expectApproxEqRel(left, others[0], 1e-12);
            x[5] = vector.fromFloat(E, std.math.inf(f32));
            x[x.len - 1] = vector.fromFloat(E, std.math.nan(f32));
            try h.run(.squared_norm, .{ .sum = h.range(&sum), .x = h.range(x), .count = x.len, .dtype = dtype });
            try testing.expectEqual(2, sum[1]);
        }
        try testing.expectEqual(results[0], results[1]);
    }
}

test "clip_factor scales down only, and stops at a non-finite gradient" {
    var h = try harness.Harness.init(1);
    defer h.deinit();
    var factor: [2]f64 = undefined;
    var sums = [_]f64{ 9, 0 } ++ [_]f64{-1} ** 6 ++ [_]f64{ 16, 0 } ++ [_]f64{-1} ** 6; // a pair every 64 bytes
    try h.run(.clip_factor, .{ .factor = h.range(&factor), .sums = h.range(&sums), .parts = 2, .max_norm = 1 });
    try testing.expectEqual([2]f64{ 1.0 / (5.0 + 1e-6), 5 }, factor);
    try h.run(.clip_factor, .{ .factor = h.range(&factor), .sums = h.range(&sums), .parts = 2, .max_norm = 100 });
    try testing.expectEqual([2]f64{ 1, 5 }, factor);
    try h.run(.clip_factor, .{ .factor = h.range(&factor), .sums = h.range(&sums), .parts = 2, .max_norm = 0 });
    try testing.expectEqual([2]f64{ 1, 5 }, factor);
    sums[9] = 2;
    try testing.expectEqual(1, try h.status(.clip_factor, .{ .factor = h.range(&factor), .sums = h.range(&sums), .parts = 2, .max_norm = 1 }));
    try testing.expectEqualStrings("the gradient norm is 5: 2 gradient values are not finite", h.text());
}
