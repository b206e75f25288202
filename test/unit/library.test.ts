// The built library loads on old systems: it needs the C library alone, and no symbol newer than glibc 2.28 (Debian 10).
import { expect, test } from "bun:test";
import { hostTarget, libraryPath } from "../../scripts/native.ts";

const path = libraryPath(hostTarget());
const reason =
  process.platform !== "linux"
    ? "not an ELF system"
    : Bun.which("readelf") === null
      ? "readelf is not installed"
      : undefined;

function readelf(option: string): string {
  return Bun.spawnSync(["readelf", "--wide", option, path]).stdout.toString();
}

test.skipIf(reason !== undefined)(`needs only the C library${reason ? ` (skipped: ${reason})` : ""}`, () => {
  const needed = [...readelf("--dynamic").matchAll(/NEEDED.*\[(.+)\]/g)].map(([, name]) => name!);
  expect(needed).toContain("libc.so.6");
  expect(needed.filter((name) => !/^(lib(c|m|pthread|dl|rt)|ld-linux-[\w-]+)\.so\.\d+$/.test(name))).toEqual([]);
});

test.skipIf(reason !== undefined)(`needs no newer glibc than 2.28${reason ? ` (skipped: ${reason})` : ""}`, () => {
  const versions = [...readelf("--version-info").matchAll(/GLIBC_2\.(\d+)/g)].map(([, minor]) => Number(minor));
  expect(versions.length).toBeGreaterThan(0);
  expect(Math.max(...versions)).toBeLessThanOrEqual(28);
});

test.skipIf(reason !== undefined)(`needs no symbol that glibc lacks${reason ? ` (skipped: ${reason})` : ""}`, () => {
  const wanted = [...readelf("--dyn-syms").matchAll(/ GLOBAL +DEFAULT +UND (\S+)/g)].map(([, name]) => name!);
  expect(wanted.length).toBeGreaterThan(0);
  expect(wanted.filter((name) => !name.includes("@GLIBC_"))).toEqual([]);
});

test.skipIf(reason !== undefined)(`exports nothing but its own names${reason ? ` (skipped: ${reason})` : ""}`, () => {
  const symbols = readelf("--dyn-syms")
    .split("\n")
    .map((line) => line.trim().split(/\s+/));
  const exported = symbols.filter((fields) => fields[4] === "GLOBAL" && fields[6] !== "UND" && fields[5] === "DEFAULT");
  expect(exported.length).toBeGreaterThan(0);
  expect(exported.map((fields) => fields[7]!).filter((name) => !name.startsWith("sluice_"))).toEqual([]);
});
