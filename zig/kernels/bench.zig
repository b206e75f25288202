//! Rates of the CPU kernels on this machine: matrix products, attention, AdamW beside a plain copy, and the cost of a task.
//! Every figure is the best of several short runs, because other processes share the cores.
//!   bench [workers]         all
//!   bench [workers] gemm    one family: copy, adamw, gemm, attention, rows

const std = @import("std");
const kernels = @import("kernels");
const abi = kernels.abi;
const Workers = kernels.workers.Workers;

const Bench = struct {
    workers: *Workers,
    message: kernels.workers.Message = .{},

    /// Seconds of the fastest of several runs of one op.
    fn time(bench: *Bench, comptime op: abi.Op, arguments: abi.Arguments(op)) f64 {
        var best: f64 = std.math.inf(f64);
        const begin = now();
        var runs: usize = 0;
        while (runs < 3 or (now() - begin < 0.08 and runs < 2000)) : (runs += 1) {
            const start = now();
            if (kernels.run(op, &arguments, &bench.workers.pool, &bench.message) != 0) fatal(bench.message.text[0..bench.message.length]);
            best = @min(best, now() - start);
        }
        return best;
    }
};

fn now() f64 {
    var time: std.c.timespec = undefined;
    _ = std.c.clock_gettime(.MONOTONIC, &time);
    return @as(f64, @floatFromInt(time.sec)) + 1e-9 * @as(f64, @floatFromInt(time.nsec));
}

fn print(comptime format: []const u8, arguments: anytype) void {
    var line: [512]u8 = undefined;
    const text = std.fmt.bufPrint(&line, format, arguments) catch &line;
    _ = std.c.write(1, text.ptr, text.len);
}

fn fatal(text: []const u8) noreturn {
    print("{s}\n", .{text});
    std.c.exit(1);
}

/// Bytes at a base that is staggered as the allocator of buffers does it.
var staggered: usize = 0;
fn bytes(count: usize) []u8 {
    staggered = (staggered + 832) % 4096;
    return bytesAt(count, staggered);
}
fn bytesAt(count: usize, offset: usize) []u8 {
    var address: ?*anyopaque = null;
    if (std.c.posix_memalign(&address, 2 << 20, count + 4096) != 0) fatal("out of memory");
    const base = @as([*]u8, @ptrCast(address.?));
    if (@import("builtin").os.tag == .linux) _ = std.c.madvise(@ptrCast(@alignCast(base)), count, std.c.MADV.HUGEPAGE);
    const memory = base[offset..][0..count];
    fill(memory);
    return memory;
}

/// Small numbers in every dtype: patterns whose exponent lies near 1.
fn fill(memory: []u8) void {
    var state: u64 = 88172645463325252;
    for (std.mem.bytesAsSlice(u64, memory[0 .. memory.len / 8 * 8])) |*word| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.* = (state & 0x80ff80ff80ff80ff) | 0x3c003c003c003c00;
    }
}

fn free(memory: []u8) void {
    std.c.free(@ptrFromInt(@intFromPtr(memory.ptr) & ~@as(usize, 4095)));
}

fn range(comptime R: type, memory: []u8) R {
    return .{ .address = memory.ptr, .bytes = memory.len };
}
const no_in: abi.MaybeIn = .{ .address = null, .bytes = 0 };
const no_inout: abi.MaybeInOut = .{ .address = null, .bytes = 0 };

fn copyRate(bench: *Bench) void {
    const count = 256 << 20;
    const from = bytes(count);
    const to = bytes(count);
    const seconds = bench.time(.copy, .{ .to = range(abi.Out, to), .from = range(abi.In, from) });
    print("copy       {d:7.1} GB/s (read + write)\n", .{2 * count / seconds / 1e9});
    free(from);
    free(to);
}

fn adamw(bench: *Bench, dtype: abi.Dtype, count: usize, aligned: bool) void {
    const hi, const lo, const m, const v, const gradient = if (aligned)
        .{ bytesAt(2 * count, 0), bytesAt(2 * count, 0), bytesAt(4 * count, 0), bytesAt(4 * count, 0), bytesAt(dtype.bytes() * count, 0) }
    else
        .{ bytes(2 * count), bytes(2 * count), bytes(4 * count), bytes(4 * count), bytes(dtype.bytes() * count) };
    @memset(v, 0);
    var factor = [2]f64{ 1, 1 };
    const seconds = bench.time(.adamw, .{ .hi = range(abi.InOut, hi), .lo = range(abi.InOut, lo), .m = range(abi.InOut, m), .v = range(abi.InOut, v), .gradient = range(abi.In, gradient), .factor = range(abi.In, std.mem.asBytes(&factor)), .count = count, .gradient_dtype = dtype, .step = 2, .learning_rate = 1e-5, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0.01 });
    const rate = @as(f64, @floatFromInt(count)) / seconds / 1e9;
    const per_parameter: f64 = @floatFromInt(24 + dtype.bytes());
    print("adamw      {d:7.2} Gparam/s {d:6.1} GB/s  gradient {s}, {} Ki parameters, bases {s}\n", .{ rate, rate * per_parameter, @tagName(dtype), count >> 10, if (aligned) "equal mod 4096" else "staggered" });
    inline for (.{ hi, lo, m, v, gradient }) |memory| free(memory);
}

const Shape = struct { tokens: u32, inputs: u32, outputs: u32 };

fn gemm(bench: *Bench, dtype: abi.Dtype, shape: Shape) void {
    const T: usize, const In: usize, const O: usize = .{ shape.tokens, shape.inputs, shape.outputs };
    const size = dtype.bytes();
    const x = bytes(T * In * size);
    const weight = bytes(O * In * size);
    const y = bytes(T * O * size);
    const d_weight = bytes(O * In * 4);
    const forward = bench.time(.linear_forward, .{ .y = range(abi.Out, y), .x = range(abi.In, x), .weight = range(abi.In, weight), .bias = no_in, .residual = no_in, .tokens = shape.tokens, .inputs = shape.inputs, .outputs = shape.outputs, .dtype = dtype });
    fill(y);
    const input = bench.time(.linear_backward_input, .{ .dx = range(abi.Out, x), .dy = range(abi.In, y), .weight = range(abi.In, weight), .tokens = shape.tokens, .inputs = shape.inputs, .outputs = shape.outputs, .dtype = dtype });
    fill(x);
    const gradient = bench.time(.linear_backward_weight, .{ .d_weight = range(abi.InOut, d_weight), .d_bias = no_inout, .dy = range(abi.In, y), .x = range(abi.In, x), .tokens = shape.tokens, .inputs = shape.inputs, .outputs = shape.outputs, .accumulate = 1, .dtype = dtype });
    const flops = 2e-9 * @as(f64, @floatFromInt(T * In * O));
    print("gemm       {d:7.1} forward {d:7.1} d_input {d:7.1} d_weight GFLOP/s  {s} T {} I {} O {}\n", .{ flops / forward, flops / input, flops / gradient, @tagName(dtype), T, In, O });
    inline for (.{ x, weight, y, d_weight }) |memory| free(memory);
}

const Heads = struct { tokens: u32, heads: u32, kv_heads: u32, head_dim: u32, documents: u32 };

fn attention(bench: *Bench, dtype: abi.Dtype, shape: Heads) void {
    const T: usize, const H: usize, const K: usize, const D: usize = .{ shape.tokens, shape.heads, shape.kv_heads, shape.head_dim };
    const size = dtype.bytes();
    const qk = bytes(T * (H + K) * D * size);
    const qkv = bytes(T * (H + 2 * K) * D * size);
    const d_qkv = bytes(qkv.len);
    const out = bytes(T * H * D * size);
    const d_out = bytes(out.len);
    const lse = bytes(T * H * 4);
    const delta = bytes(T * H * 4);
    var starts: [65]i32 = undefined;
    for (0..shape.documents + 1) |d| starts[d] = @intCast(d * T / shape.documents);
    const starts_range = range(abi.In, std.mem.sliceAsBytes(starts[0 .. shape.documents + 1]));
    const forward = bench.time(.attention_forward, .{ .out = range(abi.Out, out), .lse = range(abi.Out, lse), .qk = range(abi.In, qk), .qkv = range(abi.In, qkv), .starts = starts_range, .tokens = shape.tokens, .heads = shape.heads, .kv_heads = shape.kv_heads, .head_dim = shape.head_dim, .documents = shape.documents, .window = 0, .scale = 0.1, .dtype = dtype });
    const backward = bench.time(.attention_backward, .{ .d_qkv = range(abi.Out, d_qkv), .delta = range(abi.Out, delta), .d_out = range(abi.In, d_out), .out = range(abi.In, out), .lse = range(abi.In, lse), .qk = range(abi.In, qk), .qkv = range(abi.In, qkv), .starts = starts_range, .tokens = shape.tokens, .heads = shape.heads, .kv_heads = shape.kv_heads, .head_dim = shape.head_dim, .documents = shape.documents, .window = 0, .scale = 0.1, .dtype = dtype });
    // Causal: half of the T × T scores count; forward has two products per score, backward five.
    const flops = 2e-9 * @as(f64, @floatFromInt(T * T / shape.documents / 2 * H * D));
    print("attention  {d:7.1} forward {d:7.1} backward GFLOP/s  {d:7.2} + {d:7.2} ms  {s} T {} H {} K {} D {} documents {}\n", .{ 2 * flops / forward, 5 * flops / backward, forward * 1e3, backward * 1e3, @tagName(dtype), T, H, K, D, shape.documents });
    inline for (.{ qk, qkv, d_qkv, out, d_out, lse, delta }) |memory| free(memory);
}

/// Ops that walk rows: what a token of width 1024 costs.
fn rows(bench: *Bench, dtype: abi.Dtype) void {
    const T, const C, const F, const V = .{ 1024, 1024, 3072, 32000 };
    const size = dtype.bytes();
    const x = bytes(T * C * size);
    const y = bytes(T * C * size);
    const z = bytes(T * C * size);
    const sum = bytes(T * C * size);
    const weight = bytes(C * size);
    const inverse = bytes(T * 4);
    const d_weight = bytes(C * 4);
    const gate_up = bytes(T * 2 * F * size);
    const product = bytes(T * F * size);
    const logits = bytes(256 * V * size);
    const targets = bytes(256 * 4);
    @memset(targets, 1);
    @memset(std.mem.bytesAsSlice(i32, @as([]align(4) u8, @alignCast(targets))), 77);
    const report = struct {
        fn line(name: []const u8, seconds: f64, values: f64, d: abi.Dtype) void {
            print("rows       {d:7.2} Gvalue/s {d:8.1} us  {s} {s}\n", .{ values / seconds / 1e9, seconds * 1e6, name, @tagName(d) });
        }
    }.line;
    report("add_rmsnorm_forward 1024 x 1024", bench.time(.add_rmsnorm_forward, .{ .sum = range(abi.Out, sum), .y = range(abi.Out, y), .inverse = range(abi.Out, inverse), .x = range(abi.In, x), .delta = range(abi.In, z), .weight = range(abi.In, weight), .rows = T, .width = C, .epsilon = 1e-6, .dtype = dtype }), T * C, dtype);
    report("rmsnorm_backward 1024 x 1024", bench.time(.rmsnorm_backward, .{ .dx = range(abi.InOut, y), .d_weight = range(abi.InOut, d_weight), .dy = range(abi.In, z), .x = range(abi.In, x), .inverse = range(abi.In, inverse), .weight = range(abi.In, weight), .rows = T, .width = C, .accumulate_dx = 0, .accumulate = 0, .dtype = dtype }), T * C, dtype);
    report("swiglu_forward 1024 x 3072", bench.time(.swiglu_forward, .{ .y = range(abi.Out, product), .gate_up = range(abi.In, gate_up), .tokens = T, .width = F, .dtype = dtype }), T * F, dtype);
    report("swiglu_backward 1024 x 3072", bench.time(.swiglu_backward, .{ .gate_up = range(abi.InOut, gate_up), .dy = range(abi.In, product), .tokens = T, .width = F, .dtype = dtype }), T * F, dtype);
    report("cross_entropy 256 x 32000", bench.time(.cross_entropy, .{ .logits = range(abi.InOut, logits), .loss = range(abi.Out, inverse), .targets = range(abi.In, targets), .rows = 256, .vocabulary = V, .scale = 1, .gradient = 1, .dtype = dtype }), 256 * V, dtype);
    const none = bytes(64);
    report("zero 64 bytes (cost of a command)", bench.time(.zero, .{ .to = range(abi.Out, none) }), 16, dtype);
    report("rmsnorm_forward 256 x 256", bench.time(.rmsnorm_forward, .{ .y = range(abi.Out, y), .inverse = range(abi.Out, inverse), .x = range(abi.In, x), .weight = range(abi.In, weight), .rows = 256, .width = 256, .epsilon = 1e-6, .dtype = dtype }), 256 * 256, dtype);
    inline for (.{ x, y, z, sum, weight, inverse, d_weight, gate_up, product, logits, targets, none }) |memory| free(memory);
}

/// C's main, not Zig's: nothing but libc is linked, so that memcpy and memset are the ones the shared library uses.
pub export fn main(argument_count: c_int, arguments: [*]const [*:0]const u8) c_int {
    const count = if (argument_count > 1) std.fmt.parseInt(u32, std.mem.span(arguments[1]), 10) catch 2 else 2;
    const family = if (argument_count > 2) std.mem.span(arguments[2]) else "all";
    const all = std.mem.eql(u8, family, "all");
    var bench: Bench = .{ .workers = Workers.create(count, kernels.workers.scratch_bytes_needed) catch fatal("no workers") };
    defer bench.workers.destroy();
    print("{} workers\n", .{count});

    if (all or std.mem.eql(u8, family, "copy")) copyRate(&bench);
    if (all or std.mem.eql(u8, family, "adamw")) {
        adamw(&bench, .bfloat16, 24 << 20, false);
        adamw(&bench, .float32, 24 << 20, false);
        adamw(&bench, .bfloat16, 24 << 20, true);
        adamw(&bench, .bfloat16, 256 << 10, false); // in cache: what arithmetic alone would allow
    }
    inline for (.{ abi.Dtype.float32, abi.Dtype.bfloat16 }) |dtype| {
        if (all or std.mem.eql(u8, family, "gemm")) {
            for ([_]Shape{
                .{ .tokens = 1, .inputs = 1024, .outputs = 1024 },    .{ .tokens = 256, .inputs = 128, .outputs = 256 },
                .{ .tokens = 256, .inputs = 256, .outputs = 768 },    .{ .tokens = 512, .inputs = 256, .outputs = 512 },
                .{ .tokens = 1024, .inputs = 512, .outputs = 512 },   .{ .tokens = 512, .inputs = 256, .outputs = 701 },
                .{ .tokens = 1024, .inputs = 1024, .outputs = 1024 }, .{ .tokens = 2048, .inputs = 2048, .outputs = 2048 },
                .{ .tokens = 1024, .inputs = 1024, .outputs = 8192 },
            }) |shape| gemm(&bench, dtype, shape);
        }
        if (all or std.mem.eql(u8, family, "attention")) {
            for ([_]Heads{
                .{ .tokens = 512, .heads = 8, .kv_heads = 2, .head_dim = 32, .documents = 16 },
                .{ .tokens = 512, .heads = 4, .kv_heads = 2, .head_dim = 64, .documents = 8 },
                .{ .tokens = 1024, .heads = 8, .kv_heads = 4, .head_dim = 64, .documents = 1 },
                .{ .tokens = 2048, .heads = 16, .kv_heads = 8, .head_dim = 128, .documents = 1 },
                .{ .tokens = 2048, .heads = 16, .kv_heads = 8, .head_dim = 128, .documents = 8 },
            }) |shape| attention(&bench, dtype, shape);
        }
        if (all or std.mem.eql(u8, family, "rows")) rows(&bench, dtype);
    }
    return 0;
}

/// Without Zig's own start code nothing prints a panic; there is none in a release build.
pub const panic = std.debug.no_panic;
