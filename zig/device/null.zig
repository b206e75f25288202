//! The device that does nothing: each buffer holds one digest per 64 bytes, and a command writes a hash of its op, its
//! scalars and the digests it reads. Two plans that compute the same thing from the same inputs end with the same
//! digests, however they use slots and whoever finishes first; one that reads a slot too early does not.
//!
//! A copy moves digests. An elementwise op hashes 64 elements at a time, so that chunking does not show. Any other op
//! hashes everything it reads.

const std = @import("std");
const abi = @import("../abi.zig");
const granule_bytes = @import("../memory.zig").granule_bytes;

/// Ops where element i of every output depends on element i of the inputs alone, plus the ranges named here.
const Elementwise = struct { op: abi.Op, shared: []const []const u8 = &.{} };
const elementwise = [_]Elementwise{
    .{ .op = .join_weights },
    .{ .op = .split_weights },
    .{ .op = .cast },
    .{ .op = .accumulate },
    .{ .op = .adamw, .shared = &.{"factor"} },
};

pub fn run(op: abi.Op, arguments: *const anyopaque) void {
    switch (op) {
        .copy, .file_read, .file_write => move(op, arguments),
        .file_sync => {},
        inline else => |known| {
            const typed: *const abi.Arguments(known) = @ptrCast(@alignCast(arguments));
            inline for (elementwise) |entry| {
                if (entry.op == known) return runElementwise(known, entry.shared, typed);
            }
            runWhole(known, typed);
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
    const seed = hashInputs(op, typed, &.{});
    inline for (@typeInfo(abi.Arguments(op)).@"struct".fields, 0..) |field, position| {
        if (comptime abi.isRange(field.type) and field.type.access != .read) {
            const range = @field(typed, field.name);
            if (range.present()) spread(digests(range), seed, position);
        }
    }
}

fn runElementwise(comptime op: abi.Op, comptime shared: []const []const u8, typed: *const abi.Arguments(op)) void {
    const fields = @typeInfo(abi.Arguments(op)).@"struct".fields;
    const seed = hashInputs(op, typed, shared);
    // A count that is larger than its ranges finds nothing more to hash.
    var longest: u64 = 0;
    inline for (fields) |field| {
        if (comptime abi.isRange(field.type)) longest = @max(longest, digests(@field(typed, field.name)).len);
    }
    const blocks = @min(typed.count / 64 + @intFromBool(typed.count % 64 != 0), longest);
    for (0..blocks) |block| {
        var state = seed;
        inline for (fields) |field| {
            if (comptime abi.isRange(field.type) and field.type.access != .write and !contains(shared, field.name)) {
                if (!startsAnew(op, field.name, typed)) state = absorb(state, 0, blockDigests(@field(typed, field.name), typed.count, block));
            }
        }
        inline for (fields, 0..) |field, position| {
            if (comptime abi.isRange(field.type) and field.type.access != .read) {
                spread(blockDigests(@field(typed, field.name), typed.count, block), state, position);
            }
        }
    }
}

/// Hash of the op and its scalars, and of its inputs: all of them, or the `only` ones of an elementwise op.
fn hashInputs(comptime op: abi.Op, typed: *const abi.Arguments(op), comptime only: []const []const u8) u64 {
    const is_elementwise = comptime for (elementwise) |entry| {
        if (entry.op == op) break true;
    } else false;
    var state: u64 = mix(0x51ce, @intFromEnum(op), 0);
    inline for (@typeInfo(abi.Arguments(op)).@"struct".fields, 0..) |field, position| {
        const value = @field(typed, field.name);
        if (comptime abi.isRange(field.type)) {
            const reads = comptime field.type.access != .write and (!is_elementwise or contains(only, field.name));
            if (reads and value.present() and !startsAnew(op, field.name, typed)) state = absorb(state, position, digests(value));
        } else if (comptime !(is_elementwise and std.mem.eql(u8, field.name, "count"))) {
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

/// Whether an accumulator is overwritten by this command: its `accumulate` scalar is 0.
fn startsAnew(comptime op: abi.Op, comptime field: []const u8, typed: *const abi.Arguments(op)) bool {
    const governing = comptime abi.accumulateOf(op, field);
    return if (governing) |scalar| @field(typed, scalar) == 0 else false;
}

fn contains(comptime names: []const []const u8, comptime name: []const u8) bool {
    for (names) |candidate| if (std.mem.eql(u8, candidate, name)) return true;
    return false;
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
