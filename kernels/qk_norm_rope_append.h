// Between the QKV projection and attention: per-head RMSNorm of q and k, M-RoPE, and the cache append.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/kv_cache_layout.h"

namespace qwenbench::kernels {

struct QkNormRopeAppend {
  const void* qkv;  // bf16 [tokens, (heads + 2 * kv_heads) * 128]
  void* q_out;      // bf16 [tokens, heads * 128]
  int tokens, heads;
  const void* q_weight;  // bf16 [128]
  const void* k_weight;  // bf16 [128]
  float eps;             // of the norms
  const float* cos;      // [tokens][64], of the pairs (i, i + 64)
  const float* sin;
  KvLayer cache;
  const std::int64_t* slot;  // [tokens] block * block_size + offset; negative: K and V of the token are not stored
  // Where not null, K after norm and RoPE and V as computed, bf16 [tokens, kv_heads * 128], for calibration.
  void* k_out = nullptr;
  void* v_out = nullptr;
};

/// Norm and rotation are computed in fp32 and rounded once, to bf16. An FP8 cache stores e4m3(bf16(x) / scale): IEEE
/// division, round to nearest even, saturated; a BF16 cache stores bf16(x).
cudaError_t qk_norm_rope_append(const QkNormRopeAppend& op, cudaStream_t stream);

}  // namespace qwenbench::kernels
