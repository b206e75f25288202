// attention_forward: causal grouped-query attention over packed documents; the algorithm is in `attention.cuh`.
//
// Grid: (query heads, tile numbers), the last tiles of a document first, because they see the most keys. Kernels are named
// by the head dim they are padded to; `wide` gives each warp twice the rows, which halves the shared-memory reads per product and
// takes two blocks of 64 KB per multiprocessor to be fast. `any` takes every head dim and alignment, slowly.

#include <attention.cuh>

namespace sluice {

/** One document and one head of the packed rows. */
struct Document {
  const AttentionForward& a;
  int start, length, head;

  INLINE int rows() const { return length; }
  INLINE int window() const { return a.window; }
  INLINE int width() const { return a.head_dim; }
  INLINE f32 scale() const { return a.scale; }
  INLINE int position_of(int row) const { return row; }
  INLINE u32 kv_head() const { return head / (a.heads / a.kv_heads); }
  INLINE u32 key_stride() const { return (a.heads + a.kv_heads) * a.head_dim; }
  INLINE u32 value_stride() const { return (a.heads + 2 * a.kv_heads) * a.head_dim; }
  INLINE const u16* keys() const { return a.qk.as<u16>() + (start * (u64)key_stride() + (a.heads + kv_head()) * a.head_dim); }
  INLINE const u16* values() const {
    return a.qkv.as<u16>() + (start * (u64)value_stride() + (a.heads + a.kv_heads + kv_head()) * a.head_dim);
  }
  INLINE const u16* q_at(int row) const { return a.qk.as<u16>() + ((u64)(start + row) * key_stride() + head * a.head_dim); }
  INLINE u16* out_at(int row) const { return a.out.as<u16>() + ((u64)(start + row) * a.heads + head) * a.head_dim; }
  INLINE f32* lse_at(int row) const { return a.lse.as<f32>() + ((u64)head * a.tokens + start + row); }
};

template <int D, int blocks, int warps, int keys, bool vectors> INLINE void forward(const AttentionForward& a) {
  const int number = (int)(block_count_y() - 1 - block_index_y());
  const Slot slot = find_slot<16 * blocks * warps>(a.starts.as<int>(), a.documents, 1, number);
  if (slot.first >= slot.length) return;
  forward_tile<D, blocks, warps, keys, vectors>(Document{a, slot.start, slot.length, (int)block_index()}, slot.first);
}

} // namespace sluice

using namespace sluice;

KERNEL(4 * warp_size, 1) attention_forward_d64(const AttentionForward a, void*) { forward<64, many ? 2 : 1, 4, 64, true>(a); }
KERNEL(4 * warp_size, 1) attention_forward_d128(const AttentionForward a, void*) { forward<128, 1, 4, many ? 64 : 32, true>(a); }
KERNEL(4 * warp_size, 1) attention_forward_d256(const AttentionForward a, void*) { forward<256, 1, 4, 16, true>(a); }
KERNEL(4 * warp_size, 1) attention_forward_any(const AttentionForward a, void*) { forward<256, 1, 4, 16, false>(a); }
#if SLUICE_WIDE
KERNEL(4 * warp_size, 1) attention_forward_d128_wide(const AttentionForward a, void*) { forward<128, 2, 4, 32, true>(a); }
#endif
