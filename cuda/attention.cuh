// What forward, backward and cached attention share: how a block finds its tile of rows among packed documents, how a finished
// tile goes back to memory, and the forward pass of one tile (FlashAttention-2, Dao 2023). `zig/device/cpu/attention.zig` is the
// same algorithm for the CPU; `zig/device/gpu/attention.zig` launches these kernels and knows their shapes.

#pragma once
#include <matrix.cuh>

namespace sluice {

constexpr f32 log2_e = 1.4426950408889634f;
constexpr f32 ln_2 = 0.6931471805599453f;
/** Softmax of a row starts below every score, but finite, so that a fully masked tile gives zeros and not NaN. */
constexpr f32 lowest = -1e30f;
constexpr f32 infinity = __builtin_inff();

/** Two stages of tiles mean NVIDIA's shared memory; AMD's 64 KB take half the rows. */
constexpr bool many = copy_stages == 2;

INLINE int smaller(int a, int b) { return a < b ? a : b; }
INLINE int larger(int a, int b) { return a > b ? a : b; }

// ---- tiles of packed documents ----------------------------------------------------------------------------------------

/** A tile of one document: rows `first`… of a document that starts at token `start` and has `length` tokens. */
struct Slot {
  int document, start, length, first;
};

/** The tile with this number; its `first` lies behind the document's last row where the number has no tile. Tiles start at the
 * document's start, so its result does not depend on its neighbours. They are numbered without a table: document d's begin at
 * start · per_token / rows + d, which leaves room for each document's last, partial tile. The first document that begins
 * behind `number` is found by counting, because one look at all is faster than a search whose every step waits for memory. */
template <int rows> INLINE Slot find_slot(const int* starts, int documents, int per_token, int number) {
  u32 before = 0;
  for (int d = lane_index(); d < documents; d += warp_size)
    before += (u32)((u64)starts[d] * per_token / rows) + d <= (u32)number;
#pragma unroll
  for (int step = warp_size / 2; step > 0; step /= 2) before += shuffle_xor(before, step);
  const int document = (int)before - 1;
  const int start = starts[document];
  const int offset = (int)((u64)start * per_token / rows) + document;
  return {document, start, starts[document + 1] - start, (number - offset) * rows};
}

/** Writes the first `count` rows of a shared tile and `width` columns of them. */
template <int rows, int D, int threads, bool vectors, typename RowAt>
INLINE void store_rows(const u16* tile, int count, int width, RowAt row_at) {
  constexpr int chunks = D / 8;
  for (int index = thread_index(); index < rows * chunks; index += threads) {
    const int row = index / chunks, column = index % chunks * 8;
    if (row >= count || column >= width) continue;
    store8(row_at(row) + column, load8(tile + tile_offset<D>(row, column), 8, true), vectors ? 8 : width - column, vectors);
  }
}

// ---- forward ----------------------------------------------------------------------------------------------------------

/** Rows first … first + 16 · blocks · warps of one sequence: all keys that they see, and the finished output. A warp owns `blocks`
 * times 16 rows. `keys` are walked at a time: while their scores are computed the values arrive, and while the values are
 * multiplied the next keys. `Source` says where rows lie; it computes addresses when asked, because a pointer that waits in
 * a register for the end costs more than it saves:
 *   rows(), window(), width(), scale(); position_of(row) among the keys; q_at(row) and out_at(row), row's head;
 *   key_at(key), key_stride(), value_at(key), value_stride(); lse_at(row), null without. */
template <int D, int blocks, int warps, int keys, bool vectors, typename Source> INLINE void forward_tile(const Source& source, int first) {
  constexpr int rows = 16 * blocks * warps, threads = warps * warp_size;
  u16* q_tile = shared_tiles();
  u16* key_tile = q_tile + rows * tile_stride<D>;
  u16* value_tile = key_tile + keys * tile_stride<D>;

  const int count = smaller(rows, source.rows() - first);
  const int end = source.position_of(first + count - 1) + 1;
  const int window = source.window();
  int key = window == 0 ? 0 : larger(0, source.position_of(first) + 1 - window) / keys * keys;

  TileCopy<keys, D, threads, vectors> key_copy, value_copy;
  TileCopy<rows, D, threads, vectors>().copy_rows(q_tile, count, source.width(), [&](int row) { return source.q_at(first + smaller(row, count - 1)); });
  key_copy.fetch(key_tile, end - key, source.width(), source.key_at(key), source.key_stride());

  const int warp_row = thread_index() / warp_size * 16 * blocks;
  const int warp_earliest = source.position_of(first + warp_row), warp_latest = source.position_of(first + warp_row + 16 * blocks - 1);
  const f32 scale = source.scale() * log2_e;
  Accumulator out[blocks][D / 16];
  f32 highest[blocks][rows_per_lane], sums[blocks][rows_per_lane];
#pragma unroll
  for (int b = 0; b < blocks; b++) {
#pragma unroll
    for (int d = 0; d < D / 16; d++) clear(out[b][d]);
#pragma unroll
    for (int slot = 0; slot < rows_per_lane; slot++) highest[b][slot] = lowest, sums[b][slot] = 0;
  }

  LeftTile<D> q_rows(q_tile, warp_row);
  RightTile<D> key_columns(key_tile);
  TransposedTile<D> value_columns(value_tile, 0);
  for (; key < end; key += keys) {
    q_rows.renew(), key_columns.renew(), value_columns.renew();
    key_copy.land(key_tile);
    barrier();
    value_copy.fetch(value_tile, end - key, source.width(), source.value_at(key), source.value_stride());

    // Some of the block's warps may see none of these keys.
    const bool seen = key <= warp_latest && (window == 0 || key + keys - 1 + window > warp_earliest);
    Accumulator scores[blocks][keys / 16];
    if (seen) {
#pragma unroll
      for (int b = 0; b < blocks; b++)
#pragma unroll
        for (int j = 0; j < keys / 16; j++) clear(scores[b][j]);
#pragma unroll
      for (int d = 0; d < D; d += 16) {
        Left q[blocks];
#pragma unroll
        for (int b = 0; b < blocks; b++) q[b] = q_rows.load(16 * b, d);
#pragma unroll
        for (int j = 0; j < keys / 16; j++) {
          const Right right = key_columns.load(16 * j, d);
#pragma unroll
          for (int b = 0; b < blocks; b++) multiply(scores[b][j], q[b], right);
        }
      }
    }
    value_copy.land(value_tile);
    barrier();
    if (key + keys < end) key_copy.fetch(key_tile, end - key - keys, source.width(), source.key_at(key + keys), source.key_stride());
    if (!seen) continue;

    if (key + keys - 1 > warp_earliest || (window != 0 && key + window <= warp_latest)) {
#pragma unroll
      for (int b = 0; b < blocks; b++) {
        int last[rows_per_lane]; // the lane's rows see keys up to here
#pragma unroll
        for (int slot = 0; slot < rows_per_lane; slot++) last[slot] = source.position_of(first + warp_row + 16 * b + row_of(slot));
#pragma unroll
        for (int j = 0; j < keys / 16; j++)
#pragma unroll
          for (int i = 0; i < accumulator_elements; i++) {
            const int behind = last[row_slot(i)] - (key + 16 * j + column_of(column_slot(i)));
            if (behind < 0 || (window != 0 && behind >= window)) scores[b][j].x[i] = -infinity;
          }
      }
    }

#pragma unroll
    for (int b = 0; b < blocks; b++) {
      f32 maximum_now[rows_per_lane], factor[rows_per_lane];
#pragma unroll
      for (int slot = 0; slot < rows_per_lane; slot++) maximum_now[slot] = highest[b][slot];
#pragma unroll
      for (int j = 0; j < keys / 16; j++)
#pragma unroll
        for (int i = 0; i < accumulator_elements; i++)
          maximum_now[row_slot(i)] = maximum(maximum_now[row_slot(i)], scores[b][j].x[i]);
#pragma unroll
      for (int slot = 0; slot < rows_per_lane; slot++) {
        maximum_now[slot] = row_max(maximum_now[slot]);
        factor[slot] = exp2_fast((highest[b][slot] - maximum_now[slot]) * scale);
        highest[b][slot] = maximum_now[slot];
        sums[b][slot] *= factor[slot];
        maximum_now[slot] *= scale;
      }
#pragma unroll
      for (int j = 0; j < keys / 16; j++)
#pragma unroll
        for (int i = 0; i < accumulator_elements; i++) {
          const f32 p = exp2_fast(multiply_add(scores[b][j].x[i], scale, -maximum_now[row_slot(i)]));
          scores[b][j].x[i] = p;
          sums[b][row_slot(i)] += p;
        }
      f32 least = factor[0];
#pragma unroll
      for (int slot = 1; slot < rows_per_lane; slot++) least = minimum(least, factor[slot]);
      if (warp_ballot(least < 1) != 0) { // new maxima are rare after the first tiles
#pragma unroll
        for (int d = 0; d < D / 16; d++)
#pragma unroll
          for (int i = 0; i < accumulator_elements; i++) out[b][d].x[i] *= factor[row_slot(i)];
      }
    }

#pragma unroll
    for (int j = 0; j < keys / 16; j++) {
      Left p[blocks];
#pragma unroll
      for (int b = 0; b < blocks; b++) p[b] = left_of(scores[b][j]);
#pragma unroll
      for (int d = 0; d < D / 16; d++) {
        const Right right = value_columns.load(16 * j, 16 * d);
#pragma unroll
        for (int b = 0; b < blocks; b++) multiply(out[b][d], p[b], right);
      }
    }
  }

  barrier(); // q is not read any more
#pragma unroll
  for (int b = 0; b < blocks; b++) {
    f32 inverse[rows_per_lane];
#pragma unroll
    for (int slot = 0; slot < rows_per_lane; slot++) {
      const f32 sum = row_sum(sums[b][slot]);
      inverse[slot] = 1 / sum;
      const int row = warp_row + 16 * b + row_of(slot);
      if (leads_row() && row < count)
        if (f32* lse = source.lse_at(first + row)) *lse = (highest[b][slot] * scale + log2_fast(sum)) * ln_2;
    }
#pragma unroll
    for (int d = 0; d < D / 16; d++) {
#pragma unroll
      for (int i = 0; i < accumulator_elements; i++) out[b][d].x[i] *= inverse[row_slot(i)];
      store_accumulator<D>(q_tile, warp_row + 16 * b, 16 * d, out[b][d]);
    }
  }
  barrier();
  store_rows<rows, D, threads, vectors>(q_tile, count, source.width(), [&](int row) { return source.out_at(first + row); });
}

} // namespace sluice
