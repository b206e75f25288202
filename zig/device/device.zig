//! What a device is to memory, to the decoder and to the player: they ask here, and nobody else asks what kind it is.
//!
//! A device has the memory of the device tier, computes ops, and may have queues of its own. `null` moves digests instead of
//! bytes (`null.zig`), `cpu` is the reference (`cpu/`), a GPU enqueues (`gpu/`); the ops of the host and disk streams are
//! the CPU's on any of them but null. A new device is a case more in each function.

const abi = @import("../abi.zig");
const cpu = @import("cpu/cpu.zig");
const files = @import("../files.zig");
const gpu = @import("gpu/gpu.zig");
const null_device = @import("null.zig");
const workers = @import("../workers.zig");

pub const Options = gpu.Options;

/// Of each `bytes` bytes of a buffer, `stored` are kept.
pub const Granule = struct { bytes: u64, stored: u64 };

pub const Device = struct {
    computes: union(enum) { null, cpu, gpu: *gpu.Device },
    /// For the ops that the host computes.
    kernels: cpu.Kernels,

    pub fn open(kind: abi.DeviceKind, options: Options) error{Refused}!Device {
        return .{ .kernels = cpu.kernels(), .computes = switch (kind) {
            .null => .null,
            .cpu => .cpu,
            .cuda, .hip => .{ .gpu = try .open(kind, options) },
        } };
    }

    /// After buffers and threads are gone.
    pub fn close(device: Device) void {
        if (device.queues()) |present| present.close();
    }

    /// Each thread does this before it makes or frees buffers, or enqueues.
    pub fn enter(device: Device) void {
        if (device.queues()) |present| _ = present.enter();
    }

    /// The GPU on whose streams compute, upload and download are enqueued, with the events that say when they are done; null
    /// where the streams' threads run their commands.
    pub fn queues(device: Device) ?*gpu.Device {
        return switch (device.computes) {
            .gpu => |present| present,
            .null, .cpu => null,
        };
    }

    // ---- memory -----------------------------------------------------------------------------------------------------

    /// Whether the device tier is other memory than the host's: then each reaches it by copies alone.
    pub fn isApart(device: Device) bool {
        return device.queues() != null;
    }

    pub fn granule(device: Device) Granule {
        return if (device.computes == .null) null_device.granule else .{ .bytes = 1, .stored = 1 };
    }

    /// Zeroed memory of the device tier, or null where the host's memory serves for it. The sentence of a refusal is in
    /// `last_error`.
    pub fn alloc(device: Device, bytes: u64, name: []const u8) error{Refused}!?u64 {
        return if (device.queues()) |present| try present.alloc(bytes, name) else null;
    }

    pub fn free(device: Device, address: u64, bytes: u64) void {
        device.queues().?.release(address, bytes);
    }

    /// Registers the whole pages that host memory lies on, so that copies need no staging; none where there are no copies.
    pub fn pin(device: Device, bytes: []u8, name: []const u8) error{Refused}![]u8 {
        return if (device.queues()) |present| present.pin(bytes, name) else &.{};
    }

    pub fn unpin(device: Device, pages: []u8) void {
        device.queues().?.table.unpin(pages);
    }

    // ---- ops --------------------------------------------------------------------------------------------------------

    /// Runs one op on the calling thread and `pool`; null, or what went wrong, in `text`.
    pub fn run(device: Device, op: abi.Op, arguments: *const anyopaque, file: files.File, pool: *const workers.Pool, text: []u8) ?[]const u8 {
        if (device.computes != .null) return cpu.run(device.kernels, op, arguments, file, pool, text);
        null_device.run(op, arguments);
        return null;
    }
};
