//! Causal grouped-query attention with online softmax (FlashAttention-2, Dao 2023), for training and for generation. Memory is
//! linear in length: a task holds one tile of queries and walks the keys it can see, tile by tile.
//!
//! All query heads that share a key head are handled together: row f of a document is head f % group of token f / group, so a
//! tile of 128 rows reads each key once for the whole group. Scores are kept transposed, (key, row): the maximum and the
//! sum over keys are then plain vector operations, and neither keys nor values need a transpose on their way in.
//!
//! Tiles start at the document's start, so a document's result does not depend on its neighbours. Read next:
//! `attention_backward.zig`.

const std = @import("std");
const abi = @import("../../abi.zig");
const vector = @import("vector.zig");
const tile = @import("tile.zig");
const Run = @import("run.zig").Run;
const F = vector.F;
const I = vector.I;

/// Rows (or keys) that a task holds, and how many keys (or rows) it takes at a time from those it walks.
pub const held = 128;
pub const walked = 64;
pub const head_dim_max = 256;
/// Values per row of a tile in scratch: one vector more than the largest head, so that rows fall into different cache sets.
pub const stride = head_dim_max + 16;
/// Products with A's rows in a tile: scores (k runs along the head), and sums over what is walked.
pub const along_head: tile.Strides = .{ .row = stride, .k = 1 };
pub const along_walked: tile.Strides = .{ .row = 1, .k = held };

pub const HeldRows = [held * stride]f32;
pub const WalkedRows = [walked * stride]f32;
/// The held rows transposed, in panels of `tile.columns` rows.
pub const HeldColumns = [held * head_dim_max]f32;
pub const Scores = [walked * held]f32; // (walked, held)

/// Softmax of a row starts below every score, but finite, so that a fully masked tile gives zeros and not NaN.
const lowest = -1e30;

/// One sequence and one key head, as a task sees them. Pointers are at the sequence's first token and the group's first head.
pub fn View(comptime E: type) type {
    return struct {
        q: [*]const E,
        q_stride: usize,
        keys: [*]const E,
        key_stride: usize,
        values: [*]const E,
        value_stride: usize,
        group: usize,
        head_dim: usize,
        /// The position of query token 0 among the keys.
        first_position: usize,
        window: usize,
        scale: f32,

        const Self = @This();

        pub fn positionOf(view: *const Self, row: usize) usize {
            return view.first_position + row / view.group;
        }
        /// The first key that a query at `position` sees.
        pub fn firstKey(view: *const Self, position: usize) usize {
            return if (view.window == 0 or position < view.window) 0 else position + 1 - view.window;
        }
    };
}

const Scratch = extern struct {
    q: HeldRows align(64),
    kv: WalkedRows align(64),
    out: HeldRows align(64),
    q_columns: HeldColumns align(64),
    scores: Scores align(64),
    highest: [held]f32 align(64),
    sums: [held]f32 align(64),
    factors: [held]f32 align(64),
    positions: [held]i32 align(64),
};
comptime {
    std.debug.assert(@sizeOf(Scratch) <= @import("../../workers.zig").scratch_bytes_needed);
}

/// out (T, H·D) and lse (H, T).
pub fn attentionForward(comptime E: type, op: *const abi.ops.attention_forward, run: Run) !void {
    const slots = try Slots.of(op, op.documents, op.heads / op.kv_heads, run);
    const Job = struct {
        op: *const abi.ops.attention_forward,
        slots: Slots,
        run: Run,

        fn task(job: *const @This(), index: usize, worker: u32) void {
            const o = job.op;
            const kv_head = index % o.kv_heads;
            const slot = job.slots.find(job.slots.count() - 1 - index / o.kv_heads) orelse return; // long rows first
            const view = viewOf(E, o, slot.start, kv_head);
            const head = kv_head * view.group;
            const out: Output(E) = .{
                .out = o.out.as(E) + (slot.start * o.heads + head) * view.head_dim,
                .stride = @as(usize, o.heads) * view.head_dim,
                .lse = o.lse.as(f32) + head * o.tokens + slot.start,
                .lse_stride = o.tokens,
            };
            forwardTile(E, &view, out, slot.first, slot.count, @ptrCast(job.run.scratch(u8, worker).ptr));
        }
    };
    run.forEach(slots.count() * op.kv_heads, &Job{ .op = op, .slots = slots, .run = run }, Job.task);
}

/// The training layout: q and k in qk, v in qkv.
pub fn viewOf(comptime E: type, op: anytype, start: usize, kv_head: usize) View(E) {
    const D: usize = op.head_dim;
    const heads: usize = op.heads;
    const group = heads / op.kv_heads;
    const qk_stride = (heads + op.kv_heads) * D;
    const qkv_stride = (heads + 2 * op.kv_heads) * D;
    return .{
        .q = op.qk.as(E) + start * qk_stride + kv_head * group * D,
        .q_stride = qk_stride,
        .keys = op.qk.as(E) + start * qk_stride + (heads + kv_head) * D,
        .key_stride = qk_stride,
        .values = op.qkv.as(E) + start * qkv_stride + (heads + op.kv_heads + kv_head) * D,
        .value_stride = qkv_stride,
        .group = group,
        .head_dim = D,
        .first_position = 0,
        .window = op.window,
        .scale = op.scale,
    };
}

/// Attention for generation: appends keys and values to the cache, then attends over it.
pub fn attentionCached(comptime E: type, op: *const abi.ops.attention_cached, run: Run) !void {
    const slots = try Slots.of(op, op.sequences, op.heads / op.kv_heads, run);
    for (op.lengths.as(i32)[0..op.sequences], 0..) |length, b| {
        const added: i64 = op.starts.as(i32)[b + 1] - op.starts.as(i32)[b];
        if (length >= 0 and length + added <= op.capacity) continue;
        return run.fail("attention_cached: sequence {} would grow from {} to {} tokens, the cache holds {}", .{ b, length, length + added, op.capacity });
    }
    const Job = struct {
        op: *const abi.ops.attention_cached,
        slots: Slots,
        run: Run,

        fn append(job: *const @This(), b: usize, _: u32) void {
            const o = job.op;
            const D: usize = o.head_dim;
            const width = o.kv_heads * D;
            const first: usize = @intCast(o.starts.as(i32)[b]);
            const length: usize = @intCast(o.lengths.as(i32)[b]);
            for (first..@intCast(o.starts.as(i32)[b + 1])) |token| {
                const to = (b * o.capacity + length + token - first) * width;
                @memcpy(o.keys.as(E)[to..][0..width], o.qk.as(E)[(token * (o.heads + o.kv_heads) + o.heads) * D ..][0..width]);
                @memcpy(o.values.as(E)[to..][0..width], o.qkv.as(E)[(token * (o.heads + 2 * o.kv_heads) + o.heads + o.kv_heads) * D ..][0..width]);
            }
        }
        fn task(job: *const @This(), index: usize, worker: u32) void {
            const o = job.op;
            const kv_head = index % o.kv_heads;
            const slot = job.slots.find(job.slots.count() - 1 - index / o.kv_heads) orelse return;
            var view = viewOf(E, o, slot.start, kv_head);
            const cache = slot.document * o.capacity * o.kv_heads * view.head_dim + kv_head * view.head_dim;
            view.keys = o.keys.as(E) + cache;
            view.values = o.values.as(E) + cache;
            view.key_stride = o.kv_heads * view.head_dim;
            view.value_stride = view.key_stride;
            view.first_position = @intCast(o.lengths.as(i32)[slot.document]);
            const out: Output(E) = .{
                .out = o.out.as(E) + (slot.start * o.heads + kv_head * view.group) * view.head_dim,
                .stride = @as(usize, o.heads) * view.head_dim,
                .lse = null,
                .lse_stride = 0,
            };
            forwardTile(E, &view, out, slot.first, slot.count, @ptrCast(job.run.scratch(u8, worker).ptr));
        }
    };
    const job: Job = .{ .op = op, .slots = slots, .run = run };
    run.forEach(op.sequences, &job, Job.append);
    run.forEach(slots.count() * op.kv_heads, &job, Job.task);
}

fn Output(comptime E: type) type {
    return struct { out: [*]E, stride: usize, lse: ?[*]f32, lse_stride: usize };
}

/// `count` rows from `first` on: all their keys, and the finished output.
fn forwardTile(comptime E: type, view: *const View(E), to: Output(E), first: usize, count: usize, s: *Scratch) void {
    const D = view.head_dim;
    const width = std.mem.alignForward(usize, count, vector.lanes);
    loadQueries(E, &s.q, view.q, view.q_stride, view.group, D, first, count, view.scale);
    transposeRows(&s.q_columns, &s.q, D, count);
    for (&s.positions, 0..) |*position, r| position.* = @intCast(view.positionOf(first + @min(r, count - 1)));
    @memset(&s.highest, lowest);
    @memset(&s.sums, 0);

    const earliest = view.positionOf(first);
    const latest = view.positionOf(first + count - 1);
    const first_key = view.firstKey(earliest) / walked * walked;
    var key = first_key;
    while (key <= latest) : (key += walked) {
        const keys = @min(walked, latest + 1 - key);
        loadRows(E, &s.kv, view.keys + key * view.key_stride, view.key_stride, D, keys, 1);
        tile.multiply(along_head, keys, width, D, &s.kv, columnsOf(&s.q_columns, D), &s.scores, held, .set);
        if (key + keys - 1 > earliest or key < view.firstKey(latest)) maskScores(&s.scores, key, keys, width, &s.positions, view.window);
        const changed = softmaxTile(s, keys, width);
        if (changed and key != first_key) scaleRows(s, D, count);
        loadRows(E, &s.kv, view.values + key * view.value_stride, view.value_stride, D, keys, 1);
        tile.multiply(along_walked, count, D, keys, &s.scores, rowsOf(&s.kv), &s.out, stride, if (key == first_key) .set else .add);
    }
    for (0..count) |r| {
        const token = (first + r) / view.group;
        const head = (first + r) % view.group;
        storeRow(E, to.out + token * to.stride + head * D, s.out[r * stride ..].ptr, D, 1 / s.sums[r]);
        if (to.lse) |lse| lse[head * to.lse_stride + token] = s.highest[r] + @log(s.sums[r]);
    }
}

/// scores (key, row): −∞ where the key is after the row's position or before its window.
pub fn maskScores(scores: *Scores, key: usize, keys: usize, width: usize, positions: *const [held]i32, window: usize) void {
    const reach: I = @splat(if (window == 0) std.math.maxInt(i32) else @intCast(window));
    for (0..keys) |j| {
        const at: I = @splat(@intCast(key + j));
        var r: usize = 0;
        while (r < width) : (r += vector.lanes) {
            const behind = vector.raw(i32, positions[r..].ptr) - at; // 0 for the row's own position
            const score = vector.load(f32, scores[j * held + r ..].ptr);
            const seen = @select(f32, behind < reach, score, vector.splat(-std.math.inf(f32)));
            vector.store(f32, scores[j * held + r ..].ptr, @select(f32, behind >= @as(I, @splat(0)), seen, vector.splat(-std.math.inf(f32))));
        }
    }
}

/// Scores become exp(score − highest so far); says whether earlier sums must be scaled by `factors`.
fn softmaxTile(s: *Scratch, keys: usize, width: usize) bool {
    var changed = false;
    var r: usize = 0;
    while (r < width) : (r += vector.lanes) {
        const before = vector.load(f32, s.highest[r..].ptr);
        var highest = before;
        for (0..keys) |j| highest = @max(highest, vector.load(f32, s.scores[j * held + r ..].ptr));
        const factor = vector.exp(before - highest);
        var sum = vector.load(f32, s.sums[r..].ptr) * factor;
        for (0..keys) |j| {
            const p = vector.exp(vector.load(f32, s.scores[j * held + r ..].ptr) - highest);
            vector.store(f32, s.scores[j * held + r ..].ptr, p);
            sum += p;
        }
        vector.store(f32, s.highest[r..].ptr, highest);
        vector.store(f32, s.factors[r..].ptr, factor);
        vector.store(f32, s.sums[r..].ptr, sum);
        changed = changed or @reduce(.Or, factor != vector.splat(1));
    }
    return changed;
}

fn scaleRows(s: *Scratch, D: usize, count: usize) void {
    for (0..count) |r| {
        const factor = vector.splat(s.factors[r]);
        const row = s.out[r * stride ..].ptr;
        var i: usize = 0;
        while (i < D) : (i += vector.lanes) vector.store(f32, row + i, vector.load(f32, row + i) * factor);
    }
}

// ---- tiles in and out, shared with backward -------------------------------------------------------------------------

/// `count` rows of D values as float32, times `factor`; zero from D up to a whole vector.
pub fn loadRows(comptime E: type, to: [*]f32, from: [*]const E, from_stride: usize, D: usize, count: usize, factor: f32) void {
    for (0..count) |r| loadRow(E, to + r * stride, from + r * from_stride, D, factor);
}
/// The same for rows of a group: row f is head f % group of token f / group.
pub fn loadQueries(comptime E: type, to: [*]f32, from: [*]const E, token_stride: usize, group: usize, D: usize, first: usize, count: usize, factor: f32) void {
    for (first..first + count, 0..) |f, r| {
        loadRow(E, to + r * stride, from + f / group * token_stride + f % group * D, D, factor);
    }
}
inline fn loadRow(comptime E: type, to: [*]f32, from: [*]const E, D: usize, factor: f32) void {
    var i: usize = 0;
    while (i < D) : (i += vector.lanes) {
        vector.store(f32, to + i, vector.loadSome(E, from + i, vector.left(i, D)) * vector.splat(factor));
    }
}
pub inline fn storeRow(comptime E: type, to: [*]E, from: [*]const f32, D: usize, factor: f32) void {
    var i: usize = 0;
    while (i < D) : (i += vector.lanes) {
        vector.storeSome(E, to + i, vector.load(f32, from + i) * vector.splat(factor), vector.left(i, D));
    }
}

/// The first `count` held rows transposed, in panels; zero beyond, up to a whole vector.
pub fn transposeRows(columns: *HeldColumns, rows: *const HeldRows, D: usize, count: usize) void {
    var r: usize = 0;
    while (r < count) : (r += vector.lanes) {
        const panel = columns[r / tile.columns * tile.columns * D + r % tile.columns ..].ptr;
        var d: usize = 0;
        while (d < D) : (d += vector.lanes) {
            var square: [vector.lanes]F = undefined;
            for (&square, r..) |*line, row| line.* = if (row < count) vector.load(f32, rows[row * stride + d ..].ptr) else vector.splat(0);
            vector.transpose(&square);
            for (square[0..vector.left(d, D)], d..) |line, column| vector.store(f32, panel + column * tile.columns, line);
        }
    }
}

/// Tiles as the right side of a product.
pub fn columnsOf(columns: *const HeldColumns, D: usize) tile.Right {
    return .{ .values = columns, .stride = tile.columns, .panel = tile.columns * D };
}
pub fn rowsOf(rows: [*]const f32) tile.Right {
    return .{ .values = rows, .stride = stride, .panel = tile.columns };
}

/// The tiles of all documents, numbered without a table: document d's tiles start at number start·per_token / held + d, which
/// leaves room for each document's last, partial tile; the numbers in between have no tile.
pub const Slots = struct {
    starts: []const i32,
    per_token: usize,

    /// `document`'s rows first..first + count; `start` is its first token.
    pub const Slot = struct { document: usize, start: usize, length: usize, first: usize, count: usize };

    pub fn of(op: anytype, documents: usize, per_token: usize, run: Run) !Slots {
        const name = "attention";
        if (op.head_dim > head_dim_max) return run.fail(name ++ ": head_dim must be at most {} (is {})", .{ head_dim_max, op.head_dim });
        const starts = op.starts.as(i32)[0 .. documents + 1];
        if (starts[0] != 0 or starts[documents] != op.tokens) return run.fail(name ++ ": documents cover {}..{}, not 0..{}", .{ starts[0], starts[documents], op.tokens });
        for (starts[0..documents], starts[1..], 0..) |start, end, document| {
            if (end < start) return run.fail(name ++ ": document {} ends at {}, before its start at {}", .{ document, end, start });
        }
        return .{ .starts = starts, .per_token = per_token };
    }

    pub fn count(slots: Slots) usize {
        return slots.numberOf(slots.starts.len - 1);
    }
    fn numberOf(slots: Slots, document: usize) usize {
        return @as(usize, @intCast(slots.starts[document])) * slots.per_token / held + document;
    }

    pub fn find(slots: Slots, number: usize) ?Slot {
        var low: usize = 0;
        var high = slots.starts.len - 1;
        while (high - low > 1) {
            const middle = (low + high) / 2;
            if (slots.numberOf(middle) <= number) low = middle else high = middle;
        }
        const start: usize = @intCast(slots.starts[low]);
        const length = @as(usize, @intCast(slots.starts[low + 1])) - start;
        const first = (number - slots.numberOf(low)) * held;
        if (first >= length * slots.per_token) return null;
        return .{ .document = low, .start = start, .length = length, .first = first, .count = @min(held, length * slots.per_token - first) };
    }
};

const testing = std.testing;

test "slots cover every row of every document once" {
    const starts = [_]i32{ 0, 0, 1, 64, 65, 65, 193, 1000 };
    for ([_]usize{ 1, 3, 8 }) |per_token| {
        const slots: Slots = .{ .starts = &starts, .per_token = per_token };
        var seen: [1000 * 8]u32 = @splat(0);
        for (0..slots.count()) |number| {
            const slot = slots.find(number) orelse continue;
            for (slot.first..slot.first + slot.count) |row| seen[slot.start * per_token + row] += 1;
        }
        for (seen[0 .. 1000 * per_token]) |times| try testing.expectEqual(1, times);
    }
}
