//! The executor's GPU half: how the commands of the compute, upload and download streams get onto the driver's streams, and
//! how it is found out that they are done.
//!
//! Each of the three has a thread that enqueues its commands in order. A wait for a command on another GPU stream becomes
//! a wait of that stream inside the driver, so it only has to be `enqueued`; a wait for the host or the disk blocks the thread
//! until the command is done, because nothing on the GPU may wait for the host. After each command an event is
//! recorded. One more thread, the tracker, asks the oldest event of each stream every few microseconds, marks commands
//! done and wakes who waits for them. At most `lookahead` commands of a stream are enqueued and not done, so a
//! cancelled step ends soon.
//!
//! A launch that is refused fails the step at once and names its command. A command that breaks on the GPU (an illegal address,
//! say) shows when its event is asked; it breaks the context too, so the engine has to be closed and opened again.

const std = @import("std");
const abi = @import("../abi.zig");
const decode = @import("../decode.zig");
const driver = @import("../device/gpu/driver.zig");
const executor_module = @import("executor.zig");
const gpu = @import("../device/gpu/gpu.zig");
const launcher_module = @import("../device/gpu/launcher.zig");
const ops = @import("../device/gpu/ops.zig");
const sync = @import("../sync.zig");

const Executor = executor_module.Executor;
const Plan = executor_module.Plan;

/// Milliseconds of work for the GPU, and far more than the host needs to enqueue the next command.
const lookahead = 256;
/// An event is used again only long after its command is done, so whoever still looks at it waits for too much at worst,
/// and only for commands that are enqueued already.
const ring = 4 * lookahead;
const poll_ns = 20 * std.time.ns_per_us;
/// A reference is renewed after this time: an event's time is a float32 of milliseconds since it.
const reference_ns_max = std.time.ns_per_s;

pub fn isGpuStream(stream: abi.Stream) bool {
    return @intFromEnum(stream) < gpu.stream_count;
}

const Entry = struct {
    plan: *Plan,
    index: u32,
    /// Start and end are measured by the GPU.
    timed: bool,
    enqueued_at: u64,
    /// When the tracker saw that nothing kept it from running; 0 before.
    start: u64,
};

/// One driver stream with the commands that were put on it. Its thread pushes, the tracker pops.
const Queue = struct {
    stream: driver.Stream,
    entries: [ring]Entry = undefined,
    events: [ring]driver.Event,
    timed: ?*[ring][2]driver.Event = null,
    /// Commands enqueued since the start, and commands ended.
    head: std.atomic.Value(u64) = .init(0),
    tail: std.atomic.Value(u64) = .init(0),
    /// When the last one ended, as the tracker saw it.
    last_end: u64 = 0,

    fn eventOf(queue: *const Queue, sequence: u64) driver.Event {
        const place = sequence % ring;
        return if (queue.entries[place].timed) queue.timed.?[place][1] else queue.events[place];
    }
};

pub const Streams = struct {
    device: *gpu.Device,
    queues: [gpu.stream_count]Queue,
    tracker: std.Thread = undefined,
    stopping: bool = false,
    tracing: std.atomic.Value(bool) = .init(false),
    /// An event on a stream of its own and the host's time at that moment.
    reference_mutex: sync.Mutex = .{},
    reference_stream: driver.Stream = null,
    reference: driver.Event,
    reference_at: u64 = 0,
    last_poll: u64 = 0,

    const allocator = std.heap.c_allocator;

    pub fn create(device: *gpu.Device) !*Streams {
        const streams = try allocator.create(Streams);
        errdefer allocator.destroy(streams);
        streams.* = .{ .device = device, .queues = undefined, .reference = undefined };
        for (&streams.queues, device.streams) |*queue, stream| {
            queue.* = .{ .stream = stream, .events = undefined };
            for (&queue.events) |*event| event.* = try device.createEvent(driver.event_untimed);
        }
        streams.reference = try device.createEvent(driver.event_timed);
        if (device.table.createStream(&streams.reference_stream) != 0) return error.Refused;
        return streams;
    }

    /// After the threads have ended.
    pub fn destroy(streams: *Streams) void {
        const calls = &streams.device.table.calls;
        for (&streams.queues) |*queue| {
            for (queue.events) |event| _ = calls.event_destroy(event);
            if (queue.timed) |pairs| {
                for (pairs) |pair| for (pair) |event| {
                    _ = calls.event_destroy(event);
                };
                allocator.destroy(pairs);
            }
        }
        _ = calls.event_destroy(streams.reference);
        _ = calls.stream_destroy(streams.reference_stream);
        allocator.destroy(streams);
    }

    /// Whether the GPU's own clock is asked for start and end of each command from now on. Costs two more events a command.
    pub fn trace(streams: *Streams, on: bool) error{Refused}!void {
        for (&streams.queues) |*queue| if (on and queue.timed == null) {
            const pairs = allocator.create([ring][2]driver.Event) catch return error.Refused;
            for (pairs) |*pair| for (pair) |*event| {
                event.* = try streams.device.createEvent(driver.event_timed);
            };
            queue.timed = pairs;
        };
        streams.tracing.store(on, .release);
    }

    /// The host's time at which the GPU passed an event.
    fn hostTime(streams: *Streams, event: driver.Event) ?u64 {
        const calls = &streams.device.table.calls;
        streams.reference_mutex.lock();
        defer streams.reference_mutex.unlock();
        if (streams.reference_at == 0 or sync.now() - streams.reference_at > reference_ns_max) {
            if (calls.event_record(streams.reference, streams.reference_stream) != 0) return null;
            if (calls.event_synchronize(streams.reference) != 0) return null;
            streams.reference_at = sync.now();
        }
        var milliseconds: f32 = 0;
        if (calls.event_elapsed(&milliseconds, streams.reference, event) != 0) return null;
        const time = @as(f64, @floatFromInt(streams.reference_at)) + @as(f64, milliseconds) * 1e6;
        return if (time > 0) @intFromFloat(time) else null;
    }
};

// ---- a stream's thread ----------------------------------------------------------------------------------------------

pub fn play(executor: *Executor, stream: abi.Stream) void {
    const streams = executor.gpu_streams.?;
    const device = streams.device;
    _ = device.enter();
    var text: [512]u8 = undefined;
    var launcher = device.launcherOf(stream, &text);
    var next_id: u64 = 0;
    while (executor.nextPlan(next_id)) |plan| {
        for (plan.order[@intFromEnum(stream)]) |index| enqueue(executor, plan, index, &launcher);
        next_id = plan.base + plan.states.len;
        executor.leave(plan);
    }
}

fn enqueue(executor: *Executor, plan: *Plan, index: u32, launcher: *launcher_module.Launcher) void {
    const streams = executor.gpu_streams.?;
    const calls = &streams.device.table.calls;
    const command = &plan.decoded.commands[index];
    const queue = &streams.queues[@intFromEnum(command.stream)];
    const id = plan.base + index;
    launcher.message_length = 0;
    var code: driver.Status = 0;
    for (command.waits) |wait| {
        const event = awaitEnqueued(executor, plan, wait, command.stream) orelse continue;
        if (code == 0) code = calls.stream_wait(queue.stream, event, 0);
    }
    awaitRoom(executor, queue);
    if (executor.failing.load(.acquire)) return executor.finish(plan, index, .skipped);
    executor.pauseForTest(id);

    const sequence = queue.head.load(.monotonic);
    const place = sequence % ring;
    const timed = streams.tracing.load(.acquire);
    if (timed and code == 0) code = calls.event_record(queue.timed.?[place][0], queue.stream);
    queue.entries[place] = .{ .plan = plan, .index = index, .timed = timed, .enqueued_at = sync.now(), .start = 0 };
    const launched = if (code == 0) launch(executor, command, id, launcher) else {};
    const refused = std.meta.isError(launched);
    if (!refused and code == 0) code = calls.event_record(queue.eventOf(sequence), queue.stream);
    if (refused or code != 0) {
        // Half of it may be on its way: nobody may free its buffers before that is over.
        _ = calls.stream_synchronize(queue.stream);
        if (launcher.message_length == 0) launcher.fail("{s}", .{streams.device.table.describe(code).slice()}) catch {};
        executor.fail(id, false, launcher.message[0..launcher.message_length]);
        return executor.finish(plan, index, .skipped);
    }
    plan.sequences[index] = sequence;
    _ = plan.visitors.fetchAdd(1, .acq_rel); // the tracker reads the plan until the command is done
    plan.states[index].store(.enqueued, .seq_cst);
    queue.head.store(sequence + 1, .seq_cst);
    executor.wakeSleepers();
}

fn launch(executor: *Executor, command: *const decode.Command, id: u64, launcher: *launcher_module.Launcher) launcher_module.Error!void {
    if (executor.injected.load(.monotonic) == id) return launcher.fail("injected failure", .{});
    const arguments: *const anyopaque = &command.arguments;
    switch (command.op) {
        .copy => return copy(@ptrCast(@alignCast(arguments)), command, launcher),
        .zero => {
            const typed: *const abi.ops.zero = @ptrCast(@alignCast(arguments));
            return launcher.zero(@intFromPtr(typed.to.address), typed.to.bytes);
        },
        else => {},
    }
    if (command.stream != .compute) return launcher.fail("a GPU only copies and clears on the {s} stream", .{@tagName(command.stream)});
    return ops.launch(command.op, arguments, launcher);
}

fn copy(typed: *const abi.ops.copy, command: *const decode.Command, launcher: *launcher_module.Launcher) launcher_module.Error!void {
    const table = launcher.functions.table;
    const to_device = command.on_gpu & 1 != 0;
    const from_device = command.on_gpu & 2 != 0;
    const to, const from = .{ typed.to.address.?, typed.from.address.? };
    const code = if (to_device and from_device)
        table.calls.copy_on_device(@intFromPtr(to), @intFromPtr(from), typed.to.bytes, launcher.stream)
    else if (to_device)
        table.calls.copy_to_device(@intFromPtr(to), from, typed.to.bytes, launcher.stream)
    else if (from_device)
        table.calls.copy_to_host(to, @intFromPtr(from), typed.to.bytes, launcher.stream)
    else
        return launcher.fail("a copy inside host memory belongs on the host stream", .{});
    if (code != 0) return launcher.fail("cannot copy {d} bytes: {s}", .{ typed.to.bytes, table.describe(code).slice() });
}

/// The event that the stream has to wait for, once the command is enqueued; null when it is done, or will be before
/// anything that follows on the same stream. Blocks while it is neither.
fn awaitEnqueued(executor: *Executor, plan: *Plan, id: u64, stream: abi.Stream) ?driver.Event {
    const streams = executor.gpu_streams.?;
    // Most waits are for commands of the same plan that are done long since: no lock for those.
    if (id >= plan.base and executor_module.ended(plan.states[id - plan.base].load(.seq_cst))) return null;
    executor.mutex.lock();
    defer executor.mutex.unlock();
    _ = executor.sleepers.fetchAdd(1, .seq_cst);
    defer _ = executor.sleepers.fetchSub(1, .seq_cst);
    while (!executor.failing.load(.seq_cst)) {
        if (executor.planOf(id)) |other| {
            const index = id - other.base;
            const state = other.states[index].load(.seq_cst);
            if (executor_module.ended(state)) return null;
            const on = other.decoded.commands[index].stream;
            if (on == stream) return null;
            if (state == .enqueued) return streams.queues[@intFromEnum(on)].eventOf(other.sequences[index]);
        } else if (id < executor.submitted_below) return null;
        executor.changed.wait(&executor.mutex);
    }
    return null;
}

fn awaitRoom(executor: *Executor, queue: *Queue) void {
    const head = queue.head.load(.monotonic);
    if (head - queue.tail.load(.seq_cst) < lookahead) return;
    executor.mutex.lock();
    defer executor.mutex.unlock();
    _ = executor.sleepers.fetchAdd(1, .seq_cst);
    defer _ = executor.sleepers.fetchSub(1, .seq_cst);
    while (head - queue.tail.load(.seq_cst) >= lookahead) executor.changed.wait(&executor.mutex);
}

// ---- the tracker ----------------------------------------------------------------------------------------------------

pub fn track(executor: *Executor) void {
    const streams = executor.gpu_streams.?;
    _ = streams.device.enter();
    while (true) {
        var in_flight = false;
        const now = sync.now();
        for (&streams.queues) |*queue| in_flight = settle(executor, queue) or in_flight;
        streams.last_poll = now;
        if (in_flight) {
            var pause: std.c.timespec = .{ .sec = 0, .nsec = poll_ns };
            _ = std.c.nanosleep(&pause, null);
        } else if (!awaitWork(executor)) return;
    }
}

/// Sleeps until something is enqueued; false when the engine closes.
fn awaitWork(executor: *Executor) bool {
    const streams = executor.gpu_streams.?;
    executor.mutex.lock();
    defer executor.mutex.unlock();
    _ = executor.sleepers.fetchAdd(1, .seq_cst);
    defer _ = executor.sleepers.fetchSub(1, .seq_cst);
    while (true) {
        for (&streams.queues) |*queue| if (queue.head.load(.seq_cst) != queue.tail.load(.monotonic)) return true;
        if (streams.stopping) return false;
        executor.changed.wait(&executor.mutex);
    }
}

/// Takes what is done from the stream's end; true when something is left.
fn settle(executor: *Executor, queue: *Queue) bool {
    const streams = executor.gpu_streams.?;
    while (true) {
        const tail = queue.tail.load(.monotonic);
        if (tail == queue.head.load(.seq_cst)) return false;
        const entry = &queue.entries[tail % ring];
        const code = streams.device.table.calls.event_query(queue.eventOf(tail));
        const unknown_start = entry.start == 0 and !entry.timed;
        if (code == driver.status.not_ready) {
            if (unknown_start and waitsDone(executor, entry)) entry.start = earliestStart(streams, queue, entry);
            return true;
        }
        if (unknown_start) entry.start = earliestStart(streams, queue, entry);
        complete(executor, queue, tail, code);
    }
}

/// It can have started neither before it was enqueued, nor before the last look at it, nor before its predecessor and what it
/// waited for were seen to be done.
fn earliestStart(streams: *const Streams, queue: *const Queue, entry: *const Entry) u64 {
    const plan = entry.plan;
    var start = @max(streams.last_poll, queue.last_end, entry.enqueued_at);
    for (plan.decoded.commands[entry.index].waits) |id| if (id >= plan.base) {
        start = @max(start, plan.spans[id - plan.base].end);
    };
    return start;
}

fn waitsDone(executor: *Executor, entry: *const Entry) bool {
    const plan = entry.plan;
    for (plan.decoded.commands[entry.index].waits) |id| {
        const state = if (id >= plan.base) plan.states[id - plan.base].load(.acquire) else executor.lockedState(id);
        if (!executor_module.ended(state)) return false;
    }
    return true;
}

fn complete(executor: *Executor, queue: *Queue, sequence: u64, code: driver.Status) void {
    const streams = executor.gpu_streams.?;
    const entry = queue.entries[sequence % ring];
    const plan = entry.plan;
    const id = plan.base + entry.index;
    const now = sync.now();
    var span: executor_module.Span = .{ .start = entry.start, .end = @max(now, entry.start) };
    if (code != 0) {
        var text: [512]u8 = undefined;
        const words = std.fmt.bufPrint(&text, "{s}; it or a command shortly before it broke the GPU's context: close the engine and open it again", .{streams.device.table.describe(code).slice()}) catch &text;
        streams.device.lost.store(true, .release);
        executor.fail(id, false, words);
    } else if (entry.timed) {
        const pair = queue.timed.?[sequence % ring];
        const start = streams.hostTime(pair[0]) orelse now;
        span = .{ .start = start, .end = @max(start, streams.hostTime(pair[1]) orelse now) };
    }
    queue.last_end = now;
    if (code == 0) {
        plan.spans[entry.index] = span;
        _ = executor.busy_ns[@intFromEnum(plan.decoded.commands[entry.index].stream)].fetchAdd(span.end - span.start, .monotonic);
    }
    queue.tail.store(sequence + 1, .seq_cst);
    executor.finish(plan, entry.index, if (code == 0) .done else .skipped);
    executor.leave(plan);
}
