// One layer of one rank's paged KV cache on a CUDA device, and the sequences of a step.
#pragma once

namespace qwenbench::kernels {

constexpr int kHeadDim = 128;  // of the text model's heads

enum class KvDtype { kBFloat16, kFp8E4M3 };

/// K and V are each [num_blocks][kv_heads][block_size][128]. block_size is a power of two, at least 16. A stored FP8
/// code stands for code * scale of its KV head; scales are positive and lie on the device, [kv_heads]. They are not
/// read where the cache is BF16.
struct KvLayer {
  void* k;
  void* v;
  KvDtype dtype;
  int kv_heads, block_size;
  const float* k_scale;
  const float* v_scale;
};

/// The sequences of a step. All pointers are device arrays; kernels read their contents, never the host, so a CUDA
/// graph can be replayed with new ones.
struct PagedBatch {
  const int* block_table;  // [num_seqs][max_blocks]
  int max_blocks;
  const int* kv_length;  // [num_seqs] tokens in the cache after this step; 0: padding, no sequence
  const int* first_row;  // [num_seqs] of the sequence's tokens in this step
  const int* num_rows;   // [num_seqs] tokens of this step: the last num_rows of kv_length
  int num_seqs;
};

}  // namespace qwenbench::kernels
