// Attention of the tokens of a step, several to a sequence, against their paged context and one another.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "kernels/kv_cache_layout.h"

namespace qwenbench::kernels {

struct PrefillAttention {
  const void* q;  // bf16 [rows, heads * 128], after RoPE
  void* out;      // bf16 [rows, heads * 128]
  int rows, heads;
  KvLayer cache;                   // holds the step's own tokens already
  PagedBatch batch;                // rows of the batch are tokens of the step
  const int* row_token = nullptr;  // device [rows], ascending: the token of each row of q; null: row i is token i
  int min_rows = 1;                // sequences with fewer tokens in the step are left to decode_attention
  long long
      max_total_kv;  // at least the sum of kv_length over the sequences that are computed: sizes grid and workspace
  void* workspace;   // an FP8 cache needs it: prefill_attention_workspace_bytes()
  std::size_t workspace_bytes;
  const float* q_scale = nullptr;  // FP8 attention, as of DecodeAttention
  float prob_scale = 0.00390625f;
  bool use_wgmma = true;  // where the device has it (sm_90)
};

/// Bytes that hold K and V of all KV heads in 16 bits. Less will do, and costs speed: at least those of one KV head.
std::size_t prefill_attention_workspace_bytes(long long max_total_kv, int num_seqs, int block_size, int kv_heads);

/// Causal: a token attends to itself and all before it. FP8 codes are expanded to bf16, exactly, scales being applied
/// in fp32 to the scores and the output. Returns cudaErrorMemoryAllocation where the workspace is too small.
cudaError_t prefill_attention(const PrefillAttention& op, cudaStream_t stream);

}  // namespace qwenbench::kernels
