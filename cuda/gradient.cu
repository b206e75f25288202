// The sum of squares of a gradient and its count of values that are not finite. Squares are added in float64, as on the CPU
// (`zig/kernels/gradient.zig`): a float32 gradient of 1e30 must not overflow, and eight billion squares must not lose digits.
//
// The number of blocks depends on the count only, never on the card, so that the order of the sum does not either.
//
// Floor at 400 million bfloat16 values, 4 TB/s: 200 us. Cards with few float64 units (all but the data centre's) need
// two float64 operations per value: at a rate of 1/64 that is as slow as their memory.

#include <reduce.cuh>

namespace sluice {

constexpr int threads = 256;
constexpr int unrolled = 4; // vectors of four that a thread loads before it uses the first

struct Sum {
  f64 squares, broken;
};

template <typename Element> INLINE Sum sum_of_thread(const SquaredNorm& a) {
  const typename Element::Stored* x = a.x.as<typename Element::Stored>();
  const bool aligned = is_aligned(x, 4 * sizeof(typename Element::Stored));
  const u64 stride = (u64)block_count() * threads * 4;
  f64 squares = 0;
  u64 broken = 0;
  for (u64 at = ((u64)block_index() * threads + thread_index()) * 4; at < a.count; at += stride * unrolled) {
    Four x4[unrolled];
#pragma unroll
    for (int k = 0; k < unrolled; k++) {
      const u64 remaining = left(at + k * stride, a.count);
      x4[k] = load4<Element>(x + at + k * stride, remaining < 4 ? (u32)remaining : 4, aligned);
    }
#pragma unroll
    for (int k = 0; k < unrolled; k++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const f64 wide = x4[k].x[i];
        squares = multiply_add(wide, wide, squares);
        broken += (bits_of(x4[k].x[i]) & 0x7fffffff) >= 0x7f800000;
      }
  }
  return {squares, (f64)broken};
}

/** Each block leaves its pair in the workspace. */
KERNEL(threads, 4) squared_norm(const SquaredNorm a, void* workspace) {
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
