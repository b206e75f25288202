// NVIDIA's dialect of the words that kernels are written in; `hip/gpu.cuh` says the same words for AMD, and
// `test/gpu/emulation/gpu.cuh` for a CPU that tests them. A kernel includes <gpu.cuh> with angle brackets, so that the include
// path chooses: `-I cuda`, or `-I hip -I cuda`.
//
// Nothing outside the dialects may name a vendor's builtin, and nothing may assume a warp of 32: use `warp_size`. Blocks are
// one-dimensional and whole warps, and whole warps take part in shuffles. The exceptions are `attention_hopper.cu`,
// `attention_hopper_backward.cu` and their `hopper.cuh`: plain CUDA in instructions that only sm_90a has, so they are neither
// compiled for AMD nor emulated, and the portable attention computes the same.
// Read next: `reduce.cuh`, then any family of kernels, `norm.cu` for instance.

#pragma once
#include <abi.gen.cuh>

#define INLINE __device__ __forceinline__
/** A kernel that a launch function names; `threads` is the largest block it is launched with, `blocks` how many of these should
 * fit into a multiprocessor. */
#define KERNEL(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
#define SHARED __shared__
/** The launch's own shared bytes, aligned for 16-byte accesses, or for more. */
#define DYNAMIC_SHARED(name) DYNAMIC_SHARED_ALIGNED(128, name)
#define DYNAMIC_SHARED_ALIGNED(alignment, name) extern __shared__ __align__(alignment) unsigned char name[]

namespace sluice {

typedef unsigned short u16;
typedef short i16;
typedef int i32;
typedef long long i64;

// ---- threads --------------------------------------------------------------------------------------------------------

constexpr int warp_size = 32;

INLINE int thread_index() { return threadIdx.x; }
INLINE int block_threads() { return blockDim.x; }
INLINE u32 block_index() { return blockIdx.x; }
INLINE u32 block_index_y() { return blockIdx.y; }
INLINE u32 block_index_z() { return blockIdx.z; }
INLINE u32 block_count() { return gridDim.x; }
INLINE u32 block_count_y() { return gridDim.y; }
INLINE int lane_index() { return threadIdx.x % warp_size; }
INLINE int warp_index() { return threadIdx.x / warp_size; }
INLINE int block_warps() { return blockDim.x / warp_size; }

/** Everything that the block's threads wrote before is seen after. */
INLINE void barrier() { __syncthreads(); }
INLINE void warp_barrier() { __syncwarp(); }

// ---- copies to shared memory ------------------------------------------------------------------------------------------

INLINE u32 shared_address(const void* pointer) { return (u32)__cvta_generic_to_shared(pointer); }
/** 16 bytes to shared memory while the thread goes on; both addresses are multiples of 16. */
INLINE void copy_async(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
/** The same, or zeros, and then `from` is not read. */
INLINE void copy_async(u16* to, const u16* from, bool present) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(present ? 16 : 0) : "memory");
}
/** A word to shared memory in the same way, or zero, and then `from` is not read. */
INLINE void copy_word_async(void* to, const void* from, bool present) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from), "r"(present ? 4 : 0) : "memory");
}
/** Writes a word at an address that `shared_address` gave. */
INLINE void store_word(u32 at, u32 word) { asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(word) : "memory"); }
/** The thread's own copies are there; others see them after a barrier. */
INLINE void copies_landed() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// ---- words that blocks share ------------------------------------------------------------------------------------------

/** Adds one to a word; what it was before. */
INLINE u32 take_ticket(u32* word) { return atomicAdd(word, 1u); }
/** A word that another block may be writing, and writing such a word. */
INLINE u32 peek(const u32* word) {
  u32 result;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(result) : "l"(word) : "memory");
  return result;
}
INLINE void poke(u32* word, u32 value) { asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory"); }
/** Who sees what the thread pokes after this also sees what it, and whoever it met at a barrier, wrote before; and what these read
 * after this is not older than what the thread peeked at before. */
INLINE void grid_fence() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }

/** Whether one instruction adds four neighbours; else a lane's four sums lie `step` apart, and one instruction adds one of each lane. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
constexpr bool adds_four = true;
#else
constexpr bool adds_four = false;
#endif
/** Four sums that other blocks add to at other times. */
INLINE void load_sums(f32 (&x)[4], const f32* from, u32 step) {
  if constexpr (adds_four) asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(x[0]), "=f"(x[1]), "=f"(x[2]), "=f"(x[3]) : "l"(from) : "memory");
  else
#pragma unroll
    for (int i = 0; i < 4; i++) asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(x[i]) : "l"(from + i * step) : "memory");
}
/** Where `present`; so does `add_sums`. */
INLINE void store_sums(f32* to, const f32 (&x)[4], u32 step, bool present) {
  if constexpr (adds_four)
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %5, 0; @p st.global.cg.v4.f32 [%0], {%1, %2, %3, %4}; }" ::"l"(to), "f"(x[0]), "f"(x[1]), "f"(x[2]), "f"(x[3]), "r"((u32)present) : "memory");
  else
#pragma unroll
    for (int i = 0; i < 4; i++)
      asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; @p st.global.cg.f32 [%0], %1; }" ::"l"(to + i * step), "f"(x[i]), "r"((u32)present) : "memory");
}
INLINE void add_sums(f32* to, const f32 (&x)[4], u32 step, bool present) {
  if constexpr (adds_four)
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %5, 0; @p red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4}; }" ::"l"(to), "f"(x[0]), "f"(x[1]), "f"(x[2]), "f"(x[3]), "r"((u32)present) : "memory");
  else
#pragma unroll
    for (int i = 0; i < 4; i++)
      asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; @p red.relaxed.gpu.global.add.f32 [%0], %1; }" ::"l"(to + i * step), "f"(x[i]), "r"((u32)present) : "memory");
}

// ---- shuffles ---------------------------------------------------------------------------------------------------------

/** A 4- or 8-byte value of the lane `lane ^ mask`. */
template <typename T> INLINE T shuffle_xor(T value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
/** A 4- or 8-byte value of a lane. */
template <typename T> INLINE T shuffle(T value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }
/** Bit l is lane l's answer. */
INLINE u64 warp_ballot(bool answer) { return __ballot_sync(0xffffffffu, answer); }
INLINE int count_bits(u64 bits) { return __popcll(bits); }

// ---- float32 ----------------------------------------------------------------------------------------------------------

INLINE u32 bits_of(f32 value) { return __float_as_uint(value); }
INLINE f32 float_of(u32 bits) { return __uint_as_float(bits); }
INLINE f32 maximum(f32 a, f32 b) { return fmaxf(a, b); } // the other one if one is NaN
INLINE f32 minimum(f32 a, f32 b) { return fminf(a, b); }
INLINE f32 absolute(f32 a) { return fabsf(a); }

/** To about one unit in the last place. */
INLINE f32 exponential(f32 x) { return expf(x); }
INLINE f32 logarithm(f32 x) { return logf(x); }
INLINE f32 reciprocal_root(f32 x) { return rsqrtf(x); }
/** One instruction each: relative error 2⁻²², denormals are zero. */
INLINE f32 exp2_fast(f32 x) {
  f32 result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
INLINE f32 log2_fast(f32 x) {
  f32 result;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
INLINE f32 reciprocal_fast(f32 x) {
  f32 result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

/** Rounded once, never joined with a neighbour: for what must equal the CPU's bits. */
INLINE f32 multiply_exact(f32 a, f32 b) { return __fmul_rn(a, b); }
INLINE f32 add_exact(f32 a, f32 b) { return __fadd_rn(a, b); }
INLINE f32 subtract_exact(f32 a, f32 b) { return __fsub_rn(a, b); }
INLINE f32 divide_exact(f32 a, f32 b) { return __fdiv_rn(a, b); }
INLINE f32 root_exact(f32 a) { return __fsqrt_rn(a); }
INLINE f32 multiply_add(f32 a, f32 b, f32 c) { return __fmaf_rn(a, b, c); }
INLINE f64 multiply_add(f64 a, f64 b, f64 c) { return __fma_rn(a, b, c); }

/** What was computed from this word is computed again after this, instead of being held in registers. */
INLINE void forget(u32& word) { asm volatile("" : "+r"(word)); }

// ---- bfloat16 and float16 -----------------------------------------------------------------------------------------------

/** Two bfloat16 values in a word, the first in the lower half. Rounds to nearest even; NaN stays NaN. */
INLINE u32 to_bfloat16_pair(f32 first, f32 second) {
  u32 result;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(second), "f"(first));
  return result;
}
INLINE u16 to_bfloat16(f32 value) { return (u16)to_bfloat16_pair(value, 0); }
INLINE f32 from_bfloat16(u16 bits) { return float_of((u32)bits << 16); }
INLINE f32 first_of_pair(u32 pair) { return float_of(pair << 16); }
INLINE f32 second_of_pair(u32 pair) { return float_of(pair & 0xffff0000u); }

INLINE u16 to_float16(f32 value) {
  u16 result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result) : "f"(value));
  return result;
}
INLINE f32 from_float16(u16 bits) {
  f32 result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(bits));
  return result;
}

// ---- matrix unit --------------------------------------------------------------------------------------------------------
// What `matrix.cuh` beside this file is made of: a warp's products and its loads of their operands.

/** acc (16 × 8) += left (16 × 16) · (b0, b1) (16 × 8), as mma.sync m16n8k16 spreads them over the lanes. */
INLINE void mma(f32* acc, const u32* left, u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(b0), "r"(b1));
}
/** Four 8 × 8 matrices from shared memory; lane l points at row l % 8 of matrix l / 8. */
INLINE void load_matrices(u32* x, u32 at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(at)
               : "memory");
}
INLINE void load_matrices_transposed(u32* x, u32 at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(at)
               : "memory");
}

} // namespace sluice

#include <vectors.cuh>
