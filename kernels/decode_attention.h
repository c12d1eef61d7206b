// Attention of one new token per sequence against its paged context.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "kernels/qk_norm_rope_append.h"

namespace qwenbench::kernels {

struct DecodeAttention {
  const void* q;  // bf16 [rows, heads * 128], after RoPE; row first_row[s] belongs to sequence s
  void* out;      // bf16 [rows, heads * 128]
  int heads;      // query head i uses KV head i / (heads / kv_heads); at most 16 query heads a KV head
  KvLayer cache;
  PagedBatch batch;   // only sequences with num_rows == 1 and kv_length > 0 are computed, no other row is written
  int max_kv_length;  // no sequence is longer; sizes the grid, which depends on no device data
  void* workspace;    // decode_attention_workspace_bytes(), as plan_decode_attention() leaves it
  // FP8 attention, of an FP8 cache only: where q_scale (device [kv_heads]) is not null, the queries are rounded to
  // e4m3(q / q_scale) and the weights exp(score - running maximum) to e4m3(weight / prob_scale) before the products.
  const float* q_scale = nullptr;
  float prob_scale = 0.00390625f;  // 2^-8
  // Where raw.qkv is not null, its rows first_row[s] go through what qk_norm_rope_append() does to them, by the same
  // formulas, in front of attention: q and raw.q_out are not used, and raw.k_out and raw.v_out must be null.
  QkNormRopeAppend raw = {};
  // Set where the kernel in front on the stream is the decode_chain() that writes raw.qkv: its words are waited for one
  // by one, and what follows on the stream must be a kernel that waits for this one before it touches more than its
  // weights.
  bool raw_is_announced = false;
  float out_factor = 1;  // outputs are multiplied by it: a power of two, for who reads them
  int shared_limit = 0;  // bytes of shared memory that a block may take at most; 0: what the device allows
};

constexpr int kMaxDecodeSequences = 1024;

/// Bytes of workspace on the current device for up to num_seqs sequences.
std::size_t decode_attention_workspace_bytes(int num_seqs, int heads, int kv_heads);

/// Tells the thread blocks of the launches that follow on the stream what to do: once for all layers of a step, as long
/// as `batch`, its device data, max_kv_length, the number of KV heads and the workspace are the same. Nothing else of
/// `op` is used.
cudaError_t plan_decode_attention(const DecodeAttention& op, cudaStream_t stream);

/// softmax(q k^T / sqrt(128)) v with fp32 sums. The context of all sequences is cut into equal slices, one a thread
/// block, whatever their lengths are; the last block of a sequence's head adds the parts in a fixed order, so results
/// depend on the lengths of the batch and the device, but on no timing.
cudaError_t decode_attention(const DecodeAttention& op, cudaStream_t stream);

}  // namespace qwenbench::kernels
