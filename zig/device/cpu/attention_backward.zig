//! Gradients of attention, from the log-sum-exp that forward kept (FlashAttention-2, Dao 2023).
//!
//! Two kinds of tasks, each the only writer of its part of d_qkv: a tile of keys gathers dk and dv over all rows that see it,
//! in order, and a tile of query rows gathers dq over all keys it sees, in order. Scores are computed twice, and in exchange
//! one long document keeps all workers busy and the sums have one order.

const std = @import("std");
const abi = @import("../../abi.zig");
const vector = @import("vector.zig");
const tile = @import("tile.zig");
const attention = @import("attention.zig");
const Run = @import("run.zig").Run;
const rowGrain = @import("run.zig").rowGrain;
const Slots = attention.Slots;
const F = vector.F;
const I = vector.I;
const stride = attention.stride;
const held = attention.held;
const walked = attention.walked;

/// A task holds keys and values and walks queries and output gradients, or the other way round.
const Scratch = extern struct {
    held: [2]attention.HeldRows align(64),
    walked: [2]attention.WalkedRows align(64),
    columns: [2]attention.HeldColumns align(64),
    sums: [2]attention.HeldRows align(64),
    scores: attention.Scores align(64),
    d_scores: attention.Scores align(64),
    lse: [held]f32 align(64),
    delta: [held]f32 align(64),
    positions: [held]i32 align(64),
};
comptime {
    std.debug.assert(@sizeOf(Scratch) <= @import("../../workers.zig").scratch_bytes_needed);
}

/// d_qkv (T, (H+2K)·D) = gradients of q, k and v.
pub fn attentionBackward(comptime E: type, op: *const abi.ops.attention_backward, run: Run) !void {
    const Job = struct {
        op: *const abi.ops.attention_backward,
        rows: Slots,
        keys: Slots,
        run: Run,

        fn task(job: *const @This(), index: usize, worker: u32) void {
            const scratch: *Scratch = @ptrCast(job.run.scratch(u8, worker).ptr);
            const kv_head = index % job.op.kv_heads;
            const number = index / job.op.kv_heads;
            if (number < job.keys.count()) { // early keys are seen by most rows: longest tasks first
                keyTile(E, job.op, job.keys.find(number) orelse return, kv_head, scratch);
            } else {
                const last_first = job.rows.count() - 1 - (number - job.keys.count());
                rowTile(E, job.op, job.rows.find(last_first) orelse return, kv_head, scratch);
            }
        }
    };
    const job: Job = .{
        .op = op,
        .rows = try .of(op, op.documents, op.heads / op.kv_heads, run),
        .keys = try .of(op, op.documents, 1, run),
        .run = run,
    };
    run.forRanges(op.tokens, rowGrain(op.heads * op.head_dim), op, Delta(E).range);
    run.forEach((job.keys.count() + job.rows.count()) * op.kv_heads, &job, Job.task);
}

/// delta (H, T) = rowsum(d_out ∘ out).
fn Delta(comptime E: type) type {
    return struct {
        fn range(op: *const abi.ops.attention_backward, start: usize, end: usize) void {
            const D: usize = op.head_dim;
            for (start..end) |token| for (0..op.heads) |head| {
                const at = (token * op.heads + head) * D;
                var sum = vector.splat(0);
                var i: usize = 0;
                while (i < D) : (i += vector.lanes) {
                    const count = vector.left(i, D);
                    sum = @mulAdd(F, vector.loadSome(E, op.d_out.as(E) + at + i, count), vector.loadSome(E, op.out.as(E) + at + i, count), sum);
                }
                op.delta.as(f32)[head * op.tokens + token] = vector.sum(sum);
            };
        }
    };
}

/// dk and dv of one tile of keys. Scores are (row, key) here.
fn keyTile(comptime E: type, op: *const abi.ops.attention_backward, slot: Slots.Slot, kv_head: usize, s: *Scratch) void {
    const view = attention.viewOf(E, op, slot.start, kv_head);
    const D = view.head_dim;
    attention.loadRows(E, &s.held[0], view.keys + slot.first * view.key_stride, view.key_stride, D, slot.count, 1);
    attention.loadRows(E, &s.held[1], view.values + slot.first * view.value_stride, view.value_stride, D, slot.count, 1);
    for (&s.columns, &s.held) |*columns, *rows| attention.transposeRows(columns, rows, D, slot.count);
    for (&s.sums) |*sums| for (0..slot.count) |j| @memset(sums[j * stride ..][0..D], 0);

    const last_key = slot.first + slot.count - 1;
    const end = (if (view.window == 0) slot.length else @min(slot.length, last_key + view.window)) * view.group;
    var row = slot.first * view.group;
    while (row < end) : (row += walked) {
        const count = @min(walked, end - row);
        const keys = @min(slot.count, view.positionOf(row + count - 1) + 1 - slot.first); // later ones are seen by none of these
        const width = std.mem.alignForward(usize, keys, vector.lanes);
        loadRowTile(E, op, &view, slot, kv_head, row, count, &s.walked[0], &s.walked[1], s);
        tile.multiply(attention.along_head, count, width, D, &s.walked[0], attention.columnsOf(&s.columns[0], D), &s.scores, held, .set);
        tile.multiply(attention.along_head, count, width, D, &s.walked[1], attention.columnsOf(&s.columns[1], D), &s.d_scores, held, .set);
        scoreGradientsByRow(s, slot.first, width, count, view.window);
        tile.multiply(attention.along_walked, keys, D, count, &s.d_scores, attention.rowsOf(&s.walked[0]), &s.sums[0], stride, .add);
        tile.multiply(attention.along_walked, keys, D, count, &s.scores, attention.rowsOf(&s.walked[1]), &s.sums[1], stride, .add);
    }
    const row_stride = (@as(usize, op.heads) + 2 * op.kv_heads) * D;
    const to = op.d_qkv.as(E) + (slot.start + slot.first) * row_stride + (op.heads + kv_head) * D;
    for (0..slot.count) |j| {
        attention.storeRow(E, to + j * row_stride, s.sums[0][j * stride ..].ptr, D, 1);
        attention.storeRow(E, to + j * row_stride + op.kv_heads * D, s.sums[1][j * stride ..].ptr, D, 1);
    }
}

/// dq of one tile of query rows. Scores are (key, row) here, as in forward.
fn rowTile(comptime E: type, op: *const abi.ops.attention_backward, slot: Slots.Slot, kv_head: usize, s: *Scratch) void {
    const view = attention.viewOf(E, op, slot.start, kv_head);
    const D = view.head_dim;
    const width = std.mem.alignForward(usize, slot.count, vector.lanes);
    loadRowTile(E, op, &view, slot, kv_head, slot.first, slot.count, &s.held[0], &s.held[1], s);
    for (&s.columns, &s.held) |*columns, *rows| attention.transposeRows(columns, rows, D, slot.count);

    const earliest = view.positionOf(slot.first);
    const latest = view.positionOf(slot.first + slot.count - 1);
    const first_key = view.firstKey(earliest) / walked * walked;
    var key = first_key;
    while (key <= latest) : (key += walked) {
        const keys = @min(walked, latest + 1 - key);
        attention.loadRows(E, &s.walked[0], view.keys + key * view.key_stride, view.key_stride, D, keys, 1);
        attention.loadRows(E, &s.walked[1], view.values + key * view.value_stride, view.value_stride, D, keys, 1);
        tile.multiply(attention.along_head, keys, width, D, &s.walked[0], attention.columnsOf(&s.columns[0], D), &s.scores, held, .set);
        tile.multiply(attention.along_head, keys, width, D, &s.walked[1], attention.columnsOf(&s.columns[1], D), &s.d_scores, held, .set);
        if (key + keys - 1 > earliest or key < view.firstKey(latest)) attention.maskScores(&s.scores, key, keys, width, &s.positions, view.window);
        scoreGradientsByKey(s, keys, width);
        tile.multiply(attention.along_walked, slot.count, D, keys, &s.d_scores, attention.rowsOf(&s.walked[0]), &s.sums[0], stride, if (key == first_key) .set else .add);
    }
    const row_stride = (@as(usize, op.heads) + 2 * op.kv_heads) * D;
    const to = op.d_qkv.as(E) + slot.start * row_stride + kv_head * view.group * D;
    for (slot.first..slot.first + slot.count, 0..) |f, r| {
        attention.storeRow(E, to + f / view.group * row_stride + f % view.group * D, s.sums[0][r * stride ..].ptr, D, view.scale);
    }
}

/// Scaled queries, output gradients, lse, delta and positions of `count` rows.
fn loadRowTile(comptime E: type, op: *const abi.ops.attention_backward, view: *const attention.View(E), slot: Slots.Slot, kv_head: usize, row: usize, count: usize, q: [*]f32, d_out: [*]f32, s: *Scratch) void {
    const D = view.head_dim;
    const head = kv_head * view.group;
    const out_stride = @as(usize, op.heads) * D;
    attention.loadQueries(E, q, view.q, view.q_stride, view.group, D, row, count, view.scale);
    attention.loadQueries(E, d_out, op.d_out.as(E) + slot.start * out_stride + head * D, out_stride, view.group, D, row, count, 1);
    for (0..std.mem.alignForward(usize, count, vector.lanes)) |r| {
        const f = row + @min(r, count - 1);
        const at = (head + f % view.group) * op.tokens + slot.start + f / view.group;
        s.lse[r] = op.lse.as(f32)[at];
        s.delta[r] = op.delta.as(f32)[at];
        s.positions[r] = @intCast(f / view.group);
    }
}

/// scores (row, key) become p = exp(score − lse), masked; d_scores become p · (d_score − delta).
fn scoreGradientsByRow(s: *Scratch, key: usize, width: usize, count: usize, window: usize) void {
    const reach: I = @splat(if (window == 0) std.math.maxInt(i32) else @intCast(window));
    const iota: I = std.simd.iota(i32, vector.lanes);
    for (0..count) |r| {
        const lse = vector.splat(s.lse[r]);
        const delta = vector.splat(s.delta[r]);
        const position: I = @splat(s.positions[r]);
        var j: usize = 0;
        while (j < width) : (j += vector.lanes) {
            const at = s.scores[r * held + j ..].ptr;
            const d_at = s.d_scores[r * held + j ..].ptr;
            const behind = position - (@as(I, @splat(@intCast(key + j))) + iota);
            const p_all = vector.exp(vector.load(f32, at) - lse);
            const p = @select(f32, behind >= @as(I, @splat(0)), @select(f32, behind < reach, p_all, vector.splat(0)), vector.splat(0));
            vector.store(f32, at, p);
            vector.store(f32, d_at, p * (vector.load(f32, d_at) - delta));
        }
    }
}

/// The same for scores (key, row), already masked; p itself is not needed again.
fn scoreGradientsByKey(s: *Scratch, keys: usize, width: usize) void {
    var r: usize = 0;
    while (r < width) : (r += vector.lanes) {
        const lse = vector.load(f32, s.lse[r..].ptr);
        const delta = vector.load(f32, s.delta[r..].ptr);
        for (0..keys) |j| {
            const d_at = s.d_scores[j * held + r ..].ptr;
            const p = vector.exp(vector.load(f32, s.scores[j * held + r ..].ptr) - lse);
            vector.store(f32, d_at, p * (vector.load(f32, d_at) - delta));
        }
    }
}

const testing = std.testing;
const harness = @import("harness.zig");

const Shape = struct { starts: []const i32, heads: u32, kv_heads: u32, head_dim: u32, window: u32 = 0 };

test "attention forward, backward and cached against float64: documents, groups, windows, odd heads" {
    const shapes = [_]Shape{
        .{ .starts = &.{ 0, 1 }, .heads = 1, .kv_heads = 1, .head_dim = 32 },
        .{ .starts = &.{ 0, 5, 5, 70, 200 }, .heads = 4, .kv_heads = 2, .head_dim = 64 },
        .{ .starts = &.{ 0, 131 }, .heads = 6, .kv_heads = 2, .head_dim = 40 },
        .{ .starts = &.{ 0, 150, 300 }, .heads = 2, .kv_heads = 2, .head_dim = 72, .window = 9 },
        .{ .starts = &.{ 0, 290 }, .heads = 5, .kv_heads = 1, .head_dim = 20, .window = 100 },
        .{ .starts = &.{ 0, 64, 129 }, .heads = 2, .kv_heads = 1, .head_dim = 256 },
    };
    for (shapes) |shape| inline for (.{ abi.Dtype.float32, abi.Dtype.bfloat16 }) |dtype| try checkAttention(dtype, shape);
}

/// Softmax by its definition, one row at a time.
const Naive = struct { out: []f64, lse: []f64, d_qkv: []f64 };

fn naive(h: *harness.Harness, shape: Shape, qk: []const f64, qkv: []const f64, d_out: []const f64, scale: f64) !Naive {
    const D: usize = shape.head_dim;
    const H: usize = shape.heads;
    const K: usize = shape.kv_heads;
    const T: usize = @intCast(shape.starts[shape.starts.len - 1]);
    const result: Naive = .{ .out = try h.zeros(T * H * D), .lse = try h.zeros(H * T), .d_qkv = try h.zeros(T * (H + 2 * K) * D) };
    const p = try h.zeros(T);
    for (shape.starts[0 .. shape.starts.len - 1], shape.starts[1..]) |start, end| for (@intCast(start)..@intCast(end)) |t| for (0..H) |head| {
        const kv = head / (H / K);
        const q = qk[(t * (H + K) + head) * D ..][0..D];
        const first = @max(@as(usize, @intCast(start)), if (shape.window == 0) 0 else (t + 1) -| shape.window);
        var sum: f64 = 0;
        for (first..t + 1) |j| {
            var score: f64 = 0;
            for (q, qk[(j * (H + K) + H + kv) * D ..][0..D]) |a, b| score += a * b;
            p[j] = @exp(score * scale);
            sum += p[j];
        }
        result.lse[head * T + t] = @log(sum);
        const out = result.out[(t * H + head) * D ..][0..D];
        const d = d_out[(t * H + head) * D ..][0..D];
        var delta: f64 = 0;
        for (first..t + 1) |j| {
            p[j] /= sum;
            for (out, d, qkv[(j * (H + 2 * K) + H + K + kv) * D ..][0..D]) |*o, g, v| {
                o.* += p[j] * v;
                delta += p[j] * v * g;
            }
        }
        for (first..t + 1) |j| {
            const v = qkv[(j * (H + 2 * K) + H + K + kv) * D ..][0..D];
            const k = qk[(j * (H + K) + H + kv) * D ..][0..D];
            var d_p: f64 = 0;
            for (d, v) |g, value| d_p += g * value;
            const d_score = p[j] * (d_p - delta) * scale;
            const row = result.d_qkv[j * (H + 2 * K) * D ..];
            for (0..D) |i| {
                result.d_qkv[(t * (H + 2 * K) + head) * D + i] += d_score * k[i];
                row[(H + kv) * D + i] += d_score * q[i];
                row[(H + K + kv) * D + i] += p[j] * d[i];
            }
        }
    };
    return result;
}

fn checkAttention(comptime dtype: abi.Dtype, shape: Shape) !void {
    const E = vector.Element(dtype);
    const D: usize = shape.head_dim;
    const H: usize = shape.heads;
    const K: usize = shape.kv_heads;
    const T: usize = @intCast(shape.starts[shape.starts.len - 1]);
    const documents: u32 = @intCast(shape.starts.len - 1);
    const tokens: u32 = @intCast(T);
    const scale: f32 = 1 / @sqrt(@as(f32, @floatFromInt(D)));
    var first: []const E = &.{};
    for ([_]u32{ 1, 2 }) |workers| {
        var h = try harness.Harness.init(workers);
        defer h.deinit();
        const qk = try h.random(E, T * (H + K) * D, 1.5);
        const qkv = try h.random(E, T * (H + 2 * K) * D, 1);
        const d_out = try h.random(E, T * H * D, 1);
        const out = try h.poisoned(E, T * H * D);
        const lse = try h.poisoned(f32, H * T);
        const delta = try h.poisoned(f32, H * T);
        const d_qkv = try h.poisoned(E, qkv.len);
        const expected = try naive(&h, shape, try h.doubles(E, qk), try h.doubles(E, qkv), try h.doubles(E, d_out), scale);
        try h.run(.attention_forward, .{ .out = h.range(out), .lse = h.range(lse), .qk = h.range(qk), .qkv = h.range(qkv), .starts = h.range(shape.starts), .tokens = tokens, .heads = shape.heads, .kv_heads = shape.kv_heads, .head_dim = shape.head_dim, .documents = documents, .window = shape.window, .scale = scale, .dtype = dtype });
        try harness.expectClose(E, expected.out, out, harness.tolerance(E));
        try harness.expectClose(f32, expected.lse, lse, 1e-6);
        try h.run(.attention_backward, .{ .d_qkv = h.range(d_qkv), .delta = h.range(delta), .sums = h.range(@as([]f32, &.{})), .d_out = h.range(d_out), .out = h.range(out), .lse = h.range(lse), .qk = h.range(qk), .qkv = h.range(qkv), .starts = h.range(shape.starts), .tokens = tokens, .heads = shape.heads, .kv_heads = shape.kv_heads, .head_dim = shape.head_dim, .documents = documents, .window = shape.window, .scale = scale, .dtype = dtype });
        try harness.expectClose(E, expected.d_qkv, d_qkv, 2 * harness.tolerance(E));
        if (workers == 1) first = try testing.allocator.dupe(E, d_qkv) else {
            defer testing.allocator.free(first);
            try testing.expectEqualSlices(E, first, d_qkv);
        }
        try checkCached(dtype, &h, shape, qk, qkv, expected.out, scale);
    }
}

/// Brings the same documents to the cache in two calls: half of each, then the rest.
fn checkCached(comptime dtype: abi.Dtype, h: *harness.Harness, shape: Shape, qk: []const vector.Element(dtype), qkv: []const vector.Element(dtype), expected: []const f64, scale: f32) !void {
    const E = vector.Element(dtype);
    const D: usize = shape.head_dim;
    const H: usize = shape.heads;
    const K: usize = shape.kv_heads;
    const sequences = shape.starts.len - 1;
    const capacity = 300;
    const keys = try h.poisoned(E, sequences * capacity * K * D);
    const values = try h.poisoned(E, keys.len);
    const allocator = h.arena.allocator();
    const lengths = try allocator.alloc(i32, sequences);
    @memset(lengths, 0);
    for (0..2) |half| {
        const starts = try allocator.alloc(i32, sequences + 1);
        starts[0] = 0;
        var qk_part: std.ArrayList(E) = .empty;
        var qkv_part: std.ArrayList(E) = .empty;
        var expected_part: std.ArrayList(f64) = .empty;
        for (0..sequences) |b| {
            const begin: usize = @intCast(shape.starts[b]);
            const end: usize = @intCast(shape.starts[b + 1]);
            const middle = begin + (end - begin) / 2;
            const from, const to = if (half == 0) .{ begin, middle } else .{ middle, end };
            try qk_part.appendSlice(allocator, qk[from * (H + K) * D .. to * (H + K) * D]);
            try qkv_part.appendSlice(allocator, qkv[from * (H + 2 * K) * D .. to * (H + 2 * K) * D]);
            try expected_part.appendSlice(allocator, expected[from * H * D .. to * H * D]);
            starts[b + 1] = starts[b] + @as(i32, @intCast(to - from));
        }
        const tokens: u32 = @intCast(starts[sequences]);
        const out = try h.poisoned(E, tokens * H * D);
        const op = abi.arguments(.attention_cached, .{ .out = h.range(out), .keys = h.range(keys), .values = h.range(values), .qk = h.range(qk_part.items), .qkv = h.range(qkv_part.items), .starts = h.range(starts), .lengths = h.range(lengths), .tokens = tokens, .heads = shape.heads, .kv_heads = shape.kv_heads, .head_dim = shape.head_dim, .sequences = sequences, .capacity = capacity, .window = shape.window, .scale = scale, .dtype = dtype });
        if (tokens > 0) try h.run(.attention_cached, op);
        try harness.expectClose(E, expected_part.items, out, harness.tolerance(E));
        for (0..sequences) |b| lengths[b] += starts[b + 1] - starts[b];
        lengths[sequences - 1] += capacity + 1;
        try testing.expectEqual(1, try h.status(.attention_cached, op));
        lengths[sequences - 1] -= capacity + 1;
    }
}

test "wrong documents are named" {
    var h = try harness.Harness.init(1);
    defer h.deinit();
    const qk = try h.random(f32, 10 * 2 * 8, 1);
    const qkv = try h.random(f32, 10 * 3 * 8, 1);
    const out = try h.poisoned(f32, 10 * 8);
    const lse = try h.poisoned(f32, 10);
    const op = abi.arguments(.attention_forward, .{ .out = h.range(out), .lse = h.range(lse), .qk = h.range(qk), .qkv = h.range(qkv), .starts = h.range(&[_]i32{ 0, 9 }), .tokens = 10, .heads = 1, .kv_heads = 1, .head_dim = 8, .documents = 1, .window = 0, .scale = 1, .dtype = .float32 });
    try testing.expectEqual(1, try h.status(.attention_forward, op));
    try testing.expectEqualStrings("attention: documents cover 0..9, not 0..10", h.text());
}
