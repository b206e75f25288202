//! What the kernels' tests share: a pool, memory with guard values, seeded random numbers, and comparison with limits.

const std = @import("std");
const abi = @import("../../abi.zig");
const ops = @import("ops.zig");
const lengths = @import("../../lengths.zig");
const workers = @import("../../workers.zig");
const vector = @import("vector.zig");

pub const Harness = struct {
    pool: *workers.Workers,
    arena: std.heap.ArenaAllocator,
    random_numbers: std.Random.DefaultPrng,
    message: workers.Message = .{},

    pub fn init(count: u32) !Harness {
        return .{
            .pool = try .create(count, workers.scratch_bytes_needed),
            .arena = .init(std.heap.c_allocator),
            .random_numbers = .init(20260607),
        };
    }
    pub fn deinit(h: *Harness) void {
        h.pool.destroy();
        h.arena.deinit();
    }

    /// The ranges of `values` may be of any range type; they must be as long as the op declares.
    pub fn run(h: *Harness, comptime op: abi.Op, values: anytype) !void {
        if (try h.status(op, values) == 0) return;
        std.debug.print("{s}: {s}\n", .{ @tagName(op), h.text() });
        return error.OpFailed;
    }
    pub fn status(h: *Harness, comptime op: abi.Op, values: anytype) !i32 {
        h.message = .{};
        const arguments = abi.arguments(op, values);
        if (lengths.problem(op, &arguments, 1, &h.message.text)) |problem| {
            std.debug.print("{s}\n", .{problem});
            return error.OtherLength;
        }
        return ops.run(op, &arguments, &h.pool.pool, &h.message);
    }
    pub fn text(h: *const Harness) []const u8 {
        return h.message.text[0..h.message.length];
    }

    /// Outputs start as NaN, so that a value that is not written or wrongly read shows.
    pub fn poisoned(h: *Harness, comptime E: type, count: usize) ![]E {
        const values = try h.arena.allocator().alignedAlloc(E, .@"64", count);
        @memset(std.mem.sliceAsBytes(values), 0xff);
        return values;
    }
    /// Normal numbers, rounded to E.
    pub fn random(h: *Harness, comptime E: type, count: usize, deviation: f32) ![]E {
        const values = try h.poisoned(E, count);
        for (values) |*value| {
            const number = h.random_numbers.random().floatNorm(f32) * deviation;
            value.* = if (E == u16) vector.fromFloat(u16, number) else @floatCast(number);
        }
        return values;
    }
    pub fn integers(h: *Harness, count: usize, limit: i32) ![]i32 {
        const values = try h.poisoned(i32, count);
        for (values) |*value| value.* = h.random_numbers.random().intRangeLessThan(i32, 0, limit);
        return values;
    }
    pub fn copyOf(h: *Harness, values: anytype) !@TypeOf(values) {
        const copy = try h.poisoned(std.meta.Elem(@TypeOf(values)), values.len);
        @memcpy(copy, values);
        return copy;
    }
    pub fn doubles(h: *Harness, comptime E: type, values: []const E) ![]f64 {
        const result = try h.arena.allocator().alloc(f64, values.len);
        for (values, result) |value, *to| to.* = vector.toFloat(E, value);
        return result;
    }
    pub fn zeros(h: *Harness, count: usize) ![]f64 {
        const result = try h.arena.allocator().alloc(f64, count);
        @memset(result, 0);
        return result;
    }

    /// The bytes of a slice.
    pub fn range(_: *Harness, values: anytype) abi.Bytes {
        const bytes = std.mem.sliceAsBytes(values);
        return .{ .address = @constCast(bytes.ptr), .bytes = bytes.len };
    }
};

/// ‖a − b‖ / ‖b‖ must be at most `limit`.
pub fn expectClose(comptime E: type, reference: []const f64, values: []const E, limit: f64) !void {
    try std.testing.expectEqual(reference.len, values.len);
    var difference: f64 = 0;
    var norm: f64 = 0;
    for (reference, values) |a, b| {
        const value: f64 = vector.toFloat(E, b);
        difference += (value - a) * (value - a);
        norm += a * a;
    }
    const relative = @sqrt(difference / @max(norm, 1e-30));
    if (relative <= limit) return; // false for NaN too
    std.debug.print("relative error {e}, limit {e}\n", .{ relative, limit });
    return error.TooFar;
}

/// The relative error that one rounding to E may bring, with room for float32 sums.
pub fn tolerance(comptime E: type) f64 {
    return if (E == f32) 1e-6 else 4e-3;
}
