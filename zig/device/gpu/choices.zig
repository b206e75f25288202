//! Which algorithm computes which matrix product, remembered for the process and, in one small text file per GPU and
//! library version, for the next one. A line is a shape's key and the algorithm's bytes in hex; the file is written beside
//! and renamed, so that a reader never sees half of one. A line that is lost to a race is measured again some day.

const std = @import("std");
const sync = @import("../../sync.zig");
const driver = @import("driver.zig");
const files = @import("files.zig");

const allocator = std.heap.c_allocator;

/// Room for either library's algorithm; what one does not use is zero.
pub const algorithm_bytes = 64;
pub const Algorithm = [algorithm_bytes]u8;

pub const Choices = struct {
    mutex: sync.Mutex = .{},
    path: ?[:0]const u8,
    known: std.StringHashMapUnmanaged(Algorithm) = .empty,

    var all: std.StringHashMapUnmanaged(*Choices) = .empty;
    var all_mutex: sync.Mutex = .{};

    /// The choices for a GPU and library version; all engines of a process share them.
    pub fn of(vendor: driver.Vendor, gpu: []const u8, version: u64, directory: ?[]const u8) *Choices {
        all_mutex.lock();
        defer all_mutex.unlock();
        var name: [256]u8 = undefined;
        const label = std.fmt.bufPrint(&name, "gemm-{s}-{s}-{d}.txt", .{ @tagName(vendor), gpu[0..@min(gpu.len, 160)], version }) catch unreachable;
        for (label) |*letter| if (!std.ascii.isAlphanumeric(letter.*) and letter.* != '.' and letter.* != '-') {
            letter.* = '_';
        };
        const path = if (directory) |folder| std.fmt.allocPrintSentinel(allocator, "{s}/{s}", .{ folder, label }, 0) catch @panic("out of memory") else null;
        const entry = all.getOrPut(allocator, path orelse label) catch @panic("out of memory");
        if (entry.found_existing) {
            if (path) |text| allocator.free(text);
            return entry.value_ptr.*;
        }
        const made = allocator.create(Choices) catch @panic("out of memory");
        made.* = .{ .path = path };
        entry.key_ptr.* = path orelse allocator.dupe(u8, label) catch @panic("out of memory");
        entry.value_ptr.* = made;
        made.read();
        return made;
    }

    /// Call with the mutex held.
    pub fn get(choices: *Choices, key: []const u8) ?Algorithm {
        return choices.known.get(key);
    }

    /// Call with the mutex held. `keep` also writes the choice to disk, where there is a place for it.
    pub fn put(choices: *Choices, key: []const u8, algorithm: Algorithm, keep: bool) void {
        choices.remember(key, algorithm);
        if (!keep) return;
        const path = choices.path orelse return;
        const before = files.read(allocator, path) catch "";
        defer if (before.len > 0) allocator.free(before);
        var lines = std.mem.splitScalar(u8, before, '\n');
        while (lines.next()) |line| if (std.mem.startsWith(u8, line, key) and line.len > key.len and line[key.len] == ':') return;
        const text = std.fmt.allocPrint(allocator, "{s}{s}:{x}\n", .{ before, key, &algorithm }) catch return;
        defer allocator.free(text);
        files.replace(path, text); // a cache that cannot be written only costs time
    }

    fn read(choices: *Choices) void {
        const text = files.read(allocator, choices.path orelse return) catch return;
        defer allocator.free(text);
        var lines = std.mem.splitScalar(u8, text, '\n');
        while (lines.next()) |line| {
            const colon = std.mem.indexOfScalar(u8, line, ':') orelse continue;
            var algorithm: Algorithm = undefined;
            if (line.len - colon - 1 != 2 * algorithm_bytes) continue;
            _ = std.fmt.hexToBytes(&algorithm, line[colon + 1 ..]) catch continue;
            choices.remember(line[0..colon], algorithm);
        }
    }

    fn remember(choices: *Choices, key: []const u8, algorithm: Algorithm) void {
        const entry = choices.known.getOrPut(allocator, key) catch @panic("out of memory");
        if (!entry.found_existing) entry.key_ptr.* = allocator.dupe(u8, key) catch @panic("out of memory");
        entry.value_ptr.* = algorithm;
    }
};
