//! The linear layer and its two gradients (torch.nn.Linear), three calls of one matrix product.

const std = @import("std");
const abi = @import("../../abi.zig");
const vector = @import("vector.zig");
const gemm = @import("gemm.zig");
const Run = @import("run.zig").Run;

/// y (T, O) = x (T, I) · weightᵀ + bias + residual.
pub fn linearForward(comptime E: type, op: *const abi.ops.linear_forward, run: Run) !void {
    gemm.multiply(E, E, .along_k, .along_k, .{
        .m = op.tokens,
        .n = op.outputs,
        .k = op.inputs,
        .a = op.x.as(E),
        .a_stride = op.inputs,
        .b = op.weight.as(E),
        .b_stride = op.inputs,
        .y = op.y.as(E),
        .bias = if (op.bias.present()) op.bias.as(E) else null,
        .residual = if (op.residual.present()) op.residual.as(E) else null,
    }, run);
}

/// dx (T, I) = dy (T, O) · weight.
pub fn linearBackwardInput(comptime E: type, op: *const abi.ops.linear_backward_input, run: Run) !void {
    gemm.multiply(E, E, .along_k, .across_k, .{
        .m = op.tokens,
        .n = op.inputs,
        .k = op.outputs,
        .a = op.dy.as(E),
        .a_stride = op.outputs,
        .b = op.weight.as(E),
        .b_stride = op.inputs,
        .y = op.dx.as(E),
    }, run);
}

/// d_weight (O, I) = (accumulate ? d_weight : 0) + dyᵀ · x; d_bias (O) likewise the column sums of dy.
pub fn linearBackwardWeight(comptime E: type, op: *const abi.ops.linear_backward_weight, run: Run) !void {
    switch (op.gradient_dtype) {
        .float32 => weightProduct(E, f32, op, run),
        else => |dtype| {
            if (dtype != op.dtype) return run.fail("linear_backward_weight: gradient_dtype must be float32 or dtype", .{});
            weightProduct(E, E, op, run);
        },
    }
    if (!op.d_bias.present()) return;
    run.forRanges(op.outputs, 4 * vector.lanes, op, struct {
        fn range(o: *const abi.ops.linear_backward_weight, start: usize, end: usize) void {
            var column = start;
            while (column < end) : (column += vector.lanes) sumColumns(E, o, column, vector.left(column, end));
        }
    }.range);
}

fn weightProduct(comptime E: type, comptime G: type, op: *const abi.ops.linear_backward_weight, run: Run) void {
    const d_weight = op.d_weight.as(G);
    gemm.multiply(E, G, .across_k, .across_k, .{
        .m = op.outputs,
        .n = op.inputs,
        .k = op.tokens,
        .a = op.dy.as(E),
        .a_stride = op.outputs,
        .b = op.x.as(E),
        .b_stride = op.inputs,
        .y = d_weight,
        .residual = if (op.accumulate != 0) d_weight else null,
    }, run);
}

/// Sums of a vector's width of columns over all rows, in float64: a long sum, and cheap beside the matrix product.
fn sumColumns(comptime E: type, op: *const abi.ops.linear_backward_weight, column: usize, count: usize) void {
    var sum: vector.Double = @splat(0);
    for (0..op.tokens) |row| {
        sum += vector.double(vector.loadSome(E, op.dy.as(E) + row * op.outputs + column, count));
    }
    const to = op.d_bias.as(f32) + column;
    if (op.accumulate != 0) sum += vector.double(vector.loadSome(f32, to, count));
    vector.storeSome(f32, to, @floatCast(sum), count);
}

const testing = std.testing;
const harness = @import("harness.zig");

test "linear forward and both gradients against float64, many shapes" {
    const shapes = [_][3]usize{ .{ 1, 40, 72 }, .{ 3, 1, 1 }, .{ 15, 33, 31 }, .{ 64, 72, 701 }, .{ 130, 300, 97 }, .{ 257, 513, 129 } };
    for (shapes) |shape| inline for (.{ abi.Dtype.float32, abi.Dtype.bfloat16 }) |dtype| {
        for ([_]bool{ false, true }) |extras| try checkLinear(dtype, shape, extras);
    };
}

fn checkLinear(comptime dtype: abi.Dtype, shape: [3]usize, extras: bool) !void {
    const E = vector.Element(dtype);
    const tokens, const inputs, const outputs = shape;
    const T: u32, const I: u32, const O: u32 = .{ @intCast(tokens), @intCast(inputs), @intCast(outputs) };
    var h = try harness.Harness.init(2);
    defer h.deinit();
    const x = try h.random(E, tokens * inputs, 1);
    const weight = try h.random(E, outputs * inputs, 0.1);
    const bias = try h.random(E, outputs, 1);
    const y = try h.random(E, tokens * outputs, 1);
    const dy = try h.random(E, tokens * outputs, 1);
    const dx = try h.poisoned(E, tokens * inputs);
    const d_weight = try h.random(f32, outputs * inputs, 1);
    const d_bias = try h.random(f32, outputs, 1);

    const expected_y = if (extras) try h.doubles(E, y) else try h.zeros(y.len);
    const expected_dx = try h.zeros(dx.len);
    const expected_dw = if (extras) try h.doubles(f32, d_weight) else try h.zeros(d_weight.len);
    const expected_db = if (extras) try h.doubles(f32, d_bias) else try h.zeros(outputs);
    const xs, const ws, const ds, const bs = .{ try h.doubles(E, x), try h.doubles(E, weight), try h.doubles(E, dy), try h.doubles(E, bias) };
    for (0..tokens) |t| for (0..outputs) |o| {
        if (extras) expected_y[t * outputs + o] += bs[o];
        expected_db[o] += ds[t * outputs + o];
        for (0..inputs) |i| {
            expected_y[t * outputs + o] += xs[t * inputs + i] * ws[o * inputs + i];
            expected_dx[t * inputs + i] += ds[t * outputs + o] * ws[o * inputs + i];
            expected_dw[o * inputs + i] += ds[t * outputs + o] * xs[t * inputs + i];
        }
    };
    if (!extras) {
        @memset(std.mem.sliceAsBytes(y), 0xff);
        @memset(d_weight, std.math.nan(f32));
        @memset(d_bias, std.math.nan(f32));
    }
    const nothing: []E = &.{};
    try h.run(.linear_forward, .{ .y = h.range(y), .x = h.range(x), .weight = h.range(weight), .bias = h.range(if (extras) bias else nothing), .residual = h.range(if (extras) y else nothing), .tokens = T, .inputs = I, .outputs = O, .dtype = dtype });
    try h.run(.linear_backward_input, .{ .dx = h.range(dx), .dy = h.range(dy), .weight = h.range(weight), .tokens = T, .inputs = I, .outputs = O, .dtype = dtype });
    try h.run(.linear_backward_weight, .{ .d_weight = h.range(d_weight), .d_bias = h.range(d_bias), .dy = h.range(dy), .x = h.range(x), .tokens = T, .inputs = I, .outputs = O, .accumulate = @intFromBool(extras), .dtype = dtype });
    try harness.expectClose(E, expected_y, y, harness.tolerance(E));
    try harness.expectClose(E, expected_dx, dx, harness.tolerance(E));
    try harness.expectClose(f32, expected_dw, d_weight, 1e-6);
    try harness.expectClose(f32, expected_db, d_bias, 1e-6);
}

test "a row's bits do not depend on the other rows, nor on the workers" {
    inline for (.{ abi.Dtype.float32, abi.Dtype.bfloat16 }) |dtype| {
        const E = vector.Element(dtype);
        const tokens, const inputs, const outputs = .{ 391, 600, 333 };
        var one = try harness.Harness.init(1);
        defer one.deinit();
        var two = try harness.Harness.init(2);
        defer two.deinit();
        const x = try one.random(E, tokens * inputs, 1);
        const weight = try one.random(E, outputs * inputs, 1);
        const y = try one.poisoned(E, tokens * outputs);
        const again = try one.poisoned(E, tokens * outputs);
        const row = try one.poisoned(E, outputs);
        var op = abi.arguments(.linear_forward, .{ .y = one.range(y), .x = one.range(x), .weight = one.range(weight), .bias = abi.Bytes.none, .residual = abi.Bytes.none, .tokens = tokens, .inputs = inputs, .outputs = outputs, .dtype = dtype });
        try one.run(.linear_forward, op);
        op.y = .of(one.range(again));
        try two.run(.linear_forward, op);
        try testing.expectEqualSlices(E, y, again);
        op.tokens = 1;
        op.y = .of(one.range(row));
        op.x = .of(one.range(x[200 * inputs ..][0..inputs]));
        try one.run(.linear_forward, op);
        try testing.expectEqualSlices(E, y[200 * outputs ..][0..outputs], row);
    }
}

test "no tokens: the weight's gradient is zero, or stays" {
    var h = try harness.Harness.init(1);
    defer h.deinit();
    const d_weight = try h.random(f32, 33 * 20, 1);
    const before = try h.copyOf(d_weight);
    const empty: abi.Bytes = .{ .address = @ptrCast(d_weight.ptr), .bytes = 0 };
    var op = abi.arguments(.linear_backward_weight, .{ .d_weight = h.range(d_weight), .d_bias = abi.Bytes.none, .dy = empty, .x = empty, .tokens = 0, .inputs = 20, .outputs = 33, .accumulate = 1, .dtype = .float32 });
    try h.run(.linear_backward_weight, op);
    try testing.expectEqualSlices(f32, before, d_weight);
    op.accumulate = 0;
    try h.run(.linear_backward_weight, op);
    for (d_weight) |value| try testing.expectEqual(0, value);
}
