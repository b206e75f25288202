//! Launches attention: `cuda/attention.cu`, `cuda/attention_backward.cu` and `cuda/attention_cached.cu`, whose tiles these shapes repeat.
//!
//! Where a document ends is known on the device alone, so a grid covers every tile that the documents could have: tiles
//! start at a document's start, and T tokens in B documents have at most T / rows + B of them. A block without a tile ends at once.
//! On Hopper, `attention_hopper.zig` has the kernels of training. Kernels are chosen by the head dim that they pad to, by alignment (`any` takes all) and by the vendor's shared memory.

const std = @import("std");
const abi = @import("../../abi.zig");
const hopper = @import("attention_hopper.zig");
const shape_module = @import("shape.zig");
const launcher_module = @import("launcher.zig");
const Launcher = launcher_module.Launcher;
const Error = launcher_module.Error;

/// A kernel's tile: warps of a block, rows that a tile holds, rows that it walks at a time.
const Shape = struct {
    warps: u32,
    held: u32,
    walked: u32,
};

/// The head dim that a kernel pads to; `any` pads to 256 and takes rows that do not start at multiples of 16 bytes.
const Width = enum {
    d64,
    d128,
    d256,
    any,

    fn of(head_dim: u32, vectors: bool) Width {
        if (!vectors) return .any;
        return if (head_dim <= 64) .d64 else if (head_dim <= 128) .d128 else .d256;
    }
    fn columns(width: Width) u32 {
        return switch (width) {
            .d64 => 64,
            .d128 => 128,
            .d256, .any => 256,
        };
    }
};

/// Multiprocessors with this much shared memory hold two blocks of the wide kernels.
const wide_shared_bytes = 160 * 1024;

fn isAmd(launcher: *const Launcher) bool {
    return launcher.properties.capability == 0;
}
fn isWide(launcher: *const Launcher) bool {
    return launcher.properties.shared_bytes_max >= wide_shared_bytes and !isAmd(launcher);
}
/// How many walked tiles shared memory holds: `copy_stages` of `matrix.cuh`.
fn stages(launcher: *const Launcher) u32 {
    return if (isAmd(launcher)) 1 else 2;
}

pub fn attentionForward(launcher: *Launcher, a: *const abi.ops.attention_forward) Error!void {
    if (a.tokens == 0) return;
    try check(launcher, a);
    if (hopper.takes(launcher, a, .{ a.out, a.qk, a.qkv })) return hopper.attentionForward(launcher, a);
    const width = Width.of(a.head_dim, shape_module.wholeRows(a.head_dim, .{ a.out, a.qk, a.qkv }));
    const wide = width == .d128 and isWide(launcher);
    const shape: Shape = switch (width) {
        .d64 => .{ .warps = 4, .held = 64 * stages(launcher), .walked = 64 },
        .d128 => if (wide) .{ .warps = 4, .held = 128, .walked = 32 } else .{ .warps = 4, .held = 64, .walked = 32 * stages(launcher) },
        .d256, .any => .{ .warps = 4, .held = 64, .walked = 16 },
    };
    const grid = try gridOf(launcher, a.heads, a.tokens, a.documents, shape.held, 1);
    const shared = (shape.held + 2 * shape.walked) * rowBytes(width, stages(launcher));
    if (wide) return launch(launcher, "attention_forward_d128_wide", grid, shape, shared, a);
    return switch (width) {
        inline else => |w| launch(launcher, "attention_forward_" ++ @tagName(w), grid, shape, shared, a),
    };
}

pub fn attentionBackward(launcher: *Launcher, a: *const abi.ops.attention_backward) Error!void {
    if (a.tokens == 0) return;
    try check(launcher, a);
    if (hopper.takes(launcher, a, .{ a.d_qkv, a.d_out, a.out, a.qk, a.qkv })) return hopper.attentionBackward(launcher, a);
    try launcher.run("attention_backward__delta", .{ a.heads, @intCast(shape_module.divideUp(a.tokens, 64)), 1 }, 128, 0, a, .{});

    const vectors = shape_module.wholeRows(a.head_dim, .{ a.d_qkv, a.sums, a.d_out, a.qk, a.qkv });
    if (vectors and try attentionBackwardJoint(launcher, a)) return;
    const width = Width.of(a.head_dim, vectors);
    const many = stages(launcher);
    const keys = keyShape(width, many);
    var key_grid = try gridOf(launcher, a.kv_heads, a.tokens, a.documents, keys.held, 1);
    if (width.columns() == 256) key_grid[2] = @intCast(shape_module.divideUp(a.head_dim, 64 * many)); // parts of the columns
    const key_shared = keyShared(width, many);
    switch (width) {
        inline else => |w| try launch(launcher, "attention_backward__dkv_" ++ @tagName(w), key_grid, keys, key_shared, a),
    }

    const wide = width == .d128 and isWide(launcher);
    const rows = rowShape(width, many, wide);
    const row_grid = try gridOf(launcher, a.heads, a.tokens, a.documents, rows.held, 1);
    const row_shared = rowShared(width, many, wide);
    if (wide) return launch(launcher, "attention_backward_dq_d128_wide", row_grid, rows, row_shared, a);
    return switch (width) {
        inline else => |w| launch(launcher, "attention_backward_dq_" ++ @tagName(w), row_grid, rows, row_shared, a),
    };
}

/// Five products in one walk, where there are sums for dq and shared memory for it: `cuda/attention_joint.cuh`. Says whether it was launched.
fn attentionBackwardJoint(launcher: *Launcher, a: *const abi.ops.attention_backward) Error!bool {
    if (!a.sums.present() or isAmd(launcher)) return false;
    inline for (.{
        .{ "attention_backward_joint_d64", 64, Joint.of(64, 2, 64) },
        .{ "attention_backward_joint_d128_wide", 128, Joint.of(128, 2, 64) },
        .{ "attention_backward_joint_d128", 128, Joint.of(128, 1, 32) },
    }) |entry| {
        const kernel, const head_dim, const joint = entry;
        if (a.head_dim == head_dim and joint.shared <= launcher.properties.shared_bytes_max) {
            try launchJoint(launcher, kernel, joint, a);
            return true;
        }
    }
    return false;
}

/// A tile of 128 keys; `walked` rows at a time.
const Joint = struct {
    walked: u32,
    shared: u32,

    /// Keys and values, two stages of q, one of d_out for each half, scores' gradients and, with two halves, P; lse and delta of two
    /// stages; thread 0's two words.
    fn of(head_dim: u32, halves: u32, walked: u32) Joint {
        return .{ .walked = walked, .shared = 2 * ((2 * 128 + (2 + halves) * walked) * head_dim + halves * 128 * walked) + 16 * walked + 8 };
    }
};

fn launchJoint(launcher: *Launcher, comptime kernel: [:0]const u8, joint: Joint, a: *const abi.ops.attention_backward) Error!void {
    const words = 1 + a.heads * (@as(u64, a.tokens) / joint.walked + a.documents); // a ticket, and a turn for each tile of rows
    if (4 * words > launcher.workspace_bytes) return launcher.fail("attention: {} tokens in {} documents of {} heads take {} words for turns, more than fit; use a smaller micro-batch", .{ a.tokens, a.documents, a.heads, words });
    try launcher.zero(launcher.workspace, 4 * words);
    const blocks = try shape_module.blocks(launcher, (@as(u64, a.tokens) / 128 + a.documents) * a.kv_heads, 1);
    return launcher.run(kernel, .{ blocks, 1, 1 }, 8 * launcher.properties.warp, joint.shared, a, .{});
}

// `many` is the number of stages: AMD's kernels have one, and half the warps.

fn keyShape(width: Width, many: u32) Shape {
    return switch (width) {
        .d64 => .{ .warps = 4 * many, .held = 64 * many, .walked = 32 },
        .d128 => .{ .warps = 4 * many, .held = 64 * many, .walked = 16 * many },
        .d256, .any => .{ .warps = 2 * many, .held = 32 * many, .walked = 16 },
    };
}
fn rowShape(width: Width, many: u32, wide: bool) Shape {
    return switch (width) {
        .d64 => .{ .warps = 4, .held = 64 * many, .walked = 32 },
        .d128 => .{ .warps = if (wide) 4 else 4 * many, .held = 64 * many, .walked = 32 },
        .d256, .any => .{ .warps = 2 * many, .held = 32 * many, .walked = 16 },
    };
}
/// Two held tiles and two walked ones, these as often as there are stages; with the walked rows' lse and delta.
fn keyShared(width: Width, many: u32) u32 {
    const shape = keyShape(width, many);
    return 2 * (shape.held + many * shape.walked) * rowBytes(width, many) + many * 2 * shape.walked * 4;
}
fn rowShared(width: Width, many: u32, wide: bool) u32 {
    const shape = rowShape(width, many, wide);
    return 2 * (shape.held + many * shape.walked) * rowBytes(width, many);
}
/// Of a shared tile; `tile_stride` of `matrix.cuh`.
fn rowBytes(width: Width, many: u32) u32 {
    return (width.columns() + @as(u32, if (many == 1) 8 else 0)) * 2;
}

pub fn attentionCached(launcher: *Launcher, a: *const abi.ops.attention_cached) Error!void {
    if (a.tokens == 0) return;
    try check(launcher, a);
    try launcher.run("attention_cached__append", .{ a.tokens, 1, 1 }, 256, 0, a, .{});

    const width = Width.of(a.head_dim, shape_module.wholeRows(a.head_dim, .{ a.out, a.qk, a.keys, a.values }));
    const shape: Shape = switch (width) {
        .d64 => .{ .warps = 4, .held = 64, .walked = 64 },
        .d128 => .{ .warps = 4, .held = 64, .walked = 32 * stages(launcher) },
        .d256, .any => .{ .warps = 4, .held = 64, .walked = 16 },
    };
    const grid = try gridOf(launcher, a.kv_heads, a.tokens, a.sequences, shape.held, a.heads / a.kv_heads);
    const shared = (shape.held + 2 * shape.walked) * rowBytes(width, stages(launcher));
    return switch (width) {
        inline else => |w| launch(launcher, "attention_cached_" ++ @tagName(w), grid, shape, shared, a),
    };
}

fn launch(launcher: *Launcher, comptime kernel: [:0]const u8, grid: [3]u32, shape: Shape, shared: u32, a: anytype) Error!void {
    return launcher.run(kernel, grid, shape.warps * launcher.properties.warp, shared, a, .{});
}

fn check(launcher: *Launcher, a: anytype) Error!void {
    if (a.dtype != .bfloat16) return launcher.fail("attention: a GPU computes in bfloat16 (dtype is {s}); set dtype to bfloat16", .{@tagName(a.dtype)});
    if (a.head_dim == 0 or a.head_dim > 256) return launcher.fail("attention: head_dim must be at most 256 (is {})", .{a.head_dim});
    if (a.kv_heads == 0 or a.heads % a.kv_heads != 0) return launcher.fail("attention: {} query heads are not a multiple of {} key heads", .{ a.heads, a.kv_heads });
}

/// Heads by tile numbers; `per_token` is how many rows of a tile one token has.
fn gridOf(launcher: *Launcher, heads: u32, tokens: u32, documents: u32, held: u32, per_token: u32) Error![3]u32 {
    const tiles = @as(u64, tokens) * per_token / held + documents;
    const tiles_max = 65535; // of a grid's second dimension
    if (tiles > tiles_max) return launcher.fail("attention: {} tokens in {} documents make {} tiles of rows, more than {}; use a smaller micro-batch", .{ tokens, documents, tiles, tiles_max });
    return .{ heads, @intCast(tiles), 1 };
}

const testing = std.testing;

test "tiles of backward fit into shared memory: 99 KB on small NVIDIA cards, 64 KB on AMD" {
    for ([_]Width{ .d64, .d128, .d256, .any }) |width| for ([_]u32{ 1, 2 }) |many| {
        const limit: u32 = if (many == 1) 64 * 1024 else 99 * 1024;
        try testing.expect(keyShared(width, many) <= limit);
        try testing.expect(rowShared(width, many, many == 2) <= limit);
    };
    for ([_]Joint{ .of(64, 2, 64), .of(128, 1, 32) }) |joint| try testing.expect(joint.shared <= 99 * 1024);
    try testing.expect(Joint.of(128, 2, 64).shared <= 163 * 1024); // sm_80
}
