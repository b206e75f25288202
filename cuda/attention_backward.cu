// attention_backward: gradients of attention from the log-sum-exp that forward kept (FlashAttention-2, Dao 2023), in three kernels:
// `__delta` computes rowsum(d_out ∘ out); `__dkv` gives a block a tile of keys, which gathers dk and dv over all rows and all
// query heads that see it; `_dq` gives a block a tile of rows, which gathers dq over all keys it sees. Scores are computed twice; in
// exchange every value has one writer and one order of summation, so results are the same bits each time, and neither
// atomics nor buffers for sums are needed. Where the caller has room for sums, `_joint` computes them once: `attention_joint.cuh`.
//
// Grids: (heads or key heads, tile numbers[, column halves]). Scores and their gradients never leave the registers: in `__dkv` a
// warp's rows are 16 keys and its columns are query rows, in `_dq` the other way round, so that both sums find P and dS as left
// operands.

#include <attention.cuh>

namespace sluice {

/** Where one document's rows of a head lie. Addresses are computed when asked for. */
struct Gradients {
  const AttentionBackward& a;
  int start, head, kv_head;

  INLINE u32 qk_stride() const { return (a.heads + a.kv_heads) * a.head_dim; }
  INLINE u32 qkv_stride() const { return (a.heads + 2 * a.kv_heads) * a.head_dim; }
  INLINE u32 out_stride() const { return a.heads * a.head_dim; }
  INLINE const u16* q_at(int row) const { return a.qk.as<u16>() + ((u64)(start + row) * qk_stride() + head * a.head_dim); }
  INLINE const u16* key_at(int row) const {
    return a.qk.as<u16>() + ((u64)(start + row) * qk_stride() + (a.heads + kv_head) * a.head_dim);
  }
  INLINE const u16* value_at(int row) const {
    return a.qkv.as<u16>() + ((u64)(start + row) * qkv_stride() + (a.heads + a.kv_heads + kv_head) * a.head_dim);
  }
  INLINE const u16* d_out_at(int row) const { return a.d_out.as<u16>() + ((u64)(start + row) * out_stride() + head * a.head_dim); }
  INLINE u16* d_q_at(int row) const { return a.d_qkv.as<u16>() + ((u64)(start + row) * qkv_stride() + head * a.head_dim); }
  INLINE u16* d_key_at(int row) const {
    return a.d_qkv.as<u16>() + ((u64)(start + row) * qkv_stride() + (a.heads + kv_head) * a.head_dim);
  }
  INLINE u16* d_value_at(int row) const { return d_key_at(row) + a.kv_heads * a.head_dim; }
  INLINE u64 statistic(int row) const { return (u64)head * a.tokens + start + row; }
  INLINE f32 lse_at(int row) const { return a.lse.as<f32>()[statistic(row)]; }
  INLINE f32 delta_at(int row) const { return a.delta.as<f32>()[statistic(row)]; }
};

// ---- dk and dv --------------------------------------------------------------------------------------------------------

/** 16 keys per warp; `queries` rows are walked at a time. A block sums `columns` of the D columns of dk and dv, starting at
 * block_index_z · columns: the sums of all 256 columns would not fit into registers. */
template <int D, int columns, int warps, int queries, bool vectors> INLINE void key_gradients(const AttentionBackward& a) {
  constexpr int keys = 16 * warps, threads = warps * warp_size;
  const int kv_head = (int)block_index(), group = a.heads / a.kv_heads;
  const Slot slot = find_slot<keys>(a.starts.as<int>(), a.documents, 1, (int)block_index_y());
  if (slot.first >= slot.length) return;
  const int count = smaller(keys, slot.length - slot.first);
  const int window = a.window, width = a.head_dim;

  u16* key_tile = shared_tiles();
  u16* value_tile = key_tile + keys * tile_stride<D>;
  u16* q_tiles = value_tile + keys * tile_stride<D>;
  u16* d_out_tiles = q_tiles + copy_stages * queries * tile_stride<D>;
  f32* lse_rows = reinterpret_cast<f32*>(d_out_tiles + copy_stages * queries * tile_stride<D>);
  f32* delta_rows = lse_rows + copy_stages * queries;

  // The rows that see these keys, for each query head of the group in turn.
  const int begin = slot.first / queries * queries;
  const int end = window == 0 ? slot.length : smaller(slot.length, slot.first + count - 1 + window);

  TileCopy<keys, D, threads, vectors> key_copy, value_copy;
  Gradients at{a, slot.start, kv_head * group, kv_head};
  key_copy.fetch(key_tile, count, width, at.key_at(slot.first), at.qk_stride());
  value_copy.fetch(value_tile, count, width, at.value_at(slot.first), at.qkv_stride());
  key_copy.land(key_tile);
  value_copy.land(value_tile);

  TileCopy<queries, D, threads, vectors> q_copy, d_out_copy;
  f32 lse_waiting = 0, delta_waiting = 0;
  const auto fetch = [&](int row_first, int stage) {
    q_copy.fetch(q_tiles + stage * queries * tile_stride<D>, end - row_first, width, at.q_at(row_first), at.qk_stride());
    d_out_copy.fetch(d_out_tiles + stage * queries * tile_stride<D>, end - row_first, width, at.d_out_at(row_first), at.out_stride());
    if (thread_index() < queries) {
      const int row = row_first + thread_index();
      lse_waiting = row < end ? at.lse_at(row) * log2_e : infinity; // makes P of rows beyond the end zero
      delta_waiting = row < end ? at.delta_at(row) : 0;
    }
  };
  const auto land = [&](int stage) {
    q_copy.land(q_tiles + stage * queries * tile_stride<D>);
    d_out_copy.land(d_out_tiles + stage * queries * tile_stride<D>);
    if (thread_index() < queries) {
      lse_rows[stage * queries + thread_index()] = lse_waiting;
      delta_rows[stage * queries + thread_index()] = delta_waiting;
    }
  };

  const int warp_key = thread_index() / warp_size * 16;
  const int key_first = slot.first + warp_key;
  const int column_first = (int)block_index_z() * columns;
  const f32 scale = a.scale * log2_e;
  Accumulator dk[columns / 16], dv[columns / 16];
#pragma unroll
  for (int d = 0; d < columns / 16; d++) clear(dk[d]), clear(dv[d]);

  LeftTile<D> key_rows(key_tile, warp_key), value_rows(value_tile, warp_key);
  const int head_end = at.head + group;
  int row_first = begin, stage = 0;
  fetch(row_first, stage);
  while (at.head < head_end) {
    if (copy_stages == 1) barrier(); // the tile is not read any more
    land(stage);
    barrier();
    const u16* q_tile = q_tiles + stage * queries * tile_stride<D>;
    const u16* d_out_tile = d_out_tiles + stage * queries * tile_stride<D>;
    const f32* lse_tile = lse_rows + stage * queries;
    const f32* delta_tile = delta_rows + stage * queries;
    const int row_now = row_first, row_last = row_now + queries - 1;
    stage = (stage + 1) % copy_stages;
    row_first += queries;
    if (row_first >= end) row_first = begin, at.head++;
    if (at.head < head_end) fetch(row_first, stage);
    if (row_last < key_first || (window != 0 && row_now >= key_first + 15 + window)) continue;

    key_rows.renew(), value_rows.renew();
    RightTile<D> q_columns(q_tile), d_out_columns(d_out_tile);
    TransposedTile<D> q_transposed(q_tile, column_first), d_out_transposed(d_out_tile, column_first);
    q_columns.renew(), d_out_columns.renew(), q_transposed.renew(), d_out_transposed.renew();
    Accumulator p[queries / 16], ds[queries / 16];
#pragma unroll
    for (int j = 0; j < queries / 16; j++) clear(p[j]), clear(ds[j]);
#pragma unroll
    for (int d = 0; d < D; d += 16) {
      const Left left = key_rows.load(0, d);
#pragma unroll
      for (int j = 0; j < queries / 16; j++) multiply(p[j], left, q_columns.load(16 * j, d));
    }
#pragma unroll
    for (int d = 0; d < D; d += 16) {
      const Left left = value_rows.load(0, d);
#pragma unroll
      for (int j = 0; j < queries / 16; j++) multiply(ds[j], left, d_out_columns.load(16 * j, d));
    }

    const bool masked = row_now < key_first + 15 || (window != 0 && row_last >= key_first + window);
#pragma unroll
    for (int j = 0; j < queries / 16; j++) {
      f32 lse[columns_per_lane], delta[columns_per_lane];
      load_columns(lse, lse_tile + 16 * j);
      load_columns(delta, delta_tile + 16 * j);
#pragma unroll
      for (int i = 0; i < accumulator_elements; i++) {
        f32 value = exp2_fast(multiply_add(p[j].x[i], scale, -lse[column_slot(i)]));
        if (masked) {
          const int behind = row_now + 16 * j + column_of(column_slot(i)) - (key_first + row_of(row_slot(i)));
          if (behind < 0 || (window != 0 && behind >= window)) value = 0;
        }
        p[j].x[i] = value;
        ds[j].x[i] = value * (ds[j].x[i] - delta[column_slot(i)]);
      }
    }

#pragma unroll
    for (int j = 0; j < queries / 16; j++) {
      const Left left = left_of(p[j]);
#pragma unroll
      for (int d = 0; d < columns / 16; d++) multiply(dv[d], left, d_out_transposed.load(16 * j, 16 * d));
    }
#pragma unroll
    for (int j = 0; j < queries / 16; j++) {
      const Left left = left_of(ds[j]);
#pragma unroll
      for (int d = 0; d < columns / 16; d++) multiply(dk[d], left, q_transposed.load(16 * j, 16 * d));
    }
  }

  barrier(); // keys and values are not read any more
#pragma unroll
  for (int d = 0; d < columns / 16; d++) {
#pragma unroll
    for (int i = 0; i < accumulator_elements; i++) dk[d].x[i] *= a.scale;
    store_accumulator<columns>(key_tile, warp_key, 16 * d, dk[d]);
    store_accumulator<columns>(value_tile, warp_key, 16 * d, dv[d]);
  }
  barrier();
  const int columns_left = width - column_first;
  store_rows<keys, columns, threads, vectors>(key_tile, count, columns_left, [&](int row) { return at.d_key_at(slot.first + row) + column_first; });
  store_rows<keys, columns, threads, vectors>(value_tile, count, columns_left, [&](int row) { return at.d_value_at(slot.first + row) + column_first; });
}

// ---- dq ---------------------------------------------------------------------------------------------------------------

/** `blocks` times 16 rows per warp; `keys` are walked at a time. */
template <int D, int blocks, int warps, int keys, bool vectors> INLINE void query_gradients(const AttentionBackward& a) {
  constexpr int rows = 16 * blocks * warps, threads = warps * warp_size;
  const int head = (int)block_index();
  const Slot slot = find_slot<rows>(a.starts.as<int>(), a.documents, 1, (int)(block_count_y() - 1 - block_index_y()));
  if (slot.first >= slot.length) return;
  const int count = smaller(rows, slot.length - slot.first);
  const int window = a.window, width = a.head_dim;

  u16* q_tile = shared_tiles();
  u16* d_out_tile = q_tile + rows * tile_stride<D>;
  u16* key_tiles = d_out_tile + rows * tile_stride<D>;
  u16* value_tiles = key_tiles + copy_stages * keys * tile_stride<D>;

  const int end = slot.first + count;
  const int begin = window == 0 ? 0 : larger(0, slot.first + 1 - window) / keys * keys;
  const Gradients at{a, slot.start, head, head / (int)(a.heads / a.kv_heads)};

  TileCopy<rows, D, threads, vectors> q_copy, d_out_copy;
  q_copy.fetch(q_tile, count, width, at.q_at(slot.first), at.qk_stride());
  d_out_copy.fetch(d_out_tile, count, width, at.d_out_at(slot.first), at.out_stride());
  q_copy.land(q_tile);
  d_out_copy.land(d_out_tile);

  TileCopy<keys, D, threads, vectors> key_copy, value_copy;
  const auto fetch = [&](int key, int stage) {
    key_copy.fetch(key_tiles + stage * keys * tile_stride<D>, end - key, width, at.key_at(key), at.qk_stride());
    value_copy.fetch(value_tiles + stage * keys * tile_stride<D>, end - key, width, at.value_at(key), at.qkv_stride());
  };

  const int warp_row = thread_index() / warp_size * 16 * blocks;
  const int row_first = slot.first + warp_row, row_last = row_first + 16 * blocks - 1;
  const f32 scale = a.scale * log2_e;
  Accumulator dq[blocks][D / 16];
  f32 lse[blocks][rows_per_lane], delta[blocks][rows_per_lane];
#pragma unroll
  for (int b = 0; b < blocks; b++) {
#pragma unroll
    for (int d = 0; d < D / 16; d++) clear(dq[b][d]);
#pragma unroll
    for (int slot = 0; slot < rows_per_lane; slot++) {
      const int row = row_first + 16 * b + row_of(slot);
      lse[b][slot] = row < end ? at.lse_at(row) * log2_e : infinity;
      delta[b][slot] = row < end ? at.delta_at(row) : 0;
    }
  }

  LeftTile<D> q_rows(q_tile, warp_row), d_out_rows(d_out_tile, warp_row);
  int stage = 0;
  fetch(begin, stage);
  for (int key = begin; key < end; key += keys) {
    if (copy_stages == 1) barrier(); // the tile is not read any more
    key_copy.land(key_tiles + stage * keys * tile_stride<D>);
    value_copy.land(value_tiles + stage * keys * tile_stride<D>);
    barrier();
    const u16* key_tile = key_tiles + stage * keys * tile_stride<D>;
    const u16* value_tile = value_tiles + stage * keys * tile_stride<D>;
    const int key_last = key + keys - 1;
    stage = (stage + 1) % copy_stages;
    if (key + keys < end) fetch(key + keys, stage);
    if (key > row_last || (window != 0 && key_last + window <= row_first)) continue;

    q_rows.renew(), d_out_rows.renew();
    RightTile<D> key_columns(key_tile), value_columns(value_tile);
    TransposedTile<D> key_transposed(key_tile, 0);
    key_columns.renew(), value_columns.renew(), key_transposed.renew();
    Accumulator p[blocks][keys / 16], ds[blocks][keys / 16];
#pragma unroll
    for (int b = 0; b < blocks; b++)
#pragma unroll
      for (int j = 0; j < keys / 16; j++) clear(p[b][j]), clear(ds[b][j]);
#pragma unroll
    for (int d = 0; d < D; d += 16) {
      Left left[blocks];
#pragma unroll
      for (int b = 0; b < blocks; b++) left[b] = q_rows.load(16 * b, d);
#pragma unroll
      for (int j = 0; j < keys / 16; j++) {
        const Right right = key_columns.load(16 * j, d);
#pragma unroll
        for (int b = 0; b < blocks; b++) multiply(p[b][j], left[b], right);
      }
    }
#pragma unroll
    for (int d = 0; d < D; d += 16) {
      Left left[blocks];
#pragma unroll
      for (int b = 0; b < blocks; b++) left[b] = d_out_rows.load(16 * b, d);
#pragma unroll
      for (int j = 0; j < keys / 16; j++) {
        const Right right = value_columns.load(16 * j, d);
#pragma unroll
        for (int b = 0; b < blocks; b++) multiply(ds[b][j], left[b], right);
      }
    }

    const bool masked = key_last > row_first || (window != 0 && key + window <= row_last);
#pragma unroll
    for (int b = 0; b < blocks; b++)
#pragma unroll
      for (int j = 0; j < keys / 16; j++)
#pragma unroll
        for (int i = 0; i < accumulator_elements; i++) {
          f32 value = exp2_fast(multiply_add(p[b][j].x[i], scale, -lse[b][row_slot(i)]));
          if (masked) {
            const int behind = row_first + 16 * b + row_of(row_slot(i)) - (key + 16 * j + column_of(column_slot(i)));
            if (behind < 0 || (window != 0 && behind >= window)) value = 0;
          }
          ds[b][j].x[i] = value * (ds[b][j].x[i] - delta[b][row_slot(i)]);
        }

#pragma unroll
    for (int j = 0; j < keys / 16; j++) {
      Left left[blocks];
#pragma unroll
      for (int b = 0; b < blocks; b++) left[b] = left_of(ds[b][j]);
#pragma unroll
      for (int d = 0; d < D / 16; d++) {
        const Right right = key_transposed.load(16 * j, 16 * d);
#pragma unroll
        for (int b = 0; b < blocks; b++) multiply(dq[b][d], left[b], right);
      }
    }
  }

  barrier(); // q is not read any more
#pragma unroll
  for (int b = 0; b < blocks; b++)
#pragma unroll
    for (int d = 0; d < D / 16; d++) {
#pragma unroll
      for (int i = 0; i < accumulator_elements; i++) dq[b][d].x[i] *= a.scale;
      store_accumulator<D>(q_tile, warp_row + 16 * b, 16 * d, dq[b][d]);
    }
  barrier();
  store_rows<rows, D, threads, vectors>(q_tile, count, width, [&](int row) { return at.d_q_at(slot.first + row); });
}

} // namespace sluice

#if SLUICE_WIDE
#include <attention_joint.cuh>
#endif

using namespace sluice;

/** delta (H, T): 16 lanes per row of D; a block has 64 tokens of one head. Grid: (heads, token tiles). */
KERNEL(128, 1) attention_backward__delta(const AttentionBackward a, void*) {
  const int lane = thread_index() % 16, head = (int)block_index();
  const u64 D = a.head_dim;
  const bool vectors = D % 8 == 0 && is_aligned(a.d_out.address, 16) && is_aligned(a.out.address, 16);
  for (int r = thread_index() / 16; r < 64; r += 8) {
    const u64 token = (u64)block_index_y() * 64 + r;
    const bool present = token < a.tokens; // lanes stay together for the sum
    const u64 at = present ? (token * a.heads + head) * D : 0;
    const u16* d_out = a.d_out.as<u16>() + at;
    const u16* out = a.out.as<u16>() + at;
    f32 sum = 0;
    if (vectors)
      for (u64 i = lane * 8; i < D; i += 128) {
        const Eight x = load8(d_out + i, 8, true), y = load8(out + i, 8, true);
#pragma unroll
        for (int c = 0; c < 8; c++) sum = multiply_add(x[c], y[c], sum);
      }
    else
      for (u64 i = lane; i < D; i += 16) sum = multiply_add(from_bfloat16(d_out[i]), from_bfloat16(out[i]), sum);
#pragma unroll
    for (int step = 8; step > 0; step /= 2) sum += shuffle_xor(sum, step);
    if (present && lane == 0) a.delta.as<f32>()[head * (u64)a.tokens + token] = sum;
  }
}

KERNEL((many ? 8 : 4) * warp_size, 1) attention_backward__dkv_d64(const AttentionBackward a, void*) {
  key_gradients<64, 64, many ? 8 : 4, 32, true>(a);
}
KERNEL((many ? 8 : 4) * warp_size, 1) attention_backward__dkv_d128(const AttentionBackward a, void*) {
  key_gradients<128, 128, many ? 8 : 4, many ? 32 : 16, true>(a);
}
KERNEL((many ? 4 : 2) * warp_size, 1) attention_backward__dkv_d256(const AttentionBackward a, void*) {
  key_gradients<256, many ? 128 : 64, many ? 4 : 2, 16, true>(a);
}
KERNEL((many ? 4 : 2) * warp_size, 1) attention_backward__dkv_any(const AttentionBackward a, void*) {
  key_gradients<256, many ? 128 : 64, many ? 4 : 2, 16, false>(a);
}

KERNEL(4 * warp_size, 1) attention_backward_dq_d64(const AttentionBackward a, void*) {
  query_gradients<64, copy_stages, 4, 32, true>(a);
}
KERNEL((many ? 8 : 4) * warp_size, 1) attention_backward_dq_d128(const AttentionBackward a, void*) {
  query_gradients<128, 1, many ? 8 : 4, 32, true>(a);
}
KERNEL((many ? 4 : 2) * warp_size, 1) attention_backward_dq_d256(const AttentionBackward a, void*) {
  query_gradients<256, 1, many ? 4 : 2, 16, true>(a);
}
KERNEL((many ? 4 : 2) * warp_size, 1) attention_backward_dq_any(const AttentionBackward a, void*) {
  query_gradients<256, 1, many ? 4 : 2, 16, false>(a);
}
#if SLUICE_WIDE
KERNEL(4 * warp_size, 1) attention_backward_dq_d128_wide(const AttentionBackward a, void*) {
  query_gradients<128, 2, 4, wide_walked, true>(a);
}
KERNEL(8 * warp_size, 1) attention_backward_joint_d64(const AttentionBackward a, void* words) { joint_gradients<64, 2, 64>(a, static_cast<u32*>(words)); }
KERNEL(8 * warp_size, 1) attention_backward_joint_d128(const AttentionBackward a, void* words) { joint_gradients<128, 1, 32>(a, static_cast<u32*>(words)); }
KERNEL(8 * warp_size, 1) attention_backward_joint_d128_wide(const AttentionBackward a, void* words) { joint_gradients<128, 2, 64>(a, static_cast<u32*>(words)); }
#endif
