//! A pool of threads that split one command. The caller takes part, so a pool of one has no thread at all.
//!
//! Tasks are handed out one at a time by an atomic counter, so a slow or preempted thread only delays the task it holds.
//! A thread that wakes too late to help is never waited for: the caller closes the job when the tasks have run out and
//! waits only for those who entered. That keeps small commands fast when several pools share few cores.
//!
//! Kernels see a pool only through the extern `Pool`, because they are compiled apart (once per CPU level).
//! Promise to kernels: `parallel_for` returns after every task has returned, with its writes visible to the caller.

const std = @import("std");
const c = std.c;

/// What kernels see of a pool.
pub const Pool = extern struct {
    context: *anyopaque,
    /// Threads that take part in `parallel_for`, the caller included.
    count: u32,
    scratch_bytes: u64,
    parallel_for: *const fn (context: *anyopaque, tasks: u32, task: Task, argument: *const anyopaque) callconv(.c) void,
    /// A worker's own memory, 64-byte aligned; its contents last for one task. Between two `parallel_for` calls the
    /// caller may use worker 0's scratch to hold partial sums, as long as the tasks do not use theirs.
    scratch_of: *const fn (context: *anyopaque, worker: u32) callconv(.c) [*]align(64) u8,
};
pub const Task = *const fn (argument: *const anyopaque, index: u32, worker: u32) callconv(.c) void;
pub const Message = extern struct { length: u32 = 0, text: [252]u8 = undefined };

/// What every kernel can do with: the tiles of a matrix product and of attention. See `device/cpu/gemm.zig`.
pub const scratch_bytes_needed: u64 = 2 << 20;

/// A helper looks for work this many times before it sleeps, about 10 µs: the gap between two commands of a stream. Longer
/// would steal time from the other pool when both share two cores.
const spins = 200;

pub const Workers = struct {
    pool: Pool,
    threads: []c.pthread_t,
    scratch: []align(alignment) u8,

    // The job. Written by the caller while the gate is closed and empty, read by those who entered.
    task: Task = undefined,
    argument: *const anyopaque = undefined,
    tasks: u32 = 0,
    next: std.atomic.Value(u32) = .init(0),
    /// Counts jobs, so that a helper does not enter the same job twice.
    generation: std.atomic.Value(u32) = .init(0),
    /// `open` while tasks may be left, plus the number of helpers inside.
    gate: std.atomic.Value(u32) = .init(0),

    mutex: c.pthread_mutex_t = .{},
    work: c.pthread_cond_t = .{},
    done: c.pthread_cond_t = .{},
    sleepers: std.atomic.Value(u32) = .init(0),
    caller_sleeps: std.atomic.Value(bool) = .init(false),
    stopping: std.atomic.Value(bool) = .init(false),
    entered: std.atomic.Value(u32) = .init(0),

    const open: u32 = 1 << 31;
    const alignment = 2 << 20; // whole huge pages where the system has them

    /// A pool of `count` threads, the caller included, each with `scratch_bytes` of scratch.
    pub fn create(count: u32, scratch_bytes: u64) error{ OutOfMemory, ThreadFailed }!*Workers {
        std.debug.assert(count >= 1);
        const allocator = std.heap.c_allocator;
        const stride = std.mem.alignForward(u64, scratch_bytes, 4096) + 832; // staggered: see device/cpu/adamw.zig on aliasing
        const self = try allocator.create(Workers);
        errdefer allocator.destroy(self);
        const scratch = try allocate(stride * count);
        errdefer c.free(scratch.ptr);
        const threads = try allocator.alloc(c.pthread_t, count - 1);
        errdefer allocator.free(threads);

        self.* = .{
            .pool = .{ .context = self, .count = count, .scratch_bytes = stride, .parallel_for = parallelFor, .scratch_of = scratchOf },
            .threads = threads,
            .scratch = scratch,
        };
        for (threads, 0..) |*thread, index| {
            if (c.pthread_create(thread, null, main, self) == .SUCCESS) continue;
            self.threads = threads[0..index];
            self.stop();
            return error.ThreadFailed;
        }
        return self;
    }

    pub fn destroy(self: *Workers) void {
        const allocator = std.heap.c_allocator;
        self.stop();
        _ = c.pthread_mutex_destroy(&self.mutex);
        _ = c.pthread_cond_destroy(&self.work);
        _ = c.pthread_cond_destroy(&self.done);
        allocator.free(self.threads);
        c.free(self.scratch.ptr);
        allocator.destroy(self);
    }

    fn stop(self: *Workers) void {
        _ = c.pthread_mutex_lock(&self.mutex);
        self.stopping.store(true, .seq_cst);
        _ = c.pthread_cond_broadcast(&self.work);
        _ = c.pthread_mutex_unlock(&self.mutex);
        for (self.threads) |thread| _ = c.pthread_join(thread, null);
    }

    fn scratchOf(context: *anyopaque, worker: u32) callconv(.c) [*]align(64) u8 {
        const self: *Workers = @ptrCast(@alignCast(context));
        return @alignCast(self.scratch.ptr + worker * self.pool.scratch_bytes);
    }

    /// Runs task(argument, index, worker) for every index below `tasks`. One caller at a time.
    fn parallelFor(context: *anyopaque, tasks: u32, task: Task, argument: *const anyopaque) callconv(.c) void {
        const self: *Workers = @ptrCast(@alignCast(context));
        if (tasks <= 1 or self.pool.count == 1) {
            for (0..tasks) |index| task(argument, @intCast(index), 0);
            return;
        }
        self.task = task;
        self.argument = argument;
        self.tasks = tasks;
        self.next.store(0, .monotonic);
        self.entered.store(0, .monotonic);
        _ = self.generation.fetchAdd(1, .monotonic);
        self.gate.store(open, .seq_cst);
        self.wake(tasks - 1);

        self.runTasks(0);
        if (self.gate.fetchAnd(~open, .seq_cst) != open) self.awaitHelpers();
    }

    fn wake(self: *Workers, wanted: u32) void {
        if (self.sleepers.load(.seq_cst) == 0) return;
        _ = c.pthread_mutex_lock(&self.mutex);
        for (0..@min(wanted, self.sleepers.load(.seq_cst))) |_| _ = c.pthread_cond_signal(&self.work);
        _ = c.pthread_mutex_unlock(&self.mutex);
    }

    fn runTasks(self: *Workers, worker: u32) void {
        while (true) {
            const index = self.next.fetchAdd(1, .monotonic);
            if (index >= self.tasks) return;
            self.task(self.argument, index, worker);
        }
    }

    fn awaitHelpers(self: *Workers) void {
        for (0..spins) |_| {
            if (self.gate.load(.acquire) == 0) return;
            std.atomic.spinLoopHint();
        }
        _ = c.pthread_mutex_lock(&self.mutex);
        self.caller_sleeps.store(true, .seq_cst);
        while (self.gate.load(.seq_cst) != 0) _ = c.pthread_cond_wait(&self.done, &self.mutex);
        self.caller_sleeps.store(false, .seq_cst);
        _ = c.pthread_mutex_unlock(&self.mutex);
    }

    fn main(context: ?*anyopaque) callconv(.c) ?*anyopaque {
        const self: *Workers = @ptrCast(@alignCast(context.?));
        var seen: u32 = 0;
        while (true) {
            if (self.enter(seen)) {
                seen = self.generation.load(.monotonic);
                const worker = 1 + self.entered.fetchAdd(1, .monotonic);
                self.runTasks(worker);
                self.leave();
            }
            if (!self.awaitWork(seen)) return null;
        }
    }

    fn available(self: *Workers, seen: u32) bool {
        return self.gate.load(.seq_cst) & open != 0 and self.generation.load(.monotonic) != seen;
    }

    /// Counts this helper into the open job, unless it has been there.
    fn enter(self: *Workers, seen: u32) bool {
        var gate = self.gate.load(.acquire);
        while (gate & open != 0) {
            gate = self.gate.cmpxchgWeak(gate, gate + 1, .acq_rel, .acquire) orelse {
                if (self.generation.load(.monotonic) != seen) return true;
                self.leave();
                return false;
            };
        }
        return false;
    }

    fn leave(self: *Workers) void {
        if (self.gate.fetchSub(1, .seq_cst) != 1) return;
        if (!self.caller_sleeps.load(.seq_cst)) return;
        _ = c.pthread_mutex_lock(&self.mutex);
        _ = c.pthread_cond_signal(&self.done);
        _ = c.pthread_mutex_unlock(&self.mutex);
    }

    /// Returns true when there may be a new job, false when the pool stops.
    fn awaitWork(self: *Workers, seen: u32) bool {
        for (0..spins) |_| {
            if (self.available(seen)) return true;
            if (self.stopping.load(.monotonic)) return false;
            std.atomic.spinLoopHint();
        }
        _ = c.pthread_mutex_lock(&self.mutex);
        defer _ = c.pthread_mutex_unlock(&self.mutex);
        _ = self.sleepers.fetchAdd(1, .seq_cst);
        defer _ = self.sleepers.fetchSub(1, .seq_cst);
        while (!self.available(seen)) {
            if (self.stopping.load(.seq_cst)) return false;
            _ = c.pthread_cond_wait(&self.work, &self.mutex);
        }
        return true;
    }
};

fn allocate(bytes: u64) error{OutOfMemory}![]align(Workers.alignment) u8 {
    var address: ?*anyopaque = null;
    if (c.posix_memalign(&address, Workers.alignment, bytes) != 0) return error.OutOfMemory;
    const memory: [*]align(Workers.alignment) u8 = @ptrCast(@alignCast(address.?));
    if (@import("builtin").os.tag == .linux) _ = c.madvise(memory, bytes, c.MADV.HUGEPAGE);
    return memory[0..bytes];
}

const testing = std.testing;

test "every task runs once, on pools of one and of several, many times over" {
    for ([_]u32{ 1, 2, 5 }) |count| {
        const workers = try Workers.create(count, 4096);
        defer workers.destroy();
        const Marks = struct {
            marks: [64]std.atomic.Value(u32),
            fn mark(argument: *const anyopaque, index: u32, worker: u32) callconv(.c) void {
                const self: *@This() = @ptrCast(@alignCast(@constCast(argument)));
                std.debug.assert(worker < 5);
                _ = self.marks[index].fetchAdd(1, .monotonic);
            }
        };
        var marks: Marks = .{ .marks = @splat(.init(0)) };
        for (0..5000) |_| workers.pool.parallel_for(workers.pool.context, 64, Marks.mark, &marks);
        for (&marks.marks) |*mark| try testing.expectEqual(5000, mark.load(.monotonic));
    }
}

test "scratch areas are aligned and do not overlap" {
    const workers = try Workers.create(3, 1000);
    defer workers.destroy();
    for (0..2) |index| {
        const low = @intFromPtr(workers.pool.scratch_of(workers.pool.context, @intCast(index)));
        const high = @intFromPtr(workers.pool.scratch_of(workers.pool.context, @intCast(index + 1)));
        try testing.expect(high - low >= 1000 and low % 64 == 0);
    }
}
