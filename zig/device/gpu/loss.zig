//! Launches cross-entropy, `cuda/loss.cu`: blocks that go through the rows, and keep as much of a row on the
//! chip as fits.

const abi = @import("../../abi.zig");
const shape = @import("shape.zig");
const launcher_module = @import("launcher.zig");
const Launcher = launcher_module.Launcher;
const Error = launcher_module.Error;

const k = @import("shapes.zig").loss;
/// Shared memory that the kernel's own sums take, and some to spare.
const shared_reserve = 1 << 10;

pub fn crossEntropy(launcher: *Launcher, a: *const abi.ops.cross_entropy) Error!void {
    if (a.rows == 0) return;
    const vectors = shape.divideUp(a.vocabulary, 8);
    if (!shape.wholeRows(a.vocabulary, .{a.logits})) {
        return launcher.run("cross_entropy_any", .{ a.rows, 1, 1 }, shape.block(launcher, vectors, k.threads_max / 2), 0, a, .{});
    }
    // Two smaller blocks share a multiprocessor where a row leaves room for two.
    const block = shape.block(launcher, vectors, if (a.vocabulary > 64 << 10) k.threads_max else k.threads_max / 2);
    const room = (launcher.properties.shared_bytes_max -| shared_reserve) / 16;
    const wanted = vectors -| k.kept * block;
    const shared: u32 = @intCast(@min(room, wanted));
    // As many blocks as can be at work, each of which reads its next row while it writes this one.
    const blocks = @min(a.rows, launcher.properties.multiprocessors * (k.threads_max / block));
    return launcher.run("cross_entropy", .{ blocks, 1, 1 }, block, shared * 16, a, .{shared});
}
