//! Launches attention on Hopper (capability 9.0): `cuda/attention_hopper.cu` and `cuda/attention_hopper_backward.cu`, for head dims
//! 64 and 128; `attention.zig` launches everything else.
//!
//! These kernels use parts of the chip that no emulator has, so a device that opens runs them and the portable ones on a little
//! random data and compares: where they fail or differ, one line says so on stderr and the portable ones are used. The environment's
//! SLUICE_ATTENTION says `portable` for no Hopper kernels, or `hopper` for an error in place of that line.
//!
//! Each kernel has blocks of 384 threads for tiles of 128 rows of a document, one block per multiprocessor. The copy engine
//! reads through tensor maps, which are made for each launch: they hold addresses.

const std = @import("std");
const abi = @import("../../abi.zig");
const attention = @import("attention.zig");
const driver = @import("driver.zig");
const last_error = @import("../../last_error.zig");
const launcher_module = @import("launcher.zig");
const shape = @import("shape.zig");
const Launcher = launcher_module.Launcher;
const Error = launcher_module.Error;

const threads = 384;
const tile_rows = 128;
/// Rows and columns that one copy brings.
const box = 64;
/// A tile starts at a multiple of this in shared memory, wherever that starts.
const tile_alignment = 1024;
/// A persistent grid pays off from this many tiles and heads per multiprocessor. Measured on an H200, head dim 128: 381 instead
/// of 344 TFLOP/s for one tile a block at 9 of them (4 x 1,024 tokens of 32 heads), 543 and 545 at 8 (4,096), 378 and 394 at 35
/// (16 x 1,024), 616 and 665 at 124 (65,536).
const tiles_for_persistent = 16;

/// Whether these kernels do an op's work; `ranges` are what they read and write in 16-byte pieces. Less than a tile is left to
/// the portable ones, which have smaller tiles.
pub fn takes(launcher: *const Launcher, a: anytype, ranges: anytype) bool {
    if (!launcher.properties.hopper_attention) return false;
    if (a.head_dim != 64 and a.head_dim != 128) return false;
    if (!shape.wholeRows(a.head_dim, ranges)) return false;
    return a.tokens >= tile_rows and @as(u64, a.tokens) * a.heads < 1 << 28; // kernels count bytes of lse, and lanes of its rows, in 32 bits
}

pub fn attentionForward(launcher: *Launcher, a: *const abi.ops.attention_forward) Error!void {
    const maps = .{ try mapOf(launcher, a.qk, a.tokens, a.heads + a.kv_heads, a.head_dim), try mapOf(launcher, a.qkv, a.tokens, a.heads + 2 * a.kv_heads, a.head_dim) };
    const work = tilesOf(a) * a.heads;
    const multiprocessors = launcher.properties.multiprocessors;
    const grid = if (work < tiles_for_persistent * multiprocessors) work else multiprocessors;
    return switch (a.head_dim) {
        inline 64, 128 => |width| launcher.run(named("attention_forward_hopper", width), .{ grid, 1, 1 }, threads, forwardShared(width), a, maps),
        else => unreachable,
    };
}

pub fn attentionBackward(launcher: *Launcher, a: *const abi.ops.attention_backward) Error!void {
    const maps = .{
        try mapOf(launcher, a.qk, a.tokens, a.heads + a.kv_heads, a.head_dim),
        try mapOf(launcher, a.qkv, a.tokens, a.heads + 2 * a.kv_heads, a.head_dim),
        try mapOf(launcher, a.d_out, a.tokens, a.heads, a.head_dim),
    };
    const delta_threads = 256;
    const delta_blocks: u32 = @intCast(shape.divideUp(a.tokens * a.heads * (a.head_dim / 8), delta_threads));
    switch (a.head_dim) {
        inline 64, 128 => |width| {
            try launcher.run(named("attention_backward__hopper_delta", width), .{ delta_blocks, 1, 1 }, delta_threads, 0, a, .{});
            try launcher.run(named("attention_backward__hopper_rows", width), .{ tilesOf(a) * a.heads, 1, 1 }, threads, rowsShared(width), a, maps);
            try launcher.run(named("attention_backward_hopper", width), .{ tilesOf(a) * a.kv_heads, 1, 1 }, threads, keysShared(width), a, maps);
        },
        else => unreachable,
    }
}

fn named(comptime kernel: []const u8, comptime width: u32) [:0]const u8 {
    return std.fmt.comptimePrint("{s}_d{d}", .{ kernel, width });
}

/// As many as the documents could have.
fn tilesOf(a: anytype) u32 {
    return a.tokens / tile_rows + a.documents;
}

// What the layouts in the kernels add up to: tiles of 128 rows, of 64 rows, and then words and barriers.
fn forwardShared(width: u32) u32 {
    return tile_alignment + 6 * tileBytes(128, width) + 256;
}
fn rowsShared(width: u32) u32 {
    return tile_alignment + 3 * tileBytes(128, width) + 8 * tileBytes(64, width) + 512;
}
fn keysShared(width: u32) u32 {
    return tile_alignment + 3 * tileBytes(128, width) + 4 * tileBytes(64, width) + 1536;
}
fn tileBytes(rows: u32, width: u32) u32 {
    return rows * width * 2;
}

// ---- tensor maps ----------------------------------------------------------------------------------------------------

/// CUtensorMap of cuda.h.
const TensorMap = extern struct { words: [16]u64 align(64) };

/// Rows of bfloat16 heads, read in boxes of 64 x 64 that lie swizzled in 128-byte rows; zeros past the last row.
fn mapOf(launcher: *Launcher, range: anytype, tokens: u32, heads: u32, head_dim: u32) Error!TensorMap {
    const table = launcher.functions.table;
    const encode = table.calls.tensor_map_encode orelse return launcher.fail("attention: the driver has no tensor maps", .{});
    const bfloat16, const no_interleave, const swizzle_128_bytes, const fetch_256_bytes, const zeros = .{ 9, 0, 3, 3, 0 };
    const width = @as(u64, heads) * head_dim;
    var map: TensorMap = undefined;
    const code = encode(&map, bfloat16, 2, @intFromPtr(range.address), &.{ width, tokens }, &.{2 * width}, &.{ box, box }, &.{ 1, 1 }, no_interleave, swizzle_128_bytes, fetch_256_bytes, zeros);
    if (code != 0) return launcher.fail("attention: cannot describe {d} x {d} values to the copy engine: {s}", .{ tokens, width, table.describe(code).slice() });
    return map;
}

// ---- the check when a device opens ----------------------------------------------------------------------------------

extern "c" fn getenv(name: [*:0]const u8) ?[*:0]const u8;

/// Whether launches shall use these kernels.
pub fn isWanted(launcher: *Launcher) error{Refused}!bool {
    const Choice = enum { automatic, portable, hopper };
    const wanted = if (getenv("SLUICE_ATTENTION")) |value| std.mem.span(value) else @tagName(Choice.automatic);
    const choice = std.meta.stringToEnum(Choice, wanted) orelse return refuse("SLUICE_ATTENTION is \"{s}\"; it must be automatic, portable or hopper", .{wanted});
    if (choice == .portable) return false;
    if (launcher.properties.capability != 90) {
        if (choice == .hopper) return refuse("SLUICE_ATTENTION is hopper, but this GPU is not one of NVIDIA's with compute capability 9.0; leave it unset", .{});
        return false;
    }
    compareAll(launcher) catch {
        const why = launcher.message[0..launcher.message_length];
        const code = launcher.functions.table.calls.stream_synchronize(launcher.stream);
        if (code != 0) return refuse("Hopper's attention kernels broke on this GPU: {s}; set SLUICE_ATTENTION to portable to do without them", .{launcher.functions.table.describe(code).slice()});
        if (choice == .hopper) return refuse("SLUICE_ATTENTION is hopper, but its kernels cannot be used: {s}", .{why});
        // std.debug.print would need the compiler's run-time library, which stays out of ours.
        var line: [768]u8 = undefined;
        const text = std.fmt.bufPrint(&line, "sluice: Hopper's attention kernels are left unused, and portable, slower ones do their work: {s}\n", .{why}) catch unreachable; // `why` has at most 512 bytes
        _ = std.c.write(2, text.ptr, text.len);
        return false;
    };
    return true;
}

fn compareAll(launcher: *Launcher) Error!void {
    launcher.message_length = 0;
    for ([_]u32{ 64, 128 }) |head_dim| for ([_]u32{ 0, 100 }) |window| {
        var sample = try Sample.create(launcher, head_dim, window);
        defer sample.destroy(launcher);
        launcher.properties.hopper_attention = false;
        const portable = try sample.compute(launcher);
        defer allocator.free(portable);
        launcher.properties.hopper_attention = true;
        const hopper = try sample.compute(launcher);
        defer allocator.free(hopper);
        try sample.compare(launcher, hopper, portable);
    };
}

const allocator = std.heap.c_allocator;

/// One small op on random values: three documents, of which one ends inside a tile and one has a single token.
const Sample = struct {
    const starts = [_]i32{ 0, 1, 131, 400 };
    const tokens: u32 = starts[starts.len - 1];
    const heads = 4;
    const kv_heads = 2;
    const Part = enum { starts, qk, qkv, d_out, delta, out, d_qkv, lse };
    /// The parts from this one on are results.
    const first_result: Part = .out;

    table: *const driver.Table,
    head_dim: u32,
    window: u32,
    memory: driver.Address,

    fn bytesOf(sample: *const Sample, part: Part) u64 {
        return switch (part) {
            .starts => @sizeOf(@TypeOf(starts)),
            .qk => 2 * tokens * (heads + kv_heads) * sample.head_dim,
            .qkv, .d_qkv => 2 * tokens * (heads + 2 * kv_heads) * sample.head_dim,
            .d_out, .out => 2 * tokens * heads * sample.head_dim,
            .delta, .lse => 4 * tokens * heads,
        };
    }
    /// Where a part starts, or everything ends.
    fn offsetOf(sample: *const Sample, wanted: ?Part) u64 {
        var offset: u64 = 0;
        for (std.enums.values(Part)) |part| {
            if (part == wanted) break;
            offset += std.mem.alignForward(u64, sample.bytesOf(part), 256);
        }
        return offset;
    }
    fn range(sample: *const Sample, part: Part) abi.Bytes {
        return .{ .address = @ptrFromInt(sample.memory + sample.offsetOf(part)), .bytes = sample.bytesOf(part) };
    }

    fn create(launcher: *Launcher, head_dim: u32, window: u32) Error!Sample {
        var sample: Sample = .{ .table = launcher.functions.table, .head_dim = head_dim, .window = window, .memory = 0 };
        const host = allocator.alloc(u8, sample.offsetOf(null)) catch return launcher.fail("out of memory", .{});
        defer allocator.free(host);
        @memset(host, 0xff); // results that nobody writes are not numbers
        @memcpy(host[0..@sizeOf(@TypeOf(starts))], std.mem.sliceAsBytes(&starts));
        var random = std.Random.DefaultPrng.init(head_dim + window);
        for ([_]Part{ .qk, .qkv, .d_out }) |part| {
            const values: []align(1) u16 = std.mem.bytesAsSlice(u16, host[sample.offsetOf(part)..][0..sample.bytesOf(part)]);
            for (values) |*value| value.* = @intCast(@as(u32, @bitCast(4 * random.random().float(f32) - 2)) >> 16);
        }
        const calls = &sample.table.calls;
        try sample.require(launcher, calls.allocate(&sample.memory, host.len));
        errdefer sample.destroy(launcher);
        try sample.require(launcher, calls.copy_to_device(sample.memory, host.ptr, host.len, launcher.stream));
        try sample.require(launcher, calls.stream_synchronize(launcher.stream));
        return sample;
    }

    /// A launch that was refused may have left others under way.
    fn destroy(sample: *Sample, launcher: *Launcher) void {
        _ = sample.table.calls.stream_synchronize(launcher.stream);
        _ = sample.table.calls.free(sample.memory);
    }

    /// Forward, then backward with what forward gave: all results.
    fn compute(sample: *const Sample, launcher: *Launcher) Error![]u8 {
        const calls = &sample.table.calls;
        const first = sample.offsetOf(first_result);
        const results = allocator.alloc(u8, sample.offsetOf(null) - first) catch return launcher.fail("out of memory", .{});
        errdefer allocator.free(results);
        try sample.require(launcher, calls.fill(sample.memory + first, 0xff, results.len, launcher.stream));
        const scale = 1 / @sqrt(@as(f32, @floatFromInt(sample.head_dim)));
        try attention.attentionForward(launcher, &.{
            .out = .of(sample.range(.out)),
            .lse = .of(sample.range(.lse)),
            .qk = .of(sample.range(.qk)),
            .qkv = .of(sample.range(.qkv)),
            .starts = .of(sample.range(.starts)),
            .tokens = tokens,
            .heads = heads,
            .kv_heads = kv_heads,
            .head_dim = sample.head_dim,
            .documents = starts.len - 1,
            .window = sample.window,
            .scale = scale,
            .dtype = .bfloat16,
        });
        try attention.attentionBackward(launcher, &.{
            .d_qkv = .of(sample.range(.d_qkv)),
            .delta = .of(sample.range(.delta)),
            .sums = .of(abi.Bytes.none),
            .d_out = .of(sample.range(.d_out)),
            .out = .of(sample.range(.out)),
            .lse = .of(sample.range(.lse)),
            .qk = .of(sample.range(.qk)),
            .qkv = .of(sample.range(.qkv)),
            .starts = .of(sample.range(.starts)),
            .tokens = tokens,
            .heads = heads,
            .kv_heads = kv_heads,
            .head_dim = sample.head_dim,
            .documents = starts.len - 1,
            .window = sample.window,
            .scale = scale,
            .dtype = .bfloat16,
        });
        try sample.require(launcher, calls.copy_to_host(results.ptr, sample.memory + first, results.len, launcher.stream));
        try sample.require(launcher, calls.stream_synchronize(launcher.stream));
        return results;
    }

    fn require(sample: *const Sample, launcher: *Launcher, code: driver.Status) Error!void {
        if (code != 0) return launcher.fail("{s}", .{sample.table.describe(code).slice()});
    }

    /// Each head's row of a token may differ by rounding. Both kinds of kernels round the same values to bfloat16, so on an H200 rows are
    /// within 8 % of the exact ones even where their terms nearly cancel; anything wrong gives a difference about as large as the row.
    fn compare(sample: *const Sample, launcher: *Launcher, found: []const u8, expected: []const u8) Error!void {
        const limit = 0.2;
        for ([_]Part{ .out, .d_qkv }) |part| {
            const at = sample.offsetOf(part) - sample.offsetOf(first_result);
            const bytes = sample.bytesOf(part);
            const worst = worstRow(sample.head_dim, std.mem.bytesAsSlice(u16, found[at..][0..bytes]), std.mem.bytesAsSlice(u16, expected[at..][0..bytes]));
            if (!(worst <= limit)) return sample.differs(launcher, part, worst, limit);
        }
        const at = sample.offsetOf(.lse) - sample.offsetOf(first_result);
        var worst: f32 = 0;
        const lse = .{ std.mem.bytesAsSlice(f32, found[at..][0..sample.bytesOf(.lse)]), std.mem.bytesAsSlice(f32, expected[at..][0..sample.bytesOf(.lse)]) };
        for (lse[0], lse[1]) |x, y| worst = most(worst, @abs(x - y));
        const lse_limit = 1e-3;
        if (!(worst <= lse_limit)) return sample.differs(launcher, .lse, worst, lse_limit);
    }

    fn differs(sample: *const Sample, launcher: *Launcher, part: Part, worst: f32, limit: f32) Error {
        return launcher.fail("head_dim {d}, window {d}: {s} differs from the portable kernels' by {e:.1} (limit {e:.1})", .{ sample.head_dim, sample.window, @tagName(part), worst, limit });
    }
};

/// The largest difference of a row, as a part of that row's length plus half the typical length.
fn worstRow(width: usize, found: []align(1) const u16, expected: []align(1) const u16) f32 {
    var squares: f32 = 0;
    for (expected) |value| squares += square(valueOf(value));
    const rows = expected.len / width;
    const typical = @sqrt(squares / @as(f32, @floatFromInt(rows)));
    var worst: f32 = 0;
    for (0..rows) |row| {
        var length: f32 = 0;
        var difference: f32 = 0;
        for (found[row * width ..][0..width], expected[row * width ..][0..width]) |x, y| {
            length += square(valueOf(y));
            difference += square(valueOf(x) - valueOf(y));
        }
        worst = most(worst, @sqrt(difference) / (@sqrt(length) + typical / 2));
    }
    return worst;
}

fn valueOf(bits: u16) f32 {
    return @bitCast(@as(u32, bits) << 16);
}
fn square(x: f32) f32 {
    return x * x;
}
/// The larger one; what is not a number counts as largest.
fn most(x: f32, y: f32) f32 {
    return if (x >= y or std.math.isNan(x)) x else y;
}

fn refuse(comptime format: []const u8, arguments: anytype) error{Refused} {
    last_error.set(format, arguments);
    return error.Refused;
}

const testing = std.testing;

test "tiles fit into Hopper's shared memory" {
    for ([_]u32{ 64, 128 }) |width| {
        const limit = 227 * 1024;
        try testing.expect(forwardShared(width) <= limit and rowsShared(width) <= limit and keysShared(width) <= limit);
    }
}

test "a wrong row and a missing one show; rounding does not" {
    var expected: [4 * 64]u16 = undefined;
    for (&expected, 0..) |*value, index| value.* = @intCast(0x3f80 + index % 7);
    var found = expected;
    for (&found) |*value| value.* += 1;
    try testing.expect(worstRow(64, &found, &expected) < 0.02);
    for (found[64..128]) |*value| value.* = 0;
    try testing.expect(worstRow(64, &found, &expected) > 0.5);
    found[200] = 0xffff;
    try testing.expect(!(worstRow(64, &found, &expected) <= 0.2));
}
