// AMD's dialect of the words that kernels are written in; `cuda/gpu.cuh` explains them. Needs no ROCm header and no device
// library: everything is a builtin of clang, so `clang-19 -x hip -nogpuinc -nogpulib -I hip -I cuda` is the whole toolchain.
//
// A wave has 64 lanes on gfx9 and 32 on gfx10 and later.

#pragma once
#define __device__ __attribute__((device))
#define __global__ __attribute__((global))
#define __shared__ __attribute__((shared))
#include <abi.gen.cuh>

#define INLINE __attribute__((device)) __attribute__((always_inline)) inline
#define KERNEL(threads, blocks) extern "C" __attribute__((global)) __attribute__((amdgpu_flat_work_group_size(1, threads))) void
#define SHARED __attribute__((shared))
#define DYNAMIC_SHARED(name) extern __attribute__((shared)) __attribute__((aligned(128))) unsigned char name[]

namespace sluice {

typedef unsigned short u16;
typedef short i16;
typedef int i32;
typedef long long i64;

// ---- threads --------------------------------------------------------------------------------------------------------

#if defined(__GFX9__)
constexpr int warp_size = 64;
#else
constexpr int warp_size = 32;
#endif

INLINE int thread_index() { return (int)__builtin_amdgcn_workitem_id_x(); }
INLINE int block_threads() { return (int)__builtin_amdgcn_workgroup_size_x(); }
INLINE u32 block_index() { return __builtin_amdgcn_workgroup_id_x(); }
INLINE u32 block_index_y() { return __builtin_amdgcn_workgroup_id_y(); }
INLINE u32 block_index_z() { return __builtin_amdgcn_workgroup_id_z(); }
INLINE u32 block_count() { return __builtin_amdgcn_grid_size_x() / __builtin_amdgcn_workgroup_size_x(); }
INLINE u32 block_count_y() { return __builtin_amdgcn_grid_size_y() / __builtin_amdgcn_workgroup_size_y(); }
INLINE int lane_index() { return thread_index() % warp_size; }
INLINE int warp_index() { return thread_index() / warp_size; }
INLINE int block_warps() { return block_threads() / warp_size; }

INLINE void barrier() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}
INLINE void warp_barrier() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
  __builtin_amdgcn_wave_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
}

// ---- copies to shared memory ------------------------------------------------------------------------------------------

/** 16 bytes; a wave waits for them. */
INLINE void copy_async(void* to, const void* from) { __builtin_memcpy(__builtin_assume_aligned(to, 16), __builtin_assume_aligned(from, 16), 16); }
INLINE void copies_landed() {}

// ---- shuffles ---------------------------------------------------------------------------------------------------------

template <typename T> INLINE T shuffle(T value, int lane) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves words");
  if constexpr (sizeof(T) == 4) {
    return __builtin_bit_cast(T, __builtin_amdgcn_ds_bpermute(lane * 4, __builtin_bit_cast(int, value)));
  } else {
    const u64 bits = __builtin_bit_cast(u64, value);
    const u64 low = (u32)__builtin_amdgcn_ds_bpermute(lane * 4, (int)(u32)bits);
    const u64 high = (u32)__builtin_amdgcn_ds_bpermute(lane * 4, (int)(u32)(bits >> 32));
    return __builtin_bit_cast(T, high << 32 | low);
  }
}
template <typename T> INLINE T shuffle_xor(T value, int mask) { return shuffle(value, lane_index() ^ mask); }
INLINE u64 warp_ballot(bool answer) {
  if constexpr (warp_size == 64) return __builtin_amdgcn_ballot_w64(answer);
  else return __builtin_amdgcn_ballot_w32(answer);
}
INLINE int count_bits(u64 bits) { return __builtin_popcountll(bits); }

// ---- float32 ----------------------------------------------------------------------------------------------------------

INLINE u32 bits_of(f32 value) { return __builtin_bit_cast(u32, value); }
INLINE f32 float_of(u32 bits) { return __builtin_bit_cast(f32, bits); }
INLINE f32 maximum(f32 a, f32 b) { return __builtin_fmaxf(a, b); }
INLINE f32 minimum(f32 a, f32 b) { return __builtin_fminf(a, b); }
INLINE f32 absolute(f32 a) { return __builtin_fabsf(a); }

INLINE f32 exp2_fast(f32 x) { return __builtin_amdgcn_exp2f(x); }
INLINE f32 log2_fast(f32 x) { return __builtin_amdgcn_logf(x); }
INLINE f32 reciprocal_fast(f32 x) { return __builtin_amdgcn_rcpf(x); }
INLINE f32 reciprocal_root(f32 x) { return __builtin_amdgcn_rsqf(x); }
/** 2 to the nearest integer n of x·log2(e), times e to what is left, |rest| < 0.35, where exp2 is exact to a unit. */
INLINE f32 exponential(f32 x) {
  const f32 clamped = minimum(maximum(x, -150.0f), 150.0f); // NaN is put back below
  const f32 n = __builtin_rintf(clamped * 1.44269504f);
  const f32 rest = __builtin_fmaf(n, -1.90465421e-9f, __builtin_fmaf(n, -0.693147182f, clamped));
  const f32 result = __builtin_amdgcn_ldexpf(exp2_fast(rest * 1.44269504f), (int)n);
  return x != x ? x : result;
}
INLINE f32 logarithm(f32 x) { return log2_fast(x) * 0.693147181f; }

#pragma clang fp contract(off)
INLINE f32 multiply_exact(f32 a, f32 b) { return a * b; }
INLINE f32 add_exact(f32 a, f32 b) { return a + b; }
INLINE f32 subtract_exact(f32 a, f32 b) { return a - b; }
INLINE f32 divide_exact(f32 a, f32 b) { return a / b; }
#pragma clang fp contract(fast)
INLINE f32 root_exact(f32 a) { return __builtin_sqrtf(a); }
INLINE f32 multiply_add(f32 a, f32 b, f32 c) { return __builtin_fmaf(a, b, c); }
INLINE f64 multiply_add(f64 a, f64 b, f64 c) { return __builtin_fma(a, b, c); }

INLINE void forget(u32& word) { asm volatile("" : "+v"(word)); }
INLINE void forget(int& word) { asm volatile("" : "+v"(word)); }

// ---- bfloat16 and float16 -----------------------------------------------------------------------------------------------

INLINE u16 to_bfloat16(f32 value) {
  const u32 bits = bits_of(value);
  const u32 rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return (u16)(value != value ? bits >> 16 | 0x40 : rounded);
}
INLINE u32 to_bfloat16_pair(f32 first, f32 second) { return to_bfloat16(first) | (u32)to_bfloat16(second) << 16; }
INLINE f32 from_bfloat16(u16 bits) { return float_of((u32)bits << 16); }
INLINE f32 first_of_pair(u32 pair) { return float_of(pair << 16); }
INLINE f32 second_of_pair(u32 pair) { return float_of(pair & 0xffff0000u); }

INLINE u16 to_float16(f32 value) { return __builtin_bit_cast(u16, (_Float16)value); }
INLINE f32 from_float16(u16 bits) { return (f32)__builtin_bit_cast(_Float16, bits); }

// ---- matrix unit --------------------------------------------------------------------------------------------------------
// What `matrix.cuh` beside this file is made of.

#if defined(__gfx90a__) || defined(__gfx940__) || defined(__gfx941__) || defined(__gfx942__)
#define SLUICE_MFMA
#elif defined(__GFX12__)
#define SLUICE_WMMA12
#else
#define SLUICE_WMMA11
#endif

/** What a lane holds of 16 × 16 sums, and of 16 × 16 operands. */
#if defined(SLUICE_MFMA)
constexpr int accumulator_elements = 4; // columns 4·part …
constexpr int operand_elements = 4;     // k 4·part …
#elif defined(SLUICE_WMMA12)
constexpr int accumulator_elements = 8; // columns 8·part …
constexpr int operand_elements = 8;     // k 8·part …
#else
constexpr int accumulator_elements = 8; // columns part, part + 2 …
constexpr int operand_elements = 16;    // every k, in both lanes of a row
#endif
typedef f32 AccumulatorVector __attribute__((ext_vector_type(accumulator_elements)));
typedef short OperandVector __attribute__((ext_vector_type(operand_elements)));

/** acc += a · bᵀ, a column of `acc` per lane. */
INLINE AccumulatorVector matrix_multiply(OperandVector a, OperandVector b, AccumulatorVector acc) {
#if defined(SLUICE_MFMA)
  return __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(a, b, acc, 0, 0, 0);
#elif defined(SLUICE_WMMA12)
  return __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(a, b, acc);
#else
  return __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(a, b, acc);
#endif
}

} // namespace sluice

#include <vectors.cuh>
