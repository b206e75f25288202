//! A GPU as an engine uses it: context, kernels, matrix library, three streams, workspaces, and the memory it gives out.
//!
//! Everything a run will need beside its buffers is set up when the device opens, so that its cost on the card is known
//! before the first buffer is made: `overhead_bytes` is what the driver says is taken, less what this process's buffers
//! take. A device limit counts it. Read next: `player/gpu.zig`, how commands get
//! onto the streams and when they are done.

const std = @import("std");
const abi = @import("../../abi.zig");
const attention_hopper = @import("attention_hopper.zig");
const blas_module = @import("blas.zig");
const driver = @import("driver.zig");
const files = @import("files.zig");
const last_error = @import("../../last_error.zig");
const launcher_module = @import("launcher.zig");

const allocator = std.heap.c_allocator;
/// For partial sums of kernels.
pub const kernel_workspace_bytes: u64 = 64 << 20;
/// The driver hands out memory in pieces of this size.
pub const allocation_bytes: u64 = 2 << 20;

pub const stream_count = 3;

pub const Options = struct {
    /// Paths of compiled kernels, one per line.
    kernel_files: []const u8,
    /// Where measured choices are kept; null keeps them for this process only.
    cache_directory: ?[]const u8,
    /// Measure the algorithms of matrix products, or take the library's first guess.
    tune: bool,
    /// The most bytes that everything of this process may take on the device.
    bytes_max: u64,
};

/// Bytes of all engines' buffers in this process.
var process_bytes: std.atomic.Value(u64) = .init(0);

pub const Device = struct {
    table: driver.Table,
    device: i32,
    context: ?*anyopaque = null,
    label: [256]u8 = @splat(0),
    driver_version: i32 = 0,
    properties: launcher_module.Properties,
    modules: []driver.Module = &.{},
    images: std.heap.ArenaAllocator = .init(allocator),
    functions: driver.Functions,
    streams: [stream_count]driver.Stream = @splat(null),
    workspace: driver.Address = 0,
    gemm_workspace: driver.Address = 0,
    blas: ?blas_module.Blas = null,
    total_bytes: u64 = 0,
    overhead_bytes: u64 = 0,
    bytes_max: u64,
    /// Bytes of this device's buffers as the driver rounds them.
    buffer_bytes: std.atomic.Value(u64) = .init(0),
    /// A command broke the context: no call works any more.
    lost: std.atomic.Value(bool) = .init(false),

    pub fn open(kind: abi.DeviceKind, options: Options) error{Refused}!*Device {
        const vendor: driver.Vendor = if (kind == .cuda) .cuda else .hip;
        const device = allocator.create(Device) catch return refuse("out of memory for a device", .{});
        device.* = .{ .table = undefined, .device = 0, .properties = undefined, .functions = undefined, .bytes_max = options.bytes_max };
        errdefer allocator.destroy(device);
        device.table = try driver.Table.open(vendor);
        const table = &device.table;
        device.functions = .{ .table = table, .modules = &.{} };
        var count: i32 = 0;
        _ = table.calls.driver_version(&device.driver_version);
        try device.require(table.calls.device_count(&count), "count the GPUs");
        if (count == 0) return refuse("the driver is there, but it sees no GPU for device \"{s}\"; use device \"cpu\", or check that the GPU is visible here", .{@tagName(vendor)});
        try device.require(table.calls.device_get(&device.device, 0), "open the first GPU");
        _ = table.calls.device_name(&device.label, device.label.len - 1, device.device);
        if (table.calls.context_retain) |retain| try device.require(retain(&device.context, device.device), "make a context");
        errdefer device.tearDown();
        try device.require(device.enter(), "use the context");
        device.properties = .{
            .multiprocessors = table.attribute(device.device, .multiprocessors) orelse 1,
            .warp = table.attribute(device.device, .warp) orelse if (vendor == .cuda) 32 else 64,
            .capability = 10 * (table.attribute(device.device, .capability_major) orelse 0) + (table.attribute(device.device, .capability_minor) orelse 0),
            .shared_bytes_max = table.attribute(device.device, .shared_bytes_max) orelse 64 << 10,
        };
        try device.loadKernels(options.kernel_files);
        for (&device.streams) |*stream| try device.require(table.createStream(stream), "make a stream");
        device.workspace = device.take(kernel_workspace_bytes) orelse return device.tooSmall();
        device.gemm_workspace = device.take(blas_module.workspace_bytes) orelse return device.tooSmall();
        device.blas = try blas_module.Blas.open(device, device.gemm_workspace, options.cache_directory, options.tune);
        var text: [512]u8 = undefined;
        var launcher = device.launcherOf(.compute, &text);
        device.properties.hopper_attention = try attention_hopper.isWanted(&launcher);
        const memory = device.memoryNow();
        device.total_bytes = memory.total;
        device.overhead_bytes = (memory.total - memory.free) -| process_bytes.load(.monotonic);
        if (device.overhead_bytes >= device.bytes_max) return refuse("deviceMemory is {d} bytes, but the context, kernels and libraries alone take {d} on {s}; allow more", .{ device.bytes_max, device.overhead_bytes, device.name() });
        return device;
    }

    pub fn close(device: *Device) void {
        _ = device.enter();
        device.tearDown();
        allocator.destroy(device);
    }

    fn tearDown(device: *Device) void {
        const calls = &device.table.calls;
        if (device.blas) |*blas| blas.close();
        for (device.streams) |stream| if (stream != null) {
            _ = calls.stream_destroy(stream);
        };
        for ([_]driver.Address{ device.workspace, device.gemm_workspace }) |workspace| if (workspace != 0) {
            _ = calls.free(workspace);
        };
        for (device.modules) |module| _ = calls.module_unload(module);
        device.functions.deinit();
        device.images.deinit();
        // A broken context stays broken for the whole process, so it is thrown away.
        const lost = device.lost.load(.monotonic);
        if (calls.context_release) |leave| _ = leave(device.device);
        if (lost) {
            if (calls.context_reset) |reset| _ = reset(device.device);
            if (calls.device_reset) |reset| _ = reset();
        }
    }

    /// Every thread that calls the driver does this first.
    pub fn enter(device: *Device) driver.Status {
        return device.table.enter(device.device, device.context);
    }

    pub fn name(device: *const Device) []const u8 {
        return std.mem.sliceTo(&device.label, 0);
    }

    // ---- kernels ----------------------------------------------------------------------------------------------------

    /// Launches kernels on one stream; `message` is room for the text of a failure.
    pub fn launcherOf(device: *Device, stream: abi.Stream, message: []u8) launcher_module.Launcher {
        return .{
            .properties = device.properties,
            .stream = device.streams[@intFromEnum(stream)],
            .workspace = device.workspace,
            .workspace_bytes = kernel_workspace_bytes,
            .functions = &device.functions,
            .blas = &device.blas.?,
            .message = message,
        };
    }

    /// Loads every file that fits this GPU: on NVIDIA all fatbins but those for another generation; on AMD, of each family,
    /// the code object the GPU accepts.
    fn loadKernels(device: *Device, paths: []const u8) error{Refused}!void {
        var loaded: std.ArrayList(driver.Module) = .empty;
        defer loaded.deinit(allocator);
        var rejected: driver.Status = 0;
        var rejected_path: []const u8 = "";
        var lines = std.mem.tokenizeScalar(u8, paths, '\n');
        while (lines.next()) |line| {
            const path = device.images.allocator().dupeZ(u8, line) catch return refuse("out of memory for kernels", .{});
            const image = files.read(device.images.allocator(), path) catch return refuse("cannot read the kernels in {s}", .{path});
            var module: ?driver.Module = null;
            const code = device.table.calls.module_load(&module, image.ptr);
            if (code == 0) {
                loaded.append(allocator, module.?) catch return refuse("out of memory for kernels", .{});
                continue;
            }
            rejected = code;
            rejected_path = path;
            if (device.table.vendor == .cuda and code != driver.status.no_binary_for_gpu) break;
        }
        device.modules = device.images.allocator().dupe(driver.Module, loaded.items) catch return refuse("out of memory for kernels", .{});
        device.functions.modules = device.modules;
        const words = device.table.describe(rejected);
        if (device.table.vendor == .cuda and rejected != 0 and (rejected != driver.status.no_binary_for_gpu or loaded.items.len == 0)) {
            const major: u32 = @intCast(@divTrunc(device.driver_version, 1000));
            const minor: u32 = @intCast(@divTrunc(@mod(device.driver_version, 1000), 10));
            if (rejected == driver.status.unsupported_ptx_version or (rejected != driver.status.no_binary_for_gpu and major < 13))
                return refuse("the NVIDIA driver supports CUDA {d}.{d}, which is too old for the kernels ({s}: {s}); install driver 580 or newer", .{ major, minor, rejected_path, words.slice() });
            return refuse("{s} has no kernels for {s}, compute capability {d}.{d} ({s}); build them for it with \"bun run build\"", .{ rejected_path, device.name(), device.properties.capability / 10, device.properties.capability % 10, words.slice() });
        }
        if (device.modules.len > 0) return;
        if (rejected != 0) return refuse("none of the compiled kernels is for {s} ({s}: {s}); build them for it with \"bun run build\"", .{ device.name(), rejected_path, words.slice() });
        return refuse("no compiled kernels for device \"{s}\" were found; run \"bun run build\", or name their folder in SLUICE_KERNELS", .{@tagName(device.table.vendor)});
    }

    // ---- memory -----------------------------------------------------------------------------------------------------

    /// What the driver says now, of the whole card.
    pub fn memoryNow(device: *Device) struct { free: u64, total: u64 } {
        var free_bytes: usize = 0;
        var total: usize = 0;
        _ = device.table.calls.memory_info(&free_bytes, &total);
        return .{ .free = free_bytes, .total = total };
    }

    /// What an allocation really takes.
    pub fn rounded(bytes: u64) u64 {
        return std.mem.alignForward(u64, bytes, if (bytes < allocation_bytes / 2) 512 else allocation_bytes);
    }

    /// Bytes that buffers may still take under the limit.
    pub fn room(device: *Device) u64 {
        return device.bytes_max -| device.overhead_bytes -| device.buffer_bytes.load(.monotonic);
    }

    /// Memory for a buffer, counted; null when the limit or the card has no room for it.
    pub fn allocate(device: *Device, bytes: u64) ?driver.Address {
        if (rounded(bytes) > device.room()) return null;
        const address = device.take(bytes) orelse return null;
        _ = device.buffer_bytes.fetchAdd(rounded(bytes), .monotonic);
        _ = process_bytes.fetchAdd(rounded(bytes), .monotonic);
        return address;
    }

    /// Zeroed memory for a buffer, or the sentence that says why there is none.
    pub fn alloc(device: *Device, bytes: u64, buffer: []const u8) error{Refused}!driver.Address {
        _ = device.enter();
        const address = device.allocate(bytes) orelse {
            const held = device.buffer_bytes.load(.monotonic);
            if (rounded(bytes) > device.room())
                return refuse("device memory: buffer {s} needs {d} bytes; of {d}, buffers hold {d} and context, kernels and libraries {d}", .{ buffer, bytes, device.bytes_max, held, device.overhead_bytes });
            return refuse("device memory: buffer {s} needs {d} bytes, {s} has {d} left; reduce the run, or close what else uses the GPU", .{ buffer, bytes, device.name(), device.memoryNow().free });
        };
        errdefer device.release(address, bytes);
        const code = device.zero(address, bytes);
        if (code != 0) return refuse("cannot clear buffer {s} of {d} bytes on the device: {s}", .{ buffer, bytes, device.table.describe(code).slice() });
        return address;
    }

    /// Registers the whole pages that host memory lies on.
    pub fn pin(device: *Device, bytes: []u8, buffer: []const u8) error{Refused}![]u8 {
        const page = std.heap.pageSize();
        const start = std.mem.alignBackward(usize, @intFromPtr(bytes.ptr), page);
        const end = std.mem.alignForward(usize, @intFromPtr(bytes.ptr) + bytes.len, page);
        const pages = @as([*]u8, @ptrFromInt(start))[0 .. end - start];
        const code = device.table.pin(pages);
        if (code == 0) return pages;
        return refuse("out of memory: the driver cannot pin the {d} bytes of buffer {s}: {s}; reduce the run, or allow more locked memory (ulimit -l)", .{ bytes.len, buffer, device.table.describe(code).slice() });
    }

    pub fn release(device: *Device, address: driver.Address, bytes: u64) void {
        _ = device.table.calls.free(address);
        _ = device.buffer_bytes.fetchSub(rounded(bytes), .monotonic);
        _ = process_bytes.fetchSub(rounded(bytes), .monotonic);
    }

    fn take(device: *Device, bytes: u64) ?driver.Address {
        var address: driver.Address = 0;
        return if (device.table.calls.allocate(&address, bytes) == 0) address else null;
    }

    /// Zeroes memory and waits until it is zero.
    pub fn zero(device: *Device, address: driver.Address, bytes: u64) driver.Status {
        const upload = device.streams[@intFromEnum(abi.Stream.upload)];
        const code = device.table.calls.fill(address, 0, bytes, upload);
        return if (code != 0) code else device.table.calls.stream_synchronize(upload);
    }

    pub fn createEvent(device: *Device, flags: u32) error{Refused}!driver.Event {
        var event: ?driver.Event = null;
        try device.require(device.table.calls.event_create(&event, flags), "make an event");
        return event.?;
    }

    fn tooSmall(device: *Device) error{Refused} {
        const memory = device.memoryNow();
        return refuse("{s} has {d} of {d} bytes free, too little for the kernels' workspaces; close what else uses it", .{ device.name(), memory.free, memory.total });
    }

    fn require(device: *const Device, code: driver.Status, comptime what: []const u8) error{Refused}!void {
        if (code != 0) return refuse("cannot " ++ what ++ " for device \"{s}\": {s}", .{ @tagName(device.table.vendor), device.table.describe(code).slice() });
    }
};

fn refuse(comptime format: []const u8, arguments: anytype) error{Refused} {
    last_error.set(format, arguments);
    return error.Refused;
}
