//! Matrix products through cuBLASLt or hipBLASLt: one interface and two tables of numbers, because the libraries have the
//! same functions but number their attributes differently. Opened by dlopen, like the driver.
//!
//! Tensors are row-major and the libraries think in columns, so every product is computed transposed:
//!   forward          yᵀ (O, T)  = weight (O, I) · xᵀ       A = weight, transposed   B = x
//!   input gradient   dxᵀ (I, T) = weightᵀ · dyᵀ            A = weight               B = dy
//!   weight gradient  dwᵀ (I, O) = xᵀ · dy                  A = x                    B = dy, transposed
//! Inputs are bfloat16, sums float32; weight gradients come out in float32, or rounded where one product is the whole gradient.
//!
//! A library knows many algorithms for a product and guesses the best one badly enough that it pays to measure: on first
//! use the first `candidates_max` guesses are timed, fewer where a product takes so long that timing would be felt, and the
//! fastest one is kept for the process and on disk, per GPU and library version. The choice depends on the shape (token counts in classes, because packing makes every micro-batch a
//! little different) and on alignment up to 16 bytes, never on where a buffer lies or on whether the product is added to what is there,
//! so that options that only move buffers change no bits. Algorithms that add up in no fixed order are not asked for.

const std = @import("std");
const abi = @import("../../abi.zig");
const bias_family = @import("bias.zig");
const driver = @import("driver.zig");
const gpu = @import("gpu.zig");
const last_error = @import("../../last_error.zig");
const Choices = @import("choices.zig").Choices;
const launcher_module = @import("launcher.zig");

const Launcher = launcher_module.Launcher;
const allocator = std.heap.c_allocator;

pub const workspace_bytes: u64 = 32 << 20;
const candidates_max = 16;
/// The first run of a guess also loads its kernel; one that is this much slower than the best in its second run is out.
const warm_runs = 2;
const hopeless = 1.3;
const timed_runs = 5;
/// A product that takes longer, milliseconds, is timed once: its time varies by less than guesses differ.
const long_run = 8;
/// No further guess is tried after so many milliseconds. At 16,384 tokens all of an 8B model's products stay below; at 131,072
/// the largest one, 40 ms a run, gets six or more guesses. A model has about a dozen products.
const tuning_max = 500;
/// Where memory is short, fewer tokens than the product has are timed, but not so few that another algorithm is best for them.
const tuned_tokens_min = 1024;
const warm_size = 256;
/// Products whose descriptors are kept; more than any run has, unless every micro-batch has another length.
const prepared_max = 2048;

const Handle = *anyopaque;
const algorithm_bytes_max = @import("choices.zig").algorithm_bytes;
const result_bytes_max = 96;

/// The numbers in which the two libraries differ.
const Constants = struct {
    operation: [2]i32, // as it is, transposed
    compute_float32: i32,
    transpose_a: i32,
    transpose_b: i32,
    epilogue: i32,
    bias_pointer: i32,
    bias_dtype: i32,
    workspace_bytes_max: i32,
    reduction_mask: ?i32,
    alignment: ?i32, // of A; B, C and D follow
    algorithm_bytes: u32,
    result_bytes: u32,
};
const constants_cuda: Constants = .{ .operation = .{ 0, 1 }, .compute_float32 = 68, .transpose_a = 3, .transpose_b = 4, .epilogue = 7, .bias_pointer = 8, .bias_dtype = 26, .workspace_bytes_max = 1, .reduction_mask = 3, .alignment = 5, .algorithm_bytes = 64, .result_bytes = 96 };
const constants_hip: Constants = .{ .operation = .{ 111, 112 }, .compute_float32 = 2, .transpose_a = 0, .transpose_b = 1, .epilogue = 2, .bias_pointer = 3, .bias_dtype = 4, .workspace_bytes_max = 1, .reduction_mask = null, .alignment = null, .algorithm_bytes = 24, .result_bytes = 56 };
// The same in both.
const type_float32: i32 = 0;
const type_bfloat16: i32 = 14;
const epilogue_bias: u32 = 4;
/// Partial sums in float32, added in a fixed order (or no split at all); never atomics, never rounded to bfloat16.
const reduction_in_order: u32 = 2;

const Calls = struct {
    create: *const fn (handle: *?Handle) callconv(.c) i32,
    destroy: *const fn (handle: Handle) callconv(.c) i32,
    cuda_version: ?*const fn () callconv(.c) usize,
    hip_version: ?*const fn (handle: Handle, version: *i32) callconv(.c) i32,
    product_create: *const fn (product: *?Handle, compute: i32, scale: i32) callconv(.c) i32,
    product_destroy: *const fn (product: Handle) callconv(.c) i32,
    product_set: *const fn (product: Handle, attribute: i32, value: *const anyopaque, bytes: usize) callconv(.c) i32,
    layout_create: *const fn (layout: *?Handle, dtype: i32, rows: u64, columns: u64, leading: i64) callconv(.c) i32,
    layout_destroy: *const fn (layout: Handle) callconv(.c) i32,
    preference_create: *const fn (preference: *?Handle) callconv(.c) i32,
    preference_destroy: *const fn (preference: Handle) callconv(.c) i32,
    preference_set: *const fn (preference: Handle, attribute: i32, value: *const anyopaque, bytes: usize) callconv(.c) i32,
    heuristic: *const fn (handle: Handle, product: Handle, a: Handle, b: Handle, c: Handle, d: Handle, preference: Handle, wanted: i32, results: [*]u8, found: *i32) callconv(.c) i32,
    check: ?*const fn (handle: Handle, product: Handle, a: Handle, b: Handle, c: Handle, d: Handle, algorithm: *const anyopaque, result: *anyopaque) callconv(.c) i32,
    multiply: *const fn (handle: Handle, product: Handle, alpha: *const f32, a: driver.Address, a_layout: Handle, b: driver.Address, b_layout: Handle, beta: *const f32, c: driver.Address, c_layout: Handle, d: driver.Address, d_layout: Handle, algorithm: *const anyopaque, workspace: driver.Address, workspace_bytes: usize, stream: driver.Stream) callconv(.c) i32,
};
const names = struct {
    fn both(comptime rest: []const u8) driver.Names {
        return .{ .cuda = "cublasLt" ++ rest, .hip = "hipblasLt" ++ rest };
    }
    pub const create = both("Create");
    pub const destroy = both("Destroy");
    pub const cuda_version = driver.Names{ .cuda = "cublasLtGetVersion" };
    pub const hip_version = driver.Names{ .hip = "hipblasLtGetVersion" };
    pub const product_create = both("MatmulDescCreate");
    pub const product_destroy = both("MatmulDescDestroy");
    pub const product_set = both("MatmulDescSetAttribute");
    pub const layout_create = both("MatrixLayoutCreate");
    pub const layout_destroy = both("MatrixLayoutDestroy");
    pub const preference_create = both("MatmulPreferenceCreate");
    pub const preference_destroy = both("MatmulPreferenceDestroy");
    pub const preference_set = both("MatmulPreferenceSetAttribute");
    pub const heuristic = both("MatmulAlgoGetHeuristic");
    pub const check = driver.Names{ .cuda = "cublasLtMatmulAlgoCheck" };
    pub const multiply = both("Matmul");
};

/// `weight` makes a gradient in float32, `weight_rounded` one in bfloat16.
const Kind = enum { forward, input, weight, weight_rounded };

/// What a product is, up to where its buffers lie.
const Shape = struct {
    kind: Kind,
    tokens: u32,
    inputs: u32,
    outputs: u32,
    bias: bool,
    /// The largest power of two, at most 16, that every address is a multiple of.
    alignment: u32,

    const Dimensions = struct { m: u64, n: u64, k: u64, transpose_a: bool, transpose_b: bool };

    fn dimensions(shape: Shape) Dimensions {
        return switch (shape.kind) {
            .forward => .{ .m = shape.outputs, .n = shape.tokens, .k = shape.inputs, .transpose_a = true, .transpose_b = false },
            .input => .{ .m = shape.inputs, .n = shape.tokens, .k = shape.outputs, .transpose_a = false, .transpose_b = false },
            .weight, .weight_rounded => .{ .m = shape.inputs, .n = shape.outputs, .k = shape.tokens, .transpose_a = false, .transpose_b = true },
        };
    }

    fn isFloat32(shape: Shape) bool {
        return shape.kind == .weight;
    }

    fn resultBytes(shape: Shape) u64 {
        const of = shape.dimensions();
        return of.m * of.n * @as(u64, if (shape.isFloat32()) 4 else 2);
    }

    /// Shapes of one class share an algorithm: four classes between a power of two and the next.
    fn tokenClass(shape: Shape) u32 {
        if (shape.tokens <= 128) return 128;
        const step = @as(u32, 1) << (std.math.log2_int(u32, shape.tokens - 1) - 2);
        return (shape.tokens + step - 1) / step * step;
    }

    fn key(shape: Shape, text: *[96]u8) []const u8 {
        return std.fmt.bufPrint(text, "{s} {d} {d} {d} {d} {d}", .{ @tagName(shape.kind), shape.tokenClass(), shape.inputs, shape.outputs, @intFromBool(shape.bias), shape.alignment }) catch unreachable;
    }
};

const Operands = struct { a: driver.Address, b: driver.Address, c: driver.Address, d: driver.Address, bias: driver.Address = 0, beta: f32 };

/// Descriptors of a shape, and the algorithm chosen for it; no algorithm where the library refuses the shape.
const Prepared = struct {
    product: Handle,
    a: Handle,
    b: Handle,
    d: Handle,
    algorithm: ?[algorithm_bytes_max]u8 align(16) = null,
};

pub const Blas = struct {
    calls: Calls,
    constants: *const Constants,
    table: *const driver.Table,
    handle: Handle,
    workspace: driver.Address,
    tune: bool,
    choices: *Choices,
    device: *gpu.Device,
    prepared: std.AutoHashMapUnmanaged(Shape, Prepared) = .empty,
    start: driver.Event,
    end: driver.Event,

    /// Opens the vendor's library on the device's context. `device` has its workspace already.
    pub fn open(device: *gpu.Device, workspace: driver.Address, cache_directory: ?[]const u8, tune: bool) error{Refused}!Blas {
        const table = &device.table;
        const library = try driver.openLibrary(switch (table.vendor) {
            .cuda => &.{ .environment = "SLUICE_LIBCUBLASLT", .names = &.{ "libcublasLt.so.13", "libcublasLt.so.12" }, .needed = "device \"cuda\" needs cuBLASLt for matrix products", .remedy = "install CUDA's cuBLAS 12 or 13, or add its folder to LD_LIBRARY_PATH" },
            .hip => &.{ .environment = "SLUICE_LIBHIPBLASLT", .names = &.{ "libhipblaslt.so.1", "libhipblaslt.so.0" }, .needed = "device \"hip\" needs hipBLASLt for matrix products", .remedy = "install ROCm's hipBLASLt, or add its folder to LD_LIBRARY_PATH" },
        });
        var blas: Blas = .{ .calls = undefined, .constants = if (table.vendor == .cuda) &constants_cuda else &constants_hip, .table = table, .handle = undefined, .workspace = workspace, .tune = tune, .choices = undefined, .device = device, .start = undefined, .end = undefined };
        try driver.fill(&blas.calls, names, table.vendor, library);
        var handle: ?Handle = null;
        const created = blas.calls.create(&handle);
        if (created != 0) {
            last_error.set("{s} cannot start: its status is {d}; it may not fit this driver, or the GPU has no memory left", .{ library.name(), created });
            return error.Refused;
        }
        blas.handle = handle.?;
        errdefer _ = blas.calls.destroy(blas.handle);
        for ([_]*driver.Event{ &blas.start, &blas.end }) |event| event.* = try device.createEvent(driver.event_timed);
        var version: u64 = 0;
        if (blas.calls.cuda_version) |get| version = get();
        if (blas.calls.hip_version) |get| {
            var number: i32 = 0;
            _ = get(blas.handle, &number);
            version = @intCast(@max(0, number));
        }
        blas.choices = Choices.of(table.vendor, device.name(), version, cache_directory);
        blas.warmUp();
        return blas;
    }

    /// Multiplies something small each way, so that the library has loaded what it needs before the device's overhead is read. The
    /// numbers are whatever lies in the kernels' workspace; a library that refuses will say so when it matters.
    fn warmUp(blas: *Blas) void {
        const stream = blas.device.streams[0];
        const a = blas.device.workspace;
        for (std.enums.values(Kind)) |kind| {
            const shape: Shape = .{ .kind = kind, .tokens = warm_size, .inputs = warm_size, .outputs = warm_size, .bias = false, .alignment = 16 };
            const bytes = 2 * warm_size * warm_size;
            const prepared = blas.describe(shape) orelse continue;
            defer blas.destroy(&prepared);
            const algorithm = blas.firstGuess(&prepared, shape) orelse continue;
            const operands: Operands = .{ .a = a, .b = a + bytes, .c = a + 2 * bytes, .d = a + 2 * bytes, .beta = 0 };
            _ = blas.multiply(&prepared, shape, operands, operands.d, &algorithm, stream);
        }
        _ = blas.table.calls.stream_synchronize(stream);
    }

    pub fn close(blas: *Blas) void {
        blas.forget();
        blas.prepared.deinit(allocator);
        _ = blas.table.calls.event_destroy(blas.start);
        _ = blas.table.calls.event_destroy(blas.end);
        _ = blas.calls.destroy(blas.handle);
    }

    fn forget(blas: *Blas) void {
        var entries = blas.prepared.valueIterator();
        while (entries.next()) |entry| blas.destroy(entry);
        blas.prepared.clearRetainingCapacity();
    }

    fn destroy(blas: *Blas, prepared: *const Prepared) void {
        _ = blas.calls.product_destroy(prepared.product);
        for ([_]Handle{ prepared.a, prepared.b, prepared.d }) |layout| _ = blas.calls.layout_destroy(layout);
    }

    /// d = A · B + beta · c (+ bias) in the shape's sense. False when the library has nothing for it; then nothing ran.
    fn product(blas: *Blas, launcher: *Launcher, shape: Shape, operands: Operands) launcher_module.Error!bool {
        if (blas.prepared.get(shape) == null and blas.prepared.count() >= prepared_max) blas.forget();
        const entry = blas.prepared.getPtr(shape) orelse try blas.prepare(launcher, shape, operands);
        const algorithm = if (entry.algorithm) |*bytes| bytes else return false;
        const code = blas.multiply(entry, shape, operands, operands.d, algorithm, launcher.stream);
        if (code == 0) return true;
        return launcher.fail("matrix product {s} of {d} tokens, {d} inputs, {d} outputs: the library's status is {d}", .{ @tagName(shape.kind), shape.tokens, shape.inputs, shape.outputs, code });
    }

    fn multiply(blas: *Blas, prepared: *const Prepared, shape: Shape, operands: Operands, d: driver.Address, algorithm: *const [algorithm_bytes_max]u8, stream: driver.Stream) i32 {
        if (shape.bias) _ = blas.calls.product_set(prepared.product, blas.constants.bias_pointer, &operands.bias, 8);
        const alpha: f32 = 1;
        return blas.calls.multiply(blas.handle, prepared.product, &alpha, operands.a, prepared.a, operands.b, prepared.b, &operands.beta, operands.c, prepared.d, d, prepared.d, algorithm, blas.workspace, workspace_bytes, stream);
    }

    fn prepare(blas: *Blas, launcher: *Launcher, shape: Shape, operands: Operands) launcher_module.Error!*Prepared {
        const made = blas.describe(shape) orelse return launcher.fail("the matrix library made no descriptor for {d} x {d} x {d}", .{ shape.tokens, shape.inputs, shape.outputs });
        blas.prepared.put(allocator, shape, made) catch @panic("out of memory");
        const entry = blas.prepared.getPtr(shape).?;
        entry.algorithm = blas.choose(launcher, entry, shape, operands);
        return entry;
    }

    fn describe(blas: *Blas, shape: Shape) ?Prepared {
        const dimensions = shape.dimensions();
        const m, const n, const k = .{ dimensions.m, dimensions.n, dimensions.k };
        var made: ?Handle = null;
        if (blas.calls.product_create(&made, blas.constants.compute_float32, type_float32) != 0) return null;
        const product_handle = made.?;
        blas.set(product_handle, blas.constants.transpose_a, blas.constants.operation[@intFromBool(dimensions.transpose_a)]);
        blas.set(product_handle, blas.constants.transpose_b, blas.constants.operation[@intFromBool(dimensions.transpose_b)]);
        if (shape.bias) {
            blas.set(product_handle, blas.constants.epilogue, epilogue_bias);
            blas.set(product_handle, blas.constants.bias_dtype, type_bfloat16);
        }
        var layouts: [3]?Handle = @splat(null);
        const a_rows, const a_columns = if (dimensions.transpose_a) .{ k, m } else .{ m, k };
        const b_rows, const b_columns = if (dimensions.transpose_b) .{ n, k } else .{ k, n };
        const codes = [_]i32{
            blas.calls.layout_create(&layouts[0], type_bfloat16, a_rows, a_columns, @intCast(a_rows)),
            blas.calls.layout_create(&layouts[1], type_bfloat16, b_rows, b_columns, @intCast(b_rows)),
            blas.calls.layout_create(&layouts[2], if (shape.isFloat32()) type_float32 else type_bfloat16, m, n, @intCast(m)),
        };
        for (codes) |code| if (code != 0) {
            _ = blas.calls.product_destroy(product_handle);
            for (layouts) |layout| if (layout) |handle| {
                _ = blas.calls.layout_destroy(handle);
            };
            return null;
        };
        return .{ .product = product_handle, .a = layouts[0].?, .b = layouts[1].?, .d = layouts[2].? };
    }

    fn set(blas: *Blas, product_handle: Handle, attribute: i32, value: anytype) void {
        _ = blas.calls.product_set(product_handle, attribute, &value, @sizeOf(@TypeOf(value)));
    }

    // ---- algorithms -------------------------------------------------------------------------------------------------

    /// The algorithm of the shape's class if it is known and fits, else one that is found now.
    fn choose(blas: *Blas, launcher: *Launcher, prepared: *const Prepared, shape: Shape, operands: Operands) ?[algorithm_bytes_max]u8 {
        if (!blas.tune) return blas.firstGuess(prepared, shape);
        blas.choices.mutex.lock(); // also while measuring: a second engine of this process gets the same choice
        defer blas.choices.mutex.unlock();
        var text: [96]u8 = undefined;
        const key = shape.key(&text);
        if (blas.choices.get(key)) |algorithm| return if (blas.fits(prepared, &algorithm)) algorithm else blas.firstGuess(prepared, shape);
        var guesses: [candidates_max][algorithm_bytes_max]u8 = undefined;
        const count = blas.guess(prepared, shape, &guesses);
        if (count == 0) return null;
        const measured = blas.fastest(launcher, prepared, shape, operands, guesses[0..count]);
        blas.choices.put(key, measured orelse guesses[0], measured != null);
        return measured orelse guesses[0];
    }

    fn firstGuess(blas: *Blas, prepared: *const Prepared, shape: Shape) ?[algorithm_bytes_max]u8 {
        var guesses: [candidates_max][algorithm_bytes_max]u8 = undefined;
        return if (blas.guess(prepared, shape, &guesses) > 0) guesses[0] else null;
    }

    /// What the library thinks is fastest, in its order.
    fn guess(blas: *Blas, prepared: *const Prepared, shape: Shape, guesses: *[candidates_max][algorithm_bytes_max]u8) usize {
        const constants = blas.constants;
        var made: ?Handle = null;
        if (blas.calls.preference_create(&made) != 0) return 0;
        const preference = made.?;
        defer _ = blas.calls.preference_destroy(preference);
        _ = blas.calls.preference_set(preference, constants.workspace_bytes_max, &workspace_bytes, 8);
        if (constants.reduction_mask) |attribute| _ = blas.calls.preference_set(preference, attribute, &reduction_in_order, 4);
        if (constants.alignment) |first| for (0..4) |operand| {
            _ = blas.calls.preference_set(preference, first + @as(i32, @intCast(operand)), &shape.alignment, 4);
        };
        var results: [candidates_max * result_bytes_max]u8 align(16) = @splat(0);
        var found: i32 = 0;
        if (blas.calls.heuristic(blas.handle, prepared.product, prepared.a, prepared.b, prepared.d, prepared.d, preference, candidates_max, &results, &found) != 0) return 0;
        var count: usize = 0;
        for (0..@intCast(@max(0, found))) |index| {
            const result = results[index * constants.result_bytes ..][0..constants.result_bytes];
            const state = std.mem.readInt(i32, result[constants.algorithm_bytes + 8 ..][0..4], .little);
            if (state != 0) continue;
            @memset(&guesses[count], 0);
            @memcpy(guesses[count][0..constants.algorithm_bytes], result[0..constants.algorithm_bytes]);
            count += 1;
        }
        return count;
    }

    /// Whether an algorithm of the shape's class also does this very shape, within the workspace.
    fn fits(blas: *Blas, prepared: *const Prepared, algorithm: *const [algorithm_bytes_max]u8) bool {
        const check = blas.calls.check orelse return true;
        var result: [result_bytes_max]u8 align(16) = @splat(0);
        if (check(blas.handle, prepared.product, prepared.a, prepared.b, prepared.d, prepared.d, algorithm, &result) != 0) return false;
        return std.mem.readInt(u64, result[blas.constants.algorithm_bytes..][0..8], .little) <= workspace_bytes;
    }

    /// Times the guesses on the command's own buffers: whatever they write is overwritten by the run that counts. Where the
    /// result goes over an input, they write into memory taken for the moment, and compute no more tokens than there is
    /// room for; null when that is too little, or nothing runs.
    fn fastest(blas: *Blas, launcher: *Launcher, prepared: *const Prepared, shape: Shape, operands: Operands, guesses: []const [algorithm_bytes_max]u8) ?[algorithm_bytes_max]u8 {
        const in_place = operands.beta != 0 and operands.c == operands.d;
        var part = shape;
        const d = if (!in_place) operands.d else while (true) {
            if (blas.device.allocate(part.resultBytes())) |found| break found;
            part.tokens /= 2;
            if (part.resultBytes() == shape.resultBytes() or part.tokens < tuned_tokens_min) return null;
        };
        defer if (in_place) blas.device.release(d, part.resultBytes());
        var described: ?Prepared = if (part.tokens == shape.tokens) null else blas.describe(part) orelse return null;
        defer if (described) |*own| blas.destroy(own);
        const timed_as = if (described) |*own| own else prepared;
        var best: ?[algorithm_bytes_max]u8 = null;
        var best_time: f32 = std.math.inf(f32);
        var spent: f32 = 0;
        for (guesses) |*algorithm| {
            if (best != null and spent >= tuning_max) break;
            var times: [warm_runs + timed_runs]f32 = undefined;
            const ran = for (&times, 1..) |*time, runs| {
                time.* = blas.timed(timed_as, part, operands, d, algorithm, launcher.stream) orelse break 0;
                spent += time.*;
                if (runs == warm_runs and (time.* >= long_run or time.* > hopeless * best_time)) break runs;
            } else times.len;
            if (ran == 0) continue;
            const measured = if (ran == times.len) times[warm_runs..] else times[ran - 1 .. ran];
            std.mem.sort(f32, measured, {}, std.sort.asc(f32));
            const median = measured[measured.len / 2];
            if (median >= best_time) continue;
            best_time = median;
            best = algorithm.*;
        }
        return best;
    }

    /// Milliseconds of one run; null when it failed.
    fn timed(blas: *Blas, prepared: *const Prepared, shape: Shape, operands: Operands, d: driver.Address, algorithm: *const [algorithm_bytes_max]u8, stream: driver.Stream) ?f32 {
        const calls = &blas.table.calls;
        _ = calls.event_record(blas.start, stream);
        if (blas.multiply(prepared, shape, operands, d, algorithm, stream) != 0) return null;
        _ = calls.event_record(blas.end, stream);
        if (calls.event_synchronize(blas.end) != 0) return null;
        var milliseconds: f32 = 0;
        return if (calls.event_elapsed(&milliseconds, blas.start, blas.end) == 0) milliseconds else null;
    }
};

// ---- ops ------------------------------------------------------------------------------------------------------------

fn address(range: anytype) driver.Address {
    return @intFromPtr(range.address);
}

/// The largest power of two, at most 16, that divides all of these.
fn alignmentOf(values: []const u64) u32 {
    var bits: u64 = 16;
    for (values) |value| bits |= value;
    return @as(u32, 1) << @intCast(@ctz(bits));
}

fn requireBfloat16(launcher: *Launcher, dtype: abi.Dtype) launcher_module.Error!void {
    if (dtype != .bfloat16) return launcher.fail("a GPU computes in bfloat16 only (dtype was {s})", .{@tagName(dtype)});
}

const plain_block = @import("shapes.zig").linear.threads;

/// One thread per element of the result: for shapes that the library refuses.
fn plain(launcher: *Launcher, comptime kernel: [:0]const u8, elements: u64, arguments: anytype) launcher_module.Error!void {
    const blocks: u32 = @intCast(@min((elements + plain_block - 1) / plain_block, 1 << 20));
    return launcher.run(kernel, .{ blocks, 1, 1 }, plain_block, 0, arguments, .{});
}

/// y (T, O) = x (T, I) · weightᵀ + bias + residual; y may lie on residual.
pub fn linearForward(launcher: *Launcher, a: *const abi.ops.linear_forward) launcher_module.Error!void {
    try requireBfloat16(launcher, a.dtype);
    if (a.tokens == 0) return;
    const residual = a.residual.present();
    const operands: Operands = .{ .a = address(a.weight), .b = address(a.x), .c = if (residual) address(a.residual) else address(a.y), .d = address(a.y), .bias = if (a.bias.present()) address(a.bias) else 0, .beta = if (residual) 1 else 0 };
    const shape: Shape = .{ .kind = .forward, .tokens = a.tokens, .inputs = a.inputs, .outputs = a.outputs, .bias = a.bias.present(), .alignment = alignmentOf(&.{ operands.a, operands.b, operands.c, operands.d, operands.bias }) };
    if (try launcher.blas.product(launcher, shape, operands)) return;
    return plain(launcher, "linear_forward_plain", @as(u64, a.tokens) * a.outputs, a);
}

/// dx (T, I) = dy (T, O) · weight.
pub fn linearBackwardInput(launcher: *Launcher, a: *const abi.ops.linear_backward_input) launcher_module.Error!void {
    try requireBfloat16(launcher, a.dtype);
    if (a.tokens == 0) return;
    const operands: Operands = .{ .a = address(a.weight), .b = address(a.dy), .c = address(a.dx), .d = address(a.dx), .beta = 0 };
    const shape: Shape = .{ .kind = .input, .tokens = a.tokens, .inputs = a.inputs, .outputs = a.outputs, .bias = false, .alignment = alignmentOf(&.{ operands.a, operands.b, operands.d }) };
    if (try launcher.blas.product(launcher, shape, operands)) return;
    return plain(launcher, "linear_backward_input_plain", @as(u64, a.tokens) * a.inputs, a);
}

/// d_weight (O, I) of gradient_dtype = (accumulate ? d_weight : 0) + dyᵀ · x, and d_bias (O) float32 likewise the column sums of dy.
pub fn linearBackwardWeight(launcher: *Launcher, a: *const abi.ops.linear_backward_weight) launcher_module.Error!void {
    try requireBfloat16(launcher, a.dtype);
    if (a.tokens == 0) {
        if (a.accumulate != 0) return;
        try launcher.zero(address(a.d_weight), a.d_weight.bytes);
        if (a.d_bias.present()) try launcher.zero(address(a.d_bias), a.d_bias.bytes);
        return;
    }
    const operands: Operands = .{ .a = address(a.x), .b = address(a.dy), .c = address(a.d_weight), .d = address(a.d_weight), .beta = if (a.accumulate != 0) 1 else 0 };
    const shape: Shape = .{ .kind = if (a.gradient_dtype == .float32) .weight else .weight_rounded, .tokens = a.tokens, .inputs = a.inputs, .outputs = a.outputs, .bias = false, .alignment = alignmentOf(&.{ operands.a, operands.b, operands.d }) };
    if (!try launcher.blas.product(launcher, shape, operands)) try plain(launcher, "linear_backward_weight_plain", @as(u64, a.outputs) * a.inputs, a);
    if (a.d_bias.present()) try bias_family.biasGradient(launcher, a);
}
