//! Writes the TypeScript side of the boundary (enums, a type and an encoder per op, the symbols of the exports), and with
//! the argument `cuda` the structs that kernels take, with `docs` a page about all ops. Run by `zig build abi`, `cuda-abi` and
//! `ops-page`; a hash of the declarations is compiled into the library and compared at load.

const std = @import("std");
const abi = @import("abi.zig");
const lengths = @import("lengths.zig");
const root = @import("root.zig");
const shapes = @import("device/gpu/shapes.zig");

pub fn main(init: std.process.Init.Minimal) void {
    var arguments = init.args.iterate();
    _ = arguments.skip();
    const what = arguments.next() orelse return emitTypeScript();
    if (std.mem.eql(u8, what, "cuda")) emitCuda() else emitDocs();
}

/// A struct per op, laid out as the compiler lays out the extern struct: what a kernel takes as its first parameter.
fn emitCuda() void {
    emit(
        \\// Generated from zig/abi.zig by `bun run build`. Do not edit.
        \\#pragma once
        \\
        \\namespace sluice {
        \\
        \\typedef unsigned int u32;
        \\typedef unsigned long long u64;
        \\typedef float f32;
        \\typedef double f64;
        \\
        \\/** Bytes of device memory; null and 0 where an optional range is absent. */
        \\struct Range {
        \\  void* address;
        \\  u64 bytes;
        \\  template <typename T> __device__ T* as() const { return static_cast<T*>(address); }
        \\  __device__ bool present() const { return bytes != 0; }
        \\};
        \\
        \\
    );
    inline for (@typeInfo(abi.Dtype).@"enum".fields) |field| emit(std.fmt.comptimePrint("constexpr u32 {s} = {d};\n", .{ field.name, field.value }));
    emit("\n");
    inline for (@typeInfo(abi.ops).@"struct".decls) |declaration| {
        emit("struct " ++ comptime pascal(declaration.name) ++ " {\n");
        inline for (comptime fieldsOf(declaration.name)) |field| {
            const kind = comptime if (abi.isRange(field.type)) "Range" else if (field.type == abi.Dtype) "u32" else @typeName(field.type);
            emit("  " ++ kind ++ " " ++ field.name ++ ";\n");
        }
        emit("};\n");
    }
    emit("\n/** How kernels are launched, by family: zig/device/gpu/shapes.zig. */\nnamespace shapes {\n");
    inline for (@typeInfo(shapes).@"struct".decls) |family| {
        emit("namespace " ++ family.name ++ " {\n");
        inline for (@typeInfo(@field(shapes, family.name)).@"struct".decls) |constant| emit(std.fmt.comptimePrint("constexpr int {s} = {d};\n", .{ constant.name, @field(@field(shapes, family.name), constant.name) }));
        emit("}\n");
    }
    emit("}  // namespace shapes\n\n}  // namespace sluice\n");
}

/// A page about all ops: what the comment in `abi.zig` says of each, and the lengths, needs and costs that it declares.
fn emitDocs() void {
    emit(
        \\<!-- Generated from zig/abi.zig by `bun run build`. Do not edit. -->
        \\
        \\# Ops
        \\
        \\A plan's commands are these ops. A length is a number of elements: a scalar stands for its value, a dtype for the bytes of
        \\its elements, a range for the number of its elements, and `any` for a number of at least 1 that no scalar says. A plan in
        \\which a range has another length, or a need is not met, is refused before it plays. Where FLOPs are given, `pairs` are the
        \\pairs of a query and a key that it sees. Bytes are what an op moves, where that is not every range once per access.
        \\
        \\
    );
    const source = @embedFile("abi.zig");
    comptime var section: []const u8 = "";
    inline for (@typeInfo(abi.ops).@"struct".decls) |declaration| {
        const name = declaration.name;
        const above = comptime blk: {
            @setEvalBranchQuota(1_000_000);
            break :blk source[0..std.mem.indexOf(u8, source, "    pub const " ++ name ++ " = extern struct").?];
        };
        const heading = comptime headingAbove(above);
        if (comptime !std.mem.eql(u8, heading, section)) emit("## " ++ [1]u8{std.ascii.toUpper(heading[0])} ++ heading[1..] ++ "\n\n");
        section = heading;
        emit("### " ++ comptime camel(name) ++ "\n\n");
        emit(comptime commentAbove(above) ++ "\n| range | access | length | of |\n| --- | --- | --- | --- |\n");
        const op = comptime @field(abi.Op, name);
        inline for (comptime fieldsOf(name)) |field| if (comptime abi.isRange(field.type)) {
            const declared = field.type.declared;
            const access = if (declared.accumulate) |scalar| "write, or add where " ++ comptime camel(scalar) ++ " is 1" else @tagName(declared.access);
            const may = if (declared.optional) ", or absent" else "";
            emit("| " ++ comptime camel(field.name) ++ " | " ++ access ++ " | `" ++ camel(declared.count) ++ "`" ++ may ++ " | " ++ camel(declared.element) ++ " |\n");
        };
        inline for (comptime lengths.declarations[@intFromEnum(op)].needs) |need| emit("\nNeeds `" ++ comptime camel(need.text) ++ "`.\n");
        if (@hasDecl(abi.Arguments(op), "flops")) emit("\nFLOPs: `" ++ comptime camel(abi.Arguments(op).flops) ++ "`.\n");
        if (@hasDecl(abi.Arguments(op), "bytes")) emit("\nBytes: `" ++ comptime camel(abi.Arguments(op).bytes) ++ "`.\n");
        emit("\n");
    }
}

/// The name in the last line of dashes.
fn headingAbove(comptime above: []const u8) []const u8 {
    const start = std.mem.lastIndexOf(u8, above, "// ---- ").? + 8;
    return above[start..][0..std.mem.indexOf(u8, above[start..], " -").?];
}

/// The lines of the comment that `above` ends with.
fn commentAbove(comptime above: []const u8) []const u8 {
    @setEvalBranchQuota(1_000_000);
    var text: []const u8 = "";
    var rest = above;
    while (std.mem.endsWith(u8, rest, "\n")) {
        const start = (std.mem.lastIndexOfScalar(u8, rest[0 .. rest.len - 1], '\n') orelse return text) + 1;
        const line = std.mem.trimStart(u8, rest[start..], " ");
        if (!std.mem.startsWith(u8, line, "/// ")) break;
        text = line[4..] ++ text;
        rest = rest[0..start];
    }
    return text;
}

fn emitTypeScript() void {
    emit(std.fmt.comptimePrint(
        \\// Generated from zig/abi.zig and zig/root.zig by `bun run build`. Do not edit.
        \\
        \\/** The library must carry the same hash, else it was built from other declarations. */
        \\export const abiHash = 0x{x}n;
        \\
        \\
    , .{comptime hash()}));
    inline for (.{ .{ "Dtype", "dtypes", abi.Dtype }, .{ "Tier", "tiers", abi.Tier }, .{ "Stream", "streams", abi.Stream }, .{ "DeviceKind", "deviceKinds", abi.DeviceKind } }) |entry| {
        emit("export const " ++ entry[1] ++ " = {");
        inline for (@typeInfo(entry[2]).@"enum".fields) |field| emit(std.fmt.comptimePrint(" {s}: {d},", .{ field.name, field.value }));
        emit(" } as const;\nexport type " ++ entry[0] ++ " = keyof typeof " ++ entry[1] ++ ";\n\n");
    }
    emit(
        \\/** Bytes of a buffer, as a plan names them. */
        \\export type RangeOf<Buffer> = { readonly buffer: Buffer; readonly offset: number; readonly bytes: number };
        \\type Range = RangeOf<{ readonly handle: number }>;
        \\
        \\/** Where encoders put words. */
        \\export interface Writer {
        \\  word(value: number): void;
        \\  double(value: number): void;
        \\  float(value: number): void;
        \\  float64(value: number): void;
        \\  range(value: Range | null): void;
        \\}
        \\
        \\
    );
    inline for (@typeInfo(abi.ops).@"struct".decls) |declaration| emit(comptime opType(declaration.name));
    emit("/** The arguments of each op. */\nexport type Ops<R = Range> = {\n");
    inline for (@typeInfo(abi.ops).@"struct".decls) |declaration| emit("  " ++ comptime camel(declaration.name) ++ ": " ++ pascal(declaration.name) ++ "<R>;\n");
    emit(
        \\};
        \\export type OpName = keyof Ops;
        \\
        \\export type Access = "read" | "write" | "readwrite";
        \\
        \\/** Bytes of an element. */
        \\export const dtypeBytes: Record<Dtype, number> = { float32: 4, bfloat16: 2, float16: 2 };
        \\
        \\/** How long a range must be; a multiple of it where `any`, absent as well where `optional`. */
        \\export interface Length<Args> {
        \\  bytes(a: Args): number;
        \\  says: string;
        \\  any?: true;
        \\  optional?: true;
        \\}
        \\
        \\const elements = (range: { readonly bytes: number } | null, bytes: number): number => (range?.bytes ?? 0) / bytes;
        \\
        \\/**
        \\ * Per op its number, how it touches each range, the scalars that say whether an accumulator is added to (1) or
        \\ * overwritten (0), how long each range is, what it costs where that is not plain from its ranges, and how the
        \\ * arguments become words.
        \\ */
        \\export const ops: { [Name in OpName]: { code: number; ranges: Record<string, Access>; accumulators: Record<string, string>; lengths: Record<string, Length<Ops[Name]>>; flops?(a: Ops[Name], pairs: number): number; bytes?(a: Ops[Name]): number; encode(w: Writer, a: Ops[Name]): void } } = {
        \\
    );
    inline for (@typeInfo(abi.ops).@"struct".decls, 0..) |declaration, code| emit(comptime opEntry(declaration.name, code));
    emit("};\n\n/** What `dlopen` is told. */\nexport const symbols = {\n");
    inline for (@typeInfo(root.exports).@"struct".decls) |declaration| emit(comptime symbol(declaration.name));
    emit("} as const;\n");
}

fn emit(text: []const u8) void {
    var done: usize = 0;
    while (done < text.len) done += @intCast(std.c.write(1, text.ptr + done, text.len - done));
}

/// FNV-1a over every name and type that crosses the boundary, in order.
pub fn hash() u64 {
    @setEvalBranchQuota(1_000_000);
    var state: u64 = 0xcbf29ce484222325;
    for (@typeInfo(abi.ops).@"struct".decls) |declaration| {
        state = step(state, declaration.name);
        for (fieldsOf(declaration.name)) |field| state = step(step(state, field.name), kindOf(field.type));
    }
    for (@typeInfo(root.exports).@"struct".decls) |declaration| state = step(state, symbol(declaration.name));
    for (.{ abi.Dtype, abi.Tier, abi.Stream, abi.DeviceKind }) |T| {
        for (@typeInfo(T).@"enum".fields) |field| state = step(state, field.name);
    }
    return state;
}

fn step(state: u64, text: []const u8) u64 {
    var result = state;
    for (text) |character| result = (result ^ character) *% 0x100000001b3;
    return result;
}

/// A field's type in a word; ranges by their access.
fn kindOf(comptime T: type) []const u8 {
    if (abi.isRange(T)) return @tagName(T.declared.access) ++ (if (T.declared.optional) "?" else "") ++ T.declared.count ++ T.declared.element;
    return @typeName(T);
}

fn fieldsOf(comptime name: []const u8) []const std.builtin.Type.StructField {
    return @typeInfo(@field(abi.ops, name)).@"struct".fields;
}

/// Whether TypeScript may leave the field out: it then has the value that `abi.zig` gives it.
fn isImplied(comptime field: std.builtin.Type.StructField) bool {
    return field.default_value_ptr != null and field.type != abi.Dtype;
}

/// The field's argument in TypeScript.
fn argumentOf(comptime field: std.builtin.Type.StructField) []const u8 {
    const argument = "a." ++ camel(field.name);
    if (!isImplied(field)) return argument;
    const value = if (abi.isRange(field.type)) "null" else std.fmt.comptimePrint("{d}", .{field.defaultValue().?});
    return "(" ++ argument ++ " ?? " ++ value ++ ")";
}

fn opType(comptime name: []const u8) []const u8 {
    comptime var text: []const u8 = "export type " ++ pascal(name) ++ "<R = Range> = {";
    inline for (fieldsOf(name)) |field| {
        const kind = if (abi.isRange(field.type)) (if (field.type.may_be_absent) "R | null" else "R") else if (field.type == abi.Dtype) "Dtype" else "number";
        text = text ++ " " ++ camel(field.name) ++ (if (isImplied(field)) "?: " ++ kind ++ " | undefined;" else ": " ++ kind ++ ";");
    }
    return text ++ " };\n\n";
}

fn opEntry(comptime name: []const u8, comptime code: usize) []const u8 {
    comptime var ranges: []const u8 = "";
    comptime var encode: []const u8 = "";
    comptime var accumulators: []const u8 = "";
    comptime var sizes: []const u8 = "";
    comptime var costs: []const u8 = "";
    const op = @field(abi.Op, name);
    inline for (fieldsOf(name)) |field| {
        const argument = argumentOf(field);
        if (comptime abi.isRange(field.type)) {
            ranges = ranges ++ " " ++ camel(field.name) ++ ": \"" ++ @tagName(field.type.declared.access) ++ "\",";
            if (field.type.declared.accumulate) |governing| accumulators = accumulators ++ " " ++ camel(field.name) ++ ": \"" ++ camel(governing) ++ "\",";
            encode = encode ++ " w.range(" ++ argument ++ ");";
        } else encode = encode ++ switch (field.type) {
            abi.Dtype => " w.word(dtypes[" ++ argument ++ "]);",
            u32 => " w.word(" ++ argument ++ ");",
            u64 => " w.double(" ++ argument ++ ");",
            f32 => " w.float(" ++ argument ++ ");",
            f64 => " w.float64(" ++ argument ++ ");",
            else => @compileError("no encoder for " ++ @typeName(field.type)),
        };
    }
    inline for (lengths.declarations[code].lengths) |length| sizes = sizes ++ " " ++ camel(length.name) ++ ": {" ++ lengthOf(op, length) ++ " },";
    if (@hasDecl(abi.Arguments(op), "flops")) costs = costs ++ " flops: " ++ arrow(script(op, lengths.parse(op, abi.Arguments(op).flops).steps, "pairs")) ++ ",";
    if (@hasDecl(abi.Arguments(op), "bytes")) costs = costs ++ " bytes: " ++ arrow(script(op, lengths.parse(op, abi.Arguments(op).bytes).steps, "")) ++ ",";
    return std.fmt.comptimePrint("  {s}: {{ code: {d}, ranges: {{{s} }}, accumulators: {{{s} }}, lengths: {{{s} }},{s} encode(w, a) {{{s} }} }},\n", .{ camel(name), code, ranges, accumulators, sizes, costs, encode });
}

fn lengthOf(comptime op: abi.Op, comptime length: lengths.Length) []const u8 {
    const count = script(op, length.count.steps, "1");
    const bytes = (if (std.mem.eql(u8, count, "1")) "" else count ++ " * ") ++ elementBytes(op, length);
    const chosen = if (length.condition) |condition| "(" ++ script(op, condition.steps, "") ++ " ? " ++ bytes ++ " : 0)" else bytes;
    return " bytes: " ++ arrow(chosen) ++ ", says: \"" ++ camel(length.count.text) ++ " of " ++ camel(length.element_name) ++ "\"," ++
        (if (length.any) " any: true," else "") ++ (if (length.optional) " optional: true," else "");
}

/// An arrow function with the parameters that its expression uses.
fn arrow(comptime expression: []const u8) []const u8 {
    const parameters = if (std.mem.endsWith(u8, expression, "pairs")) "(a, pairs)" else if (std.mem.indexOf(u8, expression, "a.") != null) "(a)" else "()";
    return parameters ++ " => " ++ expression;
}

fn elementBytes(comptime op: abi.Op, comptime length: lengths.Length) []const u8 {
    return switch (length.element) {
        .bytes => |bytes| std.fmt.comptimePrint("{d}", .{bytes}),
        .dtype => |field| "dtypeBytes[a." ++ camel(fieldsOf(@tagName(op))[field].name) ++ "]",
    };
}

/// An expression in TypeScript.
fn script(comptime op: abi.Op, comptime steps: []const lengths.Step, comptime free: []const u8) []const u8 {
    comptime var stack: []const []const u8 = &.{};
    for (steps) |part| {
        const text = switch (part) {
            .number => |number| std.fmt.comptimePrint("{d}", .{number}),
            .free => free,
            .field => |index| valueOf(op, index),
            else => two: {
                const a, const b = .{ stack[stack.len - 2], stack[stack.len - 1] };
                stack = stack[0 .. stack.len - 2];
                break :two switch (part) {
                    .add => "(" ++ a ++ " + " ++ b ++ ")",
                    .subtract => "(" ++ a ++ " - " ++ b ++ ")",
                    .multiply => a ++ " * " ++ b,
                    .equal => "Number(" ++ a ++ " === " ++ b ++ ")",
                    .at_least => "Number(" ++ a ++ " >= " ++ b ++ ")",
                    else => @compileError("no TypeScript for " ++ @tagName(part)),
                };
            },
        };
        stack = stack ++ .{text};
    }
    return stack[0];
}

fn valueOf(comptime op: abi.Op, comptime index: usize) []const u8 {
    const field = fieldsOf(@tagName(op))[index];
    const value = argumentOf(field);
    if (field.type == abi.Dtype) return "dtypeBytes[" ++ value ++ "]";
    if (!abi.isRange(field.type)) return value;
    for (lengths.declarations[@intFromEnum(op)].lengths) |length| {
        if (length.field == index) return "elements(" ++ value ++ ", " ++ elementBytes(op, length) ++ ")";
    }
    unreachable;
}

fn symbol(comptime name: []const u8) []const u8 {
    const function = @typeInfo(@TypeOf(@field(root.exports, name))).@"fn";
    comptime var arguments: []const u8 = "";
    inline for (function.params, 0..) |parameter, index| arguments = arguments ++ (if (index == 0) "" else ", ") ++ ffiType(parameter.type.?, false);
    return "  " ++ name ++ ": { args: [" ++ arguments ++ "], returns: " ++ ffiType(function.return_type.?, true) ++ " },\n";
}

fn ffiType(comptime T: type, comptime returned: bool) []const u8 {
    return switch (T) {
        u32 => "\"u32\"",
        i32 => "\"i32\"",
        u64 => "\"u64\"",
        void => "\"void\"",
        else => if (returned) "\"cstring\"" else "\"ptr\"",
    };
}

fn camel(comptime name: []const u8) []const u8 {
    comptime var text: []const u8 = "";
    comptime var upper = false;
    inline for (name) |character| {
        if (character == '_') {
            upper = true;
            continue;
        }
        text = text ++ &[_]u8{if (upper) std.ascii.toUpper(character) else character};
        upper = false;
    }
    return text;
}

fn pascal(comptime name: []const u8) []const u8 {
    const text = camel(name);
    return &[_]u8{std.ascii.toUpper(text[0])} ++ text[1..];
}
