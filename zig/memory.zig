//! Buffers: named ranges of bytes in one tier, made at start and freed explicitly. A step allocates nothing.
//!
//! Sizes are exact. Large buffers are whole 2 MiB pages where the kernel grants them. Bases are staggered, because arrays
//! that are walked together at equal offsets modulo 4 KiB evict each other from the L1 cache and cost a factor of three.
//! The device tier has a hard limit: a buffer that would exceed it is refused and nothing changes.
//! Where the device's memory is its own (`device/device.zig`), large host buffers are touched by several threads when they are
//! made: the pages are there before the first step, and the kernel clears them several times as fast.

const std = @import("std");
const builtin = @import("builtin");
const abi = @import("abi.zig");
const Device = @import("device/device.zig").Device;
const last_error = @import("last_error.zig");

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
    /// Whole pages of it that the device has pinned.
    pinned: []u8 = &.{},
    file: c_int = -1,
    generation: u16,

    pub fn label(buffer: *const Buffer) []const u8 {
        return buffer.name[0..buffer.name_length];
    }
};

pub const FileMode = enum(u32) { read, write };

pub const Memory = struct {
    device: Device,
    /// Of the device tier, where that is in host memory.
    device_bytes_max: u64,
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
        const device = memory.device;
        device.enter();
        if (tier == .device) if (try device.alloc(bytes, name)) |address| {
            errdefer device.free(address, bytes);
            return memory.insert(.{ .tier = .device, .bytes = bytes, .address = @ptrFromInt(address), .mapping = &.{}, .generation = 0 }, name);
        };
        if (tier == .device and bytes > memory.device_bytes_max -| held) {
            last_error.set("device memory: buffer {s} needs {d} bytes, {d} of {d} are taken", .{ name, bytes, held, memory.device_bytes_max });
            return error.Refused;
        }
        const granule = device.granule();
        const stored = (bytes + granule.bytes - 1) / granule.bytes * granule.stored;
        const stagger: usize = if (granule.bytes > 1) 0 else (memory.made % 61) * (3 * 4096 + 832) % 65536;
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
        errdefer _ = std.c.munmap(@ptrCast(mapping.ptr), mapping.len);
        if (device.isApart() and bytes >= touch_bytes_min) touch(buffer.address.?[0..bytes], memory.touch_threads);
        if (tier == .pinned) buffer.pinned = try device.pin(buffer.address.?[0..stored], name);
        errdefer if (buffer.pinned.len > 0) device.unpin(buffer.pinned);
        return memory.insert(buffer, name);
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
        memory.device.enter();
        if (buffer.pinned.len > 0) memory.device.unpin(buffer.pinned);
        if (buffer.mapping.len > 0) {
            _ = std.c.munmap(@ptrCast(buffer.mapping.ptr), buffer.mapping.len);
        } else if (buffer.tier == .device) memory.device.free(@intFromPtr(buffer.address), buffer.bytes);
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
