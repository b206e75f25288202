//! Turns the words that TypeScript recorded into commands, and refuses whatever does not fit: unknown ops, handles that
//! are gone, ranges beyond their buffer, missing ranges, ranges of another length than the op declares, waits for the future, files
//! where memory is meant. After this no size is checked again; what indexes mean is checked by the op that reads them.
//!
//! A command is: op, stream, deadline, flags, number of waits, each wait as two words (low, high), then the fields of
//! the op's struct in order: a range is handle, offset low and high, bytes low and high; u32, f32 and enums are one word,
//! u64 and f64 two. The encoder is generated from the same structs (`generate.zig`).

const std = @import("std");
const abi = @import("abi.zig");
const files = @import("files.zig");
const last_error = @import("last_error.zig");
const lengths = @import("lengths.zig");
const memory_module = @import("memory.zig");

const allocator = std.heap.c_allocator;
const arguments_bytes_max = blk: {
    var largest: usize = 0;
    for (@typeInfo(abi.ops).@"struct".decls) |declaration| largest = @max(largest, @sizeOf(@field(abi.ops, declaration.name)));
    break :blk largest;
};

pub const flag_notify = 1;

/// As JavaScript counts.
const ids_max = 1 << 53;
/// Op, stream, deadline, flags and number of waits.
const command_words_min = 5;

pub const Command = struct {
    op: abi.Op,
    stream: abi.Stream,
    deadline: u32,
    notify: bool,
    waits: []const u64,
    /// Bit i: range field i (in the op's order, scalars not counted) is in the GPU's memory.
    on_gpu: u32 = 0,
    /// The file of a disk command.
    file: files.File = .{ .descriptor = -1, .offset = 0, .name = "" },
    arguments: [arguments_bytes_max]u8 align(16) = undefined,
};

pub const Plan = struct {
    arena: std.heap.ArenaAllocator,
    commands: []Command,

    pub fn deinit(decoded: *Plan) void {
        decoded.arena.deinit();
    }
};

const Reader = struct {
    words: []const u32,
    position: usize = 0,

    fn word(reader: *Reader) !u32 {
        if (reader.position >= reader.words.len) return refuse("plan ends in the middle of a command", .{});
        defer reader.position += 1;
        return reader.words[reader.position];
    }

    fn double(reader: *Reader) !u64 {
        const low = try reader.word();
        return @as(u64, try reader.word()) << 32 | low;
    }
};

fn refuse(comptime format: []const u8, arguments: anytype) error{Refused} {
    last_error.set(format, arguments);
    return error.Refused;
}

pub fn plan(memory: *const memory_module.Memory, base: u64, count: u32, words: []const u32) error{ Refused, OutOfMemory }!Plan {
    if (count == 0) return refuse("a plan without commands", .{});
    if (base > ids_max) return refuse("command ids begin at {d}, the limit is {d}", .{ base, ids_max });
    if (count > words.len / command_words_min) return refuse("plan of {d} commands has only {d} words", .{ count, words.len });
    var decoded: Plan = .{ .arena = .init(allocator), .commands = &.{} };
    errdefer decoded.deinit();
    decoded.commands = try decoded.arena.allocator().alloc(Command, count);
    var reader: Reader = .{ .words = words };
    for (decoded.commands, 0..) |*command, index| try readCommand(memory, &reader, base + index, decoded.arena.allocator(), command);
    if (reader.position != words.len) return refuse("plan of {d} commands has {d} words too many", .{ count, words.len - reader.position });
    return decoded;
}

fn readCommand(memory: *const memory_module.Memory, reader: *Reader, id: u64, arena: std.mem.Allocator, command: *Command) error{ Refused, OutOfMemory }!void {
    const op = try readEnum(abi.Op, reader);
    const stream = try readEnum(abi.Stream, reader);
    const deadline = try reader.word();
    const flags = try reader.word();
    const wait_count = try reader.word();
    if (wait_count > reader.words.len) return refuse("command {d} ({s}) has {d} waits", .{ id, @tagName(op), wait_count });
    const waits = try arena.alloc(u64, wait_count);
    for (waits) |*wait| {
        wait.* = try reader.double();
        if (wait.* >= id) return refuse("command {d} ({s}) waits for command {d}, which is not before it", .{ id, @tagName(op), wait.* });
    }
    command.* = .{ .op = op, .stream = stream, .deadline = deadline, .notify = flags & flag_notify != 0, .waits = waits };
    switch (op) {
        inline else => |known| {
            const typed: *abi.Arguments(known) = @ptrCast(@alignCast(&command.arguments));
            comptime var ranges: u5 = 0;
            inline for (@typeInfo(abi.Arguments(known)).@"struct".fields) |field| {
                if (comptime abi.isRange(field.type)) {
                    const wanted: Wanted = .{ .optional = field.type.may_be_absent, .file = comptime std.mem.eql(u8, field.name, "file") };
                    const range = try readRange(wanted, memory, reader, id, @tagName(known) ++ "." ++ field.name, @as(u32, 1) << ranges, command);
                    ranges += 1;
                    @field(typed, field.name) = .of(range);
                } else @field(typed, field.name) = try readScalar(field.type, reader);
            }
            var text: [256]u8 = undefined;
            const granule = memory.device.granule();
            if (lengths.problem(known, typed, granule.bytes / granule.stored, &text)) |problem| return refuse("command {d}: {s}", .{ id, problem });
        },
    }
}

/// What an op's field says of its range.
const Wanted = struct { optional: bool, file: bool };

/// One function for all ranges of all ops: a copy per field took the compiler two minutes.
fn readRange(wanted: Wanted, memory: *const memory_module.Memory, reader: *Reader, id: u64, what: []const u8, bit: u32, command: *Command) error{Refused}!abi.Bytes {
    const handle = try reader.word();
    const offset = try reader.double();
    const bytes = try reader.double();
    if (handle == 0 or bytes == 0) {
        if (wanted.optional) return .{ .address = null, .bytes = 0 };
        return refuse("command {d}: {s} is missing", .{ id, what });
    }
    const buffer = memory.get(handle) orelse return refuse("command {d}: {s} names a buffer that is not there (handle {d})", .{ id, what, handle });
    if (offset > buffer.bytes or bytes > buffer.bytes - offset)
        return refuse("command {d}: {s} takes bytes {d} to {d} of {s}, which has {d}", .{ id, what, offset, offset +| bytes, buffer.label(), buffer.bytes });
    if (wanted.file != (buffer.tier == .file))
        return refuse("command {d}: {s} is {s}, which is {s}", .{ id, what, buffer.label(), if (wanted.file) "no file" else "a file" });
    if (wanted.file) {
        if (command.stream != .disk) return refuse("command {d}: {s} is a file outside the disk stream", .{ id, what });
        command.file = .{ .descriptor = buffer.file, .offset = offset, .name = buffer.label() };
        return .{ .address = null, .bytes = bytes };
    }
    if (memory.device.isApart()) {
        const on_gpu = buffer.tier == .device;
        const on_host_stream = command.stream == .host or command.stream == .disk;
        if (on_gpu and on_host_stream) return refuse("command {d}: {s} is {s}, in the GPU's memory, which the {s} stream does not reach", .{ id, what, buffer.label(), @tagName(command.stream) });
        if (!on_gpu and !on_host_stream and command.op != .copy) return refuse("command {d}: {s} is {s}, in host memory; on the {s} stream a GPU only copies that", .{ id, what, buffer.label(), @tagName(command.stream) });
        if (on_gpu) command.on_gpu |= bit;
    }
    const granule = memory.device.granule();
    if (offset % granule.bytes != 0) return refuse("command {d}: {s} starts at byte {d}, not a multiple of {d}", .{ id, what, offset, granule.bytes });
    return .{ .address = buffer.address.? + offset / granule.bytes * granule.stored, .bytes = bytes };
}

fn readScalar(comptime T: type, reader: *Reader) !T {
    return switch (@typeInfo(T)) {
        .@"enum" => readEnum(T, reader),
        .float => if (T == f64) @bitCast(try reader.double()) else @bitCast(try reader.word()),
        else => if (T == u64) try reader.double() else try reader.word(),
    };
}

fn readEnum(comptime T: type, reader: *Reader) !T {
    const value = try reader.word();
    if (value >= @typeInfo(T).@"enum".fields.len) return refuse("{d} is not a value of {s}", .{ value, @typeName(T) });
    return @enumFromInt(value);
}
