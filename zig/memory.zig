//! Buffers: named ranges of bytes in one place, made at start and freed explicitly. A step allocates nothing.
//!
//! Sizes are exact. Large buffers are whole 2 MiB pages where the kernel grants them. Bases are staggered, because arrays
//! that are walked together at equal offsets modulo 4 KiB evict each other from the L1 cache and cost a factor of three.
//! The device place has a hard limit: a buffer that would exceed it is refused and nothing changes.
//! On the null device a buffer holds one digest per 64 bytes instead of the bytes. With a GPU the device place is the card's
//! memory, pinned memory is registered with the driver, and large host buffers are touched by several threads when they are
//! made: the pages are there before the first step, and the kernel clears them several times as fast.

const std = @import("std");
const builtin = @import("builtin");
const abi = @import("abi.zig");
const gpu = @import("device/gpu/gpu.zig");
const last_error = @import("last_error.zig");

pub const granule_bytes = 64;
const huge_page_bytes = 2 << 20;
const slots_max = 1 << 16;
/// Of one tier; also the last offset of a file that JavaScript can count to.
const bytes_max = 1 << 53;
/// Smaller buffers are touched by whoever uses them first.
const touch_bytes_min = 64 << 20;
const touch_threads_max = 16;

pub const Buffer = struct {
    name: [256]u8 = undefined,
    name_length: u32 = 0,
    tier: abi.Tier,
    bytes: u64,
    /// First byte (null for files). On the null device: the first digest.
    address: ?[*]u8,
    mapping: []align(std.heap.page_size_min) u8,
    /// Whole pages of it that the GPU's driver has pinned.
    pinned: []u8 = &.{},
    file: c_int = -1,
    generation: u16,

    pub fn label(buffer: *const Buffer) []const u8 {
        return buffer.name[0..buffer.name_length];
    }
};

pub const FileMode = enum(u32) { read, write };

pub const Memory = struct {
    digests: bool,
    device_bytes_max: u64,
    /// Where the device place is, if not in host memory.
    gpu: ?*gpu.Device = null,
    /// Threads that touch large host buffers.
    touch_threads: u32 = 1,
    bytes_held: [4]u64 = @splat(0),
    buffers: std.ArrayList(?*Buffer) = .empty,
    generations: std.ArrayList(u16) = .empty,
    made: u64 = 0,

    const allocator = std.heap.c_allocator;

    /// Makes a zeroed buffer; the handle is never 0 and is not reused for another buffer.
    pub fn create(memory: *Memory, tier: abi.Tier, bytes: u64, name: []const u8) !u32 {
        if (bytes == 0) {
            last_error.set("buffer {s} has no bytes", .{name});
            return error.Refused;
        }
        try memory.checkSize(tier, bytes, name);
        const held = memory.bytes_held[@intFromEnum(tier)];
        if (memory.gpu) |device| {
            _ = device.enter();
            if (tier == .device) return memory.createOnDevice(device, bytes, name);
        } else if (tier == .device and held + bytes > memory.device_bytes_max) {
            last_error.set("device memory: buffer {s} needs {d} bytes, {d} of {d} are taken", .{ name, bytes, held, memory.device_bytes_max });
            return error.Refused;
        }
        const stored = if (memory.digests) (bytes + granule_bytes - 1) / granule_bytes * 8 else bytes;
        const stagger: usize = if (memory.digests) 0 else (memory.made % 61) * (3 * 4096 + 832) % 65536;
        const large = stored >= huge_page_bytes;
        const alignment: usize = if (large) huge_page_bytes else 0;
        const mapping = map(stored + stagger + alignment) catch {
            last_error.set("out of memory: buffer {s} needs {d} bytes of {s} memory ({s})", .{ name, bytes, @tagName(tier), last_error.systemText() });
            return error.Refused;
        };
        const base = if (large) std.mem.alignForward(usize, @intFromPtr(mapping.ptr), huge_page_bytes) else @intFromPtr(mapping.ptr);
        if (large and builtin.os.tag == .linux) _ = std.c.madvise(@ptrFromInt(base), stored, std.c.MADV.HUGEPAGE);
        memory.made += 1;
        var buffer: Buffer = .{ .tier = tier, .bytes = bytes, .address = @ptrFromInt(base + stagger), .mapping = mapping, .generation = 0 };
        if (memory.gpu) |device| {
            if (bytes >= touch_bytes_min) touch(buffer.address.?[0..bytes], memory.touch_threads);
            if (tier == .pinned) buffer.pinned = pin(device, buffer.address.?[0..bytes], name) catch |problem| {
                _ = std.c.munmap(@ptrCast(mapping.ptr), mapping.len);
                return problem;
            };
        }
        return memory.insert(buffer, name);
    }

    fn createOnDevice(memory: *Memory, device: *gpu.Device, bytes: u64, name: []const u8) !u32 {
        const address = device.allocate(bytes) orelse {
            const held = device.buffer_bytes.load(.monotonic);
            if (gpu.Device.rounded(bytes) > device.room())
                last_error.set("device memory: buffer {s} needs {d} bytes; of {d}, buffers hold {d} and context, kernels and libraries {d}", .{ name, bytes, device.bytes_max, held, device.overhead_bytes })
            else
                last_error.set("device memory: buffer {s} needs {d} bytes, {s} has {d} left; reduce the run, or close what else uses the GPU", .{ name, bytes, device.name(), device.memoryNow().free });
            return error.Refused;
        };
        errdefer device.release(address, bytes);
        const code = device.zero(address, bytes);
        if (code != 0) {
            last_error.set("cannot clear buffer {s} of {d} bytes on the device: {s}", .{ name, bytes, device.table.describe(code).slice() });
            return error.Refused;
        }
        return memory.insert(.{ .tier = .device, .bytes = bytes, .address = @ptrFromInt(address), .mapping = &.{}, .generation = 0 }, name);
    }

    /// Registers the whole pages that a buffer lies on, so that copies need no staging.
    fn pin(device: *gpu.Device, bytes: []u8, name: []const u8) ![]u8 {
        const page = std.heap.pageSize();
        const start = std.mem.alignBackward(usize, @intFromPtr(bytes.ptr), page);
        const end = std.mem.alignForward(usize, @intFromPtr(bytes.ptr) + bytes.len, page);
        const pages = @as([*]u8, @ptrFromInt(start))[0 .. end - start];
        const code = device.table.pin(pages);
        if (code == 0) return pages;
        last_error.set("out of memory: the driver cannot pin the {d} bytes of buffer {s}: {s}; reduce the run, or allow more locked memory (ulimit -l)", .{ bytes.len, name, device.table.describe(code).slice() });
        return error.Refused;
    }

    /// Writes a zero to every page, split over threads; a thread that cannot start leaves its share to the first use.
    fn touch(bytes: []u8, count: u32) void {
        var threads: [touch_threads_max]?std.Thread = @splat(null);
        const parts = std.math.clamp(count, 1, touch_threads_max);
        const part = std.mem.alignForward(usize, bytes.len / parts, huge_page_bytes);
        for (threads[0..parts], 0..) |*thread, index| {
            const start = @min(bytes.len, index * part);
            thread.* = std.Thread.spawn(.{}, touchPages, .{bytes[start..@min(bytes.len, start + part)]}) catch null;
        }
        for (threads) |thread| if (thread) |running| running.join();
    }

    fn touchPages(bytes: []u8) void {
        var offset: usize = 0;
        while (offset < bytes.len) : (offset += std.heap.page_size_min) @as(*volatile u8, &bytes[offset]).* = 0;
    }

    /// Opens a file as a buffer. `read` opens an existing file of at least `bytes`; `write` creates it with that size.
    pub fn openFile(memory: *Memory, path: [:0]const u8, mode: FileMode, bytes: u64, name: []const u8) !u32 {
        try memory.checkSize(.file, bytes, name);
        const flags: std.c.O = if (mode == .read) .{ .ACCMODE = .RDONLY, .CLOEXEC = true } else .{ .ACCMODE = .RDWR, .CREAT = true, .TRUNC = true, .CLOEXEC = true };
        const file = std.c.open(path, flags, @as(c_uint, 0o644));
        if (file < 0) {
            last_error.set("cannot open {s}: {s}", .{ path, last_error.systemText() });
            return error.Refused;
        }
        errdefer _ = std.c.close(file);
        return memory.insert(.{ .tier = .file, .bytes = bytes, .address = null, .mapping = &.{}, .file = file, .generation = 0 }, name);
    }

    /// Nothing that is added to sizes wraps below this.
    fn checkSize(memory: *const Memory, tier: abi.Tier, bytes: u64, name: []const u8) !void {
        if (bytes <= bytes_max - memory.bytes_held[@intFromEnum(tier)]) return;
        last_error.set("buffer {s} needs {d} bytes of {s}, the limit is {d} for all of them", .{ name, bytes, @tagName(tier), bytes_max });
        return error.Refused;
    }

    fn insert(memory: *Memory, buffer: Buffer, name: []const u8) !u32 {
        const made = try allocator.create(Buffer);
        errdefer allocator.destroy(made);
        made.* = buffer;
        made.name_length = @intCast(@min(name.len, made.name.len));
        @memcpy(made.name[0..made.name_length], name[0..made.name_length]);
        const index = for (memory.buffers.items, 0..) |slot, index| {
            if (slot == null) break index;
        } else blk: {
            if (memory.buffers.items.len >= slots_max) {
                last_error.set("more than {d} buffers", .{slots_max});
                return error.Refused;
            }
            try memory.buffers.append(allocator, null);
            try memory.generations.append(allocator, 0);
            break :blk memory.buffers.items.len - 1;
        };
        memory.generations.items[index] +%= 1;
        if (memory.generations.items[index] == 0) memory.generations.items[index] = 1;
        made.generation = memory.generations.items[index];
        memory.buffers.items[index] = made;
        memory.bytes_held[@intFromEnum(made.tier)] += made.bytes;
        return @as(u32, made.generation) << 16 | @as(u32, @intCast(index));
    }

    /// The buffer of a handle, or null when the handle was never given out or its buffer is freed.
    pub fn get(memory: *const Memory, handle: u32) ?*Buffer {
        const index = handle & 0xffff;
        if (index >= memory.buffers.items.len) return null;
        const buffer = memory.buffers.items[index] orelse return null;
        return if (buffer.generation == handle >> 16) buffer else null;
    }

    pub fn destroy(memory: *Memory, handle: u32) bool {
        const buffer = memory.get(handle) orelse return false;
        memory.release(handle & 0xffff, buffer);
        return true;
    }

    fn release(memory: *Memory, index: usize, buffer: *Buffer) void {
        memory.bytes_held[@intFromEnum(buffer.tier)] -= buffer.bytes;
        if (buffer.file >= 0) _ = std.c.close(buffer.file);
        if (memory.gpu) |device| {
            _ = device.enter();
            if (buffer.tier == .device) device.release(@intFromPtr(buffer.address), buffer.bytes);
            if (buffer.pinned.len > 0) device.table.unpin(buffer.pinned);
        }
        if (buffer.mapping.len > 0) _ = std.c.munmap(@ptrCast(buffer.mapping.ptr), buffer.mapping.len);
        memory.buffers.items[index] = null;
        allocator.destroy(buffer);
    }

    pub fn deinit(memory: *Memory) void {
        for (memory.buffers.items, 0..) |slot, index| if (slot) |buffer| memory.release(index, buffer);
        memory.buffers.deinit(allocator);
        memory.generations.deinit(allocator);
    }

    fn map(bytes: usize) ![]align(std.heap.page_size_min) u8 {
        const length = std.mem.alignForward(usize, bytes, std.heap.pageSize());
        const result = std.c.mmap(null, length, .{ .READ = true, .WRITE = true }, .{ .TYPE = .PRIVATE, .ANONYMOUS = true }, -1, 0);
        if (result == std.c.MAP_FAILED) return error.OutOfMemory;
        return @as([*]align(std.heap.page_size_min) u8, @ptrCast(@alignCast(result)))[0..length];
    }
};
