// Ops that treat a range as one long row: cast, and accumulation into float32. (Copies and zeros are the driver's own.)
//
// Floors per billion values at 4 TB/s: cast from float32 to bfloat16 4 + 2 B, 1.5 ms; accumulate bfloat16 6 + 4 B, 2.5 ms.

#include <gpu.cuh>

namespace sluice {

using namespace shapes::elementwise;

/** Where vector j of this thread starts, and how many of its four values there are. */
INLINE u64 start_of(int j) { return ((u64)block_index() * unrolled + j) * threads * 4 + thread_index() * 4; }
INLINE u32 count_at(u64 at, u64 end) {
  const u64 remaining = left(at, end);
  return remaining < 4 ? (u32)remaining : 4;
}

template <typename To, typename From> INLINE void cast_block(const Cast& a, bool aligned) {
  Four values[unrolled];
#pragma unroll
  for (int j = 0; j < unrolled; j++)
    values[j] = load4<From>(a.from.as<typename From::Stored>() + start_of(j), count_at(start_of(j), a.count), aligned);
#pragma unroll
  for (int j = 0; j < unrolled; j++)
    store4<To>(a.to.as<typename To::Stored>() + start_of(j), values[j], count_at(start_of(j), a.count), aligned);
}
template <typename To> INLINE void cast_to(const Cast& a, bool aligned) {
  if (a.from_dtype == float32) cast_block<To, Float32>(a, aligned);
  else if (a.from_dtype == bfloat16) cast_block<To, Bfloat16>(a, aligned);
  else cast_block<To, Float16>(a, aligned);
}

KERNEL(threads, 4) cast(const Cast a, void*, u32 aligned) {
  if (a.to_dtype == float32) cast_to<Float32>(a, aligned != 0);
  else if (a.to_dtype == bfloat16) cast_to<Bfloat16>(a, aligned != 0);
  else cast_to<Float16>(a, aligned != 0);
}

template <typename From> INLINE void accumulate_block(const Accumulate& a, bool aligned) {
  f32* to = a.to.as<f32>();
  Four values[unrolled], before[unrolled];
#pragma unroll
  for (int j = 0; j < unrolled; j++) {
    const u64 at = start_of(j);
    const u32 count = count_at(at, a.count);
    values[j] = load4<From>(a.from.as<typename From::Stored>() + at, count, aligned);
    before[j] = a.accumulate ? load4<Float32>(to + at, count, aligned) : Four{{0, 0, 0, 0}};
  }
#pragma unroll
  for (int j = 0; j < unrolled; j++) {
#pragma unroll
    for (int i = 0; i < 4; i++) values[j].x[i] = a.accumulate ? before[j].x[i] + values[j].x[i] : values[j].x[i];
    store4<Float32>(to + start_of(j), values[j], count_at(start_of(j), a.count), aligned);
  }
}

KERNEL(threads, 4) accumulate(const Accumulate a, void*, u32 aligned) {
  if (a.dtype == float32) accumulate_block<Float32>(a, aligned != 0);
  else accumulate_block<Bfloat16>(a, aligned != 0);
}

} // namespace sluice
