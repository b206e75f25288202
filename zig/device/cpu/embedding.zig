//! Rows by index: the embedding's gather and scatter on the host, and the rows whose labels count for the head.

const std = @import("std");
const abi = @import("../../abi.zig");
const vector = @import("vector.zig");
const split_master = @import("split_master.zig");
const Run = @import("run.zig").Run;
const rowGrain = @import("run.zig").rowGrain;

/// rows (T, C) = the embedding's rows of `tokens`, scaled; float32 rows are joined from `hi` and `lo`, bfloat16 rows are `hi`.
pub fn embeddingGather(comptime E: type, op: *const abi.ops.embedding_gather, run: Run) !void {
    for (op.tokens.as(i32)[0..op.token_count], 0..) |token, position| {
        if (token >= 0 and token < op.vocabulary) continue;
        return run.fail("token {} at position {} is outside the vocabulary of {}", .{ token, position, op.vocabulary });
    }
    run.forRanges(op.token_count, rowGrain(op.width), op, struct {
        fn range(o: *const abi.ops.embedding_gather, start: usize, end: usize) void {
            const width = o.width;
            for (start..end) |row| {
                const from = @as(usize, @intCast(o.tokens.as(i32)[row])) * width;
                const to = o.rows.as(E) + row * width;
                if (E == f32) {
                    split_master.joinRow(to, o.hi.as(u16) + from, o.lo.as(i16) + from, width);
                } else {
                    @memcpy(to[0..width], o.hi.as(u16)[from..][0..width]);
                }
                if (o.scale != 1) scaleRow(E, to, o.scale, width);
            }
        }
    }.range);
}

fn scaleRow(comptime E: type, row: [*]E, scale: f32, width: usize) void {
    var i: usize = 0;
    while (i < width) : (i += vector.lanes) {
        const count = vector.left(i, width);
        vector.storeSome(E, row + i, vector.loadSome(E, row + i, count) * vector.splat(scale), count);
    }
}

/// gradient (U, C) += for each distinct token the scaled sum of d_rows over its positions, first to last.
pub fn embeddingScatter(comptime E: type, op: *const abi.ops.embedding_scatter, run: Run) !void {
    const positions = op.order.bytes / 4;
    try run.checkRows("embedding_scatter.starts", op.starts.as(i32)[0 .. op.distinct + 1], positions + 1, .any);
    for (op.starts.as(i32)[0..op.distinct], op.starts.as(i32)[1..], 0..) |start, end, token| {
        if (start > end) return run.fail("embedding_scatter: token {} ends at {}, before its start at {}", .{ token, end, start });
    }
    if (positions > 0) try run.checkRows("embedding_scatter.order", op.order.as(i32)[0..positions], op.d_rows.bytes / @sizeOf(E) / op.width, .any);
    run.forRanges(op.distinct, @max(1, rowGrain(op.width) / 4), op, struct {
        fn range(o: *const abi.ops.embedding_scatter, start: usize, end: usize) void {
            for (start..end) |row| sumRow(E, o, row);
        }
    }.range);
}
fn sumRow(comptime E: type, op: *const abi.ops.embedding_scatter, row: usize) void {
    const width = op.width;
    const first: usize = @intCast(op.starts.as(i32)[row]);
    const end: usize = @intCast(op.starts.as(i32)[row + 1]);
    const to = op.gradient.as(f32) + row * width;
    var i: usize = 0;
    while (i < width) : (i += vector.lanes) {
        const count = vector.left(i, width);
        var sum = if (op.accumulate != 0) vector.loadSome(f32, to + i, count) else vector.splat(0);
        for (if (first == end) &.{} else op.order.as(i32)[first..end]) |position| {
            sum += vector.loadSome(E, op.d_rows.as(E) + @as(usize, @intCast(position)) * width + i, count) * vector.splat(op.scale);
        }
        vector.storeSome(f32, to + i, sum, count);
    }
}

/// gradient (U, C) += rows `tokens` of the tied head's gradient.
pub fn embeddingAddTied(comptime E: type, op: *const abi.ops.embedding_add_tied, run: Run) !void {
    try run.checkRows("embedding_add_tied.tokens", op.tokens.as(i32)[0..op.distinct], op.head.bytes / @sizeOf(E) / op.width, .any);
    run.forRanges(op.distinct, rowGrain(op.width), op, struct {
        fn range(o: *const abi.ops.embedding_add_tied, start: usize, end: usize) void {
            const width = o.width;
            for (start..end) |row| {
                const to = o.gradient.as(f32) + row * width;
                const from = o.head.as(E) + @as(usize, @intCast(o.tokens.as(i32)[row])) * width;
                var i: usize = 0;
                while (i < width) : (i += vector.lanes) {
                    const count = vector.left(i, width);
                    vector.storeSome(f32, to + i, vector.loadSome(f32, to + i, count) + vector.loadSome(E, from + i, count), count);
                }
            }
        }
    }.range);
}

/// y (R, C) = rows `index` of x.
pub fn gatherRows(comptime E: type, op: *const abi.ops.gather_rows, run: Run) !void {
    try run.checkRows("gather_rows.index", op.index.as(i32)[0..op.rows], op.x.bytes / @sizeOf(E) / op.width, .any);
    run.forRanges(op.rows, rowGrain(op.width), op, struct {
        fn range(o: *const abi.ops.gather_rows, start: usize, end: usize) void {
            const width = o.width;
            for (start..end) |row| {
                const from = @as(usize, @intCast(o.index.as(i32)[row])) * width;
                @memcpy(o.y.as(E)[row * width ..][0..width], o.x.as(E)[from..][0..width]);
            }
        }
    }.range);
}

/// y (T, C) = zero, then rows `index` of y = x (R, C); the index is increasing, so each range of y finds its part by bisection.
pub fn scatterRows(comptime E: type, op: *const abi.ops.scatter_rows, run: Run) !void {
    if (op.rows > 0) try run.checkRows("scatter_rows.index", op.index.as(i32)[0..op.rows], op.total_rows, .increasing);
    run.forRanges(op.total_rows, rowGrain(op.width), op, struct {
        fn range(o: *const abi.ops.scatter_rows, start: usize, end: usize) void {
            const width = o.width;
            @memset(o.y.as(E)[start * width .. end * width], 0);
            if (o.rows == 0) return;
            const index = o.index.as(i32)[0..o.rows];
            const x = o.x.as(E);
            var row = lowerBound(index, start);
            while (row < index.len and index[row] < end) : (row += 1) {
                const to = @as(usize, @intCast(index[row])) * width;
                @memcpy(o.y.as(E)[to..][0..width], x[row * width ..][0..width]);
            }
        }
    }.range);
}

/// The first place in an increasing list whose value is at least `value`.
pub fn lowerBound(list: []const i32, value: usize) usize {
    var low: usize = 0;
    var high: usize = list.len;
    while (low < high) {
        const middle = (low + high) / 2;
        if (list[middle] < value) low = middle + 1 else high = middle;
    }
    return low;
}

const testing = std.testing;
const harness = @import("harness.zig");

test "gather joins or copies rows, and names a token outside the vocabulary" {
    var h = try harness.Harness.init(2);
    defer h.deinit();
    const vocabulary, const width, const count = .{ 701, 72, 1300 };
    const weights = try h.random(f32, vocabulary * width, 1);
    const hi = try h.poisoned(u16, weights.len);
    const lo = try h.poisoned(u16, weights.len);
    try h.run(.split_weights, .{ .hi = h.range(hi), .lo = h.range(lo), .from = h.range(weights), .count = weights.len, .dtype = .float32 });
    const tokens = try h.integers(count, vocabulary);
    const rows = try h.poisoned(f32, count * width);
    const half = try h.poisoned(u16, count * width);
    try h.run(.embedding_gather, .{ .rows = h.range(rows), .hi = h.range(hi), .lo = h.range(lo), .tokens = h.range(tokens), .token_count = count, .width = width, .vocabulary = vocabulary, .dtype = .float32 });
    try h.run(.embedding_gather, .{ .rows = h.range(half), .hi = h.range(hi), .lo = abi.Bytes.none, .tokens = h.range(tokens), .token_count = count, .width = width, .vocabulary = vocabulary, .dtype = .bfloat16 });
    for (tokens, 0..) |token, row| {
        const from = @as(usize, @intCast(token)) * width;
        try testing.expectEqualSlices(f32, weights[from..][0..width], rows[row * width ..][0..width]);
        try testing.expectEqualSlices(u16, hi[from..][0..width], half[row * width ..][0..width]);
    }
    tokens[7] = vocabulary;
    try testing.expectEqual(1, try h.status(.embedding_gather, .{ .rows = h.range(rows), .hi = h.range(hi), .lo = h.range(lo), .tokens = h.range(tokens), .token_count = count, .width = width, .vocabulary = vocabulary, .dtype = .float32 }));
    try testing.expectEqualStrings("token 701 at position 7 is outside the vocabulary of 701", h.text());
}

test "scatter sums equal tokens in order, add_tied adds the head's rows" {
    var h = try harness.Harness.init(2);
    defer h.deinit();
    const width, const count, const distinct = .{ 40, 9, 3 };
    const order = [_]i32{ 0, 4, 8, 1, 2, 3, 5, 6, 7 };
    const starts = [_]i32{ 0, 3, 4, 9 };
    const tokens = [_]i32{ 2, 5, 6 };
    inline for (.{ abi.Dtype.float32, abi.Dtype.bfloat16 }) |dtype| {
        const E = vector.Element(dtype);
        const d_rows = try h.random(E, count * width, 1);
        const head = try h.random(E, 7 * width, 1);
        const gradient = try h.random(f32, distinct * width, 1);
        const expected = try h.doubles(f32, gradient);
        for (0..distinct) |u| for (@intCast(starts[u])..@intCast(starts[u + 1])) |i| for (0..width) |column| {
            expected[u * width + column] += vector.toFloat(E, d_rows[@as(usize, @intCast(order[i])) * width + column]);
        };
        try h.run(.embedding_scatter, .{ .gradient = h.range(gradient), .d_rows = h.range(d_rows), .order = h.range(&order), .starts = h.range(&starts), .distinct = distinct, .width = width, .dtype = dtype, .accumulate = 1 });
        try harness.expectClose(f32, expected, gradient, 1e-6);
        for (0..distinct) |u| for (0..width) |column| {
            expected[u * width + column] += vector.toFloat(E, head[@as(usize, @intCast(tokens[u])) * width + column]);
        };
        try h.run(.embedding_add_tied, .{ .gradient = h.range(gradient), .head = h.range(head), .tokens = h.range(&tokens), .distinct = distinct, .width = width, .head_dtype = dtype });
        try harness.expectClose(f32, expected, gradient, 1e-6);
    }
}

test "scatter_rows undoes gather_rows and zeroes the rest" {
    var h = try harness.Harness.init(2);
    defer h.deinit();
    const width, const total = .{ 33, 5000 };
    const x = try h.random(f32, total * width, 1);
    var index: [total / 3]i32 = undefined;
    for (&index, 0..) |*row, i| row.* = @intCast(3 * i + 1);
    const y = try h.poisoned(f32, index.len * width);
    const back = try h.poisoned(f32, total * width);
    try h.run(.gather_rows, .{ .y = h.range(y), .x = h.range(x), .index = h.range(&index), .rows = index.len, .width = width, .dtype = .float32 });
    try h.run(.scatter_rows, .{ .y = h.range(back), .x = h.range(y), .index = h.range(&index), .rows = index.len, .total_rows = total, .width = width, .dtype = .float32 });
    for (0..total) |row| for (0..width) |column| {
        const kept = row % 3 == 1 and row / 3 < index.len;
        try testing.expectEqual(if (kept) x[row * width + column] else 0, back[row * width + column]);
    };
    try h.run(.scatter_rows, .{ .y = h.range(back), .x = abi.Bytes.none, .index = abi.Bytes.none, .rows = 0, .total_rows = total, .width = width, .dtype = .float32 });
    for (back) |value| try testing.expectEqual(0, value);
}
