//! Builds the one shared library. The kernels are compiled once per CPU level, side by side, and linked into the same
//! file. `scripts/native.ts` runs this; a cold build takes about 20 s on two cores, nearly all of it in the kernels.
//!   zig build -Doptimize=ReleaseFast [-Dtarget=aarch64-linux-gnu.2.28]
//!   zig build abi               prints src/native/abi.gen.ts, unformatted
//!   zig build cuda-abi          prints cuda/abi.gen.cuh
//!   zig build ops-page          prints docs/ops.md, unformatted
//!   zig build stand-in          the tests' stand-in for AMD's libraries, libstand_in.so
//!   zig build test              the tests in zig/, kernels compiled for the CPU it runs on

const std = @import("std");

pub fn build(b: *std.Build) void {
    // The library loads on any x86_64 and then says what the CPU lacks; only the kernels need more. glibc 2.28 is Debian 10.
    const target = b.standardTargetOptions(.{ .default_target = .{
        .cpu_arch = .x86_64,
        .os_tag = .linux,
        .abi = .gnu,
        .glibc_version = .{ .major = 2, .minor = 28, .patch = 0 },
    } });
    const optimize = b.standardOptimizeOption(.{});

    const library = b.addLibrary(.{
        .name = "sluice",
        .linkage = .dynamic,
        .root_module = b.createModule(.{
            .root_source_file = b.path("root.zig"),
            .target = target,
            .optimize = optimize,
            .link_libc = true,
            .strip = optimize == .ReleaseFast,
        }),
    });
    // Nothing of it is needed beside the C library, and it takes 3 s to compile; test/unit/library.test.ts would notice.
    library.bundle_compiler_rt = false;
    for (levels(b, target)) |level| {
        const options = b.addOptions();
        options.addOption([]const u8, "name", level.name);
        const kernels = b.addObject(.{
            .name = b.fmt("kernels_{s}", .{level.name}),
            .root_module = b.createModule(.{
                .root_source_file = b.path("kernels.zig"),
                .target = b.resolveTargetQuery(level.query),
                .optimize = optimize,
                .link_libc = true,
                .pic = true,
                .strip = optimize == .ReleaseFast,
            }),
        });
        kernels.root_module.addOptions("level", options);
        library.root_module.addObject(kernels);
    }
    b.installArtifact(library);

    const generate = b.addExecutable(.{
        .name = "generate",
        .root_module = b.createModule(.{
            .root_source_file = b.path("generate.zig"),
            .target = b.graph.host,
            // Small, stripped and without threads is what compiles fastest; it runs for a millisecond.
            .optimize = .ReleaseSmall,
            .strip = true,
            .single_threaded = true,
            .link_libc = true,
        }),
    });
    b.step("abi", "print the TypeScript bindings").dependOn(&b.addRunArtifact(generate).step);
    for ([_][3][]const u8{ .{ "cuda", "cuda-abi", "print the structs that kernels take" }, .{ "docs", "ops-page", "print the page about all ops" } }) |other| {
        const run = b.addRunArtifact(generate);
        run.addArg(other[0]);
        b.step(other[1], other[2]).dependOn(&run.step);
    }

    const stand_in = b.addLibrary(.{
        .name = "stand_in",
        .linkage = .dynamic,
        .root_module = b.createModule(.{
            .root_source_file = .{ .cwd_relative = b.pathFromRoot("../test/gpu/stand-in/hip.zig") },
            .target = b.graph.host,
            .optimize = .ReleaseFast,
            .link_libc = true,
            .strip = true,
        }),
    });
    stand_in.root_module.addImport("kernels", hostKernels(b));
    b.step("stand-in", "build the tests' stand-in for AMD's libraries").dependOn(&b.addInstallArtifact(stand_in, .{}).step);

    const tests = b.addTest(.{ .root_module = hostKernels(b) });
    b.step("test", "run the tests in zig/").dependOn(&b.addRunArtifact(tests).step);
}

/// The kernels for the CPU at hand, with all it has.
fn hostKernels(b: *std.Build) *std.Build.Module {
    var host = b.graph.host.query;
    if (b.graph.host.result.cpu.arch == .x86_64) host.cpu_features_sub = std.Target.x86.featureSet(&.{.prefer_256_bit});
    const options = b.addOptions();
    options.addOption([]const u8, "name", "host");
    const module = b.createModule(.{
        .root_source_file = b.path("kernels.zig"),
        .target = b.resolveTargetQuery(host),
        .optimize = .ReleaseSafe,
        .link_libc = true,
        .strip = true, // halves the time to compile the tests, together with the next line
        .error_tracing = false,
    });
    module.addOptions("level", options);
    return module;
}

const Level = struct { name: []const u8, query: std.Target.Query };

/// The kernel objects a target gets. 512-bit vectors are wanted where the level has them: the kernels are written for them,
/// and the compiler's default of splitting them in halves costs a third of the matrix rate.
fn levels(b: *std.Build, target: std.Build.ResolvedTarget) []const Level {
    const baseline: Level = .{ .name = "baseline", .query = target.query };
    if (target.result.cpu.arch != .x86_64) return b.allocator.dupe(Level, &.{baseline}) catch @panic("out of memory");
    var v3 = target.query;
    v3.cpu_model = .{ .explicit = &std.Target.x86.cpu.x86_64_v3 };
    v3.cpu_features_sub = std.Target.x86.featureSet(&.{.prefer_256_bit});
    var v4 = v3;
    v4.cpu_model = .{ .explicit = &std.Target.x86.cpu.x86_64_v4 };
    return b.allocator.dupe(Level, &.{ .{ .name = "v3", .query = v3 }, .{ .name = "v4", .query = v4 } }) catch @panic("out of memory");
}
