// RMSNorm (HF LlamaRMSNorm; with an offset of 1 Gemma3RMSNorm), with an addition before it, after it, or none. The CPU's `zig/device/cpu/norm.zig` says the same
// in plain loops.
//
// One block per row; each thread keeps two vectors of eight in registers, so that a row is read once. The kernels named after
// the ops take aligned rows of up to 8,192 values, the `_any` ones all others: what a wider row has is read again. Both add
// in the same order.
//
// Floors at (T, C) = (16384, 4096), 4 TB/s: forward 2 + 2 B per value, 67 us; with the residual 4 + 4 B, 134 us; backward
// 6 + 2 B with accumulation, 134 us, and the weight's gradient: 4 B per column and block, a few MB that stay in L2.

#include <reduce.cuh>

namespace sluice {

using namespace shapes::norm;

INLINE f32 add_squares(f32 sum, const Eight& x) {
#pragma unroll
  for (int i = 0; i < 8; i++) sum += x[i] * x[i];
  return sum;
}

INLINE Eight scaled(const Eight& x, f32 inverse, const Eight& weight) {
  f32 y[8];
#pragma unroll
  for (int i = 0; i < 8; i++) y[i] = x[i] * inverse * weight[i];
  return pack8(y);
}

INLINE Eight scaled_and_added(const Eight& x, f32 inverse, const Eight& weight, f32 offset, const Eight& residual) {
  f32 y[8];
#pragma unroll
  for (int i = 0; i < 8; i++) y[i] = x[i] * inverse * (weight[i] + offset) + residual[i];
  return pack8(y);
}

INLINE Eight sum_of(const Eight& x, const Eight& delta) {
  f32 sum[8];
#pragma unroll
  for (int i = 0; i < 8; i++) sum[i] = x[i] + delta[i];
  return pack8(sum);
}


/** Vectors are handed to threads in turn; the first `kept` of each thread are held in registers. */
INLINE u32 column_of_vector(int k) { return (thread_index() + k * block_threads()) * 8; }

/** The thread's first column that is not; a row of whole vectors has none. */
template <typename Aligned> INLINE u32 beyond(u32 width);
template <> INLINE u32 beyond<Whole>(u32 width) { return width; }
template <> INLINE u32 beyond<bool>(u32) { return column_of_vector(kept); }

template <typename Aligned> INLINE void rmsnorm_forward_row(const RmsnormForward& a, Aligned aligned) {
  SHARED f32 sums[warps_max];
  const u32 width = a.width;
  const u64 row = block_index();
  const u16* x = a.x.as<u16>() + row * width;
  const u16* weight = a.weight.as<u16>();
  const u16* residual = a.residual.present() ? a.residual.as<u16>() + row * width : nullptr;
  u16* y = a.y.as<u16>() + row * width;
  const auto normed = [&](const Eight& value, f32 inverse, u32 at, u32 count) {
    return scaled_and_added(value, inverse, load8(weight + at, count, aligned), a.offset, residual ? load8(residual + at, count, aligned) : zero8());
  };

  Eight held[kept];
#pragma unroll
  for (int k = 0; k < kept; k++) held[k] = load8(x + column_of_vector(k), left(column_of_vector(k), width), aligned);
  f32 squares = 0;
#pragma unroll
  for (int k = 0; k < kept; k++) squares = add_squares(squares, held[k]);
  for (u32 at = beyond<Aligned>(width); at < width; at += block_threads() * 8)
    squares = add_squares(squares, load8(x + at, left(at, width), aligned));

  const f32 inverse = reciprocal_root(block_sum(squares, sums) / (f32)width + a.epsilon);
  if (thread_index() == 0) a.inverse.as<f32>()[row] = inverse;

#pragma unroll
  for (int k = 0; k < kept; k++) {
    const u32 at = column_of_vector(k), count = left(at, width);
    store8(y + at, normed(held[k], inverse, at, count), count, aligned);
  }
  for (u32 at = beyond<Aligned>(width); at < width; at += block_threads() * 8) {
    const u32 count = left(at, width);
    store8(y + at, normed(load8(x + at, count, aligned), inverse, at, count), count, aligned);
  }
}

KERNEL(threads_max, 2) rmsnorm_forward(const RmsnormForward a, void*) { rmsnorm_forward_row(a, Whole{}); }
KERNEL(threads_max, 1) rmsnorm_forward_any(const RmsnormForward a, void*, u32 aligned) { rmsnorm_forward_row(a, aligned != 0); }

template <typename Aligned> INLINE void add_rmsnorm_forward_row(const AddRmsnormForward& a, Aligned aligned) {
  SHARED f32 sums[warps_max];
  const u32 width = a.width;
  const u64 row = block_index();
  const u16* x = a.x.as<u16>() + row * width;
  const u16* delta = a.delta.as<u16>() + row * width;
  const u16* weight = a.weight.as<u16>();
  u16* sum = a.sum.as<u16>() + row * width;
  u16* y = a.y.as<u16>() + row * width;

  Eight held[kept], added[kept];
#pragma unroll
  for (int k = 0; k < kept; k++) {
    const u32 at = column_of_vector(k), count = left(at, width);
    held[k] = load8(x + at, count, aligned);
    added[k] = load8(delta + at, count, aligned);
  }
  f32 squares = 0;
#pragma unroll
  for (int k = 0; k < kept; k++) {
    const u32 at = column_of_vector(k);
    held[k] = sum_of(held[k], added[k]); // the norm is of the sum as it is stored
    store8(sum + at, held[k], left(at, width), aligned);
    squares = add_squares(squares, held[k]);
  }
  for (u32 at = beyond<Aligned>(width); at < width; at += block_threads() * 8) {
    const u32 count = left(at, width);
    const Eight both = sum_of(load8(x + at, count, aligned), load8(delta + at, count, aligned));
    store8(sum + at, both, count, aligned);
    squares = add_squares(squares, both);
  }

  const f32 inverse = reciprocal_root(block_sum(squares, sums) / (f32)width + a.epsilon);
  if (thread_index() == 0) a.inverse.as<f32>()[row] = inverse;

#pragma unroll
  for (int k = 0; k < kept; k++) {
    const u32 at = column_of_vector(k), count = left(at, width);
    store8(y + at, scaled(held[k], inverse, load8(weight + at, count, aligned)), count, aligned);
  }
  for (u32 at = beyond<Aligned>(width); at < width; at += block_threads() * 8) {
    const u32 count = left(at, width);
    store8(y + at, scaled(load8(sum + at, count, aligned), inverse, load8(weight + at, count, aligned)), count, aligned);
  }
}

KERNEL(threads_max, 2) add_rmsnorm_forward(const AddRmsnormForward a, void*) { add_rmsnorm_forward_row(a, Whole{}); }
KERNEL(threads_max, 1) add_rmsnorm_forward_any(const AddRmsnormForward a, void*, u32 aligned) { add_rmsnorm_forward_row(a, aligned != 0); }

/** Σ dy · weight · normed of one vector, and dy · normed added to the weight's gradient. Weights count from `offset`. */
INLINE f32 add_products(f32 sum, const Eight& dy, const Eight& x, const Eight& weight, f32 offset, f32 inverse, f32* d_weight) {
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const f32 normed = x[i] * inverse;
    sum += dy[i] * (weight[i] + offset) * normed;
    d_weight[i] += dy[i] * normed;
  }
  return sum;
}

/** inverse · (dy · weight − normed · mean) + before. */
INLINE Eight input_gradient(const Eight& dy, const Eight& x, const Eight& weight, f32 offset, f32 inverse, f32 mean, const Eight& before) {
  f32 dx[8];
#pragma unroll
  for (int i = 0; i < 8; i++) dx[i] = inverse * (dy[i] * (weight[i] + offset) - x[i] * inverse * mean) + before[i];
  return pack8(dx);
}

/** Each block takes `rows_per_block` neighbouring rows and leaves its share of d_weight in `partial` (width). */
template <typename Aligned> INLINE void rmsnorm_backward_rows(const RmsnormBackward& a, f32* partial, u32 rows_per_block, Aligned aligned) {
  SHARED f32 sums[2][warps_max];
  const u32 width = a.width;
  const u16* weight = a.weight.as<u16>();
  const u32 first = block_index() * rows_per_block;
  const u32 end = first + rows_per_block < a.rows ? first + rows_per_block : a.rows;

  Eight weights[kept];
  f32 d_weight[kept][8];
#pragma unroll
  for (int k = 0; k < kept; k++) {
    const u32 at = column_of_vector(k);
    weights[k] = load8(weight + at, left(at, width), aligned);
#pragma unroll
    for (int i = 0; i < 8; i++) d_weight[k][i] = 0;
  }
  // Beyond what is kept, the thread's own columns of the workspace take the place of registers.
  for (u32 at = beyond<Aligned>(width); at < width; at += block_threads() * 8)
    for (u32 i = 0; i < 8 && at + i < width; i++) partial[at + i] = 0;

  for (u32 row = first; row < end; row++) {
    const u16* dy = a.dy.as<u16>() + (u64)row * width;
    const u16* x = a.x.as<u16>() + (u64)row * width;
    u16* dx = a.dx.as<u16>() + (u64)row * width;
    const f32 inverse = a.inverse.as<f32>()[row];

    Eight held_dy[kept], held_x[kept], before[kept];
#pragma unroll
    for (int k = 0; k < kept; k++) {
      const u32 at = column_of_vector(k), count = left(at, width);
      held_dy[k] = load8(dy + at, count, aligned);
      held_x[k] = load8(x + at, count, aligned);
      before[k] = a.accumulate_dx ? load8(dx + at, count, aligned) : zero8();
    }
    f32 products = 0;
#pragma unroll
    for (int k = 0; k < kept; k++) products = add_products(products, held_dy[k], held_x[k], weights[k], a.offset, inverse, d_weight[k]);
    for (u32 at = beyond<Aligned>(width); at < width; at += block_threads() * 8) {
      const u32 count = left(at, width);
      f32 share[8] = {};
      products = add_products(products, load8(dy + at, count, aligned), load8(x + at, count, aligned), load8(weight + at, count, aligned), a.offset, inverse, share);
      for (u32 i = 0; i < 8 && i < count; i++) partial[at + i] += share[i];
    }

    const f32 mean = block_sum(products, sums[row % 2]) / (f32)width;

#pragma unroll
    for (int k = 0; k < kept; k++) {
      forget(held_dy[k]);
      forget(held_x[k]);
      forget(weights[k]);
      const u32 at = column_of_vector(k);
      store8(dx + at, input_gradient(held_dy[k], held_x[k], weights[k], a.offset, inverse, mean, before[k]), left(at, width), aligned);
    }
    for (u32 at = beyond<Aligned>(width); at < width; at += block_threads() * 8) {
      const u32 count = left(at, width);
      const Eight old = a.accumulate_dx ? load8(dx + at, count, aligned) : zero8();
      store8(dx + at, input_gradient(load8(dy + at, count, aligned), load8(x + at, count, aligned), load8(weight + at, count, aligned), a.offset, inverse, mean, old), count, aligned);
    }
  }

#pragma unroll
  for (int k = 0; k < kept; k++) {
    const u32 at = column_of_vector(k);
#pragma unroll
    for (u32 i = 0; i < 8; i++)
      if (at + i < width) partial[at + i] = d_weight[k][i];
  }
}

INLINE f32* own_partial(const RmsnormBackward& a, void* workspace) { return static_cast<f32*>(workspace) + (u64)block_index() * a.width; }

KERNEL(threads_max, 2) rmsnorm_backward(const RmsnormBackward a, void* workspace, u32 rows_per_block) {
  rmsnorm_backward_rows(a, own_partial(a, workspace), rows_per_block, Whole{});
}
KERNEL(threads_max, 1) rmsnorm_backward_any(const RmsnormBackward a, void* workspace, u32 rows_per_block, u32 aligned) {
  rmsnorm_backward_rows(a, own_partial(a, workspace), rows_per_block, aligned != 0);
}

KERNEL(partial_threads, 1) rmsnorm_backward__reduce(const RmsnormBackward a, void* workspace, u32 parts) {
  add_partials(a.d_weight.as<f32>(), static_cast<const f32*>(workspace), parts, a.width, a.accumulate != 0);
}

} // namespace sluice
