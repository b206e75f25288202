//! The exports, and nothing else: every function checks what it is given, returns 0 or a small status, and leaves the
//! sentence in `last_error`. Nothing here panics across the boundary. TypeScript's side is `src/native/runtime.ts`.

const std = @import("std");
const abi = @import("abi.zig");
const cpu = @import("device/cpu/cpu.zig");
const Device = @import("device/device.zig").Device;
const executor_module = @import("player/executor.zig");
const gpu = @import("device/gpu/gpu.zig");
const generate = @import("generate.zig");
const last_error = @import("last_error.zig");
const memory_module = @import("memory.zig");

const allocator = std.heap.c_allocator;
const scratch_bytes = @import("workers.zig").scratch_bytes_needed;

/// A panic is our mistake: say so ourselves, or the runtime blames itself.
pub const panic = std.debug.FullPanic(struct {
    fn report(message: []const u8, _: ?usize) noreturn {
        const prefix = "sluice: internal error in the native library: ";
        _ = std.c.write(2, prefix, prefix.len);
        _ = std.c.write(2, message.ptr, message.len);
        _ = std.c.write(2, "\n", 1);
        std.c.abort();
    }
}.report);

const Engine = struct { memory: memory_module.Memory, executor: *executor_module.Executor };

/// Engines by handle. JavaScript calls from one thread at a time, so no lock; workers of its own are other processes' matter.
var engines: [256]?*Engine = @splat(null);

fn find(handle: u32) ?*Engine {
    if (handle == 0 or handle > engines.len or engines[handle - 1] == null) {
        last_error.set("no engine with handle {d}", .{handle});
        return null;
    }
    return engines[handle - 1];
}

var pipe_ends: ?[2]c_int = null;

/// Read and write end of the one pipe that JavaScript listens to. Writes never block.
fn notifications() ?[2]c_int {
    if (pipe_ends == null) {
        var ends: [2]c_int = undefined;
        if (std.c.pipe(&ends) != 0) return null;
        const nonblocking: u32 = @bitCast(std.c.O{ .NONBLOCK = true });
        _ = std.c.fcntl(ends[1], std.c.F.SETFL, nonblocking);
        pipe_ends = ends;
    }
    return pipe_ends;
}

pub const exports = struct {
    pub fn sluice_abi_hash() callconv(.c) u64 {
        return comptime generate.hash();
    }

    pub fn sluice_last_error() callconv(.c) [*:0]const u8 {
        return last_error.get();
    }

    /// 0 baseline, 3 or 4 for x86_64_v3 or v4; 1 when this x86 CPU has not even v3.
    pub fn sluice_cpu_level() callconv(.c) u32 {
        return cpu.level();
    }

    /// Makes an engine: memory, an executor and its threads; `out` gets its handle. For a GPU: `kernel_files` has the paths
    /// of compiled kernels, one per line; measured choices are kept in `cache_directory`, or with "" for this process only; `tune` 0
    /// measures nothing. `device_bytes_max` is the most that everything of this process may take there.
    pub fn sluice_engine_create(kind: u32, worker_count: u32, device_bytes_max: u64, kernel_files: ?[*:0]const u8, cache_directory: ?[*:0]const u8, tune: u32, out: ?*u32) callconv(.c) i32 {
        const result = out orelse return last_error.fail("no place for the engine's handle", .{});
        if (kind >= @typeInfo(abi.DeviceKind).@"enum".fields.len) return last_error.fail("{d} is no device", .{kind});
        if (worker_count == 0 or worker_count > 256) return last_error.fail("workers must be 1 to 256 (was {d})", .{worker_count});
        const slot = for (&engines, 0..) |*slot, index| {
            if (slot.* == null) break index;
        } else return last_error.fail("{d} engines are open already", .{engines.len});
        const ends = notifications() orelse return last_error.fail("cannot make a pipe: {s}", .{last_error.systemText()});
        const device_kind: abi.DeviceKind = @enumFromInt(kind);
        const device = Device.open(device_kind, .{
            .kernel_files = if (kernel_files) |paths| std.mem.span(paths) else "",
            .cache_directory = if (cache_directory) |path| if (path[0] == 0) null else std.mem.span(path) else null,
            .tune = tune != 0,
            .bytes_max = device_bytes_max,
        }) catch return 1;
        const engine = allocator.create(Engine) catch return last_error.fail("out of memory for an engine", .{});
        engine.memory = .{ .device = device, .device_bytes_max = device_bytes_max, .touch_threads = worker_count };
        engine.executor = executor_module.Executor.create(&engine.memory, worker_count, scratch_bytes, ends[1]) catch |problem| {
            device.close();
            allocator.destroy(engine);
            return last_error.fail("cannot start the engine's threads: {s}", .{@errorName(problem)});
        };
        engines[slot] = engine;
        result.* = @intCast(slot + 1);
        return 0;
    }

    pub fn sluice_engine_destroy(handle: u32) callconv(.c) i32 {
        const engine = find(handle) orelse return 1;
        const device = engine.memory.device;
        device.enter();
        engine.executor.destroy();
        engine.memory.deinit();
        device.close();
        allocator.destroy(engine);
        engines[handle - 1] = null;
        return 0;
    }

    /// Facts about an engine's GPU. `name` gets its name, ended by a zero byte (256 bytes); `out` gets, as 8 u64: bytes of the
    /// card, bytes free now, bytes that context, kernels, libraries and workspaces take, bytes that the engine's buffers take as the
    /// driver rounds them, compute capability times ten, multiprocessors, driver version, bytes that allocations are rounded to.
    pub fn sluice_device_info(handle: u32, name: ?[*]u8, out: ?*[8]u64) callconv(.c) i32 {
        const engine = find(handle) orelse return 1;
        const device = engine.memory.device.queues() orelse return last_error.fail("the engine has no GPU", .{});
        if (name == null or out == null) return last_error.fail("no place for the facts", .{});
        _ = device.enter();
        @memcpy(name.?[0..device.label.len], &device.label);
        const memory = device.memoryNow();
        out.?.* = .{ memory.total, memory.free, device.overhead_bytes, device.buffer_bytes.load(.monotonic), device.properties.capability, device.properties.multiprocessors, @intCast(@max(0, device.driver_version)), gpu.allocation_bytes };
        return 0;
    }

    /// Whether the GPU's clock times every command from now on (for `sluice_plan_spans`); other devices always do.
    pub fn sluice_trace(handle: u32, on: u32) callconv(.c) i32 {
        const engine = find(handle) orelse return 1;
        const streams = engine.executor.gpu_streams orelse return 0;
        _ = streams.device.enter();
        streams.trace(on != 0) catch return last_error.fail("no events left to trace with", .{});
        return 0;
    }

    /// The descriptor that gets 8 bytes after each command, of any engine, that asked for it, and after a failure; -1
    /// when the system has none left. It is made once and stays: an engine that closes takes nothing from other readers.
    pub fn sluice_descriptor() callconv(.c) i32 {
        return if (notifications()) |ends| ends[0] else -1;
    }

    /// Lets a pending read of the descriptor return.
    pub fn sluice_wake() callconv(.c) void {
        if (notifications()) |ends| executor_module.wake(ends[1]);
    }

    pub fn sluice_buffer_create(handle: u32, tier: u32, bytes: u64, name: ?[*]const u8, name_length: u32, out: ?*u32) callconv(.c) i32 {
        const engine = find(handle) orelse return 1;
        const result = out orelse return last_error.fail("no place for the buffer's handle", .{});
        if (tier > 2 or name == null or name_length > 4096) return last_error.fail("a buffer needs a tier (0 to 2, was {d}) and a name of at most 4096 bytes", .{tier});
        result.* = engine.memory.create(@enumFromInt(tier), bytes, name.?[0..name_length]) catch return 1;
        return 0;
    }

    pub fn sluice_file_open(handle: u32, path: ?[*:0]const u8, mode: u32, bytes: u64, out: ?*u32) callconv(.c) i32 {
        const engine = find(handle) orelse return 1;
        const result = out orelse return last_error.fail("no place for the buffer's handle", .{});
        if (mode > 1 or path == null) return last_error.fail("a file needs a path and a mode (0 or 1, was {d})", .{mode});
        const name = std.mem.span(path.?);
        result.* = engine.memory.openFile(name, @enumFromInt(mode), bytes, name) catch return 1;
        return 0;
    }

    /// Frees a buffer. Refused while plans are in flight: they may use it.
    pub fn sluice_buffer_destroy(handle: u32, buffer: u32) callconv(.c) i32 {
        const engine = find(handle) orelse return 1;
        if (!engine.executor.idle()) return last_error.fail("a buffer cannot be freed while a plan is in flight", .{});
        if (!engine.memory.destroy(buffer)) return last_error.fail("no buffer with handle {d}", .{buffer});
        return 0;
    }

    /// `out` gets the address of a buffer's first byte, 0 for a file.
    pub fn sluice_buffer_address(handle: u32, buffer: u32, out: ?*u64) callconv(.c) i32 {
        const engine = find(handle) orelse return 1;
        const found = engine.memory.get(buffer) orelse return last_error.fail("no buffer with handle {d}", .{buffer});
        (out orelse return last_error.fail("no place for the address", .{})).* = @intFromPtr(found.address);
        return 0;
    }

    /// `out` gets the bytes held per tier (4 u64).
    pub fn sluice_memory_held(handle: u32, out: ?*[4]u64) callconv(.c) i32 {
        const engine = find(handle) orelse return 1;
        (out orelse return last_error.fail("no place for the figures", .{})).* = engine.memory.bytes_held;
        return 0;
    }

    pub fn sluice_plan_submit(handle: u32, base: u64, count: u32, words: ?[*]const u32, word_count: u32) callconv(.c) i32 {
        const engine = find(handle) orelse return 1;
        if (words == null) return last_error.fail("no plan", .{});
        return engine.executor.submit(base, count, words.?[0..word_count]);
    }

    /// 0 to come, 1 done, 2 skipped; -1 without an engine.
    pub fn sluice_command_state(handle: u32, id: u64) callconv(.c) i32 {
        const engine = find(handle) orelse return -1;
        engine.executor.mutex.lock();
        defer engine.executor.mutex.unlock();
        return switch (engine.executor.stateOf(id)) {
            .pending, .enqueued => 0,
            .done => 1,
            .skipped => 2,
        };
    }

    /// Blocks until the command is done or skipped (0), or the time is up (1).
    pub fn sluice_command_wait(handle: u32, id: u64, timeout_ms: u32) callconv(.c) i32 {
        const engine = find(handle) orelse return -1;
        return if (engine.executor.waitFor(id, timeout_ms)) 0 else last_error.fail("command {d} did not finish in {d} ms", .{ id, timeout_ms });
    }

    /// Takes the failure once everything has come to rest: 0 none (or still running), 1 failed, 2 cancelled.
    /// `command` gets the command's id; the text is the last error.
    pub fn sluice_failure_take(handle: u32, command: ?*u64) callconv(.c) i32 {
        const engine = find(handle) orelse return -1;
        const failure = engine.executor.takeFailure() orelse return 0;
        if (command) |result| result.* = failure.command;
        last_error.set("{s}", .{failure.text[0..failure.length]});
        return if (failure.cancelled) 2 else 1;
    }

    /// Stops what is in flight between two commands.
    pub fn sluice_cancel(handle: u32) callconv(.c) i32 {
        const engine = find(handle) orelse return 1;
        if (!engine.executor.idle()) engine.executor.fail(0, true, "cancelled");
        return 0;
    }

    /// Start and end of each command of a plan that has not been replaced yet (count pairs of u64, 0 where it did not run).
    pub fn sluice_plan_spans(handle: u32, base: u64, count: u32, spans: ?[*]executor_module.Span) callconv(.c) i32 {
        const engine = find(handle) orelse return 1;
        if (spans == null) return last_error.fail("no place for the spans", .{});
        return if (engine.executor.copySpans(base, spans.?[0..count])) 0 else last_error.fail("no plan of {d} commands starts at {d}", .{ count, base });
    }

    /// `out` gets nanoseconds each stream has been busy since the start (5 u64).
    pub fn sluice_busy(handle: u32, out: ?*[5]u64) callconv(.c) i32 {
        const engine = find(handle) orelse return 1;
        const result = out orelse return last_error.fail("no place for the figures", .{});
        for (result, &engine.executor.busy_ns) |*value, *busy| value.* = busy.load(.monotonic);
        return 0;
    }

    /// For tests: command `id` fails instead of running (0: none), and each command first pauses up to `jitter_us`.
    pub fn sluice_disturb(handle: u32, id: u64, jitter_us: u32, seed: u64) callconv(.c) i32 {
        const engine = find(handle) orelse return 1;
        engine.executor.injected.store(id, .monotonic);
        engine.executor.jitter_us = jitter_us;
        engine.executor.jitter_seed = seed;
        return 0;
    }
};

comptime {
    // The generator imports this file for its declarations alone.
    if (@import("root") == @This()) for (@typeInfo(exports).@"struct".decls) |declaration| @export(&@field(exports, declaration.name), .{ .name = declaration.name });
}
