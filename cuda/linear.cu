// The linear layer and its two gradients, one thread per element of the result: what computes a shape that cuBLASLt or
// hipBLASLt refuses (`zig/device/gpu/blas.zig`), and a definition to read. Sums are float32, in order of the inner dimension.
// Nothing that trains is computed here as long as the library takes it, so nothing is made fast.

#include <gpu.cuh>

namespace sluice {

using namespace shapes::linear;

INLINE u64 first_element() { return (u64)block_index() * threads + thread_index(); }
INLINE u64 stride() { return (u64)block_count() * threads; }
INLINE f32 at(const u16* values, u64 index) { return from_bfloat16(values[index]); }

/** y (T, O) = x (T, I) · weightᵀ (O, I) + bias (O) + residual (T, O); y may be the residual. */
KERNEL(threads, 1) linear_forward_plain(const LinearForward a, void*) {
  const u16 *x = a.x.as<u16>(), *weight = a.weight.as<u16>();
  for (u64 element = first_element(); element < (u64)a.tokens * a.outputs; element += stride()) {
    const u64 token = element / a.outputs, output = element % a.outputs;
    f32 sum = 0;
    for (u32 i = 0; i < a.inputs; i++) sum += at(x, token * a.inputs + i) * at(weight, output * a.inputs + i);
    if (a.residual.present()) sum += at(a.residual.as<u16>(), element);
    if (a.bias.present()) sum += at(a.bias.as<u16>(), output);
    a.y.as<u16>()[element] = to_bfloat16(sum);
  }
}

/** dx (T, I) = dy (T, O) · weight (O, I). */
KERNEL(threads, 1) linear_backward_input_plain(const LinearBackwardInput a, void*) {
  const u16 *dy = a.dy.as<u16>(), *weight = a.weight.as<u16>();
  for (u64 element = first_element(); element < (u64)a.tokens * a.inputs; element += stride()) {
    const u64 token = element / a.inputs, input = element % a.inputs;
    f32 sum = 0;
    for (u64 o = 0; o < a.outputs; o++) sum += at(dy, token * a.outputs + o) * at(weight, o * a.inputs + input);
    a.dx.as<u16>()[element] = to_bfloat16(sum);
  }
}

/** d_weight (O, I) of gradient_dtype = (accumulate ? d_weight : 0) + dyᵀ (O, T) · x (T, I); the bias is `bias.cu`'s. */
KERNEL(threads, 1) linear_backward_weight_plain(const LinearBackwardWeight a, void*) {
  const u16 *dy = a.dy.as<u16>(), *x = a.x.as<u16>();
  for (u64 element = first_element(); element < (u64)a.outputs * a.inputs; element += stride()) {
    const u64 output = element / a.inputs, input = element % a.inputs;
    f32 sum = 0;
    for (u64 t = 0; t < a.tokens; t++) sum += at(dy, t * a.outputs + output) * at(x, t * a.inputs + input);
    if (a.gradient_dtype == float32) {
      f32* to = a.d_weight.as<f32>() + element;
      *to = a.accumulate ? *to + sum : sum;
    } else {
      u16* to = a.d_weight.as<u16>() + element;
      *to = to_bfloat16(a.accumulate ? from_bfloat16(*to) + sum : sum);
    }
  }
}

} // namespace sluice
