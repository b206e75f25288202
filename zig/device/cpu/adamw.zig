//! AdamW (Loshchilov & Hutter; torch.optim.AdamW) on a split master: one pass that joins the weight, updates moments and weight,
//! and splits it again. `updateOne` is the definition; `updateRow` does the same on vectors, bit for bit: both name every
//! fused multiply-add, division and square root are exact, and epsilon is added after the root.
//!
//! The pass is bound by memory: 26 bytes per parameter with a bfloat16 gradient. The arrays' bases must differ modulo 4 KiB
//! (`memory.zig` staggers them): with equal offsets, loads wait for unrelated stores and the rate falls to a third.

const std = @import("std");
const abi = @import("../../abi.zig");
const AdamwConstants = @import("../adamw_constants.zig").AdamwConstants;
const vector = @import("vector.zig");
const split_master = @import("split_master.zig");
const Gaps = @import("gradient.zig").Gaps;
const Run = @import("run.zig").Run;
const rowGrain = @import("run.zig").rowGrain;
const F = vector.F;

const grain = 64 << 10;

/// The step's numbers with the clipping factor.
const Constants = struct {
    factor: f32,
    step: AdamwConstants,

    fn of(op: anytype) Constants {
        return .{ .factor = @floatCast(op.factor.as(f64)[0]), .step = .of(op) };
    }
};

/// The arrays that are walked together, from one parameter on.
const State = struct {
    hi: [*]u16,
    lo: [*]i16,
    m: [*]f32,
    v: [*]f32,

    fn of(op: anytype, start: usize) State {
        return .{ .hi = op.hi.as(u16) + start, .lo = op.lo.as(i16) + start, .m = op.m.as(f32) + start, .v = op.v.as(f32) + start };
    }
};

/// One parameter: the reference.
pub fn updateOne(k: Constants, state: State, i: usize, gradient: f32) void {
    const g = gradient * k.factor;
    const m = @mulAdd(f32, k.step.beta1_rest, g - state.m[i], state.m[i]);
    const v = @mulAdd(f32, k.step.beta2_rest * g, g, k.step.beta2 * state.v[i]);
    const denominator = @sqrt(v) * k.step.root_scale + k.step.epsilon;
    const weight = split_master.joinOne(state.hi[i], state.lo[i]) * k.step.decay;
    state.m[i] = m;
    state.v[i] = v;
    state.hi[i], state.lo[i] = split_master.splitOne(@mulAdd(f32, -k.step.step_size, m / denominator, weight));
}

/// `count` parameters; the gradient is zero where it is absent.
fn updateRow(comptime E: type, k: Constants, state: State, gradient: ?[*]const E, count: usize) void {
    var i: usize = 0;
    while (i + vector.lanes <= count) : (i += vector.lanes) {
        const raw = if (gradient) |g| vector.load(E, g + i) else vector.splat(0);
        const g = raw * vector.splat(k.factor);
        const m_before = vector.load(f32, state.m + i);
        const m = @mulAdd(F, vector.splat(k.step.beta1_rest), g - m_before, m_before);
        const v = @mulAdd(F, vector.splat(k.step.beta2_rest) * g, g, vector.splat(k.step.beta2) * vector.load(f32, state.v + i));
        const denominator = @sqrt(v) * vector.splat(k.step.root_scale) + vector.splat(k.step.epsilon);
        const weight = split_master.join(vector.raw(u16, state.hi + i), vector.raw(i16, state.lo + i)) * vector.splat(k.step.decay);
        const parts = split_master.split(@mulAdd(F, vector.splat(-k.step.step_size), m / denominator, weight));
        vector.store(f32, state.m + i, m);
        vector.store(f32, state.v + i, v);
        vector.putRaw(u16, state.hi + i, parts.hi);
        vector.putRaw(i16, state.lo + i, parts.lo);
    }
    while (i < count) : (i += 1) updateOne(k, state, i, if (gradient) |g| vector.toFloat(E, g[i]) else 0);
}

/// All parameters of a range.
pub fn adamw(comptime E: type, op: *const abi.ops.adamw, run: Run) !void {
    const Job = struct { op: *const abi.ops.adamw, constants: Constants };
    run.forRanges(op.count, grain, &Job{ .op = op, .constants = .of(op) }, struct {
        fn range(job: *const Job, start: usize, end: usize) void {
            updateRow(E, job.constants, .of(job.op, start), job.op.gradient.as(E) + start, end - start);
        }
    }.range);
}

/// Rows `tokens` of a (V, C) matrix, gradient (U, C) float32.
pub fn adamwRows(op: *const abi.ops.adamw_rows, run: Run) !void {
    try run.checkRows("adamw_rows.tokens", op.tokens.as(i32)[0..op.distinct], op.vocabulary, .increasing);
    const Job = struct { op: *const abi.ops.adamw_rows, constants: Constants };
    run.forRanges(op.distinct, rowGrain(op.width), &Job{ .op = op, .constants = .of(op) }, struct {
        fn range(job: *const Job, start: usize, end: usize) void {
            const o = job.op;
            const width: usize = o.width;
            for (start..end) |row| {
                const at = @as(usize, @intCast(o.tokens.as(i32)[row])) * width;
                updateRow(f32, job.constants, .of(o, at), o.gradient.as(f32) + row * width, width);
            }
        }
    }.range);
}

/// All other rows; the gradient (V, C) may be absent, which is a gradient of zero.
pub fn adamwOtherRows(comptime E: type, op: *const abi.ops.adamw_other_rows, run: Run) !void {
    try run.checkRows("adamw_other_rows.tokens", op.tokens.as(i32)[0..op.distinct], op.vocabulary, .increasing);
    const Job = struct { op: *const abi.ops.adamw_other_rows, constants: Constants };
    run.forRanges(op.vocabulary, rowGrain(op.width), &Job{ .op = op, .constants = .of(op) }, struct {
        fn range(job: *const Job, start: usize, end: usize) void {
            const o = job.op;
            const width: usize = o.width;
            var gaps: Gaps = .of(o.tokens.as(i32)[0..o.distinct], start, end);
            while (gaps.next()) |gap| {
                const at = gap.start * width;
                const gradient: ?[*]const E = if (o.gradient.present()) o.gradient.as(E) + at else null;
                updateRow(E, job.constants, .of(o, at), gradient, (gap.end - gap.start) * width);
            }
        }
    }.range);
}

const testing = std.testing;
const harness = @import("harness.zig");

const Master = struct {
    hi: []u16,
    lo: []i16,
    m: []f32,
    v: []f32,

    fn random(h: *harness.Harness, count: usize) !Master {
        const weights = try h.random(f32, count, 0.02);
        const master: Master = .{ .hi = try h.poisoned(u16, count), .lo = try h.poisoned(i16, count), .m = try h.random(f32, count, 0.01), .v = try h.random(f32, count, 0.01) };
        for (weights, master.hi, master.lo, master.v) |weight, *hi, *lo, *v| {
            hi.*, lo.* = split_master.splitOne(weight);
            v.* = v.* * v.*;
        }
        return master;
    }
    fn copy(master: Master, h: *harness.Harness) !Master {
        return .{ .hi = try h.copyOf(master.hi), .lo = try h.copyOf(master.lo), .m = try h.copyOf(master.m), .v = try h.copyOf(master.v) };
    }
    fn state(master: Master) State {
        return .{ .hi = master.hi.ptr, .lo = master.lo.ptr, .m = master.m.ptr, .v = master.v.ptr };
    }
    fn expectEqual(expected: Master, actual: Master) !void {
        try testing.expectEqualSlices(u16, expected.hi, actual.hi);
        try testing.expectEqualSlices(i16, expected.lo, actual.lo);
        try testing.expectEqualSlices(u8, std.mem.sliceAsBytes(expected.m), std.mem.sliceAsBytes(actual.m));
        try testing.expectEqualSlices(u8, std.mem.sliceAsBytes(expected.v), std.mem.sliceAsBytes(actual.v));
    }
};

test "adamw equals the scalar reference bit for bit, and float64 closely" {
    var h = try harness.Harness.init(2);
    defer h.deinit();
    inline for (.{ abi.Dtype.float32, abi.Dtype.bfloat16 }) |dtype| {
        const E = vector.Element(dtype);
        const count = 150_011;
        const master = try Master.random(&h, count);
        const expected = try master.copy(&h);
        const gradient = try h.random(E, count, 0.01);
        gradient[17] = vector.fromFloat(E, std.math.inf(f32));
        var factor = [2]f64{ 0.37, 2.7 };
        const op = abi.arguments(.adamw, .{ .hi = h.range(master.hi), .lo = h.range(master.lo), .m = h.range(master.m), .v = h.range(master.v), .gradient = h.range(gradient), .factor = h.range(&factor), .count = count, .gradient_dtype = dtype, .step = 3, .learning_rate = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1 });
        var exact = try h.arena.allocator().alloc(f64, count);
        for (0..count) |i| {
            const g = @as(f64, vector.toFloat(E, gradient[i])) * factor[0];
            const m = 0.9 * expected.m[i] + 0.1 * g;
            const v = 0.95 * @as(f64, expected.v[i]) + 0.05 * g * g;
            const denominator = @sqrt(v) / @sqrt(1 - std.math.pow(f64, 0.95, 3)) + 1e-8;
            exact[i] = split_master.joinOne(expected.hi[i], expected.lo[i]) * (1 - 1e-4) - 1e-3 / (1 - std.math.pow(f64, 0.9, 3)) * m / denominator;
        }
        const k: Constants = .of(&op);
        for (0..count) |i| updateOne(k, expected.state(), i, vector.toFloat(E, gradient[i]));
        try h.run(.adamw, op);
        try expected.expectEqual(master);
        for (0..count) |i| if (i != 17) try testing.expectApproxEqAbs(exact[i], split_master.joinOne(master.hi[i], master.lo[i]), 2e-8 + 1e-6 * @abs(exact[i]));
    }
}

test "rows and other rows together are the dense update" {
    var h = try harness.Harness.init(2);
    defer h.deinit();
    const vocabulary, const width = .{ 1203, 77 };
    const count = vocabulary * width;
    const tokens = [_]i32{ 0, 3, 4, 800, 1202 };
    const master = try Master.random(&h, count);
    const dense = try master.copy(&h);
    const without = try master.copy(&h);
    const head = try h.random(f32, count, 0.01);
    const rows = try h.poisoned(f32, tokens.len * width);
    for (tokens, 0..) |token, row| @memcpy(rows[row * width ..][0..width], head[@as(usize, @intCast(token)) * width ..][0..width]);
    var factor = [2]f64{ 1, 1 };
    const dense_op = abi.arguments(.adamw, .{ .hi = h.range(dense.hi), .lo = h.range(dense.lo), .m = h.range(dense.m), .v = h.range(dense.v), .gradient = h.range(head), .factor = h.range(&factor), .count = count, .gradient_dtype = .float32, .step = 1, .learning_rate = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0 });
    const rows_op = abi.arguments(.adamw_rows, .{ .hi = h.range(master.hi), .lo = h.range(master.lo), .m = h.range(master.m), .v = h.range(master.v), .gradient = h.range(rows), .tokens = h.range(&tokens), .factor = h.range(&factor), .distinct = tokens.len, .width = width, .vocabulary = vocabulary, .step = 1, .learning_rate = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0 });
    var others = abi.arguments(.adamw_other_rows, .{ .hi = rows_op.hi, .lo = rows_op.lo, .m = rows_op.m, .v = rows_op.v, .gradient = h.range(head), .tokens = rows_op.tokens, .factor = rows_op.factor, .distinct = tokens.len, .width = width, .vocabulary = vocabulary, .gradient_dtype = .float32, .step = 1, .learning_rate = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0 });
    try h.run(.adamw, dense_op);
    try h.run(.adamw_rows, rows_op);
    try h.run(.adamw_other_rows, others);
    try dense.expectEqual(master);

    const expected = try without.copy(&h);
    others.hi, others.lo, others.m, others.v = .{ .of(h.range(without.hi)), .of(h.range(without.lo)), .of(h.range(without.m)), .of(h.range(without.v)) };
    others.gradient = .of(abi.Bytes.none);
    try h.run(.adamw_other_rows, others);
    for (0..count) |i| {
        if (std.mem.indexOfScalar(i32, &tokens, @intCast(i / width)) == null) updateOne(.of(&others), expected.state(), i, 0);
    }
    try expected.expectEqual(without);
}
