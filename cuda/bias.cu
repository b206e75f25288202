// The bias gradient of a linear layer: column sums of dy (T, O). It completes `linear_backward_weight`, whose matrix product
// is the library's.
//
// A block sums 256 columns over its share of the rows: 32 lanes across, eight rows at a time, and leaves its part in the
// workspace. Floor at (T, O) = (16384, 6144), 4 TB/s: 2 B per value, 50 us.

#include <reduce.cuh>

namespace sluice {

using namespace shapes::bias;
constexpr int rows_at_once = threads / across;
constexpr int columns = across * 8;

/** Block (x, y) sums columns 256·x … over rows y · rows_per_block …, into part y of the workspace (parts, O). */
template <typename Aligned> INLINE void bias_block(const LinearBackwardWeight& a, f32* partials, u32 rows_per_block, Aligned aligned) {
  SHARED f32 sums[rows_at_once][columns];
  const u32 width = a.outputs;
  const u32 lane = thread_index() % across, group = thread_index() / across;
  const u32 column = block_index() * columns + lane * 8;
  const u32 count = left(column, width);
  const u64 first = (u64)block_index_y() * rows_per_block;
  const u64 end = first + rows_per_block < a.tokens ? first + rows_per_block : a.tokens;
  f32 sum[8] = {};
#pragma unroll 4
  for (u64 row = first + group; row < end; row += rows_at_once) {
    const Eight dy = load8(a.dy.as<u16>() + row * width + column, count, aligned);
#pragma unroll
    for (int i = 0; i < 8; i++) sum[i] += dy[i];
  }
#pragma unroll
  for (int i = 0; i < 8; i++) sums[group][lane * 8 + i] = sum[i];
  barrier();
  const u32 own = block_index() * columns + thread_index();
  if (own >= width) return;
  f32 total = 0;
#pragma unroll
  for (int other = 0; other < rows_at_once; other++) total += sums[other][thread_index()];
  partials[(u64)block_index_y() * width + own] = total;
}

KERNEL(threads, 4) linear_backward_weight__bias(const LinearBackwardWeight a, void* workspace, u32 rows_per_block) {
  bias_block(a, static_cast<f32*>(workspace), rows_per_block, Whole{});
}
KERNEL(threads, 1) linear_backward_weight__bias_any(const LinearBackwardWeight a, void* workspace, u32 rows_per_block) {
  bias_block(a, static_cast<f32*>(workspace), rows_per_block, false);
}
KERNEL(partial_threads, 1) linear_backward_weight__bias_reduce(const LinearBackwardWeight a, void* workspace, u32 parts) {
  add_partials(a.d_bias.as<f32>(), static_cast<const f32*>(workspace), parts, a.outputs, a.accumulate != 0);
}

} // namespace sluice
