// RMSNorm or LayerNorm of one row whose values lie in a block's registers.
#pragma once

#include "kernels/add_norm.h"
#include "kernels/vec.cuh"

namespace qwenbench::kernels {

/// Calls fn(v, column) for each 16-byte vector of a row that is this thread's.
template <int kVectors, class Fn>
__device__ __forceinline__ void for_my_vectors(int vectors, Fn fn) {
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int column = threadIdx.x + v * blockDim.x;
    if (column < vectors) fn(v, column);
  }
}

/// out row = norm(values); by all threads of the block. `weight` are this thread's vectors of a.weight, `shared` is as
/// block_sum() wants it.
template <int kVectors>
__device__ __forceinline__ void norm_row(const AddNorm& a, const float (&values)[kVectors][8],
                                         const Bf16x8 (&weight)[kVectors], long long row, float* shared) {
  const int vectors = a.width / 8;
  float mean = 0, sum = 0;
  if (a.norm_bias) {
    for_my_vectors<kVectors>(vectors, [&](int v, int) {
      for (int i = 0; i < 8; ++i) sum += values[v][i];
    });
    mean = block_sum(sum, shared) / a.width;
    sum = 0;
  }
  for_my_vectors<kVectors>(vectors, [&](int v, int) {
    for (int i = 0; i < 8; ++i) sum += (values[v][i] - mean) * (values[v][i] - mean);
  });
  const float scale = rsqrtf(block_sum(sum, shared) / a.width + a.eps);
  for_my_vectors<kVectors>(vectors, [&](int v, int column) {
    float factor[8], normed[8];
    unpack(weight[v], factor);
    for (int i = 0; i < 8; ++i) normed[i] = (values[v][i] - mean) * scale * factor[i];
    if (a.norm_bias) {
      unpack(reinterpret_cast<const Bf16x8*>(a.norm_bias)[column], factor);
      for (int i = 0; i < 8; ++i) normed[i] += factor[i];
    }
    reinterpret_cast<Bf16x8*>(a.out)[row * vectors + column] = pack(normed);
  });
}

}  // namespace qwenbench::kernels
