//! SwiGLU (HF LlamaMLP): y = silu(gate) · up, gate and up side by side in each row.

const std = @import("std");
const abi = @import("../../abi.zig");
const vector = @import("vector.zig");
const Run = @import("run.zig").Run;
const rowGrain = @import("run.zig").rowGrain;

inline fn sigmoid(x: vector.F) vector.F {
    return vector.splat(1) / (vector.splat(1) + vector.exp(-x));
}

/// y (T, F) = silu(gate) * up.
pub fn swigluForward(comptime E: type, op: *const abi.ops.swiglu_forward, run: Run) !void {
    run.forRanges(op.tokens, rowGrain(2 * op.width), op, struct {
        fn range(o: *const abi.ops.swiglu_forward, start: usize, end: usize) void {
            const width: usize = o.width;
            for (start..end) |row| {
                const gates = o.gate_up.as(E) + row * 2 * width;
                const ups = gates + width;
                var i: usize = 0;
                while (i < width) : (i += vector.lanes) {
                    const count = vector.left(i, width);
                    const gate = vector.loadSome(E, gates + i, count);
                    vector.storeSome(E, o.y.as(E) + row * width + i, gate * sigmoid(gate) * vector.loadSome(E, ups + i, count), count);
                }
            }
        }
    }.range);
}

/// In place: gate_up becomes its gradient. d_gate = dy · up · s · (1 + gate · (1 − s)), d_up = dy · gate · s, s = sigmoid(gate).
pub fn swigluBackward(comptime E: type, op: *const abi.ops.swiglu_backward, run: Run) !void {
    run.forRanges(op.tokens, rowGrain(2 * op.width), op, struct {
        fn range(o: *const abi.ops.swiglu_backward, start: usize, end: usize) void {
            const width: usize = o.width;
            for (start..end) |row| {
                const gates = o.gate_up.as(E) + row * 2 * width;
                const ups = gates + width;
                var i: usize = 0;
                while (i < width) : (i += vector.lanes) {
                    const count = vector.left(i, width);
                    const gate = vector.loadSome(E, gates + i, count);
                    const up = vector.loadSome(E, ups + i, count);
                    const dy = vector.loadSome(E, o.dy.as(E) + row * width + i, count);
                    const s = sigmoid(gate);
                    vector.storeSome(E, gates + i, dy * up * s * (vector.splat(1) + gate * (vector.splat(1) - s)), count);
                    vector.storeSome(E, ups + i, dy * gate * s, count);
                }
            }
        }
    }.range);
}

const testing = std.testing;
const harness = @import("harness.zig");

test "swiglu forward and backward against float64, odd widths, large gates" {
    inline for (.{ abi.Dtype.float32, abi.Dtype.bfloat16 }) |dtype| for ([_]usize{ 3, 72, 701 }) |width| {
        const E = vector.Element(dtype);
        var h = try harness.Harness.init(2);
        defer h.deinit();
        const tokens = 257;
        const gate_up = try h.random(E, tokens * 2 * width, 3);
        gate_up[0] = vector.fromFloat(E, -120);
        gate_up[1] = vector.fromFloat(E, 120);
        const dy = try h.random(E, tokens * width, 1);
        const y = try h.poisoned(E, tokens * width);
        const expected = try h.zeros(tokens * width);
        const gradient = try h.zeros(tokens * 2 * width);
        for (0..tokens) |row| for (0..width) |i| {
            const gate: f64 = vector.toFloat(E, gate_up[row * 2 * width + i]);
            const up: f64 = vector.toFloat(E, gate_up[row * 2 * width + width + i]);
            const d: f64 = vector.toFloat(E, dy[row * width + i]);
            const s = 1 / (1 + @exp(-gate));
            expected[row * width + i] = gate * s * up;
            gradient[row * 2 * width + i] = d * up * s * (1 + gate * (1 - s));
            gradient[row * 2 * width + width + i] = d * gate * s;
        };
        try h.run(.swiglu_forward, .{ .y = h.range(y), .gate_up = h.range(gate_up), .tokens = tokens, .width = width, .dtype = dtype });
        try harness.expectClose(E, expected, y, harness.tolerance(E));
        try h.run(.swiglu_backward, .{ .gate_up = h.range(gate_up), .dy = h.range(dy), .tokens = tokens, .width = width, .dtype = dtype });
        try harness.expectClose(E, gradient, gate_up, harness.tolerance(E));
    };
}

test "float16 is refused" {
    var h = try harness.Harness.init(1);
    defer h.deinit();
    const gate_up = try h.random(u16, 3 * 2 * 8, 1);
    const y = try h.poisoned(u16, 3 * 8);
    try testing.expectEqual(1, try h.status(.swiglu_forward, .{ .y = h.range(y), .gate_up = h.range(gate_up), .tokens = 3, .width = 8, .dtype = .float16 }));
    try testing.expectEqualStrings("swiglu_forward: float16 is a file's dtype; compute takes float32 or bfloat16", h.text());
}
