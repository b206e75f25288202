// Attention backward on Hopper (sm_90a), in the manner of `attention_hopper.cu`: first the rows' delta, then dq by tiles of 128
// query rows, then dk and dv by tiles of 128 keys, each the only writer of its part of d_qkv and summing in one order.
//
// Scores are computed twice, so there are seven products instead of five; in exchange nothing is accumulated in memory (dq in float32
// would be 1 GiB at 65,536 tokens of 32 heads), no block waits for another, and the sums have one order. All query heads of
// a group are walked by the block that holds their keys. Semantics: `zig/device/cpu/attention_backward.zig`.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

#include "hopper.cuh"

using namespace hopper;

namespace {

constexpr float log2_e = 1.4426950408889634f;
constexpr u32 consumers = 256;

// ---- delta ----------------------------------------------------------------------------------------------------------

/** delta (H, T) = rowsum(d_out ∘ out): D / 8 lanes take one row, 16 bytes each. */
template <int D>
__device__ __forceinline__ void row_sums(const sluice::AttentionBackward& a) {
  constexpr u32 lanes = D / 8;
  const u32 row = blockIdx.x * (256 / lanes) + threadIdx.x / lanes;
  const u32 rows = a.tokens * a.heads;
  const u64 at = u64(min(row, rows - 1)) * lanes + threadIdx.x % lanes;
  const uint4 x = __ldg(a.d_out.as<const uint4>() + at);
  const uint4 y = __ldg(a.out.as<const uint4>() + at);
  const u32 left[4] = {x.x, x.y, x.z, x.w};
  const u32 right[4] = {y.x, y.y, y.z, y.w};
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    sum = fmaf(__uint_as_float(left[i] << 16), __uint_as_float(right[i] << 16), sum);
    sum = fmaf(__uint_as_float(left[i] & 0xffff0000u), __uint_as_float(right[i] & 0xffff0000u), sum);
  }
#pragma unroll
  for (u32 distance = lanes / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  if (row < rows && threadIdx.x % lanes == 0) a.delta.as<float>()[u64(row % a.heads) * a.tokens + row / a.heads] = sum;
}

// ---- dq -------------------------------------------------------------------------------------------------------------

template <int D, int keys, u32 stages>
struct RowLayout {
  static constexpr u32 held = 128 * D * 2;
  static constexpr u32 tile = keys * D * 2;
  static constexpr u32 q = 0, d_out = held;
  static constexpr u32 k = 2 * held;
  static constexpr u32 v = k + stages * tile;
  static constexpr u32 staging = v + stages * tile;
  static constexpr u32 held_full = staging + held;
  static constexpr u32 k_full = held_full + 8, k_empty = k_full + 8 * stages;
  static constexpr u32 v_full = k_empty + 8 * stages, v_empty = v_full + 8 * stages;
};

template <int D, int keys, u32 stages>
__device__ __forceinline__ void query_gradients(const sluice::AttentionBackward& a, const TensorMap* qk_map, const TensorMap* qkv_map, const TensorMap* d_out_map) {
  using L = RowLayout<D, keys, stages>;
  constexpr i32 rows = tile_rows;
  extern __shared__ char shared[];
  const u32 base = (u32(__cvta_generic_to_shared(shared)) + 1023) & ~1023u;
  const u32 group = uniform(threadIdx.x / 128);
  const u32 lane = threadIdx.x % 32;
  const i32* starts = a.starts.as<const i32>();
  const Tile tile = find_tile(starts, i32(a.documents), i32(a.tokens / rows + a.documents - 1 - blockIdx.x / a.heads), lane);
  if (!tile.found) return;
  const u32 head = blockIdx.x % a.heads;
  const u32 kv_head = head / (a.heads / a.kv_heads);
  const i32 window = i32(a.window);

  if (threadIdx.x == 0) {
    barrier_init(base + L::held_full, 1);
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
      prefetch(d_out_map);
    }
    u32 filled = 0;
    if (lane == 0) {
      const i32 last = min(tile.first + rows, tile.length) - 1;
      const i32 least = window > 0 ? max(0, tile.first - window + 1) / keys : 0;
      arrive_expecting(base + L::held_full, 2 * L::held);
      copy_tile<D, rows>(base + L::q, qk_map, i32(head * D), tile.start + tile.first, base + L::held_full);
      copy_tile<D, rows>(base + L::d_out, d_out_map, i32(head * D), tile.start + tile.first, base + L::held_full);
      for (i32 block = last / keys; block >= least; --block, ++filled) {
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
  } else {
    registers_up<240>();
    const u32 half = group - 1;
    const u32 warp = uniform(threadIdx.x / 32 % 4);
    const float scale = a.scale * log2_e;
    const i32 reach = window > 0 ? window : 0x7fffffff;
    const u64 q = along_columns(base + L::q + half * 64 * 128);
    const u64 d_out = along_columns(base + L::d_out + half * 64 * 128);
    const u64 k = along_columns(base + L::k);
    const u64 v = along_columns(base + L::v);
    const u64 k_rows = along_rows(base + L::k, keys * 128);
    constexpr u32 held_panel = rows * 128, panel = keys * 128;

    const i32 first_row = i32(half * 64 + warp * 16);
    const i32 row = tile.first + first_row + i32(lane / 4);
    const i32 column = i32(lane % 4 * 2);
    const i32 last = min(tile.first + rows, tile.length) - 1;
    const i32 least = window > 0 ? max(0, tile.first - window + 1) / keys : 0;

    float lse[2], delta[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const u64 at = u64(head) * a.tokens + tile.start + min(row + 8 * r, tile.length - 1);
      lse[r] = a.lse.as<const float>()[at] * log2_e;
      delta[r] = a.delta.as<const float>()[at];
    }
    float dq[D / 2];
    u32 ds[keys / 4];
#pragma unroll
    for (int i = 0; i < D / 2; ++i) dq[i] = 0.0f;

    wait(base + L::held_full, 0);
    const i32 group_row = tile.first + i32(half * 64);
    u32 used = 0;
    bool under_way = false;  // a product with the keys of the step before
    for (i32 block = last / keys; block >= least; --block, ++used) {
      const u32 now = used % stages, parity = used / stages & 1;
      const i32 first_key = block * keys;
      wait(base + L::k_full + 8 * now, parity);
      if (first_key > group_row + 63 || (window > 0 && group_row - (first_key + keys - 1) >= window)) {  // these rows see none of these keys
        products_wait<0>();
        wait(base + L::v_full + 8 * now, parity);
        if (lane == 0) {
          if (under_way) arrive(base + L::k_empty + 8 * ((used - 1) % stages));
          arrive(base + L::k_empty + 8 * now);
          arrive(base + L::v_empty + 8 * now);
        }
        under_way = false;
        continue;
      }
      float s[keys / 2], dp[keys / 2];
      products_begin();
      product_along_columns<D>(s, q, held_panel, k + (now * L::tile >> 4), panel);
      products_end();
      wait(base + L::v_full + 8 * now, parity);
      products_begin();
      product_along_columns<D>(dp, d_out, held_panel, v + (now * L::tile >> 4), panel);
      products_end();
      products_wait<1>();
      settle(s);
      if (under_way && lane == 0) arrive(base + L::k_empty + 8 * ((used - 1) % stages));
      under_way = true;
      const i32 behind = row - (first_key + column);  // of this thread's first value
#pragma unroll
      for (int i = 0; i < keys / 2; ++i) s[i] = power_of_two(fmaf(s[i], scale, -lse[i / 2 % 2]));
      if (first_key + keys - 1 > group_row || (window > 0 && group_row + 63 - first_key >= window)) {
#pragma unroll
        for (int i = 0; i < keys / 2; ++i) {
          const i32 distance = behind + (i / 2 % 2) * 8 - i / 4 * 8 - i % 2;
          if (distance < 0 || distance >= reach) s[i] = 0.0f;
        }
      }
      products_wait<0>();
      settle(dp);
      if (lane == 0) arrive(base + L::v_empty + 8 * now);
#pragma unroll
      for (int i = 0; i < keys / 4; ++i) {
        const float d = delta[i % 2];
        ds[i] = pack(s[2 * i] * (dp[2 * i] - d), s[2 * i + 1] * (dp[2 * i + 1] - d));
      }
      products_begin();
      product_along_rows(dq, ds, k_rows + (now * L::tile >> 4));
      products_end();
    }
    products_wait<0>();
    settle(dq);

    const u64 row_bytes = u64(a.heads + 2 * a.kv_heads) * D * 2;
    store_rows<D>(a.d_qkv.as<char>() + u64(tile.start + tile.first + first_row) * row_bytes + head * D * 2, row_bytes, tile.length - tile.first - first_row, dq, a.scale, a.scale,
                  base + L::staging + (half * 4 + warp) * 16 * D * 2, lane);
  }
}

// ---- dk and dv ------------------------------------------------------------------------------------------------------

template <int D, u32 stages>
struct KeyLayout {
  static constexpr u32 held = 128 * D * 2;
  static constexpr u32 tile = 64 * D * 2;
  static constexpr u32 k = 0, v = held;
  static constexpr u32 q = 2 * held;
  static constexpr u32 d_out = q + stages * tile;
  static constexpr u32 staging = d_out + stages * tile;
  static constexpr u32 lse = staging + held;  // 64 float32 a stage
  static constexpr u32 delta = lse + stages * 256;
  static constexpr u32 held_full = delta + stages * 256;
  static constexpr u32 q_full = held_full + 8, q_empty = q_full + 8 * stages;
  static constexpr u32 d_full = q_empty + 8 * stages, d_empty = d_full + 8 * stages;
};

__device__ __forceinline__ void load_pair(u32 address, float& x, float& y) {
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x), "=f"(y) : "r"(address) : "memory");
}

/** Scores are (key, row) here, so that p and ds leave the products as what the next ones take from registers. */
template <int D, u32 stages>
__device__ __forceinline__ void key_gradients(const sluice::AttentionBackward& a, const TensorMap* qk_map, const TensorMap* qkv_map, const TensorMap* d_out_map) {
  using L = KeyLayout<D, stages>;
  constexpr i32 keys = tile_rows;
  constexpr i32 rows = 64;
  extern __shared__ char shared[];
  const u32 base = (u32(__cvta_generic_to_shared(shared)) + 1023) & ~1023u;
  const u32 group = uniform(threadIdx.x / 128);
  const u32 lane = threadIdx.x % 32;
  const i32* starts = a.starts.as<const i32>();
  const Tile tile = find_tile(starts, i32(a.documents), i32(blockIdx.x / a.kv_heads), lane);
  if (!tile.found) return;
  const u32 kv_head = blockIdx.x % a.kv_heads;
  const u32 heads_per_key_head = a.heads / a.kv_heads;
  const i32 window = i32(a.window);

  if (threadIdx.x == 0) {
    barrier_init(base + L::held_full, 1);
    for (u32 s = 0; s < stages; ++s) {
      barrier_init(base + L::q_full + 8 * s, 1 + 32);  // the tile, and each lane's words of lse and delta
      barrier_init(base + L::d_full + 8 * s, 1);
      barrier_init(base + L::q_empty + 8 * s, consumers / 32);
      barrier_init(base + L::d_empty + 8 * s, consumers / 32);
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
      prefetch(d_out_map);
    }
    u32 filled = 0;
    if (lane == 0) {
      arrive_expecting(base + L::held_full, 2 * L::held);
      copy_tile<D, keys>(base + L::k, qk_map, i32((a.heads + kv_head) * D), tile.start + tile.first, base + L::held_full);
      copy_tile<D, keys>(base + L::v, qkv_map, i32((a.heads + a.kv_heads + kv_head) * D), tile.start + tile.first, base + L::held_full);
    }
    __syncwarp();
    const i32 end = window > 0 ? min(tile.length, tile.first + keys - 1 + window) : tile.length;
    for (u32 head = kv_head * heads_per_key_head; head < (kv_head + 1) * heads_per_key_head; ++head) {
      for (i32 row = tile.first; row < end; row += rows, ++filled) {
        const u32 s = filled % stages, parity = (filled / stages & 1) ^ 1;
        wait(base + L::q_empty + 8 * s, parity);
        if (lane == 0) {
          arrive_expecting(base + L::q_full + 8 * s, L::tile);
          copy_tile<D, rows>(base + L::q + s * L::tile, qk_map, i32(head * D), tile.start + row, base + L::q_full + 8 * s);
        }
        __syncwarp();
#pragma unroll
        for (u32 r = 0; r < 64; r += 32) {
          const u32 at = (head * a.tokens + tile.start + min(row + i32(r + lane), tile.length - 1)) * 4;  // H·T·4 bytes stay below 2³²
          copy_word(base + L::lse + s * 256 + (r + lane) * 4, a.lse.as<const char>() + at);
          copy_word(base + L::delta + s * 256 + (r + lane) * 4, a.delta.as<const char>() + at);
        }
        copies_arrive(base + L::q_full + 8 * s);
        if (lane == 0) {
          wait(base + L::d_empty + 8 * s, parity);
          arrive_expecting(base + L::d_full + 8 * s, L::tile);
          copy_tile<D, rows>(base + L::d_out + s * L::tile, d_out_map, i32(head * D), tile.start + row, base + L::d_full + 8 * s);
        }
        __syncwarp();
      }
    }
    asm volatile("cp.async.wait_all;" ::: "memory");
  } else {
    registers_up<240>();
    const u32 half = group - 1;
    const u32 warp = uniform(threadIdx.x / 32 % 4);
    const float scale = a.scale * log2_e;
    const i32 reach = window > 0 ? window : 0x7fffffff;
    const u64 k = along_columns(base + L::k + half * 64 * 128);
    const u64 v = along_columns(base + L::v + half * 64 * 128);
    const u64 q = along_columns(base + L::q);
    const u64 d_out = along_columns(base + L::d_out);
    const u64 q_rows = along_rows(base + L::q, rows * 128);
    const u64 d_out_rows = along_rows(base + L::d_out, rows * 128);
    constexpr u32 held_panel = keys * 128, panel = rows * 128;

    const i32 first_key = tile.first + i32(half * 64);  // of the warpgroup
    const i32 key = first_key + i32(warp * 16 + lane / 4);
    const u32 column = lane % 4 * 2;
    const i32 end = window > 0 ? min(tile.length, tile.first + keys - 1 + window) : tile.length;

    float dk[D / 2], dv[D / 2];
    u32 p[rows / 4], ds[rows / 4];
#pragma unroll
    for (int i = 0; i < D / 2; ++i) dk[i] = dv[i] = 0.0f;

    wait(base + L::held_full, 0);
    u32 used = 0;
    bool under_way = false;  // a product with the step before's queries
    for (u32 head = 0; head < heads_per_key_head; ++head) {
      for (i32 row = tile.first; row < end; row += rows, ++used) {
        const u32 now = used % stages, parity = used / stages & 1;
        wait(base + L::q_full + 8 * now, parity);
        if (row + rows - 1 < first_key || (window > 0 && row - (first_key + 63) >= window)) {  // none of these rows sees these keys
          products_wait<0>();
          wait(base + L::d_full + 8 * now, parity);
          if (lane == 0) {
            if (under_way) arrive(base + L::q_empty + 8 * ((used - 1) % stages));
            arrive(base + L::q_empty + 8 * now);
            arrive(base + L::d_empty + 8 * now);
          }
          under_way = false;
          continue;
        }
        float s[rows / 2], dp[rows / 2];
        products_begin();
        product_along_columns<D>(s, k, held_panel, q + (now * L::tile >> 4), panel);
        products_end();
        wait(base + L::d_full + 8 * now, parity);
        products_begin();
        product_along_columns<D>(dp, v, held_panel, d_out + (now * L::tile >> 4), panel);
        products_end();
        products_wait<1>();
        settle(s);
        if (under_way && lane == 0) arrive(base + L::q_empty + 8 * ((used - 1) % stages));
        under_way = true;
#pragma unroll
        for (int i = 0; i < rows / 8; ++i) {
          float x, y;
          load_pair(base + L::lse + now * 256 + (8 * i + column) * 4, x, y);
          x *= log2_e;
          y *= log2_e;
          s[4 * i] = power_of_two(fmaf(s[4 * i], scale, -x));
          s[4 * i + 1] = power_of_two(fmaf(s[4 * i + 1], scale, -y));
          s[4 * i + 2] = power_of_two(fmaf(s[4 * i + 2], scale, -x));
          s[4 * i + 3] = power_of_two(fmaf(s[4 * i + 3], scale, -y));
        }
        if (row < first_key + 63 || row + rows > tile.length || (window > 0 && row + rows - 1 - first_key >= window)) {
          const i32 first = row + i32(column);
#pragma unroll
          for (int i = 0; i < rows / 2; ++i) {
            const i32 at = first + i / 4 * 8 + i % 2;
            const i32 behind = at - key - i / 2 % 2 * 8;
            if (behind < 0 || behind >= reach || at >= tile.length) s[i] = 0.0f;
          }
        }
#pragma unroll
        for (int i = 0; i < rows / 4; ++i) p[i] = pack(s[2 * i], s[2 * i + 1]);
        products_begin();
        product_along_rows(dv, p, d_out_rows + (now * L::tile >> 4));
        products_end();
        products_wait<0>();
        settle(dp);
        if (lane == 0) arrive(base + L::d_empty + 8 * now);
#pragma unroll
        for (int i = 0; i < rows / 8; ++i) {
          float x, y;
          load_pair(base + L::delta + now * 256 + (8 * i + column) * 4, x, y);
          ds[2 * i] = pack(s[4 * i] * (dp[4 * i] - x), s[4 * i + 1] * (dp[4 * i + 1] - y));
          ds[2 * i + 1] = pack(s[4 * i + 2] * (dp[4 * i + 2] - x), s[4 * i + 3] * (dp[4 * i + 3] - y));
        }
        products_begin();
        product_along_rows(dk, ds, q_rows + (now * L::tile >> 4));
        products_end();
      }
    }
    products_wait<0>();
    settle(dk);
    settle(dv);

    const u64 row_bytes = u64(a.heads + 2 * a.kv_heads) * D * 2;
    const i32 own = i32(half * 64 + warp * 16);
    const i32 valid = tile.length - tile.first - own;
    char* to = a.d_qkv.as<char>() + u64(tile.start + tile.first + own) * row_bytes + (a.heads + kv_head) * D * 2;
    const u32 staging = base + L::staging + (half * 4 + warp) * 16 * D * 2;
    store_rows<D>(to, row_bytes, valid, dk, a.scale, a.scale, staging, lane);
    store_rows<D>(to + a.kv_heads * D * 2, row_bytes, valid, dv, 1.0f, 1.0f, staging, lane);
  }
}

}  // namespace

#define KERNEL(name) extern "C" __global__ void __launch_bounds__(384, 1) name(const sluice::AttentionBackward a, void* workspace, const __grid_constant__ TensorMap qk, const __grid_constant__ TensorMap qkv, const __grid_constant__ TensorMap d_out)

extern "C" __global__ void __launch_bounds__(256) attention_backward__hopper_delta_d128(const sluice::AttentionBackward a, void* workspace) { row_sums<128>(a); }
extern "C" __global__ void __launch_bounds__(256) attention_backward__hopper_delta_d64(const sluice::AttentionBackward a, void* workspace) { row_sums<64>(a); }
KERNEL(attention_backward__hopper_rows_d128) { query_gradients<128, 64, 4>(a, &qk, &qkv, &d_out); }
KERNEL(attention_backward__hopper_rows_d64) { query_gradients<64, 64, 4>(a, &qk, &qkv, &d_out); }
KERNEL(attention_backward_hopper_d128) { key_gradients<128, 2>(a, &qk, &qkv, &d_out); }
KERNEL(attention_backward_hopper_d64) { key_gradients<64, 2>(a, &qk, &qkv, &d_out); }

#endif
