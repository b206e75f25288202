//! A stand-in for a GPU's driver and matrix library, over plain memory: for NVIDIA's libcuda and libcublasLt, and for AMD's
//! libamdhip64 and libhipblaslt. It executes every call that the device makes, on a machine without a GPU. Tests build it
//! (`zig build stand-in`) and name it in SLUICE_LIBCUDA and SLUICE_LIBCUBLASLT, or in SLUICE_LIBHIP and SLUICE_LIBHIPBLASLT; which
//! vendor it stands in for is settled by who is initialised.
//!
//! Streams are real queues with a thread each, so that only events order them, and each command may be delayed at random:
//! a wait that is missing shows as wrong numbers. Matrix products are plain loops. For kernels there are two ways, and STAND_IN_KERNELS
//! chooses:
//!   emulated    those of `cuda/`, compiled for the CPU (`../emulation`): grids, arguments and shared memory are what a GPU would get
//!   (unset)     a kernel whose name is an op's, or begins with one, runs that op's CPU code on the kernel's first argument, and one
//!               with two underscores after the op's name does nothing; whole training steps would take minutes otherwise
//!
//! The environment says what goes wrong, in STAND_IN_FAIL:
//!   no-device, no-kernels, pin          the calls that find a GPU, load kernels or pin memory fail
//!   launch:NAME, async:NAME             launching the kernel NAME fails, or it breaks the context when it runs
//!   product                             every matrix product is refused
//! STAND_IN_MEMORY is the card's bytes, STAND_IN_SHARED those of an NVIDIA block's shared memory, STAND_IN_JITTER_US the longest delay
//! of a command, STAND_IN_SEED what threads take turns by. Names of kernels are added to the file STAND_IN_LAUNCHED once they have run.

const std = @import("std");
const kernels = @import("kernels");
const abi = kernels.abi;
const c = std.c;

/// NVIDIA's, since its `init` was called; else AMD's.
var is_cuda = false;

const allocator = std.heap.c_allocator;
const Status = i32;
const success: Status = 0;
const invalid_value: Status = 1;
const out_of_memory: Status = 2;
const no_device: Status = 100;
const no_binary: Status = 209;
const not_found: Status = 500;
const not_ready: Status = 600;
const illegal_address: Status = 700;

extern "c" fn getenv(name: [*:0]const u8) ?[*:0]const u8;

fn failsWith(what: []const u8) bool {
    const wanted = getenv("STAND_IN_FAIL") orelse return false;
    return std.mem.eql(u8, std.mem.span(wanted), what);
}

fn failsAt(comptime kind: []const u8, name: []const u8) bool {
    const wanted = std.mem.span(getenv("STAND_IN_FAIL") orelse return false);
    return std.mem.startsWith(u8, wanted, kind ++ ":") and std.mem.eql(u8, wanted[kind.len + 1 ..], name);
}

fn number(name: [*:0]const u8, default: u64) u64 {
    return std.fmt.parseInt(u64, std.mem.span(getenv(name) orelse return default), 10) catch default;
}

// ---- state ----------------------------------------------------------------------------------------------------------

var mutex: c.pthread_mutex_t = .{};
var changed: c.pthread_cond_t = .{};
var allocations: std.AutoHashMapUnmanaged(usize, usize) = .empty;
var allocated: usize = 0;
var pins: std.AutoHashMapUnmanaged(usize, usize) = .empty;
var live_objects: i64 = 0; // streams, events, modules
var broken: bool = false; // by a kernel, until the device is reset

fn lock() void {
    _ = c.pthread_mutex_lock(&mutex);
}
fn unlock() void {
    _ = c.pthread_mutex_unlock(&mutex);
}

/// What was taken and not given back: bytes, pinned ranges, objects. For tests of leaks.
export fn standInHeld() u64 {
    lock();
    defer unlock();
    return allocated + pins.count() + @as(u64, @intCast(live_objects));
}

fn now() u64 {
    var time: c.timespec = undefined;
    _ = c.clock_gettime(.MONOTONIC, &time);
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

// ---- streams and events ---------------------------------------------------------------------------------------------

const Event = struct { recorded: u64 = 0, reached: u64 = 0, time: u64 = 0 };

const Command = union(enum) {
    copy: struct { to: usize, from: usize, bytes: usize },
    fill: struct { to: usize, value: u8, bytes: usize },
    kernel: Kernel,
    product: Product,
    wait: struct { event: *Event, ticket: u64 },
    record: struct { event: *Event, ticket: u64 },
};

const Kernel = struct {
    function: *Function,
    blocks: [3]u32,
    threads: u32,
    shared_bytes: u32,
    /// How often the function was launched before.
    number: u32,
    /// What the launch's parameters pointed at, each at the next multiple of `parameter_alignment`.
    arguments: [argument_bytes_max]u8 align(parameter_alignment),

    const argument_bytes_max = 512;
    const parameters_max = 16;
    const parameter_alignment = 16;

    /// False when it breaks the context, as arguments that the CPU refuses would.
    fn run(kernel: *const Kernel, pool: *const kernels.workers.Pool) bool {
        if (failsAt("async", kernel.function.name)) return false;
        switch (kernel.function.code) {
            .emulated => |emulated| return kernel.emulate(emulated),
            .op => |op| {
                var message: kernels.workers.Message = .{};
                return kernels.run(op, &kernel.arguments, pool, &message) == 0;
            },
            .bias => sumColumns(@ptrCast(&kernel.arguments)),
            .nothing => {},
        }
        return true;
    }

    fn emulate(kernel: *const Kernel, emulated: *const Emulated) bool {
        var parameters: [parameters_max]?*const anyopaque = undefined;
        var at: usize = 0;
        for (emulated.sizes(), 0..) |bytes, index| {
            parameters[index] = &kernel.arguments[at];
            at += std.mem.alignForward(usize, bytes, parameter_alignment);
        }
        _ = c.pthread_mutex_lock(&emulation); // it runs one launch at a time
        defer _ = c.pthread_mutex_unlock(&emulation);
        const found = emulated_launch(emulated, &kernel.blocks, kernel.threads, kernel.shared_bytes, &parameters, kernel.number, seed()) orelse {
            if (kernel.number == 0) noteLaunched(kernel.function.name);
            return true;
        };
        _ = std.fmt.bufPrintZ(&wrong, "{s}: {s}; STAND_IN_SEED={d}", .{ kernel.function.name, std.mem.span(found), seed() }) catch {};
        return false;
    }

    var emulation: c.pthread_mutex_t = .{};

    /// The part of `linear_backward_weight` that is no matrix product.
    fn sumColumns(op: *const abi.ops.linear_backward_weight) void {
        for (op.d_bias.as(f32)[0..op.outputs], 0..) |*to, column| {
            var sum: f64 = if (op.accumulate != 0) to.* else 0;
            for (0..op.tokens) |row| sum += bfloat16(@intFromPtr(op.dy.address), row * op.outputs + column);
            to.* = @floatCast(sum);
        }
    }
};

/// What a kernel did wrong.
var wrong: [512:0]u8 = @splat(0);

/// The same for all of a process: from the environment, or the time.
fn seed() u64 {
    const known = struct {
        var value: ?u64 = null;
    };
    if (known.value == null) known.value = number("STAND_IN_SEED", now() % 1_000_000);
    return known.value.?;
}

fn noteLaunched(name: []const u8) void {
    const file = c.open(getenv("STAND_IN_LAUNCHED") orelse return, .{ .ACCMODE = .WRONLY, .CREAT = true, .APPEND = true }, @as(c_uint, 0o644));
    if (file < 0) @panic("STAND_IN_LAUNCHED names no file that can be written");
    defer _ = c.close(file);
    var line: [128]u8 = undefined;
    const text = std.fmt.bufPrint(&line, "{s}\n", .{name}) catch unreachable;
    _ = c.write(file, text.ptr, text.len);
}

const Stream = struct {
    queue: std.ArrayList(Command) = .empty,
    taken: usize = 0,
    running: bool = false,
    stopping: bool = false,
    thread: std.Thread = undefined,

    fn push(stream: *Stream, command: Command) void {
        lock();
        defer unlock();
        stream.queue.append(allocator, command) catch @panic("out of memory");
        _ = c.pthread_cond_broadcast(&changed);
    }

    fn run(stream: *Stream) void {
        const pool = kernels.workers.Workers.create(1, kernels.workers.scratch_bytes_needed) catch @panic("out of memory");
        defer pool.destroy();
        var random = std.Random.SplitMix64.init(@intFromPtr(stream) ^ now());
        const jitter_us = number("STAND_IN_JITTER_US", 0);
        lock();
        defer unlock();
        while (true) {
            if (stream.taken == stream.queue.items.len) {
                if (stream.stopping) return;
                stream.queue.clearRetainingCapacity();
                stream.taken = 0;
                _ = c.pthread_cond_wait(&changed, &mutex);
                continue;
            }
            const command = stream.queue.items[stream.taken];
            switch (command) {
                .wait => |wait| while (wait.event.reached < wait.ticket and !broken) {
                    _ = c.pthread_cond_wait(&changed, &mutex);
                },
                .record => |record| {
                    record.event.reached = @max(record.event.reached, record.ticket);
                    record.event.time = now();
                },
                else => if (!broken) {
                    unlock();
                    if (jitter_us > 0) {
                        var pause: c.timespec = .{ .sec = 0, .nsec = @intCast(random.next() % (jitter_us * std.time.ns_per_us)) };
                        _ = c.nanosleep(&pause, null);
                    }
                    const sound = execute(&command, &pool.pool);
                    lock();
                    if (!sound) broken = true;
                },
            }
            stream.taken += 1;
            _ = c.pthread_cond_broadcast(&changed);
        }
    }
};

fn execute(command: *const Command, pool: *const kernels.workers.Pool) bool {
    switch (command.*) {
        .copy => |copy| @memmove(bytesAt(copy.to, copy.bytes), bytesAt(copy.from, copy.bytes)),
        .fill => |fill| @memset(bytesAt(fill.to, fill.bytes), fill.value),
        .kernel => |*kernel| return kernel.run(pool),
        .product => |*product| product.compute(),
        .wait, .record => unreachable,
    }
    return true;
}

fn bytesAt(address: usize, bytes: usize) []u8 {
    return @as([*]u8, @ptrFromInt(address))[0..bytes];
}

fn streamCreate(out: *?*Stream, _: u32) callconv(.c) Status {
    const stream = allocator.create(Stream) catch return out_of_memory;
    stream.* = .{};
    stream.thread = std.Thread.spawn(.{}, Stream.run, .{stream}) catch return out_of_memory;
    lock();
    defer unlock();
    live_objects += 1;
    out.* = stream;
    return success;
}

fn streamDestroy(stream: *Stream) callconv(.c) Status {
    lock();
    stream.stopping = true;
    _ = c.pthread_cond_broadcast(&changed);
    live_objects -= 1;
    unlock();
    stream.thread.join();
    stream.queue.deinit(allocator);
    allocator.destroy(stream);
    return success;
}

fn streamSynchronize(stream: *Stream) callconv(.c) Status {
    lock();
    defer unlock();
    while (stream.taken < stream.queue.items.len) _ = c.pthread_cond_wait(&changed, &mutex);
    return if (broken) illegal_address else success;
}

fn streamWait(stream: *Stream, event: *Event, _: u32) callconv(.c) Status {
    lock();
    const ticket = event.recorded;
    unlock();
    stream.push(.{ .wait = .{ .event = event, .ticket = ticket } });
    return success;
}

fn eventCreate(out: *?*Event, _: u32) callconv(.c) Status {
    const event = allocator.create(Event) catch return out_of_memory;
    event.* = .{};
    lock();
    defer unlock();
    live_objects += 1;
    out.* = event;
    return success;
}

fn eventDestroy(event: *Event) callconv(.c) Status {
    lock();
    live_objects -= 1;
    unlock();
    allocator.destroy(event);
    return success;
}

fn eventRecord(event: *Event, stream: *Stream) callconv(.c) Status {
    lock();
    event.recorded += 1;
    const ticket = event.recorded;
    unlock();
    stream.push(.{ .record = .{ .event = event, .ticket = ticket } });
    return success;
}

fn eventQuery(event: *Event) callconv(.c) Status {
    lock();
    defer unlock();
    if (broken) return illegal_address;
    return if (event.reached == event.recorded) success else not_ready;
}

fn eventSynchronize(event: *Event) callconv(.c) Status {
    lock();
    defer unlock();
    while (event.reached < event.recorded and !broken) _ = c.pthread_cond_wait(&changed, &mutex);
    return if (broken) illegal_address else success;
}

fn eventElapsed(milliseconds: *f32, start: *Event, end: *Event) callconv(.c) Status {
    lock();
    defer unlock();
    if (start.reached == 0 or end.reached == 0) return not_ready;
    milliseconds.* = @floatCast((@as(f64, @floatFromInt(end.time)) - @as(f64, @floatFromInt(start.time))) / 1e6);
    return success;
}

// ---- the device -----------------------------------------------------------------------------------------------------

fn init(_: u32) callconv(.c) Status {
    return if (failsWith("no-device")) no_device else success;
}
fn cudaInit(flags: u32) callconv(.c) Status {
    is_cuda = true;
    return init(flags);
}
fn driverVersion(version: *i32) callconv(.c) Status {
    version.* = 60342133;
    return success;
}
fn deviceCount(count: *i32) callconv(.c) Status {
    count.* = 1;
    return success;
}
fn deviceGet(device: *i32, ordinal: i32) callconv(.c) Status {
    device.* = ordinal;
    return success;
}
fn deviceName(name: [*]u8, length: i32, _: i32) callconv(.c) Status {
    const text = "Stand-in GPU";
    if (length <= text.len) return invalid_value;
    @memcpy(name[0..text.len], text);
    name[text.len] = 0;
    return success;
}
fn deviceAttribute(value: *i32, attribute: i32, _: i32) callconv(.c) Status {
    value.* = if (is_cuda) switch (attribute) {
        16 => 4, // multiprocessors
        10 => 32, // threads of a warp
        75 => 8, // compute capability 8.0
        76 => 0,
        97 => @intCast(number("STAND_IN_SHARED", 163 << 10)),
        else => return invalid_value,
    } else switch (attribute) {
        63 => 4,
        87 => 64,
        else => return invalid_value,
    };
    return success;
}
fn deviceSet(_: i32) callconv(.c) Status {
    return success;
}
fn deviceReset() callconv(.c) Status {
    lock();
    defer unlock();
    broken = false;
    wrong[0] = 0;
    return success;
}
fn contextReset(_: i32) callconv(.c) Status {
    return deviceReset();
}
fn errorName(status: Status) callconv(.c) [*:0]const u8 {
    return switch (status) {
        success => if (is_cuda) "CUDA_SUCCESS" else "hipSuccess",
        invalid_value => if (is_cuda) "CUDA_ERROR_INVALID_VALUE" else "hipErrorInvalidValue",
        out_of_memory => if (is_cuda) "CUDA_ERROR_OUT_OF_MEMORY" else "hipErrorOutOfMemory",
        no_device => if (is_cuda) "CUDA_ERROR_NO_DEVICE" else "hipErrorNoDevice",
        no_binary => if (is_cuda) "CUDA_ERROR_NO_BINARY_FOR_GPU" else "hipErrorNoBinaryForGpu",
        not_found => if (is_cuda) "CUDA_ERROR_NOT_FOUND" else "hipErrorNotFound",
        not_ready => if (is_cuda) "CUDA_ERROR_NOT_READY" else "hipErrorNotReady",
        illegal_address => if (is_cuda) "CUDA_ERROR_ILLEGAL_ADDRESS" else "hipErrorIllegalAddress",
        else => if (is_cuda) "CUDA_ERROR_UNKNOWN" else "hipErrorUnknown",
    };
}
fn errorText(status: Status) callconv(.c) [*:0]const u8 {
    return if (status == illegal_address and wrong[0] != 0) &wrong else "says the stand-in";
}

// NVIDIA's driver returns texts through a pointer, and has contexts.
fn cudaErrorName(status: Status, text: *?[*:0]const u8) callconv(.c) Status {
    text.* = errorName(status);
    return success;
}
fn cudaErrorText(status: Status, text: *?[*:0]const u8) callconv(.c) Status {
    text.* = errorText(status);
    return success;
}
fn contextRetain(context: *?*anyopaque, _: i32) callconv(.c) Status {
    context.* = @ptrCast(&mutex);
    return success;
}
fn contextRelease(_: i32) callconv(.c) Status {
    return success;
}
fn contextSet(context: ?*anyopaque) callconv(.c) Status {
    return if (context == @as(?*anyopaque, @ptrCast(&mutex))) success else invalid_value;
}

// ---- memory ---------------------------------------------------------------------------------------------------------

fn cardBytes() usize {
    return number("STAND_IN_MEMORY", 600 << 20);
}
/// What the context takes.
const context_bytes = 10 << 20;

fn memoryInfo(free: *usize, total: *usize) callconv(.c) Status {
    lock();
    defer unlock();
    total.* = cardBytes();
    free.* = total.* -| context_bytes -| allocated;
    return success;
}

fn allocate(out: *usize, bytes: usize) callconv(.c) Status {
    lock();
    defer unlock();
    if (broken) return illegal_address;
    if (allocated + bytes + context_bytes > cardBytes()) return out_of_memory;
    var memory: ?*anyopaque = null;
    if (c.posix_memalign(&memory, 256, bytes) != 0) return out_of_memory;
    @memset(bytesAt(@intFromPtr(memory), @min(bytes, 1 << 20)), 0xff); // NaN: nothing may count on zeros
    allocations.put(allocator, @intFromPtr(memory), bytes) catch return out_of_memory;
    allocated += bytes;
    out.* = @intFromPtr(memory);
    return success;
}

fn release(address: usize) callconv(.c) Status {
    lock();
    defer unlock();
    const entry = allocations.fetchRemove(address) orelse return invalid_value;
    allocated -= entry.value;
    c.free(@ptrFromInt(address));
    return success;
}

fn hostRegister(address: usize, bytes: usize, _: u32) callconv(.c) Status {
    if (failsWith("pin")) return out_of_memory;
    lock();
    defer unlock();
    pins.put(allocator, address, bytes) catch return out_of_memory;
    return success;
}

fn hostUnregister(address: usize) callconv(.c) Status {
    lock();
    defer unlock();
    return if (pins.remove(address)) success else invalid_value;
}

fn copyAsync(to: usize, from: usize, bytes: usize, stream: *Stream) callconv(.c) Status {
    stream.push(.{ .copy = .{ .to = to, .from = from, .bytes = bytes } });
    return success;
}
fn fillAsync(to: usize, value: u8, bytes: usize, stream: *Stream) callconv(.c) Status {
    stream.push(.{ .fill = .{ .to = to, .value = value, .bytes = bytes } });
    return success;
}

// ---- kernels --------------------------------------------------------------------------------------------------------

/// A kernel as `../emulation/fibers.h` has it.
const Emulated = extern struct {
    name: [*:0]const u8,
    warp: u32,
    threads_max: u32,
    parameter_count: u32,
    parameter_bytes: [*]const u32,

    fn sizes(emulated: *const Emulated) []const u32 {
        return emulated.parameter_bytes[0..emulated.parameter_count];
    }
};
extern fn emulated_kernel(name: [*:0]const u8, warp: u32) ?*const Emulated;
extern fn emulated_launch(kernel: *const Emulated, blocks: *const [3]u32, threads: u32, shared_bytes: u32, parameters: [*]const ?*const anyopaque, number: u32, seed: u64) ?[*:0]const u8;

const Function = struct {
    name: []const u8,
    code: Code,
    launched: u32 = 0,
    shared_bytes_max: u32,
};
const Code = union(enum) {
    emulated: *const Emulated,
    op: abi.Op,
    bias,
    /// It only prepares or finishes an op.
    nothing,

    fn of(kernel: [:0]const u8) ?Code {
        if (getenv("STAND_IN_KERNELS") != null) return .{ .emulated = emulated_kernel(kernel, if (is_cuda) 32 else 64) orelse return null };
        const op = opOf(kernel) orelse return null;
        if (std.mem.eql(u8, kernel, "linear_backward_weight__bias_reduce")) return .bias;
        return if (std.mem.startsWith(u8, kernel[@tagName(op).len..], "__")) .nothing else .{ .op = op };
    }

    /// The op with the longest name that the kernel's begins with: `adamw_rows` is not a variant of `adamw`.
    fn opOf(kernel: []const u8) ?abi.Op {
        var found: ?abi.Op = null;
        inline for (@typeInfo(abi.Op).@"enum".fields) |field| {
            const fits = std.mem.startsWith(u8, kernel, field.name) and (kernel.len == field.name.len or kernel[field.name.len] == '_');
            if (fits and (found == null or field.name.len > @tagName(found.?).len)) found = @enumFromInt(field.value);
        }
        return found;
    }

    /// Bytes of the parameters that it wants to see.
    fn sizes(code: *const Code) []const u32 {
        return switch (code.*) {
            .emulated => |emulated| emulated.sizes(),
            .op => |op| switch (op) {
                inline else => |tag| &.{@sizeOf(abi.Arguments(tag))},
            },
            .bias => &.{@sizeOf(abi.ops.linear_backward_weight)},
            .nothing => &.{},
        };
    }
};
var functions: std.StringHashMapUnmanaged(*Function) = .empty;

fn moduleLoad(module: *?*anyopaque, image: *const anyopaque) callconv(.c) Status {
    if (failsWith("no-kernels")) return no_binary;
    lock();
    defer unlock();
    live_objects += 1;
    module.* = @constCast(image);
    return success;
}

fn moduleUnload(_: *anyopaque) callconv(.c) Status {
    lock();
    defer unlock();
    live_objects -= 1;
    return success;
}

fn moduleFunction(out: *?*Function, _: *anyopaque, name: [*:0]const u8) callconv(.c) Status {
    lock();
    defer unlock();
    const text = std.mem.span(name);
    if (functions.get(text)) |function| {
        out.* = function;
        return success;
    }
    const function = allocator.create(Function) catch return out_of_memory;
    function.* = .{ .name = allocator.dupe(u8, text) catch return out_of_memory, .code = Code.of(text) orelse return not_found, .shared_bytes_max = if (is_cuda) 48 << 10 else 64 << 10 };
    functions.put(allocator, function.name, function) catch return out_of_memory;
    out.* = function;
    return success;
}

fn functionSet(function: *Function, attribute: i32, value: i32) callconv(.c) Status {
    if (attribute != 8 or value > number("STAND_IN_SHARED", 163 << 10)) return invalid_value;
    function.shared_bytes_max = @intCast(value);
    return success;
}

fn launch(function: *Function, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32, shared_bytes: u32, stream: *Stream, parameters: [*]const ?*const anyopaque, _: ?*anyopaque) callconv(.c) Status {
    if (grid_x == 0 or grid_y == 0 or grid_z == 0 or grid_y > 65535 or grid_z > 65535) return invalid_value;
    if (block_x == 0 or block_x > 1024 or block_y != 1 or block_z != 1 or shared_bytes > function.shared_bytes_max) return invalid_value;
    if (failsAt("launch", function.name)) return invalid_value;
    var kernel: Kernel = .{ .function = function, .blocks = .{ grid_x, grid_y, grid_z }, .threads = block_x, .shared_bytes = shared_bytes, .number = function.launched, .arguments = undefined };
    var at: usize = 0;
    for (function.code.sizes(), 0..) |bytes, index| {
        @memcpy(kernel.arguments[at..][0..bytes], @as([*]const u8, @ptrCast(parameters[index].?))[0..bytes]);
        at += std.mem.alignForward(usize, bytes, Kernel.parameter_alignment);
    }
    function.launched += 1;
    stream.push(.{ .kernel = kernel });
    return success;
}

fn tensorMapEncode() callconv(.c) Status {
    return invalid_value; // of Hopper's kernels alone
}

// ---- matrix products ------------------------------------------------------------------------------------------------

const Descriptor = struct { transpose_a: bool = false, transpose_b: bool = false, bias: usize = 0, has_bias: bool = false };
const Layout = struct { dtype: i32, rows: u64, columns: u64, leading: u64 };

const Product = struct {
    descriptor: Descriptor,
    a: usize,
    a_layout: Layout,
    b: usize,
    b_layout: Layout,
    c: usize,
    d: usize,
    d_layout: Layout,
    alpha: f32,
    beta: f32,
    /// The second algorithm adds up from the end, so that a choice that changes shows in the bits.
    backwards: bool,

    fn compute(product: *const Product) void {
        const m, const n = .{ product.d_layout.rows, product.d_layout.columns };
        const k = if (product.descriptor.transpose_a) product.a_layout.rows else product.a_layout.columns;
        const columns = allocator.alloc(f32, m * k) catch @panic("out of memory"); // of A, one after the other
        defer allocator.free(columns);
        for (0..k) |inner| for (columns[inner * m ..][0..m], 0..) |*value, row| {
            value.* = element(product.a, product.a_layout, if (product.descriptor.transpose_a) .{ inner, row } else .{ row, inner });
        };
        const sums = allocator.alloc(f32, m) catch @panic("out of memory");
        defer allocator.free(sums);
        for (0..n) |column| {
            @memset(sums, 0);
            for (0..k) |step| {
                const inner = if (product.backwards) k - 1 - step else step;
                const factor = element(product.b, product.b_layout, if (product.descriptor.transpose_b) .{ column, inner } else .{ inner, column });
                for (sums, columns[inner * m ..][0..m]) |*sum, value| sum.* += factor * value;
            }
            for (sums, 0..) |sum, row| {
                var value = product.alpha * sum;
                if (product.beta != 0) value += product.beta * element(product.c, product.d_layout, .{ row, column });
                if (product.descriptor.has_bias) value += bfloat16(product.descriptor.bias, row);
                const place = column * product.d_layout.leading + row;
                if (product.d_layout.dtype == 0) {
                    @as([*]f32, @ptrFromInt(product.d))[place] = value;
                } else @as([*]u16, @ptrFromInt(product.d))[place] = rounded(value);
            }
        }
    }

    fn element(address: usize, layout: Layout, place: [2]u64) f32 {
        const index = place[1] * layout.leading + place[0];
        return if (layout.dtype == 0) @as([*]const f32, @ptrFromInt(address))[index] else bfloat16(address, index);
    }
};

fn bfloat16(address: usize, index: u64) f32 {
    return @bitCast(@as(u32, @as([*]const u16, @ptrFromInt(address))[index]) << 16);
}

fn rounded(value: f32) u16 {
    const bits: u32 = @bitCast(value);
    if (std.math.isNan(value)) return @intCast((bits >> 16) | 0x40);
    return @intCast((bits +% 0x7fff +% ((bits >> 16) & 1)) >> 16);
}

const not_supported: Status = 7;

/// What the libraries number differently.
const Constants = struct {
    compute_float32: i32,
    as_it_is: u32,
    transposed: u32,
    transpose_a: i32,
    transpose_b: i32,
    epilogue: i32,
    bias_pointer: i32,
    bias_dtype: i32,
    algorithm_bytes: usize,
    result_bytes: usize,
};
fn constants() Constants {
    return if (is_cuda)
        .{ .compute_float32 = 68, .as_it_is = 0, .transposed = 1, .transpose_a = 3, .transpose_b = 4, .epilogue = 7, .bias_pointer = 8, .bias_dtype = 26, .algorithm_bytes = 64, .result_bytes = 96 }
    else
        .{ .compute_float32 = 2, .as_it_is = 111, .transposed = 112, .transpose_a = 0, .transpose_b = 1, .epilogue = 2, .bias_pointer = 3, .bias_dtype = 4, .algorithm_bytes = 24, .result_bytes = 56 };
}

fn blasCreate(handle: *?*anyopaque) callconv(.c) Status {
    handle.* = @ptrCast(&mutex);
    return success;
}
fn cudaBlasVersion() callconv(.c) usize {
    return 1000;
}
fn blasDestroy(_: *anyopaque) callconv(.c) Status {
    return success;
}
fn blasVersion(_: *anyopaque, version: *i32) callconv(.c) Status {
    version.* = 1000;
    return success;
}
fn productCreate(out: *?*Descriptor, compute: i32, scale: i32) callconv(.c) Status {
    if (compute != constants().compute_float32 or scale != 0) return invalid_value;
    const made = allocator.create(Descriptor) catch return out_of_memory;
    made.* = .{};
    lock();
    defer unlock();
    live_objects += 1;
    out.* = made;
    return success;
}
fn productDestroy(descriptor: *Descriptor) callconv(.c) Status {
    lock();
    live_objects -= 1;
    unlock();
    allocator.destroy(descriptor);
    return success;
}
fn productSet(descriptor: *Descriptor, attribute: i32, value: *align(1) const u64, bytes: usize) callconv(.c) Status {
    const word: u32 = @truncate(if (bytes == 8) value.* else @as(*align(1) const u32, @ptrCast(value)).*);
    const known = constants();
    if (attribute == known.transpose_a or attribute == known.transpose_b) {
        if (bytes != 4 or (word != known.as_it_is and word != known.transposed)) return invalid_value;
        (if (attribute == known.transpose_a) &descriptor.transpose_a else &descriptor.transpose_b).* = word == known.transposed;
    } else if (attribute == known.epilogue) {
        descriptor.has_bias = word == 4;
    } else if (attribute == known.bias_pointer) {
        descriptor.bias = value.*;
    } else if (attribute != known.bias_dtype or word != 14) return invalid_value;
    return success;
}
fn layoutCreate(out: *?*Layout, dtype: i32, rows: u64, columns: u64, leading: i64) callconv(.c) Status {
    if (leading < rows or (dtype != 0 and dtype != 14)) return invalid_value;
    const made = allocator.create(Layout) catch return out_of_memory;
    made.* = .{ .dtype = dtype, .rows = rows, .columns = columns, .leading = @intCast(leading) };
    lock();
    defer unlock();
    live_objects += 1;
    out.* = made;
    return success;
}
fn layoutDestroy(layout: *Layout) callconv(.c) Status {
    lock();
    live_objects -= 1;
    unlock();
    allocator.destroy(layout);
    return success;
}
fn preferenceCreate(out: *?*anyopaque) callconv(.c) Status {
    out.* = @ptrCast(&changed);
    return success;
}
fn preferenceDestroy(_: *anyopaque) callconv(.c) Status {
    return success;
}
fn preferenceSet(_: *anyopaque, attribute: i32, _: *const anyopaque, bytes: usize) callconv(.c) Status {
    const known = if (attribute == 1) bytes == 8 else is_cuda and (attribute == 3 or (attribute >= 5 and attribute <= 8)) and bytes == 4;
    return if (known) success else invalid_value;
}

/// Both libraries' results begin with the algorithm; its number is all that is not zero here.
fn heuristic(_: *anyopaque, _: *Descriptor, _: *Layout, _: *Layout, _: *Layout, _: *Layout, _: *anyopaque, wanted: i32, results: [*]u8, found: *i32) callconv(.c) Status {
    found.* = 0;
    if (failsWith("product")) return not_supported;
    const bytes = constants().result_bytes;
    for (0..@min(2, @as(usize, @intCast(wanted)))) |which| {
        const result = results[which * bytes ..][0..bytes];
        @memset(result, 0);
        result[0] = @intCast(which + 1);
        found.* += 1;
    }
    return success;
}

fn multiply(_: *anyopaque, descriptor: *const Descriptor, alpha: *const f32, a: usize, a_layout: *const Layout, b: usize, b_layout: *const Layout, beta: *const f32, addend: usize, _: *const Layout, d: usize, d_layout: *const Layout, algorithm: *const u64, _: usize, _: usize, stream: *Stream) callconv(.c) Status {
    if (algorithm.* != 1 and algorithm.* != 2) return invalid_value;
    const inner_a = if (descriptor.transpose_a) a_layout.rows else a_layout.columns;
    const inner_b = if (descriptor.transpose_b) b_layout.columns else b_layout.rows;
    const outer_a = if (descriptor.transpose_a) a_layout.columns else a_layout.rows;
    const outer_b = if (descriptor.transpose_b) b_layout.rows else b_layout.columns;
    if (inner_a != inner_b or outer_a != d_layout.rows or outer_b != d_layout.columns) return invalid_value;
    stream.push(.{ .product = .{ .descriptor = descriptor.*, .a = a, .a_layout = a_layout.*, .b = b, .b_layout = b_layout.*, .c = addend, .d = d, .d_layout = d_layout.*, .alpha = alpha.*, .beta = beta.*, .backwards = algorithm.* == 2 } });
    return success;
}

fn algorithmCheck(_: *anyopaque, _: *Descriptor, _: *Layout, _: *Layout, _: *Layout, _: *Layout, algorithm: *const u64, result: [*]u8) callconv(.c) Status {
    @memset(result[0..constants().result_bytes], 0);
    return if (algorithm.* == 1 or algorithm.* == 2) success else not_supported;
}

// ---- names ----------------------------------------------------------------------------------------------------------

fn offer(comptime cuda: ?[]const u8, comptime hip: ?[]const u8, comptime function: anytype) void {
    for ([_]?[]const u8{ cuda, hip }) |known| if (known) |name| @export(&function, .{ .name = name });
}

comptime {
    offer("cuInit", null, cudaInit);
    offer(null, "hipInit", init);
    offer("cuDriverGetVersion", "hipDriverGetVersion", driverVersion);
    offer("cuDeviceGetCount", "hipGetDeviceCount", deviceCount);
    offer("cuDeviceGet", "hipDeviceGet", deviceGet);
    offer("cuDeviceGetName", "hipDeviceGetName", deviceName);
    offer("cuDeviceGetAttribute", "hipDeviceGetAttribute", deviceAttribute);
    offer("cuMemGetInfo_v2", "hipMemGetInfo", memoryInfo);
    offer("cuMemAlloc_v2", "hipMalloc", allocate);
    offer("cuMemFree_v2", "hipFree", release);
    offer("cuMemHostRegister_v2", "hipHostRegister", hostRegister);
    offer("cuMemHostUnregister", "hipHostUnregister", hostUnregister);
    offer("cuMemsetD8Async", "hipMemsetD8Async", fillAsync);
    offer("cuStreamCreate", "hipStreamCreateWithFlags", streamCreate);
    offer("cuStreamDestroy_v2", "hipStreamDestroy", streamDestroy);
    offer("cuStreamSynchronize", "hipStreamSynchronize", streamSynchronize);
    offer("cuStreamWaitEvent", "hipStreamWaitEvent", streamWait);
    offer("cuEventCreate", "hipEventCreateWithFlags", eventCreate);
    offer("cuEventDestroy_v2", "hipEventDestroy", eventDestroy);
    offer("cuEventRecord", "hipEventRecord", eventRecord);
    offer("cuEventQuery", "hipEventQuery", eventQuery);
    offer("cuEventSynchronize", "hipEventSynchronize", eventSynchronize);
    offer("cuEventElapsedTime", "hipEventElapsedTime", eventElapsed);
    offer("cuModuleLoadData", "hipModuleLoadData", moduleLoad);
    offer("cuModuleUnload", "hipModuleUnload", moduleUnload);
    offer("cuModuleGetFunction", "hipModuleGetFunction", moduleFunction);
    offer("cuLaunchKernel", "hipModuleLaunchKernel", launch);
    offer(null, "hipSetDevice", deviceSet);
    offer(null, "hipDeviceReset", deviceReset);
    offer(null, "hipGetErrorName", errorName);
    offer(null, "hipGetErrorString", errorText);
    offer("cublasLtCreate", "hipblasLtCreate", blasCreate);
    offer("cublasLtDestroy", "hipblasLtDestroy", blasDestroy);
    offer(null, "hipblasLtGetVersion", blasVersion);
    offer("cublasLtMatmulDescCreate", "hipblasLtMatmulDescCreate", productCreate);
    offer("cublasLtMatmulDescDestroy", "hipblasLtMatmulDescDestroy", productDestroy);
    offer("cublasLtMatmulDescSetAttribute", "hipblasLtMatmulDescSetAttribute", productSet);
    offer("cublasLtMatrixLayoutCreate", "hipblasLtMatrixLayoutCreate", layoutCreate);
    offer("cublasLtMatrixLayoutDestroy", "hipblasLtMatrixLayoutDestroy", layoutDestroy);
    offer("cublasLtMatmulPreferenceCreate", "hipblasLtMatmulPreferenceCreate", preferenceCreate);
    offer("cublasLtMatmulPreferenceDestroy", "hipblasLtMatmulPreferenceDestroy", preferenceDestroy);
    offer("cublasLtMatmulPreferenceSetAttribute", "hipblasLtMatmulPreferenceSetAttribute", preferenceSet);
    offer("cublasLtMatmulAlgoGetHeuristic", "hipblasLtMatmulAlgoGetHeuristic", heuristic);
    offer("cublasLtMatmul", "hipblasLtMatmul", multiply);
    offer("cuMemcpyHtoDAsync_v2", "hipMemcpyHtoDAsync", copyAsync);
    offer("cuMemcpyDtoHAsync_v2", "hipMemcpyDtoHAsync", copyAsync);
    offer("cuMemcpyDtoDAsync_v2", "hipMemcpyDtoDAsync", copyAsync);
    offer("cuDevicePrimaryCtxRetain", null, contextRetain);
    offer("cuDevicePrimaryCtxRelease_v2", null, contextRelease);
    offer("cuDevicePrimaryCtxReset_v2", null, contextReset);
    offer("cuCtxSetCurrent", null, contextSet);
    offer("cuFuncSetAttribute", null, functionSet);
    offer("cuTensorMapEncodeTiled", null, tensorMapEncode);
    offer("cuGetErrorName", null, cudaErrorName);
    offer("cuGetErrorString", null, cudaErrorText);
    offer("cublasLtGetVersion", null, cudaBlasVersion);
    offer("cublasLtMatmulAlgoCheck", null, algorithmCheck);
}
