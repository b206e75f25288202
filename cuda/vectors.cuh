// Loads and stores of several neighbours at once, the same for all vendors. Memory-bound kernels move 16 bytes per
// thread and instruction; arrays that are not aligned for that, and rows that end inside a vector, go value by value
// through the same functions, so that a kernel's order of sums does not depend on alignment. Included by `gpu.cuh`.

#pragma once

namespace sluice {

#if !defined(COPIES_CHECKED) // the CPU's dialect looks at addresses when vectors are copied; a GPU does so anyway
#define COPIES_CHECKED
#endif
struct alignas(16) Words4 {
  u32 x[4];
  COPIES_CHECKED
};
struct alignas(8) Words2 {
  u32 x[2];
  COPIES_CHECKED
};

/** How values are stored; arithmetic is always float32. */
struct Float32 {
  typedef f32 Stored;
  static INLINE f32 read(f32 value) { return value; }
  static INLINE f32 write(f32 value) { return value; }
};
struct Bfloat16 {
  typedef u16 Stored;
  static INLINE f32 read(u16 value) { return from_bfloat16(value); }
  static INLINE u16 write(f32 value) { return to_bfloat16(value); }
};
struct Float16 {
  typedef u16 Stored;
  static INLINE f32 read(u16 value) { return from_float16(value); }
  static INLINE u16 write(f32 value) { return to_float16(value); }
};

INLINE bool is_aligned(const void* pointer, u32 bytes) { return reinterpret_cast<u64>(pointer) % bytes == 0; }

/** Four neighbours in float32. */
struct Four {
  f32 x[4];
};

INLINE Four unpack4(const Words2& words) {
  return {{first_of_pair(words.x[0]), second_of_pair(words.x[0]), first_of_pair(words.x[1]), second_of_pair(words.x[1])}};
}

/** The first `count` (at most 4) values, the others zero. With `aligned` the address is a multiple of the four values' size. */
template <typename Element> INLINE Four load4(const typename Element::Stored* from, u32 count, bool aligned) {
  if (aligned && count >= 4) {
    if constexpr (sizeof(typename Element::Stored) == 4) {
      const Words4 words = *reinterpret_cast<const Words4*>(from);
      return {{float_of(words.x[0]), float_of(words.x[1]), float_of(words.x[2]), float_of(words.x[3])}};
    } else {
      const Words2 words = *reinterpret_cast<const Words2*>(from);
      Four values;
#pragma unroll
      for (int i = 0; i < 4; i++) values.x[i] = Element::read((u16)(words.x[i / 2] >> 16 * (i % 2)));
      return values;
    }
  }
  Four values;
#pragma unroll
  for (u32 i = 0; i < 4; i++) values.x[i] = i < count ? Element::read(from[i]) : 0.0f;
  return values;
}

/** Four values at an aligned address, or zeros. Several of these are loaded at once, which a choice of ways would prevent. */
template <typename Element> INLINE Four load4_if(const typename Element::Stored* from, bool present) {
  if constexpr (sizeof(typename Element::Stored) == 4) {
    Words4 words = {{0, 0, 0, 0}};
    if (present) words = *reinterpret_cast<const Words4*>(from);
    return {{float_of(words.x[0]), float_of(words.x[1]), float_of(words.x[2]), float_of(words.x[3])}};
  } else {
    Words2 words = {{0, 0}};
    if (present) words = *reinterpret_cast<const Words2*>(from);
    Four values;
#pragma unroll
    for (int i = 0; i < 4; i++) values.x[i] = Element::read((u16)(words.x[i / 2] >> 16 * (i % 2)));
    return values;
  }
}

/** The first `count` (at most 4) values. */
template <typename Element> INLINE void store4(typename Element::Stored* to, const Four& values, u32 count, bool aligned) {
  if (aligned && count >= 4) {
    if constexpr (sizeof(typename Element::Stored) == 4) {
      *reinterpret_cast<Words4*>(to) = {{bits_of(values.x[0]), bits_of(values.x[1]), bits_of(values.x[2]), bits_of(values.x[3])}};
    } else {
      u32 halves[4];
#pragma unroll
      for (int i = 0; i < 4; i++) halves[i] = Element::write(values.x[i]);
      *reinterpret_cast<Words2*>(to) = {{halves[0] | halves[1] << 16, halves[2] | halves[3] << 16}};
    }
    return;
  }
#pragma unroll
  for (u32 i = 0; i < 4; i++)
    if (i < count) to[i] = Element::write(values.x[i]);
}

/** Eight neighbouring bfloat16 values as they are stored: 16 bytes. Kernels that hold many keep them packed. */
struct Eight {
  Words4 words;

  INLINE f32 operator[](int i) const { return i % 2 == 0 ? first_of_pair(words.x[i / 2]) : second_of_pair(words.x[i / 2]); }
};

INLINE Eight pack8(const f32* values) {
  Eight eight;
#pragma unroll
  for (int i = 0; i < 4; i++) eight.words.x[i] = to_bfloat16_pair(values[2 * i], values[2 * i + 1]);
  return eight;
}

INLINE Eight zero8() { return {{{0, 0, 0, 0}}}; }

/** Unpacked values are not held beyond here. */
INLINE void forget(Eight& eight) {
#pragma unroll
  for (int i = 0; i < 4; i++) forget(eight.words.x[i]);
}

/** The first `count` (any number) of eight values, the others zero. With `aligned` the address is a multiple of 16. */
INLINE Eight load8(const u16* from, u32 count, bool aligned) {
  if (aligned && count >= 8) return {*reinterpret_cast<const Words4*>(from)};
  Eight eight;
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
    const u32 low = 2 * i < count ? from[2 * i] : 0;
    const u32 high = 2 * i + 1 < count ? from[2 * i + 1] : 0;
    eight.words.x[i] = low | high << 16;
  }
  return eight;
}

/** The first `count` (any number) of eight values. */
INLINE void store8(u16* to, const Eight& eight, u32 count, bool aligned) {
  if (aligned && count >= 8) {
    *reinterpret_cast<Words4*>(to) = eight.words;
    return;
  }
#pragma unroll
  for (u32 i = 0; i < 8; i++)
    if (i < count) to[i] = (u16)(eight.words.x[i / 2] >> 16 * (i % 2));
}

/** In the place of `aligned`: addresses and counts are known to be whole vectors, so that nothing else is compiled. */
struct Whole {};
INLINE Eight load8(const u16* from, u32 count, Whole) { return count > 0 ? Eight{*reinterpret_cast<const Words4*>(from)} : zero8(); }
INLINE void store8(u16* to, const Eight& eight, u32 count, Whole) {
  if (count > 0) *reinterpret_cast<Words4*>(to) = eight.words;
}

/** How many of `end` values are left at `at`. */
template <typename T> INLINE T left(T at, T end) { return at < end ? end - at : 0; }

} // namespace sluice
