//! Gated activations: SwiGLU (HF LlamaMLP), y = silu(gate) · up, and GeGLU (HF Gemma3MLP), gelu in place of silu with its tanh
//! approximation. Gate and up lie side by side in each row.
//!
//! Both are y = gate · sigmoid(z) · up, because (1 + tanh(u)) / 2 = sigmoid(2u): silu has z = gate, gelu
//! z = 2 √(2/π) (gate + 0.044715 gate³).

const std = @import("std");
const abi = @import("../../abi.zig");
const vector = @import("vector.zig");
const Run = @import("run.zig").Run;
const rowGrain = @import("run.zig").rowGrain;
const F = vector.F;

inline fn sigmoid(x: F) F {
    return vector.splat(1) / (vector.splat(1) + vector.exp(-x));
}

/// z and its derivative.
const Inner = struct { z: F, slope: F };

/// sigmoid(z) and sigmoid(−z).
const Sides = struct { s: F, rest: F };

const silu = struct {
    inline fn of(gate: F) Inner {
        return .{ .z = gate, .slope = vector.splat(1) };
    }
    inline fn sides(z: F) Sides {
        const s = sigmoid(z);
        return .{ .s = s, .rest = vector.splat(1) - s };
    }
};

const gelu = struct {
    const linear: f32 = 2 * @sqrt(2.0 / std.math.pi);
    const cubic: f32 = 0.044715 * linear;

    inline fn of(gate: F) Inner {
        const square = gate * gate;
        return .{
            .z = gate * (vector.splat(linear) + vector.splat(cubic) * square),
            .slope = vector.splat(linear) + vector.splat(3 * cubic) * square,
        };
    }
    /// The slope multiplies what 1 − s would lose.
    inline fn sides(z: F) Sides {
        const small = vector.exp(-@abs(z));
        const large = vector.splat(1) / (vector.splat(1) + small);
        const positive = z >= vector.splat(0);
        return .{ .s = @select(f32, positive, large, small * large), .rest = @select(f32, positive, small * large, large) };
    }
};

/// y (T, F) = silu(gate) * up.
pub fn swigluForward(comptime E: type, op: *const abi.ops.swiglu_forward, run: Run) !void {
    forward(E, silu, op, run);
}

/// In place: gate_up becomes its gradient.
pub fn swigluBackward(comptime E: type, op: *const abi.ops.swiglu_backward, run: Run) !void {
    backward(E, silu, op, run);
}

/// y (T, F) = gelu(gate) * up.
pub fn gegluForward(comptime E: type, op: *const abi.ops.geglu_forward, run: Run) !void {
    forward(E, gelu, op, run);
}

/// In place: gate_up becomes its gradient.
pub fn gegluBackward(comptime E: type, op: *const abi.ops.geglu_backward, run: Run) !void {
    backward(E, gelu, op, run);
}

fn forward(comptime E: type, comptime activation: type, op: anytype, run: Run) void {
    run.forRanges(op.tokens, rowGrain(2 * op.width), op, struct {
        fn range(o: @TypeOf(op), start: usize, end: usize) void {
            const width: usize = o.width;
            for (start..end) |row| {
                const gates = o.gate_up.as(E) + row * 2 * width;
                const ups = gates + width;
                var i: usize = 0;
                while (i < width) : (i += vector.lanes) {
                    const count = vector.left(i, width);
                    const gate = vector.loadSome(E, gates + i, count);
                    vector.storeSome(E, o.y.as(E) + row * width + i, gate * sigmoid(activation.of(gate).z) * vector.loadSome(E, ups + i, count), count);
                }
            }
        }
    }.range);
}

/// With s = sigmoid(z): d_gate = dy · up · s · (1 + gate · (1 − s) · z′), d_up = dy · gate · s.
fn backward(comptime E: type, comptime activation: type, op: anytype, run: Run) void {
    run.forRanges(op.tokens, rowGrain(2 * op.width), op, struct {
        fn range(o: @TypeOf(op), start: usize, end: usize) void {
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
                    const inner = activation.of(gate);
                    const sides = activation.sides(inner.z);
                    vector.storeSome(E, gates + i, dy * up * sides.s * (vector.splat(1) + gate * sides.rest * inner.slope), count);
                    vector.storeSome(E, ups + i, dy * gate * sides.s, count);
                }
            }
        }
    }.range);
}

const testing = std.testing;
const harness = @import("harness.zig");

test "swiglu and geglu forward and backward against float64, odd widths, large gates" {
    inline for (.{ .swiglu, .geglu }) |kind| inline for (.{ abi.Dtype.float32, abi.Dtype.bfloat16 }) |dtype| for ([_]usize{ 3, 72, 701 }) |width| {
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
            const root = @sqrt(2.0 / std.math.pi);
            const tanh = std.math.tanh(root * (gate + 0.044715 * gate * gate * gate));
            const s = if (kind == .swiglu) 1 / (1 + @exp(-gate)) else 0.5 * (1 + tanh);
            const slope = if (kind == .swiglu) s * (1 - s) else 0.5 * (1 - tanh * tanh) * root * (1 + 3 * 0.044715 * gate * gate);
            expected[row * width + i] = gate * s * up;
            gradient[row * 2 * width + i] = d * up * (s + gate * slope);
            gradient[row * 2 * width + width + i] = d * gate * s;
        };
        try h.run(if (kind == .swiglu) .swiglu_forward else .geglu_forward, .{ .y = h.range(y), .gate_up = h.range(gate_up), .tokens = tokens, .width = width, .dtype = dtype });
        try harness.expectClose(E, expected, y, harness.tolerance(E));
        try h.run(if (kind == .swiglu) .swiglu_backward else .geglu_backward, .{ .gate_up = h.range(gate_up), .dy = h.range(dy), .tokens = tokens, .width = width, .dtype = dtype });
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
