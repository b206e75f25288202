// The sum of squares of a gradient and its count of values that are not finite. Squares are added in float64, as on the CPU
// (`zig/device/cpu/gradient.zig`): a float32 gradient of 1e30 must not overflow, and eight billion squares must not lose digits.
//
// The number of blocks depends on the count only, never on the card, so that the order of the sum does not either.
//
// Floor at 400 million bfloat16 values, 4 TB/s: 200 us. Cards with few float64 units (all but the data centre's) need
// two float64 operations per value: at a rate of 1/64 that is as slow as their memory.

#include <reduce.cuh>

namespace sluice {

using namespace shapes::gradient;

struct Sum {
  f64 squares, broken;
};

/** A thread's part of any array, a vector at a time. */
template <typename Element> INLINE Sum sum_any(const SquaredNorm& a) {
  const typename Element::Stored* x = a.x.as<typename Element::Stored>();
  const u64 stride = (u64)block_count() * threads * 4;
  Sum sum = {0, 0};
#pragma unroll 1
  for (u64 at = ((u64)block_index() * threads + thread_index()) * 4; at < a.count; at += stride)
#pragma unroll 1
    for (u64 place = at; place < at + 4 && place < a.count; place++) {
      const f32 value = Element::read(x[place]);
      sum.squares = multiply_add((f64)value, (f64)value, sum.squares);
      sum.broken += (bits_of(value) & 0x7fffffff) >= 0x7f800000;
    }
  return sum;
}

/** The squares alone of a thread's part, in the same order, of an array that is aligned. */
template <typename Element> INLINE f64 squares_of_thread(const SquaredNorm& a) {
  const typename Element::Stored* x = a.x.as<typename Element::Stored>();
  const u64 total = (u64)block_count() * threads; // one vector each is a round
  const u64 own = (u64)block_index() * threads + thread_index();
  const u64 vectors = a.count / 4;
  f64 squares = 0;
  for (u64 at = own; at < vectors; at += total * unrolled) {
    Four x4[unrolled];
#pragma unroll
    for (int k = 0; k < unrolled; k++) {
      const u64 vector = at + k * total;
      x4[k] = load4_if<Element>(x + vector * 4, vector < vectors);
    }
#pragma unroll
    for (int k = 0; k < unrolled; k++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const f64 wide = x4[k].x[i]; // the square of a zero that is not there changes no bit
        squares = multiply_add(wide, wide, squares);
      }
  }
  if (a.count % 4 != 0 && vectors % total == own)
#pragma unroll 1
    for (u64 place = vectors * 4; place < a.count; place++) {
      const f64 wide = Element::read(x[place]);
      squares = multiply_add(wide, wide, squares);
    }
  return squares;
}

/** No sum of finite squares is infinite in float64, so values are looked at one by one only where a sum is not finite. */
template <typename Element> INLINE Sum sum_of_thread(const SquaredNorm& a) {
  if (is_aligned(a.x.address, 4 * sizeof(typename Element::Stored))) {
    const f64 squares = squares_of_thread<Element>(a);
    if (squares - squares == 0) return {squares, 0};
  }
  return sum_any<Element>(a);
}

/** Each block leaves its pair in the workspace. */
KERNEL(threads, blocks_at_once) squared_norm(const SquaredNorm a, void* workspace) {
  SHARED f64 squares[warps_max];
  SHARED f64 broken[warps_max];
  const Sum sum = a.dtype == float32 ? sum_of_thread<Float32>(a) : sum_of_thread<Bfloat16>(a);
  const Sum all = {block_sum(sum.squares, squares), block_sum(sum.broken, broken)};
  if (thread_index() == 0) static_cast<Sum*>(workspace)[block_index()] = all;
}

/** One block adds the pairs. */
KERNEL(threads, 1) squared_norm__finish(const SquaredNorm a, void* workspace, u32 parts) {
  SHARED f64 squares[warps_max];
  SHARED f64 broken[warps_max];
  Sum sum = {0, 0};
  for (u32 part = thread_index(); part < parts; part += threads) {
    sum.squares += static_cast<const Sum*>(workspace)[part].squares;
    sum.broken += static_cast<const Sum*>(workspace)[part].broken;
  }
  const Sum all = {block_sum(sum.squares, squares), block_sum(sum.broken, broken)};
  if (thread_index() == 0) *a.sum.as<Sum>() = all;
}

} // namespace sluice
