//! The vendor's driver as a table of functions, filled by dlopen: libcuda for `cuda`, libamdhip64 for `hip`. Nothing
//! GPU-specific is needed at link time, and a machine without a driver gets one sentence that says what is missing.
//!
//! Both drivers have the same functions under other names, with the same arguments in the same order; the few that differ
//! are hidden behind methods of `Table`. On NVIDIA the device's primary context is used, because cuBLASLt works on that one.
//! Read next: `gpu.zig`, which opens a device with it.

const std = @import("std");
const last_error = @import("../../last_error.zig");

pub const Status = i32;
pub const Stream = ?*anyopaque;
pub const Event = *anyopaque;
pub const Function = *anyopaque;
pub const Module = *anyopaque;
pub const Address = u64;

pub const Vendor = enum { cuda, hip };

/// Statuses that mean something to us; both vendors number them alike.
pub const status = struct {
    pub const out_of_memory = 2;
    pub const stub_library = 34;
    pub const insufficient_driver = 35;
    pub const no_device = 100;
    pub const invalid_device = 101;
    pub const invalid_image = 200;
    pub const no_binary_for_gpu = 209;
    pub const invalid_ptx = 218;
    pub const unsupported_ptx_version = 222;
    pub const not_found = 500;
    pub const not_ready = 600;
};

pub const event_timed: u32 = 0;
pub const event_untimed: u32 = 2;
const stream_nonblocking: u32 = 1;
const host_register_portable_mapped: u32 = 1 | 2;
const function_shared_bytes_max: i32 = 8;

/// The driver's functions. `names` says what each vendor calls them; a function that one vendor lacks is optional.
const Calls = struct {
    init: *const fn (flags: u32) callconv(.c) Status,
    driver_version: *const fn (version: *i32) callconv(.c) Status,
    device_count: *const fn (count: *i32) callconv(.c) Status,
    device_get: *const fn (device: *i32, ordinal: i32) callconv(.c) Status,
    device_name: *const fn (name: [*]u8, length: i32, device: i32) callconv(.c) Status,
    device_attribute: *const fn (value: *i32, attribute: i32, device: i32) callconv(.c) Status,
    context_retain: ?*const fn (context: *?*anyopaque, device: i32) callconv(.c) Status,
    context_release: ?*const fn (device: i32) callconv(.c) Status,
    context_reset: ?*const fn (device: i32) callconv(.c) Status,
    context_set: ?*const fn (context: ?*anyopaque) callconv(.c) Status,
    device_set: ?*const fn (device: i32) callconv(.c) Status,
    device_reset: ?*const fn () callconv(.c) Status,
    memory_info: *const fn (free: *usize, total: *usize) callconv(.c) Status,
    allocate: *const fn (address: *Address, bytes: usize) callconv(.c) Status,
    free: *const fn (address: Address) callconv(.c) Status,
    host_register: *const fn (address: *anyopaque, bytes: usize, flags: u32) callconv(.c) Status,
    host_unregister: *const fn (address: *anyopaque) callconv(.c) Status,
    copy_to_device: *const fn (to: Address, from: *const anyopaque, bytes: usize, stream: Stream) callconv(.c) Status,
    copy_to_host: *const fn (to: *anyopaque, from: Address, bytes: usize, stream: Stream) callconv(.c) Status,
    copy_on_device: *const fn (to: Address, from: Address, bytes: usize, stream: Stream) callconv(.c) Status,
    fill: *const fn (to: Address, value: u8, bytes: usize, stream: Stream) callconv(.c) Status,
    stream_create: *const fn (stream: *Stream, flags: u32) callconv(.c) Status,
    stream_destroy: *const fn (stream: Stream) callconv(.c) Status,
    stream_synchronize: *const fn (stream: Stream) callconv(.c) Status,
    stream_wait: *const fn (stream: Stream, event: Event, flags: u32) callconv(.c) Status,
    event_create: *const fn (event: *?Event, flags: u32) callconv(.c) Status,
    event_destroy: *const fn (event: Event) callconv(.c) Status,
    event_record: *const fn (event: Event, stream: Stream) callconv(.c) Status,
    event_query: *const fn (event: Event) callconv(.c) Status,
    event_synchronize: *const fn (event: Event) callconv(.c) Status,
    event_elapsed: *const fn (milliseconds: *f32, start: Event, end: Event) callconv(.c) Status,
    module_load: *const fn (module: *?Module, image: *const anyopaque) callconv(.c) Status,
    module_unload: *const fn (module: Module) callconv(.c) Status,
    module_function: *const fn (function: *?Function, module: Module, name: [*:0]const u8) callconv(.c) Status,
    function_set: ?*const fn (function: Function, attribute: i32, value: i32) callconv(.c) Status,
    launch: *const fn (function: Function, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32, shared_bytes: u32, stream: Stream, parameters: [*]const ?*const anyopaque, extra: ?*anyopaque) callconv(.c) Status,
    cuda_error_name: ?*const fn (status: Status, text: *?[*:0]const u8) callconv(.c) Status,
    cuda_error_text: ?*const fn (status: Status, text: *?[*:0]const u8) callconv(.c) Status,
    hip_error_name: ?*const fn (status: Status) callconv(.c) ?[*:0]const u8,
    hip_error_text: ?*const fn (status: Status) callconv(.c) ?[*:0]const u8,
};

pub const Names = struct { cuda: ?[:0]const u8 = null, hip: ?[:0]const u8 = null };
const names = struct {
    pub const init: Names = .{ .cuda = "cuInit", .hip = "hipInit" };
    const driver_version: Names = .{ .cuda = "cuDriverGetVersion", .hip = "hipDriverGetVersion" };
    const device_count: Names = .{ .cuda = "cuDeviceGetCount", .hip = "hipGetDeviceCount" };
    const device_get: Names = .{ .cuda = "cuDeviceGet", .hip = "hipDeviceGet" };
    const device_name: Names = .{ .cuda = "cuDeviceGetName", .hip = "hipDeviceGetName" };
    const device_attribute: Names = .{ .cuda = "cuDeviceGetAttribute", .hip = "hipDeviceGetAttribute" };
    const context_retain: Names = .{ .cuda = "cuDevicePrimaryCtxRetain" };
    const context_release: Names = .{ .cuda = "cuDevicePrimaryCtxRelease_v2" };
    const context_reset: Names = .{ .cuda = "cuDevicePrimaryCtxReset_v2" };
    const context_set: Names = .{ .cuda = "cuCtxSetCurrent" };
    const device_set: Names = .{ .hip = "hipSetDevice" };
    const device_reset: Names = .{ .hip = "hipDeviceReset" };
    const memory_info: Names = .{ .cuda = "cuMemGetInfo_v2", .hip = "hipMemGetInfo" };
    const allocate: Names = .{ .cuda = "cuMemAlloc_v2", .hip = "hipMalloc" };
    const free: Names = .{ .cuda = "cuMemFree_v2", .hip = "hipFree" };
    const host_register: Names = .{ .cuda = "cuMemHostRegister_v2", .hip = "hipHostRegister" };
    const host_unregister: Names = .{ .cuda = "cuMemHostUnregister", .hip = "hipHostUnregister" };
    const copy_to_device: Names = .{ .cuda = "cuMemcpyHtoDAsync_v2", .hip = "hipMemcpyHtoDAsync" };
    const copy_to_host: Names = .{ .cuda = "cuMemcpyDtoHAsync_v2", .hip = "hipMemcpyDtoHAsync" };
    const copy_on_device: Names = .{ .cuda = "cuMemcpyDtoDAsync_v2", .hip = "hipMemcpyDtoDAsync" };
    const fill: Names = .{ .cuda = "cuMemsetD8Async", .hip = "hipMemsetD8Async" };
    const stream_create: Names = .{ .cuda = "cuStreamCreate", .hip = "hipStreamCreateWithFlags" };
    const stream_destroy: Names = .{ .cuda = "cuStreamDestroy_v2", .hip = "hipStreamDestroy" };
    const stream_synchronize: Names = .{ .cuda = "cuStreamSynchronize", .hip = "hipStreamSynchronize" };
    const stream_wait: Names = .{ .cuda = "cuStreamWaitEvent", .hip = "hipStreamWaitEvent" };
    const event_create: Names = .{ .cuda = "cuEventCreate", .hip = "hipEventCreateWithFlags" };
    const event_destroy: Names = .{ .cuda = "cuEventDestroy_v2", .hip = "hipEventDestroy" };
    const event_record: Names = .{ .cuda = "cuEventRecord", .hip = "hipEventRecord" };
    const event_query: Names = .{ .cuda = "cuEventQuery", .hip = "hipEventQuery" };
    const event_synchronize: Names = .{ .cuda = "cuEventSynchronize", .hip = "hipEventSynchronize" };
    const event_elapsed: Names = .{ .cuda = "cuEventElapsedTime", .hip = "hipEventElapsedTime" };
    const module_load: Names = .{ .cuda = "cuModuleLoadData", .hip = "hipModuleLoadData" };
    const module_unload: Names = .{ .cuda = "cuModuleUnload", .hip = "hipModuleUnload" };
    const module_function: Names = .{ .cuda = "cuModuleGetFunction", .hip = "hipModuleGetFunction" };
    const function_set: Names = .{ .cuda = "cuFuncSetAttribute" };
    const launch: Names = .{ .cuda = "cuLaunchKernel", .hip = "hipModuleLaunchKernel" };
    const cuda_error_name: Names = .{ .cuda = "cuGetErrorName" };
    const cuda_error_text: Names = .{ .cuda = "cuGetErrorString" };
    const hip_error_name: Names = .{ .hip = "hipGetErrorName" };
    const hip_error_text: Names = .{ .hip = "hipGetErrorString" };
};

/// Attributes of a device, as each vendor numbers them.
pub const Attribute = enum {
    multiprocessors,
    warp,
    capability_major,
    capability_minor,
    shared_bytes_max,

    /// Null where the vendor has no such attribute, or has numbered it anew between versions.
    fn number(attribute: Attribute, vendor: Vendor) ?i32 {
        return switch (attribute) {
            .multiprocessors => if (vendor == .cuda) 16 else 63,
            .warp => if (vendor == .cuda) 10 else 87,
            .capability_major => if (vendor == .cuda) 75 else null,
            .capability_minor => if (vendor == .cuda) 76 else null,
            .shared_bytes_max => if (vendor == .cuda) 97 else null,
        };
    }
};

pub const Table = struct {
    vendor: Vendor,
    calls: Calls,

    /// The driver's library, opened and initialised. Once it is open it stays, as drivers want.
    pub fn open(vendor: Vendor) error{Refused}!Table {
        const library = try openLibrary(switch (vendor) {
            .cuda => &.{ .environment = "SLUICE_LIBCUDA", .names = &.{"libcuda.so.1"}, .needed = "device \"cuda\" needs NVIDIA's driver", .remedy = "install the driver (version 580 or newer), or use device \"cpu\"" },
            .hip => &.{ .environment = "SLUICE_LIBHIP", .names = &.{ "libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5" }, .needed = "device \"hip\" needs AMD's HIP runtime", .remedy = "install ROCm, or use device \"cpu\"" },
        });
        var table: Table = .{ .vendor = vendor, .calls = undefined };
        try fill(&table.calls, names, vendor, library);
        const started = table.calls.init(0);
        if (started == status.stub_library or started == status.insufficient_driver)
            return refuse("{s} cannot be used: {s}; install the GPU's driver", .{ library.name(), table.describe(started).slice() });
        if (started != 0) return refuse("no GPU for device \"{s}\": {s} says {s}; use device \"cpu\", or check that the GPU is visible here", .{ @tagName(vendor), library.name(), table.describe(started).slice() });
        return table;
    }

    pub fn attribute(table: *const Table, device: i32, wanted: Attribute) ?u32 {
        const number = wanted.number(table.vendor) orelse return null;
        var value: i32 = 0;
        if (table.calls.device_attribute(&value, number, device) != 0 or value < 0) return null;
        return @intCast(value);
    }

    /// The driver's name and words for a status.
    pub fn describe(table: *const Table, code: Status) Description {
        var name: ?[*:0]const u8 = null;
        var words: ?[*:0]const u8 = null;
        switch (table.vendor) {
            .cuda => {
                _ = table.calls.cuda_error_name.?(code, &name);
                _ = table.calls.cuda_error_text.?(code, &words);
            },
            .hip => {
                name = table.calls.hip_error_name.?(code);
                words = table.calls.hip_error_text.?(code);
            },
        }
        var description: Description = .{};
        const text = (if (name) |known| std.fmt.bufPrint(&description.text, "{s} ({s})", .{ known, words orelse "no words for it" }) else std.fmt.bufPrint(&description.text, "status {d}", .{code})) catch description.text[0..];
        description.length = text.len;
        return description;
    }

    /// Makes the device's context the calling thread's; every thread that calls the driver does this once.
    pub fn enter(table: *const Table, device: i32, context: ?*anyopaque) Status {
        return if (table.calls.context_set) |set| set(context) else table.calls.device_set.?(device);
    }

    pub fn createStream(table: *const Table, stream: *Stream) Status {
        return table.calls.stream_create(stream, stream_nonblocking);
    }

    /// Pins host memory that is there already, for all contexts, at the same address on the device.
    pub fn pin(table: *const Table, memory: []u8) Status {
        return table.calls.host_register(memory.ptr, memory.len, host_register_portable_mapped);
    }

    pub fn unpin(table: *const Table, memory: []u8) void {
        _ = table.calls.host_unregister(memory.ptr);
    }
};

pub const Description = struct {
    text: [256]u8 = undefined,
    length: usize = 0,

    pub fn slice(description: *const Description) []const u8 {
        return description.text[0..description.length];
    }
};

/// Kernels by name over all modules of a device, looked up when they are first launched. Used by one thread.
pub const Functions = struct {
    table: *const Table,
    modules: []const Module,
    known: std.StringHashMapUnmanaged(Known) = .empty,

    const Known = struct { function: Function, shared_bytes_max: u32 };
    /// What a kernel may ask for without being told beforehand.
    const shared_bytes_free = 48 << 10;

    /// The kernel, allowed to use so much dynamic shared memory; null when no module has it. `code` gets the driver's status.
    pub fn get(functions: *Functions, kernel: [:0]const u8, shared_bytes: u32, code: *Status) ?Function {
        const entry = functions.known.getOrPut(std.heap.c_allocator, kernel) catch @panic("out of memory");
        if (!entry.found_existing) {
            entry.value_ptr.* = .{ .shared_bytes_max = shared_bytes_free, .function = functions.find(kernel, code) orelse {
                _ = functions.known.remove(kernel);
                return null;
            } };
        }
        const known = entry.value_ptr;
        if (shared_bytes > known.shared_bytes_max) {
            if (functions.table.calls.function_set) |set| {
                code.* = set(known.function, function_shared_bytes_max, @intCast(shared_bytes));
                if (code.* != 0) return null;
            }
            known.shared_bytes_max = shared_bytes;
        }
        return known.function;
    }

    fn find(functions: *const Functions, kernel: [:0]const u8, code: *Status) ?Function {
        code.* = status.not_found;
        for (functions.modules) |module| {
            var function: ?Function = null;
            code.* = functions.table.calls.module_function(&function, module, kernel);
            if (code.* == 0) return function;
            if (code.* != status.not_found) return null;
        }
        return null;
    }

    pub fn deinit(functions: *Functions) void {
        functions.known.deinit(std.heap.c_allocator);
    }
};

// ---- libraries ------------------------------------------------------------------------------------------------------

/// What to open, and what to say when it is not there. The environment's path comes alone.
pub const Wanted = struct { environment: [:0]const u8, names: []const [:0]const u8, needed: []const u8, remedy: []const u8 };

pub const Library = struct {
    handle: *anyopaque,
    label: []const u8,

    pub fn name(library: Library) []const u8 {
        return library.label;
    }
};

extern "c" fn getenv(name: [*:0]const u8) ?[*:0]const u8;

/// Opens the first of the names that is there.
pub fn openLibrary(wanted: *const Wanted) error{Refused}!Library {
    if (getenv(wanted.environment)) |path| {
        const handle = std.c.dlopen(path, .{ .NOW = true }) orelse return refuse("{s}: {s} does not name a library that opens: {s}", .{ wanted.needed, wanted.environment, linkerText() });
        return .{ .handle = handle, .label = std.mem.span(path) };
    }
    for (wanted.names) |name| {
        if (std.c.dlopen(name, .{ .NOW = true })) |handle| return .{ .handle = handle, .label = name };
    }
    var listed: [256]u8 = undefined;
    var length: usize = 0;
    for (wanted.names, 0..) |name, index| {
        const part = std.fmt.bufPrint(listed[length..], "{s}{s}", .{ if (index == 0) "" else " or ", name }) catch break;
        length += part.len;
    }
    return refuse("{s}: {s} was not found; {s}", .{ wanted.needed, listed[0..length], wanted.remedy });
}

/// Fills a struct of function pointers by the names that `table` gives its fields for this vendor.
pub fn fill(calls: anytype, comptime table: type, vendor: Vendor, library: Library) error{Refused}!void {
    inline for (@typeInfo(@TypeOf(calls.*)).@"struct".fields) |field| {
        const wanted = @field(table, field.name);
        const name = if (vendor == .cuda) wanted.cuda else wanted.hip;
        const optional = @typeInfo(field.type) == .optional;
        const found = if (name) |text| std.c.dlsym(library.handle, text) orelse return refuse("{s} has no function {s}: it is too old, or another library; install a newer driver", .{ library.name(), text }) else null;
        if (found == null and !optional) @panic("a function of the driver that every vendor must have is without a name");
        @field(calls.*, field.name) = @ptrCast(@alignCast(found));
    }
}

fn linkerText() []const u8 {
    return if (std.c.dlerror()) |text| std.mem.span(text) else "no reason given";
}

fn refuse(comptime format: []const u8, arguments: anytype) error{Refused} {
    last_error.set(format, arguments);
    return error.Refused;
}
