//! What an op gets besides its arguments: the pool it splits its work over, and a place for an error's text.

const std = @import("std");
const workers = @import("../../workers.zig");

pub const Failed = error{Failed};

pub const Run = struct {
    pool: *const workers.Pool,
    message: *workers.Message,

    /// Calls body(context, index, worker) for every index below `tasks`, in any order, on any worker. What a task computes must
    /// depend on its index only: that is why results do not change with the number of workers.
    pub fn forEach(run: Run, tasks: usize, context: anytype, comptime body: fn (@TypeOf(context), usize, u32) void) void {
        const Trampoline = struct {
            fn call(argument: *const anyopaque, index: u32, worker: u32) callconv(.c) void {
                body(@ptrCast(@alignCast(@constCast(argument))), index, worker);
            }
        };
        run.pool.parallel_for(run.pool.context, @intCast(tasks), Trampoline.call, context);
    }

    /// Calls body(context, start, end) over 0..count in pieces of `grain`.
    pub fn forRanges(run: Run, count: usize, grain: usize, context: anytype, comptime body: fn (@TypeOf(context), usize, usize) void) void {
        const Ranges = struct {
            count: usize,
            grain: usize,
            context: @TypeOf(context),
            fn call(ranges: *const @This(), index: usize, _: u32) void {
                const start = index * ranges.grain;
                body(ranges.context, start, @min(start + ranges.grain, ranges.count));
            }
        };
        const ranges: Ranges = .{ .count = count, .grain = grain, .context = context };
        run.forEach(std.math.divCeil(usize, count, grain) catch unreachable, &ranges, Ranges.call);
    }

    /// A worker's scratch as values of T.
    pub fn scratch(run: Run, comptime T: type, worker: u32) []align(64) T {
        const bytes = run.pool.scratch_of(run.pool.context, worker);
        return @as([*]align(64) T, @ptrCast(bytes))[0 .. run.pool.scratch_bytes / @sizeOf(T)];
    }

    /// Fails unless every index names one of `rows` rows; increasing ones each a later row than the one before.
    pub fn checkRows(run: Run, what: []const u8, indexes: []const i32, rows: u64, comptime order: enum { any, increasing }) Failed!void {
        for (indexes, 0..) |index, at| {
            if (index < 0 or index >= rows) return run.fail("{s} {} is {}, of {} rows", .{ what, at, index, rows });
            if (order == .increasing and at > 0 and index <= indexes[at - 1]) return run.fail("{s} {} is {}, behind {}", .{ what, at, index, indexes[at - 1] });
        }
    }

    /// The world's mistake: the step stops with this text.
    pub fn fail(run: Run, comptime format: []const u8, arguments: anytype) Failed {
        const text = std.fmt.bufPrint(&run.message.text, format, arguments) catch &run.message.text;
        run.message.length = @intCast(text.len);
        return error.Failed;
    }
};

/// Rows per task so that a task touches about 64 Ki values: a few microseconds of work, far above the cost of a task.
pub fn rowGrain(width: usize) usize {
    return @max(1, (64 << 10) / @max(1, width));
}
