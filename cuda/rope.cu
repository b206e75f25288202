// Per-head RMSNorm of q and k (HF Qwen3Attention; with an offset of 1 Gemma3Attention) fused with rotary position embedding (HF apply_rotary_pos_emb: the first half
// of a head is paired with the second). Forward goes from qkv to a compact qk; backward works in place on d_qkv. Between
// norm and rotation nothing is rounded. Backward's fast kernel is for weights that count from 0: an offset would take one register too many. The CPU's `zig/device/cpu/rope.zig` says the same in plain loops.
//
// A thread holds eight values of a head's first half and their eight partners, so D/16 neighbouring lanes hold a head and
// sum its squares with shuffles. Forward takes four heads of a token at a time: angles and weights are read once for all, and the heads'
// loads are under way together; backward, with twice the loads of a head, is as fast with one. That needs D to be a power of two, 16 at least; the `_any` kernels give any other head to a
// whole warp, pair by pair.
//
// Floors at T = 16384 with 32 + 8 heads of 128, 4 TB/s: forward 2 + 2 B per value, 84 us; backward 4 + 2 B, 126 us. What holds
// such a kernel up is waiting: a token's angles are found through its position, so everything else must be asked for first.

#include <reduce.cuh>

namespace sluice {

using namespace shapes::rope;

/** Eight cosines and eight sines of one position. */
struct Angles {
  f32 cos[8], sin[8];
};
/** All addresses are aligned. */
INLINE Angles load_angles(const f32* row, int half, int at) {
  Angles angles;
#pragma unroll
  for (int i = 0; i < 8; i += 4) {
    const Four cos = load4<Float32>(row + at + i, 4, true);
    const Four sin = load4<Float32>(row + half + at + i, 4, true);
#pragma unroll
    for (int j = 0; j < 4; j++) {
      angles.cos[i + j] = cos.x[j];
      angles.sin[i + j] = sin.x[j];
    }
  }
  return angles;
}

/** How the lanes of a block share heads whose size is a power of two. */
struct Lanes {
  int count; // of a head
  int shift; // its logarithm
  f32 inverse_dim; // exact: 1 / 2^n has the exponent 254 - e where 2^n has e
  INLINE Lanes(int head_dim) {
    count = head_dim / 16;
    shift = count_bits(count - 1);
    inverse_dim = float_of(0x7f000000 - bits_of((f32)head_dim));
  }
  INLINE u32 slot() const { return thread_index() >> shift; }
  INLINE int at() const { return (thread_index() & (count - 1)) * 8; }
};

KERNEL(forward_threads, forward_blocks) qk_rope_forward(const QkRopeForward a, void*) {
  constexpr u32 taken = forward_heads;
  const int head_dim = a.head_dim, half = head_dim / 2;
  const Lanes lanes(head_dim);
  const int at = lanes.at();
  const u32 heads = a.heads + a.kv_heads;
  // A thread's heads are all queries or all keys.
  const u32 q_units = (a.heads + taken - 1) / taken;
  const u32 units = q_units + (a.kv_heads + taken - 1) / taken;
  const u32 index = block_index() * (forward_threads >> lanes.shift) + lanes.slot();
  const bool active = index < a.tokens * units; // all lanes take part in the shuffles
  const u32 token = active ? index / units : 0;
  const u32 unit = active ? index % units : 0;
  const u32 first_head = unit < q_units ? unit * taken : a.heads + (unit - q_units) * taken;
  const u32 present = left(first_head, unit < q_units ? a.heads : heads); // heads that there are
  const u16* x = a.qkv.as<u16>() + ((u64)token * (heads + a.kv_heads) + first_head) * head_dim + at;
  u16* y = a.qk.as<u16>() + ((u64)token * heads + first_head) * head_dim + at;

  const i32 position = a.positions.as<i32>()[token];
  Eight x_low[taken], x_high[taken];
#pragma unroll
  for (u32 k = 0; k < taken; k++) {
    const u16* head = x + (k < present ? k : 0) * head_dim;
    x_low[k] = load8(head, 8, true);
    x_high[k] = load8(head + half, 8, true);
  }
  const bool norm = a.q_weight.present();
  Eight weight_low = zero8(), weight_high = zero8();
  if (norm) {
    const u16* weight = unit < q_units ? a.q_weight.as<u16>() : a.k_weight.as<u16>();
    weight_low = load8(weight + at, 8, true);
    weight_high = load8(weight + half + at, 8, true);
  }
  const Angles angles = load_angles(a.table.as<f32>() + (u64)position * head_dim, half, at);

  f32 inverse[taken];
  if (norm) {
    f32 squares[taken] = {};
#pragma unroll
    for (u32 k = 0; k < taken; k++)
#pragma unroll
      for (int i = 0; i < 8; i++) squares[k] += x_low[k][i] * x_low[k][i] + x_high[k][i] * x_high[k][i];
    for (int mask = lanes.count / 2; mask > 0; mask /= 2)
#pragma unroll
      for (u32 k = 0; k < taken; k++) squares[k] += shuffle_xor(squares[k], mask);
#pragma unroll
    for (u32 k = 0; k < taken; k++) {
      inverse[k] = reciprocal_root(squares[k] * lanes.inverse_dim + a.epsilon);
      if (active && k < present && at == 0) a.inverse.as<f32>()[(u64)token * heads + first_head + k] = inverse[k];
    }
  }
  if (!active) return;
#pragma unroll
  for (u32 k = 0; k < taken; k++) {
    if (k >= present) break;
    forget(x_low[k]);
    forget(x_high[k]);
    f32 low[8], high[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
      low[i] = x_low[k][i];
      high[i] = x_high[k][i];
      if (norm) {
        low[i] *= inverse[k] * (weight_low[i] + a.offset);
        high[i] *= inverse[k] * (weight_high[i] + a.offset);
      }
    }
    f32 y_low[8], y_high[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
      y_low[i] = low[i] * angles.cos[i] - high[i] * angles.sin[i];
      y_high[i] = high[i] * angles.cos[i] + low[i] * angles.sin[i];
    }
    store8(y + k * head_dim, pack8(y_low), 8, true);
    store8(y + k * head_dim + half, pack8(y_high), 8, true);
  }
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
    const f32 low = from_bfloat16(x[i]) * inverse * (norm ? from_bfloat16(weight[i]) + a.offset : 1.0f);
    const f32 high = from_bfloat16(x[half + i]) * inverse * (norm ? from_bfloat16(weight[half + i]) + a.offset : 1.0f);
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

/** What a thread of the backward pass reads of its heads of a token. */
struct Heads {
  Eight d_low[backward_heads], d_high[backward_heads];
  Eight x_low[backward_heads], x_high[backward_heads];
  f32 inverse[backward_heads];
};

/** Goes through a share's heads, `backward_heads` of a token at a time. */
struct Walk {
  u32 token, unit; // the unit of heads within its token
  u32 step_tokens, step_units, units;

  INLINE void next() {
    token += step_tokens;
    unit += step_units;
    if (unit >= units) {
      unit -= units;
      token++;
    }
  }
};

/** Leaves each block's share of its weight's gradient in the workspace (blocks, D). */
KERNEL(backward_threads, backward_blocks) qk_rope_backward(const QkRopeBackward a, void* workspace, u32 q_blocks) {
  SHARED f32 sums[backward_threads / 32 * fast_head_dim_max];
  constexpr u32 taken = backward_heads;
  const int head_dim = a.head_dim, half = head_dim / 2;
  const Lanes lanes(head_dim);
  const int at = lanes.at();
  const u32 all_heads = a.heads + a.kv_heads;
  const Share share = share_of(a, q_blocks);
  const u32 at_once = backward_threads >> lanes.shift;
  const u32 step = share.blocks * at_once;
  const u32 units = (share.heads + taken - 1) / taken;
  const u32 first = share.block * at_once + lanes.slot();
  Walk walk = {first / units, first % units, step / units, step % units, units};
  const bool norm = a.q_weight.present();
  const u16* weight = share.queries ? a.q_weight.as<u16>() : a.k_weight.as<u16>();
  Eight weight_low = zero8(), weight_high = zero8();
  if (norm) {
    weight_low = load8(weight + at, 8, true);
    weight_high = load8(weight + half + at, 8, true);
  }
  f32 sum_low[8] = {}, sum_high[8] = {};

  // Where there is no head, the last token's first one is read, and counts as zero.
  const auto position_of = [&](const Walk& place) { return a.positions.as<i32>()[place.token < a.tokens ? place.token : a.tokens - 1]; };
  const auto fetch = [&](const Walk& place) {
    const u32 token = place.token < a.tokens ? place.token : a.tokens - 1;
    const u32 present = place.token < a.tokens ? share.heads - place.unit * taken : 0;
    Heads heads;
#pragma unroll
    for (u32 k = 0; k < taken; k++) {
      const u32 head = share.first_head + (k < present ? place.unit * taken + k : 0);
      const u64 offset = ((u64)token * (all_heads + a.kv_heads) + head) * head_dim + at;
      const u16* d = a.d_qkv.as<u16>() + offset;
      const u16* x = a.qkv.as<u16>() + offset;
      heads.d_low[k] = load8(d, 8, true);
      heads.d_high[k] = load8(d + half, 8, true);
      if (norm) {
        heads.x_low[k] = load8(x, 8, true);
        heads.x_high[k] = load8(x + half, 8, true);
        heads.inverse[k] = k < present ? a.inverse.as<f32>()[(u64)token * all_heads + head] : 0.0f;
      }
    }
    return heads;
  };

  const u32 rounds = (a.tokens * units + step - 1 - share.block * at_once) / step; // of the block's first lanes
  i32 position = position_of(walk);
  for (u32 round = 0; round < rounds; round++) {
    Heads heads = fetch(walk);
    const Angles angles = load_angles(a.table.as<f32>() + (u64)position * head_dim, half, at);
    const Walk here = walk;
    walk.next();
    position = position_of(walk); // the angles wait for this
    const u32 present = here.token < a.tokens ? share.heads - here.unit * taken : 0;
#pragma unroll
    for (u32 k = 0; k < taken; k++) {
      f32 low[8], high[8]; // the gradient before the rotation
#pragma unroll
      for (int i = 0; i < 8; i++) {
        low[i] = heads.d_low[k][i] * angles.cos[i] + heads.d_high[k][i] * angles.sin[i];
        high[i] = heads.d_high[k][i] * angles.cos[i] - heads.d_low[k][i] * angles.sin[i];
      }
      if (norm) {
        const f32 inverse = heads.inverse[k]; // 0 where there is no head, and so is what is added
        f32 products = 0;
#pragma unroll
        for (int i = 0; i < 8; i++) {
          const f32 normed_low = heads.x_low[k][i] * inverse, normed_high = heads.x_high[k][i] * inverse;
          products += low[i] * weight_low[i] * normed_low + high[i] * weight_high[i] * normed_high;
          sum_low[i] += low[i] * normed_low;
          sum_high[i] += high[i] * normed_high;
        }
        const f32 mean = lanes_sum(products, lanes.count) * lanes.inverse_dim;
        forget(heads.x_low[k]);
        forget(heads.x_high[k]);
        forget(weight_low);
        forget(weight_high);
#pragma unroll
        for (int i = 0; i < 8; i++) {
          low[i] = inverse * (low[i] * weight_low[i] - heads.x_low[k][i] * inverse * mean);
          high[i] = inverse * (high[i] * weight_high[i] - heads.x_high[k][i] * inverse * mean);
        }
      }
      if (k >= present) continue; // the next head's shuffles find all lanes again
      u16* d = a.d_qkv.as<u16>() + ((u64)here.token * (all_heads + a.kv_heads) + share.first_head + here.unit * taken + k) * head_dim + at;
      store8(d, pack8(low), 8, true);
      store8(d + half, pack8(high), 8, true);
    }
  }
  if (!norm) return;

  // Over the heads of a warp, then over the warps.
#pragma unroll
  for (int i = 0; i < 8; i++)
    for (int mask = warp_size / 2; mask >= lanes.count; mask /= 2) {
      sum_low[i] += shuffle_xor(sum_low[i], mask);
      sum_high[i] += shuffle_xor(sum_high[i], mask);
    }
  if (lane_index() < lanes.count) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      sums[warp_index() * head_dim + at + i] = sum_low[i];
      sums[warp_index() * head_dim + half + at + i] = sum_high[i];
    }
  }
  barrier();
  for (int column = thread_index(); column < head_dim; column += backward_threads) {
    f32 sum = 0;
#pragma unroll
    for (int warp = 0; warp < backward_threads / warp_size; warp++) sum += sums[warp * head_dim + column];
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
        products += low * (from_bfloat16(weight[i]) + a.offset) * normed_low + high * (from_bfloat16(weight[half + i]) + a.offset) * normed_high;
        sums[i] += low * normed_low;
        sums[half + i] += high * normed_high;
      }
      mean = warp_sum(products) / (f32)head_dim;
    }
    for (u32 i = lane_index(); i < half; i += warp_size) {
      const f32 d_low = from_bfloat16(d[i]), d_high = from_bfloat16(d[half + i]);
      f32 low = d_low * cos[i] + d_high * sin[i], high = d_high * cos[i] - d_low * sin[i];
      if (norm) {
        low = inverse * (low * (from_bfloat16(weight[i]) + a.offset) - from_bfloat16(x[i]) * inverse * mean);
        high = inverse * (high * (from_bfloat16(weight[half + i]) + a.offset) - from_bfloat16(x[half + i]) * inverse * mean);
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
