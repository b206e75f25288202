//! Which x86_64 levels this CPU and operating system allow, asked once at load.

const Registers = struct { eax: u32, ebx: u32, ecx: u32, edx: u32 };

fn cpuid(leaf: u32, subleaf: u32) Registers {
    var eax: u32 = undefined;
    var ebx: u32 = undefined;
    var ecx: u32 = undefined;
    var edx: u32 = undefined;
    asm volatile ("cpuid"
        : [_] "={eax}" (eax),
          [_] "={ebx}" (ebx),
          [_] "={ecx}" (ecx),
          [_] "={edx}" (edx),
        : [_] "{eax}" (leaf),
          [_] "{ecx}" (subleaf),
    );
    return .{ .eax = eax, .ebx = ebx, .ecx = ecx, .edx = edx };
}

/// Register state that the operating system saves, XCR0.
fn savedState() u32 {
    if (cpuid(1, 0).ecx & (1 << 27) == 0) return 0;
    return asm volatile ("xgetbv"
        : [_] "={eax}" (-> u32),
        : [_] "{ecx}" (@as(u32, 0)),
        : .{ .edx = true });
}

/// AVX2, FMA, BMI1, BMI2, F16C, MOVBE, LZCNT.
pub fn hasV3() bool {
    const one = cpuid(1, 0).ecx;
    const seven = cpuid(7, 0).ebx;
    const fma_movbe_f16c = 1 << 12 | 1 << 22 | 1 << 29;
    const bmi1_avx2_bmi2 = 1 << 3 | 1 << 5 | 1 << 8;
    return one & fma_movbe_f16c == fma_movbe_f16c and seven & bmi1_avx2_bmi2 == bmi1_avx2_bmi2 and
        cpuid(0x80000001, 0).ecx & (1 << 5) != 0 and savedState() & 0b110 == 0b110;
}

/// v3 and AVX-512 F, DQ, CD, BW, VL.
pub fn hasV4() bool {
    const features = 1 << 16 | 1 << 17 | 1 << 28 | 1 << 30 | 1 << 31;
    return hasV3() and cpuid(7, 0).ebx & features == features and savedState() & 0b11100110 == 0b11100110;
}
