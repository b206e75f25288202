// A CPU's dialect of the words that kernels are written in; `cuda/gpu.cuh` explains them. It is for tests alone: the stand-in for
// a GPU's driver (`../stand-in/driver.zig`) runs the kernels of `cuda/` through it, so that the real launches of
// `zig/device/gpu` are tested with the real kernels on a machine without a GPU.
//
// Each thread of a block is a fiber (`fibers.cpp`). A warp runs until all its lanes wait at a barrier, then the next one; what
// the lanes of a warp do together is done by the one that arrives last. Blocks, warps and lanes take turns forwards, backwards and
// at random, and asynchronous copies happen as early or as late as they may, so that a missing barrier shows as other bits.
// A barrier that some threads do not reach, a shuffle without all lanes, shared memory that is read before it is written (it
// is NaN) or written beyond its end, an index outside its array and a misaligned vector fail with one sentence.
//
// `-I test/gpu/emulation -I cuda` is a GPU of NVIDIA's, sm_80 with warps of 32; `-D SLUICE_EMULATED_WARP=64` and `-I hip` before
// `-I cuda` make it AMD's gfx90a with waves of 64. Either way `matrix.cuh` is the vendor's own, and the instructions beneath it are
// emulated. Not shown are speed, a matrix unit's order of sums, and the last bits of fast functions.

#pragma once
#define __device__
#include <abi.gen.cuh>

#define INLINE inline
#define KERNEL(threads, blocks) static void
#if defined(__APPLE__)
#define SHARED static __attribute__((section("__DATA,emulated")))
#else
#define SHARED static __attribute__((section("emulated")))
#endif
#define DYNAMIC_SHARED(name) DYNAMIC_SHARED_ALIGNED(128, name)
#define DYNAMIC_SHARED_ALIGNED(alignment, name) unsigned char* const name = emulation::dynamic_shared

#if !defined(SLUICE_EMULATED_WARP)
#define SLUICE_EMULATED_WARP 32
#endif

#include "fibers.h"

namespace sluice {

typedef unsigned short u16;
typedef short i16;
typedef int i32;
typedef long long i64;
using emulation::here;
using emulation::Site;

// ---- threads --------------------------------------------------------------------------------------------------------

constexpr int warp_size = SLUICE_EMULATED_WARP;

INLINE int thread_index() { return emulation::now.thread; }
INLINE int block_threads() { return emulation::now.threads; }
INLINE u32 block_index() { return emulation::now.block[0]; }
INLINE u32 block_index_y() { return emulation::now.block[1]; }
INLINE u32 block_index_z() { return emulation::now.block[2]; }
INLINE u32 block_count() { return emulation::now.blocks[0]; }
INLINE u32 block_count_y() { return emulation::now.blocks[1]; }
INLINE int lane_index() { return thread_index() % warp_size; }
INLINE int warp_index() { return thread_index() / warp_size; }
INLINE int block_warps() { return block_threads() / warp_size; }

INLINE void barrier(Site site = here("the barrier")) { emulation::wait_for_block(site); }
/** Calls `act` with what every lane gave, once for the warp. */
template <typename Lane, typename Act> INLINE void together(Lane& own, Act, Site site) {
  emulation::wait_for_warp(site, &own, [](void** lanes) { Act()(reinterpret_cast<Lane**>(lanes)); });
}
struct Nothing {};
INLINE void warp_barrier(Site site = here("the warp's barrier")) {
  Nothing own;
  together(own, [](Nothing**) {}, site);
}

// ---- copies to shared memory ------------------------------------------------------------------------------------------

/** Counted from the launch's own shared bytes. */
INLINE u32 shared_address(const void* pointer) { return (u32)(static_cast<const unsigned char*>(pointer) - emulation::dynamic_shared); }
INLINE void copy_async(void* to, const void* from) { emulation::copy(to, from, 16); }
INLINE void copy_async(u16* to, const u16* from, bool present) { emulation::copy(to, present ? from : nullptr, 16); }
INLINE void copy_word_async(void* to, const void* from, bool present) { emulation::copy(to, present ? from : nullptr, 4); }
INLINE void store_word(u32 at, u32 word) { *static_cast<u32*>(emulation::shared_bytes(at, 4)) = word; }
INLINE void copies_landed() { emulation::copies_landed(); }

// ---- words that blocks share ------------------------------------------------------------------------------------------
// Blocks run one after the other, in any order: what they do at the same time is not seen, but a turn that never comes is.

INLINE u32 take_ticket(u32* word) { return (*word)++; }
INLINE u32 peek(const u32* word, Site site = here("a word")) {
  emulation::look(site, word);
  return *word;
}
INLINE void poke(u32* word, u32 value) { *word = value; }
INLINE void grid_fence() {}

constexpr bool adds_four = false; // as before sm_90
INLINE void load_sums(f32 (&x)[4], const f32* from, u32 step) {
  for (int i = 0; i < 4; i++) x[i] = from[i * step];
}
INLINE void store_sums(f32* to, const f32 (&x)[4], u32 step, bool present) {
  for (int i = 0; present && i < 4; i++) to[i * step] = x[i];
}
INLINE void add_sums(f32* to, const f32 (&x)[4], u32 step, bool present) {
  for (int i = 0; present && i < 4; i++) to[i * step] += x[i];
}

// ---- shuffles ---------------------------------------------------------------------------------------------------------

template <typename T> INLINE T shuffle(T value, int lane, Site site = here("the shuffle")) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves words");
  struct Lane {
    T value;
    int from;
    T result;
  } own = {value, lane, value};
  const auto exchange = [](Lane** lanes) {
    for (int i = 0; i < warp_size; i++) {
      if (lanes[i]->from < 0 || lanes[i]->from >= warp_size) emulation::fail("a shuffle asks for lane %d of %d", lanes[i]->from, warp_size);
      lanes[i]->result = lanes[lanes[i]->from]->value;
    }
  };
  together(own, exchange, site);
  return own.result;
}
template <typename T> INLINE T shuffle_xor(T value, int mask, Site site = here("the shuffle")) { return shuffle(value, lane_index() ^ mask, site); }
INLINE u64 warp_ballot(bool answer, Site site = here("the ballot")) {
  struct Lane {
    bool answer;
    u64 all;
  } own = {answer, 0};
  const auto count = [](Lane** lanes) {
    u64 all = 0;
    for (int i = 0; i < warp_size; i++) all |= (u64)lanes[i]->answer << i;
    for (int i = 0; i < warp_size; i++) lanes[i]->all = all;
  };
  together(own, count, site);
  return own.all;
}
INLINE int count_bits(u64 bits) { return __builtin_popcountll(bits); }

// ---- float32 ----------------------------------------------------------------------------------------------------------

INLINE u32 bits_of(f32 value) { return __builtin_bit_cast(u32, value); }
INLINE f32 float_of(u32 bits) { return __builtin_bit_cast(f32, bits); }
INLINE f32 maximum(f32 a, f32 b) { return __builtin_fmaxf(a, b); }
INLINE f32 minimum(f32 a, f32 b) { return __builtin_fminf(a, b); }
INLINE f32 absolute(f32 a) { return __builtin_fabsf(a); }

INLINE f32 exponential(f32 x) { return __builtin_expf(x); }
INLINE f32 logarithm(f32 x) { return __builtin_logf(x); }
INLINE f32 reciprocal_root(f32 x) { return 1 / __builtin_sqrtf(x); }
INLINE f32 exp2_fast(f32 x) { return __builtin_exp2f(x); }
INLINE f32 log2_fast(f32 x) { return __builtin_log2f(x); }
INLINE f32 reciprocal_fast(f32 x) { return 1 / x; }

// Compiled without contraction.
INLINE f32 multiply_exact(f32 a, f32 b) { return a * b; }
INLINE f32 add_exact(f32 a, f32 b) { return a + b; }
INLINE f32 subtract_exact(f32 a, f32 b) { return a - b; }
INLINE f32 divide_exact(f32 a, f32 b) { return a / b; }
INLINE f32 root_exact(f32 a) { return __builtin_sqrtf(a); }
INLINE f32 multiply_add(f32 a, f32 b, f32 c) { return __builtin_fmaf(a, b, c); }
INLINE f64 multiply_add(f64 a, f64 b, f64 c) { return __builtin_fma(a, b, c); }

INLINE void forget(u32&) {}
INLINE void forget(int&) {}

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

// ---- matrix units -------------------------------------------------------------------------------------------------------

#if SLUICE_EMULATED_WARP == 32

// How the lanes share elements is what the PTX manual's figures of m16n8k16 and of ldmatrix show.

INLINE void mma(f32* acc, const u32* left, u32 b0, u32 b1, Site site = here("the product")) {
  struct Lane {
    f32* acc;
    const u32* left;
    u32 right[2];
  } own = {acc, left, {b0, b1}};
  const auto multiply = [](Lane** lanes) {
    f32 left[16][16], right[16][8]; // (row, k), (k, column)
    for (int lane = 0; lane < 32; lane++) {
      const int group = lane / 4, pair = lane % 4 * 2;
      for (int i = 0; i < 4; i++) {
        f32* to = &left[group + 8 * (i % 2)][pair + 8 * (i / 2)];
        to[0] = first_of_pair(lanes[lane]->left[i]), to[1] = second_of_pair(lanes[lane]->left[i]);
      }
      for (int i = 0; i < 2; i++) {
        right[pair + 8 * i][group] = first_of_pair(lanes[lane]->right[i]);
        right[pair + 8 * i + 1][group] = second_of_pair(lanes[lane]->right[i]);
      }
    }
    for (int row = 0; row < 16; row++) {
      f32 sums[8] = {};
      for (int k = 0; k < 16; k++)
        for (int column = 0; column < 8; column++) sums[column] += left[row][k] * right[k][column];
      for (int column = 0; column < 8; column++) lanes[row % 8 * 4 + column / 2]->acc[row / 8 * 2 + column % 2] += sums[column];
    }
  };
  together(own, multiply, site);
}
template <bool transposed> INLINE void load_matrices_as(u32* x, u32 at, Site site) {
  struct Lane {
    u32* x;
    u32 at;
  } own = {x, at};
  const auto load = [](Lane** lanes) {
    for (int matrix = 0; matrix < 4; matrix++) {
      const u16* rows[8];
      for (int row = 0; row < 8; row++) rows[row] = static_cast<const u16*>(emulation::shared_bytes(lanes[matrix * 8 + row]->at, 16));
      for (int lane = 0; lane < 32; lane++) {
        const int group = lane / 4, pair = lane % 4 * 2;
        const u16 first = transposed ? rows[pair][group] : rows[group][pair];
        const u16 second = transposed ? rows[pair + 1][group] : rows[group][pair + 1];
        lanes[lane]->x[matrix] = first | (u32)second << 16;
      }
    }
  };
  together(own, load, site);
}
INLINE void load_matrices(u32* x, u32 at, Site site = here("the load of matrices")) { load_matrices_as<false>(x, at, site); }
INLINE void load_matrices_transposed(u32* x, u32 at, Site site = here("the load of matrices")) { load_matrices_as<true>(x, at, site); }

#else

#define SLUICE_MFMA
constexpr int accumulator_elements = 4;
constexpr int operand_elements = 4;
typedef f32 AccumulatorVector __attribute__((ext_vector_type(accumulator_elements)));
typedef short OperandVector __attribute__((ext_vector_type(operand_elements)));

/** v_mfma_f32_16x16x16_bf16: lane l gives row l % 16 of `a` and of `b`, k 4·(l / 16)…, and holds column l % 16, rows 4·(l / 16)…. */
INLINE AccumulatorVector matrix_multiply(OperandVector a, OperandVector b, AccumulatorVector acc, Site site = here("the product")) {
  struct Lane {
    OperandVector a, b;
    AccumulatorVector acc;
  } own = {a, b, acc};
  const auto multiply = [](Lane** lanes) {
    f32 left[16][16], right[16][16]; // (k, row), (k, column)
    for (int lane = 0; lane < 64; lane++)
      for (int i = 0; i < operand_elements; i++) {
        left[lane / 16 * 4 + i][lane % 16] = from_bfloat16((u16)lanes[lane]->a[i]);
        right[lane / 16 * 4 + i][lane % 16] = from_bfloat16((u16)lanes[lane]->b[i]);
      }
    for (int row = 0; row < 16; row++) {
      f32 sums[16] = {};
      for (int k = 0; k < 16; k++)
        for (int column = 0; column < 16; column++) sums[column] += left[k][row] * right[k][column];
      for (int column = 0; column < 16; column++) lanes[row / 4 * 16 + column]->acc[row % 4] += sums[column];
    }
  };
  together(own, multiply, site);
  return own.acc;
}

#endif

} // namespace sluice

#define COPIES_CHECKED [[no_unique_address]] emulation::Checked checked;
#include <vectors.cuh>
