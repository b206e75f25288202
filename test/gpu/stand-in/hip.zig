//! A stand-in for AMD's libamdhip64 and libhipblaslt, over plain memory: it executes every call that the `hip` device makes,
//! on a machine without a GPU. Tests build it (`zig build stand-in`) and name it in SLUICE_LIBHIP and SLUICE_LIBHIPBLASLT.
//!
//! Streams are real queues with a thread each, so that only events order them, and each command may be delayed at random:
//! a wait that is missing shows as wrong numbers. A kernel whose name is an op's, or begins with one, runs that op's CPU
//! code on the kernel's first argument; one with two underscores after the op's name does nothing.
//!
//! The environment says what goes wrong, in STAND_IN_FAIL:
//!   no-device, no-kernels, pin          the calls that find a GPU, load kernels or pin memory fail
//!   launch:NAME, async:NAME             launching the kernel NAME fails, or it breaks the context when it runs
//!   product                             every matrix product is refused
//! STAND_IN_MEMORY is the card's bytes, STAND_IN_JITTER_US the longest delay of a command.

const std = @import("std");
const kernels = @import("kernels");
const abi = kernels.abi;
const c = std.c;

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
    op: abi.Op,
    /// Only the part of `linear_backward_weight` that is no matrix product.
    only_bias: bool,
    breaks: bool,
    arguments: [512]u8 align(16),

    /// False when it breaks the context, as arguments that the CPU refuses would.
    fn run(kernel: *const Kernel, pool: *const kernels.workers.Pool) bool {
        if (kernel.breaks) return false;
        if (kernel.only_bias) {
            sumColumns(@ptrCast(@alignCast(&kernel.arguments)));
            return true;
        }
        var message: kernels.workers.Message = .{};
        return kernels.run(kernel.op, &kernel.arguments, pool, &message) == 0;
    }

    fn sumColumns(op: *const abi.ops.linear_backward_weight) void {
        for (op.d_bias.as(f32)[0..op.outputs], 0..) |*to, column| {
            var sum: f64 = if (op.accumulate != 0) to.* else 0;
            for (0..op.tokens) |row| sum += bfloat16(@intFromPtr(op.dy.address), row * op.outputs + column);
            to.* = @floatCast(sum);
        }
    }
};

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

export fn hipStreamCreateWithFlags(out: *?*Stream, _: u32) Status {
    const stream = allocator.create(Stream) catch return out_of_memory;
    stream.* = .{};
    stream.thread = std.Thread.spawn(.{}, Stream.run, .{stream}) catch return out_of_memory;
    lock();
    defer unlock();
    live_objects += 1;
    out.* = stream;
    return success;
}

export fn hipStreamDestroy(stream: *Stream) Status {
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

export fn hipStreamSynchronize(stream: *Stream) Status {
    lock();
    defer unlock();
    while (stream.taken < stream.queue.items.len) _ = c.pthread_cond_wait(&changed, &mutex);
    return if (broken) illegal_address else success;
}

export fn hipStreamWaitEvent(stream: *Stream, event: *Event, _: u32) Status {
    lock();
    const ticket = event.recorded;
    unlock();
    stream.push(.{ .wait = .{ .event = event, .ticket = ticket } });
    return success;
}

export fn hipEventCreateWithFlags(out: *?*Event, _: u32) Status {
    const event = allocator.create(Event) catch return out_of_memory;
    event.* = .{};
    lock();
    defer unlock();
    live_objects += 1;
    out.* = event;
    return success;
}

export fn hipEventDestroy(event: *Event) Status {
    lock();
    live_objects -= 1;
    unlock();
    allocator.destroy(event);
    return success;
}

export fn hipEventRecord(event: *Event, stream: *Stream) Status {
    lock();
    event.recorded += 1;
    const ticket = event.recorded;
    unlock();
    stream.push(.{ .record = .{ .event = event, .ticket = ticket } });
    return success;
}

export fn hipEventQuery(event: *Event) Status {
    lock();
    defer unlock();
    if (broken) return illegal_address;
    return if (event.reached == event.recorded) success else not_ready;
}

export fn hipEventSynchronize(event: *Event) Status {
    lock();
    defer unlock();
    while (event.reached < event.recorded and !broken) _ = c.pthread_cond_wait(&changed, &mutex);
    return if (broken) illegal_address else success;
}

export fn hipEventElapsedTime(milliseconds: *f32, start: *Event, end: *Event) Status {
    lock();
    defer unlock();
    if (start.reached == 0 or end.reached == 0) return not_ready;
    milliseconds.* = @floatCast((@as(f64, @floatFromInt(end.time)) - @as(f64, @floatFromInt(start.time))) / 1e6);
    return success;
}

// ---- the device -----------------------------------------------------------------------------------------------------

export fn hipInit(_: u32) Status {
    return if (failsWith("no-device")) no_device else success;
}
export fn hipDriverGetVersion(version: *i32) Status {
    version.* = 60342133;
    return success;
}
export fn hipGetDeviceCount(count: *i32) Status {
    count.* = 1;
    return success;
}
export fn hipDeviceGet(device: *i32, ordinal: i32) Status {
    device.* = ordinal;
    return success;
}
export fn hipDeviceGetName(name: [*]u8, length: i32, _: i32) Status {
    const text = "Stand-in GPU";
    if (length <= text.len) return invalid_value;
    @memcpy(name[0..text.len], text);
    name[text.len] = 0;
    return success;
}
export fn hipDeviceGetAttribute(value: *i32, attribute: i32, _: i32) Status {
    value.* = switch (attribute) {
        63 => 4, // multiprocessors
        87 => 64, // threads of a wave
        else => return invalid_value,
    };
    return success;
}
export fn hipSetDevice(_: i32) Status {
    return success;
}
export fn hipDeviceReset() Status {
    lock();
    defer unlock();
    broken = false;
    return success;
}
export fn hipGetErrorName(status: Status) [*:0]const u8 {
    return switch (status) {
        success => "hipSuccess",
        invalid_value => "hipErrorInvalidValue",
        out_of_memory => "hipErrorOutOfMemory",
        no_device => "hipErrorNoDevice",
        no_binary => "hipErrorNoBinaryForGpu",
        not_found => "hipErrorNotFound",
        not_ready => "hipErrorNotReady",
        illegal_address => "hipErrorIllegalAddress",
        else => "hipErrorUnknown",
    };
}
export fn hipGetErrorString(_: Status) [*:0]const u8 {
    return "says the stand-in";
}

// ---- memory ---------------------------------------------------------------------------------------------------------

fn cardBytes() usize {
    return number("STAND_IN_MEMORY", 2 << 30);
}
/// What the context takes.
const context_bytes = 10 << 20;

export fn hipMemGetInfo(free: *usize, total: *usize) Status {
    lock();
    defer unlock();
    total.* = cardBytes();
    free.* = total.* -| context_bytes -| allocated;
    return success;
}

export fn hipMalloc(out: *usize, bytes: usize) Status {
    lock();
    defer unlock();
    if (broken) return illegal_address;
    if (allocated + bytes + context_bytes > cardBytes()) return out_of_memory;
    var memory: ?*anyopaque = null;
    if (c.posix_memalign(&memory, 256, bytes) != 0) return out_of_memory;
    if (bytes < 1 << 20) @memset(bytesAt(@intFromPtr(memory), bytes), 0xa5); // nothing may count on zeros
    allocations.put(allocator, @intFromPtr(memory), bytes) catch return out_of_memory;
    allocated += bytes;
    out.* = @intFromPtr(memory);
    return success;
}

export fn hipFree(address: usize) Status {
    lock();
    defer unlock();
    const entry = allocations.fetchRemove(address) orelse return invalid_value;
    allocated -= entry.value;
    c.free(@ptrFromInt(address));
    return success;
}

export fn hipHostRegister(address: usize, bytes: usize, _: u32) Status {
    if (failsWith("pin")) return out_of_memory;
    lock();
    defer unlock();
    pins.put(allocator, address, bytes) catch return out_of_memory;
    return success;
}

export fn hipHostUnregister(address: usize) Status {
    lock();
    defer unlock();
    return if (pins.remove(address)) success else invalid_value;
}

fn enqueueCopy(to: usize, from: usize, bytes: usize, stream: *Stream) Status {
    stream.push(.{ .copy = .{ .to = to, .from = from, .bytes = bytes } });
    return success;
}
export fn hipMemcpyHtoDAsync(to: usize, from: usize, bytes: usize, stream: *Stream) Status {
    return enqueueCopy(to, from, bytes, stream);
}
export fn hipMemcpyDtoHAsync(to: usize, from: usize, bytes: usize, stream: *Stream) Status {
    return enqueueCopy(to, from, bytes, stream);
}
export fn hipMemcpyDtoDAsync(to: usize, from: usize, bytes: usize, stream: *Stream) Status {
    return enqueueCopy(to, from, bytes, stream);
}
export fn hipMemsetD8Async(to: usize, value: u8, bytes: usize, stream: *Stream) Status {
    stream.push(.{ .fill = .{ .to = to, .value = value, .bytes = bytes } });
    return success;
}

// ---- kernels --------------------------------------------------------------------------------------------------------

/// A kernel's name, and the op that it stands for; null where it only prepares or finishes one.
const Function = struct { name: []const u8, op: ?abi.Op, only_bias: bool };
const bias_kernel = "linear_backward_weight__bias_reduce";
var functions: std.StringHashMapUnmanaged(*Function) = .empty;

export fn hipModuleLoadData(module: *?*anyopaque, image: *const anyopaque) Status {
    if (failsWith("no-kernels")) return no_binary;
    lock();
    defer unlock();
    live_objects += 1;
    module.* = @constCast(image);
    return success;
}

export fn hipModuleUnload(_: *anyopaque) Status {
    lock();
    defer unlock();
    live_objects -= 1;
    return success;
}

export fn hipModuleGetFunction(out: *?*Function, _: *anyopaque, name: [*:0]const u8) Status {
    lock();
    defer unlock();
    const text = std.mem.span(name);
    if (functions.get(text)) |function| {
        out.* = function;
        return success;
    }
    const op = opOf(text) orelse return not_found;
    const only_bias = std.mem.eql(u8, text, bias_kernel);
    const helps = std.mem.startsWith(u8, text[@tagName(op).len..], "__") and !only_bias;
    const function = allocator.create(Function) catch return out_of_memory;
    function.* = .{ .name = allocator.dupe(u8, text) catch return out_of_memory, .op = if (helps) null else op, .only_bias = only_bias };
    functions.put(allocator, function.name, function) catch return out_of_memory;
    out.* = function;
    return success;
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

export fn hipModuleLaunchKernel(function: *Function, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32, shared_bytes: u32, stream: *Stream, parameters: [*]const ?*const anyopaque, _: ?*anyopaque) Status {
    if (grid_x == 0 or grid_y == 0 or grid_z == 0 or grid_y > 65535 or grid_z > 65535) return invalid_value;
    const threads = @as(u64, block_x) * block_y * block_z;
    if (threads == 0 or threads > 1024 or shared_bytes > 64 << 10) return invalid_value;
    if (failsAt("launch", function.name)) return invalid_value;
    const op = function.op orelse return success;
    var command: Command = .{ .kernel = .{ .op = op, .only_bias = function.only_bias, .breaks = failsAt("async", function.name), .arguments = undefined } };
    switch (op) {
        inline else => |tag| {
            const bytes = @sizeOf(abi.Arguments(tag));
            @memcpy(command.kernel.arguments[0..bytes], @as([*]const u8, @ptrCast(parameters[0].?))[0..bytes]);
        },
    }
    stream.push(command);
    return success;
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
        const sums = allocator.alloc(f32, m) catch @panic("out of memory");
        defer allocator.free(sums);
        for (0..n) |column| {
            @memset(sums, 0);
            for (0..k) |step| {
                const inner = if (product.backwards) k - 1 - step else step;
                const factor = element(product.b, product.b_layout, if (product.descriptor.transpose_b) .{ column, inner } else .{ inner, column });
                for (sums, 0..) |*sum, row| sum.* += factor * element(product.a, product.a_layout, if (product.descriptor.transpose_a) .{ inner, row } else .{ row, inner });
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

export fn hipblasLtCreate(handle: *?*anyopaque) Status {
    handle.* = @ptrCast(&mutex);
    return success;
}
export fn hipblasLtDestroy(_: *anyopaque) Status {
    return success;
}
export fn hipblasLtGetVersion(_: *anyopaque, version: *i32) Status {
    version.* = 1000;
    return success;
}
export fn hipblasLtMatmulDescCreate(out: *?*Descriptor, compute: i32, scale: i32) Status {
    if (compute != 2 or scale != 0) return invalid_value;
    const made = allocator.create(Descriptor) catch return out_of_memory;
    made.* = .{};
    lock();
    defer unlock();
    live_objects += 1;
    out.* = made;
    return success;
}
export fn hipblasLtMatmulDescDestroy(descriptor: *Descriptor) Status {
    lock();
    live_objects -= 1;
    unlock();
    allocator.destroy(descriptor);
    return success;
}
export fn hipblasLtMatmulDescSetAttribute(descriptor: *Descriptor, attribute: i32, value: *align(1) const u64, bytes: usize) Status {
    const word: u32 = @truncate(if (bytes == 8) value.* else @as(*align(1) const u32, @ptrCast(value)).*);
    switch (attribute) {
        0, 1 => {
            if (bytes != 4 or (word != 111 and word != 112)) return invalid_value;
            (if (attribute == 0) &descriptor.transpose_a else &descriptor.transpose_b).* = word == 112;
        },
        2 => descriptor.has_bias = word == 4,
        3 => descriptor.bias = value.*,
        4 => if (word != 14) return invalid_value,
        else => return invalid_value,
    }
    return success;
}
export fn hipblasLtMatrixLayoutCreate(out: *?*Layout, dtype: i32, rows: u64, columns: u64, leading: i64) Status {
    if (leading < rows or (dtype != 0 and dtype != 14)) return invalid_value;
    const made = allocator.create(Layout) catch return out_of_memory;
    made.* = .{ .dtype = dtype, .rows = rows, .columns = columns, .leading = @intCast(leading) };
    lock();
    defer unlock();
    live_objects += 1;
    out.* = made;
    return success;
}
export fn hipblasLtMatrixLayoutDestroy(layout: *Layout) Status {
    lock();
    live_objects -= 1;
    unlock();
    allocator.destroy(layout);
    return success;
}
export fn hipblasLtMatmulPreferenceCreate(out: *?*anyopaque) Status {
    out.* = @ptrCast(&changed);
    return success;
}
export fn hipblasLtMatmulPreferenceDestroy(_: *anyopaque) Status {
    return success;
}
export fn hipblasLtMatmulPreferenceSetAttribute(_: *anyopaque, attribute: i32, _: *const anyopaque, bytes: usize) Status {
    return if (attribute == 1 and bytes == 8) success else invalid_value;
}

const Algorithm = extern struct { number: u64, unused: u64, workspace_bytes_max: usize };
const Heuristic = extern struct { algorithm: Algorithm, workspace_bytes: usize, state: i32, waves: f32, reserved: [4]i32 };

export fn hipblasLtMatmulAlgoGetHeuristic(_: *anyopaque, _: *Descriptor, _: *Layout, _: *Layout, _: *Layout, _: *Layout, _: *anyopaque, wanted: i32, results: [*]Heuristic, found: *i32) Status {
    found.* = 0;
    if (failsWith("product")) return not_supported;
    for (results[0..@min(2, @as(usize, @intCast(wanted)))], 1..) |*result, which| {
        result.* = std.mem.zeroes(Heuristic);
        result.algorithm.number = which;
        found.* += 1;
    }
    return success;
}

export fn hipblasLtMatmul(_: *anyopaque, descriptor: *const Descriptor, alpha: *const f32, a: usize, a_layout: *const Layout, b: usize, b_layout: *const Layout, beta: *const f32, addend: usize, _: *const Layout, d: usize, d_layout: *const Layout, algorithm: *const Algorithm, _: usize, _: usize, stream: *Stream) Status {
    if (algorithm.number != 1 and algorithm.number != 2) return invalid_value;
    const inner_a = if (descriptor.transpose_a) a_layout.rows else a_layout.columns;
    const inner_b = if (descriptor.transpose_b) b_layout.columns else b_layout.rows;
    const outer_a = if (descriptor.transpose_a) a_layout.columns else a_layout.rows;
    const outer_b = if (descriptor.transpose_b) b_layout.rows else b_layout.columns;
    if (inner_a != inner_b or outer_a != d_layout.rows or outer_b != d_layout.columns) return invalid_value;
    stream.push(.{ .product = .{ .descriptor = descriptor.*, .a = a, .a_layout = a_layout.*, .b = b, .b_layout = b_layout.*, .c = addend, .d = d, .d_layout = d_layout.*, .alpha = alpha.*, .beta = beta.*, .backwards = algorithm.number == 2 } });
    return success;
}
