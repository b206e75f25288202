// Hopper's own instructions (sm_90a): barriers in shared memory, tile copies by the copy engine, and warpgroup products.
//
// A tile of `rows` x D values lies in shared memory as D / 64 panels of `rows` x 128 bytes, swizzled in 16-byte chunks over 8
// rows as the copy engine writes it (CU_TENSOR_MAP_SWIZZLE_128B). So any tile serves as A or B of a product along D, and as B
// of a product along its rows. Tiles start at multiples of 1,024 bytes. Facts: PTX ISA, "Asynchronous Warpgroup Level Matrix
// Instructions".
#pragma once

#include "abi.gen.cuh"

namespace hopper {

using sluice::u32;
using sluice::u64;
typedef int i32;

/** CUtensorMap of driver.h. */
struct alignas(64) TensorMap {
  u64 words[16];
};

// ---- barriers -------------------------------------------------------------------------------------------------------

__device__ __forceinline__ void barrier_init(u32 barrier, u32 arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
/** Makes initialised barriers visible to the copy engine; a block barrier must follow. */
__device__ __forceinline__ void barriers_ready() {
  asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void arrive(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/** Arrives, and lets the phase wait for `bytes` of copies too. */
__device__ __forceinline__ void arrive_expecting(u32 barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
/** Waits for the end of the phase of this parity. A wait is bounded: a kernel that went wrong fails rather than hangs. */
__device__ __forceinline__ void wait(u32 barrier, u32 parity) {
  u32 done = 0;
#pragma unroll 1
  for (u32 attempt = 0; attempt < (1u << 24); ++attempt) {
    asm volatile(
        "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
    if (done) return;
  }
  asm volatile("trap;");
}
__device__ __forceinline__ void named_sync(u32 id, u32 threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_arrive(u32 id, u32 threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

template <u32 count>
__device__ __forceinline__ void registers_up() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}
template <u32 count>
__device__ __forceinline__ void registers_down() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}

// ---- copies ---------------------------------------------------------------------------------------------------------

/** One box of 64 columns x 64 rows; arrives at `barrier` with 8,192 bytes. */
__device__ __forceinline__ void copy_box(u32 to, const TensorMap* map, i32 column, i32 row, u32 barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to), "l"(map),
               "r"(column), "r"(row), "r"(barrier)
               : "memory");
}
/** A tile of rows x D values. */
template <int D, int rows>
__device__ __forceinline__ void copy_tile(u32 to, const TensorMap* map, i32 column, i32 row, u32 barrier) {
#pragma unroll
  for (int panel = 0; panel < D / 64; ++panel)
#pragma unroll
    for (int part = 0; part < rows / 64; ++part) copy_box(to + panel * rows * 128 + part * 8192, map, column + panel * 64, row + part * 64, barrier);
}
__device__ __forceinline__ void prefetch(const TensorMap* map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }
/** Four bytes; `copies_arrive` follows. */
__device__ __forceinline__ void copy_word(u32 to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
}
/** Arrives at `barrier` once this thread's word copies so far are done. */
__device__ __forceinline__ void copies_arrive(u32 barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// ---- products -------------------------------------------------------------------------------------------------------
// A warpgroup of 128 threads holds (64, N) in N / 2 registers a thread: register 4i + 2r + c of lane l in warp w is row
// 16w + l / 4 + 8r, column 8i + 2 (l % 4) + c. Packed to bfloat16 in that order, the same registers are an A of products.

/** A tile whose rows lie along the other operand's rows: the product runs along D. */
__device__ __forceinline__ u64 along_columns(u32 address) { return u64(address >> 4) | (u64(1) << 16) | (u64(64) << 32) | (u64(1) << 62); }
/** B whose rows are what the product runs along; `panel` bytes from one 64 columns to the next. */
__device__ __forceinline__ u64 along_rows(u32 address, u32 panel) { return u64(address >> 4) | (u64(panel >> 4) << 16) | (u64(64) << 32) | (u64(1) << 62); }

__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_end() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/** Waits until at most `left` groups of products are under way. */
template <int left>
__device__ __forceinline__ void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(left) : "memory");
}
/** Keeps the compiler from using registers before this point that a product under way still fills. */
template <int count>
__device__ __forceinline__ void settle(float (&values)[count]) {
#pragma unroll
  for (int i = 0; i < count; ++i) asm volatile("" : "+f"(values[i])::"memory");
}

// The registers of a (64, 64) and of a (64, 128), as text and as operands.
#define TEXT_64 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SUMS_64 \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
  "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
  "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
  "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
#define TEXT_128 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SUMS_128 \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
  "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
  "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
  "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), \
  "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), \
  "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), \
  "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), \
  "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])

/** d (64, 64) = (keep ? d : 0) + a (64, 16) · b (16, 64); both in shared memory, both along k. */
__device__ __forceinline__ void multiply(float (&d)[32], u64 a, u64 b, u32 keep) {
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %34, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" TEXT_64 "}, %32, %33, p, 1, 1, 0, 0; }\n"
               : SUMS_64
               : "l"(a), "l"(b), "r"(keep));
}
/** The same with a in registers, and b with its rows along k. */
__device__ __forceinline__ void multiply_held(float (&d)[32], const u32* a, u64 b, u32 keep) {
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %37, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" TEXT_64 "}, {%32, %33, %34, %35}, %36, p, 1, 1, %38; }\n"
               : SUMS_64
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep), "n"(1));
}
/** d (64, 128) = (keep ? d : 0) + a (64, 16) · b (16, 128); both in shared memory, both along k. */
__device__ __forceinline__ void multiply(float (&d)[64], u64 a, u64 b, u32 keep) {
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %66, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" TEXT_128 "}, %64, %65, p, 1, 1, 0, 0; }\n"
               : SUMS_128
               : "l"(a), "l"(b), "r"(keep));
}
/** The same with a in registers, and b with its rows along k. */
__device__ __forceinline__ void multiply_held(float (&d)[64], const u32* a, u64 b, u32 keep) {
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %69, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" TEXT_128 "}, {%64, %65, %66, %67}, %68, p, 1, 1, %70; }\n"
               : SUMS_128
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep), "n"(1));
}

#undef TEXT_64
#undef SUMS_64
#undef TEXT_128
#undef SUMS_128

/** d (64, N) = a (64, D) · b (N, D)ᵀ: two tiles along their columns. Panels are the bytes from 64 columns to the next. */
template <int D, int count>
__device__ __forceinline__ void product_along_columns(float (&d)[count], u64 a, u32 a_panel, u64 b, u32 b_panel) {
#pragma unroll
  for (int k = 0; k < D / 16; ++k) multiply(d, a + ((k / 4 * a_panel + k % 4 * 32) >> 4), b + ((k / 4 * b_panel + k % 4 * 32) >> 4), k != 0);
}
/** d (64, D) += a (64, rows) · b (rows, D), a packed in registers. */
template <int packed, int count>
__device__ __forceinline__ void product_along_rows(float (&d)[count], const u32 (&a)[packed], u64 b) {
#pragma unroll
  for (int k = 0; k < packed / 4; ++k) multiply_held(d, a + 4 * k, b + ((k * 2048) >> 4), 1);
}

// ---- values ---------------------------------------------------------------------------------------------------------

__device__ __forceinline__ float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ u32 pack(float low, float high) {
  u32 packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

/**
 * Stores the warp's 16 rows of (64, D) as bfloat16, `valid` of them, times a factor for row l / 4 and one for row l / 4 + 8.
 * They pass through `staging`, 16 x D x 2 bytes of the warp's own, so that whole rows leave in 16-byte pieces.
 */
template <int D>
__device__ __forceinline__ void store_rows(void* to, u64 row_bytes, i32 valid, const float (&d)[D / 2], float upper, float lower, u32 staging, u32 lane) {
  constexpr u32 chunks = D / 8;
  __syncwarp();
  const u32 row = lane % 8 + (lane / 8 % 2) * 8;
#pragma unroll
  for (u32 pair = 0; pair < chunks / 2; ++pair) {
    const u32 chunk = (2 * pair + lane / 16) ^ (row % 8);
    const float* v = d + 8 * pair;
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(staging + row * D * 2 + chunk * 16), "r"(pack(v[0] * upper, v[1] * upper)),
                 "r"(pack(v[2] * lower, v[3] * lower)), "r"(pack(v[4] * upper, v[5] * upper)), "r"(pack(v[6] * lower, v[7] * lower))
                 : "memory");
  }
  __syncwarp();
#pragma unroll
  for (u32 step = 0; step < 16 * chunks / 32; ++step) {
    const u32 at = step * (32 / chunks) + lane / chunks;
    const u32 chunk = lane % chunks;
    u32 x, y, z, w;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(x), "=r"(y), "=r"(z), "=r"(w) : "r"(staging + at * D * 2 + (chunk ^ (at % 8)) * 16) : "memory");
    if (i32(at) < valid) *reinterpret_cast<uint4*>(static_cast<char*>(to) + at * row_bytes + chunk * 16) = make_uint4(x, y, z, w);
  }
}

// ---- documents ------------------------------------------------------------------------------------------------------

/** `rows` tokens of a document: its first token is `start`, the tile's first row is `first` in the document. */
struct Tile {
  i32 start;
  i32 length;
  i32 first;
  bool found;
};
/** Tiles of 128 rows of all documents, numbered as the CPU's Slots: document d's tiles begin at number start / 128 + d. */
constexpr i32 tile_rows = 128;

/** The tile of this number, by a whole warp: 32 documents are looked at in each round. */
__device__ __forceinline__ Tile find_tile(const i32* starts, i32 documents, i32 number, u32 lane) {
  i32 low = 0, high = documents;
  while (high - low > 1) {
    const i32 step = (high - low + 31) / 32;
    const i32 probe = low + step * i32(lane);
    const bool before = probe < high && __ldg(starts + probe) / tile_rows + probe <= number;
    low += step * (__popc(__ballot_sync(0xffffffffu, before)) - 1);
    high = min(high, low + step);
  }
  Tile tile;
  tile.start = __ldg(starts + low);
  tile.length = __ldg(starts + low + 1) - tile.start;
  tile.first = (number - (tile.start / tile_rows + low)) * tile_rows;
  tile.found = tile.first < tile.length;
  return tile;
}

/** Values that are the same in a warp, known to the compiler as such. */
__device__ __forceinline__ u32 uniform(u32 x) { return __shfl_sync(0xffffffffu, x, 0); }

}  // namespace hopper
