//! How kernels are launched: what a launch function and its kernels must agree on, by family. `generate.zig` writes the same
//! numbers into `cuda/abi.gen.cuh`, where `cuda/FAMILY.cu` takes them from `shapes::FAMILY`. Only this file says them.

/// `reduce.cuh`: sums of what blocks left in the workspace.
pub const reduce = struct {
    pub const partial_columns = 32;
    pub const partial_threads = 256;
};

pub const adamw = struct {
    pub const threads = 256;
    /// Vectors of four per thread.
    pub const unrolled = 2;
};

pub const bias = struct {
    pub const threads = 256;
    /// Vectors of eight side by side.
    pub const across = 32;
};

pub const elementwise = struct {
    pub const threads = 256;
    /// Vectors of four per thread; all are loaded before the first is stored.
    pub const unrolled = 4;
};

pub const gradient = struct {
    pub const threads = 256;
    /// Vectors of four that a thread loads before it uses the first.
    pub const unrolled = 4;
    /// On a multiprocessor: all blocks of the largest grid on 132 of them.
    pub const blocks_at_once = 8;
};

/// The plain products that stand in where the matrix library refuses.
pub const linear = struct {
    pub const threads = 256;
};

pub const loss = struct {
    pub const threads_max = 1024;
    /// Vectors of eight per thread in registers.
    pub const kept = 5;
};

pub const norm = struct {
    pub const threads_max = 512;
    /// Vectors of eight per thread in registers.
    pub const kept = 2;
};

pub const rope = struct {
    /// Of the `_any` kernels.
    pub const threads = 256;
    pub const fast_head_dim_max = 512;
    pub const forward_threads = 128;
    /// That a thread takes at a time.
    pub const forward_heads = 4;
    /// That fit on a multiprocessor.
    pub const forward_blocks = 5;
    pub const backward_threads = 256;
    pub const backward_heads = 1;
    pub const backward_blocks = 3;
};

pub const rows = struct {
    pub const threads = 256;
};

pub const swiglu = struct {
    pub const threads = 256;
    /// Vectors of eight per thread; all are loaded before the first is used.
    pub const vectors = 2;
};
