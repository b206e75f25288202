//! Builds the one shared library. The kernels are compiled once per CPU level, side by side, and linked into the same
//! file. `scripts/native.ts` runs this; a cold build takes about 20 s on two cores, nearly all of it in the kernels.
//!   zig build -Doptimize=ReleaseFast [-Dtarget=aarch64-linux-gnu.2.28]
//!   zig build abi               prints src/native/abi.gen.ts, unformatted
//!   zig build cuda-abi          prints cuda/abi.gen.cuh
//!   zig build ops-page          prints docs/ops.md, unformatted
//!   zig build stand-in          the tests' stand-in for GPUs: the vendors' libraries, and the kernels of cuda/ for the CPU
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

    // A packed copy has no tests.
    if (b.build_root.handle.access(b.graph.io, "../test/gpu", .{})) |_|
        b.step("stand-in", "build the tests' stand-in for GPUs").dependOn(&b.addInstallArtifact(standIn(b), .{}).step)
    else |_| {}

    const tests = b.addTest(.{ .root_module = hostKernels(b) });
    b.step("test", "run the tests in zig/").dependOn(&b.addRunArtifact(tests).step);
}

/// The vendors' drivers and matrix libraries for tests, with the kernels of cuda/ compiled for the CPU at hand: once as NVIDIA's
/// GPUs have them, once as AMD's.
fn standIn(b: *std.Build) *std.Build.Step.Compile {
    const tests = "../test/gpu/";
    const module = b.createModule(.{
        .root_source_file = .{ .cwd_relative = b.pathFromRoot(tests ++ "stand-in/driver.zig") },
        .target = b.graph.host,
        .optimize = .ReleaseFast,
        .link_libc = true,
        .strip = true,
        .sanitize_c = .off, // but for what `checks` says
    });
    module.addImport("kernels", hostKernels(b));
    const language = [_][]const u8{ "-std=c++20", "-O2", "-fno-exceptions", "-fno-rtti", "-ffp-contract=off", "-Wall", "-Wno-unused-function" };
    const checks = [_][]const u8{ "-fsanitize=alignment,array-bounds,shift,integer-divide-by-zero", "-fsanitize-minimal-runtime", "-fno-sanitize-recover=all" };
    // Loops unrolled as for a GPU take three times as long to compile.
    const rolled = [_][]const u8{ "-mllvm", "-pragma-unroll-threshold=0", "-Wno-pass-failed" };
    const emulation = b.pathFromRoot(tests ++ "emulation");
    module.addCSourceFile(.{ .file = .{ .cwd_relative = b.pathFromRoot(tests ++ "emulation/fibers.cpp") }, .flags = &language });
    const generated = b.addWriteFiles();
    for (families(b)) |family| {
        const file = generated.add(b.fmt("{s}.cpp", .{family.name}), family.source);
        // Families use the same names for different things, so each gets its own namespace.
        for ([_][2][]const u8{ .{ "32", "" }, .{ "64", "../hip" } }) |vendor| {
            const own = [_][]const u8{
                b.fmt("-DSLUICE_EMULATED_WARP={s}", .{vendor[0]}), b.fmt("-Dsluice=sluice_{s}_{s}", .{ family.name, vendor[0] }),
                "-I",                                              emulation,
                "-I",                                              b.pathFromRoot(if (vendor[1].len > 0) vendor[1] else "../cuda"),
                "-I",                                              b.pathFromRoot("../cuda"),
            };
            module.addCSourceFile(.{ .file = file, .flags = b.dupeStrings(&(language ++ rolled ++ checks ++ own)) });
        }
    }
    return b.addLibrary(.{ .name = "stand_in", .linkage = .dynamic, .root_module = module });
}

const Family = struct { name: []const u8, source: []const u8 };

/// The sources of kernels but Hopper's own, each with a line per kernel that makes it known by its name.
fn families(b: *std.Build) []const Family {
    const io = b.graph.io;
    var found: std.ArrayList(Family) = .empty;
    for ([_][]const u8{ "../cuda", "../test/gpu/emulation" }) |path| {
        var directory = b.build_root.handle.openDir(io, path, .{ .iterate = true }) catch |failure| std.debug.panic("{s}: {t}", .{ path, failure });
        defer directory.close(io);
        var entries = directory.iterate();
        while (entries.next(io) catch |failure| std.debug.panic("{s}: {t}", .{ path, failure })) |entry| {
            if (!std.mem.endsWith(u8, entry.name, ".cu") or std.mem.indexOf(u8, entry.name, "hopper") != null) continue;
            const text = directory.readFileAlloc(io, entry.name, b.allocator, .limited(1 << 20)) catch |failure| std.debug.panic("{s}: {t}", .{ entry.name, failure });
            var source: []const u8 = b.fmt("#include <{s}>\nusing namespace sluice;\n", .{entry.name});
            var lines = std.mem.splitScalar(u8, text, '\n');
            while (lines.next()) |line| {
                if (std.mem.startsWith(u8, line, "#if ") or std.mem.startsWith(u8, line, "#endif")) source = b.fmt("{s}{s}\n", .{ source, line });
                if (!std.mem.startsWith(u8, line, "KERNEL(")) continue;
                const end = std.mem.indexOf(u8, line, "(const ").?;
                const start = std.mem.lastIndexOfScalar(u8, line[0..end], ' ').? + 1;
                const threads = line["KERNEL(".len..std.mem.lastIndexOfScalar(u8, line[0..start], ',').?];
                source = b.fmt("{0s}static emulation::Kernel {1s}_by_name(\"{1s}\", warp_size, {2s}, {1s});\n", .{ source, line[start..end], threads });
            }
            found.append(b.allocator, .{ .name = b.dupe(entry.name[0 .. entry.name.len - ".cu".len]), .source = source }) catch @panic("out of memory");
        }
    }
    return found.items;
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
