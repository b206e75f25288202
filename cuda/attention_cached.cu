// attention_cached: attention for generation. The new tokens' keys and values are appended to the cache first; then all query heads
// of a key head share tiles, so that a step that brings one token per sequence still reads each cached key once per key head.
//
// Grid of the main kernel: (key heads, tile numbers).

#include <attention.cuh>

namespace sluice {

/** One sequence's new tokens against its cache: row f is head f % group of token f / group. */
struct Cached {
  const AttentionCached& a;
  int sequence, start, length, kv_head, group, cached_length;

  INLINE int rows() const { return length * group; }
  INLINE int window() const { return a.window; }
  INLINE int width() const { return a.head_dim; }
  INLINE f32 scale() const { return a.scale; }
  INLINE int position_of(int row) const { return cached_length + row / group; }
  INLINE u32 key_stride() const { return a.kv_heads * a.head_dim; }
  INLINE u32 value_stride() const { return key_stride(); }
  INLINE u64 cache() const { return sequence * (u64)a.capacity * key_stride() + kv_head * a.head_dim; }
  INLINE const u16* keys() const { return a.keys.as<u16>() + cache(); }
  INLINE const u16* values() const { return a.values.as<u16>() + cache(); }
  INLINE u32 head_of(int row) const { return kv_head * group + row % group; }
  INLINE const u16* q_at(int row) const {
    return a.qk.as<u16>() + ((u64)(start + row / group) * (a.heads + a.kv_heads) + head_of(row)) * a.head_dim;
  }
  INLINE u16* out_at(int row) const { return a.out.as<u16>() + ((u64)(start + row / group) * a.heads + head_of(row)) * a.head_dim; }
  INLINE f32* lse_at(int) const { return nullptr; }
};

template <int D, int keys, bool vectors> INLINE void cached(const AttentionCached& a) {
  const int group = a.heads / a.kv_heads;
  const Slot slot = find_slot<64>(a.starts.as<int>(), a.sequences, group, (int)(block_count_y() - 1 - block_index_y()));
  if (slot.first >= slot.length * group) return;
  const int length = a.lengths.as<int>()[slot.document];
  forward_tile<D, 1, 4, keys, vectors>(Cached{a, slot.document, slot.start, slot.length, (int)block_index(), group, length}, slot.first);
}

} // namespace sluice

using namespace sluice;

/** One block per new token. */
KERNEL(256, 1) attention_cached__append(const AttentionCached a, void*) {
  const int token = (int)block_index();
  const int* starts = a.starts.as<int>();
  int sequence = 0;
  while (starts[sequence + 1] <= token) sequence++;
  const u64 D = a.head_dim, width = a.kv_heads * D;
  const u64 position = a.lengths.as<int>()[sequence] + token - starts[sequence];
  const u64 to = (sequence * (u64)a.capacity + position) * width;
  const u16* k = a.qk.as<u16>() + (token * (u64)(a.heads + a.kv_heads) + a.heads) * D;
  const u16* v = a.qkv.as<u16>() + (token * (u64)(a.heads + 2 * a.kv_heads) + a.heads + a.kv_heads) * D;
  for (u64 i = thread_index(); i < width; i += 256) {
    a.keys.as<u16>()[to + i] = k[i];
    a.values.as<u16>()[to + i] = v[i];
  }
}

KERNEL(4 * warp_size, 1) attention_cached_d64(const AttentionCached a, void*) { cached<64, 64, true>(a); }
KERNEL(4 * warp_size, 1) attention_cached_d128(const AttentionCached a, void*) { cached<128, many ? 64 : 32, true>(a); }
KERNEL(4 * warp_size, 1) attention_cached_d256(const AttentionCached a, void*) { cached<256, 16, true>(a); }
KERNEL(4 * warp_size, 1) attention_cached_any(const AttentionCached a, void*) { cached<256, 16, false>(a); }
