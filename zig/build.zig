//! Builds the one shared library. The kernels are compiled once per CPU level and linked into the same file.
//!   zig build -Doptimize=ReleaseFast [-Dtarget=aarch64-linux-gnu.2.28]
const std = @import("std");

pub fn build(b: *std.Build) void {
    const target = b.standardTargetOptions(.{ .default_target = .{ .cpu_arch = .x86_64, .os_tag = .linux, .abi = .gnu, .glibc_version = .{ .major = 2, .minor = 28, .patch = 0 }, .cpu_model = .{ .explicit = &std.Target.x86.cpu.x86_64_v3 } } });
    const optimize = b.standardOptimizeOption(.{});

    const library = b.addLibrary(.{
        .name = "sluice",
        .linkage = .dynamic,
        .root_module = b.createModule(.{ .root_source_file = b.path("root.zig"), .target = target, .optimize = optimize, .link_libc = true, .strip = optimize == .ReleaseFast }),
    });
    for (levels(target)) |level| {
        const options = b.addOptions();
        options.addOption([]const u8, "name", level.name);
        const kernels = b.addObject(.{
            .name = b.fmt("kernels_{s}", .{level.name}),
            .root_module = b.createModule(.{ .root_source_file = b.path("kernels.zig"), .target = b.resolveTargetQuery(level.query), .optimize = optimize, .link_libc = true, .pic = true, .strip = optimize == .ReleaseFast }),
        });
        kernels.root_module.addOptions("level", options);
        library.root_module.addObject(kernels);
    }
    b.installArtifact(library);

    // zig build abi: prints src/native/abi.gen.ts
    const generate = b.addExecutable(.{ .name = "generate", .root_module = b.createModule(.{ .root_source_file = b.path("generate.zig"), .target = b.graph.host, .optimize = .Debug, .link_libc = true }) });
    const run_generate = b.addRunArtifact(generate);
    b.step("abi", "print the TypeScript bindings").dependOn(&run_generate.step);
}

const Level = struct { name: []const u8, query: std.Target.Query };

/// The kernel objects a target gets. 512-bit vectors are wanted where the level has them: the kernels are written for them,
/// and the compiler's default of splitting them in halves costs a third of the matrix rate.
fn levels(target: std.Build.ResolvedTarget) []const Level {
    const query = target.query;
    const State = struct {
        var list: [2]Level = undefined;
    };
    if (target.result.cpu.arch != .x86_64) {
        State.list[0] = .{ .name = "baseline", .query = query };
        return State.list[0..1];
    }
    inline for (.{ "v3", "v4" }, .{ &std.Target.x86.cpu.x86_64_v3, &std.Target.x86.cpu.x86_64_v4 }, 0..) |name, model, index| {
        var level_query = query;
        level_query.cpu_model = .{ .explicit = model };
        level_query.cpu_features_sub = std.Target.x86.featureSet(&.{ .prefer_256_bit });
        State.list[index] = .{ .name = name, .query = level_query };
    }
    return &State.list;
}
