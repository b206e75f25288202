// Cross-entropy over rows of logits with the gradient in place (HF ForCausalLMLoss; label -100 is ignored). The CPU's
// `zig/device/cpu/loss.zig` says the same in plain loops.
//
// A block takes a row at a time. The first pass finds the largest logit and the sum of exponentials together, each thread
// rescaling its own sum when it meets a larger logit; the second pass writes the gradient. Between the passes a row stays on the chip as
// far as it fits: each thread keeps five vectors of eight in registers, further ones in shared memory, and reads the rest again. With
// 227 KB of shared memory nothing of Qwen3's 151,936 logits is left. Where the second pass has used a vector, it asks for that of
// the block's next row, so that memory reads and writes at once and no row begins with waiting.
//
// Floor at (T, V) = (8192, 151936), 4 TB/s: 2 + 2 B per logit, 1.24 ms.

#include <reduce.cuh>

namespace sluice {

using namespace shapes::loss;
constexpr int batch = 4; // of the vectors that do not fit, those that are loaded before the first is used
constexpr f32 lowest = -3.4028235e38f;
constexpr f32 log2_e = 1.44269504f;
constexpr i32 ignored = -100;

/** A running largest logit and Σ exp(logit − largest). */
struct Softmax {
  f32 largest, sum;
};

/** Values from `count` on do not exist. */
INLINE void add(Softmax& softmax, const Eight& x, u32 count) {
  f32 largest = softmax.largest;
#pragma unroll
  for (u32 i = 0; i < 8; i++)
    if (i < count) largest = maximum(largest, x[i]);
  if (largest > softmax.largest) {
    softmax.sum *= exp2_fast((softmax.largest - largest) * log2_e);
    softmax.largest = largest;
  }
#pragma unroll
  for (u32 i = 0; i < 8; i++)
    if (i < count) softmax.sum += exp2_fast((x[i] - largest) * log2_e);
}
INLINE void add(Softmax& softmax, const Eight& x, u32 count, Whole) {
  if (count > 0) add(softmax, x, 8);
}
INLINE void add(Softmax& softmax, const Eight& x, u32 count, bool) { add(softmax, x, count); }

/** softmax · scale, with (softmax − 1) · scale at `target`, counted from the vector's start. */
INLINE Eight gradient_of(const Eight& x, f32 largest, f32 inverse_sum, f32 scale, u32 target) {
  f32 gradient[8];
#pragma unroll
  for (int i = 0; i < 8; i++) gradient[i] = exp2_fast((x[i] - largest) * log2_e) * inverse_sum;
  if (target < 8) {
#pragma unroll
    for (u32 i = 0; i < 8; i++)
      if (i == target) gradient[i] -= 1.0f;
  }
#pragma unroll
  for (int i = 0; i < 8; i++) gradient[i] *= scale;
  return pack8(gradient);
}

/** `shared_vectors`: how many of the row's vectors after the `kept` ones fit into shared memory; each thread sees only its own. */
template <typename Aligned> INLINE void cross_entropy_rows(const CrossEntropy& a, Words4* shared, u32 shared_vectors, Aligned aligned) {
  SHARED f32 largest_of_warps[warps_max];
  SHARED f32 sum_of_warps[warps_max];
  const u32 vocabulary = a.vocabulary;
  const u32 stride = block_threads() * 8;
  const u32 own = thread_index() * 8;
  const u32 own_shared = own + kept * stride;
  const u32 in_shared = vocabulary < kept * stride + shared_vectors * 8 ? vocabulary : kept * stride + shared_vectors * 8; // where shared memory ends
  u32 own_rest = own_shared; // the thread's first vector that is in neither
  if (own_shared < in_shared) own_rest += (in_shared - own_shared + stride - 1) / stride * stride;
  const auto place_of = [&](u32 at) { return &shared[at / 8 - kept * block_threads()]; };

  u32 row = block_index();
  Eight held[kept];
  const auto fetch = [&](const u16* logits) {
#pragma unroll
    for (int k = 0; k < kept; k++) held[k] = load8(logits + own + k * stride, left(own + k * stride, vocabulary), aligned);
#pragma unroll 4
    for (u32 at = own_shared; at < in_shared; at += stride) copy_async(place_of(at), logits + at);
  };
  fetch(a.logits.as<u16>() + (u64)row * vocabulary);
  i32 next_target = a.targets.as<i32>()[row];
  for (; row < a.rows; row += block_count()) {
    u16* logits = a.logits.as<u16>() + (u64)row * vocabulary;
    const u16* next = logits + (u64)block_count() * vocabulary;
    const bool more = block_count() < a.rows - row;
    const i32 target = next_target;
    if (more) next_target = a.targets.as<i32>()[row + block_count()];
    // A label outside the vocabulary is the caller's mistake; it reads nothing wrong, and its NaN stops the step.
    if (target < 0 || target >= (i64)vocabulary) {
      if (thread_index() == 0) a.loss.as<f32>()[row] = target == ignored ? 0.0f : float_of(0x7fc00000);
      if (a.gradient)
        for (u32 at = own; at < vocabulary; at += stride) store8(logits + at, zero8(), left(at, vocabulary), aligned);
      copies_landed();
      if (more) fetch(next);
      continue;
    }
    const f32 at_target = from_bfloat16(logits[target]);

    Softmax softmax = {lowest, 0};
#pragma unroll
    for (int k = 0; k < kept; k++) add(softmax, held[k], left(own + k * stride, vocabulary), aligned);
    copies_landed();
    for (u32 at = own_shared; at < in_shared; at += stride) add(softmax, {*place_of(at)}, 8);
    for (u32 at = own_rest; at < vocabulary; at += batch * stride) {
      Eight x[batch];
#pragma unroll
      for (int k = 0; k < batch; k++) x[k] = load8(logits + at + k * stride, left(at + k * stride, vocabulary), aligned);
#pragma unroll
      for (int k = 0; k < batch; k++) add(softmax, x[k], left(at + k * stride, vocabulary), aligned);
    }

    const f32 largest = block_max(softmax.largest, lowest, largest_of_warps);
    const f32 sum = block_sum(softmax.sum * exp2_fast((softmax.largest - largest) * log2_e), sum_of_warps);
    if (thread_index() == 0) a.loss.as<f32>()[row] = logarithm(sum) + (largest - at_target);

    const f32 inverse_sum = 1.0f / sum;
#pragma unroll
    for (int k = 0; k < kept; k++) {
      const u32 at = own + k * stride, count = left(at, vocabulary);
      forget(held[k]);
      if (a.gradient) store8(logits + at, gradient_of(held[k], largest, inverse_sum, a.scale, target - at), count, aligned);
      if (more) held[k] = load8(next + at, count, aligned);
    }
#pragma unroll 2
    for (u32 at = own_shared; at < in_shared; at += stride) {
      if (a.gradient) {
        const Eight x = {*place_of(at)};
        store8(logits + at, gradient_of(x, largest, inverse_sum, a.scale, target - at), 8, true);
      }
      if (more) copy_async(place_of(at), next + at);
    }
    if (a.gradient)
      for (u32 at = own_rest; at < vocabulary; at += stride) {
        const u32 count = left(at, vocabulary);
        store8(logits + at, gradient_of(load8(logits + at, count, aligned), largest, inverse_sum, a.scale, target - at), count, aligned);
      }
  }
}

KERNEL(threads_max, 1) cross_entropy(const CrossEntropy a, void*, u32 shared_vectors) {
  DYNAMIC_SHARED(shared);
  cross_entropy_rows(a, reinterpret_cast<Words4*>(shared), shared_vectors, Whole{});
}
KERNEL(threads_max / 2, 1) cross_entropy_any(const CrossEntropy a, void*) { cross_entropy_rows(a, nullptr, 0, false); }

} // namespace sluice
