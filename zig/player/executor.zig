//! Plays plans on native threads: one each for compute, upload, download and disk (`in_order.zig`), and one that hands the
//! commands of the host stream to a pool of workers (`host.zig`). With a GPU the first three only enqueue (`gpu.zig`).
//!
//! A command is its own event: it is done once, and any later command may wait for it, also one of a later plan, because
//! ids count on from plan to plan. The in-order streams take their commands one after another; the host stream takes,
//! among those whose waits are done, the one with the earliest deadline (lowest number, then lowest id).
//!
//! The first command that fails wins. From then on every stream skips what is left of all plans in flight, so that the
//! step ends quickly and cleanly; when nothing runs any more the failure is reported and the next plan may come. A
//! cancellation is such a failure without a command. JavaScript is told through a descriptor it reads: a write after each
//! command that asked for it, and after a failure has drained.
//!
//! Read next: `in_order.zig`, `device/device.zig` (what a command does).

const std = @import("std");
const abi = @import("../abi.zig");
const sync = @import("../sync.zig");
const decode = @import("../decode.zig");
const last_error = @import("../last_error.zig");
const gpu = @import("gpu.zig");
const host = @import("host.zig");
const in_order = @import("in_order.zig");
const Memory = @import("../memory.zig").Memory;
const workers = @import("../workers.zig");

const plans_max = 4;
const failure_waits = 2;
const stream_count = @typeInfo(abi.Stream).@"enum".fields.len;
const allocator = std.heap.c_allocator;

/// `enqueued`: on a GPU's stream, and not known to be done.
pub const State = enum(u8) { pending, done, skipped, enqueued };

pub fn ended(state: State) bool {
    return state == .done or state == .skipped;
}

/// Start and end of a command, nanoseconds on the monotonic clock.
pub const Span = extern struct { start: u64, end: u64 };

pub const Plan = struct {
    base: u64,
    decoded: decode.Plan,
    states: []std.atomic.Value(State),
    /// Commands that have not ended.
    remaining: std.atomic.Value(u32),
    /// Threads that are walking this plan.
    visitors: std.atomic.Value(u32) = .init(0),
    /// Per stream, the indexes of its commands in order.
    order: [stream_count][]u32,
    spans: []Span,
    /// With a GPU: the place in its stream of each command that is enqueued. Else empty.
    sequences: []u64,

    /// Nobody will touch this plan again.
    fn left(plan: *Plan) bool {
        return plan.remaining.load(.acquire) == 0 and plan.visitors.load(.acquire) == 0;
    }

    fn destroy(plan: *Plan) void {
        for (plan.order) |list| allocator.free(list);
        allocator.free(plan.states);
        allocator.free(plan.spans);
        allocator.free(plan.sequences);
        plan.decoded.deinit();
        allocator.destroy(plan);
    }
};

pub const Failure = struct { command: u64, cancelled: bool, text: [512]u8, length: u32 };

pub const Executor = struct {
    memory: *Memory,
    /// The CPU device computes with one pool and the host stream with another: both run at once, as they do with a GPU.
    compute_pool: *workers.Workers,
    host_pool: *workers.Workers,
    /// For the copy and disk streams: the calling thread alone.
    single_pool: *workers.Workers,
    /// Where JavaScript hears that something happened.
    notify_descriptor: c_int,

    mutex: sync.Mutex = .{},
    changed: sync.Condition = .{},
    sleepers: std.atomic.Value(u32) = .init(0),
    plans: [plans_max]?*Plan = @splat(null),
    /// No id from here on has been submitted.
    submitted_below: u64 = 1,
    failing: std.atomic.Value(bool) = .init(false),
    failure: ?Failure = null,
    stopping: bool = false,
    threads: [stream_count]std.Thread = undefined,
    gpu_streams: ?*gpu.Streams = null,
    /// For tests: a command id that fails instead of running, and random pauses before commands.
    injected: std.atomic.Value(u64) = .init(0),
    jitter_us: u32 = 0,
    jitter_seed: u64 = 0,
    /// Busy time per stream since the start, nanoseconds.
    busy_ns: [stream_count]std.atomic.Value(u64) = @splat(.init(0)),

    pub fn create(memory: *Memory, worker_count: u32, scratch_bytes: u64, notify_descriptor: c_int) !*Executor {
        const executor = try allocator.create(Executor);
        errdefer allocator.destroy(executor);
        const compute_pool = try workers.Workers.create(worker_count, scratch_bytes);
        errdefer compute_pool.destroy();
        const host_pool = try workers.Workers.create(worker_count, scratch_bytes);
        errdefer host_pool.destroy();
        const single_pool = try workers.Workers.create(1, 4096);
        errdefer single_pool.destroy();
        executor.* = .{ .memory = memory, .compute_pool = compute_pool, .host_pool = host_pool, .single_pool = single_pool, .notify_descriptor = notify_descriptor };
        const queues = memory.device.queues();
        if (queues) |present| {
            executor.gpu_streams = try gpu.Streams.create(present);
            executor.gpu_streams.?.tracker = try std.Thread.spawn(.{}, gpu.track, .{executor});
        }
        for (&executor.threads, 0..) |*thread, index| {
            const stream: abi.Stream = @enumFromInt(index);
            thread.* = try if (stream == .host)
                std.Thread.spawn(.{}, host.play, .{executor})
            else if (queues != null and gpu.isGpuStream(stream))
                std.Thread.spawn(.{}, gpu.play, .{ executor, stream })
            else
                std.Thread.spawn(.{}, in_order.play, .{ executor, stream });
        }
        return executor;
    }

    /// Skips what is left, waits for the threads and frees everything but the buffers.
    pub fn destroy(executor: *Executor) void {
        executor.fail(0, true, "the engine was closed");
        executor.mutex.lock();
        executor.stopping = true;
        executor.changed.broadcast();
        executor.mutex.unlock();
        for (executor.threads) |thread| thread.join();
        if (executor.gpu_streams) |streams| {
            executor.mutex.lock();
            streams.stopping = true;
            executor.changed.broadcast();
            executor.mutex.unlock();
            streams.tracker.join(); // ends when the GPU has nothing left to do
            streams.destroy();
        }
        for (executor.plans) |slot| if (slot) |plan| plan.destroy();
        executor.compute_pool.destroy();
        executor.host_pool.destroy();
        executor.single_pool.destroy();
        allocator.destroy(executor);
    }

    /// Takes an encoded plan whose commands get the ids base, base + 1, …; checks all of it before anything runs. Returns 1
    /// when the plan is refused, and `failure_waits` when a failure has to be taken first.
    pub fn submit(executor: *Executor, base: u64, count: u32, words: []const u32) i32 {
        executor.mutex.lock();
        defer executor.mutex.unlock();
        if (executor.failing.load(.acquire)) {
            last_error.set("a plan failed and its failure was not taken yet", .{});
            return failure_waits;
        }
        if (executor.gpu_streams) |streams| if (streams.device.lost.load(.acquire))
            return last_error.fail("the GPU's context broke in an earlier plan; close the engine and open it again", .{});
        if (base < executor.submitted_below) return last_error.fail("plan starts at command {d}, the last one ended at {d}", .{ base, executor.submitted_below });
        const slot = executor.freeSlot() orelse return last_error.fail("{d} plans are in flight already; wait for one to end", .{plans_max});
        if (slot.*) |oldest| oldest.destroy();
        slot.* = null;
        slot.* = executor.load(base, count, words) catch |problem| {
            if (problem == error.OutOfMemory) last_error.set("out of memory for a plan of {d} commands", .{count});
            return 1;
        };
        executor.submitted_below = base + count;
        executor.changed.broadcast();
        return 0;
    }

    /// Of the plans that are over, the oldest gives way: the spans of the later ones may still be asked for.
    fn freeSlot(executor: *Executor) ?*?*Plan {
        var free: ?*?*Plan = null;
        for (&executor.plans) |*slot| {
            const plan = slot.* orelse return slot;
            if (plan.left() and (free == null or plan.base < free.?.*.?.base)) free = slot;
        }
        return free;
    }

    fn load(executor: *Executor, base: u64, count: u32, words: []const u32) !*Plan {
        var decoded = try decode.plan(executor.memory, base, count, words);
        errdefer decoded.deinit();
        const plan = try allocator.create(Plan);
        errdefer allocator.destroy(plan);
        const states = try allocator.alloc(std.atomic.Value(State), count);
        for (states) |*state| state.* = .init(.pending);
        var order: [stream_count][]u32 = undefined;
        for (&order, 0..) |*list, stream| {
            var length: usize = 0;
            for (decoded.commands) |command| length += @intFromBool(@intFromEnum(command.stream) == stream);
            list.* = try allocator.alloc(u32, length);
            length = 0;
            for (decoded.commands, 0..) |command, index| if (@intFromEnum(command.stream) == stream) {
                list.*[length] = @intCast(index);
                length += 1;
            };
        }
        const spans = try allocator.alloc(Span, count);
        @memset(spans, .{ .start = 0, .end = 0 });
        const sequences = try allocator.alloc(u64, if (executor.gpu_streams == null) 0 else count);
        plan.* = .{ .base = base, .decoded = decoded, .states = states, .remaining = .init(count), .order = order, .spans = spans, .sequences = sequences };
        return plan;
    }

    /// Whether a command is done, was skipped, or is still to come. A plan that is gone was done, or skipped in a failure
    /// that has been reported; it may well be younger than one that is still here, because host commands linger.
    pub fn stateOf(executor: *Executor, id: u64) State {
        if (executor.planOf(id)) |plan| return plan.states[id - plan.base].load(.acquire);
        return if (id < executor.submitted_below) .done else .pending;
    }

    pub fn planOf(executor: *Executor, id: u64) ?*Plan {
        for (executor.plans) |slot| {
            const plan = slot orelse continue;
            if (id >= plan.base and id - plan.base < plan.states.len) return plan;
        }
        return null;
    }

    /// Blocks until the command is done or skipped, or the time is up (false).
    pub fn waitFor(executor: *Executor, id: u64, timeout_ms: u32) bool {
        const end = sync.now() + @as(u64, timeout_ms) * std.time.ns_per_ms;
        while (!ended(executor.lockedState(id))) {
            if (sync.now() >= end) return false;
            var pause: std.c.timespec = .{ .sec = 0, .nsec = 50 * std.time.ns_per_us };
            _ = std.c.nanosleep(&pause, null);
        }
        return true;
    }

    pub fn lockedState(executor: *Executor, id: u64) State {
        executor.mutex.lock();
        defer executor.mutex.unlock();
        return executor.stateOf(id);
    }

    /// No command runs or is to come, so buffers are nobody's.
    pub fn idle(executor: *Executor) bool {
        for (executor.plans) |slot| if (slot) |plan| {
            if (plan.remaining.load(.acquire) != 0) return false;
        };
        return true;
    }

    /// Idle, and no thread is walking a plan any more.
    fn atRest(executor: *Executor) bool {
        for (executor.plans) |slot| if (slot) |plan| {
            if (!plan.left()) return false;
        };
        return true;
    }

    /// The failure, once nothing runs any more; taking it makes the executor ready for the next plan.
    pub fn takeFailure(executor: *Executor) ?Failure {
        executor.mutex.lock();
        defer executor.mutex.unlock();
        if (!executor.failing.load(.acquire) or !executor.atRest()) return null;
        const failure = executor.failure;
        executor.failure = null;
        executor.failing.store(false, .release);
        for (&executor.plans) |*slot| if (slot.*) |plan| {
            plan.destroy();
            slot.* = null;
        };
        return failure;
    }

    /// Remembers the first failure and lets every stream run dry.
    pub fn fail(executor: *Executor, command: u64, cancelled: bool, text: []const u8) void {
        executor.mutex.lock();
        defer executor.mutex.unlock();
        if (executor.failing.load(.acquire)) return;
        var failure: Failure = .{ .command = command, .cancelled = cancelled, .text = undefined, .length = @intCast(@min(text.len, 512)) };
        @memcpy(failure.text[0..failure.length], text[0..failure.length]);
        executor.failure = failure;
        executor.failing.store(true, .release);
        executor.changed.broadcast();
        if (executor.atRest()) executor.notify();
    }

    pub fn copySpans(executor: *Executor, base: u64, spans: []Span) bool {
        executor.mutex.lock();
        defer executor.mutex.unlock();
        for (executor.plans) |slot| {
            const plan = slot orelse continue;
            if (plan.base != base or plan.spans.len != spans.len) continue;
            @memcpy(spans, plan.spans);
            return true;
        }
        return false;
    }

    // ---- threads ----------------------------------------------------------------------------------------------------

    /// The oldest plan that starts at or after `id`; waits for one. Null when the engine closes.
    pub fn nextPlan(executor: *Executor, id: u64) ?*Plan {
        executor.mutex.lock();
        defer executor.mutex.unlock();
        while (!executor.stopping) {
            var oldest: ?*Plan = null;
            for (executor.plans) |slot| if (slot) |plan| {
                if (plan.base >= id and (oldest == null or plan.base < oldest.?.base)) oldest = plan;
            };
            if (oldest) |plan| {
                _ = plan.visitors.fetchAdd(1, .acq_rel); // this thread reads the plan until `leave`
                return plan;
            }
            executor.changed.wait(&executor.mutex); // plans come and the engine closes with the mutex held
        }
        return null;
    }

    pub fn leave(executor: *Executor, plan: *Plan) void {
        _ = plan.visitors.fetchSub(1, .acq_rel);
        if (executor.failing.load(.acquire)) executor.announceFailure();
    }

    /// Runs a command on the calling thread.
    pub fn play(executor: *Executor, plan: *Plan, index: u32, pool: *const workers.Pool) void {
        const command = &plan.decoded.commands[index];
        const id = plan.base + index;
        var state: State = .skipped;
        if (!executor.failing.load(.acquire)) {
            executor.pauseForTest(id);
            var text: [512]u8 = undefined;
            const start = sync.now();
            const problem = executor.execute(command, id, pool, &text);
            const end = sync.now();
            plan.spans[index] = .{ .start = start, .end = end };
            _ = executor.busy_ns[@intFromEnum(command.stream)].fetchAdd(end - start, .monotonic);
            if (problem) |words| executor.fail(id, false, words) else state = .done;
        }
        executor.finish(plan, index, state);
    }

    /// A command is done, or will not be.
    pub fn finish(executor: *Executor, plan: *Plan, index: u32, state: State) void {
        const tells = plan.decoded.commands[index].notify;
        // Counted out before it shows as done: whoever sees the last command done may free its buffers.
        _ = plan.remaining.fetchSub(1, .acq_rel);
        plan.states[index].store(state, .seq_cst);
        executor.wakeSleepers();
        if (tells) executor.notify();
    }

    /// Call after a state has changed: whoever looked before and sleeps now looks again.
    pub fn wakeSleepers(executor: *Executor) void {
        if (executor.sleepers.load(.seq_cst) == 0) return;
        executor.mutex.lock();
        executor.changed.broadcast();
        executor.mutex.unlock();
    }

    fn announceFailure(executor: *Executor) void {
        executor.mutex.lock();
        defer executor.mutex.unlock();
        if (executor.atRest()) executor.notify();
    }

    fn execute(executor: *Executor, command: *const decode.Command, id: u64, pool: *const workers.Pool, text: []u8) ?[]const u8 {
        if (executor.injected.load(.monotonic) == id) return "injected failure";
        return executor.memory.device.run(command.op, &command.arguments, command.file, pool, text);
    }

    pub fn pauseForTest(executor: *Executor, id: u64) void {
        if (executor.jitter_us == 0) return;
        var random = std.Random.SplitMix64.init(executor.jitter_seed ^ id *% 0x9e3779b97f4a7c15);
        var pause: std.c.timespec = .{ .sec = 0, .nsec = @intCast(random.next() % executor.jitter_us * std.time.ns_per_us) };
        _ = std.c.nanosleep(&pause, null);
    }

    fn notify(executor: *Executor) void {
        wake(executor.notify_descriptor);
    }
};

/// One message to whoever reads the other end. Never blocks: a reader that fell behind looks at the states anyway.
pub fn wake(descriptor: c_int) void {
    const one: u64 = 1;
    _ = std.c.write(descriptor, @ptrCast(&one), 8);
}
