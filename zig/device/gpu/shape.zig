//! What launch functions choose grids and kernels by: how many blocks, and whether ranges can be walked in vectors.

const std = @import("std");
const launcher_module = @import("launcher.zig");
const Launcher = launcher_module.Launcher;

const blocks_max = (1 << 31) - 1;

/// Blocks for `count` things when each block takes `per_block`.
pub fn blocks(launcher: *Launcher, count: u64, per_block: u64) launcher_module.Error!u32 {
    const needed = divideUp(count, per_block);
    if (needed > blocks_max) return launcher.fail("an op on {d} values needs {d} blocks; a grid has at most {d}", .{ count, needed, blocks_max });
    return @intCast(needed);
}

pub fn divideUp(count: u64, by: u64) u64 {
    return (count + by - 1) / by;
}

/// Whether all ranges start at multiples of `bytes`; an absent range does.
pub fn aligned(bytes: u64, ranges: anytype) bool {
    inline for (ranges) |range| {
        if (@intFromPtr(range.address) % bytes != 0) return false;
    }
    return true;
}

/// Whether rows of `width` bfloat16 values are whole 16-byte words in all ranges.
pub fn wholeRows(width: u32, ranges: anytype) bool {
    return width % 8 == 0 and aligned(16, ranges);
}

/// The smallest block of whole warps with a thread for each of `threads`, and at most `max`.
pub fn block(launcher: *const Launcher, threads: u64, max: u32) u32 {
    const warp = launcher.properties.warp;
    return @intCast(@min(max, @max(1, divideUp(threads, warp)) * warp));
}

/// How work over rows is cut when each block leaves a partial sum of `width` float32 in the workspace: as many blocks as
/// keep the card busy, and no more than the workspace holds.
pub const Parts = struct {
    count: u32,
    each: u32,

    /// `wanted` parts of at least one of `items` each.
    pub fn of(launcher: *const Launcher, items: u64, wanted: u64, width: u64) Parts {
        const fitting = launcher.workspace_bytes / (@sizeOf(f32) * @max(1, width));
        const limit = @max(1, @min(wanted, fitting));
        const each = @max(1, divideUp(items, limit));
        return .{ .count = @intCast(divideUp(items, each)), .each = @intCast(each) };
    }
};
