//! Launches q/k norm and RoPE, `cuda/rope.cu`.

const std = @import("std");
const abi = @import("../../abi.zig");
const shape = @import("shape.zig");
const launcher_module = @import("launcher.zig");
const Launcher = launcher_module.Launcher;
const Error = launcher_module.Error;

const k = @import("shapes.zig").rope;
const reduce = @import("shapes.zig").reduce;
const head_dim_max = 1024;

pub fn qkRopeForward(launcher: *Launcher, a: *const abi.ops.qk_rope_forward) Error!void {
    if (a.tokens == 0) return;
    const heads = try headsOf(launcher, a);
    if (isFast(a, .{ a.qk, a.qkv, a.q_weight, a.k_weight, a.table })) {
        const units = a.tokens * (shape.divideUp(a.heads, k.forward_heads) + shape.divideUp(a.kv_heads, k.forward_heads));
        return launcher.run("qk_rope_forward", .{ try shape.blocks(launcher, units, headsAtOnce(a, k.forward_threads)), 1, 1 }, k.forward_threads, 0, a, .{});
    }
    return launcher.run("qk_rope_forward_any", .{ try shape.blocks(launcher, heads, k.threads / launcher.properties.warp), 1, 1 }, k.threads, 0, a, .{});
}

/// Blocks are divided between q and k in proportion to their heads.
pub fn qkRopeBackward(launcher: *Launcher, a: *const abi.ops.qk_rope_backward) Error!void {
    const warps = k.threads / launcher.properties.warp;
    // The fast kernel has no register left for an offset (Gemma's norms).
    const fast = a.offset == 0 and isFast(a, .{ a.d_qkv, a.qkv, a.q_weight, a.k_weight, a.table });
    const at_once: u64 = if (fast) headsAtOnce(a, k.backward_threads) else warps;
    const taken: u32 = if (fast) k.backward_heads else 1;
    const wanted = launcher.properties.multiprocessors * @as(u32, if (fast) k.backward_blocks else 3);
    const heads = a.heads + a.kv_heads;
    const q_blocks = blocksFor(a.tokens * shape.divideUp(a.heads, taken), at_once, wanted * a.heads / heads);
    const k_blocks = blocksFor(a.tokens * shape.divideUp(a.kv_heads, taken), at_once, wanted * a.kv_heads / heads);
    if (a.tokens > 0) {
        _ = try headsOf(launcher, a);
        const grid: [3]u32 = .{ q_blocks + k_blocks, 1, 1 };
        if (fast) {
            try launcher.run("qk_rope_backward", grid, k.backward_threads, 0, a, .{q_blocks});
        } else {
            try launcher.run("qk_rope_backward_any", grid, k.threads, warps * a.head_dim * @sizeOf(f32), a, .{q_blocks});
        }
    }
    if (!a.q_weight.present()) return;
    const parts: [2]u32 = if (a.tokens > 0) .{ q_blocks, k_blocks } else .{ 0, 0 };
    try launcher.run("qk_rope_backward__reduce", .{ try shape.blocks(launcher, a.head_dim, reduce.partial_columns), 2, 1 }, reduce.partial_threads, 0, a, .{ parts[0], parts[1] });
}

fn blocksFor(groups: u64, at_once: u64, wanted: u32) u32 {
    return @intCast(@min(@max(1, wanted), @max(1, shape.divideUp(groups, at_once))));
}

fn headsAtOnce(a: anytype, block: u32) u32 {
    return block / (a.head_dim / 16);
}

/// All heads of all tokens; kernels count them in 32 bits.
fn headsOf(launcher: *Launcher, a: anytype) Error!u64 {
    if (a.head_dim % 2 != 0 or a.head_dim > head_dim_max) return launcher.fail("head_dim must be even and at most {d} (is {d})", .{ head_dim_max, a.head_dim });
    const heads = @as(u64, a.tokens) * (a.heads + a.kv_heads);
    if (heads >= 1 << 31) return launcher.fail("{d} tokens of {d} heads are too many for one micro-batch; use fewer tokens", .{ a.tokens, a.heads + a.kv_heads });
    return heads;
}

/// Whether lanes of a warp can share heads in vectors.
fn isFast(a: anytype, ranges: anytype) bool {
    return a.head_dim >= 16 and a.head_dim <= k.fast_head_dim_max and std.math.isPowerOfTwo(a.head_dim) and shape.aligned(16, ranges);
}
