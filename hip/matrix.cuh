// The matrix units of AMD GPUs behind the names of `cuda/matrix.cuh`: MFMA on gfx90a and gfx942 (waves of 64), WMMA on gfx11 and
// gfx12 (waves of 32). All multiply 16 × 16 × 16 here.
//
// The units give the accumulator a column per lane. Kernels want a row per lane, so that softmax reduces over few lanes and
// P is a left operand as it stands; so the operands are swapped: the hardware's A is our right, its B our left.
// There is no asynchronous copy to LDS: a tile waits in registers between `fetch` and `land`.

#pragma once
#include <gpu.cuh>

namespace sluice {

/** LDS is 64 KB: one copy of a walked tile; the next one waits in registers. */
constexpr int copy_stages = 1;
#define SLUICE_WIDE 0

// ---- fragments ------------------------------------------------------------------------------------------------------
// Lane l holds row l % 16 of accumulators and operands. `part` numbers the lanes of a row.

constexpr int rows_per_lane = 1;
constexpr int columns_per_lane = accumulator_elements;

struct Accumulator {
  AccumulatorVector x;
};
struct Left {
  OperandVector x;
};
struct Right {
  OperandVector x;
};

INLINE int part() { return lane_index() / 16; }
INLINE constexpr int row_slot(int) { return 0; }
INLINE constexpr int column_slot(int i) { return i; }
INLINE int row_of(int) { return lane_index() % 16; }
INLINE int column_of(int slot) {
#if defined(SLUICE_WMMA11)
  return 2 * slot + part();
#else
  return accumulator_elements * part() + slot;
#endif
}
/** The first k of the lane's operand elements. */
INLINE int operand_k() {
#if defined(SLUICE_WMMA11)
  return 0;
#else
  return operand_elements * part();
#endif
}
INLINE bool leads_row() { return part() == 0; }

INLINE f32 row_max(f32 value) {
  value = maximum(value, shuffle_xor(value, 16));
#if defined(SLUICE_MFMA)
  value = maximum(value, shuffle_xor(value, 32));
#endif
  return value;
}
INLINE f32 row_sum(f32 value) {
  value += shuffle_xor(value, 16);
#if defined(SLUICE_MFMA)
  value += shuffle_xor(value, 32);
#endif
  return value;
}

INLINE void clear(Accumulator& acc) { acc.x = 0; }

// ---- products -------------------------------------------------------------------------------------------------------

INLINE void multiply(Accumulator& acc, const Left& left, const Right& right) {
  acc.x = matrix_multiply(right.x, left.x, acc.x);
#if !defined(SLUICE_MFMA)
  asm volatile("" : "+v"(acc.x) : : "memory"); // or the compiler loads so many operands ahead that they spill
#endif
}

INLINE Left left_of(const Accumulator& acc) {
  Left left;
#if defined(SLUICE_WMMA11)
  // The row's other lane has the columns between ours.
#pragma unroll
  for (int i = 0; i < accumulator_elements; i += 2) {
    const u32 own = to_bfloat16_pair(acc.x[i], acc.x[i + 1]);
    const u32 other = shuffle_xor(own, 16);
    const u32 even = part() == 0 ? own : other, odd = part() == 0 ? other : own;
    left.x[2 * i] = (short)even;
    left.x[2 * i + 1] = (short)odd;
    left.x[2 * i + 2] = (short)(even >> 16);
    left.x[2 * i + 3] = (short)(odd >> 16);
  }
#else
#pragma unroll
  for (int i = 0; i < accumulator_elements; i++) left.x[i] = (short)to_bfloat16(acc.x[i]);
#endif
  return left;
}

// ---- shared tiles -----------------------------------------------------------------------------------------------------

INLINE u16* shared_tiles() {
  DYNAMIC_SHARED(tiles);
  return reinterpret_cast<u16*>(tiles);
}

/** Rows are 16 bytes longer than their values, so that they begin in different banks. A permutation as on NVIDIA would cost an
 * address per element of a transposed operand; this way all of them are one address and constants. */
template <int D> constexpr int tile_stride = D + 8;
template <int D> INLINE int tile_offset(int row, int column) { return row * tile_stride<D> + column; }

/** The lane's operand elements of a tile's row, from k on. */
template <int D> INLINE OperandVector load_row(const u16* tile, int row, int k) {
#if defined(SLUICE_WMMA11)
  typedef short Half __attribute__((ext_vector_type(8)));
  const Half low = *reinterpret_cast<const Half*>(tile + tile_offset<D>(row, k));
  const Half high = *reinterpret_cast<const Half*>(tile + tile_offset<D>(row, k + 8));
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#else
  return *reinterpret_cast<const OperandVector*>(tile + tile_offset<D>(row, k + operand_k()));
#endif
}
template <int D> struct LeftTile {
  const u16* tile;
  int first;
  INLINE LeftTile(const u16* tile, int row) : tile(tile), first(row + lane_index() % 16) {}
  INLINE void renew() { forget(first); }
  INLINE Left load(int row, int k) const { return {load_row<D>(tile, first + row, k)}; }
};
template <int D> struct RightTile {
  const u16* tile;
  int first;
  INLINE RightTile(const u16* tile) : tile(tile), first(lane_index() % 16) {}
  INLINE void renew() { forget(first); }
  INLINE Right load(int column, int k) const { return {load_row<D>(tile, first + column, k)}; }
};
template <int D> struct TransposedTile {
  const u16* tile;
  int first;
  INLINE TransposedTile(const u16* tile, int column) : tile(tile), first(column + lane_index() % 16) {}
  INLINE void renew() { forget(first); }
  INLINE Right load(int k, int column) const {
    Right right;
#pragma unroll
    for (int i = 0; i < operand_elements; i++) right.x[i] = (short)tile[tile_offset<D>(k + operand_k() + i, first + column)];
    return right;
  }
};
template <int D> INLINE void store_accumulator(u16* tile, int row, int column, const Accumulator& acc) {
#pragma unroll
  for (int i = 0; i < accumulator_elements; i++)
    tile[tile_offset<D>(row + row_of(0), column + column_of(i))] = to_bfloat16(acc.x[i]);
}
INLINE void load_columns(f32 (&values)[columns_per_lane], const f32* row) {
#pragma unroll
  for (int slot = 0; slot < columns_per_lane; slot++) values[slot] = row[column_of(slot)];
}

template <int rows, int D, int threads, bool vectors> struct TileCopy {
  static constexpr int chunks = D / 8, rows_at_once = threads / chunks;
  static_assert(threads % chunks == 0 && rows % rows_at_once == 0, "every thread copies as much");
  /** Where a thread would have to keep 32 registers or more, `land` does all the work. */
  static constexpr bool late = rows / rows_at_once >= 8;
  Eight waiting[late ? 1 : rows / rows_at_once];
  const u16* from;
  u32 stride;
  int count, width;

  INLINE void fetch(u16*, int count, int width, const u16* from, u32 stride) {
    this->from = from, this->stride = stride, this->count = count, this->width = width;
    if constexpr (!late)
      each([&](int i, int row, int column) { waiting[i] = read(row, column, from + (u64)row * stride); });
  }
  /** At once. */
  template <typename RowAt> INLINE void copy_rows(u16* tile, int count, int width, RowAt row_at) {
    this->count = count, this->width = width;
    each([&](int, int row, int column) { write(tile, row, column, read(row, column, row_at(row))); });
  }
  INLINE void land(u16* tile) {
    each([&](int i, int row, int column) {
      if constexpr (late) write(tile, row, column, read(row, column, from + (u64)row * stride));
      else write(tile, row, column, waiting[i]);
    });
  }

private:
  template <typename Body> INLINE void each(Body body) {
#pragma unroll
    for (int i = 0; i < rows / rows_at_once; i++) body(i, thread_index() / chunks + i * rows_at_once, thread_index() % chunks * 8);
  }
  INLINE Eight read(int row, int column, const u16* row_at) const {
    return row < count && column < width ? load8(row_at + column, vectors ? 8 : width - column, vectors) : zero8();
  }
  static INLINE void write(u16* tile, int row, int column, const Eight& chunk) { store8(tile + tile_offset<D>(row, column), chunk, 8, true); }
};

} // namespace sluice
