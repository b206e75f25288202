// Generated from zig/abi.zig by `bun run build`. Do not edit.
#pragma once

namespace sluice {

typedef unsigned int u32;
typedef unsigned long long u64;
typedef float f32;
typedef double f64;

/** Bytes of device memory; null and 0 where an optional range is absent. */
struct Range {
  void* address;
  u64 bytes;
  template <typename T> __device__ T* as() const { return static_cast<T*>(address); }
  __device__ bool present() const { return bytes != 0; }
};

constexpr u32 float32 = 0;
constexpr u32 bfloat16 = 1;
constexpr u32 float16 = 2;

struct Copy {
  Range to;
  Range from;
};
struct JoinWeights {
  Range to;
  Range hi;
  Range lo;
  u64 count;
};
struct SplitWeights {
  Range hi;
  Range lo;
  Range from;
  u64 count;
  u32 dtype;
};
struct Cast {
  Range to;
  Range from;
  u64 count;
  u32 to_dtype;
  u32 from_dtype;
};
struct Zero {
  Range to;
};
struct EmbeddingGather {
  Range rows;
  Range hi;
  Range lo;
  Range tokens;
  u32 token_count;
  u32 width;
  u32 vocabulary;
  u32 dtype;
  f32 scale;
};
struct EmbeddingScatter {
  Range gradient;
  Range d_rows;
  Range order;
  Range starts;
  u32 distinct;
  u32 width;
  u32 dtype;
  u32 accumulate;
  f32 scale;
};
struct EmbeddingAddTied {
  Range gradient;
  Range head;
  Range tokens;
  u32 distinct;
  u32 width;
  u32 head_dtype;
};
struct GatherRows {
  Range y;
  Range x;
  Range index;
  u32 rows;
  u32 width;
  u32 dtype;
};
struct ScatterRows {
  Range y;
  Range x;
  Range index;
  u32 rows;
  u32 total_rows;
  u32 width;
  u32 dtype;
};
struct RmsnormForward {
  Range y;
  Range inverse;
  Range x;
  Range weight;
  Range residual;
  u32 rows;
  u32 width;
  f32 epsilon;
  u32 dtype;
  f32 offset;
};
struct AddRmsnormForward {
  Range sum;
  Range y;
  Range inverse;
  Range x;
  Range delta;
  Range weight;
  u32 rows;
  u32 width;
  f32 epsilon;
  u32 dtype;
};
struct RmsnormBackward {
  Range dx;
  Range d_weight;
  Range dy;
  Range x;
  Range inverse;
  Range weight;
  u32 rows;
  u32 width;
  u32 accumulate_dx;
  u32 accumulate;
  u32 dtype;
  f32 offset;
};
struct LinearForward {
  Range y;
  Range x;
  Range weight;
  Range bias;
  Range residual;
  u32 tokens;
  u32 inputs;
  u32 outputs;
  u32 dtype;
};
struct LinearBackwardInput {
  Range dx;
  Range dy;
  Range weight;
  u32 tokens;
  u32 inputs;
  u32 outputs;
  u32 dtype;
};
struct LinearBackwardWeight {
  Range d_weight;
  Range d_bias;
  Range dy;
  Range x;
  u32 tokens;
  u32 inputs;
  u32 outputs;
  u32 accumulate;
  u32 dtype;
  u32 gradient_dtype;
};
struct QkRopeForward {
  Range qk;
  Range inverse;
  Range qkv;
  Range q_weight;
  Range k_weight;
  Range positions;
  Range table;
  u32 tokens;
  u32 heads;
  u32 kv_heads;
  u32 head_dim;
  f32 epsilon;
  u32 dtype;
  f32 offset;
};
struct QkRopeBackward {
  Range d_qkv;
  Range d_q_weight;
  Range d_k_weight;
  Range inverse;
  Range qkv;
  Range q_weight;
  Range k_weight;
  Range positions;
  Range table;
  u32 tokens;
  u32 heads;
  u32 kv_heads;
  u32 head_dim;
  u32 accumulate;
  u32 dtype;
  f32 offset;
};
struct AttentionForward {
  Range out;
  Range lse;
  Range qk;
  Range qkv;
  Range starts;
  u32 tokens;
  u32 heads;
  u32 kv_heads;
  u32 head_dim;
  u32 documents;
  u32 window;
  f32 scale;
  u32 dtype;
};
struct AttentionBackward {
  Range d_qkv;
  Range delta;
  Range sums;
  Range d_out;
  Range out;
  Range lse;
  Range qk;
  Range qkv;
  Range starts;
  u32 tokens;
  u32 heads;
  u32 kv_heads;
  u32 head_dim;
  u32 documents;
  u32 window;
  f32 scale;
  u32 dtype;
};
struct AttentionCached {
  Range out;
  Range keys;
  Range values;
  Range qk;
  Range qkv;
  Range starts;
  Range lengths;
  u32 tokens;
  u32 heads;
  u32 kv_heads;
  u32 head_dim;
  u32 sequences;
  u32 capacity;
  u32 window;
  f32 scale;
  u32 dtype;
};
struct SwigluForward {
  Range y;
  Range gate_up;
  u32 tokens;
  u32 width;
  u32 dtype;
};
struct SwigluBackward {
  Range gate_up;
  Range dy;
  u32 tokens;
  u32 width;
  u32 dtype;
};
struct GegluForward {
  Range y;
  Range gate_up;
  u32 tokens;
  u32 width;
  u32 dtype;
};
struct GegluBackward {
  Range gate_up;
  Range dy;
  u32 tokens;
  u32 width;
  u32 dtype;
};
struct CrossEntropy {
  Range logits;
  Range loss;
  Range targets;
  u32 rows;
  u32 vocabulary;
  f32 scale;
  u32 gradient;
  u32 dtype;
};
struct LossSum {
  Range total;
  Range losses;
  u32 count;
  u32 check;
};
struct SquaredNorm {
  Range sum;
  Range x;
  u64 count;
  u32 dtype;
};
struct SquaredNormOtherRows {
  Range sum;
  Range x;
  Range tokens;
  u32 distinct;
  u32 vocabulary;
  u32 width;
  u32 dtype;
};
struct Accumulate {
  Range to;
  Range from;
  u64 count;
  u32 accumulate;
  u32 dtype;
};
struct ClipFactor {
  Range factor;
  Range sums;
  u32 parts;
  f64 max_norm;
};
struct Adamw {
  Range hi;
  Range lo;
  Range m;
  Range v;
  Range gradient;
  Range factor;
  u64 count;
  u32 gradient_dtype;
  u32 step;
  f64 learning_rate;
  f64 beta1;
  f64 beta2;
  f64 epsilon;
  f64 weight_decay;
};
struct AdamwRows {
  Range hi;
  Range lo;
  Range m;
  Range v;
  Range gradient;
  Range tokens;
  Range factor;
  u32 distinct;
  u32 width;
  u32 vocabulary;
  u32 step;
  f64 learning_rate;
  f64 beta1;
  f64 beta2;
  f64 epsilon;
  f64 weight_decay;
};
struct AdamwOtherRows {
  Range hi;
  Range lo;
  Range m;
  Range v;
  Range gradient;
  Range tokens;
  Range factor;
  u32 distinct;
  u32 width;
  u32 vocabulary;
  u32 gradient_dtype;
  u32 step;
  f64 learning_rate;
  f64 beta1;
  f64 beta2;
  f64 epsilon;
  f64 weight_decay;
};
struct FileRead {
  Range to;
  Range file;
  Range checksum;
};
struct FileWrite {
  Range file;
  Range from;
  Range checksum;
};
struct FileSync {
  Range file;
};

/** How kernels are launched, by family: zig/device/gpu/shapes.zig. */
namespace shapes {
namespace reduce {
constexpr int partial_columns = 32;
constexpr int partial_threads = 256;
}
namespace adamw {
constexpr int threads = 256;
constexpr int unrolled = 2;
}
namespace bias {
constexpr int threads = 256;
constexpr int across = 32;
}
namespace elementwise {
constexpr int threads = 256;
constexpr int unrolled = 4;
}
namespace gradient {
constexpr int threads = 256;
constexpr int unrolled = 4;
constexpr int blocks_at_once = 8;
}
namespace linear {
constexpr int threads = 256;
}
namespace loss {
constexpr int threads_max = 1024;
constexpr int kept = 5;
}
namespace norm {
constexpr int threads_max = 512;
constexpr int kept = 2;
}
namespace rope {
constexpr int threads = 256;
constexpr int fast_head_dim_max = 512;
constexpr int forward_threads = 128;
constexpr int forward_heads = 4;
constexpr int forward_blocks = 5;
constexpr int backward_threads = 256;
constexpr int backward_heads = 1;
constexpr int backward_blocks = 3;
}
namespace rows {
constexpr int threads = 256;
}
namespace swiglu {
constexpr int threads = 256;
constexpr int vectors = 2;
}
}  // namespace shapes

}  // namespace sluice
