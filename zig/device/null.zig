//! The device that does nothing: each buffer holds one digest per 64 bytes, and a command writes a hash of its op, its
//! scalars and the digests it reads. Two plans that compute the same thing from the same inputs end with the same
//! digests, however they use slots and whoever finishes first; one that reads a slot too early does not.
//!
//! A copy moves digests. An elementwise op hashes 64 elements at a time, so that chunking does not show. Any other op
//! hashes everything it reads.

const std = @import("std");
const abi = @import("../abi.zig");
const Granule = @import("device.zig").Granule;

/// A digest of 8 bytes for 64.
pub const granule: Granule = .{ .bytes = 64, .stored = 8 };
const granule_bytes = granule.bytes;

pub fn run(op: abi.Op, arguments: *const anyopaque) void {
    switch (op) {
        .copy, .file_read, .file_write => move(op, arguments),
        .file_sync => {},
        inline else => |known| {
            const typed: *const abi.Arguments(known) = @ptrCast(@alignCast(arguments));
            if (comptime isElementwise(known)) runElementwise(known, typed) else runWhole(known, typed);
        },
    }
}

fn move(op: abi.Op, arguments: *const anyopaque) void {
    switch (op) {
        inline .copy, .file_read, .file_write => |known| {
            const typed: *const abi.Arguments(known) = @ptrCast(@alignCast(arguments));
            // The null device keeps no files: what is written leaves no trace, and what is read is the same for all.
            if (known == .copy and typed.to.address != typed.from.address) @memcpy(digests(typed.to), digests(typed.from));
            if (known == .file_read) @memset(digests(typed.to), 1);
            if (known == .file_read or known == .file_write) digests(typed.checksum)[0] = 1;
        },
        else => unreachable,
    }
}

fn runWhole(comptime op: abi.Op, typed: *const abi.Arguments(op)) void {
    const seed = hashInputs(op, typed);
    inline for (@typeInfo(abi.Arguments(op)).@"struct".fields, 0..) |field, position| {
        if (comptime abi.isRange(field.type) and field.type.declared.access != .read) {
            const range = @field(typed, field.name);
            if (range.present()) spread(digests(range), seed, position);
        }
    }
}

fn runElementwise(comptime op: abi.Op, typed: *const abi.Arguments(op)) void {
    const fields = @typeInfo(abi.Arguments(op)).@"struct".fields;
    const seed = hashInputs(op, typed);
    for (0..std.math.divCeil(u64, typed.count, 64) catch unreachable) |block| {
        var state = seed;
        inline for (fields) |field| {
            if (comptime isRead(field.type) and isWalked(field.type)) {
                if (!startsAnew(field.type, typed)) state = absorb(state, 0, blockDigests(@field(typed, field.name), typed.count, block));
            }
        }
        inline for (fields, 0..) |field, position| {
            if (comptime abi.isRange(field.type) and field.type.declared.access != .read) {
                spread(blockDigests(@field(typed, field.name), typed.count, block), state, position);
            }
        }
    }
}

/// Hash of the op and its scalars, and of what it reads: all of it, or what all elements of an elementwise op share.
fn hashInputs(comptime op: abi.Op, typed: *const abi.Arguments(op)) u64 {
    var state: u64 = mix(0x51ce, @intFromEnum(op), 0);
    inline for (@typeInfo(abi.Arguments(op)).@"struct".fields, 0..) |field, position| {
        const value = @field(typed, field.name);
        if (comptime abi.isRange(field.type)) {
            const reads = comptime isRead(field.type) and !(isElementwise(op) and isWalked(field.type));
            if (reads and value.present() and !startsAnew(field.type, typed)) state = absorb(state, position, digests(value));
        } else if (comptime !(isElementwise(op) and std.mem.eql(u8, field.name, "count"))) {
            const bits: u64 = switch (@typeInfo(field.type)) {
                .@"enum" => @intFromEnum(value),
                .float => if (field.type == f64) @bitCast(value) else @as(u32, @bitCast(value)),
                else => value,
            };
            state = mix(state, position, bits);
        }
    }
    return state;
}

fn isElementwise(comptime op: abi.Op) bool {
    return @hasDecl(abi.Arguments(op), "by_element");
}

fn isRead(comptime T: type) bool {
    return abi.isRange(T) and T.declared.access != .write;
}

/// Of an elementwise op: whether each element uses its own part of the range.
fn isWalked(comptime T: type) bool {
    return std.mem.eql(u8, T.declared.count, "count");
}

/// Whether an accumulator is overwritten by this command: its `accumulate` scalar is 0.
fn startsAnew(comptime T: type, typed: anytype) bool {
    return if (T.declared.accumulate) |scalar| @field(typed, scalar) == 0 else false;
}

fn digests(range: anytype) []u64 {
    const first: [*]u64 = @ptrCast(@alignCast(range.address.?));
    return first[0 .. (range.bytes + granule_bytes - 1) / granule_bytes];
}

/// The digests of elements 64·block .. 64·block + 63 of a range that holds `count` elements.
fn blockDigests(range: anytype, count: u64, block: u64) []u64 {
    const per_block = @max(1, range.bytes * 64 / count / granule_bytes);
    const all = digests(range);
    return all[@min(all.len, block * per_block)..@min(all.len, (block + 1) * per_block)];
}

/// Not inlined, like `spread`: a copy per range of every op costs the compiler seconds and gains nothing here.
noinline fn absorb(state: u64, position: u64, values: []const u64) u64 {
    var result = state;
    for (values) |value| result = mix(result, position, value);
    return result;
}

noinline fn spread(values: []u64, seed: u64, position: u64) void {
    for (values, 0..) |*value, index| value.* = mix(seed, position, index);
}

fn mix(state: u64, position: u64, value: u64) u64 {
    var result = state ^ (value +% position *% 0x9e3779b97f4a7c15) *% 0xff51afd7ed558ccd;
    result = (result ^ (result >> 32)) *% 0xc4ceb9fe1a85ec53;
    return result ^ (result >> 29);
}
