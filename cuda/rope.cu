// Per-head RMSNorm of q and k (HF Qwen3Attention) fused with rotary position embedding (HF apply_rotary_pos_emb: the first half
// of a head is paired with the second). Forward goes from qkv to a compact qk; backward works in place on d_qkv. Between
// norm and rotation nothing is rounded. The CPU's `zig/kernels/rope.zig` says the same in plain loops.
//
// A thread holds eight values of a head's first half and their eight partners, so D/16 neighbouring lanes hold a head and
// sum its squares with shuffles. That needs D to be 16 times a power of two; the `_any` kernels give any other head to a
// whole warp, pair by pair.
//
// Floors at T = 16384 with 32 + 8 heads of 128, 4 TB/s: forward 2 + 2 B per value, 84 us; backward 4 + 2 B, 126 us. A token's
// angles are read once per block: all its heads are neighbours.

#include <reduce.cuh>

namespace sluice {

constexpr int threads = 256;
constexpr int fast_head_dim_max = 512;

/** Eight cosines and eight sines of one position. */
struct Angles {
  f32 cos[8], sin[8];
};
INLINE Angles load_angles(const f32* row, int half, int at) {
  Angles angles;
#pragma unroll
  for (int i = 0; i < 8; i += 4) {
    const Four cos = load4<Float32>(row + at + i, 4, is_aligned(row, 16));
    const Four sin = load4<Float32>(row + half + at + i, 4, is_aligned(row, 16));
#pragma unroll
    for (int j = 0; j < 4; j++) {
      angles.cos[i + j] = cos.x[j];
      angles.sin[i + j] = sin.x[j];
    }
  }
  return angles;
}

KERNEL(threads, 4) qk_rope_forward(const QkRopeForward a, void*) {
  const int head_dim = a.head_dim, half = head_dim / 2;
  const int lanes = head_dim / 16;
  const u32 heads = a.heads + a.kv_heads;
  const u32 group = block_index() * (threads / lanes) + thread_index() / lanes;
  const bool active = group < a.tokens * heads; // all lanes take part in the shuffles
  const u32 token = active ? group / heads : 0;
  const u32 head = active ? group % heads : 0;
  const int at = thread_index() % lanes * 8;
  const u16* x = a.qkv.as<u16>() + ((u64)token * (heads + a.kv_heads) + head) * head_dim;
  u16* y = a.qk.as<u16>() + ((u64)token * heads + head) * head_dim;

  const Eight x_low = load8(x + at, 8, true), x_high = load8(x + half + at, 8, true);
  const Angles angles = load_angles(a.table.as<f32>() + (u64)a.positions.as<i32>()[token] * head_dim, half, at);
  f32 low[8], high[8];
#pragma unroll
  for (int i = 0; i < 8; i++) {
    low[i] = x_low[i];
    high[i] = x_high[i];
  }
  if (a.q_weight.present()) {
    const u16* weight = head < a.heads ? a.q_weight.as<u16>() : a.k_weight.as<u16>();
    const Eight weight_low = load8(weight + at, 8, true), weight_high = load8(weight + half + at, 8, true);
    f32 squares = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) squares += low[i] * low[i] + high[i] * high[i];
    const f32 inverse = reciprocal_root(lanes_sum(squares, lanes) / (f32)head_dim + a.epsilon);
    if (active && at == 0) a.inverse.as<f32>()[(u64)token * heads + head] = inverse;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      low[i] *= inverse * weight_low[i];
      high[i] *= inverse * weight_high[i];
    }
  }
  f32 y_low[8], y_high[8];
#pragma unroll
  for (int i = 0; i < 8; i++) {
    y_low[i] = low[i] * angles.cos[i] - high[i] * angles.sin[i];
    y_high[i] = high[i] * angles.cos[i] + low[i] * angles.sin[i];
  }
  if (!active) return;
  store8(y + at, pack8(y_low), 8, true);
  store8(y + half + at, pack8(y_high), 8, true);
}

KERNEL(threads, 1) qk_rope_forward_any(const QkRopeForward a, void*) {
  const u32 head_dim = a.head_dim, half = head_dim / 2;
  const u32 heads = a.heads + a.kv_heads;
  const u32 group = block_index() * (threads / warp_size) + warp_index();
  if (group >= a.tokens * heads) return;
  const u32 token = group / heads, head = group % heads;
  const u16* x = a.qkv.as<u16>() + ((u64)token * (heads + a.kv_heads) + head) * head_dim;
  u16* y = a.qk.as<u16>() + ((u64)token * heads + head) * head_dim;
  const f32* cos = a.table.as<f32>() + (u64)a.positions.as<i32>()[token] * head_dim;
  const bool norm = a.q_weight.present();
  const u16* weight = head < a.heads ? a.q_weight.as<u16>() : a.k_weight.as<u16>();
  f32 inverse = 1;
  if (norm) {
    f32 squares = 0;
    for (u32 i = lane_index(); i < head_dim; i += warp_size) squares += from_bfloat16(x[i]) * from_bfloat16(x[i]);
    inverse = reciprocal_root(warp_sum(squares) / (f32)head_dim + a.epsilon);
    if (lane_index() == 0) a.inverse.as<f32>()[(u64)token * heads + head] = inverse;
  }
  for (u32 i = lane_index(); i < half; i += warp_size) {
    const f32 low = from_bfloat16(x[i]) * inverse * (norm ? from_bfloat16(weight[i]) : 1.0f);
    const f32 high = from_bfloat16(x[half + i]) * inverse * (norm ? from_bfloat16(weight[half + i]) : 1.0f);
    y[i] = to_bfloat16(low * cos[i] - high * cos[half + i]);
    y[half + i] = to_bfloat16(high * cos[i] + low * cos[half + i]);
  }
}

/** The heads that a block of the backward pass goes through: the first `q_blocks` blocks take queries, the others keys, so that
 * a thread's sums belong to one weight. */
struct Share {
  u32 first_head, heads;
  u32 block, blocks;
  bool queries;
};
INLINE Share share_of(const QkRopeBackward& a, u32 q_blocks) {
  if (block_index() < q_blocks) return {0, a.heads, block_index(), q_blocks, true};
  return {a.heads, a.kv_heads, block_index() - q_blocks, block_count() - q_blocks, false};
}

/** Leaves each block's share of its weight's gradient in the workspace (blocks, D). */
KERNEL(threads, 3) qk_rope_backward(const QkRopeBackward a, void* workspace, u32 q_blocks) {
  SHARED f32 sums[threads / 32 * fast_head_dim_max];
  const int head_dim = a.head_dim, half = head_dim / 2;
  const int lanes = head_dim / 16;
  const u32 all_heads = a.heads + a.kv_heads;
  const Share share = share_of(a, q_blocks);
  const u32 groups = a.tokens * share.heads;
  const u32 at_once = threads / lanes;
  const int at = thread_index() % lanes * 8;
  const bool norm = a.q_weight.present();
  const u16* weight = share.queries ? a.q_weight.as<u16>() : a.k_weight.as<u16>();
  Eight weight_low = zero8(), weight_high = zero8();
  if (norm) {
    weight_low = load8(weight + at, 8, true);
    weight_high = load8(weight + half + at, 8, true);
  }
  f32 sum_low[8] = {}, sum_high[8] = {};

  for (u32 first = share.block * at_once; first < groups; first += share.blocks * at_once) {
    const u32 group = first + thread_index() / lanes;
    const bool active = group < groups;
    const u32 token = active ? group / share.heads : 0;
    const u32 head = share.first_head + (active ? group % share.heads : 0);
    const u64 offset = ((u64)token * (all_heads + a.kv_heads) + head) * head_dim;
    u16* d = a.d_qkv.as<u16>() + offset;
    const u16* x = a.qkv.as<u16>() + offset;

    const Eight d_low = active ? load8(d + at, 8, true) : zero8(), d_high = active ? load8(d + half + at, 8, true) : zero8();
    Eight x_low = zero8(), x_high = zero8();
    f32 inverse = 0;
    if (norm) {
      x_low = load8(x + at, 8, true);
      x_high = load8(x + half + at, 8, true);
      inverse = a.inverse.as<f32>()[(u64)token * all_heads + head];
    }
    const Angles angles = load_angles(a.table.as<f32>() + (u64)a.positions.as<i32>()[token] * head_dim, half, at);
    f32 low[8], high[8]; // the gradient before the rotation
#pragma unroll
    for (int i = 0; i < 8; i++) {
      low[i] = d_low[i] * angles.cos[i] + d_high[i] * angles.sin[i];
      high[i] = d_high[i] * angles.cos[i] - d_low[i] * angles.sin[i];
    }
    if (norm) {
      f32 products = 0;
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const f32 normed_low = x_low[i] * inverse, normed_high = x_high[i] * inverse;
        products += low[i] * weight_low[i] * normed_low + high[i] * weight_high[i] * normed_high;
        sum_low[i] += low[i] * normed_low;
        sum_high[i] += high[i] * normed_high;
      }
      const f32 mean = lanes_sum(products, lanes) / (f32)head_dim;
      forget(x_low);
      forget(x_high);
      forget(weight_low);
      forget(weight_high);
#pragma unroll
      for (int i = 0; i < 8; i++) {
        low[i] = inverse * (low[i] * weight_low[i] - x_low[i] * inverse * mean);
        high[i] = inverse * (high[i] * weight_high[i] - x_high[i] * inverse * mean);
      }
    }
    if (!active) continue; // shuffles of the next round find all lanes again
    store8(d + at, pack8(low), 8, true);
    store8(d + half + at, pack8(high), 8, true);
  }
  if (!norm) return;

  // Over the heads of a warp, then over the warps.
#pragma unroll
  for (int i = 0; i < 8; i++)
    for (int mask = warp_size / 2; mask >= lanes; mask /= 2) {
      sum_low[i] += shuffle_xor(sum_low[i], mask);
      sum_high[i] += shuffle_xor(sum_high[i], mask);
    }
  if (lane_index() < lanes) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      sums[warp_index() * head_dim + at + i] = sum_low[i];
      sums[warp_index() * head_dim + half + at + i] = sum_high[i];
    }
  }
  barrier();
  for (int column = thread_index(); column < head_dim; column += threads) {
    f32 sum = 0;
    for (int warp = 0; warp < threads / warp_size; warp++) sum += sums[warp * head_dim + column];
    static_cast<f32*>(workspace)[(u64)block_index() * head_dim + column] = sum;
  }
}

/** The same with a warp per head; a warp's sums for the weight lie in shared memory (warps, D). */
KERNEL(threads, 1) qk_rope_backward_any(const QkRopeBackward a, void* workspace, u32 q_blocks) {
  DYNAMIC_SHARED(shared);
  constexpr u32 warps = threads / warp_size;
  const u32 head_dim = a.head_dim, half = head_dim / 2;
  const u32 all_heads = a.heads + a.kv_heads;
  const Share share = share_of(a, q_blocks);
  const u32 groups = a.tokens * share.heads;
  const bool norm = a.q_weight.present();
  const u16* weight = share.queries ? a.q_weight.as<u16>() : a.k_weight.as<u16>();
  f32* sums = reinterpret_cast<f32*>(shared) + warp_index() * head_dim;
  for (u32 i = lane_index(); i < head_dim; i += warp_size) sums[i] = 0;
  warp_barrier();

  for (u32 group = share.block * warps + warp_index(); group < groups; group += share.blocks * warps) {
    const u32 token = group / share.heads, head = share.first_head + group % share.heads;
    const u64 offset = ((u64)token * (all_heads + a.kv_heads) + head) * head_dim;
    u16* d = a.d_qkv.as<u16>() + offset;
    const u16* x = a.qkv.as<u16>() + offset;
    const f32* cos = a.table.as<f32>() + (u64)a.positions.as<i32>()[token] * head_dim;
    const f32* sin = cos + half;
    f32 inverse = 0, mean = 0;
    if (norm) {
      inverse = a.inverse.as<f32>()[(u64)token * all_heads + head];
      f32 products = 0;
      for (u32 i = lane_index(); i < half; i += warp_size) {
        const f32 d_low = from_bfloat16(d[i]), d_high = from_bfloat16(d[half + i]);
        const f32 low = d_low * cos[i] + d_high * sin[i], high = d_high * cos[i] - d_low * sin[i];
        const f32 normed_low = from_bfloat16(x[i]) * inverse, normed_high = from_bfloat16(x[half + i]) * inverse;
        products += low * from_bfloat16(weight[i]) * normed_low + high * from_bfloat16(weight[half + i]) * normed_high;
        sums[i] += low * normed_low;
        sums[half + i] += high * normed_high;
      }
      mean = warp_sum(products) / (f32)head_dim;
    }
    for (u32 i = lane_index(); i < half; i += warp_size) {
      const f32 d_low = from_bfloat16(d[i]), d_high = from_bfloat16(d[half + i]);
      f32 low = d_low * cos[i] + d_high * sin[i], high = d_high * cos[i] - d_low * sin[i];
      if (norm) {
        low = inverse * (low * from_bfloat16(weight[i]) - from_bfloat16(x[i]) * inverse * mean);
        high = inverse * (high * from_bfloat16(weight[half + i]) - from_bfloat16(x[half + i]) * inverse * mean);
      }
      d[i] = to_bfloat16(low);
      d[half + i] = to_bfloat16(high);
    }
  }
  if (!norm) return;
  barrier();
  const f32* all = reinterpret_cast<const f32*>(shared);
  for (u32 column = thread_index(); column < head_dim; column += threads) {
    f32 sum = 0;
    for (u32 warp = 0; warp < warps; warp++) sum += all[warp * head_dim + column];
    static_cast<f32*>(workspace)[(u64)block_index() * head_dim + column] = sum;
  }
}

/** Block row 0 finishes q's weight, block row 1 that of k. */
KERNEL(partial_threads, 1) qk_rope_backward__reduce(const QkRopeBackward a, void* workspace, u32 q_blocks, u32 k_blocks) {
  const f32* partials = static_cast<const f32*>(workspace);
  if (block_index_y() == 0) add_partials(a.d_q_weight.as<f32>(), partials, q_blocks, a.head_dim, a.accumulate != 0);
  else add_partials(a.d_k_weight.as<f32>(), partials + (u64)q_blocks * a.head_dim, k_blocks, a.head_dim, a.accumulate != 0);
}

} // namespace sluice
