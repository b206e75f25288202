// Sums over a warp, a block, and over blocks, in an order that depends on the sizes only: a kernel gives the same bits each
// time, and there are no atomics. Sums over blocks are two kernels: each block leaves its part in the workspace, and a
// second, small kernel adds the parts of each column (`add_partials`).

#pragma once
#include <gpu.cuh>

namespace sluice {

constexpr int warps_max = 1024 / 32;

/** Every lane gets the sum over `lanes` neighbours, a power of two. */
template <typename T> INLINE T lanes_sum(T value, int lanes) {
  for (int mask = lanes / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}
template <typename T> INLINE T warp_sum(T value) {
#pragma unroll
  for (int mask = warp_size / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}
INLINE f32 warp_max(f32 value) {
#pragma unroll
  for (int mask = warp_size / 2; mask > 0; mask /= 2) value = maximum(value, shuffle_xor(value, mask));
  return value;
}

/** Every thread gets the sum over the block. `shared` must not be that of the call just before: two in turns will do, because
 * each call has a barrier. */
template <typename T> INLINE T block_sum(T value, T (&shared)[warps_max]) {
  value = warp_sum(value);
  if (lane_index() == 0) shared[warp_index()] = value;
  barrier();
  return warp_sum(lane_index() < block_warps() ? shared[lane_index()] : T(0));
}
/** The same for the largest value, `smallest` being below all. */
INLINE f32 block_max(f32 value, f32 smallest, f32 (&shared)[warps_max]) {
  value = warp_max(value);
  if (lane_index() == 0) shared[warp_index()] = value;
  barrier();
  return warp_max(lane_index() < block_warps() ? shared[lane_index()] : smallest);
}

using namespace shapes::reduce;

/** to (width) = (accumulate ? to : 0) + Σ over parts of partials (parts, width); a block of 256 sums 32 columns. */
INLINE void add_partials(f32* to, const f32* partials, u32 parts, u32 width, bool accumulate) {
  constexpr int groups = partial_threads / partial_columns;
  SHARED f32 sums[groups][partial_columns];
  const int group = thread_index() / partial_columns;
  const int place = thread_index() % partial_columns;
  const u32 column = block_index() * partial_columns + place;
  f32 sum = 0;
  if (column < width)
#pragma unroll 8
    for (u32 part = group; part < parts; part += groups) sum += partials[(u64)part * width + column];
  sums[group][place] = sum;
  barrier();
  if (group != 0 || column >= width) return;
#pragma unroll
  for (int other = 1; other < groups; other++) sum += sums[other][place];
  to[column] = accumulate ? to[column] + sum : sum;
}

} // namespace sluice
