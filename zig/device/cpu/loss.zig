//! Cross-entropy over rows of logits with the gradient in place (HF ForCausalLMLoss; label −100 is ignored), and the sum of
//! the losses. Rows are summed in float64 from short float32 runs.

const std = @import("std");
const abi = @import("../../abi.zig");
const vector = @import("vector.zig");
const Run = @import("run.zig").Run;
const rowGrain = @import("run.zig").rowGrain;

const ignored = -100;

/// loss = log-sum-exp(logits) − logits[target]; with `gradient` the logits become (softmax − onehot) · scale.
pub fn crossEntropy(comptime E: type, op: *const abi.ops.cross_entropy, run: Run) !void {
    const targets = op.targets.as(i32)[0..op.rows];
    for (targets, 0..) |target, row| {
        if (target == ignored or (target >= 0 and target < op.vocabulary)) continue;
        return run.fail("label {} in row {} is outside the vocabulary of {} (and not {})", .{ target, row, op.vocabulary, ignored });
    }
    run.forRanges(op.rows, rowGrain(2 * op.vocabulary), op, struct {
        fn range(o: *const abi.ops.cross_entropy, start: usize, end: usize) void {
            const vocabulary: usize = o.vocabulary;
            for (start..end) |row| {
                const logits = o.logits.as(E)[row * vocabulary ..][0..vocabulary];
                const target = o.targets.as(i32)[row];
                if (target == ignored) {
                    o.loss.as(f32)[row] = 0;
                    if (o.gradient != 0) @memset(logits, 0);
                    continue;
                }
                const largest = maxOfRow(E, logits);
                const sum = sumOfRow(E, logits, largest);
                const at_target = vector.toFloat(E, logits[@intCast(target)]);
                o.loss.as(f32)[row] = @floatCast(@log(sum) + (@as(f64, largest) - at_target));
                if (o.gradient != 0) gradientOfRow(E, logits, @intCast(target), largest, sum, o.scale);
            }
        }
    }.range);
}

fn maxOfRow(comptime E: type, logits: []const E) f32 {
    var largest = vector.splat(-std.math.inf(f32));
    var i: usize = 0;
    while (i < logits.len) : (i += vector.lanes) {
        largest = @max(largest, vector.loadSomeOr(E, logits.ptr + i, vector.left(i, logits.len), -std.math.inf(f32)));
    }
    return vector.max(largest);
}

/// Σ exp(logit − largest).
fn sumOfRow(comptime E: type, logits: []const E, largest: f32) f64 {
    const run_length = 32 * vector.lanes;
    var total: vector.Double = @splat(0);
    var start: usize = 0;
    while (start < logits.len) : (start += run_length) {
        var sum = vector.splat(0);
        const end = @min(start + run_length, logits.len);
        var i = start;
        while (i < end) : (i += vector.lanes) {
            sum += vector.exp(vector.loadSomeOr(E, logits.ptr + i, vector.left(i, end), -std.math.inf(f32)) - vector.splat(largest));
        }
        total += vector.double(sum);
    }
    return vector.sum(total);
}

fn gradientOfRow(comptime E: type, logits: []E, target: usize, largest: f32, sum: f64, scale: f32) void {
    const factor = vector.splat(@floatCast(scale / sum));
    const at_target = vector.exp(vector.splat(vector.toFloat(E, logits[target]) - largest))[0];
    var i: usize = 0;
    while (i < logits.len) : (i += vector.lanes) {
        const count = vector.left(i, logits.len);
        const shifted = vector.loadSome(E, logits.ptr + i, count) - vector.splat(largest);
        vector.storeSome(E, logits.ptr + i, vector.exp(shifted) * factor, count);
    }
    logits[target] = vector.fromFloat(E, @floatCast((at_target / sum - 1) * scale));
}

/// total (2 float64) = sum of the losses in order, and the count of non-finite ones.
pub fn lossSum(op: *const abi.ops.loss_sum, run: Run) !void {
    var total: f64 = 0;
    var broken: f64 = 0;
    var first: usize = 0;
    const losses: []const f32 = if (op.count == 0) &.{} else op.losses.as(f32)[0..op.count];
    for (losses, 0..) |loss, position| {
        total += loss;
        if (std.math.isFinite(loss)) continue;
        if (broken == 0) first = position;
        broken += 1;
    }
    op.total.as(f64)[0] = total;
    op.total.as(f64)[1] = broken;
    if (op.check == 0 or broken == 0) return;
    return run.fail("the loss is {} at token {} ({} of {} losses are not finite)", .{ losses[first], first, broken, op.count });
}

const testing = std.testing;
const harness = @import("harness.zig");

test "cross-entropy and its gradient against float64, ignored labels, odd vocabulary" {
    inline for (.{ abi.Dtype.float32, abi.Dtype.bfloat16 }) |dtype| for ([_]usize{ 5, 701, 2048 }) |vocabulary| {
        const E = vector.Element(dtype);
        var h = try harness.Harness.init(2);
        defer h.deinit();
        const rows = 67;
        const logits = try h.random(E, rows * vocabulary, 4);
        const targets = try h.integers(rows, @intCast(vocabulary));
        targets[3] = ignored;
        const losses = try h.poisoned(f32, rows);
        const expected_loss = try h.zeros(rows);
        const expected = try h.zeros(rows * vocabulary);
        for (0..rows) |row| if (targets[row] != ignored) {
            const values = try h.doubles(E, logits[row * vocabulary ..][0..vocabulary]);
            const target: usize = @intCast(targets[row]);
            var sum: f64 = 0;
            for (values) |value| sum += @exp(value);
            expected_loss[row] = @log(sum) - values[target];
            for (values, 0..) |value, i| expected[row * vocabulary + i] = (@exp(value) / sum - @as(f64, if (i == target) 1 else 0)) * 0.125;
        };
        const untouched = try h.copyOf(logits);
        const op = abi.arguments(.cross_entropy, .{ .logits = h.range(logits), .loss = h.range(losses), .targets = h.range(targets), .rows = rows, .vocabulary = vocabulary, .scale = 0.125, .gradient = 0, .dtype = dtype });
        try h.run(.cross_entropy, op);
        try testing.expectEqualSlices(E, untouched, logits);
        try harness.expectClose(f32, expected_loss, losses, 3e-7);
        var with_gradient = op;
        with_gradient.gradient = 1;
        try h.run(.cross_entropy, with_gradient);
        try harness.expectClose(E, expected, logits, harness.tolerance(E));

        var total = [2]f64{ std.math.nan(f64), std.math.nan(f64) };
        var sum: f64 = 0;
        for (losses) |loss| sum += loss;
        try h.run(.loss_sum, .{ .total = h.range(&total), .losses = h.range(losses), .count = rows, .check = 1 });
        try testing.expectEqual([2]f64{ sum, 0 }, total);

        targets[5] = @intCast(vocabulary);
        try testing.expectEqual(1, try h.status(.cross_entropy, op));
    };
}

test "a NaN logit makes a NaN loss, and loss_sum says where" {
    var h = try harness.Harness.init(1);
    defer h.deinit();
    const logits = try h.random(f32, 3 * 33, 1);
    logits[33 + 7] = std.math.nan(f32);
    var targets = [_]i32{ 1, 2, 3 };
    const losses = try h.poisoned(f32, 3);
    var total: [2]f64 = undefined;
    try h.run(.cross_entropy, .{ .logits = h.range(logits), .loss = h.range(losses), .targets = h.range(&targets), .rows = 3, .vocabulary = 33, .scale = 1, .gradient = 1, .dtype = .float32 });
    try h.run(.loss_sum, .{ .total = h.range(&total), .losses = h.range(losses), .count = 3, .check = 0 });
    try testing.expectEqual(1, total[1]);
    try testing.expectEqual(1, try h.status(.loss_sum, .{ .total = h.range(&total), .losses = h.range(losses), .count = 3, .check = 1 }));
    try testing.expectEqualStrings("the loss is nan at token 1 (1 of 3 losses are not finite)", h.text());
    try h.run(.loss_sum, .{ .total = h.range(&total), .losses = abi.Bytes.none, .count = 0, .check = 1 });
    try testing.expectEqual([2]f64{ 0, 0 }, total);
}
