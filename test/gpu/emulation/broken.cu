// Kernels with one mistake each, and the same without it: what the emulation must see, shown by `../emulation.test.ts`. Each moves
// values from `from` to `to`, as many as the launch has threads.

#include <gpu.cuh>

namespace sluice {

constexpr int threads = 128;

INLINE u32 own() { return block_index() * threads + thread_index(); }
/** The block's values in the opposite order, through shared memory. */
INLINE f32 opposite(const f32* shared) { return shared[threads - 1 - thread_index()]; }

KERNEL(threads, 1) broken__nothing(const Copy a, void*) {
  SHARED f32 values[threads];
  values[thread_index()] = a.from.as<f32>()[own()];
  barrier();
  a.to.as<f32>()[own()] = opposite(values);
}
KERNEL(threads, 1) broken__no_barrier(const Copy a, void*) {
  SHARED f32 values[threads];
  values[thread_index()] = a.from.as<f32>()[own()];
  a.to.as<f32>()[own()] = opposite(values);
}
/** The barrier is there, but the next round begins to write before all have read. */
KERNEL(threads, 1) broken__one_barrier_for_two(const Copy a, void*) {
  SHARED f32 values[threads];
  f32 sum = 0;
  for (int round = 0; round < 2; round++) {
    values[thread_index()] = a.from.as<f32>()[own()] * (f32)(round + 1);
    barrier();
    sum += opposite(values);
  }
  a.to.as<f32>()[own()] = sum;
}
KERNEL(threads, 1) broken__no_warp_barrier(const Copy a, void*) {
  SHARED f32 values[threads];
  values[thread_index()] = a.from.as<f32>()[own()];
  a.to.as<f32>()[own()] = values[thread_index() ^ 1];
}
KERNEL(threads, 1) broken__copy_not_awaited(const Copy a, void*) {
  DYNAMIC_SHARED(shared);
  if (thread_index() % 4 == 0) copy_async(reinterpret_cast<f32*>(shared) + thread_index(), a.from.as<f32>() + own());
  barrier();
  a.to.as<f32>()[own()] = opposite(reinterpret_cast<f32*>(shared));
  copies_landed();
}
KERNEL(threads, 1) broken__unwritten(const Copy a, void*) {
  SHARED f32 values[threads];
  if (thread_index() > 0) values[thread_index()] = a.from.as<f32>()[own()];
  barrier();
  a.to.as<f32>()[own()] = opposite(values);
}
KERNEL(threads, 1) broken__divergent_barrier(const Copy a, void*) {
  if (thread_index() < 64) barrier();
  a.to.as<f32>()[own()] = a.from.as<f32>()[own()];
}
KERNEL(threads, 1) broken__two_barriers(const Copy a, void*) {
  if (thread_index() < 64) barrier();
  else
    barrier();
  a.to.as<f32>()[own()] = a.from.as<f32>()[own()];
}
KERNEL(threads, 1) broken__missing_lane(const Copy a, void*) {
  f32 value = a.from.as<f32>()[own()];
  if (lane_index() != 3) value = shuffle_xor(value, 1);
  a.to.as<f32>()[own()] = value;
}
KERNEL(threads, 1) broken__barrier_among_lanes(const Copy a, void*) {
  f32 value = a.from.as<f32>()[own()];
  if (lane_index() == 3) barrier();
  else value = shuffle_xor(value, 1);
  a.to.as<f32>()[own()] = value;
}
KERNEL(threads, 1) broken__unlike_lanes(const Copy a, void*) {
  f32 value = a.from.as<f32>()[own()];
  if (lane_index() < 16) value = shuffle_xor(value, 1);
  else value = (f32)warp_ballot(value > 0);
  a.to.as<f32>()[own()] = value;
}
KERNEL(threads, 1) broken__absent_lane(const Copy a, void*) { a.to.as<f32>()[own()] = shuffle(a.from.as<f32>()[own()], lane_index() + 1); }
/** The second block's turn comes when the first has ended, which nobody says. */
KERNEL(threads, 1) broken__turn_not_shown(const Copy a, void* words) {
  u32* turn = static_cast<u32*>(words);
  if (thread_index() == 0)
    for (const u32 ticket = take_ticket(turn); peek(turn + 1) != ticket;) {}
  a.to.as<f32>()[own()] = a.from.as<f32>()[own()];
}
KERNEL(threads, 1) broken__beyond_shared(const Copy a, void*) {
  DYNAMIC_SHARED(shared);
  reinterpret_cast<f32*>(shared)[thread_index() + 1] = a.from.as<f32>()[own()];
  barrier();
  a.to.as<f32>()[own()] = reinterpret_cast<f32*>(shared)[thread_index() + 1];
}
KERNEL(threads, 1) broken__beyond_array(const Copy a, void*) {
  SHARED f32 values[threads];
  values[thread_index() + 1] = a.from.as<f32>()[own()];
  barrier();
  a.to.as<f32>()[own()] = values[thread_index() + 1];
}
KERNEL(threads, 1) broken__misaligned_load(const Copy a, void*) {
  a.to.as<f32>()[own()] = load4<Float32>(a.from.as<f32>() + 1, 4, true).x[0];
}
KERNEL(threads, 1) broken__misaligned_store(const Copy a, void*) {
  store4<Float32>(a.to.as<f32>() + 2, load4<Float32>(a.from.as<f32>(), 4, true), 4, true);
}

} // namespace sluice
