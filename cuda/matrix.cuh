// The matrix unit of NVIDIA GPUs from sm_80 on: fragments for mma.sync m16n8k16 in bfloat16 with float32 sums, shared tiles
// that ldmatrix reads without bank conflicts, and copies from global memory that run beside the arithmetic (cp.async).
// `hip/matrix.cuh` offers the same names for AMD's units.
//
// A product of tiles is always acc (16 rows, 16 columns) += left (16 rows, 16 k) · right (16 columns, 16 k)ᵀ, computed by a
// whole warp. Which lane holds which element is the unit's business; kernels ask `row_slot` and `column_of`. On every unit
// the accumulator's layout turns into a left operand without leaving the registers of a row (`left_of`): softmax needs that.

#pragma once
#include <gpu.cuh>

namespace sluice {

/** How many copies of a walked tile fit into shared memory: with two, one is filled while the other is read. */
constexpr int copy_stages = 2;
/** Whether a lane has registers for two blocks of 16 rows of sums. */
#define SLUICE_WIDE 1
/** Rows that such kernels walk at a time; from sm_100 on 32 would leave some registers too few. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int wide_walked = 16;
#else
constexpr int wide_walked = 32;
#endif

// ---- fragments ------------------------------------------------------------------------------------------------------

struct Accumulator {
  f32 x[8]; // two tiles of 8 columns: row lane/4 at columns 2·(lane%4) and +1, then row lane/4 + 8
};
struct Left {
  u32 x[4];
};
struct Right {
  u32 x[4]; // columns 0…7, then columns 8…15
};

/** An accumulator's elements in a lane, and the distinct rows and columns among them. */
constexpr int accumulator_elements = 8;
constexpr int rows_per_lane = 2;
constexpr int columns_per_lane = 4;

/** Which of the lane's rows and columns element `i` belongs to. */
INLINE constexpr int row_slot(int i) { return i / 2 % 2; }
INLINE constexpr int column_slot(int i) { return i / 4 * 2 + i % 2; }
/** The tile's row and column of a slot. */
INLINE int row_of(int slot) { return lane_index() / 4 + 8 * slot; }
INLINE int column_of(int slot) { return lane_index() % 4 * 2 + slot / 2 * 8 + slot % 2; }
/** Exactly one lane of each row says yes. */
INLINE bool leads_row() { return lane_index() % 4 == 0; }

/** Over the lanes that share a row. */
INLINE f32 row_max(f32 value) {
  value = maximum(value, shuffle_xor(value, 1));
  return maximum(value, shuffle_xor(value, 2));
}
INLINE f32 row_sum(f32 value) {
  value += shuffle_xor(value, 1);
  return value + shuffle_xor(value, 2);
}

INLINE void clear(Accumulator& acc) {
#pragma unroll
  for (int i = 0; i < accumulator_elements; i++) acc.x[i] = 0;
}

// ---- sums in memory -----------------------------------------------------------------------------------------------------

/** Float32 sums of rows that blocks add to in turn. A lane has four of 16 columns of a row: the two of each half that an accumulator
 * gives it. What a warp adds at once lies together. */
struct Sums {
  f32* at;
  u32 step;
  /** Columns from `column` on, of `width` in all, of a row of `rows`; of eight rows from a multiple of eight on, 16 columns lie together. */
  INLINE Sums(f32* sums, u32 rows, u32 width, u32 row, u32 column, int lane) {
    const u32 unit = row / 8 * 8, height = rows - unit < 8 ? rows - unit : 8;
    at = sums + ((u64)unit * width + column * height + (adds_four ? (row - unit) * 16 + lane % 4 * 4 : (row - unit) * 4 + lane % 4));
    step = height * 4;
  }
  /** The 16 columns that are `column` further. */
  INLINE f32* of(int column) const { return at + column * step / 4; }
  INLINE void load(int column, f32 (&x)[4]) const { load_sums(x, of(column), step); }
  INLINE void store(int column, const f32 (&x)[4], bool present) const { store_sums(of(column), x, step, present); }
  INLINE void add(int column, const f32 (&x)[4], bool present) const { add_sums(of(column), x, step, present); }
};

// ---- products -------------------------------------------------------------------------------------------------------

INLINE void multiply(Accumulator& acc, const Left& left, const Right& right) {
  mma(acc.x, left.x, right.x[0], right.x[1]);
  mma(acc.x + 4, left.x, right.x[2], right.x[3]);
}

/** An accumulator rounded to bfloat16, as the left operand whose k are the accumulator's columns. */
INLINE Left left_of(const Accumulator& acc) {
  return {{to_bfloat16_pair(acc.x[0], acc.x[1]), to_bfloat16_pair(acc.x[2], acc.x[3]), to_bfloat16_pair(acc.x[4], acc.x[5]), to_bfloat16_pair(acc.x[6], acc.x[7])}};
}

// ---- shared tiles -----------------------------------------------------------------------------------------------------

/** The launch's shared bytes. Tiles must start at multiples of their row's bytes, see `LeftTile`. */
INLINE u16* shared_tiles() {
  DYNAMIC_SHARED_ALIGNED(1024, tiles);
  return reinterpret_cast<u16*>(tiles);
}

/** Values from one row of a shared tile with rows of D to the next. */
template <int D> constexpr int tile_stride = D;
/** Where a value lies in a shared tile with rows of D: 16-byte chunks of a row are permuted by the row's last three bits, so that
 * eight rows' chunks lie in different banks. */
template <int D> INLINE int tile_offset(int row, int column) {
  if constexpr (D < 64) return row * D + (((column / 8) ^ (row / 2 % 4)) * 8 | column % 8); // two rows of 32 fill the banks
  else return row * D + (((column / 8) ^ (row % 8)) * 8 | column % 8);
}

/** Reads left operands from a tile (rows, k), `row`… on. Only one address is kept: a fragment's k is an exclusive or away, because
 * tiles start at multiples of a row's bytes. `renew` makes the compiler compute the others again in each round of a loop,
 * instead of holding all of them in registers that sums need. */
template <int D> struct LeftTile {
  u32 at;
  INLINE LeftTile(const u16* tile, int row, int lane = lane_index()) {
    at = shared_address(tile + tile_offset<D>(row + lane % 16, lane / 16 * 8));
  }
  INLINE void renew() { forget(at); }
  /** Rows `row`… (16), k `k`… (16). */
  INLINE Left load(int row, int k) const {
    Left left;
    load_matrices(left.x, (at ^ k * 2) + row * D * 2);
    return left;
  }
};
/** The same for right operands, from a tile (columns, k). */
template <int D> struct RightTile {
  u32 at;
  INLINE RightTile(const u16* tile, int lane = lane_index()) {
    at = shared_address(tile + tile_offset<D>(lane / 16 * 8 + lane % 8, lane / 8 % 2 * 8));
  }
  INLINE void renew() { forget(at); }
  INLINE Right load(int column, int k) const {
    Right right;
    load_matrices(right.x, (at ^ k * 2) + column * D * 2);
    return right;
  }
};
/** The same for right operands, from a tile (k, columns). */
template <int D> struct TransposedTile {
  u32 at;
  INLINE TransposedTile(const u16* tile, int column, int lane = lane_index()) {
    at = shared_address(tile + tile_offset<D>(lane % 16, column + lane / 16 * 8));
  }
  INLINE void renew() { forget(at); }
  INLINE Right load(int k, int column) const {
    Right right;
    load_matrices_transposed(right.x, (at ^ column * 2) + k * D * 2);
    return right;
  }
};

/** The same for left operands, from a tile (k, rows). */
template <int D> struct LeftTransposedTile {
  u32 at;
  INLINE LeftTransposedTile(const u16* tile, int row, int lane = lane_index()) {
    at = shared_address(tile + tile_offset<D>(lane / 16 * 8 + lane % 8, row + lane / 8 % 2 * 8));
  }
  INLINE Left load(int row, int k) const {
    Left left;
    load_matrices_transposed(left.x, (at ^ row * 2) + k * D * 2);
    return left;
  }
};
/** Writes left operands to a tile (rows, k), from `row` and `k` on. */
template <int D> struct LeftStore {
  u32 at;
  INLINE LeftStore(const u16* tile, int row, int k, int lane = lane_index()) {
    at = shared_address(tile + tile_offset<D>(row + lane / 4, k + lane % 4 * 2));
  }
  INLINE void store(int row, int k, const Left& left) const {
#pragma unroll
    for (int i = 0; i < 4; i++) store_word((at ^ (k + i / 2 * 8) * 2) + (row + i % 2 * 8) * D * 2, left.x[i]);
  }
};

/** Puts an accumulator, rounded to bfloat16, to rows `row`… and columns `column`… of a tile. */
template <int D> INLINE void store_accumulator(u16* tile, int row, int column, const Accumulator& acc) {
#pragma unroll
  for (int i = 0; i < accumulator_elements; i += 2) {
    u16* at = tile + tile_offset<D>(row + row_of(row_slot(i)), column + column_of(column_slot(i)));
    *reinterpret_cast<u32*>(at) = to_bfloat16_pair(acc.x[i], acc.x[i + 1]);
  }
}
/** The values of a shared row that belong to the lane's columns. */
INLINE void load_columns(f32 (&values)[columns_per_lane], const f32* row) {
#pragma unroll
  for (int slot = 0; slot < columns_per_lane; slot++) values[slot] = row[column_of(slot)];
}

/** Copies a tile of `rows` × D to shared memory in two steps: `fetch` starts reading rows that lie `stride` values apart, `land` makes
 * sure that this thread's part is there; a barrier must follow. Rows from `count` on and columns from `width` on become zero.
 * `vectors` says that rows start at multiples of 16 bytes and `width` is a multiple of 8; `anew`, that places are computed in each fetch and do
 * not wait in registers for the next. */
template <int rows, int D, int threads, bool vectors, bool anew = false> struct TileCopy {
  static constexpr int chunks = D / 8, rows_at_once = threads / chunks;
  static_assert(threads % chunks == 0 && rows % rows_at_once == 0, "every thread copies as much");

  INLINE void fetch(u16* tile, int count, int width, const u16* from, u32 stride) {
    const auto thread = this_thread();
    const int row = thread / chunks, column = thread % chunks * 8;
    const u16* at = from + ((u64)row * stride + column);
#pragma unroll
    for (int i = 0; i < rows; i += rows_at_once) copy(tile + tile_offset<D>(row + i, column), at + (u64)i * stride, row + i < count, width - column);
  }
  /** The same for rows that lie anywhere; lands with the next `land` of any copy. */
  template <typename RowAt> INLINE void copy_rows(u16* tile, int count, int width, RowAt row_at) {
    const int row = thread_index() / chunks, column = thread_index() % chunks * 8;
#pragma unroll
    for (int i = 0; i < rows; i += rows_at_once)
      copy(tile + tile_offset<D>(row + i, column), row_at(row + i) + column, row + i < count, width - column);
  }
  INLINE void land(u16*) {
    if constexpr (vectors) copies_landed();
  }

private:
  static INLINE auto this_thread() {
    if constexpr (anew) {
      u32 thread = thread_index();
      forget(thread);
      return thread;
    } else return thread_index();
  }
  static INLINE void copy(u16* to, const u16* from, bool present, int width_left) {
    if constexpr (vectors) copy_async(to, from, present && width_left > 0);
    else store8(to, present && width_left > 0 ? load8(from, width_left, false) : zero8(), 8, true);
  }
};

} // namespace sluice
