// Attention forward on Hopper (sm_90a), after FlashAttention-3 (Shah et al. 2024): the copy engine fills shared memory, one
// warpgroup steers it, two warpgroups of 64 query rows each compute.
//
// While a warpgroup's products of one tile of keys with the values run, it computes the softmax of the next; and the two
// warpgroups take turns, so that one's products cover the other's softmax. Keys are walked from the diagonal back. A block
// takes tile after tile (a persistent grid) or one tile (a grid of all); the result does not depend on it. Semantics:
// `zig/device/cpu/attention.zig`; launched by `zig/device/gpu/attention_hopper.zig`. Read next: `attention_hopper_backward.cu`.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

#include "hopper.cuh"

using namespace hopper;

namespace {

constexpr float log2_e = 1.4426950408889634f;
constexpr float ln_2 = 0.6931471805599453f;
constexpr i32 rows = tile_rows;
constexpr i32 keys = 128;
constexpr u32 stages = 2;
constexpr u32 consumers = 256;

/** Bytes from the first multiple of 1,024 in shared memory. */
template <int D>
struct Layout {
  static constexpr u32 tile = 128 * D * 2;
  static constexpr u32 q = 0;
  static constexpr u32 k = tile;
  static constexpr u32 v = k + stages * tile;
  static constexpr u32 staging = v + stages * tile;
  static constexpr u32 barriers = staging + tile;
  static constexpr u32 q_full = barriers, q_empty = barriers + 8;
  static constexpr u32 k_full = barriers + 16, k_empty = k_full + 8 * stages;
  static constexpr u32 v_full = k_empty + 8 * stages, v_empty = v_full + 8 * stages;
};

/** Scores become exp(score − highest so far) as powers of two; returns what earlier sums must be multiplied by. */
struct Softmax {
  float highest[2];
  float sum[2];

  template <bool first, int count>
  __device__ __forceinline__ void step(float (&s)[count], float scale, float (&factor)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float most = fmaxf(s[2 * r], s[2 * r + 1]);
#pragma unroll
      for (int i = 1; i < count / 4; ++i) most = fmaxf(most, fmaxf(s[4 * i + 2 * r], s[4 * i + 2 * r + 1]));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
      if (!first) most = fmaxf(most, highest[r]);
      factor[r] = first ? 0.0f : power_of_two((highest[r] - most) * scale);
      highest[r] = most;
      const float offset = most * scale;
      float total = 0.0f;
#pragma unroll
      for (int i = 0; i < count / 4; ++i) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const float p = power_of_two(fmaf(s[4 * i + 2 * r + c], scale, -offset));
          s[4 * i + 2 * r + c] = p;
          total += p;
        }
      }
      sum[r] = first ? total : fmaf(sum[r], factor[r], total);
    }
  }
};

/** −∞ where the key is after the row's token or before its window; `row` and `key` are this thread's first ones. */
template <int count>
__device__ __forceinline__ void mask(float (&s)[count], i32 row, i32 key, i32 window) {
  const i32 reach = window > 0 ? window : 0x7fffffff;
#pragma unroll
  for (int i = 0; i < count; ++i) {
    const i32 behind = row + (i / 2 % 2) * 8 - (key + i / 4 * 8 + i % 2);
    if (behind < 0 || behind >= reach) s[i] = -__int_as_float(0x7f800000);
  }
}

/** The work of this block in its `round`: back and forth over the blocks, so that sorted work evens out. */
__device__ __forceinline__ u32 work_of(u32 round) { return round * gridDim.x + (round % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x); }

template <int D>
__device__ __forceinline__ void attention(const sluice::AttentionForward& a, const TensorMap* qk_map, const TensorMap* qkv_map) {
  using L = Layout<D>;
  extern __shared__ char shared[];
  const u32 base = (u32(__cvta_generic_to_shared(shared)) + 1023) & ~1023u;
  const u32 group = uniform(threadIdx.x / 128);
  const u32 lane = threadIdx.x % 32;
  const i32* starts = a.starts.as<const i32>();
  const i32 documents = i32(a.documents);
  const u32 tiles = a.tokens / rows + a.documents;
  const u32 work = tiles * a.heads;
  const u32 heads_per_key_head = a.heads / a.kv_heads;
  const i32 window = i32(a.window);

  if (threadIdx.x == 0) {
    barrier_init(base + L::q_full, 1);
    barrier_init(base + L::q_empty, consumers / 32);
    for (u32 s = 0; s < stages; ++s) {
      barrier_init(base + L::k_full + 8 * s, 1);
      barrier_init(base + L::v_full + 8 * s, 1);
      barrier_init(base + L::k_empty + 8 * s, consumers / 32);
      barrier_init(base + L::v_empty + 8 * s, consumers / 32);
    }
    barriers_ready();
  }
  __syncthreads();

  if (group == 0) {
    registers_down<24>();
    if (threadIdx.x >= 32) return;
    if (lane == 0) {
      prefetch(qk_map);
      prefetch(qkv_map);
    }
    u32 taken = 0, filled = 0;
    for (u32 round = 0; round * gridDim.x < work; ++round) {
      const u32 index = work_of(round);
      if (index >= work) continue;
      const Tile tile = find_tile(starts, documents, i32(tiles - 1 - index / a.heads), lane);
      if (!tile.found) continue;
      const u32 head = index % a.heads;
      const u32 kv_head = head / heads_per_key_head;
      if (lane == 0) {
        const i32 last = tile.first / keys;
        const i32 least = window > 0 ? max(0, tile.first - window + 1) / keys : 0;
        wait(base + L::q_empty, (taken & 1) ^ 1);
        arrive_expecting(base + L::q_full, L::tile);
        copy_tile<D, rows>(base + L::q, qk_map, i32(head * D), tile.start + tile.first, base + L::q_full);
        for (i32 block = last; block >= least; --block, ++filled) {
          const u32 s = filled % stages, parity = (filled / stages & 1) ^ 1;
          const i32 token = tile.start + block * keys;
          wait(base + L::k_empty + 8 * s, parity);
          arrive_expecting(base + L::k_full + 8 * s, L::tile);
          copy_tile<D, keys>(base + L::k + s * L::tile, qk_map, i32((a.heads + kv_head) * D), token, base + L::k_full + 8 * s);
          wait(base + L::v_empty + 8 * s, parity);
          arrive_expecting(base + L::v_full + 8 * s, L::tile);
          copy_tile<D, keys>(base + L::v + s * L::tile, qkv_map, i32((a.heads + a.kv_heads + kv_head) * D), token, base + L::v_full + 8 * s);
        }
      }
      ++taken;
      __syncwarp();
    }
  } else {
    registers_up<240>();
    const u32 half = group - 1;
    const u32 warp = uniform(threadIdx.x / 32 % 4);
    const float scale = a.scale * log2_e;
    const u64 q = along_columns(base + L::q + half * 64 * 128);
    const u64 k = along_columns(base + L::k);
    const u64 v = along_rows(base + L::v, keys * 128);
    constexpr u32 q_panel = rows * 128, k_panel = keys * 128;
    const u32 turn = 1 + half;  // named barriers 1 and 2
    if (half == 1) named_arrive(1, consumers);

    u32 taken = 0, used = 0;
    for (u32 round = 0; round * gridDim.x < work; ++round) {
      const u32 index = work_of(round);
      if (index >= work) continue;
      const Tile tile = find_tile(starts, documents, i32(tiles - 1 - index / a.heads), lane);
      if (!tile.found) continue;
      const u32 head = index % a.heads;
      const i32 first_row = i32(half * 64 + warp * 16);
      const i32 row = tile.first + first_row + i32(lane / 4);
      const i32 column = i32(lane % 4 * 2);
      const i32 last = tile.first / keys;
      const i32 least = window > 0 ? max(0, tile.first - window + 1) / keys : 0;

      float s[keys / 2];
      float out[D / 2];
      u32 p[keys / 4];
      float factor[2];
      Softmax softmax;
#pragma unroll
      for (int i = 0; i < D / 2; ++i) out[i] = 0.0f;

      wait(base + L::q_full, taken & 1);
      wait(base + L::k_full + 8 * (used % stages), used / stages & 1);
      products_begin();
      product_along_columns<D>(s, q, q_panel, k + (used % stages * L::tile >> 4), k_panel);
      products_end();
      products_wait<0>();
      settle(s);
      if (lane == 0) {
        arrive(base + L::k_empty + 8 * (used % stages));
        if (last == least) arrive(base + L::q_empty);
      }
      mask(s, row, last * keys + column, window);
      softmax.step<true>(s, scale, factor);
#pragma unroll
      for (int i = 0; i < keys / 4; ++i) p[i] = pack(s[2 * i], s[2 * i + 1]);

      for (i32 block = last - 1; block >= least; --block) {
        const u32 before = used % stages, before_parity = used / stages & 1;
        ++used;
        const u32 now = used % stages;
        wait(base + L::k_full + 8 * now, used / stages & 1);
        named_sync(turn, consumers);
        products_begin();
        product_along_columns<D>(s, q, q_panel, k + (now * L::tile >> 4), k_panel);
        products_end();
        wait(base + L::v_full + 8 * before, before_parity);
        products_begin();
        product_along_rows(out, p, v + (before * L::tile >> 4));
        products_end();
        named_arrive(3 - turn, consumers);
        products_wait<1>();
        settle(s);
        if (lane == 0) {
          arrive(base + L::k_empty + 8 * now);
          if (block == least) arrive(base + L::q_empty);
        }
        if (window > 0 && tile.first + rows - 1 - block * keys >= window) mask(s, row, block * keys + column, window);
        softmax.step<false>(s, scale, factor);
        products_wait<0>();
        settle(out);
        if (lane == 0) arrive(base + L::v_empty + 8 * before);
#pragma unroll
        for (int i = 0; i < D / 2; ++i) out[i] *= factor[i / 2 % 2];
#pragma unroll
        for (int i = 0; i < keys / 4; ++i) p[i] = pack(s[2 * i], s[2 * i + 1]);
      }
      wait(base + L::v_full + 8 * (used % stages), used / stages & 1);
      products_begin();
      product_along_rows(out, p, v + (used % stages * L::tile >> 4));
      products_end();
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        softmax.sum[r] += __shfl_xor_sync(0xffffffffu, softmax.sum[r], 1);
        softmax.sum[r] += __shfl_xor_sync(0xffffffffu, softmax.sum[r], 2);
      }
      products_wait<0>();
      settle(out);
      if (lane == 0) arrive(base + L::v_empty + 8 * (used % stages));
      ++used;
      ++taken;

      if (lane % 4 == 0) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          if (row + 8 * r < tile.length) a.lse.as<float>()[u64(head) * a.tokens + tile.start + row + 8 * r] = (softmax.highest[r] * scale + log2f(softmax.sum[r])) * ln_2;
        }
      }
      const u64 token = u64(tile.start + tile.first + first_row);
      store_rows<D>(a.out.as<char>() + (token * a.heads + head) * D * 2, u64(a.heads) * D * 2, tile.length - tile.first - first_row, out, 1.0f / softmax.sum[0], 1.0f / softmax.sum[1],
                    base + L::staging + (half * 4 + warp) * 16 * D * 2, lane);
    }
  }
}

}  // namespace

#define KERNEL(name) extern "C" __global__ void __launch_bounds__(384, 1) name(const sluice::AttentionForward a, void* workspace, const __grid_constant__ TensorMap qk, const __grid_constant__ TensorMap qkv)

KERNEL(attention_forward_hopper_d128) { attention<128>(a, &qk, &qkv); }
KERNEL(attention_forward_hopper_d64) { attention<64>(a, &qk, &qkv); }

#endif
