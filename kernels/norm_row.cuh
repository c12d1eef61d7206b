// One row of add_norm() whose values lie in a block's registers: what joins the residual, and RMSNorm or LayerNorm of
// it.
#pragma once

#include "kernels/add_norm.h"
#include "kernels/vec.cuh"

namespace qwenbench::kernels {

/// Calls fn(v, column) for each vector of 8 of a row that is this thread's.
template <int kVectors, class Fn>
__device__ __forceinline__ void for_my_vectors(int vectors, Fn fn) {
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int column = threadIdx.x + v * blockDim.x;
    if (column < vectors) fn(v, column);
  }
}

/// values += the vector at `at` of a bf16 matrix.
__device__ __forceinline__ void add_vector(const void* matrix, long long at, float (&values)[8]) {
  float more[8];
  unpack(reinterpret_cast<const Bf16x8*>(matrix)[at], more);
#pragma unroll
  for (int i = 0; i < 8; ++i) values[i] += more[i];
}

__device__ __forceinline__ F32x8 load_residual(const AddNorm& a, long long at) {
  return a.begins ? F32x8{} : reinterpret_cast<const F32x8*>(a.residual)[at];
}

__device__ __forceinline__ void store_residual(const AddNorm& a, long long at, const float (&values)[8]) {
  F32x8 vector;
#pragma unroll
  for (int i = 0; i < 8; ++i) vector.values[i] = values[i];
  reinterpret_cast<F32x8*>(a.residual)[at] = vector;
}

/// The row of features that joins `row`, or -1.
__device__ __forceinline__ int feature_of(const AddNorm& a, long long row) {
  return a.features && a.feature_of_row ? a.feature_of_row[row] : -1;
}

/// values += bias and features, where there are any.
__device__ __forceinline__ void add_extras(const AddNorm& a, int feature, int column, float (&values)[8]) {
  if (a.bias) add_vector(a.bias, column, values);
  if (feature >= 0) add_vector(a.features, static_cast<long long>(feature) * (a.width / 8) + column, values);
}

/// This thread's vectors of a.weight.
template <int kVectors>
__device__ __forceinline__ void load_norm_weight(const AddNorm& a, Bf16x8 (&weight)[kVectors]) {
  if (!a.out) return;
  for_my_vectors<kVectors>(a.width / 8,
                           [&](int v, int column) { weight[v] = reinterpret_cast<const Bf16x8*>(a.weight)[column]; });
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
    if (a.norm_bias) add_vector(a.norm_bias, column, normed);
    reinterpret_cast<Bf16x8*>(a.out)[row * vectors + column] = pack(normed);
  });
}

}  // namespace qwenbench::kernels
