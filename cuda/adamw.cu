// AdamW (Loshchilov & Hutter; torch.optim.AdamW) on a split master, for blocks that stay on the device. Bit for bit what the
// CPU computes (`zig/device/cpu/adamw.zig`, `updateOne`): every product and sum is rounded where it is there, and fused where it
// is there, so where a block lives does not change a weight.
//
// Floor: 26 bytes per parameter with a bfloat16 gradient (hi, lo, m, v both ways, gradient once), 28 with float32: at 4 TB/s
// 6.5 ms per billion parameters.

#include <gpu.cuh>

namespace sluice {

using namespace shapes::adamw;

/** The step's numbers, rounded once from float64 on the host (`zig/device/adamw_constants.zig`). */
struct AdamwConstants {
  f32 beta1_rest, beta2, beta2_rest, decay, step_size, root_scale, epsilon;
};

INLINE f32 join(u32 hi, u32 lo) { return float_of((hi << 16) + (u32)(i32)(i16)lo); }

/** `hi` in the lower half, `lo` in the upper. */
INLINE u32 split(f32 value) {
  const u32 bits = bits_of(value);
  if (value != value) return (bits >> 16 | 0x40) & 0xffff;
  const u32 hi = (bits + 0x8000) >> 16;
  return (hi & 0xffff) | (bits - (hi << 16)) << 16;
}

/** One parameter; `weight` is the joined master before and after. */
INLINE void update(const AdamwConstants& k, f32 factor, f32 gradient, f32& m, f32& v, f32& weight) {
  const f32 g = multiply_exact(gradient, factor);
  m = multiply_add(k.beta1_rest, subtract_exact(g, m), m);
  v = multiply_add(multiply_exact(k.beta2_rest, g), g, multiply_exact(k.beta2, v));
  const f32 denominator = add_exact(multiply_exact(root_exact(v), k.root_scale), k.epsilon);
  weight = multiply_add(-k.step_size, divide_exact(m, denominator), multiply_exact(weight, k.decay));
}

/** Four 16-bit values as they are stored. */
INLINE void load_halves(u32* to, const u16* from, u32 count, bool aligned) {
  if (aligned && count == 4) {
    const Words2 words = *reinterpret_cast<const Words2*>(from);
#pragma unroll
    for (int i = 0; i < 4; i++) to[i] = words.x[i / 2] >> 16 * (i % 2) & 0xffff;
    return;
  }
#pragma unroll
  for (u32 i = 0; i < 4; i++) to[i] = i < count ? from[i] : 0;
}
INLINE void store_halves(u16* to, const u32* halves, u32 count, bool aligned) {
  if (aligned && count == 4) {
    *reinterpret_cast<Words2*>(to) = {{halves[0] | halves[1] << 16, halves[2] | halves[3] << 16}};
    return;
  }
#pragma unroll
  for (u32 i = 0; i < 4; i++)
    if (i < count) to[i] = (u16)halves[i];
}

template <typename Gradient> INLINE void adamw_block(const Adamw& a, const AdamwConstants& k, bool aligned) {
  const f32 factor = (f32)a.factor.as<f64>()[0];
  u16* hi_all = a.hi.as<u16>();
  u16* lo_all = a.lo.as<u16>();
  f32* m_all = a.m.as<f32>();
  f32* v_all = a.v.as<f32>();
  const typename Gradient::Stored* gradient_all = a.gradient.as<typename Gradient::Stored>();

  u64 at[unrolled];
  u32 count[unrolled];
  u32 hi[unrolled][4], lo[unrolled][4];
  Four m[unrolled], v[unrolled], gradient[unrolled];
#pragma unroll
  for (int j = 0; j < unrolled; j++) {
    at[j] = ((u64)block_index() * unrolled + j) * threads * 4 + thread_index() * 4;
    const u64 remaining = left(at[j], a.count);
    count[j] = remaining < 4 ? (u32)remaining : 4;
    gradient[j] = load4<Gradient>(gradient_all + at[j], count[j], aligned);
    m[j] = load4<Float32>(m_all + at[j], count[j], aligned);
    v[j] = load4<Float32>(v_all + at[j], count[j], aligned);
    load_halves(hi[j], hi_all + at[j], count[j], aligned);
    load_halves(lo[j], lo_all + at[j], count[j], aligned);
  }
#pragma unroll
  for (int j = 0; j < unrolled; j++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      f32 weight = join(hi[j][i], lo[j][i]);
      update(k, factor, gradient[j].x[i], m[j].x[i], v[j].x[i], weight);
      const u32 parts = split(weight);
      hi[j][i] = parts & 0xffff;
      lo[j][i] = parts >> 16;
    }
    store4<Float32>(m_all + at[j], m[j], count[j], aligned);
    store4<Float32>(v_all + at[j], v[j], count[j], aligned);
    store_halves(hi_all + at[j], hi[j], count[j], aligned);
    store_halves(lo_all + at[j], lo[j], count[j], aligned);
  }
}

KERNEL(threads, 3) adamw(const Adamw a, void*, const AdamwConstants constants, u32 aligned) {
  if (a.gradient_dtype == float32) adamw_block<Float32>(a, constants, aligned != 0);
  else adamw_block<Bfloat16>(a, constants, aligned != 0);
}

} // namespace sluice
