//! Writes the TypeScript side of the boundary (enums, a type and an encoder per op, the symbols of the exports), and with
//! the argument `cuda` the structs that kernels take. Run by `zig build abi` and `zig build cuda-abi`; a hash of the
//! declarations is compiled into the library and compared at load.

const std = @import("std");
const abi = @import("abi.zig");
const root = @import("root.zig");

pub fn main(init: std.process.Init.Minimal) void {
    var arguments = init.args.iterate();
    _ = arguments.skip();
    if (arguments.next()) |_| emitCuda() else emitTypeScript();
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
    emit("\n}  // namespace sluice\n");
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
        \\/**
        \\ * Per op its number, how it touches each range, the scalars that say whether an accumulator is added to (1) or
        \\ * overwritten (0), and how the arguments become words.
        \\ */
        \\export const ops: { [Name in OpName]: { code: number; ranges: Record<string, Access>; accumulators: Record<string, string>; encode(w: Writer, a: Ops[Name]): void } } = {
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
    if (abi.isRange(T)) return @tagName(T.access) ++ (if (T.optional) "?" else "");
    return @typeName(T);
}

fn fieldsOf(comptime name: []const u8) []const std.builtin.Type.StructField {
    return @typeInfo(@field(abi.ops, name)).@"struct".fields;
}

fn opType(comptime name: []const u8) []const u8 {
    comptime var text: []const u8 = "export type " ++ pascal(name) ++ "<R = Range> = {";
    inline for (fieldsOf(name)) |field| {
        const kind = if (abi.isRange(field.type)) (if (field.type.optional) "R | null" else "R") else if (field.type == abi.Dtype) "Dtype" else "number";
        text = text ++ " " ++ camel(field.name) ++ ": " ++ kind ++ ";";
    }
    return text ++ " };\n\n";
}

fn opEntry(comptime name: []const u8, comptime code: usize) []const u8 {
    comptime var ranges: []const u8 = "";
    comptime var encode: []const u8 = "";
    comptime var accumulators: []const u8 = "";
    inline for (fieldsOf(name)) |field| {
        const argument = "a." ++ camel(field.name);
        if (comptime abi.isRange(field.type)) {
            ranges = ranges ++ " " ++ camel(field.name) ++ ": \"" ++ @tagName(field.type.access) ++ "\",";
            if (abi.accumulateOf(@field(abi.Op, name), field.name)) |governing| accumulators = accumulators ++ " " ++ camel(field.name) ++ ": \"" ++ camel(governing) ++ "\",";
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
    return std.fmt.comptimePrint("  {s}: {{ code: {d}, ranges: {{{s} }}, accumulators: {{{s} }}, encode(w, a) {{{s} }} }},\n", .{ camel(name), code, ranges, accumulators, encode });
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
