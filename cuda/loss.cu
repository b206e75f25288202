// Cross-entropy over rows of logits with the gradient in place (HF ForCausalLMLoss; label -100 is ignored). The CPU's
// `zig/kernels/loss.zig` says the same in plain loops.
//
// One block per row. The first pass finds the largest logit and the sum of exponentials together, each thread rescaling its own
// sum when it meets a larger logit; the second pass writes the gradient. Between the passes a row stays on the chip as far as
// it fits: each thread keeps four vectors of eight in registers, further ones in shared memory, and reads the rest again. With 227 KB
// of shared memory that is 148,000 of Qwen3's 151,936 logits.
//
// Floor at (T, V) = (8192, 151936), 4 TB/s: 2 + 2 B per logit, 1.24 ms.

#include <reduce.cuh>

namespace sluice {

constexpr int threads_max = 1024;
constexpr int kept = 4; // vectors per thread in registers
constexpr int batch = 4; // further vectors that are loaded before the first is used
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
INLINE Eight gradient_of(const Eight& x, f32 largest, f32 inverse_sum, f32 scale, i64 target) {
  f32 gradient[8];
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const f32 probability = exp2_fast((x[i] - largest) * log2_e) * inverse_sum;
    gradient[i] = (i == target ? probability - 1.0f : probability) * scale;
  }
  return pack8(gradient);
}

/** `shared_vectors`: how many of the row's vectors after the `kept` ones fit into shared memory; each thread sees only its own. */
template <typename Aligned> INLINE void cross_entropy_row(const CrossEntropy& a, Words4* shared, u32 shared_vectors, Aligned aligned) {
  SHARED f32 largest_of_warps[warps_max];
  SHARED f32 sum_of_warps[warps_max];
  const u32 vocabulary = a.vocabulary;
  const u64 row = block_index();
  u16* logits = a.logits.as<u16>() + row * vocabulary;
  const i32 target = a.targets.as<i32>()[row];
  const u32 stride = block_threads() * 8;
  const u32 own = thread_index() * 8;
  // A label outside the vocabulary is the caller's mistake; it reads nothing wrong, and its NaN stops the step.
  if (target < 0 || target >= (i64)vocabulary) {
    if (thread_index() == 0) a.loss.as<f32>()[row] = target == ignored ? 0.0f : float_of(0x7fc00000);
    if (a.gradient)
      for (u32 at = own; at < vocabulary; at += stride) store8(logits + at, zero8(), left(at, vocabulary), aligned);
    return;
  }
  const f32 at_target = from_bfloat16(logits[target]);

  Softmax softmax = {lowest, 0};
  Eight held[kept];
#pragma unroll
  for (int k = 0; k < kept; k++) held[k] = load8(logits + own + k * stride, left(own + k * stride, vocabulary), aligned);
#pragma unroll
  for (int k = 0; k < kept; k++) add(softmax, held[k], left(own + k * stride, vocabulary), aligned);
  const u32 in_shared = (kept * stride) + shared_vectors * 8; // where shared memory ends
  for (u32 at = own + kept * stride; at < vocabulary; at += batch * stride) {
    Eight x[batch];
#pragma unroll
    for (int k = 0; k < batch; k++) x[k] = load8(logits + at + k * stride, left(at + k * stride, vocabulary), aligned);
#pragma unroll
    for (int k = 0; k < batch; k++) {
      const u32 place = at + k * stride;
      add(softmax, x[k], left(place, vocabulary), aligned);
      if (place < vocabulary && place < in_shared) shared[place / 8 - kept * block_threads()] = x[k].words;
    }
  }

  const f32 largest = block_max(softmax.largest, lowest, largest_of_warps);
  const f32 sum = block_sum(softmax.sum * exp2_fast((softmax.largest - largest) * log2_e), sum_of_warps);
  if (thread_index() == 0) a.loss.as<f32>()[row] = logarithm(sum) + (largest - at_target);
  if (!a.gradient) return;

  const f32 inverse_sum = 1.0f / sum;
#pragma unroll
  for (int k = 0; k < kept; k++) {
    const u32 place = own + k * stride;
    forget(held[k]);
    store8(logits + place, gradient_of(held[k], largest, inverse_sum, a.scale, (i64)target - place), left(place, vocabulary), aligned);
  }
  u32 at = own + kept * stride;
  for (; at < vocabulary && at < in_shared; at += stride) {
    const Eight x = {shared[at / 8 - kept * block_threads()]};
    store8(logits + at, gradient_of(x, largest, inverse_sum, a.scale, (i64)target - at), left(at, vocabulary), aligned);
  }
  for (; at < vocabulary; at += stride) {
    const Eight x = load8(logits + at, left(at, vocabulary), aligned);
    store8(logits + at, gradient_of(x, largest, inverse_sum, a.scale, (i64)target - at), left(at, vocabulary), aligned);
  }
}

KERNEL(threads_max, 1) cross_entropy(const CrossEntropy a, void*, u32 shared_vectors) {
  DYNAMIC_SHARED(shared);
  cross_entropy_row(a, reinterpret_cast<Words4*>(shared), shared_vectors, Whole{});
}
KERNEL(threads_max / 2, 1) cross_entropy_any(const CrossEntropy a, void*) { cross_entropy_row(a, nullptr, 0, false); }

} // namespace sluice
