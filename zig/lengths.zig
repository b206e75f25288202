//! How long each range of an op must be, and what its scalars may be: the expressions of `abi.zig`, parsed by the compiler,
//! evaluated when a plan is decoded. They are evaluated in u64 and nothing wraps: what does not fit is refused.
//!
//!   condition:  sum [(== | >=) sum]
//!   sum:        product {(+ | -) product}
//!   product:    value {(* | %) value}
//!   value:      a number, a field of the op, any (in a count), pairs (in FLOPs), or (condition)
//!   count:      condition [if condition]
//!
//! `generate.zig` writes the same expressions in TypeScript. Read next: `decode.zig`, which refuses what does not fit.

const std = @import("std");
const abi = @import("abi.zig");

/// Rows and elements of a row are counted in 31 bits: indexes and positions are i32.
pub const scalar_max = std.math.maxInt(i32);

/// `free`: any, or pairs.
pub const Step = union(enum) { number: u64, field: u8, free, add, subtract, multiply, modulo, equal, at_least };

/// An expression in postfix order, and its text.
pub const Expression = struct { steps: []const Step, text: []const u8 };

pub const Length = struct {
    name: []const u8,
    field: u8,
    optional: bool,
    written: bool,
    count: Expression,
    /// Where it does not hold, the range is absent.
    condition: ?Expression,
    /// Any whole multiple of the count will do.
    any: bool,
    element: union(enum) { bytes: u64, dtype: u8 },
    element_name: []const u8,
};

pub const Declaration = struct {
    name: []const u8,
    fields: []const []const u8,
    /// Fields that count something.
    scalars: []const u8,
    lengths: []const Length,
    needs: []const Expression,
    /// A bit per field: two of these may be the same range.
    shared: u32,
};

pub const declarations: [std.enums.values(abi.Op).len]Declaration = blk: {
    @setEvalBranchQuota(1_000_000);
    var all: [std.enums.values(abi.Op).len]Declaration = undefined;
    for (&all, std.enums.values(abi.Op)) |*declaration, op| declaration.* = declarationOf(op);
    break :blk all;
};

const fields_max = 24;
/// Per field: a scalar's value, the bytes of a dtype's elements, the number of a range's elements.
const Values = [fields_max]u64;

/// What is wrong with a command, or null. `text` is where the sentence goes. On a device that keeps digests, `shrink` bytes of a
/// range take one of memory.
pub fn problem(comptime op: abi.Op, arguments: *const abi.Arguments(op), shrink: u64, text: []u8) ?[]const u8 {
    var values: Values = undefined;
    var addresses: Values = undefined;
    inline for (@typeInfo(abi.Arguments(op)).@"struct".fields, 0..) |field, index| {
        const value = @field(arguments, field.name);
        values[index] = if (comptime abi.isRange(field.type)) value.bytes else switch (field.type) {
            abi.Dtype => value.bytes(),
            u32, u64 => value,
            else => 0,
        };
        addresses[index] = if (comptime abi.isRange(field.type)) @intFromPtr(value.address) else 0;
    }
    const declared = &declarations[@intFromEnum(op)];
    const bytes = values;
    return problemOf(declared, &values, &addresses, text) orelse overlap(declared, &bytes, &addresses, shrink, text);
}

/// What is written is nothing else, except where the op says that two ranges may be one.
fn overlap(op: *const Declaration, bytes: *const Values, addresses: *const Values, shrink: u64, text: []u8) ?[]const u8 {
    for (op.lengths, 0..) |*a, index| {
        for (op.lengths[0..index]) |*b| {
            if (!a.written and !b.written) continue;
            if (bytes[a.field] == 0 or bytes[b.field] == 0 or addresses[a.field] == 0 or addresses[b.field] == 0) continue;
            const first, const second = if (addresses[a.field] < addresses[b.field]) .{ a, b } else .{ b, a };
            const distance = addresses[second.field] - addresses[first.field];
            if (distance >= (bytes[first.field] + shrink - 1) / shrink) continue;
            if (distance == 0 and bytes[a.field] == bytes[b.field] and op.shared >> @intCast(a.field) & op.shared >> @intCast(b.field) & 1 != 0) continue;
            return say(text, "{s}.{s} and {s} overlap", .{ op.name, b.name, a.name });
        }
    }
    return null;
}

/// One function for all ops. A range's value is its bytes on entry.
fn problemOf(op: *const Declaration, values: *Values, addresses: *const Values, text: []u8) ?[]const u8 {
    for (op.scalars) |field| {
        if (values[field] > scalar_max) return say(text, "{s}.{s} is {d}, the limit is {d}", .{ op.name, op.fields[field], values[field], scalar_max });
    }
    for (op.lengths) |*length| {
        const element = elementBytes(length, values);
        const bytes = values[length.field];
        if (bytes % element != 0) return say(text, "{s}.{s} has {d} bytes, which are no whole elements of {d}", .{ op.name, length.name, bytes, element });
        if (bytes != 0 and addresses[length.field] % element != 0) return say(text, "{s}.{s} does not begin at a whole element of {d} bytes", .{ op.name, length.name, element });
        values[length.field] = bytes / element;
    }
    for (op.lengths) |*length| {
        const has = values[length.field];
        if (has == 0 and length.optional) continue;
        const is_there = if (length.condition) |condition| (evaluate(condition.steps, values) orelse 0) != 0 else true;
        const wanted = if (is_there) evaluate(length.count.steps, values) orelse return beyond(op, length.name, length.count.text, text) else 0;
        if (if (length.any) has != 0 and wanted != 0 and has % wanted == 0 else has == wanted) continue;
        const element = elementBytes(length, values);
        const needs = std.math.mul(u64, wanted, element) catch return beyond(op, length.name, length.count.text, text);
        const times = if (length.any) " or a multiple" else "";
        return say(text, "{s}.{s} has {d} bytes, it needs {d}{s} ({s} of {s})", .{ op.name, length.name, has * element, needs, times, length.count.text, length.element_name });
    }
    for (op.needs) |need| {
        if ((evaluate(need.steps, values) orelse 0) != 0) continue;
        var written = std.fmt.bufPrint(text, "{s} needs {s}:", .{ op.name, need.text }) catch return text;
        for (need.steps) |step| if (step == .field) {
            const more = std.fmt.bufPrint(text[written.len..], " {s} is {d}", .{ op.fields[step.field], values[step.field] }) catch return written;
            written = text[0 .. written.len + more.len];
        };
        return written;
    }
    return null;
}

fn beyond(op: *const Declaration, name: []const u8, count: []const u8, text: []u8) []const u8 {
    return say(text, "{s}.{s} would need more bytes than there are ({s})", .{ op.name, name, count });
}

fn say(text: []u8, comptime format: []const u8, arguments: anytype) []const u8 {
    return std.fmt.bufPrint(text, format, arguments) catch text;
}

fn elementBytes(length: *const Length, values: *const Values) u64 {
    return switch (length.element) {
        .bytes => |bytes| bytes,
        .dtype => |field| values[field],
    };
}

/// Null when a step has no result in u64.
fn evaluate(steps: []const Step, values: *const Values) ?u64 {
    var stack: [8]u64 = undefined;
    var top: usize = 0;
    for (steps) |step| {
        const value: u64 = switch (step) {
            .number => |number| number,
            .field => |field| values[field],
            .free => 1,
            else => two: {
                top -= 2;
                const a, const b = .{ stack[top], stack[top + 1] };
                break :two switch (step) {
                    .add => std.math.add(u64, a, b) catch return null,
                    .subtract => std.math.sub(u64, a, b) catch return null,
                    .multiply => std.math.mul(u64, a, b) catch return null,
                    .modulo => std.math.mod(u64, a, b) catch return null,
                    .equal => @intFromBool(a == b),
                    .at_least => @intFromBool(a >= b),
                    else => unreachable,
                };
            },
        };
        stack[top] = value;
        top += 1;
    }
    return stack[0];
}

// ---- by the compiler ------------------------------------------------------------------------------------------------

fn declarationOf(comptime op: abi.Op) Declaration {
    const Arguments = abi.Arguments(op);
    const fields = @typeInfo(Arguments).@"struct".fields;
    std.debug.assert(fields.len <= fields_max);
    var names: []const []const u8 = &.{};
    var scalars: []const u8 = &.{};
    var lengths: []const Length = &.{};
    var needs: []const Expression = &.{};
    var shared: u32 = 0;
    if (@hasDecl(Arguments, "may_share")) for (Arguments.may_share) |name| {
        shared |= 1 << std.meta.fieldIndex(Arguments, name).?;
    };
    for (fields) |field| names = names ++ .{field.name};
    for (fields, 0..) |field, index| {
        if (field.type == u32) scalars = scalars ++ .{index};
        if (!abi.isRange(field.type)) continue;
        const declared = field.type.declared;
        const cut = std.mem.indexOf(u8, declared.count, " if ");
        const count = parse(op, declared.count[0 .. cut orelse declared.count.len]);
        lengths = lengths ++ .{Length{
            .name = field.name,
            .field = index,
            .optional = declared.optional,
            .written = declared.access != .read,
            .count = .{ .steps = count.steps, .text = declared.count },
            .condition = if (cut) |at| parse(op, declared.count[at + 4 ..]) else null,
            .any = for (count.steps) |step| {
                if (step == .free) break true;
            } else false,
            .element = if (@hasField(@TypeOf(abi.element_bytes), declared.element)) .{ .bytes = @field(abi.element_bytes, declared.element) } else .{ .dtype = @intCast(std.meta.fieldIndex(Arguments, declared.element).?) },
            .element_name = declared.element,
        }};
    }
    if (@hasDecl(Arguments, "needs")) for (Arguments.needs) |need| {
        needs = needs ++ .{parse(op, need)};
    };
    return .{ .name = @tagName(op), .fields = names, .scalars = scalars, .lengths = lengths, .needs = needs, .shared = shared };
}

pub fn parse(comptime op: abi.Op, comptime text: []const u8) Expression {
    var parser: Parser = .{ .text = text, .fields = abi.Arguments(op) };
    parser.condition();
    if (parser.at != text.len) @compileError("'" ++ text ++ "' ends at '" ++ text[parser.at..] ++ "'");
    return .{ .steps = parser.steps, .text = text };
}

const Parser = struct {
    text: []const u8,
    fields: type,
    at: usize = 0,
    steps: []const Step = &.{},

    fn condition(comptime parser: *Parser) void {
        parser.sum();
        if (parser.takes("==")) parser.binary(.equal, sum) else if (parser.takes(">=")) parser.binary(.at_least, sum);
    }
    fn sum(comptime parser: *Parser) void {
        parser.product();
        while (true) if (parser.takes("+")) parser.binary(.add, product) else if (parser.takes("-")) parser.binary(.subtract, product) else break;
    }
    fn product(comptime parser: *Parser) void {
        parser.value();
        while (true) if (parser.takes("*")) parser.binary(.multiply, value) else if (parser.takes("%")) parser.binary(.modulo, value) else break;
    }
    fn binary(comptime parser: *Parser, comptime step: Step, comptime right: fn (comptime *Parser) void) void {
        right(parser);
        parser.steps = parser.steps ++ .{step};
    }
    fn value(comptime parser: *Parser) void {
        if (parser.takes("(")) {
            parser.condition();
            if (!parser.takes(")")) @compileError("'" ++ parser.text ++ "' has no closing parenthesis");
            return;
        }
        _ = parser.takes("");
        const start = parser.at;
        while (parser.at < parser.text.len and (std.ascii.isAlphanumeric(parser.text[parser.at]) or parser.text[parser.at] == '_')) parser.at += 1;
        const word = parser.text[start..parser.at];
        parser.steps = parser.steps ++ .{if (std.mem.eql(u8, word, "any") or std.mem.eql(u8, word, "pairs"))
            Step.free
        else if (@as(?u64, std.fmt.parseInt(u64, word, 10) catch null)) |number|
            Step{ .number = number }
        else if (std.meta.fieldIndex(parser.fields, word)) |index|
            Step{ .field = index }
        else
            @compileError("'" ++ word ++ "' in '" ++ parser.text ++ "' is no field of the op")};
    }
    /// Skips spaces, then the symbol if it comes next.
    fn takes(comptime parser: *Parser, comptime symbol: []const u8) bool {
        while (parser.at < parser.text.len and parser.text[parser.at] == ' ') parser.at += 1;
        if (!std.mem.startsWith(u8, parser.text[parser.at..], symbol)) return false;
        parser.at += symbol.len;
        return true;
    }
};
