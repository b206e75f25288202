//! Per-head RMSNorm of q and k (HF Qwen3Attention; with an offset of 1 Gemma3Attention), then rotary position embedding (HF apply_rotary_pos_emb: the first half of
//! a head is paired with the second). Forward goes from qkv to a compact qk; backward works in place on d_qkv.
//!
//! Between norm and rotation nothing is rounded. The norm weights' gradients are sums over tokens and heads: fixed chunks of
//! tokens, partials added in order.

const std = @import("std");
const abi = @import("../../abi.zig");
const vector = @import("vector.zig");
const norm = @import("norm.zig");
const Run = @import("run.zig").Run;
const rowGrain = @import("run.zig").rowGrain;
const F = vector.F;

const head_dim_max = 1024;

/// qk = rope(norm(q | k)).
pub fn qkRopeForward(comptime E: type, op: *const abi.ops.qk_rope_forward, run: Run) !void {
    try check(op, run);
    run.forRanges(op.tokens, rowGrain(op.head_dim * (op.heads + op.kv_heads)), op, struct {
        fn range(o: *const abi.ops.qk_rope_forward, start: usize, end: usize) void {
            const D: usize = o.head_dim;
            const heads: usize = o.heads + o.kv_heads;
            for (start..end) |token| {
                const angles = o.table.as(f32) + @as(usize, @intCast(o.positions.as(i32)[token])) * D;
                const from = o.qkv.as(E) + token * (heads + o.kv_heads) * D;
                const to = o.qk.as(E) + token * heads * D;
                for (0..heads) |head| {
                    const x = from + head * D;
                    if (!o.q_weight.present()) {
                        rotate(E, E, to + head * D, x, angles, D, 1);
                        continue;
                    }
                    const inverse = norm.inverseOfRow(E, x, D, o.epsilon);
                    o.inverse.as(f32)[token * heads + head] = inverse;
                    var normed: [head_dim_max]f32 = undefined;
                    scale(E, &normed, x, if (head < o.heads) o.q_weight.as(E) else o.k_weight.as(E), o.offset, inverse, D);
                    rotate(E, f32, to + head * D, &normed, angles, D, 1);
                }
            }
        }
    }.range);
}

/// In place: the gradient of qk becomes the gradient of q | k as they were in qkv.
pub fn qkRopeBackward(comptime E: type, op: *const abi.ops.qk_rope_backward, run: Run) !void {
    try check(op, run);
    const Job = struct {
        op: *const abi.ops.qk_rope_backward,
        partials: norm.Partials, // per chunk of tokens: D sums for q_weight, D for k_weight

        fn chunk(job: *const @This(), index: usize, _: u32) void {
            const o = job.op;
            const first, const end = job.partials.rowsOf(index);
            for (first..end) |token| backwardOfToken(E, o, token, job.partials.start(index));
        }
    };
    const job: Job = .{ .op = op, .partials = try .of(run, op.tokens, 2 * op.head_dim) };
    run.forEach(job.partials.chunks, &job, Job.chunk);
    if (!op.q_weight.present()) return;
    job.partials.addColumnsTo(op.d_q_weight.as(f32)[0..op.head_dim], 0, op.accumulate != 0);
    job.partials.addColumnsTo(op.d_k_weight.as(f32)[0..op.head_dim], op.head_dim, op.accumulate != 0);
}

fn backwardOfToken(comptime E: type, op: *const abi.ops.qk_rope_backward, token: usize, partials: [*]f32) void {
    const D: usize = op.head_dim;
    const heads: usize = op.heads + op.kv_heads;
    const angles = op.table.as(f32) + @as(usize, @intCast(op.positions.as(i32)[token])) * D;
    const row = token * (heads + op.kv_heads) * D;
    for (0..heads) |head| {
        const d = op.d_qkv.as(E) + row + head * D;
        if (!op.q_weight.present()) {
            rotate(E, E, d, d, angles, D, -1);
            continue;
        }
        var gradient: [head_dim_max]f32 = undefined;
        rotate(f32, E, &gradient, d, angles, D, -1);
        const is_query = head < op.heads;
        const weight = if (is_query) op.q_weight.as(E) else op.k_weight.as(E);
        const inverse = op.inverse.as(f32)[token * heads + head];
        normBackward(E, d, partials + if (is_query) 0 else D, &gradient, op.qkv.as(E) + row + head * D, weight, op.offset, inverse, D);
    }
}

fn check(op: anytype, run: Run) !void {
    if (op.head_dim > head_dim_max) return run.fail("head_dim must be at most {} (is {})", .{ head_dim_max, op.head_dim });
    try run.checkRows("qk_rope.positions", op.positions.as(i32)[0..op.tokens], op.table.bytes / 4 / op.head_dim, .any);
}

/// Rotates each pair (i, i + D/2) by its angle, or back with direction −1. `to` may be `from`.
fn rotate(comptime To: type, comptime From: type, to: [*]To, from: [*]const From, angles: [*]const f32, D: usize, comptime direction: f32) void {
    const half = D / 2;
    var i: usize = 0;
    while (i < half) : (i += vector.lanes) {
        const count = vector.left(i, half);
        const cos = vector.loadSome(f32, angles + i, count);
        const sin = vector.loadSome(f32, angles + half + i, count) * vector.splat(direction);
        const low = vector.loadSome(From, from + i, count);
        const high = vector.loadSome(From, from + half + i, count);
        vector.storeSome(To, to + i, low * cos - high * sin, count);
        vector.storeSome(To, to + half + i, high * cos + low * sin, count);
    }
}

fn scale(comptime E: type, to: [*]f32, x: [*]const E, weight: [*]const E, offset: f32, inverse: f32, D: usize) void {
    var i: usize = 0;
    while (i < D) : (i += vector.lanes) {
        const count = vector.left(i, D);
        vector.storeSome(f32, to + i, vector.loadSome(E, x + i, count) * vector.splat(inverse) * (vector.loadSome(E, weight + i, count) + vector.splat(offset)), count);
    }
}

fn normBackward(comptime E: type, dx: [*]E, d_weight: [*]f32, dy: [*]const f32, x: [*]const E, weight: [*]const E, offset: f32, inverse: f32, D: usize) void {
    var products = vector.splat(0);
    var i: usize = 0;
    while (i < D) : (i += vector.lanes) {
        const count = vector.left(i, D);
        const normed = vector.loadSome(E, x + i, count) * vector.splat(inverse);
        const d = vector.loadSome(f32, dy + i, count);
        products = @mulAdd(F, d * (vector.loadSome(E, weight + i, count) + vector.splat(offset)), normed, products);
        vector.storeSome(f32, d_weight + i, @mulAdd(F, d, normed, vector.loadSome(f32, d_weight + i, count)), count);
    }
    const mean: f32 = @floatCast(vector.sum(vector.double(products)) / @as(f64, @floatFromInt(D)));
    i = 0;
    while (i < D) : (i += vector.lanes) {
        const count = vector.left(i, D);
        const normed = vector.loadSome(E, x + i, count) * vector.splat(inverse);
        const weighted = vector.loadSome(f32, dy + i, count) * (vector.loadSome(E, weight + i, count) + vector.splat(offset));
        vector.storeSome(E, dx + i, vector.splat(inverse) * (weighted - normed * vector.splat(mean)), count);
    }
}

const testing = std.testing;
const harness = @import("harness.zig");

test "q/k norm and rope, forward and backward, against float64; workers do not matter" {
    for ([_]usize{ 6, 32, 72, 128 }) |D| inline for (.{ abi.Dtype.float32, abi.Dtype.bfloat16 }) |dtype| {
        try checkRope(dtype, D, false);
        try checkRope(dtype, D, true);
    };
}

fn checkRope(comptime dtype: abi.Dtype, D: usize, with_norm: bool) !void {
    const E = vector.Element(dtype);
    const tokens, const heads, const kv_heads, const epsilon = .{ 83, 3, 2, 1e-6 };
    const all = heads + kv_heads;
    const half = D / 2;
    var first: []const f32 = &.{};
    for ([_]u32{ 1, 2 }) |workers| {
        var h = try harness.Harness.init(workers);
        defer h.deinit();
        const qkv = try h.random(E, tokens * (heads + 2 * kv_heads) * D, 1);
        const d_qkv = try h.random(E, qkv.len, 1);
        const q_weight = try h.random(E, D, 1);
        const k_weight = try h.random(E, D, 1);
        const positions = try h.integers(tokens, 50);
        const table = try h.poisoned(f32, 50 * D);
        for (0..50) |position| for (0..half) |i| {
            const angle = @as(f64, @floatFromInt(position)) * std.math.pow(f64, 10000, -@as(f64, @floatFromInt(2 * i)) / @as(f64, @floatFromInt(D)));
            table[position * D + i] = @floatCast(@cos(angle));
            table[position * D + half + i] = @floatCast(@sin(angle));
        };
        const qk = try h.poisoned(E, tokens * all * D);
        const inverse = try h.poisoned(f32, tokens * all);
        const d_q = try h.poisoned(f32, D);
        const d_k = try h.poisoned(f32, D);

        const expected = try h.zeros(qk.len);
        const expected_d = try h.doubles(E, d_qkv);
        const expected_dq = try h.zeros(D);
        const expected_dk = try h.zeros(D);
        for (0..tokens) |t| for (0..all) |head| {
            const at = t * (heads + 2 * kv_heads) * D + head * D;
            const x = try h.doubles(E, qkv[at..][0..D]);
            const weight = try h.doubles(E, if (head < heads) q_weight else k_weight);
            const angles = try h.doubles(f32, table[@as(usize, @intCast(positions[t])) * D ..][0..D]);
            var squares: f64 = 0;
            for (x) |value| squares += value * value;
            const s = if (with_norm) 1 / @sqrt(squares / @as(f64, @floatFromInt(D)) + epsilon) else 1;
            if (!with_norm) @memset(weight, 1);
            const y = expected[(t * all + head) * D ..][0..D];
            const d = try h.arena.allocator().dupe(f64, expected_d[at..][0..D]);
            for (0..half) |i| {
                const c, const sn = .{ angles[i], angles[half + i] };
                const a, const b = .{ x[i] * s * weight[i], x[half + i] * s * weight[half + i] };
                y[i] = a * c - b * sn;
                y[half + i] = b * c + a * sn;
                const da, const db = .{ d[i], d[half + i] };
                d[i] = da * c + db * sn;
                d[half + i] = db * c - da * sn;
            }
            var products: f64 = 0;
            for (x, d, weight) |value, g, w| products += g * w * value * s;
            for (x, d, weight, 0..) |value, g, w, i| {
                expected_d[at + i] = if (with_norm) s * (g * w - value * s * products / @as(f64, @floatFromInt(D))) else g;
                (if (head < heads) expected_dq else expected_dk)[i] += g * value * s;
            }
        };
        const nothing: []E = &.{};
        const none: []f32 = &.{};
        const T: u32, const D32: u32 = .{ tokens, @intCast(D) };
        try h.run(.qk_rope_forward, .{ .qk = h.range(qk), .inverse = h.range(if (with_norm) inverse else none), .qkv = h.range(qkv), .q_weight = h.range(if (with_norm) q_weight else nothing), .k_weight = h.range(if (with_norm) k_weight else nothing), .positions = h.range(positions), .table = h.range(table), .tokens = T, .heads = heads, .kv_heads = kv_heads, .head_dim = D32, .epsilon = epsilon, .dtype = dtype });
        try harness.expectClose(E, expected, qk, harness.tolerance(E));
        try h.run(.qk_rope_backward, .{ .d_qkv = h.range(d_qkv), .d_q_weight = h.range(if (with_norm) d_q else none), .d_k_weight = h.range(if (with_norm) d_k else none), .inverse = h.range(if (with_norm) inverse else none), .qkv = h.range(qkv), .q_weight = h.range(if (with_norm) q_weight else nothing), .k_weight = h.range(if (with_norm) k_weight else nothing), .positions = h.range(positions), .table = h.range(table), .tokens = T, .heads = heads, .kv_heads = kv_heads, .head_dim = D32, .accumulate = 0, .dtype = dtype });
        try harness.expectClose(E, expected_d, d_qkv, harness.tolerance(E));
        if (!with_norm) continue;
        try harness.expectClose(f32, expected_dq, d_q, 1e-6);
        try harness.expectClose(f32, expected_dk, d_k, 1e-6);
        if (workers == 1) first = try testing.allocator.dupe(f32, d_q) else {
            defer testing.allocator.free(first);
            try testing.expectEqualSlices(f32, first, d_q);
        }
    }
}
