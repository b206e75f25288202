// attention_backward in one walk, five products instead of seven: a block holds a tile of keys and walks the rows that see them, as
// `__dkv` does, and also adds these keys' part of dq to sums in memory (`sums`, float32). Several blocks add to a row's sums; they take
// turns, in the order of their keys, so that the bits are the same each time: the first one stores, the last one scales
// and rounds. A block shows whose turn is next one step after it added; by then its additions have usually arrived.
//
// Why nobody waits for long, or for ever: blocks take their tiles in the order in which they start, early keys first, and wait for
// earlier keys of the same document and key head alone. All walk rows from the last one back, so blocks that start together
// follow each other at a distance of a step. Tiles of long columns of rows come first.
//
// Included by `attention_backward.cu`, where the matrix unit's shared memory is large enough.

namespace sluice {

/** Eight warps hold 128 keys and walk `queries` rows at a time. With `halves` of 2, two warps share 32 keys: each computes the scores of its half
 * of the rows, passes them to the other through shared memory, and sums half of the columns of dk and dv; this reads less shared
 * memory per product, and takes more of it. With 1, a warp has 16 keys. */
template <int D, int halves, int queries> INLINE void joint_gradients(const AttentionBackward& a, u32* shared_words) {
  constexpr int warps = 8, threads = warps * warp_size, keys = 128, blocks = halves, warp_keys = 16 * blocks;
  constexpr int d_out_stages = halves; // with one, the next rows' d_out is fetched when the step has read this one's
  constexpr int warp_queries = queries / halves, wide = warp_queries / 16, columns = D / halves;
  constexpr int dq_blocks = queries / 32, dq_columns = D / 4; // of dq, a warp has one of 2 × 4 parts

  u16* key_tile = shared_tiles();
  u16* value_tile = key_tile + keys * D;
  u16* q_tiles = value_tile + keys * D;
  u16* d_out_tiles = q_tiles + 2 * queries * D;
  u16* ds_tile = d_out_tiles + d_out_stages * queries * D; // (keys, rows)
  u16* p_tile = ds_tile + keys * queries;                  // with two halves
  f32* statistics = reinterpret_cast<f32*>(p_tile + (halves - 1) * keys * queries); // two stages of lse, then delta
  u32* shown = reinterpret_cast<u32*>(statistics + 4 * queries); // thread 0's: which turn it has to show, and its number, or 0

  u32* turns = shared_words + 1;
  if (thread_index() == 0) shown[0] = take_ticket(shared_words);
  barrier();
  const u32 ticket = shown[0];
  barrier();
  if (thread_index() == 0) shown[1] = 0;
  const int kv_head = (int)(ticket % a.kv_heads), group = a.heads / a.kv_heads;
  const Slot slot = find_slot<keys>(a.starts.as<int>(), a.documents, 1, (int)(ticket / a.kv_heads));
  if (slot.first >= slot.length) return;
  const int count = smaller(keys, slot.length - slot.first), window = a.window;
  const int end = window == 0 ? slot.length : smaller(slot.length, slot.first + count - 1 + window);

  Gradients at{a, slot.start, kv_head * group, kv_head};
  TileCopy<keys, D, threads, true, true> held;
  held.fetch(key_tile, count, D, at.key_at(slot.first), at.qk_stride());
  held.fetch(value_tile, count, D, at.value_at(slot.first), at.qkv_stride());
  TileCopy<queries, D, threads, true, true> walked;
  const auto fetch_q = [&](int row, int stage) {
    walked.fetch(q_tiles + stage * queries * D, end - row, D, at.q_at(row), at.qk_stride());
    // Rows beyond the end have zeros for d_out, lse and delta, and so no gradient.
    if (thread_index() < 2 * queries) {
      const int mine = row + thread_index() % queries;
      const f32* from = (thread_index() < queries ? a.lse : a.delta).template as<f32>() + at.statistic(smaller(mine, end - 1));
      copy_word_async(statistics + 2 * stage * queries + thread_index(), from, mine < end);
    }
  };
  const auto fetch_d_out = [&](int row, int stage) {
    walked.fetch(d_out_tiles + stage % d_out_stages * queries * D, end - row, D, at.d_out_at(row), at.out_stride());
  };
  const auto show = [&] {
    grid_fence();
    if (shown[1] != 0) poke(turns + shown[0], shown[1]);
  };

  // Asked for anew in each part of a step, so that what follows from it does not wait in registers.
  struct Place {
    int lane, key, half, query, dq_row, dq_column;
  };
  const auto place = []() -> Place {
    u32 thread = thread_index();
    forget(thread);
    const int warp = thread / warp_size, half = warp % halves;
    return {(int)(thread % warp_size), warp / halves * warp_keys, half, half * warp_queries, warp / 4 * 16 * dq_blocks, warp % 4 * dq_columns};
  };

  const f32 scale = a.scale * log2_e;
  Accumulator dk[blocks][columns / 16], dv[blocks][columns / 16];
#pragma unroll
  for (int b = 0; b < blocks; b++)
#pragma unroll
    for (int d = 0; d < columns / 16; d++) clear(dk[b][d]), clear(dv[b][d]);

  int row_next = (end - 1) / queries * queries, stage = 0;
  fetch_q(row_next, stage);
  fetch_d_out(row_next, stage);
  bool more;
#pragma unroll 1
  do {
    copies_landed();
    barrier();
    const int head = at.head, row_now = row_next;
    const u16* q_tile = q_tiles + stage * queries * D;
    const u16* d_out_tile = d_out_tiles + stage % d_out_stages * queries * D;
    const f32* lse_tile = statistics + 2 * stage * queries;
    stage ^= 1;
    if (++at.head == (kv_head + 1) * group) at.head = kv_head * group, row_next -= queries;
    more = row_next >= slot.first;
    if (more) {
      fetch_q(row_next, stage);
      if (d_out_stages > 1) fetch_d_out(row_next, stage);
    }
    // So many tiles of keys come before this one.
    const u32 before = (u32)slot.first / keys - (window == 0 ? 0 : larger(0, row_now + 1 - window) / keys);
    const u32 turn = head * (a.tokens / queries + a.documents) + slot.start / queries + slot.document + row_now / queries;
    u32 turn_now = 0;
    if (thread_index() == 0) {
      turn_now = peek(turns + turn);
      show();
    }

    const Place early = place();
    const int key_first = slot.first + early.key;
    LeftTile<D> key_rows(key_tile, early.key, early.lane); // and the values' behind them
    RightTile<D> q_columns(q_tile + early.query * D, early.lane), d_out_columns(d_out_tile + early.query * D, early.lane);
    Accumulator p[blocks][wide], ds[blocks][wide];
#pragma unroll
    for (int b = 0; b < blocks; b++)
#pragma unroll
      for (int j = 0; j < wide; j++) clear(p[b][j]), clear(ds[b][j]);
#pragma unroll
    for (int d = 0; d < D; d += 16) {
      Left left[blocks];
#pragma unroll
      for (int b = 0; b < blocks; b++) left[b] = key_rows.load(16 * b, d);
#pragma unroll
      for (int j = 0; j < wide; j++) {
        const Right right = q_columns.load(16 * j, d);
#pragma unroll
        for (int b = 0; b < blocks; b++) multiply(p[b][j], left[b], right);
      }
    }
#pragma unroll
    for (int d = 0; d < D; d += 16) {
      Left left[blocks];
#pragma unroll
      for (int b = 0; b < blocks; b++) left[b] = key_rows.load(keys + 16 * b, d);
#pragma unroll
      for (int j = 0; j < wide; j++) {
        const Right right = d_out_columns.load(16 * j, d);
#pragma unroll
        for (int b = 0; b < blocks; b++) multiply(ds[b][j], left[b], right);
      }
    }

    if (row_now + early.query < key_first + warp_keys - 1 || (window != 0 && row_now + queries - 1 >= key_first + window)) {
#pragma unroll
      for (int b = 0; b < blocks; b++)
#pragma unroll
        for (int j = 0; j < wide; j++)
#pragma unroll
          for (int i = 0; i < accumulator_elements; i++) {
            const int behind = row_now + early.query + 16 * j + column_of(column_slot(i)) - (key_first + 16 * b + row_of(row_slot(i)));
            if (behind < 0 || (window != 0 && behind >= window)) p[b][j].x[i] = -infinity;
          }
    }
    LeftStore<queries> ds_store(ds_tile, early.key, early.query, early.lane); // and P's behind it
    TransposedTile<D> q_own(q_tile, early.half * columns, early.lane), d_out_own(d_out_tile, early.half * columns, early.lane);
    Left p_left[blocks][wide], ds_left[blocks][wide];
#pragma unroll
    for (int j = 0; j < wide; j++) {
      f32 lse[columns_per_lane], delta[columns_per_lane];
      load_columns(lse, lse_tile + early.query + 16 * j);
      load_columns(delta, lse_tile + queries + early.query + 16 * j);
#pragma unroll
      for (int slot = 0; slot < columns_per_lane; slot++) lse[slot] *= -log2_e;
#pragma unroll
      for (int b = 0; b < blocks; b++) {
#pragma unroll
        for (int i = 0; i < accumulator_elements; i++) {
          p[b][j].x[i] = exp2_fast(multiply_add(p[b][j].x[i], scale, lse[column_slot(i)]));
          ds[b][j].x[i] = p[b][j].x[i] * (ds[b][j].x[i] - delta[column_slot(i)]);
        }
        p_left[b][j] = left_of(p[b][j]);
        ds_left[b][j] = left_of(ds[b][j]);
        if (halves > 1) ds_store.store(keys + 16 * b, 16 * j, p_left[b][j]);
        ds_store.store(16 * b, 16 * j, ds_left[b][j]);
      }
    }
#pragma unroll
    for (int j = 0; j < wide; j++)
#pragma unroll
      for (int d = 0; d < columns / 16; d++) {
        const Right right = d_out_own.load(early.query + 16 * j, 16 * d);
#pragma unroll
        for (int b = 0; b < blocks; b++) multiply(dv[b][d], p_left[b][j], right);
      }
#pragma unroll
    for (int j = 0; j < wide; j++)
#pragma unroll
      for (int d = 0; d < columns / 16; d++) {
        const Right right = q_own.load(early.query + 16 * j, 16 * d);
#pragma unroll
        for (int b = 0; b < blocks; b++) multiply(dk[b][d], ds_left[b][j], right);
      }

    if (thread_index() == 0 && turn_now != before) {
      while (peek(turns + turn) != before) {}
      grid_fence();
    }
    barrier();
    if (d_out_stages == 1 && more) fetch_d_out(row_next, stage);

    const Place late = place();
    if (halves > 1) {
      const int other = warp_queries - late.query;
      LeftTile<queries> ds_rows(ds_tile, late.key, late.lane); // and P's behind them
      TransposedTile<D> q_other(q_tile, late.half * columns, late.lane), d_out_other(d_out_tile, late.half * columns, late.lane);
#pragma unroll
      for (int j = 0; j < wide; j++) {
        Left left[blocks];
#pragma unroll
        for (int b = 0; b < blocks; b++) left[b] = ds_rows.load(keys + 16 * b, other + 16 * j);
#pragma unroll
        for (int d = 0; d < columns / 16; d++) {
          const Right right = d_out_other.load(other + 16 * j, 16 * d);
#pragma unroll
          for (int b = 0; b < blocks; b++) multiply(dv[b][d], left[b], right);
        }
      }
#pragma unroll
      for (int j = 0; j < wide; j++) {
        Left left[blocks];
#pragma unroll
        for (int b = 0; b < blocks; b++) left[b] = ds_rows.load(16 * b, other + 16 * j);
#pragma unroll
        for (int d = 0; d < columns / 16; d++) {
          const Right right = q_other.load(other + 16 * j, 16 * d);
#pragma unroll
          for (int b = 0; b < blocks; b++) multiply(dk[b][d], left[b], right);
        }
      }
    }

    LeftTransposedTile<queries> ds_columns(ds_tile, late.dq_row, late.lane);
    TransposedTile<D> key_columns(key_tile, late.dq_column, late.lane);
    Accumulator dq[dq_blocks][dq_columns / 16];
#pragma unroll
    for (int b = 0; b < dq_blocks; b++)
#pragma unroll
      for (int d = 0; d < dq_columns / 16; d++) clear(dq[b][d]);
#pragma unroll
    for (int k = 0; k < keys; k += 16) {
      Left left[dq_blocks];
#pragma unroll
      for (int b = 0; b < dq_blocks; b++) left[b] = ds_columns.load(16 * b, k);
#pragma unroll
      for (int d = 0; d < dq_columns / 16; d++) {
        const Right right = key_columns.load(k, 16 * d);
#pragma unroll
        for (int b = 0; b < dq_blocks; b++) multiply(dq[b][d], left[b], right);
      }
    }

    const bool first = before == 0, last = slot.first / keys == row_now / keys;
#pragma unroll
    for (int b = 0; b < dq_blocks; b++)
#pragma unroll
      for (int r = 0; r < rows_per_lane; r++) {
        const int row = row_now + late.dq_row + 16 * b + 8 * r + late.lane / 4;
        const bool present = row < slot.length;
        const Sums sums(a.sums.as<f32>(), a.tokens, a.heads * D, slot.start + row, head * D + late.dq_column, late.lane);
#pragma unroll
        for (int d = 0; d < dq_columns / 16; d++) {
          const f32 (&x)[8] = dq[b][d].x;
          f32 part[4] = {x[2 * r], x[2 * r + 1], x[2 * r + 4], x[2 * r + 5]};
          if (last) {
            if (!present) continue;
            f32 sum[4] = {0, 0, 0, 0};
            if (!first) sums.load(16 * d, sum);
            u16* to = a.d_qkv.as<u16>() + ((u64)(slot.start + row) * at.qkv_stride() + head * D + late.dq_column + late.lane % 4 * 2 + 16 * d);
            *reinterpret_cast<u32*>(to) = to_bfloat16_pair((sum[0] + part[0]) * a.scale, (sum[1] + part[1]) * a.scale);
            *reinterpret_cast<u32*>(to + 8) = to_bfloat16_pair((sum[2] + part[2]) * a.scale, (sum[3] + part[3]) * a.scale);
          } else if (first) sums.store(16 * d, part, present);
          else sums.add(16 * d, part, present);
        }
      }
    if (thread_index() == 0) shown[0] = turn, shown[1] = last ? 0 : before + 1;
  } while (more);

  barrier(); // keys and values are not read any more
  if (thread_index() == 0) show();
  const Place own = place();
#pragma unroll
  for (int b = 0; b < blocks; b++)
#pragma unroll
    for (int d = 0; d < columns / 16; d++) {
#pragma unroll
      for (int i = 0; i < accumulator_elements; i++) dk[b][d].x[i] *= a.scale;
      store_accumulator<D>(key_tile, own.key + 16 * b, own.half * columns + 16 * d, dk[b][d]);
      store_accumulator<D>(value_tile, own.key + 16 * b, own.half * columns + 16 * d, dv[b][d]);
    }
  barrier();
  store_rows<keys, D, threads, true>(key_tile, count, D, [&](int row) { return at.d_key_at(slot.first + row); });
  store_rows<keys, D, threads, true>(value_tile, count, D, [&](int row) { return at.d_value_at(slot.first + row); });
}

} // namespace sluice
